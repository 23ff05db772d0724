//! attach.

use super::{raw::get, *};

#[tokio::test]
async fn attach_joins_a_running_process() -> Result {
    let fixture = Fixture::new().await?;
    let attach = fixture.pod("catter").attach().stdin(Stdio::piped());
    let mut first = soon(attach.spawn()).await?;
    let mut stdin = first.stdin.take().expect("piped");
    let mut seen = BufReader::new(first.stdout.take().expect("piped"));
    let mut line = String::new();
    stdin.write_all(b"before\n").await?;
    soon(seen.read_line(&mut line)).await?;
    assert_eq!(line, "before\n");

    let mut second = soon(fixture.pod("catter").attach().spawn()).await?;
    let mut too = BufReader::new(second.stdout.take().expect("piped"));
    stdin.write_all(b"after\n").await?;
    for seen in [&mut seen, &mut too] {
        line.clear();
        soon(seen.read_line(&mut line)).await?;
        assert_eq!(line, "after\n");
    }
    // One who leaves, even in order, does not end it.
    soon(stdin.shutdown()).await?;
    drop(first);
    let mut third = soon(attach.spawn()).await?;
    let mut stdin = third.stdin.take().expect("piped");
    stdin.write_all(b"again\n").await?;
    line.clear();
    soon(too.read_line(&mut line)).await?;
    assert_eq!(line, "again\n");
    Ok(())
}

#[tokio::test]
async fn attach_ends_with_the_process_and_without_a_code() -> Result {
    let builder = builder().pod("default", "brief", |pod| {
        pod.container_with("main", ["sh", "-c", "cat; echo bye >&2; exit 9"], |c| {
            c.stdin_once()
        })
    });
    let fixture = Fixture::with(builder).await?;
    let attach = fixture.pod("brief").attach().stdin(Stdio::piped());
    let mut attached = soon(attach.spawn()).await?;
    let mut stdin = attached.stdin.take().expect("piped");
    stdin.write_all(b"hello\n").await?;
    soon(stdin.shutdown()).await?;
    let (mut output, mut errors) = (String::new(), String::new());
    let mut stdout = attached.stdout.take().expect("piped");
    let mut stderr = attached.stderr.take().expect("piped");
    soon(stdout.read_to_string(&mut output)).await?;
    soon(stderr.read_to_string(&mut errors)).await?;
    assert_eq!((&output[..], &errors[..]), ("hello\n", "bye\n"));
    soon(attached.wait()).await?;

    // What has ended takes nobody in.
    let error = soon(attach.spawn()).await.unwrap_err();
    let why = "container main not found in pod brief_default";
    assert!(error.to_string().contains(why), "{error}");
    let pod = get(&fixture.server, "/api/v1/namespaces/default/pods/brief").await?;
    assert!(pod.contains("\"exitCode\":9"), "{pod}");
    Ok(())
}

#[tokio::test]
async fn input_that_ends_with_the_container_is_told() -> Result {
    let builder = builder().pod("default", "brief", |pod| {
        pod.container_with("main", ["head", "-c", "32768"], |c| c.stdin_once())
    });
    let fixture = Fixture::with(builder).await?;
    let attach = fixture.pod("brief").attach().stdin(Stdio::piped());
    let mut attached = soon(attach.stdout(Stdio::null()).spawn()).await?;
    assert!(attached.input_at_exit().is_none());
    attached.stderr = None;
    let mut stdin = attached.stdin.take().expect("piped");
    let flood = async move { while stdin.write_all(&[0; 64 << 10]).await.is_ok() {} };
    let ((), ended) = soon(async { tokio::join!(flood, attached.wait()) }).await;
    ended?;
    let input = attached.input_at_exit().expect("it has ended");
    assert!(!input.closed && !input.is_whole(), "{input:?}");
    Ok(())
}

#[tokio::test]
async fn attach_to_a_terminal_resizes_it() -> Result {
    let fixture = Fixture::new().await?;
    let mut attached = fixture
        .pod("shell")
        .attach()
        .stdin(Stdio::piped())
        .tty(TerminalSize::new(101, 33))
        .spawn()
        .await?;
    assert!(attached.stderr.is_none());
    let mut stdin = attached.stdin.take().expect("piped");
    let script =
        "while [ \"$(stty size)\" != '33 101' ]; do sleep 0.02; done; echo \"size=\"$((30+3))\n";
    stdin.write_all(script.as_bytes()).await?;
    let mut stdout = attached.stdout.take().expect("piped");
    let mut seen = Vec::new();
    soon(async {
        while !String::from_utf8_lossy(&seen).contains("size=33") {
            assert!(stdout.read_buf(&mut seen).await? > 0);
        }
        io::Result::Ok(())
    })
    .await?;
    stdin.write_all(b"exit\n").await?;
    soon(stdout.read_to_end(&mut seen)).await?;
    soon(attached.wait()).await?;
    Ok(())
}
