use kubewire::testing::ApiServer;

use crate::{Result, serve};

#[tokio::test]
async fn mark() -> Result {
    let (_server, client) = serve().await?;
    let pod = client.pod("default", "web-0");
    // [mark]
    let script = "seq 100000 && echo complete";
    let output = pod.exec(["sh", "-c", script]).output().await?;
    let whole = output.status.success() && output.stdout.ends_with(b"\ncomplete\n");
    assert!(whole);
    // [end]
    Ok(())
}

#[tokio::test]
async fn bound() -> Result {
    let (_server, client) = serve().await?;
    let pod = client.pod("default", "web-0");
    // [bound]
    use kubewire::{Error, error::CallerError};

    let large = pod
        .exec(["head", "-c", "1000000", "/dev/zero"])
        .max_output(1000);
    let error = large.output().await.unwrap_err();
    assert!(matches!(
        error,
        Error::Caller(CallerError::TooMuchOutput { limit: 1000 })
    ));
    // [end]
    Ok(())
}

#[tokio::test]
async fn unread() -> Result {
    let (_server, client) = serve().await?;
    let pod = client.pod("default", "web-0");
    // [unread]
    use kubewire::{Error, error::CallerError};

    let mut child = pod
        .exec(["head", "-c", "64000000", "/dev/zero"])
        .spawn()
        .await?;
    let error = child.wait().await.unwrap_err(); // nobody reads child.stdout
    assert!(matches!(error, Error::Caller(CallerError::Unread { .. })));
    child.stdout = None; // nobody will
    assert!(child.wait().await?.success());
    // [end]
    Ok(())
}

#[tokio::test]
async fn end_of_input() -> Result {
    let server = ApiServer::builder()
        .subprotocols([kubewire::exec::Subprotocol::V4])
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await?;
    let client = kubewire::Client::new(&server.config())?;
    let pod = client.pod("default", "web-0");
    // [end-of-input]
    use kubewire::exec::Stdio;
    use tokio::io::AsyncWriteExt as _;

    let input = b"a\nb\n";
    let count = input.len().to_string();
    let mut child = pod
        .exec(["head", "-c", &count])
        .stdin(Stdio::piped())
        .spawn()
        .await?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    assert!(!stdin.can_shutdown()); // an old server: the program must know when it has enough
    stdin.write_all(input).await?;
    assert_eq!(child.wait_with_output().await?.stdout, input);
    // [end]
    Ok(())
}

#[tokio::test]
async fn forbidden() -> Result {
    let (server, _) = serve().await?;
    let client = kubewire::Client::new(&server.config_with_token(server.token_without_rights()))?;
    let pod = client.pod("default", "web-0");
    // [forbidden]
    use kubewire::{Error, error::Hint};

    match pod.exec(["true"]).output().await {
        Err(Error::Api(error)) => match error.hint {
            Some(Hint::Rule {
                resource, verbs, ..
            }) => {
                assert_eq!((resource.as_str(), verbs[0].as_str()), ("pods/exec", "get"));
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    // [end]
    Ok(())
}

#[tokio::test]
async fn timeout() -> Result {
    let (_server, client) = serve().await?;
    let pod = client.pod("default", "web-0");
    // [timeout]
    use kubewire::{Error, error::CallerError};
    use std::time::Duration;

    // The container ends it.
    let output = pod
        .exec(["timeout", "0.1", "sleep", "600"])
        .output()
        .await?;
    assert_eq!(output.status.code(), Some(124));

    // This side no longer waits, and has what came so far.
    let slow = pod
        .exec(["sh", "-c", "echo begun; sleep 2"])
        .timeout(Duration::from_secs(1));
    match slow.output().await {
        Err(Error::Caller(CallerError::TimedOut { output, .. })) => {
            println!("{}", String::from_utf8_lossy(&output.stdout));
        }
        other => println!("{other:?}"),
    }
    // [end]
    Ok(())
}

#[tokio::test]
async fn upload() -> Result {
    let (_server, client) = serve().await?;
    let pod = client.pod("default", "web-0");
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("file");
    let path = path.to_str().ok_or("a path")?;
    // [upload]
    let data = vec![b'x'; 1 << 20];
    // Not `cat > file` alone: the shell would become cat, whose stdout is the file.
    let script = "cat > \"$1\" && wc -c < \"$1\"";
    let upload = pod.exec(["sh", "-c", script, "sh", path]);
    let output = upload.input(data).output().await?;
    let arrived = String::from_utf8_lossy(&output.stdout);
    assert_eq!(arrived.trim(), (1 << 20).to_string());
    // [end]
    Ok(())
}
