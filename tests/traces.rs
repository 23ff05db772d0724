//! What a session tells of itself: spans with OpenTelemetry's names, events in them, and counters.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use kubewire::{
    AnyWebSocket, Client, Resource, Role,
    exec::{Child, Streams, Subprotocol},
    server::Process,
    testing::{ApiServer, BodyFault},
    watch::Update,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer, Registry,
    filter::filter_fn,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const DEADLINE: Duration = Duration::from_secs(180);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("it ends in time")
}

#[derive(Debug, Default, Clone)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        self.0.insert(field.name().to_owned(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

/// All spans, and all events with their span's name.
#[derive(Debug, Default)]
struct Seen {
    spans: Vec<(Id, &'static str, Fields)>,
    events: Vec<(Option<&'static str>, Fields)>,
    /// The span of each field that was set later, which who prints spans keeps each time.
    records: Vec<&'static str>,
}

#[derive(Debug, Default, Clone)]
struct Capture(Arc<Mutex<Seen>>);

impl Capture {
    /// The fields of the only span of this name.
    fn span(&self, name: &str) -> BTreeMap<String, String> {
        let seen = self.0.lock().unwrap();
        let mut named = seen.spans.iter().filter(|(_, of, _)| *of == name);
        let fields = named.next().expect("there is such a span").2.0.clone();
        assert!(named.next().is_none(), "there is one");
        fields
    }

    /// The fields of an event in a span, by the beginning of its message.
    fn event(&self, span: &str, message: &str) -> Option<BTreeMap<String, String>> {
        let seen = self.0.lock().unwrap();
        let found = seen.events.iter().find(|(of, fields)| {
            let said = fields.0.get("message");
            *of == Some(span) && said.is_some_and(|said| said.starts_with(message))
        });
        found.map(|(_, fields)| fields.0.clone())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let mut seen = self.0.lock().unwrap();
        seen.spans
            .push((id.clone(), span.metadata().name(), fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut seen = self.0.lock().unwrap();
        // Identifiers come again: the newest is meant.
        if let Some((_, name, fields)) = seen.spans.iter_mut().rfind(|(of, ..)| of == id) {
            values.record(fields);
            let name = *name;
            seen.records.push(name);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let span = context.event_span(event).map(|span| span.name());
        self.0.lock().unwrap().events.push((span, fields));
    }
}

impl Capture {
    /// Sees what this thread does until the guard is dropped.
    fn start(&self) -> DefaultGuard {
        let ours = filter_fn(|metadata| metadata.target().starts_with("kubewire"));
        let subscriber = Registry::default().with(self.clone().with_filter(ours));
        tracing::subscriber::set_default(subscriber)
    }
}

async fn serve() -> Result<(ApiServer, Client)> {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            let command = ["sh", "-c", "echo ready; exec sleep infinity"];
            pod.container("main", command).container("other", command)
        })
        .start()
        .await?;
    let client = Client::new(&server.config())?;
    Ok((server, client))
}

fn of_pod(fields: &BTreeMap<String, String>) {
    let field = |name: &str| fields.get(name).map(String::as_str);
    assert_eq!(field("server.address"), Some("127.0.0.1"));
    assert_eq!(field("k8s.namespace.name"), Some("default"));
    assert_eq!(field("k8s.pod.name"), Some("web-0"));
}

#[tokio::test]
async fn a_command_has_a_span_without_its_words_and_counters() -> Result {
    let (_server, client) = serve().await?;
    let capture = Capture::default();
    let guard = capture.start();
    let script = "echo planted-word; exit 3";
    let exec = client.pod("default", "web-0").exec(["sh", "-c", script]);
    let mut child = within(exec.spawn()).await?;
    let mut output = Vec::new();
    let mut stdout = child.stdout.take().ok_or("it is piped")?;
    within(stdout.read_to_end(&mut output)).await?;
    assert_eq!(within(child.wait()).await?.code(), Some(3));
    let stats = child.stats();
    drop(guard);

    let span = capture.span("exec");
    of_pod(&span);
    assert_eq!(span["k8s.container.name"], "main");
    assert_eq!(span["http.response.status_code"], "101");
    assert_eq!(span["process.exit.code"], "3");
    for (_, name, fields) in &capture.0.lock().unwrap().spans {
        assert!(
            !format!("{fields:?}").contains("planted"),
            "{name}: {fields:?}"
        );
    }
    let over = capture.event("exec", "the session is over");
    assert_eq!(
        over.ok_or("it is said")?["received"],
        stats.received.to_string()
    );
    // The output and a Status, each with the byte of its channel.
    assert!(stats.received > output.len() as u64 + 2 && stats.received_messages >= 2);
    assert_eq!(stats.held_back, Duration::ZERO);
    Ok(())
}

#[tokio::test]
async fn a_refusal_has_its_code_in_the_span() -> Result {
    let (_server, client) = serve().await?;
    let capture = Capture::default();
    let guard = capture.start();
    let exec = client.pod("default", "nobody").exec("true");
    assert!(within(exec.output()).await.is_err());
    drop(guard);
    let span = capture.span("exec");
    assert_eq!(span["http.response.status_code"], "404");
    Ok(())
}

#[tokio::test]
async fn a_forward_has_a_span_and_counts_its_connections() -> Result {
    let (_server, client) = serve().await?;
    let program = TcpListener::bind("127.0.0.1:0").await?;
    let port = program.local_addr()?.port();
    let capture = Capture::default();
    let guard = capture.start();
    let forward = client.pod("default", "web-0").port_forward();
    let tunnel = within(forward.connect()).await?;
    let listener = tunnel.listen("127.0.0.1:0", port).await?;
    let mut near = TcpStream::connect(listener.local_addrs()[0]).await?;
    near.write_all(b"hello").await?;
    let (mut far, _) = within(program.accept()).await?;
    let mut hello = [0; 5];
    within(far.read_exact(&mut hello)).await?;
    let (stats, local) = (tunnel.stats(), listener.stats());
    assert_eq!(
        (stats.websockets, stats.connections, stats.opened),
        (1, 1, 1)
    );
    assert!(stats.traffic.sent >= 5 && stats.traffic.sent_messages > 0);
    assert_eq!((local.accepted, local.open, local.failed), (1, 1, 0));
    drop((near, far));
    let ended = async {
        while listener.stats().open > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(ended).await;
    assert_eq!(listener.stats().sent, 5);
    drop(guard);

    let span = capture.span("port_forward");
    of_pod(&span);
    assert_eq!(span["http.response.status_code"], "101");
    let opened = capture.event("port_forward", "a connection is opened");
    assert_eq!(opened.ok_or("it is said")?["connections"], "1");
    Ok(())
}

#[tokio::test]
async fn a_log_has_a_span_with_its_retries_and_counts_them() -> Result {
    let (server, client) = serve().await?;
    let capture = Capture::default();
    let guard = capture.start();
    let status = kubewire::wire::status::Status::failure(503, "ServiceUnavailable", "not now");
    server.inject_into_bodies([Some(BodyFault::Refuse(Box::new(status)))]);
    let logs = client.pod("default", "web-0").logs().container("main");
    let mut lines = logs.follow().stream();
    let line = within(lines.next()).await.ok_or("there is a line")??;
    assert_eq!(line.bytes, "ready");
    // Nothing is read while this reads nothing.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let stats = lines.stats();
    drop(lines);
    drop(guard);

    assert!(stats.requests >= 2 && stats.retries >= 1, "{stats:?}");
    assert!(stats.received >= 5 && stats.chunks >= 1, "{stats:?}");
    let span = capture.span("logs");
    of_pod(&span);
    assert_eq!(span["http.response.status_code"], "200");
    assert!(capture.event("logs", "a log is asked for again").is_some());
    assert!(stats.held_back >= Duration::from_millis(50), "{stats:?}");
    let over = capture.event("logs", "the stream is over");
    let over = over.ok_or("it is said")?;
    assert_eq!(over["requests"], stats.requests.to_string());
    assert!(over.contains_key("held_back"), "{over:?}");
    Ok(())
}

#[tokio::test]
async fn a_watch_has_a_span_with_its_retries_and_counts_them() -> Result {
    let (server, client) = serve().await?;
    let capture = Capture::default();
    let guard = capture.start();
    server.inject_into_bodies([Some(BodyFault::Cut { after: 10 })]);
    let pods = Resource::namespaced("", "v1", "pods");
    let mut updates = client.watch(pods).namespace("default").stream();
    loop {
        let update = within(updates.next()).await.ok_or("it never ends")??;
        if let Update::SnapshotEnd { .. } = update {
            break;
        }
    }
    let stats = updates.stats();
    drop(guard);

    assert!(stats.requests >= 2 && stats.retries >= 1, "{stats:?}");
    let span = capture.span("watch");
    assert_eq!(span["server.address"], "127.0.0.1");
    assert_eq!(span["k8s.namespace.name"], "default");
    let mut records = capture.0.lock().unwrap().records.clone();
    records.retain(|span| *span == "watch");
    assert_eq!(records.len(), 1, "the answers are alike");
    assert!(capture.event("watch", "a watch is tried again").is_some());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_the_peer_is_held_back_is_counted() -> Result {
    let streams = Streams {
        stdout: true,
        ..Streams::default()
    };
    let (near, far) = tokio::io::duplex(4 << 10);
    let over = |io, role| AnyWebSocket::from_io(io, role, Default::default());
    let mut child = Child::over(over(near, Role::Client), Subprotocol::V5, streams)
        .buffer(8 << 10)
        .spawn();
    let mut process = Process::over(over(far, Role::Server), Subprotocol::V5, streams);
    let mut stdout = process.stdout.take().ok_or("it is piped")?;
    let all = vec![b'x'; 256 << 10];
    let write = tokio::spawn(async move { stdout.write_all(&all).await.map(|()| stdout) });
    let mut reader = child.stdout.take().ok_or("it is piped")?;
    while child.held_back_by().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(child.try_wait()?, None);
    }
    // The clock of this test goes on only when nothing else can.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let held = child.stats().held_back;
    assert!(
        held >= Duration::from_secs(7) && held < Duration::from_secs(8),
        "{held:?}"
    );
    let mut read = vec![0; 256 << 10];
    reader.read_exact(&mut read).await?;
    drop(write.await??);
    let (told, status) = tokio::join!(
        process.exit(kubewire::wire::status::Status::success()),
        child.wait()
    );
    told?;
    assert!(status?.success());
    let stats = child.stats();
    assert!(stats.held_back < Duration::from_secs(8), "{stats:?}");
    assert!(stats.received > 256 << 10 && stats.received_messages >= 3);
    Ok(())
}
