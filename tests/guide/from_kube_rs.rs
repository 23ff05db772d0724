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
    use kubewire::watch::Mirror;

    // kube: reflector(writer, watcher(api, watcher::Config::default()))
    let mut updates = client.api::<Pod>().namespace("default").watch().stream();
    let mut store = Mirror::<Pod>::new();
    while !store.is_current() {
        let update = updates.next().await.expect("it never ends")?;
        store.apply(&update, |object| object.decode())?;
    }
    assert_eq!(store.len(), 1);
    // [end]
    Ok(())
}
