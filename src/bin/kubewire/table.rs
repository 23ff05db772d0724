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

    /// Whether it is among those that are shown.
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
        metadata(&self.object, field)
    }

    /// The value of a label; nothing if its object has none
    /// (`k8s.io/cli-runtime/pkg/printers/tableprinter.go`, `labelValues`).
    pub(crate) fn label(&self, name: &str) -> Printable {
        let value = self.object["metadata"]["labels"][name].as_str();
        Printable::cell(value.unwrap_or_default())
    }

    /// All labels.
    pub(crate) fn labels(&self) -> Printable {
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

    /// The cells that are shown.
    pub(crate) fn cells<'a>(
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

/// A text of an object's metadata; empty if there is none.
pub(crate) fn metadata(object: &Value, field: &str) -> Printable {
    Printable::cell(object["metadata"][field].as_str().unwrap_or_default())
}

/// The headings of the columns that are shown.
pub(crate) fn headings(columns: &[Column], wide: bool) -> impl Iterator<Item = Printable> {
    let shown = columns.iter().filter(move |column| column.is_shown(wide));
    shown.map(|column| Printable::cell(&column.name.to_uppercase()))
}

/// How wide columns are: as wide as the widest cell so far.
#[derive(Default)]
pub(crate) struct Layout(Vec<usize>);

impl Layout {
    /// With room for this row.
    pub(crate) fn with(row: &[Printable]) -> Self {
        let mut layout = Self::default();
        layout.fit(row);
        layout
    }

    /// Makes room for a row.
    pub(crate) fn fit(&mut self, row: &[Printable]) {
        self.0.resize(self.0.len().max(row.len()), 0);
        for (width, cell) in self.0.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }

    /// A row with three spaces between columns.
    pub(crate) fn line(&self, row: &[Printable]) -> String {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&self.0) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Prints rows to stdout.
pub(crate) fn print(rows: &[Vec<Printable>]) -> io::Result<()> {
    let mut layout = Layout::default();
    rows.iter().for_each(|row| layout.fit(row));
    let mut out = io::stdout().lock();
    for row in rows {
        writeln!(out, "{}", layout.line(row))?;
    }
    Ok(())
}
