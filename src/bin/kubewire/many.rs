//! `kubewire exec -l`: a command in many pods at once. In flow labels, out come the lines of all,
//! each behind its pod's name, and a table of exit codes on stderr.

use std::{future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use clap::Args;
use futures_core::Stream;
use kubewire::{
    Client, Error, Pod, Resource,
    error::Hint,
    exec::{Child, Stdio},
    request::List,
};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    duration,
    exec::exit_code,
    failure::{Failure, note},
    printable::Printable,
    signals::{Received, Signals},
    stdio::Output,
    table::Layout,
    target,
};

/// Bytes of a line that are kept until it ends: 64 KiB. A longer one comes in pieces, each behind
/// the pod's name.
const LINE: usize = 1 << 16;

/// Lines that may wait to be written.
const LINES: usize = 32;

/// How many commands, and how long.
#[derive(Args)]
pub(crate) struct Bounds {
    /// How many of the pods may be at it at once
    #[arg(long, value_name = "PODS", default_value_t = 32, conflicts_with_all = ["pod", "filename"],
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    max_concurrent: usize,
    /// How long a command may take until its connection is closed: 1m30s, or a number of seconds
    #[arg(long, value_name = "DURATION", value_parser = duration::or_seconds)]
    pub(crate) timeout: Option<Duration>,
}

/// A command for many pods.
#[derive(Clone)]
pub(crate) struct Many {
    client: Client,
    command: Vec<String>,
    container: Option<String>,
    timeout: Option<Duration>,
    turns: Arc<Semaphore>,
}

/// How a command ended in a pod.
type Ended = Result<i32, String>;

/// A line and where it goes.
enum Line {
    Stdout(Bytes),
    Stderr(Bytes),
}

impl Many {
    pub(crate) fn new(
        client: Client,
        command: Vec<String>,
        container: Option<String>,
        bounds: Bounds,
    ) -> Self {
        Self {
            client,
            command,
            container,
            timeout: bounds.timeout,
            turns: Arc::new(Semaphore::new(bounds.max_concurrent)),
        }
    }

    /// Runs it in all pods with these labels that have not ended.
    pub(crate) async fn run(self, labels: &str, quiet: bool) -> Result<u8, Failure> {
        let local = |error| Failure::local("the standard streams cannot be used", &error);
        let mut signals = Signals::new().map_err(local)?;
        let names = self.pods(labels).await?;
        let (stdout, stderr) = (
            Output::stdout().map_err(local)?,
            Output::stderr().map_err(local)?,
        );
        let (sender, mut lines) = mpsc::channel(LINES);
        let mut tasks = JoinSet::new();
        for (at, name) in names.iter().enumerate() {
            let pod = self.client.pod(self.client.namespace(), name.as_str());
            let (many, sender) = (self.clone(), sender.clone());
            tasks.spawn(async move { (at, many.one(pod, sender).await) });
        }
        drop(sender);
        let mut ended: Vec<Ended> = vec![Err("the task has failed".to_owned()); names.len()];
        loop {
            tokio::select! {
                signal = signals.next() => if let Received::End(number) = signal {
                    return Err(Failure::Signal(number));
                },
                line = lines.recv() => {
                    let written = match line {
                        Some(Line::Stdout(line)) => stdout.write(line).await,
                        Some(Line::Stderr(line)) => stderr.write(line).await,
                        None => break,
                    };
                    if !written {
                        break;
                    }
                }
            }
        }
        // Before the table, and with the failure that ended the loop, if one did.
        stdout.finish().await?;
        stderr.finish().await?;
        while let Some(task) = tasks.join_next().await {
            if let Ok((at, how)) = task {
                ended[at] = how;
            }
        }
        if !quiet {
            print(&names, &ended);
        }
        Ok(whole(&ended))
    }

    /// The names of the pods that have not ended.
    async fn pods(&self, labels: &str) -> Result<Vec<String>, Failure> {
        let namespace = self.client.namespace();
        let pods = self.client.request(Resource::namespaced("", "v1", "pods"));
        let list: List<Value> = pods.namespace(namespace).labels(labels).list().await?;
        let is_over = |pod: &Value| {
            let phase = pod["status"]["phase"].as_str();
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        let live = list.items.iter().filter(|pod| !is_over(pod));
        let names = live.filter_map(|pod| pod["metadata"]["name"].as_str());
        let names: Vec<_> = names.map(str::to_owned).collect();
        if names.is_empty() {
            let problem = format!("no pod of {labels} is there in the namespace {namespace}");
            return Err(Failure::Message(problem));
        }
        Ok(names)
    }

    async fn one(self, pod: Pod, lines: mpsc::Sender<Line>) -> Ended {
        let Ok(_turn) = self.turns.acquire().await else {
            return Err("given up".to_owned());
        };
        let prefix = Printable::line(&format!("[{}] ", pod.name())).to_string();
        let said = |error: Error| error.to_string();
        let mut child = self.spawn(&pod).await.map_err(said)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (status, stdout, stderr) = tokio::join!(
            child.wait(),
            copy(stdout, &prefix, &lines, Line::Stdout),
            copy(stderr, &prefix, &lines, Line::Stderr),
        );
        let status = status.map_err(said)?;
        // A success whose output is not all there is none.
        stdout.and(stderr).map_err(|error| error.to_string())?;
        Ok(status.code().unwrap_or(1))
    }

    async fn spawn(&self, pod: &Pod) -> kubewire::Result<Child> {
        let mut exec = pod.exec(&self.command).stdin(Stdio::null());
        if let Some(limit) = self.timeout {
            exec = exec.timeout(limit);
        }
        if let Some(container) = &self.container {
            return exec.container(container).spawn().await;
        }
        let error = match exec.spawn().await {
            Err(error) => error,
            spawned => return spawned,
        };
        let ambiguous = matches!(&error, Error::Api(refusal)
            if matches!(refusal.hint, Some(Hint::Containers(_))));
        if !ambiguous {
            return Err(error);
        }
        let containers = pod.containers().await?;
        match target::default_container(&containers, true) {
            Some(container) => exec.container(&container.name).spawn().await,
            None => Err(error),
        }
    }
}

/// Hands on the lines of a stream. When nobody takes them any more the rest is dropped.
async fn copy(
    stream: Option<impl Stream<Item = std::io::Result<Bytes>> + Unpin>,
    prefix: &str,
    lines: &mpsc::Sender<Line>,
    kind: fn(Bytes) -> Line,
) -> std::io::Result<()> {
    let Some(mut stream) = stream else {
        return Ok(());
    };
    let mut line = Vec::new();
    let mut how = Ok(());
    while let Some(bytes) = poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                how = Err(error);
                break;
            }
        };
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in part.chunks(LINE) {
                if line.is_empty() {
                    line.extend_from_slice(prefix.as_bytes());
                }
                line.extend_from_slice(piece);
                if line.ends_with(b"\n") || line.len() >= LINE {
                    end(&mut line, lines, kind).await;
                }
            }
        }
    }
    if !line.is_empty() {
        end(&mut line, lines, kind).await;
    }
    how
}

async fn end(line: &mut Vec<u8>, lines: &mpsc::Sender<Line>, kind: fn(Bytes) -> Line) {
    if !line.ends_with(b"\n") {
        line.push(b'\n');
    }
    // Whoever has stopped to write says why.
    let _ = lines.send(kind(std::mem::take(line).into())).await;
}

/// The table of how it ended where.
fn print(names: &[String], ended: &[Ended]) {
    let mut rows = vec![["POD", "EXIT CODE"].map(Printable::cell).to_vec()];
    for (name, how) in names.iter().zip(ended) {
        let how = match how {
            Ok(code) => code.to_string(),
            Err(error) => format!("error: {error}"),
        };
        rows.push(vec![Printable::cell(name), Printable::line(&how)]);
    }
    let mut layout = Layout::default();
    rows.iter().for_each(|row| layout.fit(row));
    for row in rows {
        note(&layout.line(&row));
    }
}

/// The exit code for all: that which those share that are not 0, or 1.
fn whole(ended: &[Ended]) -> u8 {
    let codes = ended
        .iter()
        .map(|how| how.as_ref().map_or(1, |code| exit_code(*code)));
    let mut failed = codes.filter(|code| *code != 0);
    match failed.next() {
        None => 0,
        Some(first) if failed.all(|code| code == first) => first,
        Some(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_of_all_is_no_success_that_one_was_not() {
        let error = || Err("no".to_owned());
        for (ended, code) in [
            (vec![Ok(0), Ok(0)], 0),
            (vec![Ok(0), Ok(3), Ok(3)], 3),
            (vec![Ok(2), Ok(3)], 1),
            (vec![Ok(0), error()], 1),
            (vec![Ok(256)], 1),
            (vec![Ok(3), error()], 1),
        ] {
            assert_eq!(whole(&ended), code, "{ended:?}");
        }
    }
}
