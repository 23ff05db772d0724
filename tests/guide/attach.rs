use kubewire::{Client, testing::ApiServer};

use crate::Result;

#[tokio::test]
async fn attach() -> Result {
    let server = ApiServer::builder()
        .pod("default", "echo-0", |pod| {
            pod.container_with("main", ["cat"], |container| container.stdin())
        })
        .start()
        .await?;
    let client = Client::new(&server.config())?;
    // [attach]
    use kubewire::attach::Stdio;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

    // The container runs `cat`, and has `stdin: true`.
    let pod = client.pod("default", "echo-0");
    let mut attached = pod.attach().stdin(Stdio::piped()).spawn().await?;
    let mut stdin = attached.stdin.take().expect("stdin is piped");
    let mut lines = attached.stdout.take().expect("stdout is piped").lines();
    stdin.write_all(b"hello\n").await?;
    assert_eq!(lines.next_line().await?.as_deref(), Some("hello"));
    drop(attached); // cat goes on
    // [end]
    let mut again = pod.attach().stdin(Stdio::piped()).spawn().await?;
    let mut stdin = again.stdin.take().expect("stdin is piped");
    let mut lines = again.stdout.take().expect("stdout is piped").lines();
    stdin.write_all(b"still there\n").await?;
    assert_eq!(lines.next_line().await?.as_deref(), Some("still there"));
    Ok(())
}

#[tokio::test]
async fn exit_code() -> Result {
    let server = ApiServer::builder()
        .pod("default", "job-0", |pod| {
            let read = ["sh", "-c", "read line; exit 3"];
            pod.container_with("main", read, |container| container.stdin())
        })
        .start()
        .await?;
    let client = Client::new(&server.config())?;
    let pod = client.pod("default", "job-0");
    let mut attached = pod
        .attach()
        .stdin(kubewire::attach::Stdio::piped())
        .spawn()
        .await?;
    let mut stdin = attached.stdin.take().expect("stdin is piped");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"go\n").await?;
    // [exit-code]
    use kubewire::logs::LogEnd;

    attached.wait().await?; // until the container ends
    let mut log = client.pod("default", "job-0").logs().follow().stream();
    while let Some(line) = log.next().await {
        line?;
    }
    let Some(LogEnd::Exited(exit)) = log.end() else {
        return Err("the pod has gone".into());
    };
    assert_eq!(exit.code, Some(3));
    // [end]
    Ok(())
}
