//! What the embedded server answers is what a cluster answers: requests whose answers were once
//! wrong without saying so.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

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
    let head = head.to_lowercase();
    let mut text = String::new();
    if head.contains("transfer-encoding: chunked") {
        while let Some((size, rest)) = body.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            text += &rest[..size];
            body = rest[size..].trim_start_matches("\r\n");
        }
    } else {
        text = body.to_owned();
    }
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
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
async fn what_is_no_resource_is_not_found() {
    let server = builder().start().await.unwrap();
    for path in [
        "/api/v1/namespaces/default/configmap",
        "/api/v1/namespaces/default/configmap?watch=1",
        "/api/v1/configmap/a",
        "/apis/example.com/v1/namespaces/default/thingies",
        "/apis/example.com/v2/namespaces/default/things",
        "/apis/nothing/v1/things",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/nodes/a/log",
        "/api/v1/configmaps/a",
    ] {
        let answer = get(&server, path).await;
        assert_eq!(
            (answer.code, &*answer.text),
            (404, "404 page not found\n"),
            "{path}"
        );
    }
    let lost = post(&server, "/api/v1/namespaces/default/configmap", &map("a")).await;
    assert_eq!(lost.code, 404);
    // Those that are there are empty.
    for path in [MAPS, THINGS, "/api/v1/configmaps", "/apis/batch/v1/jobs"] {
        let list = get(&server, path).await.json();
        assert!(list["kind"].as_str().unwrap().ends_with("List"), "{list}");
        assert_eq!(list["items"], json!([]));
    }
}

#[tokio::test]
async fn an_object_of_another_kind_is_refused() {
    let server = builder().start().await.unwrap();
    let wrong = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    post(&server, MAPS, &wrong)
        .await
        .says(400, "cannot be handled as a ConfigMap");
    let version = json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "a"}});
    post(&server, MAPS, &version)
        .await
        .says(400, "does not match the expected API version (v1)");
    post(&server, MAPS, &map("a")).await;
    let patch = json!({"kind": "Secret"});
    write(&server, &format!("PATCH {MAPS}/a"), MERGE, &patch)
        .await
        .says(400, "cannot be handled");
    let list = get(&server, MAPS).await.json();
    assert_eq!(list["kind"], "ConfigMapList");
    let untyped = json!({"metadata": {"name": "a"}});
    post(&server, THINGS, &untyped)
        .await
        .says(400, "Object 'Kind' is missing");
    // Of a built-in kind the path says enough.
    let untyped = json!({"metadata": {"name": "b"}});
    assert_eq!(
        post(&server, MAPS, &untyped).await.json()["kind"],
        "ConfigMap"
    );
}

#[tokio::test]
async fn a_pod_has_the_phase_and_the_conditions_of_its_containers() {
    let server = builder()
        .pod("default", "runs", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .pod("default", "done", |pod| pod.container("main", ["true"]))
        .pod("default", "failed", |pod| pod.container("main", ["false"]))
        .pod("default", "again", |pod| {
            pod.restart_policy(RestartPolicy::Always)
                .container("main", ["sleep", "infinity"])
        })
        .start()
        .await
        .unwrap();
    let condition = |pod: &Value, name: &str| {
        let conditions = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = conditions.into_iter().find(|known| known["type"] == name);
        found.map_or(Value::Null, |found| found["status"].clone())
    };
    let pod = get(&server, &format!("{PODS}/runs")).await.json();
    assert_eq!(pod["status"]["phase"], "Running");
    for name in ["Ready", "ContainersReady", "Initialized", "PodScheduled"] {
        assert_eq!(condition(&pod, name), "True", "{name}");
    }
    assert!(pod["status"]["podIP"].is_string() && pod["status"]["startTime"].is_string());
    assert!(pod["status"]["containerStatuses"][0]["imageID"].is_string());
    for (name, phase) in [("done", "Succeeded"), ("failed", "Failed")] {
        let path = format!("{PODS}/{name}");
        let is_so = |answer: &Answer| answer.json()["status"]["phase"] == phase;
        let pod = until(&server, &path, is_so);
        assert_eq!(condition(&pod.await.json(), "Ready"), "False", "{name}");
    }
    // A status that a client writes is the same for all who read it.
    let gate = json!([{"type": "example.com/gate", "status": "True"}]);
    let head = format!("PATCH {PODS}/again/status");
    let media = "application/strategic-merge-patch+json";
    let written = write(
        &server,
        &head,
        media,
        &json!({"status": {"conditions": gate}}),
    )
    .await;
    assert_eq!(written.code, 200, "{}", written.text);
    let one = get(&server, &format!("{PODS}/again")).await.json();
    let all = get(&server, PODS).await.json();
    assert_eq!(condition(&one, "example.com/gate"), "True");
    assert_eq!(condition(&one, "Ready"), "True");
    let listed = all["items"].as_array().unwrap();
    let listed = listed
        .iter()
        .find(|pod| pod["metadata"]["name"] == "again")
        .unwrap();
    assert_eq!(listed["status"], one["status"]);
}

#[tokio::test]
async fn what_the_server_says_itself_cannot_be_said_by_clients() {
    let server = builder().start().await.unwrap();
    let mut versioned = map("a");
    versioned["metadata"]["resourceVersion"] = "1".into();
    let refused = post(&server, MAPS, &versioned).await;
    refused.says(
        500,
        "resourceVersion should not be set on objects to be created",
    );
    let mut own = map("a");
    own["metadata"]["uid"] = "mine".into();
    own["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let made = post(&server, MAPS, &own).await.json();
    assert_ne!(made["metadata"]["uid"], "mine");
    assert!(made["metadata"]["deletionTimestamp"].is_null());
    post(&server, THINGS, &thing("a")).await;
    let blind = write(&server, &format!("PUT {THINGS}/a"), JSON, &thing("a")).await;
    blind.says(
        422,
        "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update",
    );
    // Built-in kinds may be replaced so.
    assert_eq!(
        write(&server, &format!("PUT {MAPS}/a"), JSON, &map("a"))
            .await
            .code,
        200
    );
}

#[tokio::test]
async fn a_list_is_of_the_version_that_is_asked_for() {
    let server = builder().start().await.unwrap();
    let first = server.resource_version();
    post(&server, MAPS, &map("a")).await;
    let second = server.resource_version();
    post(&server, MAPS, &map("b")).await;
    let count = async |query: &str| {
        let answer = get(&server, &format!("{MAPS}?{query}")).await;
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
    assert_eq!(refused("watch=1&resourceVersion=abc").await.code, 400);
}

#[tokio::test]
async fn bad_selectors_are_refused_and_comparisons_compare() {
    let server = builder().start().await.unwrap();
    let mut sized = map("a");
    sized["metadata"]["labels"] = json!({"size": "3"});
    post(&server, MAPS, &sized).await;
    for query in [
        "labelSelector=a%20b",
        "labelSelector=app%20in%20web",
        "labelSelector=app%3Da%20b",
        "labelSelector=size%3Ex",
        "fieldSelector=metadata.name",
        "fieldSelector=spec.nodeName%3Dx",
        "fieldSelector=metadata.nam%3Dx",
    ] {
        let answer = get(&server, &format!("{MAPS}?{query}")).await;
        assert_eq!(answer.refusal(), (400, "BadRequest".to_owned()), "{query}");
        let answer = get(&server, &format!("{MAPS}?watch=1&{query}")).await;
        assert_eq!(answer.code, 400, "{query}");
    }
    for (query, count) in [
        ("size%3E2", 1),
        ("size%3E3", 0),
        ("size%3C4", 1),
        ("size%3C3", 0),
    ] {
        let list = get(&server, &format!("{MAPS}?labelSelector={query}"))
            .await
            .json();
        assert_eq!(list["items"].as_array().unwrap().len(), count, "{query}");
    }
    assert_eq!(
        get(&server, &format!("{PODS}?fieldSelector=spec.nodeName%3Dx"))
            .await
            .code,
        200
    );
}

#[tokio::test]
async fn objects_are_validated() {
    let server = builder().start().await.unwrap();
    let refused = post(&server, MAPS, &map("Not_valid")).await;
    refused.says(
        422,
        "ConfigMap \"Not_valid\" is invalid: metadata.name: Invalid value: \"Not_valid\"",
    );
    let status = refused.json();
    let cause = &status["details"]["causes"][0];
    assert_eq!(
        (&cause["reason"], &cause["field"]),
        (&json!("FieldValueInvalid"), &json!("metadata.name"))
    );
    let mut labelled = map("a");
    labelled["metadata"]["labels"] = json!({"a": "b c"});
    post(&server, MAPS, &labelled)
        .await
        .says(422, "metadata.labels");
    let elsewhere = "/api/v1/namespaces/nowhere/configmaps";
    post(&server, elsewhere, &map("a"))
        .await
        .says(404, "namespaces \"nowhere\" not found");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}});
    post(&server, PODS, &pod)
        .await
        .says(422, "spec.containers: Required value");

    let mut held = thing("a");
    held["metadata"]["finalizers"] = json!(["example.com/one"]);
    post(&server, THINGS, &held).await;
    send(&server, &format!("DELETE {THINGS}/a"), &[], "").await;
    let more = json!({"metadata": {"finalizers": ["example.com/one", "example.com/two"]}});
    let refused = write(&server, &format!("PATCH {THINGS}/a"), MERGE, &more).await;
    refused.says(
        422,
        "no new finalizers can be added if the object is being deleted",
    );

    let mut misspelt = map("b");
    misspelt["dta"] = json!({"x": "y"});
    let strict = post(
        &server,
        &format!("{MAPS}?fieldValidation=Strict"),
        &misspelt,
    )
    .await;
    let twice = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c"},"data":{"x":"1","x":"2"}}"#;
    let head = format!("POST {MAPS}?fieldValidation=Strict");
    let twice = send(&server, &head, &[], twice).await;
    strict.says(400, "strict decoding error: unknown field \"dta\"");
    twice.says(400, "duplicate field \"data.x\"");
    let warned = post(&server, MAPS, &misspelt).await;
    assert_eq!(warned.code, 201);
    assert!(warned.json()["dta"].is_null());
    let head = &warned.head;
    assert!(head.contains("warning: 299 - \"unknown field"), "{head}");
    let typed = json!({
        "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "d"}, "data": {"x": 1},
    });
    assert_eq!(post(&server, MAPS, &typed).await.code, 400);
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
            answer.head.contains("as=apigroupdiscoverylist"),
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
        (200, &json!([]))
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

fn pod(name: &str, command: &[&str]) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"restartPolicy": "Never",
            "containers": [{"name": "main", "image": "any", "command": command}]}})
}

#[tokio::test]
async fn a_created_pod_runs_and_its_deletion_kills() {
    let server = builder().start().await.unwrap();
    post(
        &server,
        PODS,
        &pod("a", &["sh", "-c", "echo $0 started; exec sleep 1000", "it"]),
    )
    .await;
    until(&server, &format!("{PODS}/a/log"), |log| {
        log.text == "it started\n"
    })
    .await;
    let running = get(&server, &format!("{PODS}/a")).await.json();
    assert_eq!(running["status"]["phase"], "Running");
    let leaving = send(&server, &format!("DELETE {PODS}/a"), &[], "")
        .await
        .json();
    assert_eq!(leaving["metadata"]["deletionGracePeriodSeconds"], 30);
    until(&server, &format!("{PODS}/a"), |answer| answer.code == 404).await;
    // One that does not listen has its time, and no more.
    let deaf = [
        "sh",
        "-c",
        "trap '' TERM; echo on; while :; do sleep 1; done",
    ];
    post(&server, PODS, &pod("b", &deaf)).await;
    until(&server, &format!("{PODS}/b/log"), |log| log.text == "on\n").await;
    let options = json!({"gracePeriodSeconds": 1});
    write(&server, &format!("DELETE {PODS}/b"), JSON, &options).await;
    assert_eq!(get(&server, &format!("{PODS}/b")).await.code, 200);
    until(&server, &format!("{PODS}/b"), |answer| answer.code == 404).await;
    // What cannot run says why.
    let mut image = pod("c", &[]);
    image["spec"]["containers"][0]["livenessProbe"] = json!({"exec": {"command": ["true"]}});
    post(&server, PODS, &image).await;
    let waiting = get(&server, &format!("{PODS}/c")).await.json();
    assert_eq!(waiting["status"]["phase"], "Pending");
    let state = &waiting["status"]["containerStatuses"][0]["state"]["waiting"];
    assert!(
        state["message"]
            .as_str()
            .unwrap()
            .contains("not implemented"),
        "{state}"
    );
    post(&server, PODS, &pod("d", &["/no/such/program"])).await;
    let failed = get(&server, &format!("{PODS}/d")).await.json();
    let state = &failed["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(state["reason"], "RunContainerError");
    server
        .add_pod("default", "e", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .unwrap();
    assert_eq!(
        get(&server, &format!("{PODS}/e")).await.json()["status"]["phase"],
        "Running"
    );
}

#[tokio::test]
async fn collections_are_deleted_by_selectors() {
    let server = builder().start().await.unwrap();
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let mut map = map(name);
        map["metadata"]["labels"] = json!({"app": app});
        post(&server, MAPS, &map).await;
    }
    let gone = send(
        &server,
        &format!("DELETE {MAPS}?labelSelector=app%3Dx"),
        &[],
        "",
    )
    .await
    .json();
    assert_eq!(gone["items"].as_array().unwrap().len(), 2);
    assert_eq!(server.objects(&maps()).len(), 1);
}

#[tokio::test]
async fn what_an_object_owned_goes_after_it() {
    let server = builder().start().await.unwrap();
    let own = async |name: &str, owner: &Value| {
        let mut map = map(name);
        map["metadata"]["ownerReferences"] = json!([{
            "apiVersion": owner["apiVersion"], "kind": owner["kind"], "blockOwnerDeletion": true,
            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        }]);
        post(&server, MAPS, &map).await.json()
    };
    let owner = post(&server, THINGS, &thing("a")).await.json();
    let middle = own("middle", &owner).await;
    own("last", &middle).await;
    send(&server, &format!("DELETE {THINGS}/a"), &[], "").await;
    assert!(server.objects(&maps()).is_empty());
    let owner = post(&server, THINGS, &thing("a")).await.json();
    own("orphan", &owner).await;
    let path = format!("DELETE {THINGS}/a?propagationPolicy=Orphan");
    send(&server, &path, &[], "").await;
    let orphan = get(&server, &format!("{MAPS}/orphan")).await.json();
    assert!(orphan["metadata"]["ownerReferences"].is_null());
    // In the foreground the owner waits.
    let owner = post(&server, THINGS, &thing("a")).await.json();
    own("held", &owner).await;
    let hold = json!({"metadata": {"finalizers": ["example.com/x"]}});
    write(&server, &format!("PATCH {MAPS}/held"), MERGE, &hold).await;
    send(
        &server,
        &format!("DELETE {THINGS}/a?propagationPolicy=Foreground"),
        &[],
        "",
    )
    .await;
    let waiting = get(&server, &format!("{THINGS}/a")).await.json();
    assert_eq!(
        waiting["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    let release = json!({"metadata": {"finalizers": null}});
    write(&server, &format!("PATCH {MAPS}/held"), MERGE, &release).await;
    assert_eq!(get(&server, &format!("{MAPS}/held")).await.code, 404);
    assert_eq!(get(&server, &format!("{THINGS}/a")).await.code, 404);
}

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let server = builder().start().await.unwrap();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    let made = post(&server, "/api/v1/namespaces", &namespace).await.json();
    assert_eq!(made["status"]["phase"], "Active");
    let maps = "/api/v1/namespaces/team/configmaps";
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["example.com/x"]);
    post(&server, maps, &held).await;
    post(&server, maps, &map("a")).await;
    send(&server, "DELETE /api/v1/namespaces/team", &[], "").await;
    let leaving = get(&server, "/api/v1/namespaces/team").await.json();
    assert_eq!(leaving["status"]["phase"], "Terminating");
    assert_eq!(get(&server, &format!("{maps}/a")).await.code, 404);
    post(&server, maps, &map("b"))
        .await
        .says(403, "because it is being terminated");
    let release = json!({"metadata": {"finalizers": null}});
    write(&server, &format!("PATCH {maps}/held"), MERGE, &release).await;
    assert_eq!(get(&server, "/api/v1/namespaces/team").await.code, 404);
}

#[tokio::test]
async fn an_eviction_deletes_unless_a_budget_forbids_it() {
    let server = builder().start().await.unwrap();
    post(&server, PODS, &pod("a", &["sleep", "1000"])).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"app": "x"}}}});
    post(&server, budgets, &budget).await;
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let path = format!("{PODS}/a/eviction");
    post(&server, &path, &eviction)
        .await
        .says(429, "Cannot evict pod");
    send(&server, &format!("DELETE {budgets}/x"), &[], "").await;
    assert_eq!(post(&server, &path, &eviction).await.code, 201);
    until(&server, &format!("{PODS}/a"), |answer| answer.code == 404).await;
}

#[tokio::test]
async fn a_definition_adds_a_kind_with_its_schema() {
    let server = builder().start().await.unwrap();
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
        "required": ["size"],
        "properties": {"size": {"type": "integer", "minimum": 1}, "color": {"type": "string", "default": "red"}}}}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced",
            "names": {"plural": "boxes", "kind": "Box", "shortNames": ["bx"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}]}});
    let boxes = "/apis/example.org/v1/namespaces/default/boxes";
    assert_eq!(get(&server, boxes).await.code, 404);
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(post(&server, definitions, &definition).await.code, 201);
    let read = get(&server, &format!("{definitions}/boxes.example.org"))
        .await
        .json();
    assert_eq!(read["status"]["conditions"][1]["type"], "Established");
    let a_box = |spec: Value| json!({"apiVersion": "example.org/v1", "kind": "Box", "metadata": {"name": "a"}, "spec": spec});
    post(&server, boxes, &a_box(json!({})))
        .await
        .says(422, "spec.size: Required value");
    post(&server, boxes, &a_box(json!({"size": "x"})))
        .await
        .says(422, "must be of type integer");
    post(&server, boxes, &a_box(json!({"size": 0})))
        .await
        .says(422, "greater than or equal to 1");
    let odd = a_box(json!({"size": 2, "odd": true}));
    let strict = post(&server, &format!("{boxes}?fieldValidation=Strict"), &odd).await;
    strict.says(400, "unknown field \"spec.odd\"");
    let made = post(&server, boxes, &odd).await.json();
    assert_eq!(made["spec"], json!({"size": 2, "color": "red"}));
    send(
        &server,
        &format!("DELETE {definitions}/boxes.example.org"),
        &[],
        "",
    )
    .await;
    assert_eq!(get(&server, boxes).await.code, 404);
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
async fn a_body_in_protobuf_is_read_or_refused() {
    use prost::Message as _;
    #[derive(Clone, PartialEq, prost::Message)]
    struct Meta {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(btree_map = "string, string", tag = "11")]
        labels: std::collections::BTreeMap<String, String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Map {
        #[prost(message, optional, tag = "1")]
        metadata: Option<Meta>,
        #[prost(btree_map = "string, string", tag = "2")]
        data: std::collections::BTreeMap<String, String>,
        #[prost(uint64, optional, tag = "9")]
        odd: Option<u64>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct TypeMeta {
        #[prost(string, tag = "1")]
        api_version: String,
        #[prost(string, tag = "2")]
        kind: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Unknown {
        #[prost(message, optional, tag = "1")]
        type_meta: Option<TypeMeta>,
        #[prost(bytes = "vec", tag = "2")]
        raw: Vec<u8>,
    }
    let server = builder().start().await.unwrap();
    // What a cluster does not know, from a newer client, it drops.
    for (name, odd, kind, code) in [
        ("a", None, "ConfigMap", 201),
        ("b", Some(1), "ConfigMap", 201),
        ("c", None, "Thing", 501),
    ] {
        let map = Map {
            metadata: Some(Meta {
                name: name.into(),
                labels: [("k".into(), "v".into())].into(),
            }),
            data: [("x".into(), "1".into())].into(),
            odd,
        };
        let type_meta = TypeMeta {
            api_version: "v1".into(),
            kind: kind.into(),
        };
        let unknown = Unknown {
            type_meta: Some(type_meta),
            raw: map.encode_to_vec(),
        };
        let body = [&b"k8s\0"[..], &unknown.encode_to_vec()].concat();
        let body = String::from_utf8(body).unwrap();
        let media = [("content-type", "application/vnd.kubernetes.protobuf")];
        let made = send(&server, &format!("POST {MAPS}"), &media, &body).await;
        assert_eq!(made.code, code, "{}", made.text);
        if code == 201 {
            assert_eq!(made.json()["data"], json!({"x": "1"}));
            assert_eq!(made.json()["metadata"]["labels"], json!({"k": "v"}));
        }
    }
}

#[cfg(feature = "client")]
mod processes {
    use kubewire::{Client, exec::Stdio};

    use super::*;

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(120), work)
            .await
            .expect("it hangs")
    }

    #[tokio::test]
    async fn a_deletion_ends_what_clients_have_open() {
        let server = builder()
            .pod("default", "a", |pod| {
                pod.container("main", ["sh", "-c", "echo up; sleep infinity"])
            })
            .start()
            .await
            .unwrap();
        let pod = Client::new(&server.config()).unwrap().pod("default", "a");
        let mut exec = pod
            .exec(["sh", "-c", "echo on; sleep 1000"])
            .spawn()
            .await
            .unwrap();
        let mut line = [0; 3];
        soon(exec.stdout.as_mut().unwrap().read_exact(&mut line))
            .await
            .unwrap();
        let mut attached = pod.attach().spawn().await.unwrap();
        let mut logs = pod.logs().follow().stream();
        assert_eq!(soon(logs.next()).await.unwrap().unwrap().bytes, "up");
        send(&server, &format!("DELETE {PODS}/a"), &[], "").await;
        let output = soon(exec.wait_with_output()).await.unwrap();
        assert_eq!(output.status.code(), Some(137));
        soon(attached.wait()).await.unwrap();
        while let Some(Ok(_)) = soon(logs.next()).await {}
    }

    #[tokio::test]
    async fn an_attach_ends_with_its_stdin_unless_that_is_the_process_s() {
        let server = builder()
            .pod("default", "a", |pod| {
                pod.container_with("open", ["cat"], |container| container.stdin())
                    .container_with("once", ["cat"], |container| container.stdin_once())
            })
            .start()
            .await
            .unwrap();
        let pod = Client::new(&server.config()).unwrap().pod("default", "a");
        for name in ["open", "once"] {
            let attach = pod.attach().container(name).stdin(Stdio::piped());
            let mut attached = attach.spawn().await.unwrap();
            drop(attached.stdin.take());
            soon(attached.wait()).await.unwrap();
        }
        // Only the process whose stdin has ended has ended with it.
        until(&server, &format!("{PODS}/a"), |answer| {
            let pod = answer.json();
            let state = |at: usize| pod["status"]["containerStatuses"][at]["state"].clone();
            state(0)["running"].is_object() && state(1)["terminated"].is_object()
        })
        .await;
    }

    #[tokio::test]
    async fn two_pods_have_the_same_port() {
        let say = |text: &'static str| {
            move |mut io: tokio::io::DuplexStream| async move {
                io.write_all(text.as_bytes()).await.unwrap();
            }
        };
        let server = builder()
            .pod("default", "a", |pod| pod.port_with(8080, say("a")))
            .pod("default", "b", |pod| pod.port_with(8080, say("b")))
            .start()
            .await
            .unwrap();
        let client = Client::new(&server.config()).unwrap();
        for name in ["a", "b"] {
            let forward = client
                .pod("default", name)
                .port_forward()
                .connect()
                .await
                .unwrap();
            let mut connection = soon(forward.open(8080)).await.unwrap();
            let mut text = String::new();
            soon(connection.read_to_string(&mut text)).await.unwrap();
            assert_eq!(text, name);
        }
    }

    const HELD: &str = "KUBEWIRE_TEST_HELD";

    /// Started by the test below, and killed by it.
    #[tokio::test]
    async fn holds_a_container() {
        let Ok(file) = std::env::var(HELD) else {
            return;
        };
        let command = format!("echo $$ > {file}.new; mv {file}.new {file}; exec sleep 1000");
        let _server = builder()
            .pod("default", "a", |pod| {
                pod.container("main", ["sh", "-c", &command])
            })
            .start()
            .await
            .unwrap();
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn a_killed_program_leaves_no_container_running() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let mut program = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::holds_a_container"])
            .env(HELD, &file)
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let wait = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(wait).await;
        let pid: u32 = std::fs::read_to_string(&file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        program.kill().await.unwrap();
        let ends = async {
            // `kill -0` asks whether it is there.
            let is_there = || {
                let mut kill = std::process::Command::new("sh");
                kill.args(["-c", &format!("kill -0 {pid} 2>/dev/null")]);
                kill.status().unwrap().success()
            };
            while is_there() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(ends).await;
    }
}
