//! exec and attach where no container is named: in flow pods with several, out comes the one that
//! kubectl would take.

#![cfg(all(feature = "client", feature = "testing", unix))]

use std::time::Duration;

use kubewire::{
    Client, Error,
    error::Hint,
    testing::{ApiServer, Rule},
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

async fn soon<T>(work: impl Future<Output = T>) -> T {
    Box::pin(tokio::time::timeout(Duration::from_secs(180), work))
        .await
        .expect("it takes too long")
}

async fn server() -> Result<ApiServer> {
    const DEFAULT: &str = "kubectl.kubernetes.io/default-container";
    let sleep = ["sleep", "infinity"];
    let two = move |pod: kubewire::testing::PodBuilder| {
        pod.container_with("a", sleep, |container| container.env("NAME", "a"))
            .container_with("b", sleep, |container| container.env("NAME", "b"))
    };
    let server = ApiServer::builder()
        .pod("default", "one", |pod| pod.container("main", sleep))
        .pod("default", "two", two)
        .pod("default", "says", move |pod| {
            two(pod).annotation(DEFAULT, "b")
        })
        .pod("default", "lies", move |pod| {
            two(pod).annotation(DEFAULT, "c")
        })
        .user(
            "exec-only",
            [Rule::new(["get", "create"], ["pods/exec", "pods/attach"])],
        )
        .start()
        .await?;
    Ok(server)
}

#[tokio::test]
async fn the_default_container_is_that_of_kubectl() -> Result {
    let server = server().await?;
    let client = Client::new(&server.config())?;
    for (pod, name) in [("two", "a"), ("says", "b"), ("lies", "a")] {
        let pod = client.pod("default", pod);
        let exec = pod.exec(["sh", "-c", "echo $NAME"]);
        let child = soon(exec.spawn()).await?;
        assert_eq!(child.container(), Some(name));
        let output = soon(child.wait_with_output()).await?;
        assert_eq!(output.stdout, format!("{name}\n").into_bytes());
        let attached = soon(pod.attach().spawn()).await?;
        assert_eq!(attached.container(), Some(name));
        // One that is named stands.
        let child = soon(exec.container("b").spawn()).await?;
        assert_eq!(child.container(), Some("b"));
    }
    // Where there is only one, nobody has to choose.
    let child = soon(client.pod("default", "one").exec("true").spawn()).await?;
    assert_eq!(child.container(), None);
    Ok(())
}

#[tokio::test]
async fn who_may_not_read_the_pod_is_told_to_choose() -> Result {
    let server = server().await?;
    let token = server.token_of("exec-only").expect("a user");
    let client = Client::new(&server.config_with_token(token))?;
    let pod = client.pod("default", "two");
    let error = soon(pod.exec("true").status()).await.unwrap_err();
    let text = "exec in pod default/two: a container name must be specified for pod \
                two, choose one of: [a b] (set the container; to take the default one needs \
                `get` on `pods`)";
    assert_eq!(error.to_string(), text);
    let Error::Api(error) = error else {
        panic!("{error:?}");
    };
    let both = Hint::Containers(vec!["a".into(), "b".into()]);
    assert_eq!((error.status.code, error.hint), (400, Some(both)));
    assert!(
        soon(pod.exec("true").container("b").status())
            .await?
            .success()
    );
    Ok(())
}
