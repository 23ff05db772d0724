use tokio::io::DuplexStream;

use super::*;

/// Runs a handshake against a proxy that expects and answers in turns; what is left for the
/// server is returned.
async fn with_proxy<T>(
    turns: &[(&[u8], &[u8])],
    handshake: impl AsyncFnOnce(&mut DuplexStream) -> io::Result<T>,
) -> Result<Vec<u8>, String> {
    let (mut near, mut far) = tokio::io::duplex(1 << 16);
    let turns: Vec<_> = turns
        .iter()
        .map(|(a, b)| (a.to_vec(), b.to_vec()))
        .collect();
    let proxy = tokio::spawn(async move {
        for (expected, answer) in turns {
            let mut got = vec![0; expected.len()];
            far.read_exact(&mut got).await.unwrap();
            assert_eq!(
                String::from_utf8_lossy(&got),
                String::from_utf8_lossy(&expected)
            );
            far.write_all(&answer).await.unwrap();
        }
    });
    let result = handshake(&mut near).await;
    proxy.await.unwrap();
    result.map_err(|error| error.to_string())?;
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.unwrap();
    Ok(rest)
}

fn login() -> Login {
    ("me".to_owned(), "pw".into())
}

fn request(host: &str, login: &str) -> String {
    let agent = crate::AGENT;
    format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n{login}\r\n")
}

#[tokio::test]
async fn connect_leaves_every_byte_after_the_head_to_the_server() {
    let request = request("api:6443", "");
    for answer in [
        "HTTP/1.1 200 Connection established\r\n\r\nhello",
        "HTTP/1.0 204\r\nA: b\r\n\r\nhello",
    ] {
        let turns: [(&[u8], &[u8]); 1] = [(request.as_bytes(), answer.as_bytes())];
        let rest = with_proxy(&turns, async |s| connect(s, ("api", 6443), None).await).await;
        assert_eq!(rest.unwrap(), b"hello");
    }
}

#[tokio::test]
async fn connect_sends_the_login_and_brackets() {
    let request = request("[fd00::1]:443", "Proxy-Authorization: Basic bWU6cHc=\r\n");
    let turns: [(&[u8], &[u8]); 1] = [(request.as_bytes(), b"HTTP/1.1 200 OK\r\n\r\n")];
    let login = login();
    let done = with_proxy(&turns, async |s| {
        connect(s, ("fd00::1", 443), Some(&login)).await
    })
    .await;
    assert_eq!(done.unwrap(), b"");
}

#[tokio::test]
async fn connect_says_why_a_proxy_refuses() {
    let request = request("api:6443", "");
    let long = format!(
        "HTTP/1.1 200 OK\r\nA: {}\r\n\r\n",
        "x".repeat(limits::PROXY_ANSWER)
    );
    for (answer, expected) in [
        (
            "HTTP/1.1 403 Forbidden by rule\r\n\r\n",
            "it answered 403 Forbidden by rule",
        ),
        ("HTTP/1.1 502\r\n\r\n", "it answered 502"),
        (
            "HTTP/1.1 407 Auth\r\n\r\n",
            "it wants a user name and password (407)",
        ),
        ("HTTP/1.1 20", "it closed the connection"),
        ("SSH-2.0-x\r\n\r\n", "it does not answer in HTTP/1.1"),
        (&long, "its answer has more than 16384 bytes"),
    ] {
        let turns: [(&[u8], &[u8]); 1] = [(request.as_bytes(), answer.as_bytes())];
        let error = with_proxy(&turns, async |s| connect(s, ("api", 6443), None).await).await;
        assert_eq!(error.unwrap_err(), expected);
    }
}

#[tokio::test]
async fn socks_has_the_proxy_resolve_the_name() {
    let turns: [(&[u8], &[u8]); 2] = [
        (&[5, 1, 0], &[5, 0]),
        (
            b"\x05\x01\0\x03\x03api\x19\x2b",
            b"\x05\0\0\x01\x7f\0\0\x01\0\x50hello",
        ),
    ];
    let rest = with_proxy(&turns, async |s| socks5(s, ("api", 6443), None).await).await;
    assert_eq!(rest.unwrap(), b"hello");
}

#[tokio::test]
async fn socks_logs_in_where_the_proxy_wants_it() {
    let login = login();
    let v6 = b"\x05\x01\0\x04\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50";
    let turns: [(&[u8], &[u8]); 3] = [
        (&[5, 2, 0, 2], &[5, 2]),
        (b"\x01\x02me\x02pw", &[1, 0]),
        (v6, b"\x05\0\0\x03\x02ab\0\x50!"),
    ];
    let rest = with_proxy(&turns, async |s| {
        socks5(s, ("fd00::1", 80), Some(&login)).await
    })
    .await;
    assert_eq!(rest.unwrap(), b"!");
    let v4 = b"\x05\x01\0\x01\x0a\0\0\x01\0\x50";
    let turns: [(&[u8], &[u8]); 2] = [
        (&[5, 2, 0, 2], &[5, 0]),
        (v4, b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x50!"),
    ];
    let rest = with_proxy(&turns, async |s| {
        socks5(s, ("10.0.0.1", 80), Some(&login)).await
    })
    .await;
    assert_eq!(rest.unwrap(), b"!", "a proxy may need no login");
}

#[tokio::test]
async fn socks_says_why_a_proxy_refuses() {
    let login = login();
    let greet: (&[u8], &[u8]) = (&[5, 2, 0, 2], &[5, 2]);
    for (turns, expected) in [
        (
            vec![(greet.0, &b"HT"[..])],
            "it does not speak SOCKS version 5",
        ),
        (
            vec![(greet.0, &[5, 0xff][..])],
            "it wants another way to log in",
        ),
        (vec![(greet.0, &[5][..])], "it closed the connection"),
        (
            vec![greet, (&b"\x01\x02me\x02pw"[..], &[1, 1][..])],
            "it refuses the user name and password",
        ),
        (
            vec![
                (greet.0, &[5, 0][..]),
                (&b"\x05\x01\0\x03\x03api\0\x50"[..], &b"\x05\x04\0\x01"[..]),
            ],
            "the host is unreachable, or its name unknown",
        ),
    ] {
        let error = with_proxy(&turns, async |s| socks5(s, ("api", 80), Some(&login)).await).await;
        assert_eq!(error.unwrap_err(), expected);
    }
    let turns: [(&[u8], &[u8]); 1] = [(&[5, 1, 0], &[5, 0xff])];
    let error = with_proxy(&turns, async |s| socks5(s, ("api", 80), None).await).await;
    assert_eq!(error.unwrap_err(), "it wants a user name and password");
    let turns: [(&[u8], &[u8]); 1] = [(&[5, 2, 0, 2], &[5, 2])];
    let long = ("me".to_owned(), "x".repeat(256).into());
    let error = with_proxy(&turns, async |s| socks5(s, ("api", 80), Some(&long)).await).await;
    assert_eq!(
        error.unwrap_err(),
        "the password is longer than SOCKS allows (255 bytes)"
    );
}
