//! What is invalid, with the causes that a 1.36.2 API server gave: `invalid.jsonl` is what it
//! answered, a line each with the path, the object, and the causes' fields and messages.

use super::*;

#[tokio::test]
async fn what_is_invalid_has_a_cluster_s_causes() {
    let server = builder().start().await.unwrap();
    let mut wrong = Vec::new();
    let lines = include_str!("invalid.jsonl").lines();
    assert!(lines.clone().count() > 200);
    for line in lines {
        let (path, object, causes): (String, Value, Value) = serde_json::from_str(line).unwrap();
        let answer = post(&server, &format!("{path}?dryRun=All"), &object).await;
        let status = answer.json();
        let found = status["details"]["causes"].as_array();
        let found = found.into_iter().flatten();
        let found: Value = found.map(|c| json!([c["field"], c["message"]])).collect();
        if (answer.code, &found) != (422, &causes) {
            wrong.push(format!(
                "{path} {object}\n  {causes}\n  {} {found}",
                answer.code
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn json_is_refused_in_go_s_words() {
    let server = builder().start().await.unwrap();
    for (text, why) in [
        ("", "unexpected end of JSON input (<empty>)"),
        ("{", "unexpected end of JSON input ({)"),
        (
            "nope",
            "invalid character 'o' in literal null (expecting 'u') (6e6f7065)",
        ),
        (
            "{\"a\":}",
            "invalid character '}' looking for beginning of value ({\"a\":})",
        ),
        (
            "{\"a\":1,}",
            "invalid character '}' looking for beginning of object key string",
        ),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        ("[1 2]", "invalid character '2' after array element"),
        ("{} x", "invalid character 'x' after top-level value ({} x)"),
        (
            "{\"a\":\"\\x\"}",
            "invalid character 'x' in string escape code",
        ),
        (
            "{\"a\":\"\\u12g4\"}",
            "invalid character 'g' in \\u hexadecimal character escape",
        ),
        (
            "{\"a\":1.x}",
            "invalid character 'x' after decimal point in numeric literal",
        ),
        ("{\"a\":-}", "invalid character '}' in numeric literal"),
        (
            "\u{0}",
            "invalid character '\\x00' looking for beginning of value (00)",
        ),
    ] {
        let answer = send(&server, &format!("POST {MAPS}"), &[], text).await;
        let front = "the object provided is unrecognized (must be of type ConfigMap): couldn't get \
                     version/kind; json parse error: ";
        answer.says(400, front);
        answer.says(400, why);
    }
}

#[tokio::test]
async fn a_claim_is_protected_until_no_pod_uses_it() {
    let server = builder().start().await.unwrap();
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }});
    let made = post(&server, claims, &claim).await.json();
    assert_eq!(
        made["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
    let pod = json!({"metadata": {"name": "user"}, "spec": {
        "containers": [{"name": "main", "image": "none"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }});
    assert_eq!(post(&server, PODS, &pod).await.code, 201);
    let claim = format!("{claims}/data");
    let going = send(&server, &format!("DELETE {claim}"), &[], "")
        .await
        .json();
    assert!(
        going["metadata"]["deletionTimestamp"].is_string(),
        "{going}"
    );
    // Longer than its controller takes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(get(&server, &claim).await.code, 200);
    let head = format!("DELETE {PODS}/user?gracePeriodSeconds=0");
    send(&server, &head, &[], "").await;
    let gone = async {
        while get(&server, &claim).await.code != 404 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), gone)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_pod_cannot_be_made_with_can_be_added() {
    let server = builder().start().await.unwrap();
    let path = format!("{PODS}/demo");
    post(&server, PODS, &pod("demo", &["sleep", "600"])).await;
    let debugger = json!({"name": "debugger", "image": "any", "command": ["true"]});
    let patch = json!({"spec": {"ephemeralContainers": [debugger]}});
    let head = format!("PATCH {path}/ephemeralcontainers");
    assert_eq!(write(&server, &head, MERGE, &patch).await.code, 200);
    let mut wrong = pod("other", &["sleep", "600"]);
    wrong["spec"]["ephemeralContainers"] = json!([debugger]);
    let refused = post(&server, PODS, &wrong).await;
    refused.says(422, "cannot be set on create");
}

#[tokio::test]
async fn every_answer_says_how_its_request_is_called() {
    let server = builder().start().await.unwrap();
    for path in [MAPS, "/nothing", "/healthz"] {
        let of = format!("GET {path}");
        let named = send(&server, &of, &[("audit-id", "mine")], "").await;
        assert_eq!(named.header("audit-id"), Some("mine"), "{path}");
        let [one, other] = [
            send(&server, &of, &[], "").await,
            send(&server, &of, &[], "").await,
        ];
        let id = one.header("audit-id").unwrap();
        assert_eq!(id.len(), 36, "{path} {id}");
        assert_ne!(Some(id), other.header("audit-id"), "{path}");
    }
}

#[tokio::test]
async fn a_watch_of_two_seconds_at_most_has_no_last_bookmark() {
    let server = builder().start().await.unwrap();
    let version = server.resource_version();
    let of = format!("{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1");
    post(&server, MAPS, &map("a")).await;
    let watched = get(&server, &format!("{of}&resourceVersion={version}")).await;
    assert!(watched.text.contains("\"ADDED\""), "{}", watched.text);
    assert!(!watched.text.contains("BOOKMARK"), "{}", watched.text);
}
