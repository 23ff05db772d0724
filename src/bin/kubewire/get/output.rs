//! Forms of output: in flow objects, out comes text as kubectl prints it.

use std::fs;

use serde_json::Value;

use crate::{
    absent, answer,
    failure::{Failure, Local as _},
    jsonpath::{self, JsonPath},
    printable::Printable,
    table::Layout,
    yaml,
};

/// What `-o` may be.
pub(crate) const FORMATS: &str = "custom-columns=, custom-columns-file=, json, jsonpath=, \
    jsonpath-as-json=, jsonpath-file=, name, wide and yaml";

#[derive(Debug, Clone)]
pub(crate) enum Output {
    Table {
        wide: bool,
    },
    Name,
    Json,
    Yaml,
    /// The text of a template, or all that it finds as JSON.
    JsonPath {
        path: JsonPath,
        as_json: bool,
    },
    Columns(Vec<Column>),
}

#[derive(Debug, Clone)]
pub(crate) struct Column {
    heading: String,
    path: JsonPath,
}

impl Output {
    /// What `-o` and `--template` ask for. A field that is nowhere is an error of a template unless
    /// it may be missing.
    pub(crate) fn parse(
        output: Option<&str>,
        template: Option<&str>,
        may_be_missing: bool,
    ) -> Result<Self, Failure> {
        let Some(output) = output else {
            if template.is_some() {
                bail!(
                    "--template is for -o jsonpath or -o custom-columns; kubectl's templates of Go \
                     are not here"
                );
            }
            return Ok(Self::Table { wide: false });
        };
        let (form, inline) = match output.split_once('=') {
            Some((form, inline)) => (form, Some(inline)),
            None => (output, template),
        };
        let argument = || {
            let inline = inline.filter(|text| !text.is_empty());
            inline.ok_or_else(|| format!("-o {form} needs a template, as in -o {form}=…"))
        };
        let json_path = |template: &str, as_json| {
            let mut path = JsonPath::parse(template)
                .map_err(|problem| format!("error parsing jsonpath {template}, {problem}"))?;
            path.allow_missing = may_be_missing;
            Ok(Self::JsonPath { path, as_json })
        };
        match form {
            "wide" => Ok(Self::Table { wide: true }),
            "name" => Ok(Self::Name),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "jsonpath" => json_path(argument()?, false),
            "jsonpath-as-json" => json_path(argument()?, true),
            "jsonpath-file" => json_path(&file(argument()?)?, false),
            "custom-columns" => columns(argument()?),
            "custom-columns-file" => columns_of_file(&file(argument()?)?),
            _ => {
                let unknown = || format!("-o {form} is not known; there are {FORMATS}");
                Err(absent::output(output).unwrap_or_else(unknown).into())
            }
        }
    }

    pub(crate) fn is_table(&self) -> bool {
        matches!(self, Self::Table { .. })
    }

    /// What to print for an object or a list, with its end.
    pub(crate) fn object(&self, object: &Value, headers: bool) -> Result<String, Failure> {
        Ok(match self {
            Self::Yaml => Printable::document(yaml::document(object)),
            Self::JsonPath { path, as_json } => {
                let failed = |problem| format!("error executing jsonpath: {problem}");
                match as_json {
                    false => Printable::document(path.text(object).map_err(failed)?),
                    true => {
                        let found = path.lists(object).map_err(failed)?;
                        let found = found.iter().map(|list| format!("{}\n", answer::json(list)));
                        found.collect()
                    }
                }
            }
            Self::Columns(columns) => {
                let objects = match (&object["kind"], object["items"].as_array()) {
                    (Value::String(kind), Some(items)) if kind.ends_with("List") => items,
                    _ => std::slice::from_ref(object),
                };
                Layout::text(&rows(columns, objects, headers)?)
            }
            // Names and tables have their own ways.
            Self::Json | Self::Name | Self::Table { .. } => format!("{}\n", answer::json(object)),
        })
    }
}

pub(crate) fn headings(columns: &[Column]) -> Vec<Printable> {
    let heading = |column: &Column| Printable::line(&column.heading);
    columns.iter().map(heading).collect()
}

/// An object's row (`k8s.io/kubectl/pkg/cmd/get/customcolumn.go`, `printOneObject`).
pub(crate) fn row(columns: &[Column], object: &Value) -> Result<Vec<Printable>, Failure> {
    let cell = |column: &Column| {
        let found = column.path.find(object)?;
        let mut values: Vec<_> = found
            .iter()
            .flatten()
            .map(|v| jsonpath::sprint(v))
            .collect();
        if found.first().is_none_or(Vec::is_empty) {
            values.insert(0, "<none>".to_owned());
        }
        Ok(Printable::line(&values.join(",")))
    };
    columns.iter().map(cell).collect()
}

/// The rows of objects, perhaps below the headings.
pub(super) fn rows(
    columns: &[Column],
    objects: &[Value],
    headers: bool,
) -> Result<Vec<Vec<Printable>>, Failure> {
    let mut rows: Vec<_> = headers.then(|| headings(columns)).into_iter().collect();
    for object in objects {
        rows.push(row(columns, object)?);
    }
    Ok(rows)
}

fn column(heading: &str, path: &str) -> Result<Column, Failure> {
    Ok(Column {
        heading: heading.to_owned(),
        path: JsonPath::relaxed(path)?,
    })
}

/// `NAME:.metadata.name,IMAGE:.spec.containers[*].image`.
fn columns(text: &str) -> Result<Output, Failure> {
    let one = |text: &str| match text.split_once(':') {
        Some((heading, path)) => column(heading, path),
        None => bail!("custom-columns: {text:?} is not HEADING:PATH, such as NAME:.metadata.name"),
    };
    let columns: Result<_, _> = text.split(',').map(one).collect();
    Ok(Output::Columns(columns?))
}

/// A line of headings and a line of paths.
fn columns_of_file(text: &str) -> Result<Output, Failure> {
    let mut lines = text.lines().map(|line| line.split_whitespace().collect());
    let (Some::<Vec<_>>(headings), Some::<Vec<_>>(paths)) = (lines.next(), lines.next()) else {
        bail!("custom-columns-file: a line of headings and a line of paths are expected");
    };
    if headings.len() != paths.len() {
        let (headings, paths) = (headings.len(), paths.len());
        bail!("custom-columns-file: {headings} headings and {paths} paths");
    }
    let columns = headings.iter().zip(paths);
    let columns: Result<_, _> = columns.map(|(name, path)| column(name, path)).collect();
    Ok(Output::Columns(columns?))
}

fn file(name: &str) -> Result<String, Failure> {
    fs::read_to_string(name).local(name)
}
