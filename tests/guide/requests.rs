use crate::{Result, serve};

#[tokio::test]
async fn requests() -> Result {
    let (_server, client) = serve().await?;
    // [requests]
    use kubewire::request::{List, Patch, Resource};
    use serde_json::{Value, json};

    let maps = client
        .request(Resource::namespaced("", "v1", "configmaps"))
        .namespace("default");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site"},
        "data": {"theme": "dark"},
    });
    maps.create(&map).await?;
    let light = json!({"data": {"theme": "light"}});
    let map: Value = maps.patch("site", Patch::Merge(&light)).await?;
    assert_eq!(map["data"]["theme"], "light");
    let all: List<Value> = maps.list().await?;
    assert_eq!(all.items.len(), 1);
    // [end]
    // [update]
    let map = maps
        .update("site", |map: &mut Value| map["data"]["seen"] = json!("yes"))
        .await?;
    assert_eq!(map["data"]["theme"], "light");
    // [end]
    // [errors]
    let missing = maps.get::<Value>("nobody").await.unwrap_err();
    assert!(missing.is_not_found() && !missing.is_retryable());
    println!("{missing}"); // get configmap default/nobody: configmaps "nobody" not found
    // [end]
    // [delete]
    use kubewire::request::Deleted;

    match maps.delete::<Value>("site", None).await? {
        Deleted::Object(map) => println!("going: {}", map["metadata"]["finalizers"]),
        _ => println!("gone"),
    }
    // [end]
    Ok(())
}

#[tokio::test]
async fn pages() -> Result {
    let (_server, client) = serve().await?;
    // [pages]
    use k8s_openapi::api::core::v1::Pod;
    use kubewire::Resource;

    let mut pages = client
        .request(Resource::of::<Pod>())
        .labels("app=web")
        .pages::<Pod>(500);
    while let Some(page) = pages.next().await? {
        for pod in page.items {
            println!("{:?}", pod.metadata.name);
        }
    }
    // [end]
    Ok(())
}

#[tokio::test]
async fn anything() -> Result {
    let (_server, client) = serve().await?;
    // [anything]
    use bytes::Bytes;
    use http_body_util::BodyExt as _;

    let request = http::Request::get("/version").body(Bytes::new())?;
    let answer = client.send(request).await?;
    assert_eq!(answer.status(), 200); // whatever its code, it is no error
    let body = answer.into_body().collect().await?.to_bytes();
    println!("{}", String::from_utf8_lossy(&body));
    // [end]
    Ok(())
}
