//! What a server answers to `get`: in flows a body, out comes a table, or a value to print.
//!
//! A server need not know tables: then the table is made here, of names and ages. What is neither
//! is an error, for it must not be taken for a list without objects.

use std::io;

use jiff::{Timestamp, Unit};
use kubewire::wire::{age, status::Status};
use serde::Serialize as _;
use serde_json::{Value, json, ser::Formatter};

use crate::{
    failure::{Failure, Local as _},
    jsonpath,
    printable::Printable,
    table::{Column, Row, Table},
};

/// Characters of an answer that are shown where it is not understood.
const EXCERPT: usize = 80;

/// JSON that is no Status of failure.
pub(crate) fn value(body: &[u8]) -> Result<Value, Failure> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        let text = String::from_utf8_lossy(body);
        let start: String = text.chars().take(EXCERPT).collect();
        format!("the server's answer is not JSON: {error}: {start:?}")
    })?;
    if value["kind"] == "Status" {
        return Err(status(body));
    }
    if !value.is_object() {
        bail!("the server's answer is no object");
    }
    Ok(value)
}

/// The objects of an answer, or the one that was named, each with its own kind.
pub(crate) fn objects(body: &[u8], named: bool) -> Result<Vec<Value>, Failure> {
    let mut value = value(body)?;
    let Some(kind) = value["kind"].as_str().map(str::to_owned) else {
        bail!("the server's answer is neither an object nor a list, for it has no kind");
    };
    if named {
        return Ok(vec![value]);
    }
    match (
        value.get_mut("items").map(Value::take),
        kind.strip_suffix("List"),
    ) {
        (Some(Value::Array(mut items)), Some(kind)) => {
            let version = value["apiVersion"].take();
            // What a list says once, its items do not say again.
            items.iter_mut().for_each(|it| of_kind(it, kind, &version));
            Ok(items)
        }
        // Go writes an empty slice as `null`.
        (Some(Value::Null), Some(_)) => Ok(Vec::new()),
        _ => bail!("the server's answer, a {kind}, is a list without items"),
    }
}

/// Has an object say its kind, if it does not.
pub(crate) fn of_kind(object: &mut Value, kind: &str, version: &Value) {
    if let Value::Object(fields) = object {
        fields.entry("kind").or_insert_with(|| json!(kind));
        fields.entry("apiVersion").or_insert(version.clone());
    }
}

pub(crate) fn without_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Objects as the list that kubectl prints (`k8s.io/kubectl/pkg/cmd/get/get.go`, `printGeneric`).
pub(crate) fn list(items: Vec<Value>) -> Value {
    let metadata = json!({"resourceVersion": ""});
    json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": metadata})
}

/// JSON with kubectl's indents.
pub(crate) fn json(value: &Value) -> Printable {
    let indents = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    Printable::json(&encode(value, GoJson(indents)))
}

/// JSON on one line, as Go writes it.
pub(crate) fn go_json(value: &Value) -> String {
    encode(value, GoJson(serde_json::ser::CompactFormatter))
}

fn encode(value: &Value, formatter: impl Formatter) -> String {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // Writing a value to memory does not fail.
    let _ = value.serialize(&mut serializer);
    String::from_utf8_lossy(&text).into_owned()
}

/// JSON as Go's `encoding/json` writes it: what HTML would take for markup by its number, and
/// floats in its way.
struct GoJson<F>(F);

/// What is written as the formatter within does.
macro_rules! as_before {
    ($($method:ident($($argument:ident: $type:ty)?)),*) => { $(
        fn $method<W: ?Sized + io::Write>(&mut self, to: &mut W $(, $argument: $type)?) -> io::Result<()> {
            self.0.$method(to $(, $argument)?)
        }
    )* };
}

impl<F: Formatter> Formatter for GoJson<F> {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(jsonpath::float(value, 1e-6..1e21, 1).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = from.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    as_before! { begin_array(), end_array(), begin_array_value(first: bool), end_array_value() }
    as_before! { begin_object(), end_object(), begin_object_key(first: bool) }
    as_before! { begin_object_value(), end_object_value() }
}

/// The table that the server made, or one of the objects that it sent instead: the one that was
/// named, or a list.
pub(crate) fn table(body: &[u8], named: bool) -> Result<Table, Failure> {
    let mut value = value(body)?;
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    let unreadable = |problem: &str| {
        let kind = if kind.is_empty() { "object" } else { &kind };
        format!("the server's answer, a {kind}, {problem}").into()
    };
    if kind == "Table" {
        let table: Table = serde_json::from_value(value).local("the server's table")?;
        let columns = table.column_definitions.as_ref().map_or(0, Vec::len);
        let rows = table.rows.as_deref().unwrap_or_default();
        if columns == 0 || rows.iter().any(|row| row.cells.len() < columns) {
            return Err(unreadable("has rows or columns that are not told"));
        }
        if named && rows.is_empty() {
            return Err(unreadable("has no row for the object"));
        }
        return Ok(table);
    }
    // Any kind may be called so: what an `AllowList` is, the request says.
    let items = match named {
        true => Some(Value::Array(vec![value])),
        false => value.get_mut("items").map(Value::take),
    };
    let objects = match items {
        Some(Value::Array(items)) => items,
        // Go writes an empty slice as `null`.
        Some(Value::Null) if kind.ends_with("List") => Vec::new(),
        _ if kind.is_empty() => {
            return Err(unreadable("is neither a table nor objects with names"));
        }
        _ => return Err(unreadable("is a list without items")),
    };
    let has_name = |object: &Value| object["metadata"]["name"].is_string();
    if !objects.iter().all(has_name) {
        return Err(unreadable("is neither a table nor objects with names"));
    }
    let now = Timestamp::now();
    let row = |object: Value| {
        let age = age(&object["metadata"]["creationTimestamp"], now);
        Row {
            cells: vec![object["metadata"]["name"].clone(), json!(age)],
            object,
        }
    };
    Ok(Table {
        column_definitions: Some(vec![Column::new("Name"), Column::new("Age")]),
        rows: Some(objects.into_iter().map(row).collect()),
    })
}

/// What a Status says where something else was asked for.
fn status(body: &[u8]) -> Failure {
    let said = match Status::from_json(body) {
        Ok(status) if !status.is_success() && !status.message.is_empty() => status.message,
        Ok(status) if !status.is_success() => format!("{} ({})", status.reason, status.code),
        _ => "the server's answer is a Status, which is not what was asked for".to_owned(),
    };
    said.into()
}

/// How long ago a time was, as kubectl writes it.
pub(crate) fn age(created: &Value, now: Timestamp) -> String {
    let created = created.as_str().and_then(|time| time.parse().ok());
    let since = created.and_then(|it: Timestamp| now.since((Unit::Second, it)).ok());
    since.map_or("<unknown>".to_owned(), |it| age::human(it.get_seconds()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T>(result: Result<T, Failure>) -> String {
        match result {
            Err(Failure::Message(message)) => message,
            _ => panic!("no error"),
        }
    }

    #[test]
    fn what_is_not_understood_is_never_an_empty_table() {
        let failure =
            br#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no","code":500}"#;
        assert_eq!(said(table(failure, true)), "no");
        assert_eq!(said(table(failure, false)), "no");
        assert_eq!(said(value(failure)), "no");
        assert_eq!(said(objects(failure, true)), "no");
        assert_eq!(said(objects(failure, false)), "no");
        let success = br#"{"kind":"Status","apiVersion":"v1","status":"Success"}"#;
        assert!(said(table(success, true)).contains("not what was asked for"));
        for body in [
            "",
            "{}",
            "[]",
            "null",
            "\"x\"",
            "<html>login</html>",
            r#"{"kind":"Pod"}"#,
            r#"{"kind":"PodList"}"#,
            r#"{"kind":"PodList","items":{}}"#,
            r#"{"kind":"Table"}"#,
            r#"{"kind":"PodList","items":[{"metadata":{}}]}"#,
            r#"{"items":null}"#,
            r#"{"kind":"Table","columnDefinitions":[{"name":"A"}],"rows":[{}]}"#,
            r#"{"kind":"Table","columnDefinitions":[],"rows":[{"cells":["a"]}]}"#,
        ] {
            for named in [true, false] {
                assert!(!said(table(body.as_bytes(), named)).is_empty(), "{body}");
            }
        }
        let none = br#"{"kind":"Table","columnDefinitions":[{"name":"A"}],"rows":null}"#;
        assert!(table(none, false).is_ok());
        assert!(said(table(none, true)).contains("no row for the object"));
        for body in [
            "{}",
            r#"{"kind":"PodList"}"#,
            r#"{"kind":"Pod"}"#,
            r#"{"items":[]}"#,
        ] {
            assert!(!said(objects(body.as_bytes(), false)).is_empty(), "{body}");
        }
    }

    #[test]
    fn what_was_asked_for_says_whether_it_is_a_list() {
        let object = r#"{"kind":"AllowList","metadata":{"name":"a"},"items":["x"]}"#.as_bytes();
        let names = |table: Table| -> Vec<_> {
            let rows = table.rows.unwrap_or_default().into_iter();
            rows.map(|row| row.cells[0].clone()).collect()
        };
        assert_eq!(names(table(object, true).unwrap()), ["a"]);
        assert_eq!(objects(object, true).unwrap().len(), 1);
        assert!(said(table(object, false)).contains("AllowList"));
        let plain = br#"{"kind":"AllowList","metadata":{"name":"a"}}"#;
        assert_eq!(names(table(plain, true).unwrap()), ["a"]);
        // No list, where one was asked for.
        for body in [&plain[..], br#"{"kind":"Pod","metadata":{"name":"a"}}"#] {
            assert!(said(table(body, false)).contains("without items"));
            assert!(said(objects(body, false)).contains("without items"));
        }
        let list = br#"{"kind":"AllowListList","items":[{"metadata":{"name":"a"}}]}"#;
        assert_eq!(names(table(list, false).unwrap()), ["a"]);
        assert_eq!(objects(list, false).unwrap()[0]["kind"], "AllowList");
        // A list, where an object was asked for.
        assert!(said(table(list, true)).contains("AllowListList"));
    }

    #[test]
    fn json_is_what_go_writes() {
        let value =
            json!({"a": "<b>&\u{2028}\"\\\n\u{8}\u{1}ü", "f": [1e30, 100.0, 2.5e-9, 7], "e": {}});
        let text =
            r#"{"a":"\u003cb\u003e\u0026\u2028\"\\\n\b\u0001ü","e":{},"f":[1e+30,100,2.5e-9,7]}"#;
        assert_eq!(go_json(&value), text);
    }

    #[test]
    fn an_empty_list_is_an_empty_table() {
        for body in [
            r#"{"kind":"PodList","items":[]}"#,
            r#"{"kind":"PodList","items":null}"#,
            r#"{"kind":"Table","columnDefinitions":[{"name":"Name"}],"rows":null}"#,
            r#"{"kind":"Table","columnDefinitions":[{"name":"Name"}],"rows":[]}"#,
        ] {
            let table = table(body.as_bytes(), false).unwrap();
            assert!(table.rows.unwrap_or_default().is_empty(), "{body}");
        }
        for body in [
            r#"{"kind":"PodList","items":[]}"#,
            r#"{"kind":"PodList","items":null}"#,
        ] {
            assert!(objects(body.as_bytes(), false).unwrap().is_empty());
        }
    }

    #[test]
    fn ages_are_those_of_kubectl() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (28_799, "7h59m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            let created = now - jiff::SignedDuration::from_secs(seconds);
            assert_eq!(age(&created.to_string().into(), now), expected);
        }
        assert_eq!(age(&"yesterday".into(), now), "<unknown>");
    }
}
