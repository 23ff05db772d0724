//! Logs: in flows what a container's process writes, out comes the log that the kubelet serves.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::watch;

use super::Pod;
use crate::{
    error::panic::lock,
    server::Refusal,
    testing::{
        answers::{
            messages::Opening,
            streaming::{self, Over, Writer},
        },
        checks,
        requests::{
            gojson,
            target::{NUMBERS, Parameters, invalid},
        },
        router::{self, Body, Cluster},
    },
    wire::{channel::Channel, stamp::Stamp},
};

/// Lines of a container's log that are kept; older ones are dropped, as by rotation.
const KEPT: usize = 1 << 20;

pub(crate) fn now() -> Stamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    Stamp::from_unix(seconds, since.subsec_nanos()).unwrap_or(EPOCH)
}

const EPOCH: Stamp = Stamp::from_unix(0, 0).expect("less than a second");

#[derive(Debug)]
pub(super) struct Log {
    state: Mutex<State>,
    /// How many lines there ever were, and whether there will be no more.
    written: watch::Sender<(usize, bool)>,
}

#[derive(Debug, Default)]
struct State {
    lines: std::collections::VecDeque<Line>,
    dropped: usize,
    /// The starts of lines, by channel.
    open: HashMap<u8, BytesMut>,
}

#[derive(Debug, Clone)]
struct Line {
    stamp: Stamp,
    channel: Channel,
    /// With its newline, if it has one.
    text: Bytes,
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            written: watch::Sender::new((0, false)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn write(&self, channel: Channel, bytes: &[u8]) {
        let mut state = self.lock();
        let open = state.open.entry(channel as u8).or_default();
        open.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let Some(at) = memchr::memchr(b'\n', open) {
            whole.push(open.split_to(at + 1).freeze());
        }
        for text in whole {
            state.push(channel, text);
        }
        self.tell(state, false);
    }

    fn tell(&self, state: MutexGuard<'_, State>, ended: bool) {
        let written = state.dropped + state.lines.len();
        drop(state);
        self.written.send_replace((written, ended));
    }

    pub(super) async fn ended(&self) {
        // The sender is this log's own: it is there.
        let _ = self.written.subscribe().wait_for(|(_, ended)| *ended).await;
    }

    /// The process has ended, perhaps in the midst of a line.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        for channel in [Channel::Stdout, Channel::Stderr] {
            if let Some(open) = state.open.remove(&(channel as u8))
                && !open.is_empty()
            {
                state.push(channel, open.freeze());
            }
        }
        self.tell(state, true);
    }
}

impl State {
    fn push(&mut self, channel: Channel, text: Bytes) {
        if self.lines.len() == KEPT {
            self.lines.pop_front();
            self.dropped += 1;
        }
        let stamp = now();
        self.lines.push_back(Line {
            stamp,
            channel,
            text,
        });
    }
}

struct Options {
    follow: bool,
    timestamps: bool,
    since: Option<Stamp>,
    tail: Option<usize>,
    limit: usize,
    channel: Option<Channel>,
}

pub(crate) async fn serve<B>(
    cluster: &Arc<Cluster>,
    pod: &Pod,
    request: &mut Request<B>,
) -> Result<Response<Body>, Refusal> {
    let query = Parameters::parse(request.uri().query());
    if !pod.is_placed {
        pod.container(query.some("container")).map(drop)?;
        Options::parse(cluster, pod, &query)?;
        let mut nothing = Response::new(router::body(Full::default()));
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return Ok(nothing);
    }
    let container = pod.container(query.some("container"))?;
    let container = container.map_err(|waiting| pod.no_log(waiting))?;
    let options = Options::parse(cluster, pod, &query)?;
    let log = match query.is("previous") {
        false => container.current().log.clone(),
        true => container.previous_log().ok_or_else(|| {
            Refusal::bad_request(format!(
                "previous terminated container {:?} in pod {:?} not found",
                container.name(),
                pod.name
            ))
        })?,
    };
    let fault = cluster.fault().await?;
    let socket = Opening::is_asked(request).then(|| Opening::of_log(request));
    let of_body = |body| router::of_media("text/plain", body);
    let (mut writer, response) =
        streaming::open(socket.transpose()?, fault, &cluster.tasks, of_body);
    cluster.tasks.spawn(async move {
        let _ = options.copy(&log, &mut writer).await;
    });
    Ok(response)
}

impl Options {
    fn parse(cluster: &Cluster, pod: &Pod, query: &Parameters) -> Result<Self, Refusal> {
        let mut options = query.to_json();
        options["split"] = cluster.settings.log_streams.into();
        for name in NUMBERS {
            query.number(name)?;
        }
        let number = |name: &str| options[name].as_i64();
        let time = query.some("sinceTime").map(|text| {
            let why = || gojson::no_time(text, false).unwrap_or_default();
            Stamp::parse(text.as_bytes()).ok_or_else(|| Refusal::bad_request(why()))
        });
        let time = time.transpose()?;
        let faults = checks::of_type("core.PodLogOptions", &options);
        if !faults.is_empty() {
            return Err(invalid("PodLogOptions", &pod.name, faults));
        }
        let since = match (time, number("sinceSeconds")) {
            // In whole seconds (`k8s.io/kubernetes/pkg/registry/core/pod/strategy.go`).
            (Some(time), _) => Stamp::from_unix(time.unix_seconds(), 0),
            (None, Some(seconds)) => {
                let now = now();
                let then = now.unix_seconds().saturating_sub(seconds);
                Stamp::from_unix(then, now.subsec_nanos())
            }
            (None, None) => None,
        };
        let size = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Self {
            follow: query.is("follow"),
            timestamps: query.is("timestamps"),
            since,
            tail: number("tailLines").map(size),
            limit: number("limitBytes").map_or(usize::MAX, size),
            channel: match query.get("stream") {
                "Stdout" => Some(Channel::Stdout),
                "Stderr" => Some(Channel::Stderr),
                _ => None,
            },
        })
    }

    async fn copy(mut self, log: &Log, writer: &mut Writer) -> Result<(), Over> {
        let mut written = log.written.subscribe();
        // Tail counts before since does (`kuberuntime/logs/logs.go`).
        let mut next = {
            let state = log.lock();
            let skip = self
                .tail
                .map_or(0, |tail| state.lines.len().saturating_sub(tail));
            state.dropped + skip
        };
        loop {
            let ended = written.borrow_and_update().1;
            let (text, upto) = self.take(log, next);
            next = upto;
            if !text.is_empty() {
                writer.write(text).await?;
            }
            if !self.follow || ended || self.limit == 0 {
                return Ok(());
            }
            tokio::select! {
                changed = written.changed() => changed.map_err(|_| Over)?,
                () = writer.closed() => return Err(Over),
            }
        }
    }

    fn take(&mut self, log: &Log, next: usize) -> (Bytes, usize) {
        let state = log.lock();
        let mut text = BytesMut::new();
        let from = next.saturating_sub(state.dropped).min(state.lines.len());
        for line in state.lines.range(from..) {
            if self.since.is_some_and(|since| line.stamp < since)
                || self.channel.is_some_and(|channel| line.channel != channel)
            {
                continue;
            }
            if self.timestamps {
                text.extend_from_slice(line.stamp.to_string().as_bytes());
                text.extend_from_slice(b" ");
            }
            text.extend_from_slice(&line.text);
            if text.len() >= self.limit {
                break;
            }
        }
        text.truncate(self.limit);
        self.limit -= text.len();
        (text.freeze(), state.dropped + state.lines.len())
    }
}
