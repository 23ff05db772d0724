//! `get`: in flows the name of a resource in any form, out come its objects as the server prints
//! them.

use std::{
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use clap::{ArgAction, Args};
use kubewire::{
    Client, Error, limits,
    request::{Request, refusal},
    watch::Watch,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use self::{
    asked::{Asked, Files},
    output::Output,
    print::Printer,
};
use crate::{
    answer,
    changes::{self, Style},
    connection::Connection,
    failure::{Failure, Local as _, note},
    set::Set as _,
    table::Extra,
};

pub(crate) mod asked;
pub(crate) mod output;
mod print;
mod sort;

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
    chunk_size: usize,
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
        self.once(connection).await
    }

    async fn once(&self, connection: &Connection) -> Result<u8, Failure> {
        let output = self.output()?;
        let client = connection.client()?;
        if let Some(path) = &self.raw {
            return connection.in_time(raw(&client, path)).await;
        }
        let asked = self.asked(&client, connection).await?;
        let mut printer = Printer::new(self, &output, &asked);
        let mut code = 0;
        for asked in &asked {
            match self.read(&client, asked, &output, &mut printer).await {
                Ok(()) => {}
                // The others are printed, as by kubectl.
                Err(failure @ Failure::Message(_)) => {
                    printer.forget(asked);
                    code = failure.report();
                }
                Err(failure) => return Err(failure),
            }
        }
        printer.finish(&client)?;
        Ok(code)
    }

    fn output(&self) -> Result<Output, Failure> {
        let (output, template) = (self.output.as_deref(), self.template.as_deref());
        let output = Output::parse(output, template, self.allow_missing_template_keys)?;
        let form = self.output.as_deref().unwrap_or_default();
        if self.output_watch_events && !self.watch && !self.watch_only {
            bail!("--output-watch-events is for --watch and --watch-only");
        }
        if !output.is_table() && (self.show_labels || !self.label_columns.is_empty()) {
            bail!("labels are columns of a table, which -o {form} is not");
        }
        Ok(output)
    }

    async fn asked(&self, client: &Client, connection: &Connection) -> Result<Vec<Asked>, Failure> {
        let named = (&self.objects[..], self.all_namespaces);
        let asked = self.files.asked_or(named, client, connection).await?;
        if self.files.are_none() && self.files.recursive {
            bail!("-R is for the directories of --filename");
        }
        let selects = self.selector.is_some() || self.field_selector.is_some();
        if selects && asked.iter().any(|asked| asked.name.is_some()) {
            bail!("name cannot be provided when a selector is specified");
        }
        if self.subresource.is_some() && asked.iter().any(|asked| asked.name.is_none()) {
            bail!("--subresource is of objects that are named, not of a list");
        }
        Ok(asked)
    }

    /// Prints the server's answer, a list page by page; nothing if there is no such object, which
    /// may be.
    async fn read<'a>(
        &'a self,
        client: &Client,
        asked: &'a Asked,
        output: &Output,
        printer: &mut Printer<'a>,
    ) -> Result<(), Failure> {
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
            return self.list(request, accept, asked, printer).await;
        };
        match request.get_raw(name, accept).await {
            Ok(body) => printer.push(asked, print::page(body).await?),
            Err(Error::Api(refusal)) if self.ignore_not_found && refusal.status.code == 404 => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn list<'a>(
        &'a self,
        request: Request,
        accept: &str,
        asked: &'a Asked,
        printer: &mut Printer<'a>,
    ) -> Result<(), Failure> {
        let request = request
            .set(self.selector.as_ref(), Request::labels)
            .set(self.field_selector.as_ref(), Request::fields);
        let limit = Some(self.chunk_size).filter(|size| *size > 0);
        let mut next = None::<String>;
        loop {
            let page = request
                .clone()
                .set(limit, |page, size| page.query("limit", size.to_string()))
                .set(next.as_ref(), |page, next| page.query("continue", next));
            let body = match page.list_raw(accept).await {
                // The server has forgotten where the pages began: once more, whole.
                Err(error) if error.is_gone() && next.is_some() && !printer.has_begun() => {
                    printer.forget(asked);
                    let whole = request.list_raw(accept).await?;
                    return printer.push(asked, print::page(whole).await?);
                }
                body => print::page(body?).await?,
            };
            let page = serde_json::from_slice(&body).or_else(|error| {
                // It says better what is wrong, if it finds anything.
                answer::value(&body)?;
                Err(error).local("the server's list")
            });
            let page: Page = page?;
            let before = next;
            next = page.metadata.next.filter(|next| !next.is_empty());
            if before.is_some() && before == next {
                bail!("the server's list has no end: a page names itself as the next");
            }
            printer.push(asked, body)?;
            if next.is_none() {
                return Ok(());
            }
        }
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
            bail!("one resource, or one object of it, is watched at a time");
        };
        if self.subresource.is_some() {
            bail!("--subresource cannot be watched; its object can");
        }
        if self.sort_by.is_some() {
            note("warning: --watch requested, --sort-by will be ignored");
        }
        if let Some(name) = &asked.name {
            let request = client.request(asked.known.resource.clone());
            let request = request.set(asked.namespace.as_ref(), Request::namespace);
            // What is not there is an error, as for kubectl; `kubewire watch` waits for it.
            match request.get::<Value>(name).await {
                Err(error) if error.is_not_found() && self.ignore_not_found => return Ok(0),
                looked => looked?,
            };
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
        let watch = watch.watch_list(false).page(self.chunk_size);
        changes::Printer::new(style, asked.known.clone())?
            .run(watch, connection)
            .await
    }
}

async fn raw(client: &Client, path: &str) -> Result<u8, Failure> {
    if !path.starts_with('/') {
        bail!("--raw {path:?} is no path: it begins with /, such as /api");
    }
    let request = http::Request::get(path).body(Bytes::new());
    let silent = match is_long_running(path) {
        true => Duration::MAX,
        false => limits::REQUEST,
    };
    let late = |_| format!("GET {path}: the server has been silent for {silent:?}");
    let response = client.send(request.local("--raw")?);
    let response = timeout(silent, response).await.map_err(late)??;
    if !response.status().is_success() {
        return Err(refusal(&format!("get {path}"), response).await.into());
    }
    let (mut body, mut out) = (response.into_body(), io::stdout());
    while let Some(chunk) = timeout(silent, body.chunk()).await.map_err(late)?? {
        out.write_all(&chunk)?;
    }
    Ok(out.flush().map(|()| 0)?)
}

/// Whether an API server lets a `GET` of this path take any time
/// (`BasicLongRunningRequestCheck` in `k8s.io/kubernetes/pkg/controlplane/apiserver/config.go`).
fn is_long_running(path: &str) -> bool {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let long = |part| {
        matches!(
            part,
            "watch" | "proxy" | "log" | "exec" | "attach" | "portforward"
        )
    };
    path.split('/').any(long) || query.split('&').any(|pair| pair.starts_with("watch"))
}

#[cfg(test)]
mod tests {
    use kubewire::Config;
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_server_that_stalls_a_raw_request_is_given_up_unless_it_may_take_any_time() {
        const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
        for (path, answer, is_late) in [
            ("/api", "", true),
            ("/api", HEAD, true),
            ("/api/v1/pods?watch=1", HEAD, false),
            ("/api/v1/namespaces/a/services/b/proxy/x", "", false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let client = Client::new(&Config::new(&url).unwrap()).unwrap();
            let asked = tokio::spawn(async move { raw(&client, path).await });
            let mut stream = listener.accept().await.unwrap().0;
            stream.write_all(answer.as_bytes()).await.unwrap();
            tokio::time::pause();
            let ended = timeout(limits::REQUEST * 3, asked).await;
            tokio::time::resume();
            assert_eq!(ended.is_ok(), is_late, "{path}");
            if let Ok(ended) = ended {
                let Err(Failure::Message(text)) = ended.unwrap() else {
                    panic!("{path}");
                };
                assert_eq!(
                    text.to_string(),
                    "GET /api: the server has been silent for 90s"
                );
            }
        }
    }
}
