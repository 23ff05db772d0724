use crate::Result;

#[tokio::test]
async fn server() -> Result {
    // [server]
    use kubewire::{Client, testing::ApiServer};

    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.label("app", "web")
                .container("main", ["sleep", "infinity"])
        })
        .start()
        .await?;
    let client = Client::new(&server.config())?;
    let output = client
        .pod("default", "web-0")
        .exec(["echo", "hello"])
        .output()
        .await?;
    assert_eq!(output.stdout, b"hello\n");
    // [end]
    Ok(())
}

#[tokio::test]
async fn faults() -> Result {
    let server = kubewire::testing::ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await?;
    let client = kubewire::Client::new(&server.config())?;
    // [cut]
    use kubewire::{Error, error::NetworkError, testing::Fault};

    server.inject(Fault::CutAfter(10_000)); // bytes of the next answer
    let zeros = client
        .pod("default", "web-0")
        .exec(["head", "-c", "1000000", "/dev/zero"]);
    match zeros.output().await {
        Err(Error::Network(NetworkError::ClosedWithoutStatus { .. } | NetworkError::Lost(_))) => {}
        other => panic!("a cut is no success: {other:?}"),
    }
    // [end]
    // [rights]
    let config = server.config_with_token(server.token_without_rights());
    let nobody = kubewire::Client::new(&config)?;
    let refused = nobody
        .pod("default", "web-0")
        .exec(["true"])
        .output()
        .await
        .unwrap_err();
    assert!(refused.is_forbidden());
    // [end]
    Ok(())
}

#[tokio::test]
async fn objects() -> Result {
    let server = kubewire::testing::ApiServer::builder().start().await?;
    let client = kubewire::Client::new(&server.config())?;
    // [objects]
    use kubewire::{Resource, testing::BodyFault, watch::Mirror};
    use serde_json::{Value, json};

    let sites = Resource::namespaced("example.com", "v1", "sites");
    server.put(
        &sites,
        json!({"kind": "Site", "metadata": {"name": "a", "namespace": "default"}}),
    );
    server.inject_into_bodies([Some(BodyFault::Cut { after: 100 }), None]); // then all is well

    let mut updates = client.watch(sites.clone()).stream();
    let mut mirror = Mirror::<Value>::new();
    while !mirror.is_current() {
        let update = updates.next().await.expect("it never ends")?;
        mirror.apply(&update, |object| object.decode())?;
    }
    assert_eq!(mirror.len(), server.objects(&sites).len());
    // [end]
    Ok(())
}
