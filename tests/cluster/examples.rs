//! The programs in `examples/`, in the cluster.

use k8s_openapi::api::core::v1::ConfigMap;
use kubewire::{Client, Config, watch::Condition};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{NAMESPACE, WAIT, create_pod, kubectl, makes_pods, pod, programs, run};
use programs::Running;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A pod with a label of a test's own; its name.
fn labelled(label: &str, script: &str) -> String {
    let mut pod = pod(&["sh".into(), "-c".into(), script.into()], false);
    pod["metadata"]["labels"]["program"] = label.into();
    create_pod(&pod)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn commands_run_in_all_pods_of_a_label() -> Result {
    if !makes_pods() {
        return Ok(());
    }
    let mut names = [labelled("exec", WAIT), labelled("exec", WAIT)];
    names.sort_unstable();
    let selector = format!("run={},program=exec", run());
    for name in ["exec_all", "bridge"] {
        let mut program = programs::program(name)?;
        program.args([&selector, "sh", "-c", "echo hello"]);
        let (code, output) = programs::run(program).await?;
        let mut lines: Vec<_> = output.lines().collect();
        lines.sort_unstable();
        let expected = names.each_ref().map(|name| format!("{name}: hello"));
        assert_eq!(
            (code, lines),
            (Some(0), expected.each_ref().map(|it| &**it).to_vec())
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn a_port_is_forwarded_and_a_log_followed() -> Result {
    if !makes_pods() {
        return Ok(());
    }
    let port = 30_000 + std::process::id() % 2000;
    let script = format!("echo ready; nc -l -p {port} -e cat; exit 4");
    let name = labelled("port", &script);

    let mut program = programs::program("follow")?;
    program.args(["logs", NAMESPACE, &name]);
    let mut log = Running::of(program)?;
    log.line_that(|line| line == "ready").await?;

    let mut program = programs::program("port_forward")?;
    program.args(["-n", NAMESPACE, &format!("pod/{name}"), &format!(":{port}")]);
    let mut forward = Running::of(program)?;
    let first = forward.line().await?;
    let (address, _) = first.split_once(' ').ok_or("an address comes first")?;
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(b"hello").await?;
    let mut hello = [0; 5];
    tokio::time::timeout(programs::DEADLINE, socket.read_exact(&mut hello)).await??;
    assert_eq!(&hello, b"hello");
    drop(socket);
    let closed = |line: &str| line.contains(": 5 bytes there, 5 back in ");
    forward.line_that(closed).await?;

    // The program in the pod has had its connection, and the log its end.
    log.line_that(|line| line.contains("code: Some(4)")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn a_gateway_stands_before_the_cluster() -> Result {
    if !makes_pods() {
        return Ok(());
    }
    let name = labelled("gateway", WAIT);
    let mut program = programs::program("gateway")?;
    program.env("GATEWAY_TOKEN", "secret");
    let mut gateway = Running::of(program)?;
    let url = gateway.line().await?;
    let user = Client::new(&Config::new(&url)?.with_token("secret"))?.pod(NAMESPACE, &name);
    let sent = vec![b'x'; 4 << 20];
    let exec = user.exec(["sh", "-c", "cat; exit 3"]).input(sent.clone());
    let output = exec.output().await?;
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout == sent);
    let audit = gateway.line().await?;
    assert!(
        audit.starts_with(&format!("exec {NAMESPACE}/{name} ")),
        "{audit}"
    );

    let refused = user.exec(["true"]).container("none").output().await;
    let refused = refused.unwrap_err();
    assert!(refused.to_string().contains("container none"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn the_controller_keeps_pages_for_sites() -> Result {
    if !makes_pods() {
        return Ok(());
    }
    super::pods::delete_at_the_end();
    let mut program = programs::program("controller")?;
    program.arg("cluster");
    let mut controller = Running::of(program)?;
    // It begins before there are sites.
    controller
        .line_that(|line| line.contains("watch: "))
        .await?;

    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "sites.example.com", "labels": {"run": run()}},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "sites", "singular": "site", "kind": "Site"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    });
    kubectl(&["create", "-f", "-"], &definition.to_string());
    let defined = "--for=condition=Established";
    kubectl(
        &["wait", defined, "crd/sites.example.com", "--timeout=60s"],
        "",
    );
    let name = format!("{}-site", run());
    let site = json!({
        "apiVersion": "example.com/v1", "kind": "Site",
        "metadata": {"name": name}, "spec": {"page": "hello"},
    });
    kubectl(&["create", "-f", "-"], &site.to_string());

    let maps = Client::from_env().await?.mirror::<ConfigMap>();
    let maps = maps.namespace(NAMESPACE).start();
    let page = Condition::when(|map: Option<&ConfigMap>| {
        let data = map.and_then(|map| map.data.as_ref());
        data.is_some_and(|data| data["index.html"] == "hello")
    });
    tokio::time::timeout(programs::DEADLINE, maps.wait_for(&name, &page)).await??;
    let path = "--for=jsonpath={.status.published}=true";
    kubectl(&["wait", path, "site", &name, "--timeout=60s"], "");

    // Its page goes before it does.
    kubectl(&["delete", "site", &name, "--timeout=60s"], "");
    let gone = Condition::deleted();
    tokio::time::timeout(programs::DEADLINE, maps.wait_for(&name, &gone)).await??;
    kubectl(&["delete", "crd/sites.example.com", "--timeout=60s"], "");
    Ok(())
}
