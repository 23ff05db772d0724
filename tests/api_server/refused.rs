//! What is refused, with the words of an API server.

use super::*;

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
        match path.starts_with("/api/") {
            true => answer.says(404, "the server could not find the requested resource"),
            false => assert_eq!((answer.code, &*answer.text), (404, "404 page not found\n")),
        }
    }
    let lost = post(&server, "/api/v1/namespaces/default/configmap", &map("a")).await;
    assert_eq!(lost.code, 404);
    // Those that are there are empty.
    for path in ["/api/v1/secrets", THINGS, "/apis/batch/v1/jobs"] {
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
    post(&server, MAPS, &version).await.says(
        400,
        "no kind \"ConfigMap\" is registered for version \"v2\"",
    );
    post(&server, MAPS, &map("a")).await;
    let patch = json!({"kind": "Secret"});
    write(&server, &format!("PATCH {MAPS}/a"), MERGE, &patch)
        .await
        .says(422, "converting (v1.Secret) to (core.ConfigMap)");
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
        "metadata.resourceVersion: Invalid value: 0: must be specified for an update",
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
    let gone = async {
        while get(&server, boxes).await.code != 404 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), gone)
        .await
        .unwrap();
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

#[tokio::test]
async fn what_a_kind_s_rules_forbid_is_refused() {
    let server = builder().start().await.unwrap();
    let in_default = |group: &str, plural: &str| match group {
        "" => format!("/api/v1/namespaces/default/{plural}"),
        group => format!("/apis/{group}/v1/namespaces/default/{plural}"),
    };
    for (group, plural, fields, expected) in [
        (
            "",
            "services",
            json!({"spec": {"ports": [{"port": 80}, {"port": 80}]}}),
            "[spec.ports[0].name: Required value, spec.ports[1].name: Required value, \
             spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\
             \"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}]",
        ),
        (
            "",
            "secrets",
            json!({"type": "kubernetes.io/tls"}),
            "[data[tls.crt]: Required value, data[tls.key]: Required value]",
        ),
        (
            "",
            "pods",
            json!({"spec": {"containers": [{"name": "a", "image": "x", "volumeMounts":
                [{"name": "none", "mountPath": "/x"}]}]}}),
            "spec.containers[0].volumeMounts[0].name: Not found: \"none\"",
        ),
        (
            "",
            "pods",
            json!({"spec": {"containers": [{"name": "a", "image": "x", "resources":
                {"requests": {"cpu": "2"}, "limits": {"cpu": "1000m"}}}]}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or \
             equal to cpu limit of 1",
        ),
        (
            "batch",
            "jobs",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}}),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            "policy",
            "poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1, "maxUnavailable": 1}}),
            "minAvailable and maxUnavailable cannot be both set",
        ),
        (
            "networking.k8s.io",
            "ingresses",
            json!({"spec": {}}),
            "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
        ),
    ] {
        let mut object = fields;
        object["metadata"] = json!({"name": "a"});
        let refused = post(&server, &in_default(group, plural), &object).await;
        refused.says(422, expected);
    }
    let bad = json!({"metadata": {"name": "a"}, "spec": {"hard": {"cpu": "abc"}}});
    post(&server, &in_default("", "resourcequotas"), &bad)
        .await
        .says(400, "quantities must match the regular expression");
    let long = format!("{MAPS}?fieldManager={}", "a".repeat(129));
    post(&server, &long, &map("a")).await.says(
        422,
        "fieldManager: Too long: may not be more than 128 bytes",
    );
}

#[tokio::test]
async fn objects_are_kept_as_go_writes_them() {
    let server = builder().start().await.unwrap();
    let quota = json!({"metadata": {"name": "a", "labels": {}, "annotations": null},
        "spec": {"hard": {"cpu": "1000m", "memory": "1.5Gi", "pods": 10}}});
    let made = post(&server, "/api/v1/namespaces/default/resourcequotas", &quota).await;
    let made = made.json();
    let hard = json!({"cpu": "1", "memory": "1536Mi", "pods": "10"});
    assert_eq!(made["spec"]["hard"], hard);
    assert_eq!(
        (&made["status"], &made["metadata"]["labels"]),
        (&json!({}), &json!(null))
    );
    let job = json!({"metadata": {"name": "a"}, "spec": {"template": {"spec":
        {"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]}}}});
    let job = post(&server, "/apis/batch/v1/namespaces/default/jobs", &job)
        .await
        .json();
    let uid = &job["metadata"]["uid"];
    let selector = json!({"batch.kubernetes.io/controller-uid": uid});
    assert_eq!(job["spec"]["selector"]["matchLabels"], selector);
    assert_eq!(
        job["spec"]["template"]["metadata"]["labels"]["job-name"],
        "a"
    );
    // What is applied is made under the same rules.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}});
    let path = format!("PATCH {MAPS}/b?fieldManager=test");
    let applied = write(&server, &path, "application/apply-patch+yaml", &map).await;
    assert_eq!(applied.code, 201);
    assert!(applied.json()["metadata"]["uid"].is_string());
}

/// A cluster counts and refuses with 403, or tells who gives no limits.
#[tokio::test]
async fn what_a_quota_counts_is_not_made() {
    let server = builder().start().await.unwrap();
    let quota = |name: &str, hard: Value| {
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name},
            "spec": {"hard": hard}})
    };
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let hard = json!({"limits.cpu": "1", "count/deployments.apps": "1", "services.nodeports": "1"});
    assert_eq!(post(&server, quotas, &quota("q", hard)).await.code, 201);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80}]}});
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let apps = "/apis/apps/v1/namespaces/default/deployments";
    for (path, object, counted) in [
        (
            PODS,
            pod("p", &["true"]),
            "pods where a ResourceQuota limits limits.cpu",
        ),
        (apps, deployment, "count/deployments.apps"),
        (
            "/api/v1/namespaces/default/services",
            service,
            "services.nodeports",
        ),
    ] {
        post(&server, path, &object).await.says(501, counted);
    }
    assert_eq!(post(&server, MAPS, &map("a")).await.code, 201);
}
