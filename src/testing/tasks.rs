//! The tasks and process groups of a server: all of them end when it stops.

use std::{
    future::Future,
    io::{self, PipeWriter, Write as _},
    process::Stdio,
    sync::{Mutex, MutexGuard},
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::{process::Command, task::JoinSet};

use crate::error::panic::lock;

#[derive(Debug, Default)]
pub(super) struct Tasks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    tasks: JoinSet<()>,
    groups: Vec<Pid>,
    guard: Option<Guard>,
}

/// A process that kills the groups when this program is gone, however that came: it is told of
/// them over a pipe, and the kernel closes that.
#[derive(Debug)]
struct Guard(PipeWriter);

const GUARD: &str = r#"groups=
while read -r sign group; do
    kept=
    for known in $groups; do [ "$known" = "$group" ] || kept="$kept $known"; done
    groups=$kept
    [ "$sign" = + ] && groups="$groups $group"
done
for group in $groups; do kill -s KILL -- "-$group"; done"#;

impl Guard {
    fn start() -> io::Result<Self> {
        let (ours, theirs) = io::pipe()?;
        // It ends when the pipe does, and the runtime reaps it.
        Command::new("sh")
            .args(["-c", GUARD])
            .stdin(ours)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self(theirs))
    }

    fn tell(&mut self, sign: char, group: Pid) {
        // One that is gone has nothing to guard.
        let _ = writeln!(self.0, "{sign} {}", group.as_raw_nonzero());
    }
}

impl State {
    fn tell(&mut self, sign: char, group: Pid) {
        if let Some(guard) = &mut self.guard {
            guard.tell(sign, group);
        }
    }
}

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Spawns a task that ends with the server, or not at all if that has stopped.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.lock();
        if !state.stopped {
            while state.tasks.try_join_next().is_some() {}
            state.tasks.spawn(task);
        }
    }

    /// Starts the guard before there is a process: one that starts meanwhile would outlive a
    /// program that is killed meanwhile.
    pub(super) fn expect(&self) {
        let mut state = self.lock();
        if state.guard.is_none() && !state.stopped {
            let guard = Guard::start();
            let guard = guard.inspect_err(|error| tracing::warn!(%error, "no guard"));
            state.guard = guard.ok();
        }
    }

    /// Kills this process group when the server stops.
    pub(super) fn watch(&self, group: Pid) {
        let mut state = self.lock();
        if state.stopped {
            kill(group);
        } else {
            state.groups.push(group);
            state.tell('+', group);
        }
    }

    /// Signals this process group, unless it is gone.
    pub(super) fn signal(&self, group: Pid, signal: Signal) {
        let state = self.lock();
        if state.groups.contains(&group) {
            // It may have ended by itself.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Takes note that the leader of this process group has ended. What it left behind runs on
    /// until the server stops, as it would until the container does.
    pub(super) fn reaped(&self, group: Pid) {
        // The group's number belongs to it while it has members.
        if test_kill_process_group(group).is_err() {
            let mut state = self.lock();
            state.groups.retain(|known| *known != group);
            state.tell('-', group);
        }
    }

    /// Kills all processes and ends all tasks; `wait` waits for that.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        for group in std::mem::take(&mut state.groups) {
            kill(group);
            state.tell('-', group);
        }
        state.guard = None;
        state.tasks.abort_all();
    }

    pub(super) async fn wait(&self) {
        let mut tasks = std::mem::take(&mut self.lock().tasks);
        while tasks.join_next().await.is_some() {}
    }
}

fn kill(group: Pid) {
    // It may have ended by itself.
    let _ = kill_process_group(group, Signal::KILL);
}
