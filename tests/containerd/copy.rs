//! Copies against the streaming server of the container runtime, which knows no `v5.channel.k8s.io`:
//! what needs the end of stdin is refused, and what does not is whole.

use std::{io, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use kubewire::{Client, Error, Pod, error::CallerError};
use percent_encoding::percent_decode_str;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};

use super::{Containerd, cri, forward::head, shared, soon::soon, tree};

/// A pod whose API server is the runtime.
async fn pod(containerd: &'static Containerd) -> Pod {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(pass_on(socket, containerd));
        }
    });
    let client = Client::from_url(&format!("http://{address}")).expect("a URL");
    client.pod("default", "pod")
}

/// What a kubelet does: asks CRI for a URL, and passes the bytes on to it.
async fn pass_on(mut socket: TcpStream, containerd: &Containerd) -> io::Result<()> {
    let head = head(&mut socket).await?;
    let (line, headers) = head.split_once("\r\n").expect("a request line");
    let path = line.split(' ').nth(1).expect("a path");
    let Some((_, query)) = path.split_once("/exec?") else {
        // A question about the pod, which nobody here can answer.
        let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return socket.write_all(refusal.as_bytes()).await;
    };
    let all = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let values = pairs.filter(|(key, _)| *key == name);
        let values = values.map(|(_, value)| {
            let value = percent_decode_str(value).decode_utf8();
            value.expect("text").into_owned()
        });
        values.collect::<Vec<_>>()
    };
    let has = |name: &str| all(name).iter().any(|value| value == "true");
    let call = cri::Exec {
        id: containerd.container.clone(),
        command: all("command"),
        tty: false,
        stdin: has("stdin"),
        stdout: has("stdout"),
        stderr: has("stderr"),
    };
    let runtime = containerd.daemon.runtime().await;
    let url = runtime.call(call).await.expect("a URL").url;
    let rest = url.strip_prefix("http://").expect("CRI says http");
    let (authority, path) = rest.split_at(rest.find('/').expect("a path"));
    let mut behind = TcpStream::connect(authority).await?;
    let head = format!("GET {path} HTTP/1.1\r\n{headers}");
    behind.write_all(head.as_bytes()).await?;
    tokio::io::copy_bidirectional(&mut socket, &mut behind).await?;
    Ok(())
}

/// Files, links, a hole, and names that a shell would stumble over.
const PLANT: &str = r#"mkdir -p "$1/a b" && cd "$1" && i=0
while [ $i -lt 300 ]; do echo "contents of $i" >"a b/f$i"; i=$((i + 1)); done
dd if=/dev/urandom of=large bs=1M count=16 2>/dev/null
dd if=/dev/urandom of=hole bs=1k count=8 seek=4096 2>/dev/null
n=$(printf 'line\nfeed'); cp large "$n"; cp "a b/f1" ./-dash; chmod 750 ./-dash
ln -s "a b/f2" link; ln large again"#;

async fn said(pod: &Pod, script: &str, argument: &str) -> String {
    let command = ["sh", "-c", script, "sh", argument];
    let output = pod.exec(command).output().await.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// As the container's `sha256sum` would say it of a file here.
fn digests(root: &Path) -> String {
    let sum = "cd \"$1\" && find . -type f -exec busybox sha256sum {} + | sort";
    let output = std::process::Command::new("sh")
        .args(["-c", sum, "sh"])
        .arg(root)
        .output();
    let output = output.expect("sh runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_comes_whole() {
    let Some(containerd) = shared() else { return };
    let pod = pod(containerd).await;
    said(&pod, PLANT, "/tmp/tree").await;
    let sum = "cd \"$1\" && find . -type f -exec sha256sum {} + | sort";
    let expected = said(&pod, sum, "/tmp/tree").await;
    assert_eq!(expected.matches("a b/f").count(), 300);
    let here = tempfile::tempdir().expect("a directory");
    let root = here.path().join("tree");
    // Over what is there the second time.
    for _ in 0..2 {
        let copied = pod.copy_from("/tmp/tree", &root).run().await;
        let copied = copied.expect("it comes");
        assert_eq!(
            (copied.files, copied.left_out.len()),
            (305, 0),
            "{copied:?}"
        );
        assert_eq!(digests(&root), expected);
    }
    let target = std::fs::read_link(root.join("link")).expect("a link");
    assert_eq!(target, Path::new("a b/f2"));
    let mode = std::fs::metadata(root.join("-dash")).expect("a file");
    assert_eq!(mode.permissions().mode() & 0o777, 0o750);
    let on_disk = tree::on_disk(&root).expect("it is there");
    assert!(on_disk < 52 << 20, "the hole takes its place: {on_disk}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_the_end_of_stdin_is_refused_and_leaves_nothing() {
    let Some(containerd) = shared() else { return };
    let pod = pod(containerd).await;
    let here = tempfile::tempdir().expect("a directory");
    let file = here.path().join("file");
    std::fs::write(&file, "contents").expect("it is written");
    let copied = pod.copy_to(&file, "/tmp/there").run().await;
    let error = copied.expect_err("a program there would wait for ever");
    let is_it = matches!(error, Error::Caller(CallerError::HalfClose { .. }));
    assert!(is_it, "{error:?}");
    let there = said(&pod, "ls -a /tmp; : $1", "").await;
    assert!(
        !there.contains("there") && !there.contains(".part"),
        "{there}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_given_up_leaves_nothing_running() {
    let Some(containerd) = shared() else { return };
    let pod = pod(containerd).await;
    // It takes hours to read.
    said(&pod, "truncate -s 900G /tmp/given-up; : $1", "").await;
    let here = tempfile::tempdir().expect("a directory");
    // Of the processes of the container, those that have it among their arguments.
    let running = async || {
        let list = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; : $1";
        let list = said(&pod, list, "").await;
        list.matches("given-up").count()
    };
    let copy = pod.copy_from("/tmp/given-up", here.path().join("copy"));
    let begun = async {
        while running().await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        copied = copy.run() => panic!("{copied:?}"),
        () = soon(begun) => {}
    }
    soon(async {
        while running().await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    said(&pod, "rm /tmp/given-up; : $1", "").await;
}
