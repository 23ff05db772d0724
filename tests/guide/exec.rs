use crate::{Result, serve};

#[tokio::test]
async fn output() -> Result {
    let (_server, client) = serve().await?;
    // [output]
    let pod = client.pod("default", "web-0");
    let output = pod
        .exec(["sh", "-c", "echo out; echo err >&2; exit 3"])
        .output()
        .await?;
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.status.code(), Some(3));
    // [end]
    Ok(())
}

#[tokio::test]
async fn input() -> Result {
    let (_server, client) = serve().await?;
    let pod = client.pod("default", "web-0");
    // [input]
    let data = vec![b'x'; 8 << 20];
    let output = pod.exec("cat").input(data).output().await?;
    assert_eq!(output.stdout.len(), 8 << 20);
    // [end]
    Ok(())
}

#[tokio::test]
async fn stream() -> Result {
    let (_server, client) = serve().await?;
    let pod = client.pod("default", "web-0");
    // [stream]
    use futures_util::StreamExt as _;

    let mut child = pod
        .exec(["head", "-c", "1000000", "/dev/zero"])
        .spawn()
        .await?;
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let mut bytes = 0;
    while let Some(slice) = stdout.next().await {
        bytes += slice?.len(); // of the buffer that the socket was read into
    }
    assert!(child.wait().await?.success());
    assert_eq!(bytes, 1_000_000);
    // [end]
    Ok(())
}

#[tokio::test]
async fn terminal() -> Result {
    let (_server, client) = serve().await?;
    let pod = client.pod("default", "web-0");
    // [terminal]
    use kubewire::exec::TerminalSize;
    use tokio::io::AsyncBufReadExt as _;

    let script = "until test \"$(stty size)\" = '43 132'; do sleep 0.1; done; echo grown";
    let shell = pod
        .exec(["sh", "-c", script])
        .tty(TerminalSize::new(80, 24));
    let mut child = shell.spawn().await?;
    let mut lines = child.stdout.take().expect("stdout is piped").lines();
    child.resize(TerminalSize::new(132, 43))?;
    assert_eq!(lines.next_line().await?.as_deref(), Some("grown"));
    // [end]
    Ok(())
}

#[tokio::test]
async fn failure() -> Result {
    let (_server, client) = serve().await?;
    let pod = client.pod("default", "web-0");
    // [failure]
    use kubewire::{Error, error::Hint};

    match pod.exec(["/no/such/program"]).output().await {
        Ok(output) => println!("it ran: {}", output.status),
        Err(Error::Api(refusal)) => assert!(matches!(refusal.hint, Some(Hint::Program(_)))),
        Err(Error::Network(lost)) => println!("nobody knows whether it ran: {lost}"),
        Err(other) => return Err(other.into()),
    }
    // [end]
    Ok(())
}

#[tokio::test]
async fn by_hand() -> Result {
    let (_server, client) = serve().await?;
    let pod = client.pod("default", "web-0");
    // [by-hand]
    use kubewire::exec::Stdio;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

    let mut child = pod.exec("cat").stdin(Stdio::piped()).spawn().await?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let mut lines = child.stdout.take().expect("stdout is piped").lines();
    stdin.write_all(b"ping\n").await?;
    assert_eq!(lines.next_line().await?.as_deref(), Some("ping"));
    stdin.shutdown().await?; // the process sees the end of its input
    assert!(child.wait().await?.success());
    // [end]
    Ok(())
}
