use crate::{Result, serve};

#[tokio::test]
async fn there_and_back() -> Result {
    let (_server, client) = serve().await?;
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    std::fs::create_dir(here.path().join("site"))?;
    std::fs::write(here.path().join("site/index.html"), "hello")?;
    let srv = there.path().to_str().ok_or("a path")?;
    let here = here.path();
    let pod = client.pod("default", "web-0");
    // [there]
    let copied = pod
        .copy_to(here.join("site"), format!("{srv}/site"))
        .run()
        .await?;
    assert_eq!((copied.files, copied.bytes), (1, 5));
    // [end]
    // [back]
    let copied = pod
        .copy_from(format!("{srv}/site"), here.join("back"))
        .max_bytes(1 << 30)
        .run()
        .await?;
    for left_out in &copied.left_out {
        eprintln!("left out: {left_out}"); // devices, and links that lead out
    }
    assert_eq!(std::fs::read(here.join("back/index.html"))?, b"hello");
    // [end]
    // [resumed]
    use std::time::Duration;

    let copy = pod.copy_to(here.join("site"), format!("{srv}/again"));
    let copy = copy.retries(u32::MAX).deadline(Duration::from_secs(600));
    copy.exclude("*.tmp").run().await?;
    // [end]
    // [progress]
    use kubewire::copy::Progress;

    let progress = Progress::default();
    let copy = pod.copy_from(format!("{srv}/site"), here.join("watched"));
    let copy = copy.progress(&progress);
    tokio::select! {
        done = copy.run() => drop(done?),
        () = tokio::time::sleep(Duration::from_secs(60)) => {
            println!("{} bytes of {:?}", progress.bytes(), progress.total_bytes());
        }
    }
    let left = progress.settled().await; // also if it was given up
    assert!(left.is_empty());
    // [end]
    Ok(())
}

#[tokio::test]
async fn between() -> Result {
    let server = kubewire::testing::ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .pod("default", "web-1", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await?;
    let client = kubewire::Client::new(&server.config())?;
    let there = tempfile::tempdir()?;
    let srv = there.path().to_str().ok_or("a path")?;
    std::fs::write(there.path().join("dump"), "data")?;
    // [between]
    let (from, to) = (
        client.pod("default", "web-0"),
        client.pod("default", "web-1"),
    );
    let copy = from.copy_between(format!("{srv}/dump"), &to, format!("{srv}/copy"));
    assert_eq!(copy.run().await?.bytes, 4);
    // [end]
    Ok(())
}
