//! Changes as they are printed: in flow the updates of a watch, out come rows of a table, names,
//! or objects, for `watch` and `get --watch`.

use std::time::Duration;

use kubewire::{
    Error,
    request::ApiResource,
    session::watch::Form,
    watch::{Change, Mirror, Update, Updates, Watch},
    wire::watch::{Encoding, Event, EventError, EventType, Object},
};
use serde_json::json;

use crate::{
    answer,
    failure::{Failure, Retrying},
    get::output::{self, Output},
    lines::{Lines, Rows},
    printable::Printable,
    table::{Column, Extra, Table},
};

/// How long a server that has never given the objects may refuse them.
const GIVE_UP: Duration = kubewire::limits::LOG_GIVE_UP;

pub(crate) struct Style {
    pub(crate) output: Output,
    /// Whether what happened is said.
    pub(crate) events: bool,
    /// One line of JSON a change, as the server wrote it.
    pub(crate) one_line: bool,
    /// Whether what there is at the start is printed.
    pub(crate) initial: bool,
    pub(crate) managed_fields: bool,
    pub(crate) headers: bool,
    pub(crate) extra: Extra,
}

/// What is kept of an object, to be printed when it changes or is gone.
enum Rendered {
    Object(String),
    Name(Printable),
    Cells(Vec<Printable>),
}

enum Piece {
    Cells(Vec<Printable>),
    /// With its end.
    Text(String),
}

pub(crate) struct Printer {
    style: Style,
    known: ApiResource,
    mirror: Mirror<Rendered>,
    /// Whether all that there was at the start is known.
    begun: bool,
    columns: Vec<Column>,
    rows: Rows,
    documents: u64,
    out: Lines,
}

impl Style {
    pub(crate) fn form(&self) -> Form {
        match self.output {
            Output::Table { .. } => Form::Table,
            Output::Name => Form::Metadata,
            _ => Form::Object,
        }
    }
}

impl Printer {
    pub(crate) fn new(style: Style, known: ApiResource) -> Result<Self, Failure> {
        let headings = match &style.output {
            Output::Columns(columns) if style.headers => Some(output::headings(columns)),
            _ => None,
        };
        let mut rows = Rows::default();
        rows.begin(headings);
        Ok(Self {
            style,
            known,
            mirror: Mirror::new(),
            begun: false,
            columns: Vec::new(),
            rows,
            documents: 0,
            out: Lines::start()?,
        })
    }

    /// Prints until the end, which only an error is.
    pub(crate) async fn run(mut self, watch: Watch) -> Result<u8, Failure> {
        let mut updates: Updates = watch.form(self.style.form()).stream();
        let mut retrying = Retrying::default();
        // What the server refuses may be granted later, but nobody is told who waits for it.
        while let Some(update) = updates.next().await {
            let update = update?;
            match &update {
                Update::Retrying { error, .. } => {
                    let lasts = retrying.tell(error);
                    if !self.begun && matches!(error, Error::Api(_)) && lasts >= GIVE_UP {
                        return Err(error.clone().into());
                    }
                }
                Update::SnapshotBegin => {}
                _ => retrying = Retrying::default(),
            }
            self.print(update).await?;
        }
        self.out.finish().await.map(|()| 0)
    }

    async fn print(&mut self, update: Update) -> Result<(), Failure> {
        let mut pieces = Vec::new();
        match update {
            Update::Event(event) if is_table(&event.object) => {
                let table: Table = event.object.decode().map_err(unreadable)?;
                let columns = table.column_definitions.filter(|c| *c != self.columns);
                if let Some(columns) = columns {
                    self.columns = columns;
                    let event = self.style.events.then(|| Printable::cell("EVENT"));
                    let headings = self.style.extra.headings(&self.columns, self.is_wide());
                    let headings = event.into_iter().chain(headings);
                    self.rows
                        .begin(self.style.headers.then(|| headings.collect()));
                }
                for row in table.rows.unwrap_or_default() {
                    let update = Update::Event(Event {
                        event_type: event.event_type.clone(),
                        object: Object::new(Encoding::Json, row.object.to_string().into()),
                    });
                    let cells = self.style.extra.cells(&row, &self.columns, self.is_wide());
                    let cells = |_: &Object| Ok(Rendered::Cells(cells.clone()));
                    pieces.extend(self.apply(&update, cells)?);
                }
            }
            update => {
                let table = self.style.output.is_table();
                let title = matches!(self.style.output, Output::Name).then(|| title(&self.known));
                pieces = self.apply(&update, |object| render(table, title.as_deref(), object))?;
            }
        }
        if !self.begun && !self.style.initial {
            pieces.clear();
        }
        self.begun |= self.mirror.is_current();
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.out.text(&text).await?,
                Piece::Cells(cells) => self.rows.push(cells),
            }
        }
        // The columns of the first table are as wide as all of its rows need.
        if self.begun {
            self.rows.print(&mut self.out).await?;
        }
        Ok(())
    }

    fn is_wide(&self) -> bool {
        matches!(self.style.output, Output::Table { wide: true })
    }

    /// What an update changes, as it is printed.
    fn apply(
        &mut self,
        update: &Update,
        keep: impl Fn(&Object) -> Result<Rendered, EventError>,
    ) -> Result<Vec<Piece>, Failure> {
        let changes = self.mirror.apply(update, &keep);
        let changes = changes.map_err(unreadable)?;
        // The event has the state in which it was deleted; without one it is as it was known.
        let last = match update {
            Update::Event(event) if event.event_type == EventType::Deleted => {
                Some(keep(&event.object).map_err(unreadable)?)
            }
            _ => None,
        };
        let mut pieces = Vec::new();
        for change in &changes {
            let (event, rendered) = match change {
                Change::Added(key) => ("ADDED", self.mirror.get(key)),
                Change::Modified(key) => ("MODIFIED", self.mirror.get(key)),
                Change::Deleted(_, known) => ("DELETED", last.as_ref().or(Some(known))),
            };
            let Some(rendered) = rendered else { continue };
            pieces.push(match rendered {
                Rendered::Cells(cells) => {
                    let event = self.style.events.then(|| Printable::cell(event));
                    Piece::Cells(event.into_iter().chain(cells.iter().cloned()).collect())
                }
                Rendered::Name(name) if self.style.events => {
                    Piece::Text(format!("{event} {name}\n"))
                }
                Rendered::Name(name) => Piece::Text(format!("{name}\n")),
                Rendered::Object(object) if self.style.one_line => {
                    let line = format!("{{\"type\":{event:?},\"object\":{object}}}");
                    Piece::Text(format!("{}\n", Printable::json(&line)))
                }
                Rendered::Object(object) => self.object(event, object)?,
            });
            self.documents += 1;
        }
        Ok(pieces)
    }

    fn object(&self, event: &str, object: &str) -> Result<Piece, Failure> {
        let mut object = answer::value(object.as_bytes())?;
        // What a list says once, its items do not say again.
        let version = self.known.resource.api_version();
        answer::of_kind(&mut object, &self.known.kind, &version.into());
        if !self.style.managed_fields && matches!(self.style.output, Output::Json | Output::Yaml) {
            answer::without_managed_fields(&mut object);
        }
        if self.style.events {
            object = json!({"type": event, "object": object});
        }
        if let Output::Columns(columns) = &self.style.output {
            return Ok(Piece::Cells(output::row(columns, &object)?));
        }
        let text = self.style.output.object(&object, false)?;
        Ok(Piece::Text(match self.style.output {
            Output::Yaml if self.documents > 0 => format!("---\n{text}"),
            _ => text,
        }))
    }
}

fn unreadable(error: EventError) -> Failure {
    Error::from(error).into()
}

/// As kubectl writes it: the singular, and the group.
pub(crate) fn title(known: &ApiResource) -> String {
    match &*known.resource.group {
        "" => known.singular.clone(),
        group => format!("{}.{group}", known.singular),
    }
}

fn is_table(object: &Object) -> bool {
    let kind = object.metadata().and_then(|metadata| metadata.kind());
    kind.is_ok_and(|kind| kind == "Table")
}

/// What is kept of an object that is no row of a table.
fn render(table: bool, title: Option<&str>, object: &Object) -> Result<Rendered, EventError> {
    let metadata = object.metadata()?;
    if let Some(title) = title {
        let name = metadata.name()?;
        return Ok(Rendered::Name(Printable::line(&format!("{title}/{name}"))));
    }
    if table {
        // The server knows no tables.
        let (namespace, name) = (metadata.namespace()?, metadata.name()?);
        let cells = [&namespace, &name].map(|text| Printable::cell(text));
        return Ok(Rendered::Cells(cells.to_vec()));
    }
    // Line ends of the server's own are no part of a value.
    let object = String::from_utf8_lossy(&object.bytes()?).replace(['\r', '\n'], " ");
    Ok(Rendered::Object(object))
}
