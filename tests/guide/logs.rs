use kubewire::{
    Client,
    testing::{ApiServer, BodyFault, RestartPolicy},
};

use crate::Result;

async fn counting() -> Result<(ApiServer, Client)> {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            let count = "for n in 1 2 3; do echo line $n; done; sleep 600";
            pod.label("app", "web")
                .container("main", ["sh", "-c", count])
        })
        .start()
        .await?;
    let client = Client::new(&server.config())?;
    Ok((server, client))
}

#[tokio::test]
async fn follow() -> Result {
    let (server, client) = counting().await?;
    // The connection is cut in the first answer, which nobody notices.
    server.inject_into_bodies([Some(BodyFault::Cut { after: 60 })]);
    // [follow]
    let pod = client.pod("default", "web-0");
    let mut lines = pod.logs().container("main").follow().stream();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let line = lines.next().await.expect("the container runs")?;
        seen.push(line.to_string());
    }
    assert_eq!(seen, ["line 1", "line 2", "line 3"]);
    // [end]
    Ok(())
}

#[tokio::test]
async fn restarts() -> Result {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            let once = ["sh", "-c", "echo started; exit 7"];
            pod.restart_policy(RestartPolicy::Always)
                .container("main", once)
        })
        .start()
        .await?;
    let client = Client::new(&server.config())?;
    // [restarts]
    use kubewire::logs::LogUpdate;

    let pod = client.pod("default", "web-0");
    let mut updates = pod.logs().across_restarts().stream();
    while let Some(update) = updates.next_update().await {
        match update {
            LogUpdate::Line(line) => println!("{line}"),
            LogUpdate::Restarted { restarts, .. } => {
                println!("-- restarted for the {restarts}. time");
                break;
            }
            LogUpdate::Retrying { error, .. } => println!("-- {error}"),
            LogUpdate::Notice(text) => println!("-- the kubelet says: {text}"),
            _ => {}
        }
    }
    // [end]
    Ok(())
}

#[tokio::test]
async fn many() -> Result {
    let (_server, client) = counting().await?;
    // [many]
    let logs = client
        .logs("default")
        .labels("app=web")
        .all_containers()
        .follow();
    let mut lines = logs.stream();
    let line = lines.next().await.expect("it goes on")?;
    assert_eq!(line.source.to_string(), "default/web-0/main");
    assert_eq!(line.line.bytes, "line 1");
    // [end]
    Ok(())
}
