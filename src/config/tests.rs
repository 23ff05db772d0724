mod texts;
use std::{ffi::OsString, fs, path::Path};

use http::HeaderMap;
use tempfile::TempDir;

use super::*;
use crate::auth::Credentials;

/// A directory with files, and the environment of a user whose home it is.
fn home(files: &[(&str, &str)]) -> (TempDir, Environment) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let environment = Environment {
        home: Some(dir.path().to_owned()),
        service_account: dir.path().join("serviceaccount"),
        ..Environment::default()
    };
    (dir, environment)
}

fn set(environment: &mut Environment, name: &str, value: impl Into<OsString>) {
    environment.variables.insert(name.into(), value.into());
}

fn kubeconfig(text: &str) -> Result<Config> {
    let (_dir, environment) = home(&[(".kube/config", text)]);
    Config::from_environment(&environment, &KubeconfigOptions::new())
}

/// A kubeconfig with one context, the rest of whose cluster and user is given.
fn one(cluster: &str, user: &str) -> String {
    format!(
        "current-context: c\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{{cluster}}}}}]\n\
         users: [{{name: u, user: {{{user}}}}}]\n"
    )
}

fn problem(result: Result<Config>) -> String {
    result.unwrap_err().to_string()
}

async fn headers(config: &Config) -> HeaderMap {
    let mut headers = HeaderMap::new();
    Credentials::new(config)
        .unwrap()
        .authorize(&mut headers)
        .await
        .unwrap();
    headers
}

fn read(material: &Option<Material>) -> String {
    use secrecy::ExposeSecret;
    let text = material.as_ref().unwrap().read().unwrap();
    String::from_utf8(text.expose_secret().to_vec()).unwrap()
}

const FULL: &str = r#"
apiVersion: v1
kind: Config
preferences: {colors: true}
current-context: prod
extensions: [{name: x, extension: {a: [1, 2]}}]
contexts:
- name: prod
  context: {cluster: east, user: admin, namespace: shop, extensions: null}
- name: dev
  context: {cluster: west, user: nobody}
clusters:
- name: east
  cluster:
    server: https://east.example.com:6443/base
    certificate-authority: pki/ca.crt
    certificate-authority-data: bm90IHRo
      ZSBmaWxl
    tls-server-name: kubernetes
    disable-compression: true
- name: west
  cluster: {server: "https://[fd00::7]", certificate-authority: pki/ca.crt}
users:
- name: admin
  user: {token: "123456", as: jane, as-groups: [a, b], as-uid: u-1, as-user-extra: {"Acme.com/Scope": [x]}}
- name: nobody
  user: {}
"#;

#[tokio::test]
async fn the_current_context_selects_cluster_user_and_namespace() {
    let config = kubeconfig(FULL).unwrap();
    assert_eq!(config.server_url(), "https://east.example.com:6443/base");
    assert_eq!(config.namespace(), "shop");
    assert_eq!(config.tls.server_name.as_deref(), Some("kubernetes"));
    assert_eq!(
        read(&config.tls.ca),
        "not the file",
        "inline data wins over the file"
    );
    let headers = headers(&config).await;
    assert_eq!(headers["authorization"], "Bearer 123456");
    assert!(headers["authorization"].is_sensitive());
    assert_eq!(headers["impersonate-user"], "jane");
    assert_eq!(headers["impersonate-uid"], "u-1");
    assert_eq!(headers.get_all("impersonate-group").iter().count(), 2);
    assert_eq!(headers["impersonate-extra-acme.com%2fscope"], "x");
}

#[test]
fn overrides_replace_context_cluster_and_user() {
    let (dir, environment) = home(&[(".kube/config", FULL), (".kube/pki/ca.crt", "the file")]);
    let mut options = KubeconfigOptions::new().context("dev");
    let config = Config::from_kubeconfig_in(&environment, &options).unwrap();
    assert_eq!(config.server_url(), "https://[fd00::7]");
    assert_eq!(config.namespace(), "default");
    assert_eq!(
        read(&config.tls.ca),
        "the file",
        "relative to the kubeconfig"
    );
    options.cluster = Some("east".to_owned());
    options.user = Some("admin".to_owned());
    let config = Config::from_kubeconfig_in(&environment, &options).unwrap();
    assert_eq!(config.server_url(), "https://east.example.com:6443/base");
    assert!(matches!(config.auth, Auth::Token(_)));
    options.context = Some("prd".to_owned());
    let problem = problem(Config::from_kubeconfig_in(&environment, &options));
    let file = dir.path().join(".kube/config");
    assert_eq!(
        problem,
        format!(
            "{}: the context \"prd\" does not exist; there are \"dev\", \"prod\"",
            file.display()
        )
    );
}

#[test]
fn a_server_replaces_the_cluster_s_and_needs_no_kubeconfig() {
    let options = KubeconfigOptions::new().server("https://other.example.com");
    let (_dir, environment) = home(&[(".kube/config", FULL)]);
    let config = Config::from_kubeconfig_in(&environment, &options).unwrap();
    assert_eq!(config.server_url(), "https://other.example.com");
    assert_eq!(config.namespace(), "shop");
    assert!(config.tls.ca.is_some());
    assert_eq!(config.tls.server_name, None);

    let (dir, environment) = home(&[]);
    let config = Config::from_kubeconfig_in(&environment, &options).unwrap();
    assert_eq!(config.server_url(), "https://other.example.com");
    let missing = options.clone().file(dir.path().join("missing"));
    let error = problem(Config::from_kubeconfig_in(&environment, &missing));
    assert!(error.contains("does not exist"), "{error}");
    let wrong = options.server("ftp://other");
    let error = problem(Config::from_kubeconfig_in(&environment, &wrong));
    assert!(error.starts_with("the server that replaces"), "{error}");
}

#[test]
fn of_two_files_the_first_that_names_an_entry_wins_whole() {
    let first = "current-context: b\nclusters: [{name: k, cluster: {server: 'https://first'}}]\n";
    let second = "current-context: a\n\
                  contexts: [{name: b, context: {cluster: k, user: u, namespace: ns}}]\n\
                  clusters: [{name: k, cluster: {server: 'https://second', tls-server-name: x}}]\n\
                  users: [{name: u, user: {tokenFile: t}}]\n";
    let (dir, mut environment) = home(&[("one/config", first), ("two/config", second)]);
    let (one, two) = (dir.path().join("one/config"), dir.path().join("two/config"));
    let missing = dir.path().join("missing");
    let list = std::env::join_paths([Path::new(""), &missing, &one, &two, &one]).unwrap();
    set(&mut environment, "KUBECONFIG", list);
    let config = Config::from_environment(&environment, &KubeconfigOptions::new()).unwrap();
    assert_eq!(config.server_url(), "https://first");
    assert_eq!(config.namespace(), "ns");
    assert_eq!(config.tls.server_name, None, "entries are not mixed");
    let Auth::TokenFile(path, None) = &config.auth else {
        panic!("{:?}", config.auth);
    };
    assert_eq!(
        path,
        &dir.path().join("two/t"),
        "relative to the file that names it"
    );
}

#[test]
fn an_explicit_file_must_exist() {
    let (dir, environment) = home(&[(".kube/config", FULL)]);
    let path = dir.path().join("nope");
    let options = KubeconfigOptions::new().file(&path);
    let problem = problem(Config::from_kubeconfig_in(&environment, &options));
    assert_eq!(
        problem,
        format!("kubeconfig: {} does not exist", path.display())
    );
}

#[test]
fn without_any_configuration_the_error_names_all_that_was_tried() {
    let (dir, mut environment) = home(&[]);
    let text = problem(Config::from_environment(
        &environment,
        &KubeconfigOptions::new(),
    ));
    for tried in [
        "KUBECONFIG is not set",
        ".kube/config does not exist",
        "serviceaccount/token",
    ] {
        assert!(text.contains(tried), "{text}");
    }
    set(&mut environment, "KUBECONFIG", dir.path().join("nope"));
    let text = problem(Config::from_environment(
        &environment,
        &KubeconfigOptions::new(),
    ));
    assert!(text.contains("the variable KUBECONFIG") && text.contains("nope does not exist"));
    fs::create_dir(dir.path().join("nope")).unwrap();
    let text = problem(Config::from_environment(
        &environment,
        &KubeconfigOptions::new(),
    ));
    assert!(text.contains("nope cannot be read"), "{text}");
}

#[test]
fn a_pod_uses_its_service_account_unless_a_kubeconfig_says_something() {
    let files = [
        ("serviceaccount/token", "t0k"),
        ("serviceaccount/ca.crt", "the CA"),
        ("serviceaccount/namespace", "shop\n"),
        (".kube/config", "# nothing\n"),
    ];
    let (dir, mut environment) = home(&files);
    let config = Config::from_environment(&environment, &KubeconfigOptions::new()).unwrap();
    assert_eq!(config.server_url(), "https://kubernetes.default.svc");
    assert_eq!(config.namespace(), "shop");
    assert_eq!(read(&config.tls.ca), "the CA");
    set(&mut environment, "KUBERNETES_SERVICE_HOST", "fd00::1");
    set(&mut environment, "KUBERNETES_SERVICE_PORT", "443");
    let config = Config::from_environment(&environment, &KubeconfigOptions::new()).unwrap();
    assert_eq!(config.server_url(), "https://[fd00::1]:443");
    set(&mut environment, "KUBERNETES_SERVICE_HOST", "10.96.0.1");
    let config = Config::in_cluster_in(&environment).unwrap();
    assert_eq!(config.server_url(), "https://10.96.0.1:443");
    fs::write(dir.path().join(".kube/config"), FULL).unwrap();
    let config = Config::from_environment(&environment, &KubeconfigOptions::new()).unwrap();
    assert_eq!(config.namespace(), "shop");
    assert!(config.server_url().starts_with("https://east"));
    fs::remove_file(dir.path().join("serviceaccount/token")).unwrap();
    assert!(problem(Config::in_cluster_in(&environment)).contains("is this a pod?"));
}

#[test]
fn an_empty_list_or_null_is_no_entry() {
    let text = problem(kubeconfig(
        "current-context: ''\nclusters: null\ncontexts: []\nusers:\n",
    ));
    assert!(text.contains("is empty"), "{text}");
    let text = problem(kubeconfig("contexts: [{name: a, context: {}}, {name: b}]"));
    assert!(
        text.contains("no current-context; its contexts are \"a\", \"b\""),
        "{text}"
    );
}

#[test]
fn a_name_twice_in_one_list_is_refused() {
    let text = problem(kubeconfig("users: [{name: a}, {name: a}]"));
    assert!(
        text.contains("the user \"a\" is in the list twice"),
        "{text}"
    );
}

#[test]
fn a_kubeconfig_may_be_json() {
    let json = r#"{"current-context":"c","contexts":[{"name":"c","context":{"cluster":"k"}}],
        "clusters":[{"name":"k","cluster":{"server":"https://h"}}]}"#;
    assert_eq!(kubeconfig(json).unwrap().server_url(), "https://h");
}

#[tokio::test]
async fn credentials_of_a_kubeconfig_go_over_tls_only() {
    let text = one("server: 'http://h:8080'", "token: t, as: jane");
    let headers = headers(&kubeconfig(&text).unwrap()).await;
    assert!(!headers.contains_key("authorization"));
    assert_eq!(headers["impersonate-user"], "jane");
}

#[tokio::test]
async fn a_user_name_and_password_become_basic_authentication() {
    let text = one(
        "server: 'https://h'",
        "username: Aladdin, password: 'open sesame'",
    );
    let headers = headers(&kubeconfig(&text).unwrap()).await;
    assert_eq!(
        headers["authorization"],
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    );
}

#[test]
fn a_bare_host_is_https_if_there_is_tls_to_do() {
    let server = |cluster| kubeconfig(&one(cluster, "")).unwrap().server_url();
    assert_eq!(server("server: 'h:6443'"), "http://h:6443");
    let insecure = "server: 'h:6443', insecure-skip-tls-verify: true";
    assert_eq!(server(insecure), "https://h:6443");
    // Without a kubeconfig nothing says that it is not.
    assert_eq!(
        Config::new("h:6443").unwrap().server_url(),
        "https://h:6443"
    );
}

#[test]
fn a_key_without_a_certificate_is_of_no_use_and_does_no_harm() {
    for key in ["client-key: k", "client-key-data: QQ=="] {
        let config = kubeconfig(&one("server: 'https://h'", &format!("{key}, token: t")));
        assert!(config.unwrap().tls.identity.is_none(), "{key}");
    }
}

#[test]
fn contradictions_and_what_is_not_supported_are_refused() {
    let https = "server: 'https://h'";
    let cases = [
        (https, "username: a, token: t", "exclude a token"),
        (https, "client-certificate-data: QQ==", "no client-key"),
        (
            https,
            "client-key-data: '!', client-certificate: c",
            "client-key-data of user \"u\"",
        ),
        (https, "as-groups: [g]", "need as"),
        (
            https,
            "auth-provider: {name: gcp}",
            "gke-gcloud-auth-plugin",
        ),
        (https, "auth-provider: {name: x}", "oidc is"),
        (
            https,
            "auth-provider: {name: oidc}",
            "it has no idp-issuer-url",
        ),
        (
            https,
            "auth-provider: {name: oidc}, exec: {command: x}",
            "exclude each other",
        ),
        (
            https,
            "exec: {command: aws, args: [x]}",
            "names no apiVersion",
        ),
        ("server: ''", "", "names no server"),
        (
            "server: 'https://h', proxy-url: 'ftp://p'",
            "",
            "proxy-url of cluster \"k\"",
        ),
        (
            "server: 'https://h', insecure-skip-tls-verify: true, certificate-authority: f",
            "",
            "exclude each other",
        ),
        (
            "server: 'https://h', certificate-authority-data: '*'",
            "",
            "is not base64",
        ),
    ];
    for (cluster, user, expected) in cases {
        let text = problem(kubeconfig(&one(cluster, user)));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn secrets_appear_neither_in_debug_nor_in_errors() {
    const SECRET: &str = "s3cr3t";
    let inline = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, SECRET);
    let users = [
        format!("token: {SECRET}, client-certificate: c, client-key-data: {inline}"),
        format!("tokenFile: f, token: {SECRET}"),
        format!("username: u, password: {SECRET}"),
    ];
    for user in &users {
        let config = kubeconfig(&one("server: 'https://h'", user)).unwrap();
        let debug = format!(
            "{config:?} {config:#?} {:?}",
            Credentials::new(&config).unwrap()
        );
        assert!(
            !debug.contains(SECRET) && !debug.contains(&inline),
            "{debug}"
        );
    }
    let broken = [
        format!("users: [{{name: u, user: {SECRET}}}]"),
        format!("users: {SECRET}"),
        format!("users:\n- name: u\n  user:\n    token: [{SECRET}\n"),
        one(
            "server: 'https://h'",
            &format!("token: {SECRET}, token: [{SECRET}]"),
        ),
        one(
            "server: 'https://h'",
            &format!("client-certificate: c, client-key-data: '{SECRET}!'"),
        ),
        one(&format!("server: 'https://me:{SECRET}@h'"), ""),
        one(
            &format!("server: 'https://h', insecure-skip-tls-verify: {SECRET}"),
            "",
        ),
    ];
    for text in &broken {
        let error = kubeconfig(text).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[test]
fn the_proxy_of_the_kubeconfig_wins_over_that_of_the_environment() {
    let (_dir, mut environment) = home(&[
        (".kube/config", &one("server: 'https://h'", "")),
        (
            "other",
            &one("server: 'https://h', proxy-url: 'socks5://p'", ""),
        ),
    ]);
    set(&mut environment, "https_proxy", "http://env:3128");
    let proxy = |environment: &Environment| {
        let config = Config::from_environment(environment, &KubeconfigOptions::new()).unwrap();
        let proxy = config.proxies.of(&config.server).unwrap();
        proxy.map(|proxy| format!("{proxy:?}"))
    };
    assert_eq!(proxy(&environment).unwrap(), "Http proxy env:3128");
    let other = environment.home.clone().unwrap().join("other");
    set(&mut environment, "KUBECONFIG", other);
    assert_eq!(proxy(&environment).unwrap(), "Socks5 proxy p:1080");
    let config = Config::from_environment(&environment, &KubeconfigOptions::new()).unwrap();
    assert!(matches!(config.without_proxy().proxies, Proxies::None));
}

/// One entry of each list is odd, and none of them is selected.
const ODD: &str = "
current-context: c
contexts:
- null
- {context: {cluster: k}}
- {name: c, context: {cluster: k, user: u}}
- {name: other, context: 7}
clusters:
- ~
- {cluster: {server: 'https://nameless'}}
- {name: k, cluster: {server: 'https://h'}}
- {name: bad, cluster: {server: 'https://b', insecure-skip-tls-verify: s3cr3t}}
users:
-
- {user: {token: s3cr3t}}
- name: u
  user:
    token: t
    as-groups:
- {name: bad, user: {token: [s3cr3t]}}
- {name: args, user: {token: t, exec: {apiVersion: v1, command: x, args: {a: s3cr3t}}}}
- {name: exec, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: x,
   interactiveMode: Never, args: [null], env: [{name: A, value: null}, {name: B}]}}}
preferences: {}
---
";

#[tokio::test]
async fn odd_entries_count_only_where_they_are_selected() {
    let (dir, environment) = home(&[(".kube/config", ODD)]);
    let file = dir.path().join(".kube/config");
    let select = |options: KubeconfigOptions| Config::from_kubeconfig_in(&environment, &options);
    let new = KubeconfigOptions::new;
    let config = select(new()).unwrap();
    assert_eq!(config.server_url(), "https://h");
    assert_eq!(headers(&config).await["authorization"], "Bearer t");
    let config = select(new().user("exec")).unwrap();
    let Auth::Exec(exec) = &config.auth else {
        panic!("{:?}", config.auth);
    };
    assert_eq!(exec.args, [""]);
    assert!(
        exec.variables
            .iter()
            .all(|variable| variable.value.is_empty())
    );
    for (options, expected) in [
        (
            new().user("bad"),
            "the user \"bad\" cannot be read: the value of token is not what it should be",
        ),
        (
            new().user("args"),
            "the user \"args\" cannot be read: the value of exec.args is not what it should be",
        ),
        (
            new().cluster("bad"),
            "the cluster \"bad\" cannot be read: the value of insecure-skip-tls-verify is not \
             what it should be",
        ),
        (
            new().context("other"),
            "the context \"other\" cannot be read: it is not what it should be",
        ),
    ] {
        let text = problem(select(options));
        assert_eq!(text, format!("{}: {expected}", file.display()));
    }
}

#[test]
fn only_the_first_document_counts() {
    let text = one("server: 'https://h'", "");
    for end in [
        "---\n",
        "---",
        "\n---\n---\n",
        "---\nclusters: 7\n",
        "...\n",
    ] {
        let config = kubeconfig(&format!("---\n{text}{end}")).unwrap();
        assert_eq!(config.server_url(), "https://h", "{end:?}");
    }
}

#[tokio::test]
async fn a_user_that_only_the_context_names_may_be_missing() {
    let text = one("server: 'https://h'", "token: t").replace("name: u,", "name: v,");
    let config = kubeconfig(&text).unwrap();
    assert!(matches!(config.auth, Auth::None));
    let (_dir, environment) = home(&[(".kube/config", &text)]);
    let options = KubeconfigOptions::new().user("u");
    let text = problem(Config::from_kubeconfig_in(&environment, &options));
    assert!(
        text.ends_with("the user \"u\" does not exist; there are \"v\""),
        "{text}"
    );
}

#[test]
fn a_kubeconfig_may_be_at_hand_as_text() {
    let text = one(
        "server: 'https://h', certificate-authority: ca.crt",
        "token: t",
    );
    let config = Config::from_kubeconfig_str(&text, &KubeconfigOptions::new()).unwrap();
    assert_eq!(config.server_url(), "https://h");
    let origin = &config.tls.ca.as_ref().unwrap().origin;
    assert_eq!(
        origin,
        "certificate-authority of cluster \"k\" in the given kubeconfig (ca.crt)"
    );
    let options = KubeconfigOptions::new().context("x");
    let text = problem(Config::from_kubeconfig_str(&text, &options));
    assert_eq!(
        text,
        "the given kubeconfig: the context \"x\" does not exist; there are \"c\""
    );
    let text = problem(Config::from_kubeconfig_str(
        "a: [",
        &KubeconfigOptions::new(),
    ));
    assert!(
        text.starts_with("the given kubeconfig: is not a kubeconfig"),
        "{text}"
    );
}

#[test]
fn an_explicit_authority_wins_over_insecure_skip_tls_verify() {
    let text = one("server: 'https://h', insecure-skip-tls-verify: true", "");
    let config = kubeconfig(&text).unwrap();
    assert!(config.tls.insecure);
    assert!(!config.clone().with_ca_pem("x").tls.insecure);
    assert!(!config.with_ca_file("x").tls.insecure);
}

#[test]
fn an_override_wins_over_what_cannot_be_used() {
    type With = fn(KubeconfigOptions) -> KubeconfigOptions;
    let cases: [(&str, &str, With); 13] = [
        (
            "server: 'https://h', certificate-authority: f, insecure-skip-tls-verify: true",
            "",
            |options| options.ca_file("own"),
        ),
        (
            "server: 'https://h', certificate-authority: f, insecure-skip-tls-verify: true",
            "",
            KubeconfigOptions::insecure_skip_tls_verify,
        ),
        (
            "server: 'https://h', certificate-authority-data: '%'",
            "",
            |options| options.ca_file("own"),
        ),
        (
            "server: 'https://h', certificate-authority-data: '%'",
            "",
            KubeconfigOptions::insecure_skip_tls_verify,
        ),
        ("server: 'https://h', proxy-url: 'ftp://p'", "", |options| {
            options.proxy("http://p:1")
        }),
        ("server: 'unix:///s'", "", |options| {
            options.server("https://h")
        }),
        ("server: ''", "", |options| options.server("https://h")),
        ("server: 'https://h'", "client-certificate: f", |options| {
            options.client_certificate_files("own", "own")
        }),
        (
            "server: 'https://h'",
            "client-certificate: f, client-key-data: '%'",
            |options| options.client_certificate_files("own", "own"),
        ),
        ("server: 'https://h'", "exec: {command: c}", |options| {
            options.client_certificate_files("own", "own")
        }),
        (
            "server: 'https://h'",
            "token: t, username: u, password: p",
            |options| options.token("own"),
        ),
        (
            "server: 'https://h'",
            "auth-provider: {name: gcp}",
            |options| options.token("own"),
        ),
        (
            "server: 'https://h'",
            "exec: {command: c, apiVersion: nonsense}, auth-provider: {name: oidc}",
            |options| options.token("own"),
        ),
    ];
    for (cluster, user, with) in cases {
        let text = one(cluster, user);
        let read = |options| Config::from_kubeconfig_str(&text, &options);
        assert!(read(KubeconfigOptions::new()).is_err(), "{text}");
        let config = read(with(KubeconfigOptions::new())).unwrap();
        assert_eq!(config.server_url(), "https://h", "{text}");
    }
}

#[test]
fn an_override_is_what_counts() {
    let text = one(
        "server: 'https://h', certificate-authority-data: bm8=, tls-server-name: name, \
         proxy-url: 'http://p'",
        "token: t, client-certificate-data: bm8=, client-key-data: bm8=",
    );
    let options = KubeconfigOptions::new()
        .ca_file("ca")
        .token("own")
        .client_certificate_files("crt", "key")
        .tls_server_name("own")
        .proxy("http://own:1");
    let config = Config::from_kubeconfig_str(&text, &options).unwrap();
    assert!(
        !format!("{options:?}").contains("http://own"),
        "{options:?}"
    );
    assert_eq!(config.tls.ca.unwrap().origin, "the CA's file (ca)");
    let (certificate, key) = config.tls.identity.unwrap();
    assert_eq!(certificate.origin, "the client certificate's file (crt)");
    assert_eq!(key.origin, "the client key's file (key)");
    assert_eq!(config.tls.server_name.as_deref(), Some("own"));
    assert!(matches!(config.auth, Auth::Token(_)));
    let insecure = KubeconfigOptions::new().insecure_skip_tls_verify();
    let config = Config::from_kubeconfig_str(&text, &insecure).unwrap();
    assert!(config.tls.insecure && config.tls.ca.is_none());
}

#[test]
fn overrides_hold_in_a_pod_too() {
    let (_dir, environment) = home(&[
        ("serviceaccount/token", "t"),
        ("serviceaccount/ca.crt", "c"),
    ]);
    let options = KubeconfigOptions::new().ca_file("own").token("own");
    let config = Config::from_environment(&environment, &options).unwrap();
    assert_eq!(config.server_url(), "https://kubernetes.default.svc");
    assert_eq!(config.tls.ca.unwrap().origin, "the CA's file (own)");
    assert!(matches!(config.auth, Auth::Token(_)));
    let options = options.context("c");
    assert!(Config::from_environment(&environment, &options).is_err());
}
