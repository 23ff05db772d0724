//! The tasks and process groups of a server: all of them end when it stops.

use std::{
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::task::JoinSet;

/// What a server has running.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    tasks: JoinSet<()>,
    groups: Vec<Pid>,
}

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spawns a task that ends with the server, or not at all if that has stopped.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.lock();
        if !state.stopped {
            while state.tasks.try_join_next().is_some() {}
            state.tasks.spawn(task);
        }
    }

    /// Kills this process group when the server stops.
    pub(super) fn watch(&self, group: Pid) {
        let mut state = self.lock();
        if state.stopped {
            kill(group);
        } else {
            state.groups.push(group);
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
            self.lock().groups.retain(|known| *known != group);
        }
    }

    /// Kills all processes and ends all tasks; `wait` waits for that.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.groups.drain(..).for_each(kill);
        state.tasks.abort_all();
    }

    /// Waits until the tasks have ended.
    pub(super) async fn wait(&self) {
        let mut tasks = std::mem::take(&mut self.lock().tasks);
        while tasks.join_next().await.is_some() {}
    }
}

fn kill(group: Pid) {
    // It may have ended by itself.
    let _ = kill_process_group(group, Signal::KILL);
}
