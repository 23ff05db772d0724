//! Much data, slow readers, many sessions.

use super::{soon::PATIENCE, *};

/// Bytes that are nowhere the same, and are known at every offset.
fn pattern(offset: u64, length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 8);
    let mut word = offset / 8;
    while bytes.len() < length {
        let mixed = (word ^ (word >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        word += 1;
    }
    bytes.truncate(length);
    bytes.into()
}

/// Sends `total` bytes through `cat` and compares what comes back.
async fn through_cat(pod: &Pod, total: u64) -> Result {
    const CHUNK: usize = 64 << 10;
    let mut child = pod.exec(["cat"]).stdin(Stdio::piped()).spawn().await?;
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let write = async move {
        for offset in (0..total).step_by(CHUNK) {
            stdin.write_all(&pattern(offset, CHUNK)).await?;
        }
        stdin.shutdown().await
    };
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        for offset in (0..total).step_by(CHUNK) {
            stdout.read_exact(&mut buffer).await?;
            assert!(
                buffer == pattern(offset, CHUNK),
                "other bytes near {offset}"
            );
        }
        assert_eq!(stdout.read(&mut buffer).await?, 0);
        io::Result::Ok(())
    };
    tokio::try_join!(write, read)?;
    assert!(child.wait().await?.success());
    Ok(())
}

#[tokio::test]
async fn stdin_and_stdout_flow_at_once() -> Result {
    for fixture in [Fixture::new().await?, Fixture::plain().await?] {
        tokio::time::timeout(4 * PATIENCE, through_cat(&fixture.web(), 64 << 20)).await??;
    }
    Ok(())
}

/// `cargo test --release --test exec -- --ignored`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a GiB: seconds in release mode, minutes otherwise"]
async fn a_gibibyte_flows_through_cat() -> Result {
    for fixture in [Fixture::new().await?, Fixture::plain().await?] {
        let start = Instant::now();
        through_cat(&fixture.web(), 1 << 30).await?;
        println!("1 GiB there and back in {:?}", start.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn a_reader_that_sleeps_loses_nothing() -> Result {
    let expected: String = (1..=700_000).map(|n| format!("{n}\n")).collect();
    for protocol in [Subprotocol::V5, Subprotocol::V4] {
        let fixture = Fixture::new().await?;
        let exec = fixture
            .web()
            .exec(["sh", "-c", "seq 1 700000; exit 3"])
            .subprotocols([protocol]);
        let mut child = soon(exec.spawn()).await?;
        let mut stdout = child.stdout.take().expect("piped");
        let mut output = vec![0; 10];
        soon(stdout.read_exact(&mut output)).await?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        soon(stdout.read_to_end(&mut output)).await?;
        assert!(output == expected.as_bytes(), "{} bytes", output.len());
        assert_eq!(soon(child.wait()).await?.code(), Some(3));
    }
    Ok(())
}

#[tokio::test]
async fn input_that_nobody_reads_does_not_destroy_output() -> Result {
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    let fixture = Fixture::plain().await?;
    for protocol in [Subprotocol::V5, Subprotocol::V4, Subprotocol::V1] {
        let exec = fixture
            .web()
            .exec(["sh", "-c", "seq 1 300000; exit 3"])
            .stdin(Stdio::piped())
            .subprotocols([protocol]);
        let mut child = soon(exec.spawn()).await?;
        let mut stdin = child.stdin.take().expect("piped");
        let mut stdout = child.stdout.take().expect("piped");
        let flood = async move {
            let chunk = vec![0; 64 << 10];
            while stdin.write_all(&chunk).await.is_ok() {}
        };
        let mut output = Vec::new();
        let read = async {
            let read = stdout.read_to_end(&mut output).await;
            (read, child.wait().await)
        };
        let ((), (read, status)) = soon(async { tokio::join!(flood, read) }).await;
        read?;
        assert!(
            output == expected.as_bytes(),
            "{} bytes over {protocol}",
            output.len()
        );
        assert_eq!(status?.code(), Some(3));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_sessions_do_not_mix() -> Result {
    let fixture = Fixture::new().await?;
    let mut sessions = tokio::task::JoinSet::new();
    for number in 0..200 {
        let pod = fixture.web();
        sessions.spawn(async move {
            let script = format!("cat; echo {number} >&2; exit {}", number % 100);
            let exec = pod.exec(["sh", "-c", &script]).stdin(Stdio::piped());
            let mut child = exec.spawn().await?;
            let mut stdin = child.stdin.take().expect("piped");
            stdin.write_all(&pattern(number * 8, 10_000)).await.unwrap();
            stdin.shutdown().await.unwrap();
            let output = child.wait_with_output().await?;
            assert!(output.stdout == pattern(number * 8, 10_000));
            assert_eq!(output.stderr, format!("{number}\n").as_bytes());
            assert_eq!(output.status.code(), Some(number as i32 % 100));
            Ok::<_, Error>(())
        });
    }
    while let Some(session) = tokio::time::timeout(4 * PATIENCE, sessions.join_next()).await? {
        session??;
    }
    Ok(())
}

/// As container runtimes do to `sh -c 'cat >file'`: the process has no stdout, its input ends early,
/// and it succeeds.
#[tokio::test]
async fn input_that_a_process_did_not_see_is_told() -> Result {
    let fixture = Fixture::plain().await?;
    let file = std::env::temp_dir().join(format!("kubewire-input-{}", std::process::id()));
    for protocol in [Subprotocol::V5, Subprotocol::V4, Subprotocol::V1] {
        let script = format!("exec head -c 32768 >{}", file.display());
        let exec = fixture
            .web()
            .exec(["sh", "-c", &script])
            .stdin(Stdio::piped())
            .subprotocols([protocol]);
        let mut child = soon(exec.spawn()).await?;
        let mut stdin = child.stdin.take().expect("piped");
        let flood = async move {
            let chunk = vec![0; 64 << 10];
            while stdin.write_all(&chunk).await.is_ok() {}
        };
        let ((), status) = soon(async { tokio::join!(flood, child.wait()) }).await;
        let status = status?;
        assert!(status.success(), "{protocol}: {status:?}");
        assert_eq!(std::fs::metadata(&file)?.len(), 32768);
        let input = status.input_at_exit();
        assert!(!input.closed && !input.is_whole(), "{protocol}: {input:?}");
    }
    let script = format!("cat >{}; true", file.display());
    let exec = fixture.web().exec(["sh", "-c", &script]);
    let mut child = soon(exec.clone().stdin(Stdio::piped()).spawn()).await?;
    let mut stdin = child.stdin.take().expect("piped");
    let input = vec![0; 1 << 20];
    let feed = async {
        stdin.write_all(&input).await?;
        stdin.shutdown().await
    };
    let (fed, output) = soon(async { tokio::join!(feed, child.wait_with_output()) }).await;
    fed?;
    let input = output?.status.input_at_exit();
    assert_eq!(
        (input.closed, input.unsent, input.is_whole()),
        (true, 0, true)
    );
    assert_eq!(std::fs::metadata(&file)?.len(), 1 << 20);
    std::fs::remove_file(&file)?;

    let without = soon(fixture.web().exec(["true"]).status()).await?;
    assert!(without.input_at_exit().is_whole());
    Ok(())
}
