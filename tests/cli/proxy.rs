//! `proxy`: exec through it, what its rules let through, and that it outlives what its clients do.

use std::process::Stdio;

use kubewire::Client;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::timeout,
};

use crate::tool::{Cluster, KUBEWIRE, PATIENCE};

/// A proxy under way, and where it listens.
struct Sidecar {
    child: Child,
    address: String,
}

impl Sidecar {
    async fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await;
        let line = line.expect("it serves").unwrap().expect("a line");
        let address = line.strip_prefix("Starting to serve on ").unwrap();
        Self {
            address: address.to_owned(),
            child,
        }
    }

    async fn of(cluster: &Cluster, flags: &[&str]) -> Self {
        let arguments = [&["proxy", "--port", "0"], flags].concat();
        let mut command = cluster.kubewire(&arguments);
        command.stderr(Stdio::null());
        Self::start(command).await
    }

    /// In front of a server of the test's own.
    async fn before(cluster: &Cluster, server: &TcpListener) -> Self {
        let url = format!("http://{}", server.local_addr().unwrap());
        Self::of(cluster, &["--server", &url]).await
    }

    fn client(&self, prefix: &str) -> Client {
        Client::from_url(&format!("http://{}{prefix}", self.address)).unwrap()
    }

    /// The code of the answer to a request, written as it is.
    async fn code(&self, request: &str) -> u16 {
        let mut socket = TcpStream::connect(&self.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let head = head(&mut BufReader::new(socket)).await;
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    async fn get(&self, path: &str) -> u16 {
        let host = &self.address;
        self.code(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await
    }

    /// Asks for an exec as a page or a program would.
    async fn exec(&self, path: &str, headers: &str) -> u16 {
        self.code(&format!(
            "GET {path}?command=true&stdout=true HTTP/1.1\r\nHost: {}\r\n{headers}\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.address
        ))
        .await
    }
}

/// The head of a request or an answer.
async fn head(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> String {
    let mut head = String::new();
    let read = async {
        while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap() > 0 {}
    };
    timeout(PATIENCE, read).await.expect("a head");
    head
}

/// The next request of which the proxy passes the head on; reading goes on behind it.
async fn passed_on(server: &TcpListener) -> (String, BufReader<TcpStream>) {
    let accepted = timeout(PATIENCE, server.accept()).await;
    let mut stream = BufReader::new(accepted.expect("it is passed on").unwrap().0);
    (head(&mut stream).await, stream)
}

/// A WebSocket session there and back: output, the exit code.
async fn session(client: &Client) {
    let pod = client.pod("default", "web-0");
    let command = ["sh", "-c", "echo hello; exit 3"];
    let output = pod.exec(command).output().await.unwrap();
    assert_eq!(output.stdout, b"hello\n");
    assert_eq!(output.status.code(), Some(3));
}

const EXEC: &str = "/api/v1/namespaces/default/pods/web-0/exec";

#[tokio::test]
async fn exec_goes_through_where_the_rules_allow_it() {
    let cluster = Cluster::start().await;
    let flags = ["--reject-paths", "^/nothing", "--api-prefix", "/k8s"];
    let sidecar = Sidecar::of(&cluster, &flags).await;
    session(&sidecar.client("/k8s")).await;
    assert_eq!(sidecar.get("/version").await, 404);

    let flags = ["--reject-methods", r"^(?i)delete$,^POST$,^\d"];
    let sidecar = Sidecar::of(&cluster, &flags).await;
    let client = sidecar.client("");
    let exec = client.pod("default", "web-0").exec(["id"]).output().await;
    let error = exec.unwrap_err();
    let code = error.status().map(|status| status.code);
    assert_eq!(code, Some(403), "{error}");
    let delete = format!("DELETE /x HTTP/1.1\r\nHost: {}\r\n\r\n", sidecar.address);
    assert_eq!(sidecar.code(&delete).await, 403);
    assert_eq!(
        sidecar.get("/api/v1/namespaces/default/pods/web-0").await,
        200
    );
    // A page from elsewhere whose name leads here.
    let evil = "GET /version HTTP/1.1\r\nHost: evil.test:8001\r\n\r\n";
    assert_eq!(sidecar.code(evil).await, 403);
}

#[tokio::test]
async fn no_other_way_to_write_a_path_passes_the_rules() {
    let cluster = Cluster::start().await;
    let sidecar = Sidecar::of(&cluster, &[]).await;
    for (path, code) in [
        (EXEC.to_owned(), 403),
        (EXEC.replace("exec", "%65xec"), 403),
        (EXEC.replace("/api", "/%61pi"), 403),
        (EXEC.replace("/web-0/exec", "/web-0%2Fexec"), 403),
        (format!("/{EXEC}"), 400),
        (EXEC.replace("pods", "./pods"), 400),
        (format!("/x/..{EXEC}"), 400),
        (format!("/x/%2e%2e{EXEC}"), 400),
    ] {
        assert_eq!(sidecar.exec(&path, "").await, code, "{path}");
    }
    let sidecar = Sidecar::of(&cluster, &["--api-prefix", "/k8s"]).await;
    for (path, code) in [
        (format!("/k8s{EXEC}"), 403),
        (format!("/k8s/{EXEC}"), 400),
        (format!("/k8s{}", EXEC.replace("exec", "%65xec")), 403),
        (format!("/k8s/x/..{EXEC}"), 400),
        (format!("/%6b8s{EXEC}"), 404),
    ] {
        assert_eq!(sidecar.exec(&path, "").await, code, "{path}");
    }
}

#[tokio::test]
async fn a_web_page_of_another_origin_opens_nothing() {
    let cluster = Cluster::start().await;
    let sidecar = Sidecar::of(&cluster, &["--reject-paths", "^/nothing"]).await;
    assert_eq!(sidecar.exec(EXEC, "").await, 101);
    let own = format!("Origin: http://{}\r\n", sidecar.address);
    assert_eq!(sidecar.exec(EXEC, &own).await, 101);
    for origin in ["http://evil.test", "null", "http://127.0.0.1:1"] {
        let origin = format!("Origin: {origin}\r\n");
        assert_eq!(sidecar.exec(EXEC, &origin).await, 403, "{origin}");
    }
    // What a form or a fetch without CORS sends.
    let host = &sidecar.address;
    let post = format!(
        "POST /api/v1/namespaces HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.test\r\n\
         Content-Length: 2\r\n\r\n{{}}"
    );
    assert_eq!(sidecar.code(&post).await, 403);
}

#[tokio::test]
async fn bodies_are_passed_on_as_they_come() {
    let cluster = Cluster::start().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::before(&cluster, &server).await;
    // More than is held, and more than its bound once was.
    const LEN: usize = 65 << 20;
    let mut socket = TcpStream::connect(&sidecar.address).await.unwrap();
    let request = format!(
        "POST /upload HTTP/1.1\r\nHost: {}\r\nContent-Length: {LEN}\r\n\
         Proxy-Authorization: Basic planted\r\n\r\n",
        sidecar.address
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let half = vec![7; LEN / 2];
    let (sent, (head_passed, mut stream)) =
        tokio::join!(socket.write_all(&half[..2 << 20]), passed_on(&server));
    sent.unwrap();
    let lower = head_passed.to_ascii_lowercase();
    assert!(lower.starts_with("post /upload "), "{lower}");
    assert!(lower.contains(&format!("content-length: {LEN}")), "{lower}");
    assert!(!lower.contains("proxy-authorization"), "{lower}");
    // The first of it is there before the last is sent.
    let mut first = vec![0; 2 << 20];
    stream.read_exact(&mut first).await.unwrap();
    let read = async {
        let mut left = LEN - first.len();
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            left -= stream.read(&mut buffer[..left.min(1 << 20)]).await.unwrap();
        }
        let answer = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nProxy-Authenticate: x\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    let write = async {
        socket.write_all(&half[2 << 20..]).await.unwrap();
        socket.write_all(&vec![7; LEN - half.len()]).await.unwrap();
    };
    timeout(PATIENCE, async { tokio::join!(read, write) })
        .await
        .expect("it is passed on");
    let answer = head(&mut BufReader::new(socket)).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("proxy-"), "{answer}");
}

#[tokio::test]
async fn short_bodies_and_their_credentials_are_passed_on_once() {
    let cluster = Cluster::start().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::before(&cluster, &server).await;
    let request = format!(
        "POST /x?a=%2F&b HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\
         Authorization: Bearer planted\r\nConnection: x-mine\r\nX-Mine: 1\r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n",
        sidecar.address
    );
    let asked = sidecar.code(&request);
    let serve = async {
        let (head, mut stream) = passed_on(&server).await;
        let mut body = [0; 3];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"abc");
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        head
    };
    let (code, head) = tokio::join!(asked, serve);
    assert_eq!(code, 204);
    assert!(head.starts_with("POST /x?a=%2F&b HTTP/1.1\r\n"), "{head}");
    assert!(
        !head.contains("planted") && !head.contains("x-mine"),
        "{head}"
    );
}

#[tokio::test]
async fn a_body_that_is_broken_is_the_client_s_fault() {
    let cluster = Cluster::start().await;
    let sidecar = Sidecar::of(&cluster, &[]).await;
    // A body that is held, and one that is sent as it comes.
    for sound in [5, 2 << 20] {
        let (size, sound) = (format!("{sound:x}"), "x".repeat(sound));
        let request = format!(
            "POST /api/v1/namespaces/default/pods HTTP/1.1\r\nHost: {}\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
             {size}\r\n{sound}\r\nno size\r\n",
            sidecar.address
        );
        assert_eq!(sidecar.code(&request).await, 400, "{size}");
    }
}

#[tokio::test]
async fn it_outlives_clients_that_take_all_its_files_and_go() {
    let cluster = Cluster::start().await;
    let mut command = cluster.program("/bin/sh", &[]);
    command.args(["-c", "ulimit -n 40; exec \"$0\" proxy --port 0"]);
    command.arg(KUBEWIRE).stderr(Stdio::piped());
    let mut sidecar = Sidecar::start(command).await;
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(TcpStream::connect(&sidecar.address).await.unwrap());
    }
    let mut stderr = BufReader::new(sidecar.child.stderr.take().unwrap()).lines();
    let line = timeout(PATIENCE, stderr.next_line()).await;
    let line = line.expect("it tells").unwrap().unwrap();
    assert!(
        line.contains("a connection cannot be taken, trying again"),
        "{line}"
    );
    // Some go before they are taken at all, with a reset.
    for client in clients {
        #[allow(deprecated, reason = "a reset, which waits for nothing")]
        client.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
    assert_eq!(sidecar.get("/version").await, 200);
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let cluster = Cluster::start().await;
    let sidecar = Sidecar::of(&cluster, &[]).await;
    let ends = async |start: &str| {
        let mut socket = TcpStream::connect(&sidecar.address).await.unwrap();
        socket.write_all(start.as_bytes()).await.unwrap();
        let end = timeout(PATIENCE, socket.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "{start:?} keeps it open");
    };
    let partial = "GET / HTTP/1.1\r\nHost: ";
    tokio::join!(ends(""), ends("P"), ends(partial));
}

/// What a proxy answers to a request over its Unix socket.
async fn over(path: &std::path::Path, request: &str) -> String {
    let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
    let text = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = timeout(PATIENCE, socket.read_to_string(&mut answer)).await;
    read.expect("it answers").unwrap();
    answer
}

#[tokio::test]
async fn a_unix_socket_and_a_directory_are_served() {
    let cluster = Cluster::start().await;
    let dir = cluster.dir.path();
    let site = dir.join("site");
    std::fs::create_dir_all(site.join("below")).unwrap();
    std::fs::write(dir.join("secret"), "secret").unwrap();
    std::fs::write(site.join("index.html"), "<p>hello").unwrap();
    std::fs::write(site.join("below/a b.txt"), "text").unwrap();
    std::os::unix::fs::symlink(dir.join("secret"), site.join("link")).unwrap();
    let path = dir.join("proxy");
    let (socket, www) = (path.to_str().unwrap(), site.to_str().unwrap());
    let arguments = ["proxy", "-u", socket, "--www", www, "--append-server-path"];
    let mut tool = cluster.start_tool(&arguments);
    assert_eq!(tool.line().await, format!("Starting to serve on {socket}"));
    let pods = over(&path, "GET /api/v1/namespaces/default/pods/web-0").await;
    assert!(
        pods.starts_with("HTTP/1.1 200") && pods.contains("web-0"),
        "{pods}"
    );
    let exec = over(&path, "GET /api/v1/namespaces/default/pods/web-0/exec").await;
    assert!(exec.starts_with("HTTP/1.1 403"), "{exec}");
    let page = over(&path, "GET /static/").await;
    assert!(
        page.contains("text/html") && page.ends_with("<p>hello"),
        "{page}"
    );
    let file = over(&path, "GET /static/below/a%20b.txt").await;
    assert!(
        file.contains("text/plain") && file.ends_with("text"),
        "{file}"
    );
    let head = over(&path, "HEAD /static/index.html").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && !head.contains("hello"),
        "{head}"
    );
    for outside in [
        "link",
        "../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "below",
        "none",
        "/etc/passwd",
    ] {
        let answer = over(&path, &format!("GET /static/{outside}")).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{outside}: {answer}");
        assert!(!answer.ends_with("secret"), "{outside}: {answer}");
    }
    let post = over(&path, "POST /static/index.html").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    assert_eq!(tool.interrupt().await.code(), Some(0));
    assert!(!path.exists());
    let none = ["proxy", "--www", "/no/such", "-p", "0"];
    cluster.run(&none).await.is_error("/no/such");
    let both = ["proxy", "-u", socket, "-p", "0"];
    cluster.run(&both).await.is_error("cannot be used with");
}

/// Seconds until the kernel probes the connection to a port, as `/proc/net/tcp` has it
/// (`Documentation/networking/proc_net_tcp.rst`).
#[cfg(target_os = "linux")]
fn keepalive_of(port: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to_port = format!(":{port:04X}");
    table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (is_open, timer) = (*fields.get(3)? == "01", fields.get(5)?);
        let ticks = timer
            .strip_prefix("02:")
            .filter(|_| is_open && fields[2].ends_with(&to_port));
        // A hundred to a second, whatever the kernel's own clock is.
        ticks.map(|ticks| u64::from_str_radix(ticks, 16).unwrap() / 100)
    })
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn connections_are_probed_as_often_as_is_said() {
    let cluster = Cluster::start().await;
    for (flags, expected) in [(&["--keepalive=1h"][..], 3500..=3600), (&[], 1..=30)] {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let url = format!("http://{address}");
        let sidecar = Sidecar::of(&cluster, &[flags, &["--server", &url]].concat()).await;
        let mut asking = TcpStream::connect(&sidecar.address).await.unwrap();
        let host = &sidecar.address;
        let request = format!("GET /version HTTP/1.1\r\nHost: {host}\r\n\r\n");
        asking.write_all(request.as_bytes()).await.unwrap();
        let (_head, _connection) = passed_on(&server).await;
        let begin = std::time::Instant::now();
        // While something is under way there is another timer.
        let seconds = loop {
            match keepalive_of(address.port()) {
                Some(seconds) => break seconds,
                None => assert!(begin.elapsed() < PATIENCE, "there is no timer"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        assert!(expected.contains(&seconds), "{flags:?}: {seconds} s");
    }
}

#[tokio::test]
async fn an_upgraded_connection_that_breaks_is_reset_here_too() {
    let cluster = Cluster::start().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::before(&cluster, &server).await;
    let host = &sidecar.address;
    for breaks in [true, false] {
        let stream = TcpStream::connect(host).await.unwrap();
        let mut here = BufReader::new(stream);
        let request =
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        here.write_all(request.as_bytes()).await.unwrap();
        let (_, mut there) = passed_on(&server).await;
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhalf";
        there.write_all(answer.as_bytes()).await.unwrap();
        assert!(head(&mut here).await.starts_with("HTTP/1.1 101 "));
        let mut half = [0; 4];
        here.read_exact(&mut half).await.unwrap();
        if breaks {
            there.get_ref().set_zero_linger().unwrap();
        }
        drop(there);
        let end = timeout(PATIENCE, here.read(&mut half))
            .await
            .expect("an end");
        let kind = end.as_ref().map_err(std::io::Error::kind);
        match breaks {
            true => assert_eq!(kind, Err(std::io::ErrorKind::ConnectionReset)),
            false => assert_eq!(kind, Ok(&0)),
        }
    }
}
