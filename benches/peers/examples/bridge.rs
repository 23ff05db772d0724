//! kube and kubewire in one program: one configuration, the same types, and where a layer of kube's
//! must see the connection, a session of kubewire over it.
//!
//! ```text
//! cargo run --manifest-path benches/peers/Cargo.toml --example bridge [-- NAMESPACE POD COMMAND...]
//! ```
//!
//! Without arguments it plays against an API server inside this process.

use k8s_openapi::{
    api::core::v1::Pod,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, CustomResource, CustomResourceExt as _, Resource as _, api::AttachParams,
    config::Kubeconfig, core::Request,
};
use kubewire::{
    exec::{Child, Streams, Subprotocol},
    testing::ApiServer,
};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A custom resource by kube's derive.
#[derive(
    CustomResource, Clone, Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[kube(group = "example.com", version = "v1", kind = "Site", namespaced)]
struct SiteSpec {
    page: String,
}

// [over-kube]
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
// [end]

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
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await?;
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    // [both]
    // `config` is a kube::Config: that of `kube::Config::infer().await?`, say.
    let kubewire = kubewire::Client::try_from(config.clone())?;
    let kube = kube::Client::try_from(config)?;
    // [end]

    // The same types on both sides,
    let by_kube: Pod = Api::namespaced(kube.clone(), "default")
        .get("web-0")
        .await?;
    let pods = kubewire.api::<Pod>().namespace("default");
    assert_eq!(by_kube, pods.get("web-0").await?);

    // derived ones among them.
    let definition = serde_json::to_value(Site::crd())?;
    let definitions: Api<CustomResourceDefinition> = Api::all(kube.clone());
    definitions
        .create(&Default::default(), &serde_json::from_value(definition)?)
        .await?;
    let sites = kubewire.api::<Site>().namespace("default");
    let page = SiteSpec {
        page: "hello".to_owned(),
    };
    sites.create(&Site::new("front", page)).await?;
    let by_kube: Site = Api::namespaced(kube.clone(), "default")
        .get("front")
        .await?;
    assert_eq!(by_kube.spec.page, "hello");

    let command = ["sh", "-c", "echo hello; exit 3"].map(str::to_owned);
    let by_kubewire = kubewire.pod("default", "web-0").exec(&command);
    let over_kube = exec(&kube, "default", "web-0", &command).await?;
    for output in [
        by_kubewire.output().await?,
        over_kube.wait_with_output().await?,
    ] {
        assert_eq!(
            (&output.stdout[..], output.status.code()),
            (&b"hello\n"[..], Some(3))
        );
    }
    println!("the types are kube's, the sessions kubewire's");
    Ok(())
}
