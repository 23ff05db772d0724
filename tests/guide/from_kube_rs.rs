use crate::{Result, serve};

#[tokio::test]
async fn exec() -> Result {
    let (_server, client) = serve().await?;
    // [exec]
    // kube: Api::<Pod>::namespaced(client, "default")
    //           .exec("web-0", ["date"], &AttachParams::default()).await?
    let output = client
        .pod("default", "web-0")
        .exec(["date"])
        .output()
        .await?;
    assert!(output.status.success()); // kube: take_status().await, then the reason of the Status
    // [end]
    Ok(())
}

#[tokio::test]
async fn objects() -> Result {
    let (_server, client) = serve().await?;
    // [objects]
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    // kube: Api::<Pod>::namespaced(client, "default")
    let pods = client.api::<Pod>().namespace("default");
    // kube: pods.list(&ListParams::default()).await?
    assert_eq!(pods.list().await?.items.len(), 1);
    // kube: pods.patch("web-0", &PatchParams::default(), &Patch::Merge(&json!({..}))).await?
    let labels = json!({"metadata": {"labels": {"seen": "yes"}}});
    let pod = pods.patch("web-0", &labels).await?;
    assert_eq!(pod.metadata.labels.unwrap_or_default()["seen"], "yes");
    // [end]
    Ok(())
}

#[tokio::test]
async fn watch() -> Result {
    let (_server, client) = serve().await?;
    // [watch]
    use k8s_openapi::api::core::v1::Pod;
    use kubewire::watch::Condition;

    // kube: reflector(writer, watcher(api, watcher::Config::default())), and a task that polls it
    let store = client.mirror::<Pod>().namespace("default").start();
    // kube: store.wait_until_ready().await?
    store.wait_until_ready().await?;
    // kube: store.state()
    assert_eq!(store.list().len(), 1);
    // kube: await_condition(api, "web-0", conditions::is_pod_running()).await?
    store.wait_for("web-0", &Condition::ready()).await?;
    // [end]
    Ok(())
}
