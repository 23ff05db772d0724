//! Pods that run, and what their end ends.

use super::*;

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

/// `k8s.io/kubernetes/pkg/kubelet`: a pod that goes is over first, and then has no time left.
#[tokio::test]
async fn a_deleted_pod_is_over_before_it_has_gone() {
    let server = builder().start().await.unwrap();
    let mut object = pod(
        "a",
        &[
            "sh",
            "-c",
            "trap 'exit 3' TERM; echo on; while :; do sleep 0.1; done",
        ],
    );
    object["spec"]["restartPolicy"] = "Always".into();
    object["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1m"}});
    post(&server, PODS, &object).await;
    until(&server, &format!("{PODS}/a/log"), |log| log.text == "on\n").await;
    let running = get(&server, &format!("{PODS}/a")).await.json();
    assert_eq!(running["status"]["qosClass"], "Burstable");
    let version = &running["metadata"]["resourceVersion"];
    let version = version.as_str().unwrap();
    send(&server, &format!("DELETE {PODS}/a"), &[], "").await;
    until(&server, &format!("{PODS}/a"), |answer| answer.code == 404).await;
    let watch = format!("{PODS}?watch=1&timeoutSeconds=1&resourceVersion={version}");
    let events = get(&server, &watch).await.text;
    let events = events.lines().map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        let object = &event["object"];
        json!([
            event["type"],
            object["metadata"]["deletionGracePeriodSeconds"],
            object["status"]["phase"]
        ])
    });
    assert_eq!(
        events.collect::<Value>(),
        json!([
            ["MODIFIED", 30, "Running"],
            ["MODIFIED", 30, "Failed"],
            ["MODIFIED", 0, "Failed"],
            ["DELETED", 0, "Failed"],
        ])
    );
}
