//! What each verb makes of a part of a real cluster that dies or stops for a minute: nothing is lost
//! or repeated that is not told, and nothing that broke is a success.
//!
//! ```text
//! KUBECONFIG=... KUBEWIRE_TEST_KILL=... KUBEWIRE_TEST_PAUSE=... \
//!     cargo test --release --test cluster_faults -- --ignored --nocapture NAME
//! ```
//!
//! It breaks the cluster, and must have it alone: one test at a time. Besides what `tests/cluster.rs` reads from the
//! environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `KUBEWIRE_TEST_KILL` | a shell command that is given the name of a part, `kubelet`, `apiserver`, `containerd` or `etcd`, kills it and starts it again |
//! | `KUBEWIRE_TEST_PAUSE` | the same for one that stops it for a minute |
//! | `KUBEWIRE_TEST_OBJECTS` | how many objects are watched; 5,000 unless set |
//!
//! A test whose command is not set is skipped, and says so. Each prints a row a verb: when it
//! noticed, and what came of it, kubectl's beside.

#![cfg(feature = "client")]
#![allow(clippy::print_stdout, reason = "the rows are the result")]

#[path = "cluster/pods.rs"]
mod pods;

use std::{
    collections::HashMap,
    io::Read as _,
    process::{Command, Stdio as Pipe},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kubewire::{
    Client, Pod, Resource,
    logs::{LogEnd, LogUpdate},
    port_forward::ListenEvent,
    request::Patch,
    watch::{Form, Mirror, ObjectKey, Update},
};
use pods::{NAMESPACE, kubectl, make_pod, run, variable};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

/// How long each verb has to be whole again after all is up.
const RECOVERY: Duration = Duration::from_secs(180);

/// Prints a number 20 times a second for as many lines.
fn counting(lines: u32) -> String {
    format!("i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); sleep 0.05; done")
}

/// The moment of the fault, and the moments at which verbs noticed.
struct Fault {
    began: Instant,
    /// No more is asked of anybody: all is up, and has been for a while.
    over: AtomicBool,
    /// An API server whose connection to the runtime breaks sees all streams end, and says itself
    /// that the command has succeeded (`streamtranslator.go`): nobody behind it can tell.
    server_may_lie: bool,
    /// The label of the objects that are watched.
    label: String,
    rows: Mutex<Vec<String>>,
}

impl Fault {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn row(&self, verb: &str, noticed: Option<Instant>, outcome: String) {
        let noticed = match noticed {
            Some(at) => format!(
                "{:.1} s",
                at.saturating_duration_since(self.began).as_secs_f64()
            ),
            None => "not at all".to_owned(),
        };
        self.rows
            .lock()
            .expect("nobody panicked")
            .push(format!("| {verb} | {noticed} | {outcome} |"));
    }
}

/// Checks that lines count up by one.
#[derive(Default)]
struct Count {
    next: Option<u32>,
    seen: u32,
}

impl Count {
    fn take(&mut self, line: &str) {
        let number = line.trim_end().strip_prefix("line ").expect("a whole line");
        let number = number.parse::<u32>().expect("a whole number");
        if let Some(next) = self.next {
            assert_eq!(number, next, "a line was lost or repeated");
        }
        self.next = Some(number + 1);
        self.seen += 1;
    }
}

async fn exec(pod: Pod, lines: u32, fault: Arc<Fault>) {
    let mut child = pod
        .exec(["sh", "-c", &counting(lines)])
        .spawn()
        .await
        .expect("it starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let (mut count, mut line) = (
        Count {
            next: Some(0),
            seen: 0,
        },
        String::new(),
    );
    let read = loop {
        line.clear();
        match stdout.read_line(&mut line).await {
            Ok(0) => break Ok(()),
            // A cut may fall into a line; it is not the last one of a success.
            Ok(_) if line.ends_with('\n') => count.take(&line),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    let ended = Instant::now();
    match child.wait().await {
        Ok(status) if status.success() => {
            assert!(read.is_ok());
            if count.seen < lines && fault.server_may_lie {
                let outcome = format!("{} lines; **the server says Success**", count.seen);
                return fault.row("exec", Some(ended), outcome);
            }
            assert_eq!(count.seen, lines, "a success with lines missing");
            fault.row("exec", None, format!("whole: {lines} lines"));
        }
        Ok(status) => fault.row(
            "exec",
            Some(ended),
            format!("{} lines, {status}", count.seen),
        ),
        Err(error) => fault.row(
            "exec",
            Some(ended),
            format!("{} lines, {error}", count.seen),
        ),
    }
}

async fn attach(pod: Pod, fault: Arc<Fault>) {
    let mut attached = pod.attach().spawn().await.expect("it attaches");
    let mut stdout = BufReader::new(attached.stdout.take().expect("piped"));
    let (mut count, mut line) = (Count::default(), String::new());
    while !fault.is_over() {
        line.clear();
        match timeout(Duration::from_secs(1), stdout.read_line(&mut line)).await {
            Err(_) => {}
            Ok(Ok(0)) | Ok(Err(_)) => {
                let ended = Instant::now();
                let outcome = match attached.wait().await {
                    Err(error) => format!("{} lines, {error}", count.seen),
                    Ok(()) if fault.server_may_lie => {
                        format!("{} lines; **the server says Success**", count.seen)
                    }
                    Ok(()) => panic!("the process goes on, and so it has not ended"),
                };
                return fault.row("attach", Some(ended), outcome);
            }
            Ok(Ok(_)) if line.ends_with('\n') => count.take(&line),
            Ok(Ok(_)) => {}
        }
    }
    fault.row("attach", None, format!("goes on, {} lines", count.seen));
}

async fn logs(pod: Pod, fault: Arc<Fault>) {
    let mut lines = pod.logs().follow().stream();
    let (mut count, mut noticed, mut tries) = (
        Count {
            next: Some(0),
            seen: 0,
        },
        None,
        0,
    );
    let mut told = Vec::new();
    let mut after = None;
    // What is printed after all is up has to come too.
    while after.is_none_or(|after: u32| count.seen < after + 40) {
        let update = timeout(RECOVERY, lines.next_update()).await;
        let update = update
            .expect("lines come again")
            .expect("the container goes on");
        match update {
            LogUpdate::Line(line) => {
                count.take(std::str::from_utf8(&line.bytes).expect("text"));
                if fault.is_over() {
                    after.get_or_insert(count.seen);
                }
            }
            LogUpdate::Retrying { .. } => {
                noticed.get_or_insert_with(Instant::now);
                tries += 1;
            }
            LogUpdate::Notice(text) => told.push(text),
            LogUpdate::Ended(LogEnd::Failed(error)) => panic!("{error}"),
            LogUpdate::Ended(end) => panic!("the container goes on: {end:?}"),
            _ => {}
        }
    }
    told.dedup();
    let outcome = format!("whole: {} lines, {tries} tries, told: {told:?}", count.seen);
    fault.row("logs", noticed, outcome);
}

fn configmaps() -> Resource {
    Resource::namespaced("", "v1", "configmaps")
}

/// Object `number` of those that have this label.
fn configmap(label: &str, number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("{label}-{number}"), "labels": {"run": label}},
        "data": {"n": "0"},
    })
}

/// Changes, deletes and makes objects for as long as the fault lasts, and answers nothing: what has
/// become of each is what the server says in the end.
async fn churn(client: Client, objects: usize, fault: Arc<Fault>) {
    let request = client.request(configmaps()).namespace(NAMESPACE);
    let mut round = 0_usize;
    while !fault.is_over() {
        let number = round * 7919 % objects.max(1);
        let name = format!("{}-{number}", fault.label);
        let _ = match round % 10 {
            3 => request.delete::<Value>(&name, None).await.map(drop),
            4 => request
                .create(&configmap(&fault.label, number))
                .await
                .map(drop),
            _ => {
                let change = json!({"data": {"n": round.to_string()}});
                request
                    .patch::<_, Value>(&name, Patch::Merge(&change))
                    .await
                    .map(drop)
            }
        };
        round += 1;
        sleep(Duration::from_millis(10)).await;
    }
}

async fn versions(client: &Client, label: &str) -> HashMap<ObjectKey, String> {
    let request = client.request(configmaps()).namespace(NAMESPACE);
    let list = request.labels(format!("run={label}")).list::<Value>().await;
    let list = list.expect("the server is up");
    let version = |item: &Value| {
        let text = |field: &str| {
            item["metadata"][field]
                .as_str()
                .expect("it has one")
                .to_owned()
        };
        (
            ObjectKey::new(NAMESPACE, &text("name")),
            text("resourceVersion"),
        )
    };
    list.items.iter().map(version).collect()
}

async fn watch(client: Client, fault: Arc<Fault>) {
    let mut updates = client
        .watch(configmaps())
        .namespace(NAMESPACE)
        .labels(format!("run={}", fault.label))
        .form(Form::Metadata)
        .stream();
    let (mut mirror, mut noticed, mut tries, mut events) = (Mirror::new(), None, 0, 0_u64);
    let mut expected = None;
    let deadline = Instant::now() + RECOVERY * 2;
    loop {
        match timeout(Duration::from_millis(200), updates.next()).await {
            Ok(Some(Ok(update))) => {
                if let Update::Retrying { .. } = &update {
                    noticed.get_or_insert_with(Instant::now);
                    tries += 1;
                }
                events += u64::from(matches!(update, Update::Event(_)));
                let keep = |object: &kubewire::watch::Object| {
                    object
                        .metadata()
                        .and_then(|m| Ok(m.resource_version()?.into_owned()))
                };
                mirror.apply(&update, keep).expect("well-formed");
            }
            Ok(Some(Err(error))) => panic!("{error}"),
            Ok(None) => panic!("a watch has no end"),
            Err(_) => {}
        }
        if fault.is_over() && expected.is_none() {
            // The last changes have been made.
            sleep(Duration::from_secs(2)).await;
            expected = Some(versions(&client, &fault.label).await);
        }
        if let Some(expected) = &expected {
            let mine = mirror
                .iter()
                .map(|(key, version)| (key.clone(), version.clone()));
            if mine.collect::<HashMap<_, _>>() == *expected {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "the mirror is not what the server has"
            );
        }
    }
    let outcome = format!(
        "equal: {} objects, {events} events, {tries} tries",
        mirror.len()
    );
    fault.row("watch", noticed, outcome);
}

/// A page of 64 KiB, asked for again and again: it is whole, or the connection breaks.
async fn forward(client: Client, pod: String, port: u16, fault: Arc<Fault>) {
    let tunnel = client
        .pod(NAMESPACE, pod)
        .port_forward()
        .connect()
        .await
        .expect("it connects");
    let mut listener = tunnel
        .listen("127.0.0.1:0", port)
        .await
        .expect("it listens");
    let address = listener.local_addrs()[0];
    let noticed = Arc::new(Mutex::new(None));
    let notice = noticed.clone();
    let events = tokio::spawn(async move {
        loop {
            let event = listener.event().await;
            if let ListenEvent::Failed { .. } | ListenEvent::Unreachable { .. } = event {
                notice
                    .lock()
                    .expect("nobody panicked")
                    .get_or_insert_with(Instant::now);
            }
        }
    });
    let (mut whole, mut broken, mut last_broken) = (0, 0, None::<Instant>);
    let mut after = 0;
    let deadline = Instant::now() + RECOVERY * 2;
    while after < 5 {
        assert!(Instant::now() < deadline, "connections do not come back");
        let answer = timeout(RECOVERY, async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.map(|_| answer)
        });
        match answer.await.expect("it ends") {
            Ok(answer) => {
                let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
                let body = answer.len() - head.expect("an orderly end has a head") - 4;
                assert_eq!(body, 64 << 10, "half a page that looks whole");
                whole += 1;
                after += u32::from(fault.is_over());
            }
            Err(_) => {
                broken += 1;
                last_broken = Some(Instant::now());
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    events.abort();
    let back = last_broken.map_or_else(String::new, |at| {
        format!(
            ", the last after {:.1} s",
            at.duration_since(fault.began).as_secs_f64()
        )
    });
    let noticed = *noticed.lock().expect("nobody panicked");
    fault.row(
        "port-forward",
        noticed,
        format!("{whole} answers, {broken} reset{back}"),
    );
}

/// kubectl in the same situation: when it ends, with which code, after how many lines.
fn beside(arguments: &[&str], fault: &Arc<Fault>) -> std::thread::JoinHandle<()> {
    let program = variable("KUBECTL").unwrap_or_else(|| "kubectl".into());
    let mut process = Command::new(program)
        .args(["-n", NAMESPACE])
        .args(arguments)
        .stdin(Pipe::null())
        .stdout(Pipe::piped())
        .stderr(Pipe::null())
        .spawn()
        .expect("kubectl runs");
    let verb = format!("kubectl {}", arguments[0]);
    let fault = fault.clone();
    std::thread::spawn(move || {
        let mut stdout = process.stdout.take().expect("piped");
        let read = std::thread::spawn(move || {
            let mut all = String::new();
            let _ = stdout.read_to_string(&mut all);
            all.lines().filter(|line| line.starts_with("line ")).count()
        });
        let ended = loop {
            if let Some(status) = process.try_wait().expect("it can be waited for") {
                break Some((Instant::now(), status));
            }
            if fault.is_over() {
                process.kill().expect("it can be killed");
                process.wait().expect("it ends");
                break None;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let lines = read.join().expect("it reads");
        match ended {
            Some((at, status)) => fault.row(&verb, Some(at), format!("{lines} lines, {status}")),
            None => fault.row(&verb, None, format!("goes on, {lines} lines")),
        }
    })
}

async fn play(part: &str, variable_name: &str, lasts: Duration) {
    let Some(command) = variable(variable_name) else {
        println!("skipped: {variable_name} is not set");
        return;
    };
    let client = Client::from_env().await.expect("KUBECONFIG");
    let objects: usize =
        variable("KUBEWIRE_TEST_OBJECTS").map_or(5000, |n| n.parse().expect("a number"));
    let script = |script: &str| make_pod(&["sh", "-c", script].map(str::to_owned), false);
    let printing = script(&counting(1_000_000));
    let port = 20_000 + (std::process::id() % 10_000) as u16;
    let serving = script(&format!(
        "mkdir -p /tmp/{port}; head -c 65536 /dev/zero > /tmp/{port}/page; \
         exec httpd -f -p {port} -h /tmp/{port}"
    ));
    let label = format!("{}-{part}", run());
    let mut makers = tokio::task::JoinSet::new();
    for maker in 0..16 {
        let request = client.request(configmaps()).namespace(NAMESPACE);
        let label = label.clone();
        makers.spawn(async move {
            for number in (maker..objects).step_by(16) {
                let made = request.create(&configmap(&label, number)).await;
                made.expect("it is made");
            }
        });
    }
    makers.join_all().await;
    let lines = 20 * (10 + lasts.as_secs() as u32 + 20);
    let fault = Arc::new(Fault {
        began: Instant::now() + Duration::from_secs(5),
        over: AtomicBool::new(false),
        server_may_lie: part == "containerd",
        label,
        rows: Mutex::default(),
    });
    let pod = |name: &str| client.pod(NAMESPACE, name);
    let verbs = [
        tokio::spawn(exec(pod(&serving), lines, fault.clone())),
        tokio::spawn(attach(pod(&printing), fault.clone())),
        tokio::spawn(logs(pod(&printing), fault.clone())),
        tokio::spawn(watch(client.clone(), fault.clone())),
        tokio::spawn(churn(client.clone(), objects, fault.clone())),
        tokio::spawn(forward(
            client.clone(),
            serving.clone(),
            port,
            fault.clone(),
        )),
    ];
    let counting = counting(lines);
    let kubectls = [
        beside(&["exec", &serving, "--", "sh", "-c", &counting], &fault),
        beside(&["attach", &printing], &fault),
        beside(&["logs", "-f", &printing], &fault),
        beside(&["get", "-w", "configmaps"], &fault),
        beside(&["port-forward", &serving, &format!(":{port}")], &fault),
    ];
    sleep(fault.began.saturating_duration_since(Instant::now())).await;
    let command = format!("{command} {part}");
    let broken = tokio::task::spawn_blocking(move || {
        let status = Command::new("sh")
            .args(["-c", &command])
            .status()
            .expect("sh runs");
        assert!(status.success(), "{command}: {status}");
    });
    broken.await.expect("it breaks and comes back");
    sleep(Duration::from_secs(30)).await;
    fault.over.store(true, Ordering::SeqCst);
    for verb in verbs {
        timeout(RECOVERY * 2, verb)
            .await
            .expect("it ends")
            .expect("it keeps its promises");
    }
    for kubectl in kubectls {
        kubectl.join().expect("it is seen off");
    }
    println!("\n{part}, {variable_name}\n\n| verb | noticed after | outcome |\n|---|---|---|");
    let mut rows = std::mem::take(&mut *fault.rows.lock().expect("nobody panicked"));
    rows.sort();
    println!("{}", rows.join("\n"));
    kubectl(
        &[
            "delete",
            "configmaps",
            "--wait=false",
            "-l",
            &format!("run={}", run()),
        ],
        "",
    );
}

macro_rules! tests {
    ($($name:ident: $part:literal $variable:literal $lasts:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "breaks a cluster"]
        async fn $name() {
            play($part, $variable, Duration::from_secs($lasts)).await;
        }
    )*};
}

tests! {
    killed_kubelet: "kubelet" "KUBEWIRE_TEST_KILL" 5;
    killed_apiserver: "apiserver" "KUBEWIRE_TEST_KILL" 5;
    killed_containerd: "containerd" "KUBEWIRE_TEST_KILL" 5;
    killed_etcd: "etcd" "KUBEWIRE_TEST_KILL" 5;
    paused_kubelet: "kubelet" "KUBEWIRE_TEST_PAUSE" 60;
    paused_apiserver: "apiserver" "KUBEWIRE_TEST_PAUSE" 60;
    paused_containerd: "containerd" "KUBEWIRE_TEST_PAUSE" 60;
    paused_etcd: "etcd" "KUBEWIRE_TEST_PAUSE" 60;
}
