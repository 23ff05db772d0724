//! A container: the process that it runs, who is attached to that, and the one before it.
//!
//! ```text
//!             process ends                  the pod's policy says so
//!   running ----------------> terminated ----------------------------> running
//!   log, attached             log                   log, attached; the last one's log and end
//! ```

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    sync::mpsc::{self, Receiver, Sender, WeakSender},
    time::{Instant, timeout_at},
};

use super::{
    logs::{self, Log},
    process::{self, Process, Reader, Terminal, Writer},
};
use crate::{
    error::panic::lock,
    session::remote_command::Streams,
    testing::{
        builder::{ContainerBuilder, RestartPolicy},
        objects::store::seconds,
        tasks::Tasks,
    },
    wire::{channel::Channel, resize::TerminalSize, stamp::Stamp},
};

/// The name of what is no image.
const IMAGE: &str = "localhost/none";

/// How long a container is terminated before it is started again. The kubelet's time grows with
/// every restart; that of a test does not.
const RESTART: Duration = Duration::from_millis(100);

/// Chunks of output that wait for one who is attached; then the process waits as well, as with
/// containerd.
const WAITING: usize = 16;

pub(crate) struct Container {
    declared: ContainerBuilder,
    hostname: String,
    policy: RestartPolicy,
    tasks: Arc<Tasks>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.declared.fmt(f)
    }
}

struct State {
    current: Arc<Instance>,
    /// The one before, whose log is kept, as by the kubelet.
    last: Option<Arc<Instance>>,
    restarts: u32,
    /// It is not started again.
    terminated: bool,
}

pub(super) struct Instance {
    /// As container runtimes name them: another for every instance.
    id: String,
    started: Stamp,
    group: Option<Pid>,
    terminal: Option<Terminal>,
    pub(super) log: Arc<Log>,
    run: Mutex<Run>,
}

#[derive(Default)]
struct Run {
    /// Set when the process has ended and its output has been handed out: its code, and when.
    ended: Option<(i32, Stamp)>,
    attached: Vec<Sender<(Channel, Bytes)>>,
    stdin: Option<Stdin>,
    /// The processes that exec has started since.
    execs: Vec<Pid>,
}

enum Stdin {
    /// It stays open whoever leaves.
    Open(Sender<Bytes>),
    /// It ends with the first who had it.
    Once(Sender<Bytes>),
    /// Someone has it: others may write as long as that one is there.
    Taken(WeakSender<Bytes>),
}

pub(super) struct Attachment {
    /// Where input goes, if the container takes any.
    pub(super) stdin: Option<Sender<Bytes>>,
    /// What the process writes from now on; it ends with the process.
    pub(super) output: Receiver<(Channel, Bytes)>,
}

impl Container {
    pub(super) fn start(
        pod: &str,
        declared: ContainerBuilder,
        policy: RestartPolicy,
        tasks: &Arc<Tasks>,
    ) -> io::Result<Arc<Self>> {
        let first = Instance::start(pod, &declared, 0, tasks)?;
        Ok(Arc::new(Self {
            declared,
            hostname: pod.to_owned(),
            policy,
            tasks: tasks.clone(),
            state: Mutex::new(State {
                current: first,
                last: None,
                restarts: 0,
                terminated: false,
            }),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The instance that runs or ran last.
    pub(super) fn current(&self) -> Arc<Instance> {
        self.lock().current.clone()
    }

    /// Kills the process; false if it has ended already.
    pub(crate) fn kill(&self) -> bool {
        self.signal(Signal::KILL)
    }

    fn signal(&self, signal: Signal) -> bool {
        let current = self.current();
        let running = current.is_running();
        if let Some(group) = current.group.filter(|_| running) {
            self.tasks.signal(group, signal);
        }
        running
    }

    /// Ends the container for good: its process has until the deadline, and is not started again.
    pub(super) async fn terminate(&self, deadline: Instant) {
        self.lock().terminated = true;
        self.signal(Signal::TERM);
        let ended = self.current().log.clone();
        if timeout_at(deadline, ended.ended()).await.is_err() {
            self.kill();
            ended.ended().await;
        }
    }

    /// Ends the container for good, at once.
    pub(super) fn stop(&self) {
        self.lock().terminated = true;
        self.kill();
    }

    /// Sees the container's processes end and starts the next ones, and tells of every change;
    /// returns when there will be no more.
    pub(super) async fn keep(&self, changed: impl Fn()) {
        loop {
            let current = self.current();
            current.log.ended().await;
            changed();
            let code = current.run().ended.map_or(0, |(code, _)| code);
            if !self.policy.applies(code) || self.lock().terminated {
                return;
            }
            tokio::time::sleep(RESTART).await;
            if self.lock().terminated {
                return;
            }
            let restarts = self.lock().restarts + 1;
            match Instance::start(&self.hostname, &self.declared, restarts, &self.tasks) {
                Ok(next) => {
                    let mut state = self.lock();
                    if let Some(group) = next.group.filter(|_| state.terminated) {
                        self.tasks.signal(group, Signal::KILL);
                    }
                    state.last = Some(std::mem::replace(&mut state.current, next));
                    state.restarts = restarts;
                }
                Err(error) => {
                    tracing::warn!(%error, "a container cannot be started again");
                    return;
                }
            }
            changed();
        }
    }

    pub(super) fn exec(
        &self,
        command: &[String],
        streams: Streams,
        size: Option<TerminalSize>,
        tasks: &Arc<Tasks>,
    ) -> io::Result<Process> {
        let env = &self.declared.env;
        let process = process::start(command, env, &self.hostname, streams, size, tasks)?;
        if let Some(group) = process.wait.group() {
            let current = self.current();
            let mut run = current.run();
            // What runs in a container ends with its first process.
            match run.ended {
                Some(_) => tasks.signal(group, Signal::KILL),
                None => run.execs.push(group),
            }
        }
        Ok(process)
    }

    /// Whether stdin stays open for others when one who is attached has ended it.
    pub(super) fn outlives_stdin(&self) -> bool {
        self.declared.stdin_once && !self.declared.tty
    }

    pub(super) fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.current().terminal {
            terminal.resize(size);
        }
    }

    /// What the process before the current one has written; `None` if there was none.
    pub(super) fn previous_log(&self) -> Option<Arc<Log>> {
        self.lock().last.as_ref().map(|last| last.log.clone())
    }

    pub(crate) fn name(&self) -> &str {
        &self.declared.name
    }

    pub(super) fn is_running(&self) -> bool {
        self.current().is_running()
    }

    /// Its part of the pod's `spec.containers`.
    pub(super) fn spec(&self) -> Value {
        let ContainerBuilder {
            name,
            command,
            env,
            stdin,
            stdin_once,
            tty,
            image: _,
        } = &self.declared;
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        json!({
            "name": name,
            "image": IMAGE,
            "command": command,
            "env": env,
            "stdin": stdin,
            "stdinOnce": stdin_once,
            "tty": tty,
        })
    }

    pub(crate) fn has_terminal(&self) -> bool {
        self.declared.tty
    }

    /// Its part of the pod's `status.containerStatuses`.
    pub(super) fn status(&self) -> Value {
        let state = self.lock();
        let last = state.last.as_ref().and_then(|last| last.terminated());
        json!({
            "name": self.declared.name,
            "containerID": state.current.id,
            "restartCount": state.restarts,
            "image": self.declared.image.as_deref().unwrap_or(IMAGE),
            "imageID": IMAGE,
            "resources": {},
            "started": state.current.is_running(),
            "ready": state.current.is_running(),
            "state": state.current.terminated().unwrap_or_else(|| {
                json!({"running": {"startedAt": seconds(state.current.started)}})
            }),
            "lastState": last.unwrap_or_else(|| json!({})),
        })
    }
}

impl Instance {
    fn start(
        pod: &str,
        declared: &ContainerBuilder,
        restarts: u32,
        tasks: &Arc<Tasks>,
    ) -> io::Result<Arc<Self>> {
        let streams = Streams {
            stdin: declared.stdin,
            stdout: true,
            stderr: !declared.tty,
            tty: declared.tty,
        };
        let (command, env) = (&declared.command, &declared.env);
        let process = process::start(command, env, pod, streams, None, tasks).map_err(|error| {
            let ContainerBuilder { name, command, .. } = declared;
            let message = format!("container {name} of pod {pod}: {command:?}: {error}");
            io::Error::new(error.kind(), message)
        })?;
        let (input, inputs) = mpsc::channel(WAITING);
        let stdin = match (declared.stdin, declared.stdin_once) {
            (false, _) => None,
            (true, false) => Some(Stdin::Open(input)),
            (true, true) => Some(Stdin::Once(input)),
        };
        let instance = Arc::new(Self {
            id: format!("kubewire://{pod}/{}/{restarts}", declared.name),
            started: logs::now(),
            group: process.wait.group(),
            terminal: process.terminal.clone(),
            log: Arc::new(Log::new()),
            run: Mutex::new(Run {
                stdin,
                ..Run::default()
            }),
        });
        tasks.spawn(instance.clone().serve(process, inputs, tasks.clone()));
        Ok(instance)
    }

    async fn serve(
        self: Arc<Self>,
        process: Process,
        mut inputs: Receiver<Bytes>,
        tasks: Arc<Tasks>,
    ) {
        let Process {
            stdin,
            stdout,
            stderr,
            terminal: _,
            mut wait,
        } = process;
        let input = async {
            feed(stdin, &mut inputs).await;
            std::future::pending::<()>().await;
        };
        let code = async {
            let code = wait.code().await;
            // All that runs in a container ends with its first process.
            let execs = std::mem::take(&mut self.run().execs);
            for group in execs.into_iter().chain(self.group) {
                tasks.signal(group, Signal::KILL);
            }
            code
        };
        let work = async {
            tokio::join!(
                code,
                self.publish(Channel::Stdout, stdout),
                self.publish(Channel::Stderr, stderr),
            )
            .0
        };
        let code = tokio::select! {
            code = work => code,
            () = input => return,
        };
        let mut run = self.run();
        run.ended = Some((code.unwrap_or(-1), logs::now()));
        run.stdin = None;
        run.attached.clear();
        let late = std::mem::take(&mut run.execs);
        drop(run);
        for group in late {
            tasks.signal(group, Signal::KILL);
        }
        self.log.end();
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        lock(&self.run)
    }

    fn is_running(&self) -> bool {
        self.run().ended.is_none()
    }

    /// Its `ContainerState`, if it has ended.
    fn terminated(&self) -> Option<Value> {
        let (code, at) = self.run().ended?;
        Some(json!({"terminated": {
            "containerID": self.id,
            "exitCode": code,
            "reason": if code == 0 { "Completed" } else { "Error" },
            "startedAt": seconds(self.started),
            "finishedAt": seconds(at),
        }}))
    }

    /// Hands out what the process writes to those who are attached.
    async fn publish(&self, channel: Channel, from: Option<Reader>) {
        let Some(mut from) = from else {
            return;
        };
        let mut buffer = BytesMut::new();
        while let Some(bytes) = process::chunk(&mut from, &mut buffer).await {
            self.log.write(channel, &bytes);
            let attached = self.run().attached.clone();
            for one in attached {
                // Who has left is removed below.
                let _ = one.send((channel, bytes.clone())).await;
            }
            self.run().attached.retain(|one| !one.is_closed());
        }
    }

    /// Attaches to the process; `None` when it has ended.
    pub(super) fn attach(&self) -> Option<Attachment> {
        let mut run = self.run();
        if run.ended.is_some() {
            return None;
        }
        let (output, receiver) = mpsc::channel(WAITING);
        run.attached.push(output);
        let stdin = match run.stdin.take() {
            None => None,
            Some(Stdin::Open(input)) => {
                run.stdin = Some(Stdin::Open(input.clone()));
                Some(input)
            }
            Some(Stdin::Once(input)) => {
                run.stdin = Some(Stdin::Taken(input.downgrade()));
                Some(input)
            }
            Some(Stdin::Taken(weak)) => {
                let input = weak.upgrade();
                run.stdin = Some(Stdin::Taken(weak));
                input
            }
        };
        Some(Attachment {
            stdin,
            output: receiver,
        })
    }
}

/// Writes input to the process as it comes, and ends it when nobody can send any more.
async fn feed(stdin: Option<Writer>, inputs: &mut Receiver<Bytes>) {
    let Some(mut stdin) = stdin else {
        return;
    };
    while let Some(bytes) = inputs.recv().await {
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
