use crate::{Result, serve};

#[tokio::test]
async fn requests() -> Result {
    let (_server, client) = serve().await?;
    // [requests]
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    let maps = client.api::<ConfigMap>().namespace("default");
    let mut map = ConfigMap::default();
    map.metadata.name = Some("site".to_owned());
    map.data = Some([("theme".to_owned(), "dark".to_owned())].into());
    maps.create(&map).await?;
    let light = json!({"data": {"theme": "light"}});
    let map = maps.patch("site", &light).await?;
    assert_eq!(map.data.unwrap_or_default()["theme"], "light");
    assert!(!maps.list().await?.items.is_empty());
    // [end]
    // [dynamic]
    use kubewire::request::{List, Resource};
    use serde_json::Value;

    let resource = Resource::namespaced("", "v1", "configmaps");
    let maps = client.request(resource).namespace("default");
    let all: List<Value> = maps.list().await?;
    assert_eq!(all.items[1]["data"]["theme"], "light");
    // [end]
    // [patch]
    use kubewire::request::Patch;

    // A list is a JSON Patch.
    let list = json!([{"op": "replace", "path": "/data/theme", "value": "dark"}]);
    let map: Value = maps.patch("site", &list).await?;
    assert_eq!(map["data"]["theme"], "dark");
    // Server-side apply is asked for by its name.
    let apply = Patch::Apply {
        object: &json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"size": "3"}}),
        manager: "guide",
        force: false,
    };
    let map: Value = maps.patch("site", apply).await?;
    assert_eq!(map["data"]["size"], "3");
    // [end]
    // [update]
    let map = maps
        .update("site", |map: &mut Value| map["data"]["seen"] = json!("yes"))
        .await?;
    assert_eq!(map["data"]["theme"], "dark");
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

    let mut pages = client.api::<Pod>().labels("app=web").pages(500);
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
