//! What the embedded server answers to bare HTTP.

use super::*;

/// One HTTP exchange by hand; the whole answer.
async fn exchange(server: &ApiServer, head: &str) -> Result<String> {
    let mut tcp = tokio::net::TcpStream::connect(server.address()).await?;
    tcp.write_all(head.replace('\n', "\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    soon(tcp.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A GET over TLS or not.
pub(super) async fn get(server: &ApiServer, path: &str) -> Result<String> {
    use http_body_util::BodyExt as _;
    let connector = kubewire::auth::Connector::new(&server.config())?;
    let mut request = http::Request::get(path)
        .header("host", connector.host())
        .body(http_body_util::Empty::<Bytes>::new())?;
    connector.authorize(request.headers_mut()).await?;
    let io = hyper_util::rt::TokioIo::new(connector.connect().await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(connection);
    let body = sender
        .send_request(request)
        .await?
        .into_body()
        .collect()
        .await?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

const UPGRADE: &str = "Host: x
Connection: keep-alive, Upgrade
Upgrade: WebSocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
";

#[tokio::test]
async fn odd_requests_are_answered_as_a_kubelet_does() -> Result {
    let fixture = Fixture::plain().await?;
    let answer = async |query: &str, headers: &str| {
        let path = "/api/v1/namespaces/default/pods/web-0/exec";
        let head = format!("GET {path}{query} HTTP/1.1\n{headers}\n");
        exchange(&fixture.server, &head).await.unwrap()
    };
    let close = "Host: x\nConnection: close\n";
    let refused = answer("?stdout=true&command=true", close).await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert!(refused.contains("Upgrade request required"), "{refused}");

    let upgrade = UPGRADE.replace("keep-alive", "close");
    for query in [
        "",
        "?",
        "?command=true",
        "?stdout=false&stdin=0&command=true",
    ] {
        let refused = answer(query, &upgrade).await;
        assert!(refused.starts_with("HTTP/1.1 400 "), "{query}: {refused}");
        assert!(
            refused.contains("you must specify at least 1 of stdin, stdout, stderr"),
            "{query}: {refused}"
        );
    }
    let unknown = format!("{upgrade}Sec-WebSocket-Protocol: v9.channel.k8s.io\n");
    let refused = answer("?stdout=true&command=true", &unknown).await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    let old = upgrade.replace("13", "12");
    let refused = answer("?stdout=true&command=true", &old).await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");

    // A value may be missing, a plus is a space, and only the first line of an offer counts.
    let offers = format!(
        "{UPGRADE}Sec-WebSocket-Protocol: v9.channel.k8s.io, v4.channel.k8s.io\n\
         Sec-WebSocket-Protocol: v5.channel.k8s.io\n"
    );
    let mut tcp = tokio::net::TcpStream::connect(fixture.server.address()).await?;
    let head = format!(
        "GET /api/v1/namespaces/default/pods/web-0/exec?stdout&tty=&stderr=true&command=echo&command=a+b%20c HTTP/1.1\n{offers}\n"
    );
    tcp.write_all(head.replace('\n', "\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    soon(async {
        while !answer.ends_with(b"\x88\x02\x03\xe8") {
            assert!(tcp.read_buf(&mut answer).await? > 0);
        }
        io::Result::Ok(())
    })
    .await?;
    // The close is answered, and the server closes.
    tcp.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await?;
    assert_eq!(soon(tcp.read_buf(&mut answer)).await?, 0);
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(
        answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("sec-websocket-protocol: v4.channel.k8s.io\r\n"),
        "{answer}"
    );
    assert!(answer.contains("a b c\r\n"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn the_kubeconfig_and_the_objects_can_be_read() -> Result {
    let fixture = Fixture::new().await?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("config");
    std::fs::write(&path, fixture.server.kubeconfig())?;
    let options = kubewire::config::KubeconfigOptions::new().file(path);
    let config = kubewire::Config::from_kubeconfig(&options)?;
    assert_eq!(config.server_url(), fixture.server.url());
    let client = Client::new(&config)?;
    let output = soon(
        client
            .pod(client.namespace(), "web-0")
            .exec(["echo", "hi"])
            .output(),
    )
    .await?;
    assert_eq!(output.stdout, b"hi\n");

    let version = get(&fixture.server, "/version").await?;
    assert!(version.contains("\"minor\": \"36\""), "{version}");
    let pod = get(&fixture.server, "/api/v1/namespaces/default/pods/two").await?;
    let pod: serde_json::Value = serde_json::from_str(&pod)?;
    assert_eq!(pod["spec"]["containers"][1]["name"], "b");
    let missing = get(&fixture.server, "/nothing").await?;
    assert!(missing.contains("404 page not found"), "{missing}");
    Ok(())
}
