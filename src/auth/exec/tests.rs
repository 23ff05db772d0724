#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use http::HeaderMap;
use tempfile::TempDir;

use super::*;
use crate::{
    auth::Credentials,
    config::{Config, KubeconfigOptions},
    limits,
    transport::http::tests::{traced, upgrades::Events},
};

/// A kubeconfig whose user runs `./plugin`, a shell script, with more fields of `exec`.
fn plugin(script: &str, fields: &str) -> (TempDir, Result<Config>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin");
    fs::write(
        &path,
        format!("#!/bin/sh\ncd {}\n{script}", dir.path().display()),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let config = config(dir.path(), &format!("command: ./plugin, {fields}"));
    (dir, config)
}

fn config(dir: &Path, exec: &str) -> Result<Config> {
    let kubeconfig = format!(
        "current-context: c\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: 'https://h:1', tls-server-name: name, \
         certificate-authority-data: Y2E=, proxy-url: 'http://me:pw@p', extensions: [\
         {{name: other, extension: 1}}, \
         {{name: client.authentication.k8s.io/exec, extension: {{audience: x}}}}]}}}}]\n\
         users: [{{name: u, user: {{exec: {{{exec}}}}}}}]\n"
    );
    let path = dir.join("config");
    fs::write(&path, kubeconfig).unwrap();
    Config::from_kubeconfig(&KubeconfigOptions::new().file(path))
}

const NEVER: &str = "apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never";

/// A script that prints a status and counts its runs in a file.
fn prints(status: &str) -> String {
    format!(
        "echo run >> runs\n\
         printf '%s\\n' '{{\"kind\":\"ExecCredential\",\
         \"apiVersion\":\"client.authentication.k8s.io/v1\",\"status\":{{{status}}}}}'\n"
    )
}

fn runs(dir: &TempDir) -> usize {
    fs::read_to_string(dir.path().join("runs")).map_or(0, |text| text.lines().count())
}

fn credentials(config: Result<Config>) -> Arc<Credentials> {
    Arc::new(Credentials::new(&config.unwrap()).unwrap())
}

async fn authorize(credentials: &Credentials) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    credentials.authorize(&mut headers).await?;
    Ok(headers)
}

async fn token(credentials: &Credentials) -> String {
    let headers = authorize(credentials).await.unwrap();
    headers["authorization"].to_str().unwrap().to_owned()
}

async fn problem(script: &str, fields: &str) -> String {
    let (_dir, config) = plugin(script, fields);
    match config {
        Err(error) => error.to_string(),
        Ok(config) => {
            let credentials = Credentials::new(&config).unwrap();
            authorize(&credentials).await.unwrap_err().to_string()
        }
    }
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_kept() {
    let times = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"];
    let times = times.map(|time| format!(r#","expirationTimestamp":"{time}""#));
    for end in times.iter().map(String::as_str).chain([""]) {
        let (dir, config) = plugin(&prints(&format!(r#""token":"t-1"{end}"#)), NEVER);
        let credentials = credentials(config);
        for _ in 0..3 {
            assert_eq!(token(&credentials).await, "Bearer t-1");
        }
        assert!(authorize(&credentials).await.unwrap()["authorization"].is_sensitive());
        assert!(credentials.identity().await.unwrap().is_none());
        assert_eq!(runs(&dir), 1, "{end}");
    }
}

#[tokio::test]
async fn a_plugin_is_told_of_the_cluster_and_gets_its_variables() {
    let script =
        r#"printf '%s' "$KUBERNETES_EXEC_INFO" > info; printf '%s' "$1 $EXTRA $HOME" > rest"#;
    let script = format!("{script}\n{}", prints(r#""token":"t""#));
    let fields = format!(
        "{NEVER}, args: [one], env: [{{name: EXTRA, value: two}}], provideClusterInfo: true"
    );
    let (dir, config) = plugin(&script, &fields);
    token(&credentials(config)).await;
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let info: serde_json::Value = serde_json::from_str(&read("info")).unwrap();
    assert_eq!(
        info,
        serde_json::json!({
            "kind": "ExecCredential",
            "apiVersion": "client.authentication.k8s.io/v1",
            "spec": {
                "interactive": false,
                "cluster": {
                    "server": "https://h:1",
                    "tls-server-name": "name",
                    "certificate-authority-data": "Y2E=",
                    "proxy-url": "http://me:pw@p",
                    "config": {"audience": "x"},
                },
            },
        })
    );
    assert!(read("rest").starts_with("one two /"), "{}", read("rest"));

    let (dir, config) = plugin(&script, NEVER);
    token(&credentials(config)).await;
    let info = fs::read_to_string(dir.path().join("info")).unwrap();
    assert!(!info.contains("cluster"), "{info}");
}

#[tokio::test]
async fn a_certificate_is_for_connections_and_no_header() {
    let status = r#""clientCertificateData":"CERT","clientKeyData":"KEY""#;
    let (dir, config) = plugin(&prints(status), NEVER);
    let credentials = credentials(config);
    assert!(authorize(&credentials).await.unwrap().is_empty());
    let (certificate, key) = credentials.identity().await.unwrap().unwrap();
    assert_eq!(certificate.read().unwrap().expose_secret(), b"CERT");
    assert_eq!(key.read().unwrap().expose_secret(), b"KEY");
    assert_eq!(runs(&dir), 1);
}

/// A script whose nth run gives the token `t-n` for so many seconds, after a pause.
fn serial(seconds: u32, pause: &str) -> String {
    format!(
        "echo run >> runs\nn=$(wc -l < runs)\n{pause}\n\
         end=$(date -u -d \"+{seconds} seconds\" +%Y-%m-%dT%H:%M:%SZ)\n\
         printf '{{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\",\
         \"status\":{{\"token\":\"t-%d\",\"expirationTimestamp\":\"%s\"}}}}' $n $end\n"
    )
}

/// As tokio's paused clock advances whenever nothing is ready, a wait for a process must not
/// depend on it: it runs between pauses.
async fn forward(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_credential_is_renewed_before_its_end_behind_the_one_in_use() {
    let (dir, config) = plugin(&serial(1000, "[ $n = 1 ] || sleep 0.3"), NEVER);
    let credentials = credentials(config);
    assert_eq!(token(&credentials).await, "Bearer t-1");
    forward(Duration::from_secs(790)).await;
    assert_eq!(token(&credentials).await, "Bearer t-1");
    assert_eq!(runs(&dir), 1);
    forward(Duration::from_secs(20)).await;
    for _ in 0..5 {
        assert_eq!(token(&credentials).await, "Bearer t-1", "nobody waits");
    }
    while token(&credentials).await == "Bearer t-1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(token(&credentials).await, "Bearer t-2");
    assert_eq!(runs(&dir), 2);
}

#[tokio::test]
async fn an_ended_credential_is_waited_for_and_issued_once() {
    let (dir, config) = plugin(&serial(1000, "sleep 0.2"), NEVER);
    let credentials = credentials(config);
    let all = |credentials: &Arc<Credentials>| {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let credentials = Arc::clone(credentials);
                tokio::spawn(async move { token(&credentials).await })
            })
            .collect();
        async move {
            let mut tokens = Vec::new();
            for task in tasks {
                tokens.push(task.await.unwrap());
            }
            tokens
        }
    };
    assert_eq!(all(&credentials).await, vec!["Bearer t-1"; 8]);
    forward(Duration::from_secs(1001)).await;
    assert_eq!(all(&credentials).await, vec!["Bearer t-2"; 8]);
    assert_eq!(runs(&dir), 2);
}

#[tokio::test]
async fn a_refused_credential_is_issued_anew_once() {
    let (dir, config) = plugin(&serial(1000, ""), NEVER);
    let credentials = credentials(config);
    let first = authorize(&credentials).await.unwrap();
    assert!(credentials.refused(&first));
    assert_eq!(token(&credentials).await, "Bearer t-2");
    assert!(credentials.refused(&first), "it has been renewed since");
    assert_eq!(token(&credentials).await, "Bearer t-2");
    assert_eq!(runs(&dir), 2);
}

#[tokio::test]
async fn a_plugin_that_gives_the_same_refused_token_is_left_alone_for_a_while() {
    let (dir, config) = plugin(&prints(r#""token":"t""#), NEVER);
    let credentials = credentials(config);
    let first = authorize(&credentials).await.unwrap();
    assert!(credentials.refused(&first));
    assert_eq!(authorize(&credentials).await.unwrap(), first);
    assert!(!credentials.refused(&first));
    assert_eq!(authorize(&credentials).await.unwrap(), first);
    assert_eq!(runs(&dir), 2);
    forward(limits::RENEW_AGAIN).await;
    assert!(credentials.refused(&first));
    authorize(&credentials).await.unwrap();
    assert_eq!(runs(&dir), 3);
}

#[tokio::test]
async fn a_failed_renewal_leaves_a_valid_credential_in_use() {
    let (dir, config) = plugin(&serial(1000, "[ $n != 2 ] || exit 1"), NEVER);
    let credentials = credentials(config);
    assert_eq!(token(&credentials).await, "Bearer t-1");
    forward(Duration::from_secs(850)).await;
    assert_eq!(token(&credentials).await, "Bearer t-1");
    while runs(&dir) < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(token(&credentials).await, "Bearer t-1");
    assert_eq!(runs(&dir), 2, "not again at once");
    forward(Duration::from_secs(151)).await;
    assert_eq!(token(&credentials).await, "Bearer t-3");
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_stop_the_others() {
    let (dir, config) = plugin(&serial(1000, "sleep 0.3"), NEVER);
    let credentials = credentials(config);
    let short = Duration::from_millis(50);
    let gone = tokio::time::timeout(short, token(&credentials)).await;
    assert!(gone.is_err());
    assert_eq!(token(&credentials).await, "Bearer t-1");
    assert_eq!(runs(&dir), 1);
}

#[tokio::test]
async fn what_a_plugin_does_wrong_is_named_and_never_repeated() {
    let said = |status: &str| prints(status);
    for (script, expected) in [
        (
            "echo hunter2; exit 7".to_owned(),
            "it failed (exit status: 7)",
        ),
        (
            "echo '{hunter2'".to_owned(),
            "no ExecCredential in JSON or YAML, at line 1",
        ),
        (
            "echo '{\"kind\":\"Pod\"}'".to_owned(),
            "no ExecCredential in JSON or YAML",
        ),
        ("printf '\\377'".to_owned(), "it printed no text"),
        ("exit 0".to_owned(), "it printed nothing"),
        ("kill -9 $$".to_owned(), "it failed (signal: 9 (SIGKILL))"),
        (said("").replace("status", "hunter2"), "has no status"),
        (said(""), "neither a token nor a certificate"),
        (
            said(r#""clientKeyData":"hunter2""#),
            "only one of certificate and key",
        ),
        (said(r#""token":"hun\nter2""#), "no HTTP header can carry"),
        (
            said(r#""token":"hunter2","expirationTimestamp":"soon""#),
            "status.expirationTimestamp of what it printed cannot be read",
        ),
        (
            "printf 'kind: ExecCredential\\napiVersion: client.authentication.k8s.io/v1\\n\
             status: {token: 777}\\n'"
                .to_owned(),
            "status.token of what it printed cannot be read",
        ),
        (
            said(r#""token":"t""#).replace("/v1", "/v1beta1"),
            "answered as",
        ),
        (
            "head -c 2000000 /dev/zero".to_owned(),
            "more than 1048576 bytes",
        ),
    ] {
        let text = problem(&script, NEVER).await;
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("exec of user \"u\" in /"), "{text}");
        assert!(!text.contains("ter2"), "{text}");
    }
}

#[tokio::test]
async fn a_credential_in_yaml_or_behind_a_byte_order_mark_is_read() {
    let yaml = "printf 'kind: ExecCredential\\napiVersion: client.authentication.k8s.io/v1\\n\
                status:\\n  token: t-1\\n'";
    let mark = "printf '\\357\\273\\277'\n".to_owned();
    for script in [yaml.to_owned(), mark + &prints(r#""token":"t-1""#)] {
        let (_dir, config) = plugin(&script, NEVER);
        assert_eq!(token(&credentials(config)).await, "Bearer t-1");
    }
}

#[tokio::test]
async fn what_a_plugin_leaves_behind_is_not_waited_for() {
    let script = format!("sleep 600 & echo $! > left\n{}", prints(r#""token":"t-1""#));
    let (dir, config) = plugin(&script, NEVER);
    let credentials = credentials(config);
    let asked = token(&credentials);
    let asked = tokio::time::timeout(Duration::from_secs(120), asked).await;
    assert_eq!(asked.expect("it has ended"), "Bearer t-1");
    let left = fs::read_to_string(dir.path().join("left")).unwrap();
    let killed = std::process::Command::new("kill").arg(left.trim()).status();
    assert!(killed.unwrap().success());
}

#[tokio::test]
async fn a_plugin_that_runs_for_long_is_named() {
    let script = format!(
        "while [ ! -f go ]; do sleep 0.02; done\n{}",
        prints(r#""token":"t-1""#)
    );
    let (dir, config) = plugin(&script, NEVER);
    let events = Events::default();
    let _heard = traced(events.clone());
    let credentials = credentials(config);
    let mut asking = std::pin::pin!(token(&credentials));
    let said = || events.0.lock().unwrap().clone();
    while !said().contains("waiting for the exec plugin to end") {
        tokio::select! {
            token = &mut asking => panic!("{token}"),
            () = forward(limits::PLUGIN_PATIENCE) => {}
        }
    }
    assert!(said().contains("/plugin"), "{}", said());
    fs::write(dir.path().join("go"), "").unwrap();
    assert_eq!(asking.await, "Bearer t-1");
    assert_eq!(said().matches("waiting for").count(), 1, "{}", said());
}

#[tokio::test]
async fn a_plugin_that_is_not_installed_gives_its_install_hint() {
    let dir = tempfile::tempdir().unwrap();
    let exec = format!("command: no-such-plugin, {NEVER}, installHint: 'get it at example.com'");
    let error = authorize(&credentials(config(dir.path(), &exec)))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with("the plugin no-such-plugin: it is not installed; get it at example.com"),
        "{text}"
    );
}

#[tokio::test]
async fn entries_are_checked_as_by_kubectl() {
    let beta = "apiVersion: client.authentication.k8s.io/v1beta1";
    for (fields, expected) in [
        ("args: []", "names no apiVersion"),
        (
            "apiVersion: client.authentication.k8s.io/v1alpha1",
            "removed in Kubernetes 1.24",
        ),
        ("apiVersion: v2", "\"v2\" is not known"),
        (
            "apiVersion: client.authentication.k8s.io/v1",
            "needs an interactiveMode",
        ),
        (
            &format!("{beta}, interactiveMode: Often"),
            "\"Often\" is not known",
        ),
        (
            &format!("{beta}, env: [{{name: '', value: x}}]"),
            "has no name",
        ),
        (&format!("{beta}, command: ''"), "names no command"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let command = if fields.contains("command") {
            ""
        } else {
            "command: x, "
        };
        let error = config(dir.path(), &format!("{command}{fields}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_user_is_asked_only_where_it_is_possible_and_allowed() {
    let exec = |mode: &str| {
        let fields =
            format!("{NEVER}, interactiveMode: {mode}").replace(", interactiveMode: Never,", ",");
        match plugin("", &fields).1.unwrap().auth {
            crate::config::Auth::Exec(exec) => Plugin {
                settings: exec,
                cluster: None,
            },
            other => panic!("{other:?}"),
        }
    };
    assert!(!exec("Never").may_ask(true).unwrap());
    assert!(exec("IfAvailable").may_ask(true).unwrap());
    assert!(!exec("IfAvailable").may_ask(false).unwrap());
    assert!(exec("Always").may_ask(true).unwrap());
    let error = exec("Always").may_ask(false).unwrap_err().to_string();
    assert!(error.contains("not a terminal"), "{error}");
    let (_dir, config) = plugin("", &NEVER.replace("Never", "Always"));
    let config = config.unwrap().with_stdin_for_plugins(false);
    let crate::config::Auth::Exec(exec) = &config.auth else {
        panic!("no plugin");
    };
    let exec = Plugin::new(exec, &config);
    let error = exec.may_ask(true).unwrap_err().to_string();
    assert!(error.contains("standard input is in use"), "{error}");
}

#[tokio::test]
async fn another_credential_of_the_user_leaves_the_plugin_out() {
    let dir = tempfile::tempdir().unwrap();
    let exec = format!("command: no-such-plugin, {NEVER}}}, token: {{t");
    let text = exec
        .to_string()
        .replace("token: {t", "token: t, username: ''");
    let config = config(dir.path(), &text.replace("username: ''", "x: {"));
    assert_eq!(token(&credentials(config)).await, "Bearer t");
}

#[test]
fn every_time_that_a_plugin_may_print_is_one() {
    let moment = |text: &str| moment(text.parse().unwrap());
    let hour = Duration::from_secs(3600);
    assert_eq!(
        moment("1970-01-01T01:00:00Z"),
        SystemTime::UNIX_EPOCH.checked_add(hour)
    );
    assert_eq!(moment("0001-01-01T00:00:00Z"), Some(SystemTime::UNIX_EPOCH));
    assert!(moment("9999-12-30T22:00:00Z").is_none_or(|end| end > SystemTime::now()));
}
