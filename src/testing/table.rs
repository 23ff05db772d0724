//! Tables: in flow objects, out comes what `kubectl get` prints.
//!
//! The columns of built-in kinds are in a table, those of custom resources in their definitions.

use serde_json::{Value, json};

use super::{
    cells,
    json::{at, items, members, text},
    kinds::Kind,
    rules::plain,
    subresources::selector_text,
};
use crate::wire::stamp::Stamp;

/// What a row says about its object besides the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    /// Reads `includeObject` (`k8s.io/apimachinery/pkg/apis/meta/v1/types.go`).
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::Nothing),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The table of these objects, without its metadata. Only the first table of a watch names its
/// columns (`k8s.io/apiserver/pkg/endpoints/handlers/response.go`).
pub(super) fn table<'a>(
    version: &str,
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    include: Include,
    with_columns: bool,
    now: Stamp,
) -> Value {
    let columns = columns(kind);
    let definitions = columns.iter().map(|column| column.definition.clone());
    let rows = objects.into_iter().map(|object| {
        let mut row = json!({"cells": columns.iter().map(|column| column.cell(object, now)).collect::<Vec<_>>()});
        match include {
            Include::Nothing => row["object"] = Value::Null,
            Include::Metadata => row["object"] = partial(version, object),
            Include::Object => row["object"] = object.clone(),
        }
        row
    });
    json!({
        "kind": "Table",
        "apiVersion": version,
        "columnDefinitions": with_columns.then(|| definitions.collect::<Vec<_>>()),
        "rows": rows.collect::<Vec<_>>(),
    })
}

/// The `PartialObjectMetadata` of an object.
pub(super) fn partial(version: &str, object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": version,
        "metadata": object["metadata"],
    })
}

/// A column of a table.
struct Column {
    definition: Value,
    /// What a built-in kind's cells are made of.
    template: &'static str,
    /// Where a custom resource has it, with its type.
    path: Option<(String, String)>,
}

impl Column {
    fn parse(text: &'static str) -> Option<Self> {
        let text = match text {
            "AGE" => "Age:string={age:metadata.creationTimestamp}",
            text => text,
        };
        let (name, rest) = text.split_once(':')?;
        let (of, template) = rest.split_once('=')?;
        let priority = i32::from(name.starts_with('['));
        let name = name.trim_start_matches('[').replace('_', " ");
        let format = if matches!(&*name, "Name" | "Attacher") {
            "name"
        } else {
            ""
        };
        Some(Self {
            definition: json!({
                "name": name, "type": of, "format": format, "description": "", "priority": priority,
            }),
            template,
            path: None,
        })
    }

    /// A column of a definition (`k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor`).
    fn custom(column: &Value) -> Self {
        let of = text(&column["type"]);
        Self {
            definition: json!({
                "name": column["name"], "type": of, "format": text(&column["format"]),
                "description": text(&column["description"]),
                "priority": column["priority"].as_i64().unwrap_or_default(),
            }),
            template: "",
            path: Some((text(&column["jsonPath"]).to_owned(), of.to_owned())),
        }
    }

    fn cell(&self, object: &Value, now: Stamp) -> Value {
        if let Some((path, of)) = &self.path {
            let mut found = along(object, path);
            let first = found.drain(..).next().cloned().unwrap_or_default();
            return match (&**of, first) {
                (_, Value::Null) => Value::Null,
                ("date", value) => since(&value, now).into(),
                ("string", value @ Value::String(_)) => value,
                ("string", value) => value.to_string().into(),
                (_, value) => value,
            };
        }
        // One field alone keeps its type.
        let whole = self
            .template
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        if let Some(field) = whole.filter(|field| !field.contains('{')) {
            return expression(object, field, now);
        }
        let mut cell = String::new();
        let mut rest = self.template;
        while let Some((before, after)) = rest.split_once('{') {
            let (field, after) = after.split_once('}').unwrap_or((after, ""));
            cell += before;
            match expression(object, field, now) {
                Value::String(text) => cell += &text,
                other => cell += &other.to_string(),
            }
            rest = after;
        }
        (cell + rest).into()
    }
}

fn columns(kind: &Kind) -> Vec<Column> {
    if let Some(custom) = &kind.custom {
        let own = items(&custom.columns).map(Column::custom);
        let name = Column::parse("Name:string={metadata.name}");
        let age = Column::parse("Age:date={age:metadata.creationTimestamp}");
        let age = age.filter(|_| custom.columns.is_null());
        return name.into_iter().chain(own).chain(age).collect();
    }
    let lines = include_str!("columns.txt").lines();
    let mut lines = lines.filter_map(|line| line.split_once(' '));
    let line = lines.find(|(plural, _)| *plural == kind.resource.plural);
    let columns = line.map_or("Name:string={metadata.name} AGE", |(_, columns)| columns);
    columns.split(' ').filter_map(Column::parse).collect()
}

fn expression(object: &Value, field: &'static str, now: Stamp) -> Value {
    let (field, other) = field.split_once('|').unwrap_or((field, ""));
    if let Some(name) = field.strip_prefix('!') {
        return cells::cell(name, object, now);
    }
    let (how, path) = field.split_once(':').unwrap_or(("", field));
    let found = at(object, path);
    let size = |path| match at(object, path) {
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    let or_other = |text: String| {
        if text.is_empty() {
            other.into()
        } else {
            text.into()
        }
    };
    match how {
        "age" if found.is_null() && !other.is_empty() => other.into(),
        "age" => since(found, now).into(),
        "date" => found.clone(),
        "count" => path.split('+').map(size).sum::<usize>().into(),
        "each" => or_other(each(object, path).join(",")),
        "list" => or_other(each(object, path).join(", ")),
        "first" => match each(object, path).into_iter().next() {
            Some(text) => text
                .parse::<i64>()
                .map_or_else(|_| text.into(), Value::from),
            None => other.into(),
        },
        "lower" => text(found).to_lowercase().into(),
        "when" if size(path) > 0 => other.replace('_', " ").into(),
        "when" => "".into(),
        "labels" => or_other(selector_text(found)),
        "is" => if *found == true { "True" } else { "False" }.into(),
        "flag" => (*found == true).into(),
        "text" if !found.is_null() => plain(found).into(),
        _ if found.is_null() || *found == "" => other
            .parse::<i64>()
            .map_or_else(|_| other.into(), Value::from),
        _ => found.clone(),
    }
}

/// All that a path such as `a.*.b` leads to.
fn each(object: &Value, path: &str) -> Vec<String> {
    let all = |value| items(value).chain(members(value).map(|(_, value)| value));
    let (front, last) = path.rsplit_once('.').unwrap_or(("", path));
    let names = front.split('.').filter(|name| !name.is_empty());
    let found = names.fold(vec![object], |found, name| {
        let inner = found
            .into_iter()
            .flat_map(|value| match name.split_once('[') {
                Some((_, condition)) => {
                    let (key, wanted) = condition.split_once('=').unwrap_or((condition, ""));
                    let wanted = wanted.trim_end_matches(']');
                    all(value).filter(|item| item[key] == *wanted).collect()
                }
                None if name == "*" => all(value).collect::<Vec<_>>(),
                None => vec![&value[name]],
            });
        inner.collect()
    });
    let texts = found.into_iter().flat_map(|value| match last {
        "*" => items(value).map(plain).collect::<Vec<_>>(),
        last => {
            let parts = last.split('/').map(|names| {
                let mut texts = names.split('+').map(|name| plain(&value[name]));
                texts.find(|text| !text.is_empty()).unwrap_or_default()
            });
            vec![parts.collect::<Vec<_>>().join("/")]
        }
    });
    texts
        .filter(|text| !text.is_empty() && text != "/")
        .collect()
}

/// What a definition's path leads to: `.a.b`, `['a']`, `[0]`, `[*]` and `[?(@.a=="b")]`, the parts
/// of JSONPath that columns have. All else leads to nothing.
fn along<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![object];
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some((inside, after)) = inner.split_once(']') else {
                return Vec::new();
            };
            rest = after;
            let of = |value: &'a Value| -> Vec<&'a Value> {
                let all = || items(value).chain(members(value).map(|(_, value)| value));
                let condition = inside
                    .strip_prefix("?(@.")
                    .and_then(|text| text.strip_suffix(')'));
                match (inside, condition.and_then(|text| text.split_once("=="))) {
                    ("*", _) => all().collect(),
                    (_, Some((name, wanted))) => {
                        let wanted = wanted.trim().trim_matches(['"', '\'']);
                        let is_it = |item: &&Value| text(at(item, name.trim())) == wanted;
                        all().filter(is_it).collect()
                    }
                    _ => match inside.parse::<usize>() {
                        Ok(index) => value.get(index).into_iter().collect(),
                        Err(_) => value
                            .get(inside.trim_matches(['"', '\'']))
                            .into_iter()
                            .collect(),
                    },
                }
            };
            found = found.into_iter().flat_map(of).collect();
            continue;
        }
        let name = rest.trim_start_matches('.');
        // A dot in a name is escaped.
        let bytes = name.as_bytes();
        let is_end =
            |at: &usize| matches!(bytes[*at], b'.' | b'[') && (*at == 0 || bytes[*at - 1] != b'\\');
        let end = (0..name.len()).find(is_end).unwrap_or(name.len());
        let key = name[..end].replace('\\', "");
        rest = &name[end..];
        found = found
            .into_iter()
            .filter_map(|value| value.get(&key))
            .collect();
    }
    found
}

/// How long ago a time was.
pub(super) fn since(time: &Value, now: Stamp) -> String {
    let stamp = time.as_str().and_then(|t| Stamp::parse(t.as_bytes()));
    stamp.map_or("<unknown>".to_owned(), |stamp| duration(stamp, now))
}

/// `HumanDuration` of `k8s.io/apimachinery/pkg/util/duration/duration.go`.
pub(super) fn duration(from: Stamp, to: Stamp) -> String {
    let seconds = to.unix_seconds() - from.unix_seconds();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit, small: i64, small_unit| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, 'd', hours % 24, 'h'),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_writes_them() {
        let at = |seconds| Stamp::from_unix(seconds, 0).unwrap();
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (127, "2m7s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (47 * 3600, "47h"),
            (2 * 86_400, "2d"),
            (2 * 86_400 + 3600, "2d1h"),
            (8 * 86_400 + 3600, "8d"),
            (730 * 86_400, "2y"),
            (731 * 86_400, "2y1d"),
            (3000 * 86_400, "8y"),
        ] {
            assert_eq!(duration(at(0), at(seconds)), expected, "{seconds}");
        }
    }

    #[test]
    fn paths_of_columns_lead_where_jsonpath_leads() {
        let object = json!({"a": {"b.c": 1, "list": [{"n": "x", "v": 2}, {"n": "y", "v": 3}]}});
        for (path, expected) in [
            (".a.list[0].v", json!([2])),
            (".a['b.c']", json!([1])),
            (r".a.b\.c", json!([1])),
            (r#".a.list[?(@.n=="y")].v"#, json!([3])),
            (".a.list[*].v", json!([2, 3])),
            (".a.nothing.v", json!([])),
            (".a.list[", json!([])),
        ] {
            assert_eq!(json!(along(&object, path)), expected, "{path}");
        }
    }
}
