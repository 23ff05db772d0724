use crate::{Result, serve};

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
    use kubewire::watch::{Change, Mirror};

    let mut updates = client.api::<Pod>().namespace("default").watch().stream();
    let mut pods = Mirror::<Pod>::new();
    while !pods.is_current() {
        let update = updates.next().await.expect("it never ends")?;
        pods.apply(&update, |object| object.decode())?;
    }
    assert_eq!(pods.len(), 1);
    // [end]
    server.delete(
        &kubewire::Resource::namespaced("", "v1", "pods"),
        "default",
        "web-0",
    );
    server.compact();
    // [changes]
    'watch: while let Some(update) = updates.next().await {
        for change in pods.apply(&update?, |object| object.decode())? {
            match change {
                Change::Added(key) => println!("{key} is one of {}", pods.len()),
                Change::Modified(key) => println!("{key} has changed"),
                Change::Deleted(key, _pod) => {
                    println!("{key} has gone");
                    break 'watch;
                }
            }
        }
    }
    // [end]
    assert!(pods.is_empty());
    Ok(())
}
