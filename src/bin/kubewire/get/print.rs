//! What `get` prints: in flow answers, a list page by page, out comes text.
//!
//! What is short is printed when all of it is there: columns are as wide as all rows need, and a
//! list that breaks off prints nothing. What is longer is printed as it comes.

use std::io::{self, Write as _};

use bytes::Bytes;
use kubewire::{Client, Error, error::CallerError, request::Body};
use serde_json::{Value, json};

use super::{
    Get,
    asked::Asked,
    output::{self, Output},
    sort,
};
use crate::{
    answer,
    failure::{Failure, nothing_found},
    printable::Printable,
    table::{Column, Extra, Layout, Row, Table},
};

/// Bytes of answers that are kept before the first is printed: 16 MiB. As a table that is
/// thousands of objects.
const HELD: usize = 16 << 20;
/// Bytes of answers that are kept where all must be there before one can be printed: 512 MiB.
const WHOLE: usize = 512 << 20;
/// Bytes of an object, or of a page of a list: 256 MiB.
const PAGE: usize = 256 << 20;

/// The body of an answer. That it is longer than any should be is the server's doing.
pub(super) async fn page(body: Body) -> Result<Bytes, Failure> {
    match body.bytes(PAGE).await {
        Err(Error::Caller(CallerError::TooMuchOutput { limit })) => {
            bail!(
                "the server's answer is too long: an object, or a page of a list, has more than \
                 {limit} bytes; where the list has no pages, --chunk-size asks for them"
            )
        }
        body => Ok(body?),
    }
}

/// Answers on their way to standard output.
pub(super) struct Printer<'a> {
    get: &'a Get,
    output: &'a Output,
    asked: &'a [Asked],
    held: Vec<(&'a Asked, Bytes)>,
    size: usize,
    /// What was printed of the table that may go on.
    table: Option<(&'a Asked, Vec<Column>, Layout)>,
    /// Objects that were printed as items of a list.
    items: usize,
    /// How wide the columns that the user has defined are so far.
    columns: Layout,
    /// Whether some of it has been printed.
    begun: bool,
}

impl<'a> Printer<'a> {
    pub(super) fn new(get: &'a Get, output: &'a Output, asked: &'a [Asked]) -> Self {
        Self {
            get,
            output,
            asked,
            held: Vec::new(),
            size: 0,
            table: None,
            items: 0,
            columns: Layout::default(),
            begun: false,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes back what was not printed of a list that is asked for again.
    pub(super) fn forget(&mut self, asked: &Asked) {
        self.held.retain(|(held, _)| !std::ptr::eq(*held, asked));
        self.size = self.held.iter().map(|(_, body)| body.len()).sum();
    }

    /// Takes an answer, and prints what is too much to be kept.
    pub(super) fn push(&mut self, asked: &'a Asked, body: Bytes) -> Result<(), Failure> {
        self.size = self.size.saturating_add(body.len());
        self.held.push((asked, body));
        if self.is_single() {
            return Ok(());
        }
        let needs_all = match self.output {
            _ if self.get.sort_by.is_some() => Some("--sort-by"),
            Output::JsonPath { .. } => Some("a template of -o jsonpath"),
            _ => None,
        };
        match needs_all {
            None if self.size > HELD => self.print(false),
            Some(what) if self.size > WHOLE => bail!(
                "the server's list has more than {WHOLE} bytes, and {what} needs all of it at \
                 once: ask for less of it, with -l, --field-selector or -n"
            ),
            _ => Ok(()),
        }
    }

    pub(super) fn finish(mut self, client: &Client) -> Result<(), Failure> {
        if self.held.is_empty() && !self.begun {
            return Ok(());
        }
        self.print(true)?;
        let get = self.get;
        if self.output.is_table() && self.table.is_none() && !get.ignore_not_found {
            let namespaced = self.asked.iter().all(|it| it.known.resource.namespaced);
            nothing_found((namespaced && !get.all_namespaces).then(|| client.namespace()));
        }
        Ok(())
    }

    fn print(&mut self, all: bool) -> Result<(), Failure> {
        let held = std::mem::take(&mut self.held);
        self.size = 0;
        match self.output {
            Output::Table { wide } => self.tables(held, *wide, all)?,
            Output::Name => self.names(held)?,
            _ => self.objects(held, all)?,
        }
        self.begun = true;
        Ok(())
    }

    /// Whether it is one object that is asked for, by its name.
    fn is_single(&self) -> bool {
        matches!(self.asked, [Asked { name: Some(_), .. }])
    }

    fn objects(&mut self, held: Vec<(&Asked, Bytes)>, all: bool) -> Result<(), Failure> {
        let get = self.get;
        let mut objects = Vec::new();
        for (asked, body) in held {
            objects.extend(answer::objects(&body, asked.name.is_some())?);
        }
        if let Some(path) = &get.sort_by {
            sort::sort(&mut objects, path, |object| object)?;
        }
        if !get.show_managed_fields && matches!(self.output, Output::Json | Output::Yaml) {
            objects.iter_mut().for_each(answer::without_managed_fields);
        }
        let mut out = io::stdout().lock();
        if let Output::Columns(columns) = self.output {
            let headings = !self.begun && !get.no_headers;
            let rows = output::rows(columns, &objects, headings)?;
            return Ok(out.write_all(self.columns.lines(&rows).as_bytes())?);
        }
        if all && self.items == 0 {
            let whole = match (self.is_single(), objects.len()) {
                (true, 1) => objects.remove(0),
                _ => answer::list(objects),
            };
            return Ok(out.write_all(self.text(&whole)?.as_bytes())?);
        }
        // The items of a part of the list are the lines that a list of them has between its own.
        let (start, end) = self.around_items()?;
        let count = objects.len();
        if count > 0 {
            let text = self.text(&answer::list(objects))?;
            let items = text.strip_prefix(&start).unwrap_or(&text);
            let items = items.strip_suffix(&end).unwrap_or(items);
            // The last line of JSON ends when it is known whether there is a next one.
            let (between, items) = match self.output {
                Output::Json => (",\n", items.trim_end_matches('\n')),
                _ => ("", items),
            };
            let before = if self.items == 0 { &*start } else { between };
            write!(out, "{before}{items}")?;
            self.items += count;
        }
        let last = match self.output {
            Output::Json => "\n",
            _ => "",
        };
        if all {
            write!(out, "{last}{end}")?;
        }
        Ok(())
    }

    fn text(&self, whole: &Value) -> Result<String, Failure> {
        self.output.object(whole, !self.get.no_headers)
    }

    /// What a list has before the lines of its items, and behind them.
    fn around_items(&self) -> Result<(String, String), Failure> {
        const ITEM: &str = "an item";
        let text = self.text(&answer::list(vec![json!(ITEM)]))?;
        let (start, end) = text.split_once(ITEM).unwrap_or_default();
        let start = start.rfind('\n').map_or("", |at| &start[..=at]);
        let end = end.split_once('\n').map_or("", |(_, end)| end);
        Ok((start.to_owned(), end.to_owned()))
    }

    fn names(&mut self, held: Vec<(&Asked, Bytes)>) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        for (asked, table) in merged(held)? {
            let title = Printable::line(&asked.title());
            for row in self.sorted(table.rows)? {
                writeln!(out, "{title}/{}", row.metadata("name"))?;
            }
        }
        Ok(())
    }

    fn tables(
        &mut self,
        held: Vec<(&'a Asked, Bytes)>,
        wide: bool,
        all: bool,
    ) -> Result<(), Failure> {
        let tables = merged(held)?;
        // Of what is asked for, that which is not there does not count, once that is known.
        let mut kinds = self.asked.windows(2);
        let several = match all && !self.begun {
            true => tables.len() > 1,
            false => kinds.any(|pair| pair[0].known.resource != pair[1].known.resource),
        };
        for (asked, table) in tables {
            let rows = self.sorted(table.rows)?;
            if rows.is_empty() {
                continue;
            }
            let columns = table.column_definitions.unwrap_or_default();
            let extra = self.get.extra(asked, several || self.get.show_kind);
            self.table(asked, columns, &rows, (&extra, wide))?;
        }
        Ok(())
    }

    /// Prints a table, or more rows of the last one.
    fn table(
        &mut self,
        asked: &'a Asked,
        columns: Vec<Column>,
        rows: &[Row],
        (extra, wide): (&Extra, bool),
    ) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let goes_on = self.table.as_ref().is_some_and(|(before, theirs, _)| {
            before.known.resource == asked.known.resource && *theirs == columns
        });
        let mut lines = Vec::new();
        if !goes_on {
            if self.table.is_some() && !self.get.no_headers {
                writeln!(out)?;
            }
            if !self.get.no_headers {
                lines.push(extra.headings(&columns, wide));
            }
            self.table = Some((asked, columns, Layout::default()));
        }
        if let Some((_, columns, layout)) = &mut self.table {
            lines.extend(rows.iter().map(|row| extra.cells(row, columns, wide)));
            out.write_all(layout.lines(&lines).as_bytes())?;
        }
        Ok(())
    }

    fn sorted(&self, rows: Option<Vec<Row>>) -> Result<Vec<Row>, Failure> {
        let mut rows = rows.unwrap_or_default();
        if let Some(path) = &self.get.sort_by {
            sort::sort(&mut rows, path, |row| &row.object)?;
        }
        Ok(rows)
    }
}

/// The tables of answers. Neighbours of one type are one table.
fn merged(held: Vec<(&Asked, Bytes)>) -> Result<Vec<(&Asked, Table)>, Failure> {
    let mut tables: Vec<(&Asked, Table)> = Vec::new();
    for (asked, body) in held {
        let mut table = answer::table(&body, asked.name.is_some())?;
        match tables.last_mut() {
            Some((before, whole))
                if before.known.resource == asked.known.resource
                    && whole.column_definitions == table.column_definitions =>
            {
                let rows = table.rows.take().unwrap_or_default();
                whole.rows.get_or_insert_default().extend(rows);
            }
            _ => tables.push((asked, table)),
        }
    }
    Ok(tables)
}
