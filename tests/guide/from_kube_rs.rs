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
    use kubewire::{Resource, request::List};

    // kube: Api::<Pod>::namespaced(client, "default").list(&ListParams::default()).await?
    let pods = client.request(Resource::of::<Pod>()).namespace("default");
    let all: List<Pod> = pods.list().await?;
    assert_eq!(all.items.len(), 1);
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
    let mut updates = client.watch_typed::<Pod>().namespace("default").stream();
    let mut store = Mirror::<Pod>::new();
    while !store.is_current() {
        let update = updates.next().await.expect("it never ends")?;
        store.apply(&update, |object| object.decode())?;
    }
    assert_eq!(store.len(), 1);
    // [end]
    Ok(())
}
