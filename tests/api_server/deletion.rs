//! What goes when something is deleted.

use super::*;

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
    assert_eq!(own_maps(&server).len(), 1);
    // They are listed in pages, which are of the version that is asked for.
    let made = post(&server, MAPS, &map("d")).await.json();
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    post(&server, MAPS, &map("e")).await;
    server.compact();
    let old = format!("DELETE {MAPS}?resourceVersion={version}");
    let old = send(&server, &old, &[], "").await;
    assert_eq!(old.refusal(), (410, "Expired".to_owned()));
    assert_eq!(own_maps(&server).len(), 3);
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
    assert!(own_maps(&server).is_empty());
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
async fn a_pod_that_is_deleted_in_the_foreground_goes_with_what_it_owns() {
    let server = builder().start().await.unwrap();
    let owner = post(&server, PODS, &pod("p", &["sleep", "9000"])).await;
    let mut owned = map("owned");
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Pod", "blockOwnerDeletion": true,
        "name": "p", "uid": owner.json()["metadata"]["uid"],
    }]);
    post(&server, MAPS, &owned).await;
    let path = format!("DELETE {PODS}/p?propagationPolicy=Foreground");
    send(&server, &path, &[], "").await;
    eventually_gone(&server, &format!("{PODS}/p")).await;
    eventually_gone(&server, &format!("{MAPS}/owned")).await;
}

#[tokio::test]
async fn what_owners_own_that_are_not_there_goes() {
    let server = builder().start().await.unwrap();
    let there = post(&server, MAPS, &map("there")).await.json();
    let uid = &there["metadata"]["uid"];
    let owner = |kind: &str, name: &str, uid: &Value| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": uid});
    let none = owner("ConfigMap", "none", &json!("1"));
    let own = |name: &str, owners: Value| {
        let mut map = map(name);
        map["metadata"]["ownerReferences"] = owners;
        map
    };
    let right = owner("ConfigMap", "there", uid);
    let strange = own("strange", json!([owner("Strange", "x", uid)]));
    post(&server, MAPS, &strange).await;
    post(&server, MAPS, &own("both", json!([none, right]))).await;
    post(&server, MAPS, &own("none", json!([none]))).await;
    // One of this name that is another.
    let other = owner("ConfigMap", "there", &json!("1"));
    post(&server, MAPS, &own("other", json!([other]))).await;
    post(&server, MAPS, &map("later")).await;
    let patch = json!({"metadata": {"ownerReferences": [none]}});
    write(&server, &format!("PATCH {MAPS}/later"), MERGE, &patch).await;
    for name in ["none", "other", "later"] {
        eventually_gone(&server, &format!("{MAPS}/{name}")).await;
    }
    until(&server, &format!("{MAPS}/both"), |both| {
        both.json()["metadata"]["ownerReferences"] == json!([right])
    })
    .await;
    assert_eq!(get(&server, &format!("{MAPS}/strange")).await.code, 200);
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
    eventually_gone(&server, &format!("{maps}/a")).await;
    post(&server, maps, &map("b"))
        .await
        .says(403, "because it is being terminated");
    let release = json!({"metadata": {"finalizers": null}});
    write(&server, &format!("PATCH {maps}/held"), MERGE, &release).await;
    assert_eq!(get(&server, "/api/v1/namespaces/team").await.code, 404);

    // Who has a finalizer of the spec keeps it, until that is taken away where it can be.
    let mut own = namespace.clone();
    own["spec"] = json!({"finalizers": ["example.com/x"]});
    post(&server, "/api/v1/namespaces", &own).await;
    send(&server, "DELETE /api/v1/namespaces/team", &[], "").await;
    let path = "PUT /api/v1/namespaces/team/finalize";
    assert_eq!(write(&server, path, JSON, &namespace).await.code, 200);
    eventually_gone(&server, "/api/v1/namespaces/team").await;
}

async fn eventually_gone(server: &ApiServer, path: &str) {
    let gone = async {
        while get(server, path).await.code != 404 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let patience = std::time::Duration::from_secs(120);
    tokio::time::timeout(patience, gone).await.expect("it goes");
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
async fn a_token_is_its_account_s_until_that_is_gone() {
    let server = builder().start().await.unwrap();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    post(&server, accounts, &json!({"metadata": {"name": "robot"}})).await;
    let token = |spec: Value| {
        let server = &server;
        async move {
            let path = format!("{accounts}/robot/token");
            let made = post(server, &path, &json!({"spec": spec})).await.json();
            format!("Bearer {}", made["status"]["token"].as_str().unwrap())
        }
    };
    let whoami = |token: String| {
        let server = &server;
        async move {
            let path = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
            send(server, path, &[("authorization", &token)], "{}").await
        }
    };
    let own = token(json!({})).await;
    let user = whoami(own.clone()).await.json()["status"]["userInfo"].clone();
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    assert_eq!(user["groups"][1], "system:serviceaccounts:default");
    // One for others is none here.
    let others = token(json!({"audiences": ["vault"]})).await;
    assert_eq!(whoami(others).await.code, 401);
    let gone = send(&server, &format!("DELETE {accounts}/robot"), &[], "").await;
    assert_eq!(gone.code, 200);
    post(&server, accounts, &json!({"metadata": {"name": "robot"}})).await;
    assert_eq!(whoami(own).await.code, 401);
}
