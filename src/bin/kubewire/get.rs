//! `get`: in flows the name of a resource in any form, out come its objects as the server prints
//! them.

use std::io::{self, Write};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use kubewire::request::{Body, Request};

use crate::{
    answer,
    connection::Connection,
    failure::Failure,
    printable::Printable,
    table::{self, Table},
};

/// What a body may hold at most: 1 GiB.
const MAX_BODY: usize = 1 << 30;

/// Print objects, as the server formats them
///
/// JSON and YAML are the server's answer as it is: a list's items have no kind of their own, and
/// managed fields are shown. A server without tables is asked for names and ages.
#[derive(Args)]
pub(crate) struct Get {
    /// A kind, plural, singular or short name, or TYPE/NAME
    #[arg(required_unless_present = "raw")]
    resource: Option<String>,
    /// The object's name; without one, all
    name: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Only objects with these fields
    #[arg(long, value_name = "FIELDS")]
    field_selector: Option<String>,
    /// How to print
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    /// Print what the server answers at this path
    #[arg(long, conflicts_with_all = ["resource", "output"], value_name = "PATH")]
    raw: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Wide,
    Name,
    Json,
    Yaml,
}

impl Get {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let client = connection.client()?;
        if let Some(path) = &self.raw {
            let request = http::Request::get(path).body(Bytes::new());
            let request = request.map_err(|error| Failure::local("--raw", &error))?;
            let response = client.send(request).await?;
            let status = response.status();
            if !status.is_success() {
                let text = response.into_body().bytes(MAX_BODY).await?;
                let text = String::from_utf8_lossy(&text);
                let text = format!("the server answered {status}: {}", text.trim());
                return Err(Failure::Message(text));
            }
            print(response.into_body()).await?;
            return Ok(0);
        }
        let resource = self.resource.as_deref().unwrap_or_default();
        let (resource, name) = match (resource.split_once('/'), self.name.as_deref()) {
            (Some((resource, name)), None) => (resource, Some(name)),
            (Some(_), Some(_)) => {
                let problem = "TYPE/NAME and a name exclude each other";
                return Err(Failure::Message(problem.to_owned()));
            }
            (None, name) => (resource, name),
        };
        let known = client.find(resource).await?;
        let title = match &*known.resource.group {
            "" => known.singular.clone(),
            group => format!("{}.{group}", known.singular),
        };
        // In front of each row if they differ, in the complaint that there is none if not.
        let namespaced = known.resource.namespaced;
        let namespace = (namespaced && !self.all_namespaces).then(|| client.namespace().to_owned());
        let mut request = client.request(known.resource);
        if !self.all_namespaces {
            request = request.namespace(client.namespace());
        }
        if let Some(labels) = &self.selector {
            request = request.labels(labels);
        }
        if let Some(fields) = &self.field_selector {
            request = request.fields(fields);
        }
        let accept = match self.output {
            Some(Format::Json) => "application/json",
            Some(Format::Yaml) => "application/yaml",
            Some(Format::Wide | Format::Name) | None => {
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
            }
        };
        let body = read(&request, name, accept).await?.bytes(MAX_BODY).await?;
        match self.output {
            Some(Format::Json) => {
                let value = answer::value(&body)?;
                writeln!(io::stdout(), "{}", Printable::json(&format!("{value:#}")))?;
            }
            Some(Format::Yaml) => write!(io::stdout(), "{}", answer::yaml(&body)?)?,
            _ => {
                let table = answer::table(&body)?;
                let with_namespace = namespaced && self.all_namespaces;
                self.print(&table, &title, with_namespace, namespace.as_deref())?;
            }
        }
        Ok(0)
    }

    fn print(
        &self,
        table: &Table,
        title: &str,
        with_namespace: bool,
        namespace: Option<&str>,
    ) -> io::Result<()> {
        let rows = table.rows.as_deref().unwrap_or_default();
        if self.output == Some(Format::Name) {
            let mut out = io::stdout().lock();
            let title = Printable::line(title);
            for row in rows {
                writeln!(out, "{title}/{}", row.metadata("name"))?;
            }
            return Ok(());
        }
        if rows.is_empty() {
            let place = namespace.map_or_else(String::new, |name| format!(" in {name} namespace"));
            crate::failure::note(&format!("No resources found{place}."));
            return Ok(());
        }
        let wide = self.output == Some(Format::Wide);
        let columns = table.column_definitions.as_deref().unwrap_or_default();
        let lead = |text: Printable| with_namespace.then_some(text);
        let first = lead(Printable::cell("NAMESPACE")).into_iter();
        let mut lines = vec![first.chain(table::headings(columns, wide)).collect()];
        for row in rows {
            let first = lead(row.metadata("namespace")).into_iter();
            lines.push(first.chain(row.cells(columns, wide)).collect::<Vec<_>>());
        }
        table::print(&lines)
    }
}

async fn read(request: &Request, name: Option<&str>, accept: &str) -> kubewire::Result<Body> {
    match name {
        Some(name) => request.get_raw(name, accept).await,
        None => request.list_raw(accept).await,
    }
}

async fn print(mut body: Body) -> Result<(), Failure> {
    let mut out = io::stdout();
    while let Some(chunk) = body.chunk().await? {
        out.write_all(&chunk)?;
    }
    Ok(out.flush()?)
}
