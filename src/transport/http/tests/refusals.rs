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
