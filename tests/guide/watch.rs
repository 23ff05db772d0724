use crate::{Result, serve};

#[tokio::test]
async fn partial() -> Result {
    let (_server, client) = serve().await?;
    // [partial]
    use kubewire::{
        Resource,
        request::{Kind, Namespaced},
    };
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Pod {
        spec: Spec,
        status: Status,
    }

    #[derive(Deserialize)]
    struct Spec {
        #[serde(rename = "nodeName")]
        node: Option<String>,
    }

    #[derive(Deserialize)]
    struct Status {
        phase: String,
    }

    impl Kind for Pod {
        type Scope = Namespaced;

        fn resource() -> Resource {
            Resource::namespaced("", "v1", "pods")
        }
    }

    let pods = client.mirror::<Pod>().namespace("default").start();
    pods.wait_until_ready().await?;
    for pod in pods.list() {
        println!("{} on {:?}", pod.status.phase, pod.spec.node);
    }
    // [end]
    assert_eq!(pods.len(), 1);
    Ok(())
}

#[tokio::test]
async fn protobuf() -> Result {
    let (_server, client) = serve().await?;
    // [protobuf]
    use k8s_pb::api::core::v1::Pod;
    use kubewire::watch::Protobuf;

    let pods = client
        .mirror::<Protobuf<Pod>>()
        .namespace("default")
        .start();
    pods.wait_until_ready().await?;
    for pod in pods.list() {
        println!("{:?}", pod.status.as_ref().map(|status| status.phase()));
    }
    // [end]
    assert_eq!(pods.len(), 1);
    Ok(())
}

#[tokio::test]
async fn watch() -> Result {
    let (_server, client) = serve().await?;
    // [watch]
    use kubewire::watch::Update;

    let pods = client.find("pods").await?.resource;
    let mut updates = client
        .watch(pods)
        .namespace("default")
        .labels("app=web")
        .stream();
    while let Some(update) = updates.next().await {
        match update? {
            Update::Event(event) => {
                let kind = event.event_type.as_str();
                println!("{kind} {}", event.object.metadata()?.name()?);
            }
            Update::SnapshotEnd { .. } => break, // all that there is has been told
            Update::Retrying { error, .. } => println!("it goes on: {error}"),
            _ => {}
        }
    }
    // [end]
    Ok(())
}

#[tokio::test]
async fn mirror() -> Result {
    let (server, client) = serve().await?;
    // [mirror]
    use k8s_openapi::api::core::v1::Pod;

    let pods = client
        .mirror::<Pod>()
        .namespace("default")
        .index_by_label("app")
        .start();
    pods.wait_until_ready().await?;
    assert_eq!(pods.by_label("app", "web")?.len(), 1);
    let web = pods.get("web-0").expect("it is there"); // an Arc, the same for all readers
    println!("{:?}", web.status);
    // [end]
    // [conditions]
    use kubewire::watch::Condition;

    pods.wait_for("web-0", &Condition::ready()).await?;
    let scheduled = Condition::when(|pod: Option<&Pod>| {
        pod.is_some_and(|pod| pod.spec.as_ref().is_some_and(|it| it.node_name.is_some()))
    });
    pods.wait_for("web-0", &scheduled).await?;
    // [end]
    let resource = kubewire::Resource::namespaced("", "v1", "pods");
    server.delete(&resource, "default", "web-0");
    server.compact();
    let reader = pods.clone();
    // [changes]
    use kubewire::watch::MirrorUpdate;

    let mut changes = reader.changes();
    while let Some(update) = changes.next().await {
        match update? {
            MirrorUpdate::Added(key, _pod) => println!("{key} is there"),
            MirrorUpdate::Modified(key, _pod) => println!("{key} has changed"),
            MirrorUpdate::Deleted(key, _pod) => println!("{key} has gone"),
            MirrorUpdate::Current => println!("that is all there is"),
            MirrorUpdate::Lagged { .. } => println!("forget what I said, I begin anew"),
            MirrorUpdate::Retrying { error, .. } => println!("it goes on: {error}"),
            _ => {}
        }
        if reader.is_empty() {
            break;
        }
    }
    // [end]
    Ok(())
}

#[tokio::test]
async fn one() -> Result {
    let (_server, client) = serve().await?;
    // [one]
    use k8s_openapi::api::core::v1::Pod;
    use kubewire::watch::{Change, Mirror};

    let mut updates = client.api::<Pod>().watch().stream();
    let mut phases = Mirror::<Option<String>>::new();
    while !phases.is_current() {
        let update = updates.next().await.expect("it never ends")?;
        let phase = |object: &kubewire::watch::Object| {
            Ok::<_, kubewire::Error>(object.decode::<Pod>()?.status.and_then(|it| it.phase))
        };
        for change in phases.apply(&update, phase)? {
            if let Change::Added(key) = change {
                println!("{key} is {:?}", phases.get(&key));
            }
        }
    }
    // [end]
    assert_eq!(phases.len(), 1);
    Ok(())
}
