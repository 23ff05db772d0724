//! Answers of others than the API server, and of one that says odd things.

use super::*;

type Object = std::collections::BTreeMap<String, serde_json::Value>;

fn with(code: u16, headers: &[(&'static str, &'static str)], body: &str) -> Response<String> {
    let mut response = answer(code, body);
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(*name, value);
    }
    response
}

/// The errors of a plain request and of an exec that are answered so.
async fn errors(answer: impl Fn() -> Response<String> + Send + Sync + 'static) -> (String, String) {
    let (address, _) = serve(move |_, _| answer()).await;
    let client = client(address);
    let pods = client.request(Resource::namespaced("", "v1", "pods"));
    let plain = pods.namespace("a").get::<Object>("p").await.unwrap_err();
    let exec = client.pod("a", "p").exec(["date"]);
    let upgrade = exec.spawn().await.unwrap_err();
    (plain.to_string(), upgrade.to_string())
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[tokio::test]
async fn a_redirect_says_where_it_leads() {
    let to = "https://login.example.com/?next=%2F";
    let (plain, upgrade) = errors(move || with(302, &[("location", to)], "")).await;
    for text in [plain, upgrade] {
        assert_says(&text, &["302 Found", to, "a login page or a proxy"]);
    }
}

#[tokio::test]
async fn a_login_page_with_200_is_named_as_such() {
    let page = || {
        with(
            200,
            &[("content-type", "text/html; charset=utf-8")],
            "<html>",
        )
    };
    let (plain, upgrade) = errors(page).await;
    for text in [plain, upgrade] {
        assert_says(&text, &["200 OK", "text/html", "a login page or a proxy"]);
    }
}

#[tokio::test]
async fn a_proxy_that_strips_the_headers_of_an_upgrade_is_suspected() {
    let status = r#"{"kind":"Status","status":"Failure","code":400,"reason":"BadRequest",
        "message":"Upgrade request required"}"#;
    let (_, upgrade) = errors(move || answer(400, status)).await;
    assert_says(
        &upgrade,
        &["Upgrade request required", "a proxy or load balancer"],
    );
    let plain = || with(200, &[("content-type", "application/json")], "[]");
    let (_, upgrade) = errors(plain).await;
    assert_says(
        &upgrade,
        &["200 OK", "application/json", "a proxy on the way"],
    );
    let (_, upgrade) = errors(|| answer(426, "")).await;
    assert_says(&upgrade, &["426 Upgrade Required", "a proxy on the way"]);
}

#[tokio::test]
async fn a_body_that_is_no_text_is_described() {
    // What gzip makes begins so.
    let body = "\u{1f}\u{8b}\u{8}\0\0";
    let headers = &[("content-encoding", "gzip"), ("content-type", "text/plain")];
    let (plain, upgrade) = errors(move || with(403, headers, body)).await;
    for text in [plain, upgrade] {
        assert_says(&text, &["403 Forbidden", "text/plain", "encoded as gzip"]);
    }
    let page = || with(502, &[("content-type", "text/html")], "<html>nginx</html>");
    let (plain, _) = errors(page).await;
    assert_says(&plain, &["502 Bad Gateway", "text/html"]);
}

#[tokio::test]
async fn control_characters_of_a_refusal_are_escaped() {
    let (plain, upgrade) = errors(|| answer(403, "no\u{1b}[2J\r\nway")).await;
    for text in [plain, upgrade] {
        assert_says(&text, &["no\\u{1b}[2J\\r\\nway"]);
    }
    let status = r#"{"kind":"Status","status":"Failure","code":403,"message":"no\u001b[2J"}"#;
    let (plain, upgrade) = errors(move || answer(403, status)).await;
    for text in [plain, upgrade] {
        assert_says(&text, &["no\\u{1b}[2J"]);
    }
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn every_verb_names_the_certificate_that_has_expired() {
    use crate::{
        net::tests::{authority, params},
        session::watch::Update,
    };

    let server = crate::testing::ApiServer::builder().start().await.unwrap();
    let mut past = params(&[]);
    past.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let leaf = authority().sign(past);
    let key = leaf.key.serialize_pem().into_bytes();
    let config = server.config_with_token("of nobody");
    let config = config.with_client_certificate_pem(leaf.certificate.pem(), key);
    let client = Client::new(&config).unwrap();
    let pod = client.pod("default", "web-0");
    let pods = || Resource::namespaced("", "v1", "pods");
    let mut updates = client.watch(pods()).stream();
    let watch = loop {
        match updates.next().await {
            Some(Ok(Update::Retrying { error, .. })) => break Some(error),
            Some(Ok(_)) => {}
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    let mut errors = vec![
        client.request(pods()).get::<Object>("web-0").await.err(),
        client.request(pods()).list::<Object>().await.err(),
        pod.exec(["date"]).output().await.err(),
        watch,
    ];
    for logs in [
        pod.logs(),
        pod.logs().follow(),
        pod.logs().plain(),
        pod.logs().over_websocket(),
    ] {
        errors.push(logs.stream().next().await.and_then(Result::err));
    }
    for error in errors {
        let text = error
            .expect("the server does not know the user")
            .to_string();
        assert_says(&text, &["it expired at 2002-01-01T00:00:00Z"]);
    }
}
