//! Tables: in flow objects, out comes what `kubectl get` prints.
//!
//! The columns of built-in kinds are in a table, those of custom resources in their definitions.

use std::{collections::HashMap, sync::LazyLock};

use serde_json::{Value, json};

use crate::{
    testing::{
        kinds::Kind,
        values::{
            json::{items, some, text},
            paths::each_of,
            texts,
        },
    },
    wire::stamp::Stamp,
};

/// What a row can say about its object besides the cells, its metadata unless said otherwise
/// (`includeObject`, `k8s.io/apimachinery/pkg/apis/meta/v1/types.go`).
pub(crate) const INCLUDED: [&str; 4] = ["", "Metadata", "None", "Object"];

/// The table of these objects, without its metadata. Only the first table of a watch names its
/// columns (`k8s.io/apiserver/pkg/endpoints/handlers/response.go`).
pub(crate) fn table<'a>(
    version: &str,
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    include: &str,
    with_columns: bool,
    now: Stamp,
) -> Value {
    let columns = columns(kind);
    let definitions = columns.iter().map(|column| column.definition.clone());
    let rows = objects.into_iter().map(|object| {
        let mut row = json!({"cells": columns.iter().map(|column| column.cell(object, now)).collect::<Vec<_>>()});
        row["object"] = match include {
            "None" => Value::Null,
            "Object" => object.clone(),
            _ => partial(version, object),
        };
        row
    });
    let rows: Vec<_> = rows.collect();
    // `k8s.io/apiserver/pkg/registry/rest/table.go` makes no list of none.
    let is_default = columns
        .last()
        .is_some_and(|column| column.definition["name"] == "Created At");
    json!({
        "kind": "Table",
        "apiVersion": version,
        "columnDefinitions": with_columns.then(|| definitions.collect::<Vec<_>>()),
        "rows": if is_default && rows.is_empty() { Value::Null } else { rows.into() },
    })
}

pub(crate) fn partial(version: &str, object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": version,
        "metadata": object["metadata"],
    })
}

struct Column {
    definition: Value,
    /// What a built-in kind's cells are made of.
    template: &'static str,
    /// Where a custom resource has it, with its type.
    path: Option<(Vec<String>, String)>,
}

impl Column {
    fn parse(text: &'static str) -> Option<Self> {
        let text = match text {
            "AGE" => "Age:string={age:metadata/creationTimestamp|<unknown>}",
            text => text,
        };
        let (name, rest) = text.split_once(':')?;
        let (of, template) = rest.split_once('=')?;
        let priority = i32::from(name.starts_with('['));
        let name = name.trim_start_matches('[').replace('_', " ");
        let is_name = ["Name", "Attacher"].contains(&&*name);
        let format = if is_name { "name" } else { "" };
        Some(Self {
            definition: json!({
                "name": name, "type": of, "format": format, "description": "", "priority": priority,
            }),
            template,
            path: None,
        })
    }

    /// Likewise, of a resource.
    fn described(mut self, plural: &str) -> Self {
        let name = text(&self.definition["name"]);
        let known = DESCRIPTIONS.get(&(plural, name));
        let known = known.or_else(|| DESCRIPTIONS.get(&("*", name)));
        let known = known.map_or("", String::as_str);
        self.definition["description"] = known.into();
        self
    }

    /// A column of a definition (`k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor`).
    fn custom(column: &Value) -> Self {
        let of = text(&column["type"]);
        let path = text(&column["jsonPath"]);
        let known = some(&column["description"]).map(str::to_owned);
        let unknown = || format!("Custom resource definition column (in JSONPath format): {path}");
        Self {
            definition: json!({
                "name": column["name"], "type": of, "format": text(&column["format"]),
                "description": known.unwrap_or_else(unknown),
                "priority": column["priority"].as_i64().unwrap_or_default(),
            }),
            template: "",
            path: Some((segments(path), of.to_owned())),
        }
    }

    fn cell(&self, object: &Value, now: Stamp) -> Value {
        let Some((path, of)) = &self.path else {
            return texts::value(self.template, object, now);
        };
        match (&**of, first(object, path)) {
            (_, Value::Null) => Value::Null,
            ("date", value) => texts::since(&value, now).into(),
            ("string", value @ Value::String(_)) => value,
            ("string", value) => value.to_string().into(),
            (_, value) => value,
        }
    }
}

fn columns(kind: &Kind) -> Vec<Column> {
    if let Some(custom) = &kind.custom {
        let own = &custom["additionalPrinterColumns"];
        let parse = |text| Some(Column::parse(text)?.described("*"));
        let name = parse("Name:string={metadata/name}");
        let age = parse("Age:date={age:metadata/creationTimestamp|<unknown>}");
        let age = age.filter(|_| own.is_null());
        let own = items(own).map(Column::custom);
        return name.into_iter().chain(own).chain(age).collect();
    }
    let lines = include_str!("columns.txt").lines();
    let mut lines = lines.filter_map(|line| line.split_once(' '));
    let plural = &*kind.resource.plural;
    let line = lines.find(|(known, _)| *known == plural);
    let columns = line.map_or("Name:string={metadata/name} AGE", |(_, columns)| columns);
    let columns = columns.split(' ').filter_map(Column::parse);
    columns.map(|column| column.described(plural)).collect()
}

/// By resource and column.
static DESCRIPTIONS: LazyLock<HashMap<(&str, &str), String>> = LazyLock::new(|| {
    let lines = include_str!("descriptions.txt").lines();
    let line = |line: &'static str| {
        let (plural, rest) = line.split_once('|')?;
        let (name, text) = rest.split_once('|')?;
        Some(((plural, name), text.replace("\\n", "\n")))
    };
    lines.filter_map(line).collect()
});

/// A definition's path, of which columns have the parts `.a.b`, `['a']`, `[0]`, `[*]` and
/// `[?(@.a=="b")]` of JSONPath, in the tables' terms. All else leads to nothing.
fn segments(path: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some((inside, after)) = inner.split_once(']') else {
                return vec!["?".to_owned()];
            };
            let condition = inside.strip_prefix("?(@.");
            let condition = condition.and_then(|text| text.strip_suffix(')')?.split_once("=="));
            match (inside, condition) {
                ("*", _) => names.push("#".to_owned()),
                (_, Some((name, wanted))) => {
                    let wanted = wanted.trim().trim_matches(['"', '\'']);
                    let path = name.trim().replace('.', "/");
                    names.extend(["#".to_owned(), format!("?{path}=={wanted}")]);
                }
                _ => names.push(format!("[{}]", inside.trim_matches(['"', '\'']))),
            }
            rest = after;
            continue;
        }
        let name = rest.trim_start_matches('.');
        // A dot in a name is escaped.
        let bytes = name.as_bytes();
        let is_end =
            |at: &usize| matches!(bytes[*at], b'.' | b'[') && (*at == 0 || bytes[*at - 1] != b'\\');
        let end = (0..name.len()).find(is_end).unwrap_or(name.len());
        names.push(format!("[{}]", name[..end].replace('\\', "")));
        rest = &name[end..];
    }
    names
}

/// The first value that a path leads to.
fn first(object: &Value, path: &[String]) -> Value {
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    let mut found = each_of(object, &path, "").into_iter();
    let first = found.find(|(_, value)| !value.is_null());
    first.map_or(Value::Null, |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::kinds::Kinds;

    #[test]
    fn every_line_of_columns_is_of_a_kind_and_can_be_read() {
        let kinds = Kinds::new().all();
        let lines = include_str!("columns.txt").lines();
        for line in lines.filter(|line| !line.starts_with('#')) {
            let (plural, columns) = line.split_once(' ').unwrap();
            let is_kind = kinds.iter().any(|kind| *kind.resource.plural == *plural);
            assert!(is_kind || plural == "scales", "{plural}");
            for column in columns.split(' ') {
                let column = Column::parse(column).unwrap_or_else(|| panic!("{column}"));
                let template = column.template;
                let brackets = |wanted| template.matches(wanted).count();
                assert_eq!(brackets('{'), brackets('}'), "{template}");
                for name in template.split("{!").skip(1) {
                    let name = name.split('}').next().unwrap();
                    let arm = format!("{name:?}");
                    assert!(include_str!("cells.rs").contains(&arm), "{arm}");
                }
                // Of no object there is something, too.
                texts::value(template, &Value::Null, Stamp::from_unix(0, 0).unwrap());
            }
        }
    }

    #[test]
    fn cells_are_what_printers_make_of_services_and_requests_for_certificates() {
        let kinds = Kinds::new().all();
        let cell = |plural: &str, name: &str, object: &Value| {
            let kind = kinds
                .iter()
                .find(|kind| kind.resource.plural == plural)
                .unwrap();
            let columns = columns(kind);
            let mut columns = columns.iter().filter(|of| of.definition["name"] == name);
            let now = Stamp::from_unix(0, 0).unwrap();
            columns.next().unwrap().cell(object, now)
        };
        let ingress = json!({"loadBalancer": {"ingress": [{"hostname": "b"}, {"ip": "1.2.3.4"}]}});
        let ips = json!(["5.6.7.8"]);
        for (of, status, more, expected) in [
            ("ClusterIP", json!({}), json!(null), "<none>"),
            ("ClusterIP", json!({}), ips.clone(), "5.6.7.8"),
            ("LoadBalancer", json!({}), json!(null), "<pending>"),
            ("LoadBalancer", ingress, ips, "b,1.2.3.4,5.6.7.8"),
            ("ExternalName", json!({}), json!(null), "a.example"),
        ] {
            let spec = json!({"type": of, "externalName": "a.example", "externalIPs": more});
            let service = json!({"spec": spec, "status": status});
            assert_eq!(cell("services", "External-IP", &service), expected);
        }
        for (conditions, certificate, expected) in [
            (json!([]), "", "Pending"),
            (
                json!([{"type": "Approved", "status": "True"}]),
                "",
                "Approved",
            ),
            (
                json!([{"type": "Approved", "status": "True"}]),
                "eA==",
                "Approved,Issued",
            ),
            (
                json!([{"type": "Failed", "status": "True"}, {"type": "Denied", "status": "True"}]),
                "",
                "Denied,Failed",
            ),
            (
                json!([{"type": "Failed", "status": "True"}]),
                "eA==",
                "Pending,Failed,Issued",
            ),
        ] {
            let status = json!({"conditions": conditions, "certificate": certificate});
            let signing = json!({"status": status});
            let cell = cell("certificatesigningrequests", "Condition", &signing);
            assert_eq!(cell, expected);
        }
    }

    #[test]
    fn paths_of_columns_lead_where_jsonpath_leads() {
        let object = json!({"a": {"b.c": 1, "list": [{"n": "x", "v": 2}, {"n": "y", "v": 3}]}});
        for (path, expected) in [
            (".a.list[0].v", json!(2)),
            (".a['b.c']", json!(1)),
            (r".a.b\.c", json!(1)),
            (r#".a.list[?(@.n=="y")].v"#, json!(3)),
            (".a.list[*].v", json!(2)),
            (".a.nothing.v", json!(null)),
            (".a.list[", json!(null)),
        ] {
            assert_eq!(first(&object, &segments(path)), expected, "{path}");
        }
    }
}
