//! Against a real HTTP server in this process, with the answers of an API server cut short.

use http::{Response, header::CONTENT_TYPE};
use serde_json::json;

use super::*;
use crate::transport::http::tests::{answer, client, serve};

fn aggregated(body: &serde_json::Value) -> Response<String> {
    let mut response = answer(200, body.to_string());
    let form = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(form));
    response
}

fn resource(plural: &str, kind: &str, short: &[&str]) -> serde_json::Value {
    json!({
        "resource": plural, "responseKind": {"group": "", "version": "", "kind": kind},
        "scope": if kind == "Node" { "Cluster" } else { "Namespaced" },
        "singularResource": kind.to_lowercase(), "shortNames": short, "verbs": ["get", "list"],
        "subresources": [{"subresource": "status", "verbs": ["get"]}],
    })
}

fn core() -> serde_json::Value {
    let resources = [
        resource("pods", "Pod", &["po"]),
        resource("nodes", "Node", &["no"]),
        resource("events", "Event", &["ev"]),
    ];
    json!({"items": [{"versions": [{"version": "v1", "resources": resources}]}]})
}

fn groups() -> serde_json::Value {
    let deployments = resource("deployments", "Deployment", &["deploy"]);
    json!({"items": [
        {"metadata": {"name": "apps"}, "versions": [
            {"version": "v1", "resources": [deployments]},
            {"version": "v1beta1", "resources": [deployments]},
        ]},
        {"metadata": {"name": "events.k8s.io"}, "versions": [
            {"version": "v1", "resources": [resource("events", "Event", &["ev"])]},
        ]},
        {"metadata": {"name": "po.example.com"}, "versions": [
            {"version": "v1", "resources": [resource("po", "Po", &[])]},
        ]},
    ]})
}

#[tokio::test]
async fn two_answers_tell_all_and_are_remembered() {
    let (address, got) = serve(|_, (head, _)| match head.uri.path() {
        "/base/api" => aggregated(&core()),
        "/base/apis" => aggregated(&groups()),
        path => answer(404, path),
    })
    .await;
    let client = client(address);
    let find = async |name: &str| client.find(name).await.unwrap().resource;
    let deployments = Resource::namespaced("apps", "v1", "deployments");
    for name in [
        "deployments",
        "deployment",
        "Deployment",
        "DEPLOY",
        "deployments.apps",
        "deploy.v1.apps",
    ] {
        assert_eq!(find(name).await, deployments, "{name}");
    }
    assert_eq!(find("deploy.v1beta1.apps").await.version, "v1beta1");
    assert_eq!(find("events").await.group, "", "the core group comes first");
    assert_eq!(find("ev.events.k8s.io").await.group, "events.k8s.io");
    assert_eq!(
        find("po").await.group,
        "po.example.com",
        "a plural wins over a short name"
    );
    for name in ["pod.v1", "pods.v1."] {
        assert_eq!(find(name).await.plural, "pods", "{name}");
    }
    let node = client.find("no").await.unwrap();
    assert!(!node.resource.namespaced);
    assert_eq!(node.subresources, ["status"]);
    assert_eq!(got.lock().unwrap().len(), 2);
    let error = client.find("nothing").await.unwrap_err().to_string();
    assert_eq!(error, "the server has no resource \"nothing\"");
    assert_eq!(got.lock().unwrap().len(), 4, "it might have been new");
    assert!(client.find("pods.").await.is_ok() && client.find("").await.is_err());
}

#[tokio::test]
async fn an_older_server_is_asked_group_by_group() {
    let (address, got) = serve(|_, (head, _)| {
        let body = match head.uri.path() {
            "/base/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
            "/base/api/v1" => json!({"resources": [
                {"name": "pods", "singularName": "", "namespaced": true, "kind": "Pod",
                 "verbs": ["get"], "shortNames": ["po"], "categories": ["all"]},
                {"name": "pods/exec", "singularName": "", "namespaced": true, "kind": "PodExecOptions",
                 "verbs": ["create"]},
            ]}),
            "/base/apis" => json!({"groups": [
                {"name": "apps", "versions": [{"version": "v1beta1"}, {"version": "v1"}],
                 "preferredVersion": {"version": "v1"}},
                {"name": "broken.example.com", "versions": [{"version": "v1"}]},
                {"name": "odd\u{1b}\n", "versions": [{"version": "v1"}]},
            ]}),
            "/base/apis/apps/v1" | "/base/apis/apps/v1beta1" => json!({"resources": [
                {"name": "deployments", "singularName": "deployment", "namespaced": true,
                 "kind": "Deployment", "verbs": ["get"]},
            ]}),
            _ => return answer(503, "no endpoints"),
        };
        answer(200, body.to_string())
    })
    .await;
    let client = client(address);
    let pods = client.find("pod").await.unwrap();
    assert_eq!((pods.kind.as_str(), pods.singular.as_str()), ("Pod", "pod"));
    assert_eq!(
        (pods.subresources, pods.categories),
        (vec!["exec".to_owned()], vec!["all".to_owned()])
    );
    assert_eq!(
        client.find("deployments").await.unwrap().resource.version,
        "v1"
    );
    assert_eq!(client.discover().await.unwrap().resources().len(), 3);
    let accept = got.lock().unwrap()[0].0.headers["accept"].clone();
    assert!(
        accept
            .to_str()
            .unwrap()
            .starts_with("application/json;g=apidiscovery.k8s.io;v=v2;as=")
    );
}

#[tokio::test]
async fn groups_that_hang_are_asked_at_once_and_left_out() {
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(listener.local_addr().unwrap());
    let (hangs, mut hanging) = tokio::sync::mpsc::unbounded_channel();
    // Two that are answered when both have been asked.
    let both = std::sync::Arc::new(tokio::sync::Barrier::new(2));
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (hangs, both) = (hangs.clone(), both.clone());
        async move {
            let group = |name| json!({"name": name, "versions": [{"version": "v1"}]});
            let body = match request.uri().path() {
                "/base/api" => json!({"versions": []}),
                "/base/apis" => json!({"groups": (["a", "b", "c", "d"].map(group))}),
                "/base/apis/c/v1" | "/base/apis/d/v1" => {
                    both.wait().await;
                    json!({"resources": [{"name": "things", "namespaced": true, "kind": "Thing"}]})
                }
                path => {
                    hangs.send(path.to_owned()).unwrap();
                    std::future::pending().await
                }
            };
            Ok::<_, std::convert::Infallible>(answer(200, body.to_string()))
        }
    });
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let io = hyper_util::rt::TokioIo::new(tcp);
            tokio::spawn(http1::Builder::new().serve_connection(io, service.clone()));
        }
    });
    let found = tokio::spawn(async move { client.discover().await });
    let mut paths = [hanging.recv().await, hanging.recv().await].map(Option::unwrap);
    paths.sort();
    assert_eq!(paths, ["/base/apis/a/v1", "/base/apis/b/v1"]);
    tokio::time::pause();
    tokio::time::advance(limits::DISCOVERY_GROUP).await;
    tokio::time::resume();
    let found = found.await.unwrap().unwrap();
    let groups = found.resources().iter().map(|one| &*one.resource.group);
    assert_eq!(groups.collect::<Vec<_>>(), ["c", "d"]);
}
