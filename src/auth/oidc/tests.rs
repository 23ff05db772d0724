use std::sync::{Arc, Mutex};

use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{auth::Credentials, config::KubeconfigOptions};

/// A JSON Web Token that ends so many seconds from now.
fn jwt(name: &str, seconds: i64) -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let exp = now.as_secs() as i64 + seconds;
    let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{name}","exp":{exp}}}"#));
    format!("e30.{claims}.{name}")
}

/// A provider on loopback that records each request and answers the token requests in turn.
async fn provider(answers: Vec<(u16, String)>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/realm", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (issuer, record) = (url.clone(), Arc::clone(&seen));
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut request = Vec::new();
            loop {
                let text = String::from_utf8_lossy(&request).to_lowercase();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.split("content-length: ").nth(1);
                    let length = length.map_or(0, |l| l.lines().next().unwrap().parse().unwrap());
                    if body.len() >= length {
                        break;
                    }
                }
                let mut chunk = [0; 4096];
                let n = tcp.read(&mut chunk).await.unwrap();
                request.extend_from_slice(&chunk[..n]);
            }
            let request = String::from_utf8(request).unwrap();
            let (status, body) =
                match request.starts_with("GET /realm/.well-known/openid-configuration ") {
                    true => (200, format!(r#"{{"token_endpoint":"{issuer}/token?a=b"}}"#)),
                    false => answers.next().unwrap(),
                };
            record.lock().unwrap().push(request);
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            tcp.write_all(format!("{head}{body}").as_bytes())
                .await
                .unwrap();
        }
    });
    (url, seen)
}

/// A kubeconfig with a comment that must survive.
fn kubeconfig(fields: &str) -> (TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    let text = format!(
        "# mine\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: 'https://h'}}}}]\n\
         users: [{{name: u, user: {{auth-provider: {{name: oidc, config: {{{fields}}}}}}}}}]\n"
    );
    fs::write(&path, text).unwrap();
    let options = KubeconfigOptions::new().file(path);
    (dir, Config::from_kubeconfig(&options).unwrap())
}

async fn token(config: &Config) -> Result<String> {
    let mut headers = HeaderMap::new();
    Credentials::new(config)?.authorize(&mut headers).await?;
    let value = headers["authorization"].to_str().unwrap();
    Ok(value.strip_prefix("Bearer ").unwrap().to_owned())
}

#[tokio::test]
async fn a_valid_token_is_used_as_it_is() {
    let id = jwt("valid", 60);
    let fields = format!("idp-issuer-url: 'https://nowhere.invalid', client-id: c, id-token: {id}");
    let (_dir, config) = kubeconfig(&fields);
    assert_eq!(token(&config).await.unwrap(), id);
}

#[tokio::test]
async fn an_expired_token_is_renewed_and_kept() {
    let (old, new) = (jwt("old", 5), jwt("new", 3600));
    let body = format!(r#"{{"id_token":"{new}","refresh_token":"refresh-2"}}"#);
    let (url, seen) = provider(vec![(200, body)]).await;
    let fields = format!(
        "idp-issuer-url: '{url}', client-id: c/d, client-secret: s, id-token: {old}, \
         refresh-token: refresh-1"
    );
    let (dir, config) = kubeconfig(&fields);
    assert_eq!(token(&config).await.unwrap(), new);
    let request = seen.lock().unwrap()[1].clone();
    assert!(
        request.starts_with("POST /realm/token?a=b HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains(&format!(
            "authorization: Basic {}\r\n",
            STANDARD.encode("c%2Fd:s")
        )),
        "{request}"
    );
    assert!(
        request.ends_with("\r\n\r\ngrant_type=refresh_token&refresh_token=refresh-1"),
        "{request}"
    );
    let kept = fs::read_to_string(dir.path().join("config")).unwrap();
    assert!(kept.starts_with("# mine\n"), "{kept}");
    assert!(kept.contains(&new) && kept.contains("refresh-2"), "{kept}");
    assert!(
        !kept.contains(&old) && !kept.contains("refresh-1"),
        "{kept}"
    );
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["config"], "no lock and no copy is left");
}

#[tokio::test]
async fn a_provider_that_does_not_take_the_header_gets_the_secret_in_the_form() {
    let new = jwt("new", 3600);
    let answers = vec![
        (401, r#"{"error":"invalid_client"}"#.to_owned()),
        (200, format!(r#"{{"id_token":"{new}"}}"#)),
    ];
    let (url, seen) = provider(answers).await;
    let fields =
        format!("idp-issuer-url: '{url}/', client-id: c, client-secret: s&s, refresh-token: r");
    let (_dir, config) = kubeconfig(&fields);
    assert_eq!(token(&config).await.unwrap(), new);
    let request = seen.lock().unwrap()[2].clone();
    assert!(
        request.ends_with("refresh_token=r&client_id=c&client_secret=s%26s"),
        "{request}"
    );
}

#[tokio::test]
async fn what_cannot_be_renewed_says_why_and_no_secret() {
    let denied = r#"{"error":"invalid_grant","error_description":"session over"}"#.to_owned();
    for (answer, expected) in [
        (
            (400, denied),
            "refuses the refresh-token (invalid_grant session over); log in again",
        ),
        (
            (401, r#"{"error":"invalid_client"}"#.to_owned()),
            "refuses the client-id or the client-secret (invalid_client)",
        ),
        ((404, "hunter2".to_owned()), "answered 404"),
        ((200, "hunter2".to_owned()), "something else than JSON"),
        ((200, " <html>".to_owned()), "answered a page of HTML"),
        (
            (200, r#"{"access_token":"hunter2"}"#.to_owned()),
            "gave no id_token",
        ),
        (
            (200, r#"{"id_token":"hunter2"}"#.to_owned()),
            "not a JSON Web Token",
        ),
    ] {
        let (url, _) = provider(vec![answer]).await;
        let fields = format!("idp-issuer-url: '{url}', client-id: c, refresh-token: hunter2");
        let error = token(&kubeconfig(&fields).1).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let expired = jwt("old", -60);
    for (fields, expected) in [
        (
            format!("idp-issuer-url: 'https://i', client-id: c, id-token: {expired}"),
            "log in again",
        ),
        (
            "idp-issuer-url: 'https://i', client-id: c".to_owned(),
            "neither an id-token nor",
        ),
        (
            "idp-issuer-url: 'http://i', client-id: c, refresh-token: r".to_owned(),
            "not an https URL",
        ),
    ] {
        let error = token(&kubeconfig(&fields).1).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// What is waiting for a credential then tries again.
#[tokio::test]
async fn a_provider_that_is_down_is_named_and_may_be_asked_again() {
    let down = |error: &str| format!(r#"{{"error":"{error}","error_description":"a\\u001b[2Jb"}}"#);
    let mut urls = vec!["http://127.0.0.1:1".to_owned()];
    for answer in [
        (500, "hunter2".to_owned()),
        (429, String::new()),
        (503, down("temporarily_unavailable")),
        (400, down("server_error")),
    ] {
        urls.push(provider(vec![answer]).await.0);
    }
    for url in urls {
        let fields = format!("idp-issuer-url: '{url}', client-id: c, refresh-token: hunter2");
        let error = token(&kubeconfig(&fields).1).await.unwrap_err();
        let text = error.to_string();
        let start = "cannot connect to the OpenID Connect provider at ";
        assert!(text.starts_with(start) && error.is_retryable(), "{text}");
        assert!(
            !text.contains(['\u{1b}']) && !text.contains("hunter2"),
            "{text}"
        );
    }
}

/// A login page's redirect, what is no HTTP, and an answer that is cut.
#[tokio::test]
async fn an_answer_that_is_none_is_told_as_what_it_is() {
    for (answer, expected) in [
        (
            "302 Found\r\nLocation: https://login.test/\r\nContent-Length: 0\r\n\r\n",
            "answered 302 Found, to go on at https://login.test/",
        ),
        (
            "200 OK\r\nA: \x01\r\n\r\n",
            "openid-configuration: the server's answer cannot be read: invalid HTTP header parsed",
        ),
        (
            "200 OK\r\nContent-Length: 9\r\n\r\n{}",
            "openid-configuration: end of file before message length reached",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = tcp.read(&mut head).await;
                let answer = format!("HTTP/1.1 {answer}");
                let _ = tcp.write_all(answer.as_bytes()).await;
            }
        });
        let fields = format!("idp-issuer-url: '{url}', client-id: c, refresh-token: r");
        let (_dir, config) = kubeconfig(&fields);
        let error = token(&config).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_file_in_which_the_token_is_not_unique_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    fs::write(&path, "a: tok, b: tok").unwrap();
    let changes = [(Some("tok".into()), "new".into())];
    assert!(keep(&path, &changes).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "a: tok, b: tok");
    fs::write(dir.path().join("config.lock"), "").unwrap();
    let changes = [(Some("a".into()), "new".into())];
    assert!(
        keep(&path, &changes).is_err(),
        "another program holds the lock"
    );
}

#[tokio::test]
async fn an_end_that_no_clock_reaches_is_none() {
    let known = "idp-issuer-url: 'https://nowhere.invalid', client-id: c";
    for exp in [
        "1e19",
        "1e308",
        "18446744073709551615",
        "9223372036854775807",
    ] {
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#));
        let (_dir, config) = kubeconfig(&format!("{known}, id-token: e30.{claims}.x"));
        let sent = token(&config).await.unwrap();
        assert_eq!(sent, format!("e30.{claims}.x"), "{exp}");
    }
    let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":-1}"#);
    let (_dir, config) = kubeconfig(&format!("{known}, id-token: e30.{claims}.x"));
    let error = token(&config).await.unwrap_err().to_string();
    assert!(error.contains("not a JSON Web Token"), "{error}");
}

#[tokio::test]
async fn a_password_in_the_url_of_a_provider_is_not_repeated() {
    for (url, problem) in [
        ("http://me:hunter2@h", "is not an https URL"),
        ("https://me:hunter2@h", "holds a login"),
        ("http://me:hunter2@127.0.0.1:1", "holds a login"),
    ] {
        let fields = format!("refresh-token: r, client-id: c, idp-issuer-url: '{url}'");
        let (_dir, config) = kubeconfig(&fields);
        let error = token(&config).await.unwrap_err().to_string();
        assert!(
            error.contains(problem) && !error.contains("hunter2"),
            "{error}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_file_of_tokens_is_private_from_the_first_moment_on() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let file = create_private(&path).unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}
