//! Answers of others than the API server, and of one that says odd things.

use super::*;
use crate::session::watch::Update;

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

/// How logs and a watch end that are answered so.
async fn streams(answer: impl Fn() -> Response<String> + Send + Sync + 'static) -> Vec<String> {
    let (address, _) = serve(move |_, _| answer()).await;
    let client = client(address);
    let pod = client.pod("a", "p");
    let mut texts = Vec::new();
    for logs in [
        pod.logs(),
        pod.logs().follow(),
        pod.logs().plain(),
        pod.logs().follow().over_websocket(),
    ] {
        let end = logs.stream().next().await.expect("it is no log");
        texts.push(end.expect_err("it is no line").to_string());
    }
    for watch in [
        client.watch(Resource::namespaced("", "v1", "pods")),
        client
            .watch(Resource::namespaced("", "v1", "pods"))
            .watch_list(false),
    ] {
        let mut updates = watch.stream();
        texts.push(loop {
            match updates.next().await.expect("it goes on") {
                Ok(Update::Retrying {
                    refused: false,
                    error,
                    ..
                }) => panic!("{error}"),
                Ok(_) => {}
                Err(error) => break error.to_string(),
            }
        });
    }
    texts
}

#[tokio::test]
async fn logs_and_watches_say_what_answers_in_the_server_s_place() {
    let to = "https://login.example.com/";
    for text in streams(move || with(302, &[("location", to)], "")).await {
        assert_says(&text, &["302 Found", to, "a login page or a proxy"]);
    }
    let page = || with(200, &[("content-type", "text/html")], "<html>log in</html>");
    for text in streams(page).await {
        assert_says(&text, &["200 OK", "text/html", "a login page or a proxy"]);
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
        assert_says(&text, &["no\\u{1b}[2J way"]);
    }
    let status = r#"{"kind":"Status","status":"Failure","code":403,"message":"no\u001b[2J"}"#;
    let (plain, upgrade) = errors(move || answer(403, status)).await;
    for text in [plain, upgrade] {
        assert_says(&text, &["no\\u{1b}[2J"]);
    }
}
