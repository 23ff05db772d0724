//! A container: the process that it has been running since the server started, and who is
//! attached to it.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    sync::mpsc::{self, Receiver, Sender, WeakSender},
};

use super::{
    builder::ContainerBuilder,
    logs::Log,
    process::{self, Process, Reader, Terminal, Writer},
    tasks::Tasks,
};
use crate::{
    session::remote_command::Streams,
    wire::{channel::Channel, resize::TerminalSize},
};

/// Chunks of output that wait for one who is attached; then the process waits as well, as with
/// containerd.
const WAITING: usize = 16;

/// A container and its process.
pub(super) struct Container {
    declared: ContainerBuilder,
    hostname: String,
    terminal: Option<Terminal>,
    state: Mutex<State>,
    log: Arc<Log>,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.declared.fmt(f)
    }
}

#[derive(Default)]
struct State {
    /// Set when the process has ended and its output has been handed out.
    exit_code: Option<i32>,
    attached: Vec<Sender<(Channel, Bytes)>>,
    stdin: Option<Stdin>,
}

/// The way to the process's stdin.
enum Stdin {
    /// It stays open whoever leaves.
    Open(Sender<Bytes>),
    /// It ends with the first who had it.
    Once(Sender<Bytes>),
    /// Someone has it: others may write as long as that one is there.
    Taken(WeakSender<Bytes>),
}

/// What one gets who attaches.
pub(super) struct Attachment {
    /// Where input goes, if the container takes any.
    pub(super) stdin: Option<Sender<Bytes>>,
    /// What the process writes from now on; it ends with the process.
    pub(super) output: Receiver<(Channel, Bytes)>,
}

impl Container {
    /// Starts the container's process.
    pub(super) fn start(
        pod: &str,
        declared: ContainerBuilder,
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
            let ContainerBuilder { name, command, .. } = &declared;
            let message = format!("container {name} of pod {pod}: {command:?}: {error}");
            io::Error::new(error.kind(), message)
        })?;
        let (input, inputs) = mpsc::channel(WAITING);
        let stdin = match (declared.stdin, declared.stdin_once) {
            (false, _) => None,
            (true, false) => Some(Stdin::Open(input)),
            (true, true) => Some(Stdin::Once(input)),
        };
        let container = Arc::new(Self {
            declared,
            hostname: pod.to_owned(),
            terminal: process.terminal.clone(),
            state: Mutex::new(State {
                stdin,
                ..State::default()
            }),
            log: Arc::new(Log::new()),
        });
        tasks.spawn(container.clone().run(process, inputs));
        Ok(container)
    }

    async fn run(self: Arc<Self>, process: Process, mut inputs: Receiver<Bytes>) {
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
        let work = async {
            tokio::join!(
                wait.code(),
                self.publish(Channel::Stdout, stdout),
                self.publish(Channel::Stderr, stderr),
            )
            .0
        };
        let code = tokio::select! {
            code = work => code,
            () = input => return,
        };
        let mut state = self.lock();
        state.exit_code = Some(code.unwrap_or(-1));
        state.stdin = None;
        state.attached.clear();
        drop(state);
        self.log.end();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out what the process writes to those who are attached.
    async fn publish(&self, channel: Channel, from: Option<Reader>) {
        let Some(mut from) = from else {
            return;
        };
        let mut buffer = BytesMut::new();
        while let Some(bytes) = process::chunk(&mut from, &mut buffer).await {
            self.log.write(channel, &bytes);
            let attached = self.lock().attached.clone();
            for one in attached {
                // Who has left is removed below.
                let _ = one.send((channel, bytes.clone())).await;
            }
            self.lock().attached.retain(|one| !one.is_closed());
        }
    }

    /// Attaches to the process; `None` when it has ended.
    pub(super) fn attach(&self) -> Option<Attachment> {
        let mut state = self.lock();
        if state.exit_code.is_some() {
            return None;
        }
        let (output, receiver) = mpsc::channel(WAITING);
        state.attached.push(output);
        let stdin = match state.stdin.take() {
            None => None,
            Some(Stdin::Open(input)) => {
                state.stdin = Some(Stdin::Open(input.clone()));
                Some(input)
            }
            Some(Stdin::Once(input)) => {
                state.stdin = Some(Stdin::Taken(input.downgrade()));
                Some(input)
            }
            Some(Stdin::Taken(weak)) => {
                let input = weak.upgrade();
                state.stdin = Some(Stdin::Taken(weak));
                input
            }
        };
        Some(Attachment {
            stdin,
            output: receiver,
        })
    }

    /// Runs another process in the container.
    pub(super) fn exec(
        &self,
        command: &[String],
        streams: Streams,
        size: Option<TerminalSize>,
        tasks: &Arc<Tasks>,
    ) -> io::Result<Process> {
        let env = &self.declared.env;
        process::start(command, env, &self.hostname, streams, size, tasks)
    }

    /// Gives the process's terminal a size, if it has one.
    pub(super) fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            terminal.resize(size);
        }
    }

    /// What its process has written.
    pub(super) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub(super) fn name(&self) -> &str {
        &self.declared.name
    }

    pub(super) fn is_running(&self) -> bool {
        self.lock().exit_code.is_none()
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
        } = &self.declared;
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        json!({
            "name": name,
            "image": "localhost/none",
            "command": command,
            "env": env,
            "stdin": stdin,
            "stdinOnce": stdin_once,
            "tty": tty,
        })
    }

    /// Its part of the pod's `status.containerStatuses`.
    pub(super) fn status(&self) -> Value {
        let exit_code = self.lock().exit_code;
        let id = format!("kubewire://{}/{}", self.hostname, self.declared.name);
        let state = match exit_code {
            None => json!({"running": {}}),
            Some(code) => json!({"terminated": {
                "containerID": id,
                "exitCode": code,
                "reason": if code == 0 { "Completed" } else { "Error" },
            }}),
        };
        json!({
            "name": self.declared.name,
            "containerID": id,
            "restartCount": 0,
            "image": "localhost/none",
            "ready": exit_code.is_none(),
            "state": state,
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
