//! A command in many pods at once: in flow which pods, out come the lines of all, each with its
//! pod, and how each of them ended.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    Client, Exec, ExitStatus, IntoCommand, List, Output, Stdio,
    pods::{Pods, chosen_pods},
};
use crate::{
    Resource, Result,
    error::{CallerError, Error, panic::caught_in},
    limits,
    transport::runtime,
    wire::{self, line::LineSplitter},
};

/// A command to run in many pods.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut server = kubewire::testing::ApiServer::builder();
/// # for name in ["web-0", "web-1", "web-2"] {
/// #     server = server.pod("default", name, |pod| {
/// #         pod.label("app", "web").container("main", ["sleep", "infinity"])
/// #     });
/// # }
/// # let server = server.start().await?;
/// # let client = kubewire::Client::new(&server.config())?;
/// use kubewire::exec::AllOutput;
///
/// let mut all = client.exec_all("default", ["hostname"]).labels("app=web").spawn().await?;
/// let mut succeeded = 0;
/// while let Some(event) = all.next().await {
///     match event.output {
///         AllOutput::Stdout(line) => println!("{}: {}", event.pod, String::from_utf8_lossy(&line)),
///         AllOutput::Ended(Ok(status)) => succeeded += usize::from(status.success()),
///         _ => {}
///     }
/// }
/// assert_eq!((all.pods().len(), succeeded), (3, 3));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a command does nothing until it is spawned"]
pub struct ExecAll {
    pods: Pods,
    command: Vec<String>,
    at_once: usize,
    timeout: Option<Duration>,
}

/// What a command wrote in one of the pods, or how it ended there; [`RunningAll`] has an example.
#[derive(Debug, Clone)]
pub struct AllEvent {
    /// The pod's name. Events of one pod share it.
    pub pod: Arc<str>,
    /// What happened.
    pub output: AllOutput,
}

/// What a command did in a pod: see [`AllEvent`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AllOutput {
    /// A line of stdout without its end, or [`limits::ALL_LINE`] bytes of a longer one.
    Stdout(Bytes),
    /// A line of stderr, likewise.
    Stderr(Bytes),
    /// How it ended; nothing of this pod follows. A success whose output was not whole is an
    /// error.
    Ended(Result<ExitStatus>),
}

/// A command that runs in many pods.
///
/// Dropping it closes all connections: what that does to the processes says
/// [`Child`](super::Child#dropping).
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// use kubewire::exec::{AllEvent, AllOutput};
///
/// let mut running = client.exec_all("default", ["echo", "hello"]).spawn().await?;
/// while let Some(AllEvent { pod, output }) = running.next().await {
///     match output {
///         AllOutput::Stdout(line) => println!("{pod}: {}", String::from_utf8_lossy(&line)),
///         AllOutput::Ended(status) => assert!(status?.success()),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct RunningAll {
    pods: Vec<Arc<str>>,
    events: mpsc::Receiver<AllEvent>,
    // Dropped with this, which ends them.
    _tasks: JoinSet<()>,
}

impl Client {
    /// A command to run in many pods of a namespace at once; in all that have not ended, unless
    /// labels or names choose. No shell is involved.
    pub fn exec_all<M>(
        &self,
        namespace: impl Into<String>,
        command: impl IntoCommand<M>,
    ) -> ExecAll {
        ExecAll {
            pods: Pods::new(self.clone(), namespace.into()),
            command: command.into_command(),
            at_once: limits::ALL_AT_ONCE,
            timeout: None,
        }
    }
}

impl ExecAll {
    chosen_pods!();

    setters! {
        /// In how many pods it may run at a time, at least 1; [`limits::ALL_AT_ONCE`] unless set. Each
        /// is a connection.
        fn max_concurrent(pods: usize) at_once = pods.max(1);

        /// How long the command may take in each pod, from when its turn comes.
        fn timeout(limit: Duration) timeout = Some(limit);
    }

    /// Finds the pods and starts the command in them.
    ///
    /// It needs the rights `get` and `create` on `pods/exec`, and `list` on `pods` unless the pods are
    /// named.
    /// Cancel safety: dropping the future gives the request for the pods up; nothing has started.
    ///
    /// # Errors
    ///
    /// [`CallerError::NoPod`] if there is no pod that has not ended, and those of
    /// [`Request::list`](super::Request::list). What goes wrong in one pod is its
    /// [`AllOutput::Ended`].
    pub async fn spawn(&self) -> Result<RunningAll> {
        let pods = self.find().await?;
        let (sender, events) = mpsc::channel(limits::ALL_LINES);
        let tasks = self.in_each(&pods, |name, exec| {
            let run = Run {
                name,
                events: sender.clone(),
            };
            async move {
                let who = format!("the exec in the pod {}", run.name);
                let ended = caught_in(&who, run.run(exec)).await;
                run.tell(AllOutput::Ended(ended)).await;
            }
        });
        Ok(RunningAll {
            pods,
            events,
            _tasks: tasks,
        })
    }

    /// Runs the command in all of them and collects what it wrote, each with its pod, in the order of
    /// the server's list.
    ///
    /// All of it is kept: [`limits::OUTPUT`] bytes of each stream at most, behind which a command
    /// has failed. Rights and cancel safety are those of [`spawn`](Self::spawn); dropping the future
    /// closes all connections.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Self::spawn). What goes wrong in one pod is in its place.
    ///
    /// ```
    /// # kubewire::example(|pod| pod.label("app", "web").container("main", ["sleep", "infinity"]), async |client| {
    /// for (pod, output) in client.exec_all("default", "date").labels("app=web").output().await? {
    ///     println!("{pod}: {}", String::from_utf8_lossy(&output?.stdout));
    /// }
    /// # Ok(())
    /// # });
    /// ```
    pub async fn output(&self) -> Result<Vec<(Arc<str>, Result<Output>)>> {
        let pods = self.find().await?;
        let mut places = 0..;
        let mut tasks = self.in_each(&pods, |name, exec| {
            let place = places.next();
            async move {
                let who = format!("the exec in the pod {name}");
                (place, name, caught_in(&who, exec.output()).await)
            }
        });
        let mut outputs = Vec::with_capacity(pods.len());
        while let Some(done) = tasks.join_next().await {
            outputs.extend(done);
        }
        outputs.sort_by_key(|(place, ..)| *place);
        let each = outputs.into_iter();
        Ok(each.map(|(_, name, output)| (name, output)).collect())
    }

    /// Has each of the pods in its turn do `work`.
    fn in_each<F: Future<Output: Send> + Send + 'static>(
        &self,
        pods: &[Arc<str>],
        mut work: impl FnMut(Arc<str>, Exec) -> F,
    ) -> JoinSet<F::Output> {
        let turns = Arc::new(Semaphore::new(self.at_once));
        let mut tasks = JoinSet::new();
        for name in pods {
            let pod = self.pods.client.pod(&self.pods.namespace, &**name);
            let mut exec = pod.exec(&self.command).stdin(Stdio::null());
            if let Some(container) = &self.pods.container {
                exec = exec.container(container);
            }
            if let Some(limit) = self.timeout {
                exec = exec.timeout(limit);
            }
            let work = work(Arc::clone(name), exec);
            let turns = Arc::clone(&turns);
            tasks.spawn(async move {
                // It is never closed.
                let _turn = turns.acquire_owned().await;
                work.await
            });
        }
        tasks
    }

    async fn find(&self) -> Result<Vec<Arc<str>>> {
        if self.command.is_empty() {
            return Err(CallerError::NoCommand.into());
        }
        runtime()?;
        let chosen = &self.pods;
        if !chosen.names.is_empty() {
            return Ok(chosen.names.iter().map(|name| Arc::from(&**name)).collect());
        }
        let pods = Resource::namespaced("", "v1", "pods");
        let mut request = chosen.client.request(pods).namespace(&chosen.namespace);
        if !chosen.labels.is_empty() {
            request = request.labels(&chosen.labels);
        }
        let list: List<wire::pod::Pod> = request.list().await?;
        let live = list.items.iter().filter(|pod| !pod.is_over());
        let names: Vec<_> = live.map(|pod| Arc::from(pod.name())).collect();
        if names.is_empty() {
            let target = match &*chosen.labels {
                "" => "any kind".to_owned(),
                labels => labels.to_owned(),
            };
            let namespace = chosen.namespace.clone();
            return Err(CallerError::NoPod { target, namespace }.into());
        }
        Ok(names)
    }
}

impl RunningAll {
    /// The names of the pods, in the order of the server's list.
    pub fn pods(&self) -> &[Arc<str>] {
        &self.pods
    }

    /// The next line or end; `None` when all have ended.
    ///
    /// Up to 32 lines wait for it, then the pods are held back. Cancel safety:
    /// nothing is lost; call it again.
    pub async fn next(&mut self) -> Option<AllEvent> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<AllEvent>> {
        self.events.poll_recv(cx)
    }
}

stream!(RunningAll, AllEvent, poll_event);

/// One pod's part.
struct Run {
    name: Arc<str>,
    events: mpsc::Sender<AllEvent>,
}

impl Run {
    async fn tell(&self, output: AllOutput) {
        let pod = Arc::clone(&self.name);
        // Nobody listens where all has been dropped.
        let _ = self.events.send(AllEvent { pod, output }).await;
    }

    async fn run(&self, exec: Exec) -> Result<ExitStatus> {
        let mut child = exec.spawn().await?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (status, stdout, stderr) = tokio::join!(
            child.wait(),
            self.lines(stdout, AllOutput::Stdout),
            self.lines(stderr, AllOutput::Stderr),
        );
        let status = status?;
        stdout.and(stderr)?;
        Ok(status)
    }

    async fn lines(
        &self,
        stream: Option<impl Stream<Item = std::io::Result<Bytes>> + Unpin>,
        kind: fn(Bytes) -> AllOutput,
    ) -> Result<()> {
        let Some(mut stream) = stream else {
            return Ok(());
        };
        let mut splitter = LineSplitter::new(limits::ALL_LINE);
        loop {
            let next = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await;
            let ended = match next {
                Some(Ok(bytes)) => {
                    splitter.push(bytes);
                    None
                }
                Some(Err(error)) => Some(Err(Error::of_stream(error, CallerError::Stream))),
                None => Some(Ok(())),
            };
            if ended.is_some() {
                splitter.finish();
            }
            while let Some(line) = splitter.next_line() {
                self.tell(kind(line.to_bytes())).await;
            }
            if let Some(ended) = ended {
                return ended;
            }
        }
    }
}
