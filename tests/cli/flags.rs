//! The flags that all subcommands share, how exec finds its pod, and exit codes that do not fit.

use std::convert::Infallible;

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kubewire::{
    Resource,
    server::{self, RemoteCommandRequest},
    testing::ApiServer,
    wire::status::Status,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::tool::{Cluster, finish};

#[tokio::test]
async fn whom_to_act_as_is_told_the_server() {
    let cluster = Cluster::start().await;
    let arguments = [
        "-v=9",
        "--as",
        "jane",
        "--as-group",
        "a",
        "--as-group=b",
        "--as-uid",
        "u-1",
        "--as-user-extra",
        "scope=x=y",
        "version",
    ];
    let ran = cluster.run(&arguments).await;
    for header in [
        "impersonate-user: jane",
        "impersonate-group: a",
        "impersonate-group: b",
        "impersonate-uid: u-1",
        "impersonate-extra-scope: x=y",
    ] {
        assert!(ran.stderr.contains(header), "{header}: {}", ran.stderr);
    }
    for (arguments, what) in [
        (
            &["--as-group", "a", "get", "pods"][..],
            "alone are of nobody",
        ),
        (
            &["--as", "a", "--as-user-extra", "x", "version"],
            "not KEY=VALUE",
        ),
    ] {
        cluster.run(arguments).await.is_error(what);
    }
}

#[tokio::test]
async fn flags_change_of_whom_the_kubeconfig_names_what_they_say() {
    let cluster = Cluster::start().await;
    let file = cluster.dir.path().join("as");
    let text = "current-context: c\n\
        contexts: [{name: c, context: {cluster: k, user: u}}]\n\
        clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}]\n\
        users: [{name: u, user: {as: joe, as-groups: [g]}}]\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    for (flags, user, group, uid) in [
        (&["--as=jane"][..], "jane", "g", false),
        (&["--as-group=a"], "joe", "a", false),
        (&["--as-uid=7"], "joe", "g", true),
    ] {
        let version = ["--kubeconfig", file, "-v=9", "version"];
        let ran = cluster.run(&[&version, flags].concat()).await;
        let sent = |header: String| ran.stderr.contains(&header);
        assert!(sent(format!("impersonate-user: {user}'")), "{flags:?}");
        assert!(sent(format!("impersonate-group: {group}'")), "{flags:?}");
        assert_eq!(sent("impersonate-uid: 7'".to_owned()), uid, "{flags:?}");
    }
}

/// Scripts and aliases: `kubewire --token "$TOKEN" -n "$NAMESPACE"`, and one more behind it.
#[tokio::test]
async fn what_is_empty_is_not_there_and_the_last_of_two_wins() {
    let cluster = Cluster::start().await;
    for flag in [
        "kubeconfig",
        "context",
        "cluster",
        "user",
        "namespace",
        "server",
        "certificate-authority",
        "token",
        "tls-server-name",
        "proxy-url",
    ] {
        let empty = format!("--{flag}=");
        let ran = cluster
            .run(&[&*empty, "get", "pod/web-0", "-o", "name"])
            .await;
        assert_eq!(
            (ran.code, ran.stdout.as_slice()),
            (Some(0), &b"pod/web-0\n"[..]),
            "{empty}"
        );
    }
    let twice = "-n no get pod/web-0 -n no -n default -o wide -o name";
    let ran = cluster.run(&twice.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(
        (ran.code, ran.stdout.as_slice()),
        (Some(0), &b"pod/web-0\n"[..]),
        "{}",
        ran.stderr
    );
}

#[tokio::test]
async fn each_request_is_told_with_its_code_and_its_time() {
    let cluster = Cluster::start().await;
    let url = cluster.server.url();
    // A plugin gives the token.
    let credential = json!({
        "kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",
        "status": {"token": cluster.server.token()},
    });
    let plugin = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": "/bin/echo", "args": [credential.to_string()],
    });
    let config = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let token = format!("token: {}", cluster.server.token());
    assert!(config.contains(&token), "{config}");
    let config = config.replace(&token, &format!("exec: {plugin}"));
    std::fs::write(cluster.kubeconfig(), config).unwrap();
    let path = |lines: &str, end: &str| {
        let of_requests = lines
            .lines()
            .filter(|line| line.contains("kubewire::requests: "));
        let found = of_requests.filter_map(|line| line.split_once(end));
        found
            .filter(|(_, time)| time.parse::<u64>().is_ok())
            .count()
    };
    for level in ["1", "3", "6", "9"] {
        let arguments = [
            "-v", level, "exec", "web-0", "-c", "main", "--", "sh", "-c", "exit 3",
        ];
        let ran = cluster.run(&arguments).await;
        assert_eq!(ran.code, Some(3));
        let upgrade = format!(
            "answered method=GET url={url}/api/v1/namespaces/default/pods/web-0/exec \
             status=101 Switching Protocols ms="
        );
        assert_eq!(path(&ran.stderr, &upgrade), 1, "{}", ran.stderr);
        let ended = "the exec plugin has ended command=/bin/echo status=exit status: 0 ms=";
        assert_eq!(path(&ran.stderr, ended), 1, "{}", ran.stderr);
        let ran = cluster
            .run(&["-v", level, "get", "--raw", "/no/such"])
            .await;
        let refused = format!("answered method=GET url={url}/no/such status=404 Not Found ms=");
        assert_eq!(path(&ran.stderr, &refused), 1, "{}", ran.stderr);
    }
    let ran = cluster.run(&["get", "--raw", "/no/such"]).await;
    assert!(!ran.stderr.contains("ms="), "{}", ran.stderr);
}

#[tokio::test]
async fn how_to_connect_can_be_said_on_the_command_line() {
    let cluster = Cluster::start().await;
    let url = cluster.server.url();
    let front = ["-s", &url, "--token", cluster.server.token()];
    let run = async |flags: &[&str]| {
        let arguments = [&front[..], flags, &["version"]].concat();
        let mut command = cluster.kubewire(&arguments);
        finish(command.env_remove("KUBECONFIG").spawn().unwrap()).await
    };
    assert_eq!(run(&[]).await.code, Some(1));
    let (code, stdout, _) = run(&["--insecure-skip-tls-verify"]).await.into_text();
    assert!(
        code == Some(0) && stdout.contains("Server Version"),
        "{stdout}"
    );
    for (flags, what) in [
        (&["--proxy-url", "http://127.0.0.1:1"][..], "127.0.0.1:1"),
        (&["--proxy-url", "ftp://x"], "proxy"),
        (&["--client-certificate", "x"], "--client-key"),
        (
            &[
                "--insecure-skip-tls-verify",
                "--client-certificate",
                "/no/such",
                "--client-key",
                "/no/such",
            ],
            "/no/such",
        ),
        (
            &["--insecure-skip-tls-verify", "--certificate-authority", "x"],
            "cannot be used with",
        ),
    ] {
        let ran = run(flags).await;
        assert_eq!(ran.code, Some(1), "{flags:?}");
        assert!(ran.stderr.contains(what), "{flags:?}: {}", ran.stderr);
    }
    let named = cluster
        .run(&["--tls-server-name", "elsewhere.test", "get", "pods"])
        .await;
    named.is_error("elsewhere.test");
}

#[tokio::test]
async fn a_request_has_the_time_that_it_is_given() {
    let cluster = Cluster::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let commands = "get pods|version|auth whoami|get --raw /version|get pods -w|watch pods|events|\
         events -w|wait pod/x --for delete|logs -l a=b|exec x -- true|exec -l a=b -- true|\
         attach x|port-forward x 0:80|port-forward svc/x 0:80|cp x:/a b|cp Cargo.toml x:/a|\
         debug x --image b -- true";
    for command in commands.split('|') {
        let command: Vec<_> = command.split_whitespace().collect();
        let arguments = [&["-s", &url, "--request-timeout=300ms"], &command[..]].concat();
        let ran = cluster.run(&arguments).await;
        let ends = ["no end within 300ms\n", "did not finish within 0.3 s\n"];
        let is_told = ends.iter().any(|end| ran.stderr.ends_with(end));
        assert!(is_told, "{command:?}: {}", ran.stderr);
        assert_eq!(ran.code, Some(1));
    }
    // What a verb has in all counts what it asks before, too.
    for (command, end) in [
        (
            &["wait", "pod/x", "--for", "delete"][..],
            "not said in time",
        ),
        (&["cp", "x:/a", "b"], "no end within 300ms"),
    ] {
        let arguments = [command, &["-s", &url, "--timeout=300ms"]].concat();
        let ran = cluster.run(&arguments).await;
        assert!(ran.stderr.contains(end), "{command:?}: {}", ran.stderr);
        assert_eq!(ran.code, Some(1));
    }
}

#[tokio::test]
async fn what_answers_and_is_no_api_server_is_said() {
    let cluster = Cluster::start().await;
    for (answer, get, version) in [
        (
            "204 No Content\r\n\r\n",
            "the server's answer cannot be read",
            "no gitVersion",
        ),
        (
            "200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "the server's answer cannot be read",
            "no gitVersion",
        ),
        (
            "",
            "closed it before it had answered",
            "closed it before it had answered",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = Vec::new();
                // The tool may end while it asks for something else, too.
                while !head.ends_with(b"\r\n\r\n")
                    && let Ok(byte) = socket.read_u8().await
                {
                    head.push(byte);
                }
                if !answer.is_empty() {
                    let answer = format!("HTTP/1.1 {answer}");
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
            }
        });
        cluster
            .run(&["-s", &url, "get", "pods"])
            .await
            .is_error(get);
        let ran = cluster.run(&["-s", &url, "version"]).await;
        assert!(
            ran.stderr.contains(version) && ran.code == Some(1),
            "{}",
            ran.stderr
        );
    }
}

#[tokio::test]
async fn that_a_server_cannot_be_asked_is_not_that_nothing_is_there() {
    let server = ApiServer::builder().user("nobody", []).start().await;
    let cluster = Cluster::around(server.unwrap());
    for flags in [&[][..], &["-w"], &["--watch-only"]] {
        let get = ["get", "pods", "x", "--ignore-not-found", "--as=nobody"];
        let ran = cluster.run(&[&get[..], flags].concat()).await;
        ran.is_error("forbidden");
    }
}

#[tokio::test]
async fn shells_are_given_a_script() {
    let cluster = Cluster::start().await;
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, stderr) = cluster.run(&["completion", shell]).await.into_text();
        assert_eq!((code, &*stderr), (Some(0), ""));
        assert!(script.contains("port-forward") && script.contains("tls-server-name"));
    }
}

#[tokio::test]
async fn exec_and_attach_find_a_pod_of_what_selects_it() {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            let pod = pod.label("app", "web");
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await
        .unwrap();
    let deployments = Resource::namespaced("apps", "v1", "deployments");
    let services = Resource::namespaced("", "v1", "services");
    for (name, app) in [("web", "web"), ("idle", "none")] {
        let metadata = json!({"name": name, "namespace": "default"});
        let spec = json!({"selector": {"matchLabels": {"app": app}}});
        let deployment = json!({"kind": "Deployment", "metadata": metadata, "spec": spec});
        server.put(&deployments, deployment);
    }
    let metadata = json!({"name": "front", "namespace": "default"});
    let spec = json!({"selector": {"app": "web"}});
    server.put(
        &services,
        json!({"kind": "Service", "metadata": metadata, "spec": spec}),
    );
    let cluster = Cluster::around(server);
    let file = cluster.dir.path().join("web.yaml");
    let text =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  namespace: default\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    for target in [
        &["deploy/web"][..],
        &["svc/front"],
        &["pod/web-0"],
        &["-f", file],
    ] {
        let arguments = [&["exec"], target, &["--", "echo", "found"]].concat();
        cluster.run(&arguments).await.is(0, "found\n", "");
    }
    let none = [
        "exec",
        "deploy/idle",
        "--pod-running-timeout",
        "1s",
        "--",
        "true",
    ];
    cluster.run(&none).await.is_error("deploy/idle has no pod");
    let none = ["attach", "deploy/idle", "--pod-running-timeout=0"];
    cluster.run(&none).await.is_error("deploy/idle has no pod");
    cluster
        .run(&["exec", "-f", "/no/such", "--", "true"])
        .await
        .is_error("/no/such");
    cluster
        .run(&["exec", "-f", "-", "--", "true"])
        .await
        .is_error("stdin is the remote's");
}

/// A server whose commands all end with this code.
async fn ending_with(code: i64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let service = service_fn(move |mut request: Request<Incoming>| async move {
                let request = RemoteCommandRequest::parse(&mut request).unwrap();
                let (response, opening) = request.accept(&server::SUBPROTOCOLS).unwrap();
                tokio::spawn(async move {
                    let process = opening.await.unwrap();
                    process.exit(Status::exit_code(code)).await
                });
                Ok::<_, Infallible>(response)
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn exit_codes_that_do_not_fit_are_told_and_are_what_a_shell_sees() {
    let cluster = Cluster::start().await;
    // The last is that of Ctrl-C on Windows.
    for (code, here) in [(300, 44), (256, 1), (-1, 255), (3, 3), (3_221_225_786, 58)] {
        let url = ending_with(code).await;
        let ran = cluster.run(&["-s", &url, "exec", "web-0", "--", "x"]).await;
        ran.is(
            here,
            "",
            &format!("command terminated with exit code {code}\n"),
        );
    }
    // A failure that says 0 is one.
    let url = ending_with(0).await;
    let ran = cluster.run(&["-s", &url, "exec", "web-0", "--", "x"]).await;
    ran.is_error("exit code 0");
}

/// The verbs, with those below them.
const VERBS: [&str; 18] = [
    "api-resources",
    "attach",
    "auth",
    "auth can-i",
    "auth whoami",
    "completion",
    "cp",
    "debug",
    "events",
    "exec",
    "get",
    "logs",
    "man",
    "port-forward",
    "proxy",
    "version",
    "wait",
    "watch",
];

#[tokio::test]
async fn every_help_has_examples_and_says_what_exit_codes_mean() {
    let cluster = Cluster::start().await;
    for verb in VERBS.iter().chain(&[""]) {
        let arguments: Vec<_> = verb.split_whitespace().chain(["--help"]).collect();
        let (code, help, stderr) = cluster.run(&arguments).await.into_text();
        assert_eq!((code, &*stderr), (Some(0), ""), "{verb}");
        let (front, examples) = help.split_once("\nExamples:\n").expect(verb);
        assert!(front.contains("Exit codes: "), "{verb}");
        assert!(examples.contains(&format!("kubewire {verb}")), "{verb}");
    }
}

#[tokio::test]
async fn there_is_a_manual_page_for_each_verb() {
    let cluster = Cluster::start().await;
    let directory = cluster.dir.path().join("share/man1");
    let man = ["man", directory.to_str().unwrap()];
    cluster.run(&man).await.is(0, "", "");
    let names = std::fs::read_dir(&directory).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    let pages = VERBS.map(|verb| format!("kubewire-{}.1", verb.replace(' ', "-")));
    let mut expected: Vec<_> = pages.into_iter().chain(["kubewire.1".to_owned()]).collect();
    expected.sort();
    assert_eq!(names, expected);
    for name in names {
        let text = std::fs::read_to_string(directory.join(&name)).unwrap();
        for section in [".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLES\n.nf\n"] {
            assert!(text.contains(section), "{name} has no {section}");
        }
        assert!(text.contains("Exit codes: "), "{name}");
    }
    let page = std::fs::read_to_string(directory.join("kubewire-cp.1")).unwrap();
    assert!(page.contains(r"\-\-preserve\-owner"), "{page}");
    let file = cluster.kubeconfig();
    let onto_a_file = ["man", file.to_str().unwrap()];
    cluster.run(&onto_a_file).await.is_error("kubeconfig");
}

#[tokio::test]
async fn no_color_takes_all_colours_away() {
    let cluster = Cluster::start().await;
    for (arguments, code) in [(&["exec", "--help"][..], 0), (&["exec", "--no-such"], 1)] {
        let mut tool = cluster.on_terminal_with(arguments, &[("NO_COLOR", "1")]);
        assert_eq!(tool.end().await.0, Some(code));
        assert!(!tool.seen.contains('\u{1b}'), "{:?}", tool.seen);
    }
    let mut tool = cluster.on_terminal(&["exec", "--help"]);
    assert_eq!(tool.end().await.0, Some(0));
    assert!(tool.seen.contains('\u{1b}'), "there are none without it");
}

#[tokio::test]
async fn a_file_that_names_the_pod_has_one_object() {
    let cluster = Cluster::start().await;
    let file = cluster.dir.path().join("pods.yaml");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web-0}\n---\n";
    let exec = ["exec", "-f", file.to_str().unwrap(), "--", "echo", "hello"];
    std::fs::write(&file, pod).unwrap();
    cluster.run(&exec).await.is(0, "hello\n", "");
    std::fs::write(&file, pod.repeat(2)).unwrap();
    cluster.run(&exec).await.is_error("has several objects");
    std::fs::write(&file, "---\n").unwrap();
    cluster.run(&exec).await.is_error("has no object");
}
