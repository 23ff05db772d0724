//! `kubewire watch`: prints what there is of a resource, and every change.

use clap::{Args, ValueEnum};
use kubewire::{
    session::watch::{Change, Form, Mirror, Update},
    wire::{
        line::LineEnd,
        watch::{EventError, Object},
    },
};

use crate::{
    connection::Connection,
    failure::{Failure, note},
    lines::Lines,
};

/// Print the objects of a resource, and every change from then on
///
/// It lasts through cut connections and expired versions; what was deleted meanwhile is printed
/// as deleted.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire watch pods\n  \
    kubewire watch deployments.apps -A -l tier=front\n  \
    kubewire watch pod web-0 -o json")]
pub(crate) struct Watch {
    /// The resource, by any of its names: pods, po, Deployment, things.example.com
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// Only the object of this name
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects whose labels match
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only objects whose fields match
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// How to print a change
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line of JSON a change: its type and the object
    Json,
    /// Resource and name
    Name,
    /// The usual, with version, UID and labels
    Wide,
}

impl Watch {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let client = connection.client()?;
        let found = client.find(&self.resource).await?;
        let label = found.resource.to_string();
        let namespaced = found.resource.namespaced;
        let mut watch = client.watch(found.resource);
        if namespaced && !self.all_namespaces {
            watch = watch.namespace(client.namespace());
        }
        if let Some(name) = &self.name {
            watch = watch.name(name);
        }
        if let Some(selector) = &self.selector {
            watch = watch.labels(selector);
        }
        if let Some(selector) = &self.field_selector {
            watch = watch.fields(selector);
        }
        if self.output != Some(Format::Json) {
            watch = watch.form(Form::Metadata);
        }
        let mut out = Lines::start()?;
        let mut updates = watch.stream();
        let mut mirror = Mirror::new();
        // What the server refuses may be granted later, but nobody is told who waits for it.
        while let Some(update) = updates.next().await {
            let update = update?;
            if let Update::Trouble {
                error, retry_in, ..
            } = &update
            {
                note(&format!(
                    "{error}; trying again in {:.1} s",
                    retry_in.as_secs_f32()
                ));
            }
            let show = |object: &Object| self.show(&label, object);
            let changes = mirror.apply(&update, show);
            let changes = changes.map_err(|e| Failure::local("an object cannot be read", &e))?;
            for change in changes {
                let (event, text) = match &change {
                    Change::Added(key) => ("ADDED", mirror.get(key)),
                    Change::Modified(key) => ("MODIFIED", mirror.get(key)),
                    Change::Deleted(_, text) => ("DELETED", Some(text)),
                };
                let text = text.map_or("", String::as_str);
                let line = match self.output {
                    Some(Format::Json) => format!("{{\"type\":{event:?},\"object\":{text}}}"),
                    Some(Format::Name) => text.to_owned(),
                    None | Some(Format::Wide) => format!("{event:<8}  {text}"),
                };
                out.begin();
                out.write(line.as_bytes());
                out.end(LineEnd::Newline).await?;
            }
        }
        out.finish().await.map(|()| 0)
    }

    /// The object as it is printed.
    fn show(&self, label: &str, object: &Object) -> Result<String, EventError> {
        let metadata = object.metadata()?;
        let name = metadata.name()?;
        if self.output == Some(Format::Json) {
            return Ok(String::from_utf8_lossy(&object.bytes()?).into_owned());
        }
        if self.output == Some(Format::Name) {
            return Ok(format!("{label}/{name}"));
        }
        let namespace = metadata.namespace()?;
        let mut text = match &*namespace {
            "" => name.into_owned(),
            namespace => format!("{namespace}/{name}"),
        };
        if self.output == Some(Format::Wide) {
            let labels: Result<Vec<_>, _> = metadata.labels()?.collect();
            let labels: Vec<_> = labels?.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let (version, uid) = (metadata.resource_version()?, metadata.uid()?);
            text.push_str(&format!("  {version}  {uid}  {}", labels.join(",")));
        }
        Ok(text)
    }
}
