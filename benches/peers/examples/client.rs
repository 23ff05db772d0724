//! The cases of kube-rs, which `tests/clients` runs: each prints a line of its table, as those of
//! the other clients do.

use std::{fmt::Display, pin::pin, sync::Arc, time::Duration};

use futures_util::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _, future::join_all};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, CustomResource, CustomResourceExt as _, Resource as _, ResourceExt as _,
    api::{AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams},
    runtime::{
        Controller, WatchStreamExt as _,
        controller::Action,
        finalizer::{self, Event, finalizer},
        wait::{await_condition, conditions},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
    time::{sleep, timeout},
};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

const NAMESPACE: &str = "clients-kube";
/// A defect shows as a case that takes so long.
const LONG: Duration = Duration::from_secs(240);

#[derive(
    CustomResource, Clone, Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[kube(
    group = "clients.example.com",
    version = "v1",
    kind = "Site",
    namespaced
)]
#[kube(status = "SiteStatus")]
struct SiteSpec {
    page: String,
}

#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
struct SiteStatus {
    ready: bool,
}

async fn case<T: Display>(name: &str, work: impl Future<Output = Result<T>>) {
    match timeout(LONG, work).await {
        Ok(Ok(said)) => println!("{name} | {said}"),
        Ok(Err(error)) => match error.downcast_ref() {
            Some(kube::Error::Api(status)) => {
                println!("{name} | {} {}", status.code, status.reason);
            }
            _ => println!("{name} | {error}"),
        },
        Err(_) => println!("{name} | it took too long"),
    }
}

fn of<K: DeserializeOwned>(json: Value) -> Result<K> {
    Ok(serde_json::from_value(json)?)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn pod() -> Result<Pod> {
    let image = variable("KUBEWIRE_TEST_IMAGE");
    let image = image.unwrap_or_else(|| "docker.io/local/busybox:1".to_owned());
    let mut spec = json!({
        "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
        "containers": [{
            "name": "main", "image": image, "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", "echo started; exec sleep 100000"],
        }],
    });
    if let Some(node) = variable("KUBEWIRE_TEST_NODE") {
        spec["nodeName"] = node.into();
        spec["hostNetwork"] = true.into();
        spec["tolerations"] = json!([{"operator": "Exists"}]);
    }
    of(json!({"metadata": {"name": "demo", "labels": {"app": "demo"}}, "spec": spec}))
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// What a command writes when it is given this, and how it ends.
async fn exec(pods: &Api<Pod>, command: &[&str], input: &[u8]) -> Result<(Vec<u8>, String)> {
    let params = AttachParams::default().stdin(!input.is_empty());
    let mut process = pods.exec("demo", command.to_vec(), &params).await?;
    let (status, stdin) = (process.take_status(), process.stdin());
    let write = async {
        if let Some(mut stdin) = stdin {
            stdin.write_all(input).await?;
            stdin.shutdown().await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let mut output = Vec::new();
    let mut stdout = process.stdout().ok_or("no stdout")?;
    let (written, read) = tokio::join!(write, stdout.read_to_end(&mut output));
    (written?, read?);
    let status = status.ok_or("no status")?.await.unwrap_or_default();
    let causes = status.details.and_then(|details| details.causes);
    let codes = causes
        .into_iter()
        .flatten()
        .filter_map(|cause| cause.message);
    let end: Vec<_> = status.status.into_iter().chain(codes).collect();
    Ok((output, end.join(" ")))
}

async fn said(pods: &Api<Pod>, command: &[&str], input: &[u8]) -> Result<String> {
    let (output, end) = exec(pods, command, input).await?;
    let output = String::from_utf8(output)?;
    Ok(format!("{} {}", output.trim(), end.trim()))
}

/// Eight connections, and one to a port where nobody listens.
async fn forwarded(pods: &Api<Pod>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 5];
                if socket.read_exact(&mut bytes).await.is_ok() {
                    bytes.make_ascii_uppercase();
                    let _ = socket.write_all(&bytes).await;
                }
            });
        }
    });
    let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let ask = async || {
        let mut forwarder = pods.portforward("demo", &[port]).await?;
        let mut stream = forwarder.take_stream(port).ok_or("no stream")?;
        stream.write_all(b"hello").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        Ok::<_, Error>(answer == *b"HELLO")
    };
    let refused = async {
        let mut forwarder = pods.portforward("demo", &[closed]).await?;
        let error = forwarder.take_error(closed).ok_or("no error")?.await;
        Ok::<_, Error>(error.is_some_and(|error| error.contains("connection refused")))
    };
    let (answers, refused) = tokio::join!(join_all((0..8).map(|_| ask())), refused);
    let answers = answers
        .into_iter()
        .filter(|answer| matches!(answer, Ok(true)));
    Ok(format!("{}, {}", answers.count(), refused?))
}

/// A watcher goes on where the server has ended a watch.
async fn watched(maps: &Api<ConfigMap>) -> Result<String> {
    let config = watcher::Config::default().labels("of=watcher").timeout(1);
    let mut changes = pin!(watcher(maps.clone(), config).touched_objects());
    let mut seen = Vec::new();
    for name in ["first", "second"] {
        let mut new = map(name, json!({}));
        new["metadata"]["labels"] = json!({"of": "watcher"});
        maps.create(&PostParams::default(), &of(new)?).await?;
        let next = changes.try_next().await?.ok_or("it ended")?;
        seen.push(next.name_any());
        // The watch under way ends meanwhile.
        let _ = timeout(Duration::from_secs(2), changes.next()).await;
    }
    Ok(seen.join(" "))
}

/// What a controller sees of a site: it applies a map of the site's, writes its status, and is
/// asked before it goes.
async fn controlled(client: &Client) -> Result<String> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let manager = PatchParams::apply("controller").force();
    let name = Site::crd_name();
    definitions
        .patch(name, &manager, &Patch::Apply(Site::crd()))
        .await?;
    await_condition(definitions.clone(), name, conditions::is_crd_established()).await?;

    let sites: Api<Site> = Api::namespaced(client.clone(), NAMESPACE);
    let (told, mut hears) = mpsc::unbounded_channel();
    let context = Arc::new((client.clone(), told));
    let work = Controller::new(sites.clone(), watcher::Config::default())
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_secs(1)),
            context,
        )
        .for_each(|_| async {});
    tokio::spawn(work);

    let page = "hello".to_owned();
    sites
        .create(
            &PostParams::default(),
            &Site::new("front", SiteSpec { page }),
        )
        .await?;
    let mut heard = vec![hears.recv().await.ok_or("it ended")?];
    let is_ready = |site: Option<&Site>| {
        let status = site.and_then(|site| site.status.as_ref());
        status.is_some_and(|status| status.ready)
    };
    await_condition(sites.clone(), "front", is_ready).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let made = maps.get("front").await?;
    let page = made.data.unwrap_or_default().remove("page");
    heard.push(page.ok_or("no page")?);
    let site = sites.get("front").await?;
    heard.push(site.finalizers().join(" "));
    sites.delete("front", &DeleteParams::default()).await?;
    loop {
        let next = hears.recv().await.ok_or("it ended")?;
        if next == "cleanup" {
            heard.push(next);
            break;
        }
    }
    let uid = site.uid().ok_or("no uid")?;
    await_condition(sites, "front", conditions::is_deleted(&uid)).await?;
    definitions.delete(name, &DeleteParams::default()).await?;
    Ok(heard.join(", "))
}

type Context = (Client, mpsc::UnboundedSender<String>);

async fn reconcile(
    site: Arc<Site>,
    context: Arc<Context>,
) -> Result<Action, finalizer::Error<kube::Error>> {
    let (client, told) = (context.0.clone(), context.1.clone());
    let sites: Api<Site> = Api::namespaced(client.clone(), NAMESPACE);
    let own = sites.clone();
    finalizer(
        &sites,
        "clients.example.com/cleanup",
        site,
        |event| async move {
            let site = match event {
                Event::Apply(site) => site,
                Event::Cleanup(_) => {
                    let _ = told.send("cleanup".to_owned());
                    return Ok(Action::await_change());
                }
            };
            let manager = PatchParams::apply("controller");
            let name = site.name_any();
            let mut wanted = map(&name, json!({"page": site.spec.page}));
            wanted["metadata"]["ownerReferences"] = json!([site.controller_owner_ref(&())]);
            let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
            maps.patch(&name, &manager, &Patch::Apply(wanted)).await?;
            let status = Patch::Merge(json!({"status": {"ready": true}}));
            own.patch_status(&name, &PatchParams::default(), &status)
                .await?;
            let _ = told.send("apply".to_owned());
            Ok(Action::await_change())
        },
    )
    .await
}

#[tokio::main]
async fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        return Ok(());
    }
    let client = Client::try_default().await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    if namespaces
        .delete(NAMESPACE, &DeleteParams::default())
        .await
        .is_ok()
    {
        while namespaces.get_opt(NAMESPACE).await?.is_some() {
            sleep(Duration::from_millis(300)).await;
        }
    }
    let namespace = of(json!({"metadata": {"name": NAMESPACE}}))?;
    namespaces
        .create(&PostParams::default(), &namespace)
        .await?;

    let pods: &Api<Pod> = &Api::namespaced(client.clone(), NAMESPACE);
    let (create, apply) = (&PostParams::default(), &PatchParams::apply("clients"));
    case("pod", async {
        pods.create(create, &pod()?).await?;
        let is_running = conditions::is_pod_running();
        let pod = await_condition(pods.clone(), "demo", is_running).await?;
        let status = pod.and_then(|pod| pod.status);
        Ok(status.and_then(|status| status.phase).unwrap_or_default())
    })
    .await;
    case("list pods", async {
        let list = pods.list(&ListParams::default().labels("app=demo")).await?;
        let names = list.iter().map(|pod| pod.name_any());
        Ok(names.collect::<Vec<_>>().join(" "))
    })
    .await;
    case("exec", said(pods, &["echo", "hi"], b"")).await;
    case("exit code", said(pods, &["sh", "-c", "exit 3"], b"")).await;
    let line = ["sh", "-c", "read line; echo got $line"];
    case("stdin", said(pods, &line, b"a line\n")).await;
    case("a file there and back", async {
        let file: Vec<u8> = (0..4_000_000_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let size = file.len().to_string();
        // The shell keeps stdout open, whose end is that of the input with containerd
        // (containerd#13934).
        let write = format!("head -c {size} > /tmp/clients-kube; echo written");
        exec(pods, &["sh", "-c", &write], &file).await?;
        let (back, _) = exec(pods, &["cat", "/tmp/clients-kube"], b"").await?;
        exec(pods, &["rm", "/tmp/clients-kube"], b"").await?;
        Ok(if back == file { "the same" } else { "another" })
    })
    .await;
    case("port-forward", forwarded(pods)).await;
    case("log", async {
        Ok(pods
            .logs("demo", &LogParams::default())
            .await?
            .trim()
            .to_owned())
    })
    .await;
    case("log, followed", async {
        let params = LogParams {
            follow: true,
            ..LogParams::default()
        };
        let mut lines = pods.log_stream("demo", &params).await?.lines();
        Ok(lines.try_next().await?.unwrap_or_default())
    })
    .await;
    case("log of no container", async {
        let params = LogParams {
            container: Some("nope".to_owned()),
            ..LogParams::default()
        };
        Ok(pods.logs("demo", &params).await?)
    })
    .await;

    let maps: &Api<ConfigMap> = &Api::namespaced(client.clone(), NAMESPACE);
    let data = |map: ConfigMap| Ok(serde_json::to_string(&map.data)?);
    let made = || of(map("made", json!({"a": "b"})));
    case("create", async {
        data(maps.create(create, &made()?).await?)
    })
    .await;
    case("create again", async {
        data(maps.create(create, &made()?).await?)
    })
    .await;
    let plain = &PatchParams::default();
    let merge = Patch::Merge(json!({"data": {"a": "c"}}));
    case("merge patch", async {
        data(maps.patch("made", plain, &merge).await?)
    })
    .await;
    case("json patch", async {
        let patch = json!([{"op": "add", "path": "/data/d", "value": "e"}]);
        data(
            maps.patch(
                "made",
                plain,
                &Patch::Json::<()>(serde_json::from_value(patch)?),
            )
            .await?,
        )
    })
    .await;
    let strategic = Patch::Strategic(json!({"data": {"f": "g"}}));
    case("strategic patch", async {
        data(maps.patch("made", plain, &strategic).await?)
    })
    .await;
    let applied = Patch::Apply(map("made", json!({"h": "i"})));
    case("apply", async {
        data(maps.patch("made", apply, &applied).await?)
    })
    .await;
    let theirs = Patch::Apply(map("made", json!({"a": "z"})));
    case("apply of another's", async {
        data(maps.patch("made", apply, &theirs).await?)
    })
    .await;
    case("replace of an old version", async {
        let mut old: ConfigMap = made()?;
        old.meta_mut().resource_version = Some("1".to_owned());
        data(maps.replace("made", create, &old).await?)
    })
    .await;
    case("watcher", watched(maps)).await;
    case("controller", controlled(&client)).await;
    case("delete", async {
        let gone = maps.delete("made", &DeleteParams::default()).await?;
        let status = gone.right().and_then(|status| status.status);
        Ok(status.map_or("begun".to_owned(), |status| format!("{status:?}")))
    })
    .await;
    case("missing", async { data(maps.get("made").await?) }).await;
    case("delete namespace", async {
        namespaces
            .delete(NAMESPACE, &DeleteParams::default())
            .await?;
        Ok("begun")
    })
    .await;
    Ok(())
}
