//! `kubewire logs`: prints what containers have written, and goes on if asked.

use clap::Args;
use kubewire::{
    Error,
    client::Pod,
    error::Hint,
    session::logs::{LogEnd, LogLine, LogUpdate},
    wire::stamp::Stamp,
};

use crate::{
    connection::Connection,
    failure::{Failure, note},
    lines::Lines,
};

/// Print the log of a container, or of many
///
/// A log that is followed lasts through cut connections, and each line is printed once.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire logs web-0 --tail 20\n  \
    kubewire logs -f web-0 -c main --timestamps\n  \
    kubewire logs -f -l app=web --all-containers --prefix")]
pub(crate) struct Logs {
    /// The pod: NAME or pod/NAME
    #[arg(value_name = "POD", required_unless_present = "selector")]
    pod: Option<String>,
    /// The pods whose labels match, instead of one
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "pod")]
    selector: Option<String>,
    /// The container; without it the pod's default container, or its first
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_containers")]
    container: Option<String>,
    /// All containers of the pod or pods
    #[arg(long)]
    all_containers: bool,
    /// Go on until the container ends; with a selector, for good
    #[arg(short, long)]
    follow: bool,
    /// Go on with the next instance when a container is started again
    #[arg(long, requires = "follow")]
    across_restarts: bool,
    /// The log of the instance before the current one
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// Only so many last lines of each log
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Only lines newer than this: 30s, 5m, 2h
    #[arg(long, value_name = "DURATION", value_parser = seconds, conflicts_with = "since_time")]
    since: Option<u64>,
    /// Only lines from this time on, in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    since_time: Option<Stamp>,
    /// Print so many bytes at most
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    limit_bytes: Option<u64>,
    /// Print when each line was written
    #[arg(long)]
    timestamps: bool,
    /// Print where each line comes from
    #[arg(long)]
    prefix: bool,
}

/// The container that kubectl would take, where the server wants one named.
async fn default_container(pod: &Pod, error: Error) -> Result<String, Failure> {
    let ambiguous =
        matches!(&error, Error::Api(refusal) if matches!(refusal.hint, Some(Hint::Containers(_))));
    if !ambiguous {
        return Err(error.into());
    }
    let Ok(containers) = pod.containers().await else {
        return Err(error.into());
    };
    match containers.into_iter().find(|container| container.default) {
        Some(container) => {
            note(&format!(
                "taking the container {}; -c names another",
                container.name
            ));
            Ok(container.name)
        }
        None => Err(error.into()),
    }
}

/// Whole seconds of a duration in Go's form.
fn seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no duration: 30s, 5m, 1h30m");
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..end].parse().map_err(|_| bad())?;
        let (factor, unit) = match rest.as_bytes()[end] {
            b's' => (1, 1),
            b'm' => (60, 1),
            b'h' => (3600, 1),
            _ => return Err(bad()),
        };
        total = number
            .checked_mul(factor)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(bad)?;
        rest = &rest[end + unit..];
    }
    if total == 0 { Err(bad()) } else { Ok(total) }
}

fn time(text: &str) -> Result<Stamp, String> {
    Stamp::parse(text.as_bytes()).ok_or_else(|| format!("{text:?} is no time in RFC 3339"))
}

impl Logs {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let mut out = Lines::start()?;
        let done = if self.selector.is_some() || self.all_containers {
            self.many(connection, &mut out).await
        } else {
            self.one(connection, &mut out).await
        };
        match done {
            // That nobody reads is told by the writing itself.
            Err(failure) => Err(failure),
            Ok(code) => out.finish().await.map(|()| code),
        }
    }

    fn pod_name(&self) -> Result<&str, Failure> {
        let pod = self.pod.as_deref().unwrap_or_default();
        match pod.split_once('/') {
            None => Ok(pod),
            Some(("pod" | "pods" | "po", name)) => Ok(name),
            Some((kind, _)) => {
                let message = format!("{pod}: only pods can be named, not a {kind}");
                Err(Failure::Message(message))
            }
        }
    }

    async fn one(&self, connection: &Connection, out: &mut Lines) -> Result<u8, Failure> {
        let client = connection.client()?;
        let name = self.pod_name()?;
        let pod = client.pod(client.namespace(), name);
        let mut logs = pod.logs();
        if let Some(container) = &self.container {
            logs = logs.container(container);
        }
        if self.follow {
            logs = logs.follow();
        }
        if self.across_restarts {
            logs = logs.across_restarts();
        }
        if self.previous {
            logs = logs.previous();
        }
        if let Some(lines) = self.tail {
            logs = logs.tail(lines);
        }
        if let Some(seconds) = self.since {
            logs = logs.since_seconds(seconds);
        }
        if let Some(time) = self.since_time {
            logs = logs.since(time);
        }
        if let Some(bytes) = self.limit_bytes {
            logs = logs.limit_bytes(bytes);
        }
        let mut lines = match logs.clone().stream().await {
            Err(error) if self.container.is_none() => {
                let container = default_container(&pod, error).await?;
                logs.container(container).stream().await?
            }
            lines => lines?,
        };
        loop {
            match lines.next_update().await {
                Some(LogUpdate::Line(line)) => {
                    let container = lines.container().unwrap_or("");
                    let prefix = || format!("[pod/{name}/{container}] ");
                    self.print(&line, prefix, out).await?;
                }
                // Otherwise it is the error that follows.
                Some(LogUpdate::Notice(text)) if self.follow => {
                    note(&format!(
                        "the kubelet says: {}",
                        String::from_utf8_lossy(&text)
                    ));
                }
                Some(LogUpdate::Waiting { reason, .. }) => {
                    note(&format!("waiting for the container to start: {reason}"));
                }
                Some(LogUpdate::Ended(LogEnd::Failed(error))) => return Err(error.into()),
                Some(LogUpdate::Ended(end)) => {
                    tracing::info!(?end, "the log ended");
                    return Ok(0);
                }
                None => return Ok(0),
                Some(_) => {}
            }
        }
    }

    async fn many(&self, connection: &Connection, out: &mut Lines) -> Result<u8, Failure> {
        let client = connection.client()?;
        let mut logs = client.logs(client.namespace());
        if let Some(selector) = &self.selector {
            logs = logs.labels(selector);
        } else {
            logs = logs.pods([self.pod_name()?]);
        }
        if self.all_containers {
            logs = logs.all_containers();
        }
        if let Some(container) = &self.container {
            logs = logs.container(container);
        }
        if self.follow {
            logs = logs.follow();
        }
        if self.across_restarts {
            logs = logs.across_restarts();
        }
        if self.previous {
            logs = logs.previous();
        }
        if let Some(lines) = self.tail {
            logs = logs.tail(lines);
        }
        if let Some(seconds) = self.since {
            logs = logs.since_seconds(seconds);
        }
        if let Some(time) = self.since_time {
            logs = logs.since(time);
        }
        let mut lines = logs.stream();
        let mut code = 0;
        loop {
            match lines.next().await {
                None => return Ok(code),
                Some(Ok(line)) => {
                    let source = line.source;
                    let prefix = || format!("[pod/{}/{}] ", source.pod, source.container);
                    self.print(&line.line, prefix, out).await?;
                }
                Some(Err(error)) => {
                    note(&format!("error: {error}"));
                    code = 1;
                }
            }
        }
    }

    async fn print(
        &self,
        line: &LogLine,
        prefix: impl FnOnce() -> String,
        out: &mut Lines,
    ) -> Result<(), Failure> {
        // Further pieces of a long line follow the first without a prefix of their own.
        if out.begin() {
            if self.prefix {
                out.write(prefix().as_bytes());
            }
            if let (true, Some(stamp)) = (self.timestamps, line.stamp) {
                out.write(format!("{stamp} ").as_bytes());
            }
        }
        out.write(&line.bytes);
        out.end(line.end).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("1h30m"), Ok(5400));
        for bad in ["", "0s", "5", "m", "1d", "-1s", "99999999999999999999h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
