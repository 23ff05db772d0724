//! What clients of this library see.

use kubewire::{Client, exec::Stdio};

use super::*;

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), work)
        .await
        .expect("it hangs")
}

#[tokio::test]
async fn a_deletion_ends_what_clients_have_open() {
    let server = builder()
        .pod("default", "a", |pod| {
            pod.container("main", ["sh", "-c", "echo up; sleep infinity"])
        })
        .start()
        .await
        .unwrap();
    let pod = Client::new(&server.config()).unwrap().pod("default", "a");
    let mut exec = pod
        .exec(["sh", "-c", "echo on; sleep 1000"])
        .spawn()
        .await
        .unwrap();
    let mut line = [0; 3];
    soon(exec.stdout.as_mut().unwrap().read_exact(&mut line))
        .await
        .unwrap();
    let mut attached = pod.attach().spawn().await.unwrap();
    let mut logs = pod.logs().follow().stream();
    assert_eq!(soon(logs.next()).await.unwrap().unwrap().bytes, "up");
    send(&server, &format!("DELETE {PODS}/a"), &[], "").await;
    let output = soon(exec.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(137));
    soon(attached.wait()).await.unwrap();
    while let Some(Ok(_)) = soon(logs.next()).await {}
}

#[tokio::test]
async fn an_attach_ends_with_its_stdin_unless_that_is_the_process_s() {
    let server = builder()
        .pod("default", "a", |pod| {
            pod.container_with("open", ["cat"], |container| container.stdin())
                .container_with("once", ["cat"], |container| container.stdin_once())
        })
        .start()
        .await
        .unwrap();
    let pod = Client::new(&server.config()).unwrap().pod("default", "a");
    for name in ["open", "once"] {
        let attach = pod.attach().container(name).stdin(Stdio::piped());
        let mut attached = attach.spawn().await.unwrap();
        drop(attached.stdin.take());
        soon(attached.wait()).await.unwrap();
    }
    // Only the process whose stdin has ended has ended with it.
    until(&server, &format!("{PODS}/a"), |answer| {
        let pod = answer.json();
        let state = |at: usize| pod["status"]["containerStatuses"][at]["state"].clone();
        state(0)["running"].is_object() && state(1)["terminated"].is_object()
    })
    .await;
}

#[tokio::test]
async fn two_pods_have_the_same_port() {
    let say = |text: &'static str| {
        move |mut io: tokio::io::DuplexStream| async move {
            io.write_all(text.as_bytes()).await.unwrap();
        }
    };
    let server = builder()
        .pod("default", "a", |pod| pod.port_with(8080, say("a")))
        .pod("default", "b", |pod| pod.port_with(8080, say("b")))
        .start()
        .await
        .unwrap();
    let client = Client::new(&server.config()).unwrap();
    for name in ["a", "b"] {
        let forward = client
            .pod("default", name)
            .port_forward()
            .connect()
            .await
            .unwrap();
        let mut connection = soon(forward.open(8080)).await.unwrap();
        let mut text = String::new();
        soon(connection.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, name);
    }
}

const HELD: &str = "KUBEWIRE_TEST_HELD";

/// Started by the test below, and killed by it.
#[tokio::test]
async fn holds_a_container() {
    let Ok(file) = std::env::var(HELD) else {
        return;
    };
    let started = format!("{file}.started");
    let command = format!("echo $$ >{started}.new; mv {started}.new {started}; exec sleep 1000");
    let _server = builder()
        .pod("default", "a", |pod| {
            pod.container("main", ["sh", "-c", &command])
        })
        .start()
        .await
        .unwrap();
    // The server starts it on this thread: what it does behind that, it has done now.
    while std::fs::rename(&started, &file).is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_program_leaves_no_container_running() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let mut program = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "clients::holds_a_container"])
        .env(HELD, &file)
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let wait = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(wait).await;
    let pid: u32 = std::fs::read_to_string(&file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    program.kill().await.unwrap();
    let ends = async {
        // `kill -0` asks whether it is there.
        let is_there = || {
            let mut kill = std::process::Command::new("sh");
            kill.args(["-c", &format!("kill -0 {pid} 2>/dev/null")]);
            kill.status().unwrap().success()
        };
        while is_there() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(ends).await;
}
