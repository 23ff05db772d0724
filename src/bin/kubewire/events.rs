//! `kubewire events`: out come what the cluster says about its objects, as kubectl lists it.

use std::collections::HashMap;

use clap::Args;
use jiff::Timestamp;
use kubewire::{
    Client, Resource,
    request::{List, Request},
    watch::{Update, Watch},
    wire::watch::EventType,
};
use serde_json::Value;

use crate::{
    answer,
    connection::Connection,
    failure::{Failure, Retrying},
    get::output::Output,
    lines::{Lines, Rows},
    printable::Printable,
    set::Set as _,
};

/// The types of events (core/v1, Event).
const TYPES: [&str; 2] = ["Normal", "Warning"];

/// Print events, the oldest first
///
/// Exit codes: 0; 1 for an error; 141 if nobody reads its output.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire events\n  \
    kubewire events -A --types Warning\n  \
    kubewire events --for pod/web-0 -w")]
pub(crate) struct Events {
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those about this object: TYPE/NAME
    #[arg(long = "for", value_name = "TYPE/NAME")]
    about: Option<String>,
    /// Only those of these types: Normal, Warning
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    types: Vec<String>,
    /// Go on, with each event as it comes
    #[arg(short, long)]
    watch: bool,
    /// How to print: json, yaml, name, jsonpath=TEMPLATE and the other forms of get
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// Leave out the headings
    #[arg(long)]
    no_headers: bool,
}

impl Events {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let output = Output::parse(self.output.as_deref(), None, true)?;
        if self.watch && !output.is_table() {
            bail!("-o and --watch exclude each other here: use `kubewire watch events` with -o");
        }
        let is_one = |of: &String| TYPES.iter().any(|one| one.eq_ignore_ascii_case(of));
        if !self.types.iter().all(is_one) {
            bail!("valid --types are Normal or Warning");
        }
        let client = connection.client()?;
        let fields = self.fields(&client).await?;
        let resource = Resource::namespaced("", "v1", "events");
        let here = (!self.all_namespaces).then(|| client.namespace());
        let events = client.request(resource.clone()).fields(&fields);
        let events = events.set(here, Request::namespace);
        let list: List<Value> = events.list().await?;
        let mut all = list.items;
        all.retain(|event| self.is_meant(event));
        all.sort_by_cached_key(last_seen);
        if !output.is_table() {
            let text = match output {
                Output::Name => all.iter().map(name).collect(),
                output => output.object(&answer::list(all), !self.no_headers)?,
            };
            let mut out = Lines::start()?;
            out.text(&text).await?;
            return out.finish().await.map(|()| 0);
        }
        if all.is_empty() && !self.watch {
            match here {
                None => note!("No events found."),
                Some(here) => note!("No events found in {here} namespace."),
            }
            return Ok(0);
        }
        let headings = "NAMESPACE,LAST SEEN,TYPE,REASON,OBJECT,MESSAGE";
        let headings = (!self.no_headers).then(|| self.shown(headings.split(',')));
        let mut out = Lines::start()?;
        let mut rows = Rows::default();
        rows.begin(headings);
        all.iter().for_each(|event| rows.push(self.row(event)));
        rows.print(&mut out).await?;
        if !self.watch {
            return out.finish().await.map(|()| 0);
        }
        // All come again where the server has forgotten what happened since.
        let mut known: HashMap<_, _> = all.iter().map(version).collect();
        let watch = client.watch(resource).fields(&fields);
        let watch = watch.set(here, Watch::namespace);
        let mut updates = watch.from(list.metadata.resource_version).stream();
        let mut retrying = Retrying::default();
        let follow = async {
            while let Some(update) = updates.next().await {
                let event = match update? {
                    Update::Event(event) => event,
                    Update::Retrying { error, .. } => {
                        retrying.tell(&error);
                        continue;
                    }
                    _ => continue,
                };
                retrying = Retrying::default();
                let is_gone = event.event_type == EventType::Deleted;
                let event: Value = event.object.decode().map_err(kubewire::Error::from)?;
                let (uid, version) = version(&event);
                let is_known = |before: Option<String>| before.as_ref() == Some(&version);
                if is_gone {
                    known.remove(&uid);
                } else if !is_known(known.insert(uid, version.clone())) && self.is_meant(&event) {
                    rows.push(self.row(&event));
                    rows.print(&mut out).await?;
                }
            }
            Ok(())
        };
        match connection.in_time(follow).await {
            Err(Failure::Late(_)) => {}
            done => done?,
        }
        out.finish().await.map(|()| 0)
    }

    /// The selector of the object that they are about.
    async fn fields(&self, client: &Client) -> Result<String, Failure> {
        let Some(about) = &self.about else {
            return Ok(String::new());
        };
        let Some((kind, name)) = about.split_once('/') else {
            bail!("--for {about}: TYPE/NAME is expected");
        };
        let known = client.find(kind).await?;
        let (kind, version) = (known.kind, known.resource.api_version());
        Ok(format!(
            "involvedObject.kind={kind},involvedObject.apiVersion={version},\
             involvedObject.name={name}"
        ))
    }

    fn is_meant(&self, event: &Value) -> bool {
        let of = event["type"].as_str().unwrap_or_default();
        self.types.is_empty() || self.types.iter().any(|one| one.eq_ignore_ascii_case(of))
    }

    fn row(&self, event: &Value) -> Vec<Printable> {
        let text = |pointer| event.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let (kind, name) = (text("/involvedObject/kind"), text("/involvedObject/name"));
        self.shown([
            text("/metadata/namespace"),
            &seen(event, Timestamp::now()),
            text("/type"),
            text("/reason"),
            &format!("{kind}/{name}"),
            text("/message").trim(),
        ])
    }

    /// The first cell is the namespace.
    fn shown<'a>(&self, cells: impl IntoIterator<Item = &'a str>) -> Vec<Printable> {
        let cells = cells.into_iter().skip(usize::from(!self.all_namespaces));
        cells.map(Printable::cell).collect()
    }
}

/// Which event it is, and its version.
fn version(event: &Value) -> (String, String) {
    let text = |field: &str| {
        event["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (text("uid"), text("resourceVersion"))
}

fn name(event: &Value) -> String {
    let name = event["metadata"]["name"].as_str().unwrap_or_default();
    format!("event/{}\n", Printable::line(name))
}

fn last_seen(event: &Value) -> Option<Timestamp> {
    let times = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["firstTimestamp"],
        &event["metadata"]["creationTimestamp"],
    ];
    times
        .into_iter()
        .find_map(|time| time.as_str()?.parse().ok())
}

/// When, and how often (`k8s.io/kubectl/pkg/cmd/events/event_printer.go`, `getInterval`).
fn seen(event: &Value, now: Timestamp) -> String {
    let first = match event["eventTime"].is_null() {
        true => answer::age(&event["firstTimestamp"], now),
        false => answer::age(&event["eventTime"], now),
    };
    let series = &event["series"];
    let (count, last) = match (series["count"].as_u64(), event["count"].as_u64()) {
        (Some(count), _) => (count, &series["lastObservedTime"]),
        (None, Some(count @ 2..)) => (count, &event["lastTimestamp"]),
        _ => return first,
    };
    format!("{} (x{count} over {first})", answer::age(last, now))
}
