//! `get`: in flows the name of a resource in any form, out come its objects as the server prints
//! them.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use kubewire::{
    Client, Error,
    request::{ApiResource, Body},
};

use crate::{
    answer,
    connection::Connection,
    failure::{Failure, note},
    printable::Printable,
    table::{self, Table},
};

/// What a body may hold at most: 1 GiB.
const MAX_BODY: usize = 1 << 30;

/// Print objects, as the server formats them
///
/// JSON and YAML are what kubectl prints, without managed fields unless they are asked for. A
/// server without tables is asked for names and ages.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire get pods -A -l app=web\n  \
    kubewire get pods web-0 web-1 -L app\n  \
    kubewire get deploy/web svc/web -o yaml\n  \
    kubewire get --raw /healthz")]
pub(crate) struct Get {
    /// Kinds, plural, singular or short names, with commas between them, and names of objects; or
    /// TYPE/NAME, any number of them
    #[arg(value_name = "RESOURCE", required_unless_present = "raw")]
    objects: Vec<String>,
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
    /// Leave out the headings of the table
    #[arg(long)]
    no_headers: bool,
    /// All labels as the last column
    #[arg(long)]
    show_labels: bool,
    /// A column for each of these labels
    #[arg(short = 'L', long, value_name = "LABELS", value_delimiter = ',')]
    label_columns: Vec<String>,
    /// Types in front of the names, as they are where there are several
    #[arg(long)]
    show_kind: bool,
    /// Keep the managed fields in JSON and YAML
    #[arg(long)]
    show_managed_fields: bool,
    /// That a named object does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// Print what the server answers at this path
    #[arg(long, conflicts_with_all = ["objects", "output"], value_name = "PATH")]
    raw: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Wide,
    Name,
    Json,
    Yaml,
}

/// What is asked for of one type: all, or the object of a name.
struct Asked {
    known: ApiResource,
    name: Option<String>,
}

impl Asked {
    /// As kubectl writes the type: the singular, and the group.
    fn title(&self) -> String {
        match &*self.known.resource.group {
            "" => self.known.singular.clone(),
            group => format!("{}.{group}", self.known.singular),
        }
    }
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
        let asked = self.asked(&client).await?;
        let mut answers = Vec::new();
        let mut code = 0;
        for asked in &asked {
            match self.read(&client, asked).await {
                Ok(Some(body)) => answers.push((asked, body)),
                Ok(None) => {}
                // The others are printed, as by kubectl.
                Err(failure @ Failure::Message(_)) => code = failure.report(),
                Err(failure) => return Err(failure),
            }
        }
        if answers.is_empty() {
            return Ok(code);
        }
        match self.output {
            Some(format @ (Format::Json | Format::Yaml)) => {
                let single = matches!(&asked[..], [Asked { name: Some(_), .. }]);
                self.print_objects(&answers, single, format)?;
            }
            _ => self.print_tables(&client, answers)?,
        }
        Ok(code)
    }

    /// What the arguments mean.
    async fn asked(&self, client: &Client) -> Result<Vec<Asked>, Failure> {
        let mut pairs = Vec::new();
        if self.objects.iter().any(|object| object.contains('/')) {
            for object in &self.objects {
                let Some((resource, name)) = object.split_once('/') else {
                    let problem = "TYPE/NAME and a name exclude each other";
                    return Err(Failure::Message(problem.to_owned()));
                };
                pairs.push((resource, Some(name)));
            }
        } else if let Some((resources, names)) = self.objects.split_first() {
            for resource in resources.split(',') {
                match names {
                    [] => pairs.push((resource, None)),
                    names => pairs.extend(names.iter().map(|name| (resource, Some(&**name)))),
                }
            }
        }
        let mut found: BTreeMap<&str, ApiResource> = BTreeMap::new();
        let mut asked = Vec::new();
        for (resource, name) in pairs {
            if name.is_some() && self.all_namespaces {
                let problem = "a name and --all-namespaces exclude each other";
                return Err(Failure::Message(problem.to_owned()));
            }
            let known = match found.get(resource) {
                Some(known) => known.clone(),
                None => client.find(resource).await?,
            };
            found.insert(resource, known.clone());
            let name = name.map(str::to_owned);
            asked.push(Asked { known, name });
        }
        Ok(asked)
    }

    /// The server's answer; `None` if there is no such object, which may be.
    async fn read(&self, client: &Client, asked: &Asked) -> Result<Option<Bytes>, Failure> {
        let mut request = client.request(asked.known.resource.clone());
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
            Some(Format::Json | Format::Yaml) => "application/json",
            Some(Format::Wide | Format::Name) | None => {
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
            }
        };
        let answer = match &asked.name {
            Some(name) => request.get_raw(name, accept).await,
            None => request.list_raw(accept).await,
        };
        match answer {
            Ok(body) => Ok(Some(body.bytes(MAX_BODY).await?)),
            Err(Error::Api(refusal)) if self.ignore_not_found && refusal.status.code == 404 => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn print_objects(
        &self,
        answers: &[(&Asked, Bytes)],
        single: bool,
        format: Format,
    ) -> Result<(), Failure> {
        let mut objects = Vec::new();
        for (asked, body) in answers {
            let named = asked.name.is_some();
            objects.extend(answer::objects(body, named, self.show_managed_fields)?);
        }
        let whole = match (single, objects.len()) {
            (true, 1) => objects.remove(0),
            _ => answer::list(objects),
        };
        match format {
            Format::Yaml => write!(io::stdout(), "{}", answer::yaml(&whole)?)?,
            _ => writeln!(io::stdout(), "{}", answer::json(&whole))?,
        }
        Ok(())
    }

    fn print_tables(&self, client: &Client, answers: Vec<(&Asked, Bytes)>) -> Result<(), Failure> {
        // Neighbours of one type are one table.
        let mut tables: Vec<(&Asked, Table)> = Vec::new();
        for (asked, body) in answers {
            let mut table = answer::table(&body)?;
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
        let all_namespaced = |(asked, _): &(&Asked, Table)| asked.known.resource.namespaced;
        let namespaced = tables.iter().all(all_namespaced);
        let several = tables.len() > 1;
        tables.retain(|(_, table)| table.rows.as_ref().is_some_and(|rows| !rows.is_empty()));
        if tables.is_empty() && self.output != Some(Format::Name) {
            if self.ignore_not_found {
                return Ok(());
            }
            let place = match namespaced && !self.all_namespaces {
                true => format!(" in {} namespace", client.namespace()),
                false => String::new(),
            };
            note(&format!("No resources found{place}."));
            return Ok(());
        }
        for (at, (asked, table)) in tables.iter().enumerate() {
            if at > 0 && self.output != Some(Format::Name) {
                writeln!(io::stdout())?;
            }
            self.print(asked, table, several || self.show_kind)?;
        }
        Ok(())
    }

    fn print(&self, asked: &Asked, table: &Table, with_kind: bool) -> io::Result<()> {
        let rows = table.rows.as_deref().unwrap_or_default();
        let title = asked.title();
        if self.output == Some(Format::Name) {
            let mut out = io::stdout().lock();
            let title = Printable::line(&title);
            for row in rows {
                writeln!(out, "{title}/{}", row.metadata("name"))?;
            }
            return Ok(());
        }
        let wide = self.output == Some(Format::Wide);
        let columns = table.column_definitions.as_deref().unwrap_or_default();
        let with_namespace = asked.known.resource.namespaced && self.all_namespaces;
        let lead = |text: Printable| with_namespace.then_some(text);
        let mut lines = Vec::new();
        if !self.no_headers {
            let first = lead(Printable::cell("NAMESPACE")).into_iter();
            let mut line: Vec<_> = first.chain(table::headings(columns, wide)).collect();
            // Of a prefixed label, what is behind the prefix.
            let label = |label: &String| label.rsplit('/').next().unwrap_or("").to_uppercase();
            line.extend(
                self.label_columns
                    .iter()
                    .map(|name| Printable::cell(&label(name))),
            );
            line.extend(self.show_labels.then(|| Printable::cell("LABELS")));
            lines.push(line);
        }
        for row in rows {
            let mut cells: Vec<_> = row.cells(columns, wide).collect();
            if let (Some(name), true) = (cells.first_mut(), with_kind) {
                *name = Printable::cell(&format!("{title}/{name}"));
            }
            let mut line: Vec<_> = lead(row.metadata("namespace")).into_iter().collect();
            line.append(&mut cells);
            let labels = self.label_columns.iter().map(|name| row.label(name));
            line.extend(labels);
            line.extend(self.show_labels.then(|| row.labels()));
            lines.push(line);
        }
        table::print(&lines)
    }
}

async fn print(mut body: Body) -> Result<(), Failure> {
    let mut out = io::stdout();
    while let Some(chunk) = body.chunk().await? {
        out.write_all(&chunk)?;
    }
    Ok(out.flush()?)
}
