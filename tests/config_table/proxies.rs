//! The ways to a server through proxies.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn proxies() {
    let ca = Authority::new();
    let port = echo(Some(&ca.sign(&["api.test", "forbidden.test"], NOW)), None)
        .await
        .port();
    let at = |host: &str| {
        format!(
            "server: 'https://{host}:{port}', certificate-authority-data: {}",
            base64(&ca.pem())
        )
    };
    let api = at("api.test");
    let public = Authority::new();
    let proxy_leaf = public.sign(&["127.0.0.1"], NOW);
    let plain = http_proxy(None, None).await;
    let locked = http_proxy(None, Some("user:planted-pw")).await;
    let secure = http_proxy(Some(&proxy_leaf), None).await;
    let socks = socks_proxy(None).await;
    let locked_socks = socks_proxy(Some(("user", "planted-pw"))).await;
    let token = "token: planted-t";
    let through = |url: String| format!("{api}, proxy-url: '{url}'");
    let (http, sock) = (plain.address, socks.address);
    run(vec![
        case("http proxy", through(format!("http://{http}")), token).gives("planted-t"),
        case(
            "http proxy with a password",
            through(format!("http://user:planted-pw@{}", locked.address)),
            token,
        )
        .tells(format!(
            "answered method=CONNECT url=api.test:{port} status=200 proxy={}",
            locked.address
        ))
        .gives("planted-t"),
        case(
            "http proxy without a password",
            through(format!("http://{}", locked.address)),
            token,
        )
        .fails("it wants a user name and password (407)"),
        case(
            "http proxy with a wrong password",
            through(format!("http://user:planted-no@{}", locked.address)),
            token,
        )
        .tells(format!(
            "failed method=CONNECT url=api.test:{port} proxy={}",
            locked.address
        ))
        .fails("it refuses the user name and password (407)"),
        case(
            "http proxy that forbids",
            format!("{}, proxy-url: 'http://{http}'", at("forbidden.test")),
            token,
        )
        .fails("it answered 403 Forbidden"),
        case("socks5 proxy", through(format!("socks5://{sock}")), token).gives("planted-t"),
        case(
            "socks5 proxy with a password",
            through(format!("socks5://user:planted-pw@{}", locked_socks.address)),
            token,
        )
        .tells(format!(
            "answered method=CONNECT url=api.test:{port} proxy={}",
            locked_socks.address
        ))
        .gives("planted-t"),
        case(
            "socks5 proxy with a wrong password",
            through(format!("socks5://user:planted-no@{}", locked_socks.address)),
            token,
        )
        .fails("it refuses the user name and password"),
        case(
            "socks5 proxy without a password",
            through(format!("socks5://{}", locked_socks.address)),
            token,
        )
        .fails("it wants a user name and password"),
        case(
            "https proxy",
            through(format!("https://{}", secure.address)),
            token,
        )
        .file("roots", public.pem())
        .variable("SSL_CERT_FILE", "DIR/roots")
        .gives("planted-t")
        .but_kubectl(
            Err("unknown authority".into()),
            "it verifies a proxy by the cluster's authority too",
        ),
        case(
            "https proxy is not verified by the cluster's CA",
            through(format!("https://{}", secure.address)),
            token,
        )
        .file("roots", ca.pem())
        .variable("SSL_CERT_FILE", "DIR/roots")
        .fails(
            "its issuer is not among the trusted certificate authorities (those of this machine",
        ),
        case(
            "https proxy downgraded to http",
            through(format!("https://{http}")),
            token,
        )
        .file("roots", public.pem())
        .variable("SSL_CERT_FILE", "DIR/roots")
        .fails("TLS handshake with"),
        case(
            "proxy that is not there",
            through("http://127.0.0.1:1".into()),
            token,
        )
        .fails("cannot connect to the proxy at 127.0.0.1:1"),
        case(
            "proxy of an unknown kind",
            through("ftp://user:planted-pw@p".into()),
            token,
        )
        .fails("none of http, https and socks5"),
        case("HTTPS_PROXY", api.clone(), token)
            .variable("HTTPS_PROXY", format!("http://{http}"))
            .gives("planted-t"),
        case("https_proxy without a scheme", api.clone(), token)
            .variable("https_proxy", http.to_string())
            .gives("planted-t"),
        case("HTTPS_PROXY of socks5", api.clone(), token)
            .variable("HTTPS_PROXY", format!("socks5://{sock}"))
            .gives("planted-t"),
        case("proxy-url wins", through(format!("http://{http}")), token)
            .variable("HTTPS_PROXY", "http://127.0.0.1:1")
            .gives("planted-t"),
        case("NO_PROXY by suffix", api.clone(), token)
            .variable("HTTPS_PROXY", format!("http://{http}"))
            .variable("NO_PROXY", "example.com,.test")
            .fails("cannot connect to api.test"),
        case("NO_PROXY by name and port", api.clone(), token)
            .variable("HTTPS_PROXY", format!("http://{http}"))
            .variable("no_proxy", format!("api.test:{port}"))
            .fails("cannot connect to api.test"),
        case("NO_PROXY of another port", api.clone(), token)
            .variable("HTTPS_PROXY", format!("http://{http}"))
            .variable("NO_PROXY", "api.test:1,est,10.0.0.0/8")
            .gives("planted-t"),
        case(
            "NO_PROXY by network",
            at("192.0.2.1") + ", tls-server-name: api.test",
            token,
        )
        .variable("HTTPS_PROXY", format!("http://{http}"))
        .variable("NO_PROXY", "10.0.0.0/8")
        .gives("planted-t"),
        case("HTTPS_PROXY that is none", api.clone(), token)
            .variable("HTTPS_PROXY", "ftp://user:planted-pw@p")
            .fails("HTTPS_PROXY: the scheme"),
        case(
            "loopback needs no proxy",
            at("127.0.0.1") + ", tls-server-name: api.test",
            token,
        )
        .variable("HTTPS_PROXY", "http://127.0.0.1:1")
        .gives("planted-t"),
        case("ALL_PROXY", api.clone(), token)
            .variable("ALL_PROXY", format!("socks5://{sock}"))
            .gives("planted-t")
            .but_kubectl(
                Err("api.test".into()),
                "Go does not know ALL_PROXY; curl and others do",
            ),
    ])
    .await;
    let seen = plain.take();
    assert!(
        seen.iter()
            .any(|target| target == &format!("api.test:{port}")),
        "{seen:?}"
    );
    assert!(
        seen.iter()
            .any(|target| target == &format!("192.0.2.1:{port}")),
        "{seen:?}"
    );
    for proxy in [&socks, &locked_socks] {
        let seen = proxy.take();
        assert!(
            !seen.is_empty() && seen.iter().all(|t| *t == format!("api.test:{port}")),
            "{seen:?}"
        );
    }
}
