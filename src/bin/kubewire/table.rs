//! Tables: in flows what the server formats, out come rows under headings, as kubectl lays them
//! out.

use std::io::{self, Write as _};

use serde::Deserialize;
use serde_json::Value;

use crate::printable::Printable;

/// `metav1.Table`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table {
    /// Missing in all tables of a watch but the first.
    #[serde(default)]
    pub(crate) column_definitions: Option<Vec<Column>>,
    #[serde(default)]
    pub(crate) rows: Option<Vec<Row>>,
}

/// A column of a [`Table`].
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Column {
    name: String,
    #[serde(default)]
    priority: i32,
}

impl Column {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            priority: 0,
        }
    }

    fn is_shown(&self, wide: bool) -> bool {
        wide || self.priority == 0
    }
}

/// A row of a [`Table`].
#[derive(Deserialize)]
pub(crate) struct Row {
    #[serde(default)]
    pub(crate) cells: Vec<Value>,
    /// The `PartialObjectMetadata` of the row's object.
    #[serde(default)]
    pub(crate) object: Value,
}

impl Row {
    /// A text of its object's metadata; empty if there is none.
    pub(crate) fn metadata(&self, field: &str) -> Printable {
        Printable::cell(self.object["metadata"][field].as_str().unwrap_or_default())
    }

    /// The value of a label; nothing if its object has none
    /// (`k8s.io/cli-runtime/pkg/printers/tableprinter.go`, `labelValues`).
    fn label(&self, name: &str) -> Printable {
        let value = self.object["metadata"]["labels"][name].as_str();
        Printable::cell(value.unwrap_or_default())
    }

    fn labels(&self) -> Printable {
        let labels = self.object["metadata"]["labels"].as_object();
        let labels = labels.into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}={}", text(value)))
            .collect();
        match &*labels.join(",") {
            "" => Printable::cell("<none>"),
            labels => Printable::cell(labels),
        }
    }

    fn cells<'a>(
        &'a self,
        columns: &'a [Column],
        wide: bool,
    ) -> impl Iterator<Item = Printable> + 'a {
        let cells = self.cells.iter().zip(columns);
        let shown = cells.filter(move |(_, column)| column.is_shown(wide));
        shown.map(|(cell, _)| match cell {
            Value::String(text) => Printable::cell(text),
            Value::Null => Printable::cell("<none>"),
            other => Printable::cell(&other.to_string()),
        })
    }
}

/// Columns between two cells, and of a cell with what is behind it
/// (`k8s.io/cli-runtime/pkg/printers/tabwriter.go`).
const PADDING: usize = 3;
const MIN_WIDTH: usize = 6;

/// How wide columns are: as wide as the widest cell so far.
#[derive(Default)]
pub(crate) struct Layout(Vec<usize>);

impl Layout {
    pub(crate) fn fit(&mut self, row: &[Printable]) {
        let columns = self.0.len().max(row.len());
        self.0.resize(columns, MIN_WIDTH - PADDING);
        for (width, cell) in self.0.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }

    /// A row with three spaces between columns.
    pub(crate) fn line(&self, row: &[Printable]) -> String {
        let mut line = String::new();
        let Some((last, cells)) = row.split_last() else {
            return line;
        };
        for (cell, width) in cells.iter().zip(&self.0) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        line.push_str(&last.to_string());
        line
    }

    /// Rows as lines, each column as wide as all of them and those before need.
    pub(crate) fn lines(&mut self, rows: &[Vec<Printable>]) -> String {
        rows.iter().for_each(|row| self.fit(row));
        let lines = rows.iter().map(|row| format!("{}\n", self.line(row)));
        lines.collect()
    }

    pub(crate) fn text(rows: &[Vec<Printable>]) -> String {
        Self::default().lines(rows)
    }
}

pub(crate) fn print(rows: &[Vec<Printable>]) -> io::Result<()> {
    io::stdout().write_all(Layout::text(rows).as_bytes())
}

/// What a table has besides the server's columns.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extra {
    /// The namespace as the first column.
    pub(crate) namespaces: bool,
    /// The type in front of the name.
    pub(crate) kind: Option<String>,
    /// A column for each of these labels.
    pub(crate) labels: Vec<String>,
    /// All labels as the last column.
    pub(crate) all_labels: bool,
}

impl Extra {
    pub(crate) fn headings(&self, columns: &[Column], wide: bool) -> Vec<Printable> {
        let namespace = self.namespaces.then(|| Printable::cell("NAMESPACE"));
        let shown = columns.iter().filter(|column| column.is_shown(wide));
        let shown = shown.map(|column| Printable::cell(&column.name.to_uppercase()));
        // Of a prefixed label, what is behind the prefix.
        let label = |label: &String| label.rsplit('/').next().unwrap_or("").to_uppercase();
        let labels = self.labels.iter().map(|name| Printable::cell(&label(name)));
        let all = self.all_labels.then(|| Printable::cell("LABELS"));
        let own = namespace.into_iter().chain(shown);
        own.chain(labels).chain(all).collect()
    }

    pub(crate) fn cells(&self, row: &Row, columns: &[Column], wide: bool) -> Vec<Printable> {
        let namespace = self.namespaces.then(|| row.metadata("namespace"));
        let mut shown: Vec<_> = row.cells(columns, wide).collect();
        if let (Some(name), Some(kind)) = (shown.first_mut(), &self.kind) {
            *name = Printable::cell(&format!("{kind}/{name}"));
        }
        let labels = self.labels.iter().map(|name| row.label(name));
        let all = self.all_labels.then(|| row.labels());
        let own = namespace.into_iter().chain(shown);
        own.chain(labels).chain(all).collect()
    }
}
