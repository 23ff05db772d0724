//! What the embedded server answers is what a cluster answers: requests whose answers were once
//! wrong without saying so.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[cfg(feature = "client")]
mod clients;
mod deletion;
mod invalid;
mod processes;
mod recorded;
mod refused;
#[path = "../common/upgrade.rs"]
mod upgrade;

use std::time::Duration;

use kubewire::{
    Resource,
    testing::{ApiServer, ApiServerBuilder, RestartPolicy, Rule},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn things() -> Resource {
    Resource::namespaced("example.com", "v1", "things")
}

fn maps() -> Resource {
    Resource::namespaced("", "v1", "configmaps")
}

/// The ConfigMaps but for those that every namespace has.
fn own_maps(server: &ApiServer) -> Vec<Value> {
    let mut own = server.objects(&maps());
    own.retain(|map| map["metadata"]["name"] != "kube-root-ca.crt");
    own
}

fn pod(name: &str, command: &[&str]) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"restartPolicy": "Never",
            "containers": [{"name": "main", "image": "any", "command": command}]}})
}

fn builder() -> ApiServerBuilder {
    let builder = ApiServer::builder().plain();
    builder.resource_with(things(), "Thing", |thing| thing.status())
}

/// An answer: its code, the lines of its head and its body.
struct Answer {
    code: u16,
    head: String,
    text: String,
}

impl Answer {
    /// A header's value, if it is there.
    fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &&str| line.to_lowercase().starts_with(&format!("{name}: "));
        self.head
            .lines()
            .find(of)
            .map(|line| &line[name.len() + 2..])
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}", self.text))
    }

    /// The code and the reason of a Status.
    #[track_caller]
    fn refusal(&self) -> (u16, String) {
        let status = self.json();
        assert_eq!(status["kind"], "Status", "{status}");
        (
            self.code,
            status["reason"].as_str().unwrap_or_default().to_owned(),
        )
    }

    #[track_caller]
    fn says(&self, code: u16, text: &str) {
        let whole = &self.text;
        assert_eq!(self.code, code, "{whole}");
        let said = match self.json()["message"].as_str() {
            Some(message) => message.to_owned(),
            None => whole.clone(),
        };
        assert!(said.contains(text), "{said}");
    }
}

/// Sends a request over a connection of its own.
async fn send(server: &ApiServer, head: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let work = async {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let mut request = format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let answer = tokio::time::timeout(Duration::from_secs(120), work).await;
    let answer = answer.expect("it hangs");
    let (head, mut body) = answer.split_once("\r\n\r\n").unwrap();
    let mut text = String::new();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        while let Some((size, rest)) = body.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            text += &rest[..size];
            body = rest[size..].trim_start_matches("\r\n");
        }
    } else {
        text = body.to_owned();
    }
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    let head = head.to_owned();
    Answer { code, head, text }
}

async fn get(server: &ApiServer, path: &str) -> Answer {
    send(server, &format!("GET {path}"), &[], "").await
}

async fn write(server: &ApiServer, head: &str, media: &str, body: &Value) -> Answer {
    send(server, head, &[("content-type", media)], &body.to_string()).await
}

async fn post(server: &ApiServer, path: &str, body: &Value) -> Answer {
    write(server, &format!("POST {path}"), JSON, body).await
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn thing(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name},
        "spec": {"size": 1}})
}

/// Waits until an object is as it should be.
async fn until(server: &ApiServer, path: &str, is_so: impl Fn(&Answer) -> bool) -> Answer {
    let start = tokio::time::Instant::now();
    loop {
        let answer = get(server, path).await;
        if is_so(&answer) {
            return answer;
        }
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{}",
            answer.text
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_dry_run_writes_and_deletes_nothing() {
    let server = builder().start().await.unwrap();
    let made = post(&server, &format!("{MAPS}?dryRun=All"), &map("a")).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert!(made.json()["metadata"]["uid"].is_string());
    assert!(made.json()["metadata"]["resourceVersion"].is_null());
    assert_eq!(get(&server, &format!("{MAPS}/a")).await.code, 404);
    post(&server, MAPS, &map("a")).await;
    let version = server.resource_version();
    let patch = json!({"data": {"x": "y"}});
    let patched = write(
        &server,
        &format!("PATCH {MAPS}/a?dryRun=All"),
        MERGE,
        &patch,
    )
    .await;
    assert_eq!(patched.json()["data"]["x"], "y");
    let gone = send(&server, &format!("DELETE {MAPS}/a?dryRun=All"), &[], "").await;
    assert_eq!(gone.code, 200);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]});
    assert_eq!(
        write(&server, &format!("DELETE {MAPS}/a"), JSON, &options)
            .await
            .code,
        200
    );
    assert_eq!(
        send(&server, &format!("DELETE {MAPS}?dryRun=All"), &[], "")
            .await
            .code,
        200
    );
    assert_eq!(server.resource_version(), version);
    let unknown = post(&server, &format!("{MAPS}?dryRun=Some"), &map("b")).await;
    unknown.says(422, "supported values: \"All\"");
}

#[tokio::test]
async fn the_status_is_written_through_its_subresource_alone() {
    let server = builder().start().await.unwrap();
    let mut with_status = thing("a");
    with_status["status"] = json!({"ready": true});
    let made = post(&server, THINGS, &with_status).await.json();
    assert!(
        made["status"].is_null() && made["metadata"]["generation"] == 1,
        "{made}"
    );
    let status = json!({"status": {"ready": true}});
    let patched = write(&server, &format!("PATCH {THINGS}/a"), MERGE, &status)
        .await
        .json();
    assert!(patched["status"].is_null());
    write(&server, &format!("PATCH {THINGS}/a/status"), MERGE, &status).await;
    let read = get(&server, &format!("{THINGS}/a/status")).await;
    assert_eq!(
        (read.code, &read.json()["status"]["ready"]),
        (200, &json!(true))
    );
    // A replacement without a status keeps it.
    let mut again = get(&server, &format!("{THINGS}/a")).await.json();
    again.as_object_mut().unwrap().remove("status");
    let replaced = write(&server, &format!("PUT {THINGS}/a"), JSON, &again)
        .await
        .json();
    assert_eq!(replaced["status"]["ready"], true);
    server.put(
        &things(),
        json!({"metadata": {"name": "b", "namespace": "default"}}),
    );
    let put = get(&server, &format!("{THINGS}/b")).await.json();
    assert_eq!(put["metadata"]["generation"], 1);
    server.put(
        &things(),
        json!({"metadata": {"name": "b", "namespace": "default"}, "spec": 1}),
    );
    let put = get(&server, &format!("{THINGS}/b")).await.json();
    assert_eq!(put["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_list_is_of_the_version_that_is_asked_for() {
    let server = builder().start().await.unwrap();
    let first = server.resource_version();
    post(&server, MAPS, &map("a")).await;
    let second = server.resource_version();
    post(&server, MAPS, &map("b")).await;
    let count = async |query: &str| {
        let own = "fieldSelector=metadata.name!%3Dkube-root-ca.crt";
        let answer = get(&server, &format!("{MAPS}?{own}&{query}")).await;
        answer.json()["items"].as_array().map(Vec::len)
    };
    assert_eq!(
        count(&format!(
            "resourceVersion={first}&resourceVersionMatch=Exact"
        ))
        .await,
        Some(0)
    );
    assert_eq!(
        count(&format!(
            "resourceVersion={second}&resourceVersionMatch=Exact"
        ))
        .await,
        Some(1)
    );
    assert_eq!(
        count(&format!("resourceVersion={second}&limit=5")).await,
        Some(1)
    );
    assert_eq!(count(&format!("resourceVersion={second}")).await, Some(2));
    assert_eq!(count("resourceVersion=0").await, Some(2));
    let refused = async |query: &str| get(&server, &format!("{MAPS}?{query}")).await;
    refused("resourceVersion=abc")
        .await
        .says(400, "invalid resource version");
    let future = refused("resourceVersion=99999").await;
    future.says(504, "Too large resource version: 99999");
    assert_eq!(
        future.json()["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
    get(&server, &format!("{MAPS}/a?resourceVersion=99999"))
        .await
        .says(504, "Too large");
    refused("resourceVersionMatch=Exact")
        .await
        .says(422, "unless resourceVersion is provided");
    refused("resourceVersion=1&resourceVersionMatch=Odd")
        .await
        .says(422, "Unsupported value");
    server.compact();
    let old = refused(&format!(
        "resourceVersion={second}&resourceVersionMatch=Exact"
    ))
    .await;
    assert_eq!(old.refusal(), (410, "Expired".to_owned()));
    // As 1.36 has it.
    assert_eq!(refused("watch=1&resourceVersion=abc").await.code, 500);
    assert_eq!(refused("resourceVersion=abc").await.code, 400);
}

#[tokio::test]
async fn discovery_and_reviews_are_those_of_a_cluster() {
    let server = builder()
        .user(
            "alice",
            [Rule::new(["get", "list"], ["configmaps"]).namespace("default")],
        )
        .start()
        .await
        .unwrap();
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    for path in ["/api", "/apis"] {
        let answer = send(&server, &format!("GET {path}"), &[("accept", accept)], "").await;
        assert!(
            answer.head.contains("as=APIGroupDiscoveryList"),
            "{}",
            answer.head
        );
        assert_eq!(answer.json()["kind"], "APIGroupDiscoveryList");
    }
    let apps = get(&server, "/apis/apps/v1").await.json();
    let resources = apps["resources"].as_array().unwrap();
    let deployments = resources
        .iter()
        .find(|r| r["name"] == "deployments")
        .unwrap();
    assert_eq!(deployments["shortNames"], json!(["deploy"]));
    assert_eq!(deployments["categories"], json!(["all"]));
    assert!(
        resources
            .iter()
            .any(|r| r["name"] == "deployments/scale" && r["kind"] == "Scale")
    );
    let things = get(&server, "/apis/example.com/v1").await.json();
    assert_eq!(things["resources"][1]["name"], "things/status");

    // A body without a media type is JSON.
    let made = send(&server, &format!("POST {MAPS}"), &[], &map("a").to_string()).await;
    assert_eq!(made.code, 201);

    let token = format!("Bearer {}", server.token_of("alice").unwrap());
    let alice = [("authorization", token.as_str()), ("content-type", JSON)];
    let review = |kind: &str, group: &str, spec: Value| {
        json!({"kind": kind, "apiVersion": format!("{group}.k8s.io/v1"), "spec": spec}).to_string()
    };
    let who = review("SelfSubjectReview", "authentication", json!({}));
    let path = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    let who = send(&server, path, &alice, &who).await;
    // Who may ask about themselves is everybody.
    assert_eq!(
        (who.code, &who.json()["status"]["userInfo"]["username"]),
        (201, &json!("alice"))
    );
    for (verb, allowed) in [("get", true), ("delete", false)] {
        let attributes = json!({"verb": verb, "resource": "configmaps", "namespace": "default"});
        let can = review(
            "SelfSubjectAccessReview",
            "authorization",
            json!({"resourceAttributes": attributes}),
        );
        let path = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let can = send(&server, path, &alice, &can).await.json();
        assert_eq!(can["status"]["allowed"], allowed, "{can}");
    }
    let path = "POST /apis/authentication.k8s.io/v1/tokenreviews";
    let token = json!({"token": server.token_of("alice")});
    let token = review("TokenReview", "authentication", token);
    let known = send(&server, path, &[], &token).await.json();
    assert_eq!(known["status"]["user"]["username"], "alice");
    assert_eq!(
        get(&server, "/apis/authentication.k8s.io/v1/tokenreviews")
            .await
            .code,
        405
    );
    assert_eq!(
        send(&server, &format!("GET {MAPS}"), &alice, "").await.code,
        200
    );
    let secrets = "GET /api/v1/namespaces/default/secrets";
    send(&server, secrets, &alice, "")
        .await
        .says(403, "User \"alice\" cannot list resource \"secrets\"");

    // RBAC objects give rights too.
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let api = "rbac.authorization.k8s.io/v1";
    let role = json!({"kind": "Role", "apiVersion": api, "metadata": {"name": "reader"},
        "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["secrets"]}]});
    post(&server, &format!("{rbac}/namespaces/default/roles"), &role).await;
    let binding = json!({"kind": "RoleBinding", "apiVersion": api, "metadata": {"name": "alice"},
        "subjects": [{"kind": "User", "name": "alice"}],
        "roleRef": {"kind": "Role", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}});
    post(
        &server,
        &format!("{rbac}/namespaces/default/rolebindings"),
        &binding,
    )
    .await;
    assert_eq!(send(&server, secrets, &alice, "").await.code, 200);
}

#[tokio::test]
async fn patches_are_json_patches_and_strategic_ones_too() {
    let server = builder().start().await.unwrap();
    let mut made = thing("a");
    made["metadata"]["finalizers"] = json!(["example.com/x"]);
    post(&server, THINGS, &made).await;
    // As kube's finalizer does.
    let patch = json!([
        {"op": "test", "path": "/metadata/finalizers/0", "value": "example.com/x"},
        {"op": "remove", "path": "/metadata/finalizers/0"},
    ]);
    let media = "application/json-patch+json";
    let path = format!("PATCH {THINGS}/a");
    let patched = write(&server, &path, media, &patch).await;
    assert_eq!(
        (patched.code, &patched.json()["metadata"]["finalizers"]),
        (200, &json!(null))
    );
    write(&server, &path, media, &patch)
        .await
        .says(422, "the server rejected our request");
    write(&server, &path, media, &json!({"op": "odd"}))
        .await
        .says(400, "error decoding patch");
    let strategic = "application/strategic-merge-patch+json";
    assert_eq!(write(&server, &path, strategic, &json!({})).await.code, 415);
    let deployment = deployment();
    post(&server, DEPLOYMENTS, &deployment).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "sidecar", "image": "x"}]}}}});
    let patched = write(
        &server,
        &format!("PATCH {DEPLOYMENTS}/web"),
        strategic,
        &patch,
    )
    .await
    .json();
    let names = patched["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap();
    assert_eq!(names.len(), 2, "{patched}");
    assert_eq!(patched["metadata"]["generation"], 2);
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "nginx"}]},
            },
        },
    })
}

#[tokio::test]
async fn an_apply_makes_merges_and_minds_who_owns_what() {
    let server = builder().start().await.unwrap();
    let apply = async |manager: &str, more: &str, body: &Value| {
        let head = format!("PATCH {DEPLOYMENTS}/web?fieldManager={manager}{more}");
        write(&server, &head, APPLY, body).await
    };
    let anonymous = write(
        &server,
        &format!("PATCH {DEPLOYMENTS}/web"),
        APPLY,
        &deployment(),
    )
    .await;
    anonymous.says(422, "fieldManager: Required value");
    let made = apply("one", "", &deployment()).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let managed = &made.json()["metadata"]["managedFields"][0];
    assert_eq!(
        (&managed["manager"], &managed["operation"]),
        (&json!("one"), &json!("Apply"))
    );
    assert!(
        managed["fieldsV1"]["f:spec"]["f:replicas"].is_object(),
        "{managed}"
    );
    let version = server.resource_version();
    assert_eq!(apply("one", "", &deployment()).await.code, 200);
    assert_eq!(server.resource_version(), version, "nothing has changed");

    let scale = |replicas: u64| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": replicas}})
    };
    let conflict = apply("two", "", &scale(3)).await;
    conflict.says(
        409,
        "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas",
    );
    let cause = &conflict.json()["details"]["causes"][0];
    assert_eq!(
        (&cause["reason"], &cause["field"]),
        (&json!("FieldManagerConflict"), &json!(".spec.replicas"))
    );
    // Who wants the same owns it as well.
    assert_eq!(apply("three", "", &scale(1)).await.code, 200);
    let forced = apply("two", "&force=true", &scale(3)).await.json();
    assert_eq!(forced["spec"]["replicas"], 3);
    // What one has given up and nobody else owns goes; what another owns stays.
    let mut less = deployment();
    less["spec"].as_object_mut().unwrap().remove("replicas");
    less["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "1"}]);
    assert_eq!(apply("one", "", &less).await.json()["spec"]["replicas"], 3);
    less["spec"]["template"]["spec"]["containers"][0]
        .as_object_mut()
        .unwrap()
        .remove("env");
    let without = apply("one", "", &less).await.json();
    let container = &without["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["name"], &container["env"]),
        (&json!("main"), &Value::Null)
    );
    // An update takes ownership, and an apply of another meets it.
    let patch = json!({"spec": {"replicas": 5}});
    write(
        &server,
        &format!("PATCH {DEPLOYMENTS}/web?fieldManager=hand"),
        MERGE,
        &patch,
    )
    .await;
    let conflict = apply("two", "", &scale(3)).await;
    conflict.says(409, "conflict with \"hand\" using apps/v1: .spec.replicas");
}

#[tokio::test]
async fn a_scale_is_read_and_written() {
    let server = builder().start().await.unwrap();
    post(&server, DEPLOYMENTS, &deployment()).await;
    let path = format!("{DEPLOYMENTS}/web/scale");
    let mut scale = get(&server, &path).await.json();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(1))
    );
    assert_eq!(scale["status"]["selector"], "app=web");
    scale["spec"]["replicas"] = 4.into();
    let written = write(&server, &format!("PUT {path}"), JSON, &scale).await;
    assert_eq!(written.json()["spec"]["replicas"], 4, "{}", written.text);
    assert_eq!(
        write(&server, &format!("PUT {path}"), JSON, &scale)
            .await
            .code,
        409
    );
    let patch = json!({"spec": {"replicas": 2}});
    write(&server, &format!("PATCH {path}"), MERGE, &patch).await;
    let deployment = get(&server, &format!("{DEPLOYMENTS}/web")).await.json();
    assert_eq!(
        (
            &deployment["spec"]["replicas"],
            &deployment["metadata"]["generation"]
        ),
        (&json!(2), &json!(3))
    );
    let negative = json!({"spec": {"replicas": -1}});
    write(&server, &format!("PATCH {path}"), MERGE, &negative)
        .await
        .says(422, "spec.replicas");
}

#[tokio::test]
async fn health_is_told_and_yaml_is_read() {
    let server = builder().start().await.unwrap();
    for path in ["/healthz", "/livez", "/readyz", "/readyz/ping"] {
        let answer = get(&server, path).await;
        assert_eq!((answer.code, &*answer.text), (200, "ok"), "{path}");
    }
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: \"1\"\n";
    let headers = [("content-type", "application/yaml")];
    let made = send(&server, &format!("POST {MAPS}"), &headers, yaml).await;
    assert_eq!((made.code, &made.json()["data"]["x"]), (201, &json!("1")));
    let odd = send(
        &server,
        &format!("POST {MAPS}"),
        &[("content-type", "text/html")],
        "x",
    )
    .await;
    assert_eq!(odd.code, 415);
}

#[tokio::test]
async fn every_namespace_has_the_authority_and_its_account() {
    let server = builder().start().await.unwrap();
    for namespace in ["default", "kube-system"] {
        let front = format!("/api/v1/namespaces/{namespace}");
        let map = get(&server, &format!("{front}/configmaps/kube-root-ca.crt")).await;
        assert!(map.json()["data"]["ca.crt"].is_string());
        let account = get(&server, &format!("{front}/serviceaccounts/default")).await;
        assert_eq!(account.code, 200);
    }
}

/// Generated clients refuse a version without any of these.
#[tokio::test]
async fn the_version_has_all_of_its_fields() {
    let version = get(&builder().start().await.unwrap(), "/version")
        .await
        .json();
    let fields =
        "buildDate compiler gitCommit gitTreeState gitVersion goVersion major minor platform";
    for field in fields.split(' ') {
        assert!(version[field].is_string(), "{field}");
    }
}
