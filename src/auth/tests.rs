use std::fs;

use super::*;

#[test]
fn a_token_that_fits_no_header_is_refused_without_showing_it() {
    let config = Config::new("https://h").unwrap().with_token("abc\n");
    let text = Credentials::new(&config).unwrap_err().to_string();
    assert!(text.starts_with("the token: it holds a line end") && !text.contains("abc"));
}

#[tokio::test(start_paused = true)]
async fn a_token_file_is_read_again_as_it_rotates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "one\n").unwrap();
    let config = Config::new("https://h").unwrap().with_token_file(&path);
    let credentials = Credentials::new(&config).unwrap();
    let get = async || {
        let mut headers = HeaderMap::new();
        credentials.authorize(&mut headers).await.unwrap();
        headers
    };
    let first = get().await;
    assert_eq!(first["authorization"], "Bearer one");
    fs::write(&path, "two").unwrap();
    assert_eq!(
        get().await["authorization"],
        "Bearer one",
        "not read for every request"
    );
    tokio::time::advance(limits::TOKEN_FILE_PERIOD).await;
    let second = get().await;
    assert_eq!(second["authorization"], "Bearer two");

    fs::write(&path, "three").unwrap();
    assert!(credentials.refused(&first));
    assert_eq!(
        get().await["authorization"],
        "Bearer two",
        "an older token was refused"
    );
    assert!(credentials.refused(&second));
    assert_eq!(get().await["authorization"], "Bearer three");

    fs::remove_file(&path).unwrap();
    tokio::time::advance(limits::TOKEN_FILE_PERIOD).await;
    assert_eq!(
        get().await["authorization"],
        "Bearer three",
        "better an old token than none"
    );
}

#[tokio::test]
async fn a_token_file_that_was_never_readable_is_an_error_or_the_fallback() {
    let config = Config::new("https://h")
        .unwrap()
        .with_token_file("/nonexistent/token");
    let credentials = Credentials::new(&config).unwrap();
    let error = credentials
        .authorize(&mut HeaderMap::new())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/nonexistent/token cannot be read")
    );
    let mut config = config;
    config.auth = Auth::TokenFile("/nonexistent/token".into(), Some("inline".into()));
    let mut headers = HeaderMap::new();
    let credentials = Credentials::new(&config).unwrap();
    credentials.authorize(&mut headers).await.unwrap();
    assert_eq!(headers["authorization"], "Bearer inline");
}

#[test]
fn only_credentials_that_can_change_are_worth_a_second_try() {
    let config = Config::new("https://h").unwrap().with_token("t");
    assert!(
        !Credentials::new(&config)
            .unwrap()
            .refused(&HeaderMap::new())
    );
    let config = config.with_token_file("f");
    assert!(
        Credentials::new(&config)
            .unwrap()
            .refused(&HeaderMap::new())
    );
}

fn config(url: &str) -> Config {
    Config::new(url).unwrap()
}

#[test]
fn secrets_go_over_tls_or_to_this_machine_only() {
    let refused = |config: Config| Credentials::new(&config).unwrap_err().to_string();
    let problem = "the URL http://h is not https: whoever sees the connection could read it";
    assert_eq!(
        refused(config("http://h").with_token("t")),
        format!("the token: {problem}")
    );
    assert_eq!(
        refused(config("http://h").with_basic_auth("u", "p")),
        format!("the user name and password: {problem}")
    );
    assert_eq!(
        refused(config("http://h").with_token_file("f")),
        format!("the token file: {problem}")
    );
    for url in [
        "https://h",
        "http://127.0.0.1:8001",
        "http://localhost",
        "http://[::1]",
    ] {
        Credentials::new(&config(url).with_token("t")).unwrap();
    }
    let private = config("http://h")
        .with_token("t")
        .with_dialer(|_, _| async { Ok(tokio::io::duplex(1).0) });
    Credentials::new(&private).unwrap();
}

#[tokio::test]
async fn what_a_program_sets_goes_with_every_request() {
    let jane = crate::config::Impersonation::new("jane")
        .uid("7")
        .group("a")
        .group("b")
        .extra("scopes", "view")
        .extra("scopes", "edit");
    let config = config("https://h")
        .with_basic_auth("Aladdin", "open sesame")
        .with_impersonation(jane)
        .with_header("X-Tenant", "one")
        .with_header("x-tenant", "two");
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", HeaderValue::from_static("zero"));
    let credentials = Credentials::new(&config).unwrap();
    credentials.authorize(&mut headers).await.unwrap();
    let all = |name: &str| -> Vec<&str> {
        let values = headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    };
    assert_eq!(all("authorization"), ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]);
    assert_eq!(all("impersonate-user"), ["jane"]);
    assert_eq!(all("impersonate-uid"), ["7"]);
    assert_eq!(all("impersonate-group"), ["a", "b"]);
    assert_eq!(all("impersonate-extra-scopes"), ["view", "edit"]);
    assert_eq!(all("x-tenant"), ["one", "two"]);
    assert!(headers["x-tenant"].is_sensitive());
    let error = Credentials::new(&config.with_header("a b", "c")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a header: \"a b\" is not the name of one"
    );
}
