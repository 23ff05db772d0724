//! `get`: in flows the name of a resource in any form, out come its objects as the server prints
//! them.

use std::io::{self, Write};

use bytes::Bytes;
use clap::{ArgAction, Args};
use kubewire::{
    Client, Error,
    request::{Body, Request},
    watch::Watch,
};
use serde::Deserialize;
use serde_json::Value;

use self::{
    asked::{Asked, Files},
    output::Output,
};
use crate::{
    answer,
    changes::{Printer, Style},
    connection::Connection,
    failure::{Failure, note},
    printable::Printable,
    set::Set as _,
    table::{self, Extra, Table},
};

pub(crate) mod asked;
pub(crate) mod output;
mod sort;

/// What a body may hold at most: 1 GiB.
const MAX_BODY: usize = 1 << 30;

/// Print objects, as the server formats them
///
/// JSON and YAML are what kubectl prints, without managed fields unless they are asked for. A
/// server without tables is asked for names and ages. A watch lasts through cut connections and
/// expired versions.
///
/// Exit codes: 0 if all objects that were named are there, or may be missing; 1 if not, or for
/// another error.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire get pods -A -l app=web --sort-by .spec.nodeName\n  \
    kubewire get pods web-0 web-1 -L app\n  \
    kubewire get deploy/web svc/web -o yaml\n  \
    kubewire get pods -o custom-columns=NAME:.metadata.name,IMAGES:.spec.containers[*].image\n  \
    kubewire get pods -o jsonpath='{range .items[*]}{.metadata.name}{\"\\n\"}{end}'\n  \
    kubewire get pods -w --output-watch-events\n  \
    kubewire get -R -f manifests/\n  \
    kubewire get --raw /healthz")]
pub(crate) struct Get {
    /// Kinds, plural, singular or short names, with commas between them, and names of objects; or
    /// TYPE/NAME, any number of them
    #[arg(value_name = "RESOURCE", required_unless_present_any = ["raw", "filename"])]
    objects: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "filename")]
    selector: Option<String>,
    /// Only objects with these fields
    #[arg(long, value_name = "FIELDS")]
    field_selector: Option<String>,
    /// How to print: json, yaml, name, wide, jsonpath=TEMPLATE, jsonpath-as-json=TEMPLATE,
    /// jsonpath-file=FILE, custom-columns=HEADING:PATH,… or custom-columns-file=FILE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// The template of -o jsonpath or custom-columns, or its file, where that has none
    #[arg(long, value_name = "TEMPLATE", requires = "output")]
    template: Option<String>,
    /// Whether a field of a template that is nowhere is no error
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value = "true", default_missing_value = "true",
          hide_possible_values = true)]
    allow_missing_template_keys: bool,
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
    /// In the order of this field: .metadata.creationTimestamp. Texts that are quantities, such as
    /// 100Mi, have their order
    #[arg(long, value_name = "PATH")]
    sort_by: Option<String>,
    /// The subresource of the objects that are named: status, scale, resize
    #[arg(long, value_name = "NAME")]
    subresource: Option<String>,
    /// How many objects of a list to ask for at once; 0 for all
    #[arg(long, value_name = "OBJECTS", default_value_t = 500)]
    chunk_size: u32,
    /// Print what there is, and each object again when it changes
    #[arg(short, long)]
    watch: bool,
    /// As --watch, without what there is
    #[arg(long)]
    watch_only: bool,
    /// Print what happened to the objects of --watch: ADDED, MODIFIED or DELETED
    #[arg(long)]
    output_watch_events: bool,
    /// Print what the server answers at this path
    #[arg(long, conflicts_with_all = ["objects", "filename", "output", "watch", "watch_only"],
          value_name = "PATH")]
    raw: Option<String>,
}

/// Of a list, where its next page begins.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

impl Get {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        if self.watch || self.watch_only {
            return self.changes(connection).await;
        }
        connection.in_time(self.once(connection)).await
    }

    async fn once(&self, connection: &Connection) -> Result<u8, Failure> {
        let output = self.output()?;
        let client = connection.client()?;
        if let Some(path) = &self.raw {
            return raw(&client, path).await;
        }
        let asked = self.asked(&client, connection).await?;
        let mut answers = Vec::new();
        let mut code = 0;
        for asked in &asked {
            match self.read(&client, asked, &output).await {
                Ok(pages) => answers.extend(pages.into_iter().map(|page| (asked, page))),
                // The others are printed, as by kubectl.
                Err(failure @ Failure::Message(_)) => code = failure.report(),
                Err(failure) => return Err(failure),
            }
        }
        if answers.is_empty() {
            return Ok(code);
        }
        match output {
            Output::Table { wide } => self.print_tables(&client, answers, wide)?,
            Output::Name => self.print_names(&answers)?,
            output => {
                let single = matches!(&asked[..], [Asked { name: Some(_), .. }]);
                self.print_objects(&answers, single, &output)?;
            }
        }
        Ok(code)
    }

    fn output(&self) -> Result<Output, Failure> {
        let (output, template) = (self.output.as_deref(), self.template.as_deref());
        let output = Output::parse(output, template, self.allow_missing_template_keys)?;
        let form = self.output.as_deref().unwrap_or_default();
        let problem = if self.output_watch_events && !self.watch && !self.watch_only {
            "--output-watch-events is for --watch and --watch-only".to_owned()
        } else if !output.is_table() && (self.show_labels || !self.label_columns.is_empty()) {
            format!("labels are columns of a table, which -o {form} is not")
        } else {
            return Ok(output);
        };
        Err(Failure::Message(problem))
    }

    async fn asked(&self, client: &Client, connection: &Connection) -> Result<Vec<Asked>, Failure> {
        let named = (&self.objects[..], self.all_namespaces);
        let asked = self.files.asked_or(named, client, connection).await?;
        if self.files.are_none() && self.files.recursive {
            return Err("-R is for the directories of --filename".into());
        }
        if self.subresource.is_some() && asked.iter().any(|asked| asked.name.is_none()) {
            return Err("--subresource is of objects that are named, not of a list".into());
        }
        Ok(asked)
    }

    /// The server's answer, a list page by page; nothing if there is no such object, which may be.
    async fn read(
        &self,
        client: &Client,
        asked: &Asked,
        output: &Output,
    ) -> Result<Vec<Bytes>, Failure> {
        let rows = matches!(output, Output::Table { .. } | Output::Name);
        let accept = match rows {
            true => "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            false => "application/json",
        };
        let request = client
            .request(asked.known.resource.clone())
            .set(asked.namespace.as_ref(), Request::namespace)
            .set(self.subresource.as_ref(), Request::subresource)
            .set_if(self.sort_by.is_some() && rows, |request| {
                request.query("includeObject", "Object")
            });
        let Some(name) = &asked.name else {
            return self.list(request, accept).await;
        };
        match request.get_raw(name, accept).await {
            Ok(body) => Ok(vec![body.bytes(MAX_BODY).await?]),
            Err(Error::Api(refusal)) if self.ignore_not_found && refusal.status.code == 404 => {
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn list(&self, request: Request, accept: &str) -> Result<Vec<Bytes>, Failure> {
        let request = request
            .set(self.selector.as_ref(), Request::labels)
            .set(self.field_selector.as_ref(), Request::fields);
        let limit = Some(self.chunk_size).filter(|size| *size > 0);
        let mut pages = Vec::new();
        let (mut next, mut left) = (None::<String>, MAX_BODY);
        loop {
            let page = request
                .clone()
                .set(limit, |page, size| page.query("limit", size.to_string()))
                .set(next.as_ref(), |page, next| page.query("continue", next));
            let body = match page.list_raw(accept).await {
                // The server has forgotten where the pages began: once more, whole.
                Err(error) if error.is_gone() && next.is_some() => {
                    let whole = request.list_raw(accept).await?;
                    return Ok(vec![whole.bytes(MAX_BODY).await?]);
                }
                body => body?.bytes(left).await?,
            };
            left = left.saturating_sub(body.len());
            let page = serde_json::from_slice(&body).or_else(|error| {
                // It says better what is wrong, if it finds anything.
                answer::value(&body)?;
                Err(Failure::local("the server's list", &error))
            });
            let page: Page = page?;
            let before = next;
            next = page.metadata.next.filter(|next| !next.is_empty());
            if before.is_some() && before == next {
                return Err("the server's list has no end: a page names itself as the next".into());
            }
            pages.push(body);
            if next.is_none() {
                return Ok(pages);
            }
        }
    }

    fn print_objects(
        &self,
        answers: &[(&Asked, Bytes)],
        single: bool,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut objects = Vec::new();
        for (asked, body) in answers {
            objects.extend(answer::objects(body, asked.name.is_some())?);
        }
        if let Some(path) = &self.sort_by {
            sort::sort(&mut objects, path, |object| object)?;
        }
        if !self.show_managed_fields && matches!(output, Output::Json | Output::Yaml) {
            objects.iter_mut().for_each(answer::without_managed_fields);
        }
        let whole = match (single, objects.len()) {
            (true, 1) => objects.remove(0),
            _ => answer::list(objects),
        };
        let text = output.object(&whole, !self.no_headers)?;
        Ok(io::stdout().write_all(text.as_bytes())?)
    }

    fn print_names(&self, answers: &[(&Asked, Bytes)]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        for (asked, body) in answers {
            let title = asked.title();
            let mut rows = answer::table(body, asked.name.is_some())?
                .rows
                .unwrap_or_default();
            if let Some(path) = &self.sort_by {
                sort::sort(&mut rows, path, |row| &row.object)?;
            }
            let title = Printable::line(&title);
            for row in rows {
                writeln!(out, "{title}/{}", row.metadata("name"))?;
            }
        }
        Ok(())
    }

    fn print_tables(
        &self,
        client: &Client,
        answers: Vec<(&Asked, Bytes)>,
        wide: bool,
    ) -> Result<(), Failure> {
        // Neighbours of one type are one table.
        let mut tables: Vec<(&Asked, Table)> = Vec::new();
        for (asked, body) in answers {
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
        let all_namespaced = |(asked, _): &(&Asked, Table)| asked.known.resource.namespaced;
        let namespaced = tables.iter().all(all_namespaced);
        let several = tables.len() > 1;
        tables.retain(|(_, table)| table.rows.as_ref().is_some_and(|rows| !rows.is_empty()));
        if tables.is_empty() {
            if self.ignore_not_found {
                return Ok(());
            }
            note(&match namespaced && !self.all_namespaces {
                true => format!("No resources found in {} namespace.", client.namespace()),
                false => "No resources found".to_owned(),
            });
            return Ok(());
        }
        for (at, (asked, table)) in tables.iter_mut().enumerate() {
            if at > 0 && !self.no_headers {
                writeln!(io::stdout())?;
            }
            let mut rows = table.rows.take().unwrap_or_default();
            if let Some(path) = &self.sort_by {
                sort::sort(&mut rows, path, |row| &row.object)?;
            }
            let columns = table.column_definitions.as_deref().unwrap_or_default();
            let extra = self.extra(asked, several || self.show_kind);
            let headings = (!self.no_headers).then(|| extra.headings(columns, wide));
            let rows = rows.iter().map(|row| extra.cells(row, columns, wide));
            table::print(&headings.into_iter().chain(rows).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// What a table of a type has besides the server's columns.
    fn extra(&self, asked: &Asked, with_kind: bool) -> Extra {
        Extra {
            namespaces: asked.known.resource.namespaced && self.all_namespaces,
            kind: with_kind.then(|| asked.title()),
            labels: self.label_columns.clone(),
            all_labels: self.show_labels,
        }
    }

    async fn changes(&self, connection: &Connection) -> Result<u8, Failure> {
        let output = self.output()?;
        let client = connection.client()?;
        let asked = self.asked(&client, connection).await?;
        let [asked] = &asked[..] else {
            return Err("one resource, or one object of it, is watched at a time".into());
        };
        if self.subresource.is_some() {
            return Err("--subresource cannot be watched; its object can".into());
        }
        if self.sort_by.is_some() {
            note("warning: --watch requested, --sort-by will be ignored");
        }
        if let Some(name) = &asked.name {
            let request = client.request(asked.known.resource.clone());
            let request = request.set(asked.namespace.as_ref(), Request::namespace);
            // What is not there is an error, as for kubectl; `kubewire watch` waits for it.
            match connection
                .in_time(async { Ok(request.get::<Value>(name).await.map(|_| 0)?) })
                .await
            {
                Ok(_) => {}
                Err(_) if self.ignore_not_found => return Ok(0),
                Err(failure) => return Err(failure),
            }
        }
        let watch = client
            .watch(asked.known.resource.clone())
            .set(asked.namespace.as_ref(), Watch::namespace)
            .set(asked.name.as_ref(), Watch::name)
            .set(self.selector.as_ref(), Watch::labels)
            .set(self.field_selector.as_ref(), Watch::fields);
        let style = Style {
            output,
            events: self.output_watch_events,
            one_line: false,
            initial: !self.watch_only,
            managed_fields: self.show_managed_fields,
            headers: !self.no_headers,
            extra: self.extra(asked, self.show_kind),
        };
        // A list is sorted by names, which the events of a watch need not be.
        let watch = watch.watch_list(false).page(self.chunk_size as usize);
        Printer::new(style, asked.known.clone())?.run(watch).await
    }
}

/// Prints what the server answers at a path.
async fn raw(client: &Client, path: &str) -> Result<u8, Failure> {
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
    Ok(0)
}

async fn print(mut body: Body) -> Result<(), Failure> {
    let mut out = io::stdout();
    while let Some(chunk) = body.chunk().await? {
        out.write_all(&chunk)?;
    }
    Ok(out.flush()?)
}
