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

/// A cluster of 1.36.2 answered so, whose kubelet runs containerd.
#[tokio::test]
async fn streams_are_refused_first_by_the_api_server_and_then_by_a_kubelet() {
    let server = builder()
        .pod("default", "half", |pod| {
            pod.container("main", ["true"])
                .container("two", ["sleep", "infinity"])
        })
        .pod("default", "over", |pod| pod.container("main", ["true"]))
        .start()
        .await
        .unwrap();
    for name in ["half", "over"] {
        until(&server, &format!("{PODS}/{name}"), |answer| {
            let pod = answer.json();
            pod["status"]["containerStatuses"][0]["state"]["terminated"].is_object()
        })
        .await;
    }
    let text = |code: u16, text: &str| (code, text.to_owned());
    let status = |text: &str| (400, format!("\"message\":\"{text}\""));
    let half = "container name must be specified for pod half, choose one of: [main two]";
    let none = [("accept", "*/*")];
    let json = [("accept", "application/json")];
    for (path, headers, (code, words)) in [
        (
            "half/exec?stdout=1",
            &none[..],
            status(&format!("a {half}")),
        ),
        (
            "half/exec?stdout=1&container=x",
            &none,
            status("container x is not valid for pod half"),
        ),
        (
            "half/exec?stdout=1&container=main",
            &none,
            text(500, "container not found (\"main\")"),
        ),
        (
            "over/exec?stdout=1",
            &none,
            text(500, "container not found (\"main\")"),
        ),
        (
            "over/exec?stdout=1",
            &json,
            text(406, "406: Not Acceptable\n\nAvailable representations: "),
        ),
        (
            "over/attach?stdout=1",
            &none,
            text(500, "container main not found in pod over_default"),
        ),
        (
            "over/portforward",
            &none,
            text(500, "pod not found (\"over_default\")"),
        ),
        (
            "half/exec?container=two&command=true",
            &none,
            text(400, "you must specify at least 1 of stdin, stdout, stderr"),
        ),
        (
            "half/exec?container=two",
            &[("upgrade", "h2c")],
            text(
                400,
                "unable to upgrade: X-Stream-Protocol-Version is required\n",
            ),
        ),
        (
            "half/exec?container=two",
            &[("upgrade", "SPDY/3.1")],
            text(501, "SPDY"),
        ),
        (
            "half/exec?container=two",
            &[("connection", "")],
            status("Upgrade request required"),
        ),
        (
            "half/portforward?ports=x",
            &none,
            status(
                r#"cannot convert to []int32: strconv.ParseUint: parsing \"x\": invalid syntax"#,
            ),
        ),
        (
            "half/portforward?ports=8080,70000",
            &none,
            status(
                r#"cannot convert to []int32: strconv.ParseUint: parsing \"70000\": value out of range"#,
            ),
        ),
        (
            "half/portforward?ports=0",
            &none,
            text(400, "port \"0\" must be > 0"),
        ),
        (
            "half/exec/x?container=two&stdout=1",
            &none,
            text(404, "the server could not find the requested resource"),
        ),
        (
            "half/log?container=main",
            &[("accept", "text/plain")],
            text(
                406,
                "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
            ),
        ),
        (
            "half/log?container=main",
            &[("accept", "text/*")],
            text(
                406,
                "Available representations: text/plain, application/json, application/yaml, application/vnd.kubernetes.protobuf",
            ),
        ),
    ] {
        let mut all = upgrade::HEADERS.to_vec();
        let is_log = path.contains("/log");
        all.retain(|(name, _)| !is_log && headers[0].0 != *name);
        all.extend(headers);
        let answer = send(&server, &format!("GET {PODS}/{path}"), &all, "").await;
        assert_eq!(answer.code, code, "{path} {headers:?} {}", answer.text);
        let is_it = match code {
            500 => answer.text == words,
            _ => answer.text.contains(&words),
        };
        assert!(is_it, "{path} {headers:?} {}", answer.text);
    }
}

#[tokio::test]
async fn what_a_container_has_is_that_of_its_image_and_its_spec() {
    let server = builder()
        .pod("default", "terminal", |pod| {
            pod.container_with("main", ["cat"], |main| main.stdin().tty())
        })
        .start()
        .await
        .unwrap();
    let with_args = |name: &str, image: &str| {
        let mut made = pod(name, &[]);
        let container = &mut made["spec"]["containers"][0];
        container["image"] = image.into();
        container["args"] = json!(["sh", "-c", "echo args; exec sleep 1000"]);
        container["command"] = Value::Null;
        container["resources"] = json!({"limits": {"cpu": "100m"}});
        made
    };
    // Such an image has no command of its own, and the arguments are one.
    post(
        &server,
        PODS,
        &with_args("plain", "registry:5000/busybox:1.36@sha256:0"),
    )
    .await;
    until(&server, &format!("{PODS}/plain/log"), |log| {
        log.text == "args\n"
    })
    .await;
    let plain = get(&server, &format!("{PODS}/plain")).await.json();
    let status = &plain["status"]["containerStatuses"][0];
    assert_eq!(status["allocatedResources"], json!({"cpu": "100m"}));
    assert_eq!(status["resources"]["limits"], json!({"cpu": "100m"}));
    let mount = json!([{
        "name": plain["spec"]["volumes"][0]["name"], "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "recursiveReadOnly": "Disabled",
    }]);
    assert_eq!(status["volumeMounts"], mount);
    post(&server, PODS, &with_args("other", "nginx")).await;
    let other = get(&server, &format!("{PODS}/other")).await.json();
    let state = &other["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(state["reason"], "ErrImageNeverPull", "{state}");
    // In the words of 1.36.2.
    let log = get(&server, &format!("{PODS}/plain/log?sinceTime=x")).await;
    let why = "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"";
    assert_eq!((log.code, &*text(&log)), (400, why));
    let head = format!("GET {PODS}/terminal/attach?stdout=1&stderr=1");
    let attached = send(&server, &head, &upgrade::HEADERS, "").await;
    let why = "rpc error: code = InvalidArgument desc = tty and stderr cannot both be true";
    assert_eq!((attached.code, &*attached.text), (500, why));
    let proxied = get(&server, &format!("{PODS}/plain:7/proxy/")).await;
    let ip = plain["status"]["podIP"].as_str().unwrap();
    let why =
        format!("error trying to reach service: dial tcp {ip}:7: connect: connection refused");
    assert_eq!((proxied.code, text(&proxied)), (503, why));
}

fn text(answer: &Answer) -> String {
    answer.json()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
