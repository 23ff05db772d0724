//! exec of kubewire over a connection of kube's: kube authenticates, kubewire runs the session.
//!
//! ```text
//! cargo run --manifest-path benches/peers/Cargo.toml --example bridge [-- NAMESPACE POD COMMAND...]
//! ```
//!
//! Without arguments it plays against an API server inside this process.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Resource as _, api::AttachParams, core::Request};
use kubewire::{
    exec::{Child, Streams, Subprotocol},
    testing::ApiServer,
};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Runs a command in a pod over kube's client.
async fn exec(client: &Client, namespace: &str, pod: &str, command: &[String]) -> Result<Child> {
    let pods = Request::new(Pod::url_path(&(), Some(namespace)));
    let params = AttachParams::default(); // stdout and stderr
    let connection = client.connect(pods.exec(pod, command, &params)?).await?;
    let protocol = match connection.supports_stream_close() {
        true => Subprotocol::V5,
        false => Subprotocol::V4,
    };
    let streams = Streams {
        stdout: true,
        stderr: true,
        ..Streams::default()
    };
    let operation = format!("exec in pod {namespace}/{pod}");
    Ok(Child::over(connection.into_stream(), protocol, streams)
        .operation(operation)
        .spawn())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [namespace, pod, command @ ..] = &arguments[..] else {
        return play().await;
    };
    let client = Client::try_default().await?;
    let output = exec(&client, namespace, pod, command)
        .await?
        .wait_with_output()
        .await?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    std::process::exit(output.status.code().unwrap_or(1))
}

async fn play() -> Result<()> {
    let server = ApiServer::builder()
        .plain()
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await?;
    let client = Client::try_from(kube::Config::new(server.url().parse()?))?;

    let command = ["sh", "-c", "echo hello; exit 3"].map(str::to_owned);
    let output = exec(&client, "default", "web-0", &command)
        .await?
        .wait_with_output()
        .await?;
    assert_eq!(
        (&output.stdout[..], output.status.code()),
        (&b"hello\n"[..], Some(3))
    );

    // The same types on both sides.
    let by_kube: Pod = Api::namespaced(client, "default").get("web-0").await?;
    let kubewire = kubewire::Client::new(&server.config())?;
    let pods = kubewire
        .request(kubewire::Resource::namespaced("", "v1", "pods"))
        .namespace("default");
    let by_kubewire: Pod = pods.get("web-0").await?;
    assert_eq!(by_kube, by_kubewire);
    println!(
        "kube's connection, kubewire's session: {:?}",
        output.status.code()
    );
    Ok(())
}
