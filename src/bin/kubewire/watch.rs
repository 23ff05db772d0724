//! `kubewire watch`: prints what there is of a resource, and every change.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use kubewire::{
    Error,
    request::ApiResource,
    session::watch::Form,
    watch::{Change, Mirror, Update},
    wire::{
        line::LineEnd,
        watch::{Encoding, Event, EventError, Object},
    },
};

use crate::{
    connection::Connection,
    failure::{Failure, note},
    lines::Lines,
    printable::Printable,
    table::{self, Column, Layout, Row, Table},
};

/// How long a server that has never given the objects may refuse them.
const GIVE_UP: Duration = kubewire::limits::LOG_GIVE_UP;

/// Print the objects of a resource, and every change from then on
///
/// Each line begins with what happened: ADDED, MODIFIED or DELETED. It lasts through cut
/// connections and expired versions; what was deleted meanwhile is printed as deleted. It does not
/// end by itself, and an object of a name need not exist yet.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire watch pods\n  \
    kubewire watch deployments.apps -A -l tier=front\n  \
    kubewire watch pod/web-0 -o json")]
pub(crate) struct Watch {
    /// The resource, by any of its names: pods, po, Deployment, things.example.com; or TYPE/NAME
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
    /// How to print a change; without, a row of the table that the server makes
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    /// Leave out the headings of the table
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line of JSON a change: its type and the object
    Json,
    /// Type and name
    Name,
    /// The table with all of its columns
    Wide,
}

/// What is kept of an object, to be printed when it changes or is gone.
enum Rendered {
    Text(Printable),
    Cells(Vec<Printable>),
}

/// Prints changes.
struct Printer {
    output: Option<Format>,
    /// Goes before the name: `pod`, `deployment.apps`.
    title: String,
    /// Whether rows begin with the namespace.
    namespaces: bool,
    headers: bool,
    mirror: Mirror<Rendered>,
    columns: Vec<Column>,
    layout: Layout,
    out: Lines,
}

impl Watch {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let client = connection.client()?;
        let (resource, name) = match (self.resource.split_once('/'), self.name) {
            (Some((resource, name)), None) => (resource, Some(name.to_owned())),
            (Some(_), Some(_)) => {
                let problem = "TYPE/NAME and a name exclude each other";
                return Err(Failure::Message(problem.to_owned()));
            }
            (None, name) => (self.resource.as_str(), name),
        };
        let known = client.find(resource).await?;
        let mut printer = Printer {
            output: self.output,
            title: title(&known),
            namespaces: known.resource.namespaced && self.all_namespaces,
            headers: !self.no_headers,
            mirror: Mirror::new(),
            columns: Vec::new(),
            layout: Layout::with(&[Printable::cell("MODIFIED")]),
            out: Lines::start()?,
        };
        let namespaced = known.resource.namespaced;
        let mut watch = client.watch(known.resource).form(match self.output {
            Some(Format::Json) => Form::Object,
            Some(Format::Name) => Form::Metadata,
            Some(Format::Wide) | None => Form::Table,
        });
        if namespaced && !self.all_namespaces {
            watch = watch.namespace(client.namespace());
        }
        if let Some(name) = name {
            watch = watch.name(name);
        }
        if let Some(selector) = &self.selector {
            watch = watch.labels(selector);
        }
        if let Some(selector) = &self.field_selector {
            watch = watch.fields(selector);
        }
        let mut updates = watch.stream();
        let mut since = None;
        // What the server refuses may be granted later, but nobody is told who waits for it.
        while let Some(update) = updates.next().await {
            let update = update?;
            match &update {
                Update::Retrying { error, .. } => {
                    // Once, however long it lasts.
                    if since.is_none() {
                        note(&format!("{error}; trying again until it succeeds"));
                    }
                    let since = *since.get_or_insert_with(Instant::now);
                    let begun = printer.mirror.is_current();
                    if !begun && matches!(error, Error::Api(_)) && since.elapsed() >= GIVE_UP {
                        return Err(error.clone().into());
                    }
                }
                Update::SnapshotBegin => {}
                _ => since = None,
            }
            printer.print(update).await?;
        }
        printer.out.finish().await.map(|()| 0)
    }
}

/// As kubectl writes it: the singular, and the group.
fn title(known: &ApiResource) -> String {
    match &*known.resource.group {
        "" => known.singular.clone(),
        group => format!("{}.{group}", known.singular),
    }
}

impl Printer {
    async fn print(&mut self, update: Update) -> Result<(), Failure> {
        let unreadable = |error: EventError| Failure::from(Error::from(error));
        let mut changes = Vec::new();
        match update {
            Update::Event(event) if is_table(&event.object) => {
                let table: Table = event.object.decode().map_err(unreadable)?;
                let columns = table.column_definitions.filter(|c| *c != self.columns);
                if let Some(columns) = columns {
                    self.columns = columns;
                    let event = Printable::cell("EVENT");
                    let namespace = self.namespaces.then(|| Printable::cell("NAMESPACE"));
                    let headings = table::headings(&self.columns, self.is_wide());
                    let headings = std::iter::once(event).chain(namespace).chain(headings);
                    if self.headers {
                        changes.push(Rendered::Cells(headings.collect()));
                    }
                }
                for row in table.rows.unwrap_or_default() {
                    let object = row.object.to_string().into();
                    let update = Update::Event(Event {
                        event_type: event.event_type.clone(),
                        object: Object::new(Encoding::Json, object),
                    });
                    let rendered = Rendered::Cells(self.cells(&row));
                    let keep = |_: &Object| Ok(rendered);
                    changes.extend(self.apply(&update, keep).map_err(unreadable)?);
                }
            }
            update => {
                let (output, title) = (self.output, self.title.clone());
                let keep = |object: &Object| render(output, &title, object);
                changes = self.apply(&update, keep).map_err(unreadable)?;
            }
        }
        for change in &changes {
            if let Rendered::Cells(cells) = change {
                self.layout.fit(cells);
            }
        }
        for change in changes {
            let line = match change {
                Rendered::Cells(cells) => self.layout.line(&cells),
                Rendered::Text(text) => text.to_string(),
            };
            self.out.begin();
            self.out.write(line.as_bytes());
            self.out.end(LineEnd::Newline).await?;
        }
        Ok(())
    }

    fn is_wide(&self) -> bool {
        self.output == Some(Format::Wide)
    }

    /// A row as it is printed, behind its event.
    fn cells(&self, row: &Row) -> Vec<Printable> {
        let namespace = self.namespaces.then(|| row.metadata("namespace"));
        let cells = row.cells(&self.columns, self.is_wide());
        namespace.into_iter().chain(cells).collect()
    }

    /// What an update changes, as it is printed.
    fn apply(
        &mut self,
        update: &Update,
        keep: impl FnOnce(&Object) -> Result<Rendered, EventError>,
    ) -> Result<Vec<Rendered>, EventError> {
        let changes = self.mirror.apply(update, keep)?;
        let output = self.output;
        let changes = changes.into_iter().filter_map(|change| {
            let (event, rendered) = match &change {
                Change::Added(key) => ("ADDED", self.mirror.get(key)?),
                Change::Modified(key) => ("MODIFIED", self.mirror.get(key)?),
                Change::Deleted(_, rendered) => ("DELETED", rendered),
            };
            Some(match rendered {
                Rendered::Cells(cells) => {
                    let event = std::iter::once(Printable::cell(event));
                    Rendered::Cells(event.chain(cells.iter().cloned()).collect())
                }
                Rendered::Text(object) if output == Some(Format::Json) => {
                    let line = format!("{{\"type\":{event:?},\"object\":{object}}}");
                    Rendered::Text(Printable::json(&line))
                }
                Rendered::Text(name) => Rendered::Text(name.clone()),
            })
        });
        Ok(changes.collect())
    }
}

fn is_table(object: &Object) -> bool {
    let kind = object.metadata().and_then(|metadata| metadata.kind());
    kind.is_ok_and(|kind| kind == "Table")
}

/// What is kept of an object that is no row of a table.
fn render(output: Option<Format>, title: &str, object: &Object) -> Result<Rendered, EventError> {
    let metadata = object.metadata()?;
    let name = metadata.name()?;
    Ok(match output {
        Some(Format::Json) => {
            // Line ends of the server's own are no part of a value.
            let object = String::from_utf8_lossy(&object.bytes()?).replace(['\r', '\n'], " ");
            Rendered::Text(Printable::json(&object))
        }
        Some(Format::Name) => Rendered::Text(Printable::line(&format!("{title}/{name}"))),
        // The server knows no tables.
        Some(Format::Wide) | None => {
            let namespace = metadata.namespace()?;
            Rendered::Cells(vec![Printable::cell(&namespace), Printable::cell(&name)])
        }
    })
}
