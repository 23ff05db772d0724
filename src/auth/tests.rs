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
