//! What the server has: out of the table of kinds come the documents by which clients find out
//! which resources there are, each alone (`k8s.io/apiserver/pkg/endpoints/discovery`) or all in
//! one (`.../discovery/aggregated`).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Kind, types::REFERENCE};
use crate::{
    Resource,
    testing::{
        checks::schema,
        values::json::{items, list, set, text},
    },
};

/// The media type of the aggregated form.
pub(crate) const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A subresource's group, version and kind, and its verbs.
pub(crate) fn subresource(name: &str, kind: &Kind) -> (Value, Vec<&'static str>) {
    let lines = include_str!("subresources.txt").lines();
    let mut lines = lines.map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|line| line[0] == name || line[0] == "*");
    let line = line.expect("the last line is for all");
    let (group, version) = (&*kind.resource.group, &*kind.resource.version);
    let of = match line[1].split('/').collect::<Vec<_>>()[..] {
        [group, version, kind] => response(group, version, kind),
        _ => {
            let options = line[1].trim_start_matches(['-', '+']);
            response(group, version, &format!("{}{options}", kind.kind))
        }
    };
    (of, line[2].split(',').collect())
}

fn response(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// `/api`.
pub(crate) fn versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// Each once, in order.
fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut known = Vec::new();
    for name in names {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    known
}

/// The core group or all others.
fn names_of_groups(kinds: &[Arc<Kind>], core: bool) -> Vec<&str> {
    let groups = kinds.iter().map(|kind| &*kind.resource.group);
    unique(groups.filter(|group| group.is_empty() == core))
}

fn versions_of<'a>(kinds: &'a [Arc<Kind>], group: &str) -> Vec<&'a str> {
    let kinds = kinds.iter().filter(|kind| kind.resource.group == group);
    unique(kinds.map(|kind| &*kind.resource.version))
}

fn group_of(kinds: &[Arc<Kind>], name: &str) -> Value {
    let versions = versions_of(kinds, name).into_iter();
    let versions = versions
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}));
    let versions: Vec<_> = versions.collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

/// `/apis`.
pub(crate) fn groups(kinds: &[Arc<Kind>]) -> Value {
    let groups = names_of_groups(kinds, false).into_iter();
    let groups: Vec<_> = groups.map(|name| group_of(kinds, name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`; `None` if there is no such group.
pub(crate) fn group(kinds: &[Arc<Kind>], group: &str) -> Option<Value> {
    let is_there = names_of_groups(kinds, false).contains(&group);
    is_there.then(|| {
        let mut object = group_of(kinds, group);
        object["kind"] = "APIGroup".into();
        object["apiVersion"] = "v1".into();
        object
    })
}

/// `/api/v1` or `/apis/{group}/{version}`, out of the aggregated form; `None` if there is no such
/// version.
pub(crate) fn resources(kinds: &[Arc<Kind>], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in of_version(kinds, group, version) {
        let (plural, namespaced) = (&kind.resource.plural, kind.resource.namespaced);
        let whole = resource(kind);
        let mut own = json!({
            "name": plural, "singularName": kind.singular, "namespaced": namespaced,
            "kind": kind.kind, "verbs": whole["verbs"],
        });
        set(&mut own, "shortNames", &whole["shortNames"]);
        set(&mut own, "categories", &whole["categories"]);
        resources.push(own);
        for sub in items(&whole["subresources"]) {
            let of = &sub["responseKind"];
            let mut resource = json!({
                "name": format!("{plural}/{}", text(&sub["subresource"])), "singularName": "",
                "namespaced": namespaced, "kind": of["kind"], "verbs": sub["verbs"],
            });
            if (text(&of["group"]), text(&of["version"])) != (group, version) {
                set(&mut resource, "group", &of["group"]);
                set(&mut resource, "version", &of["version"]);
            }
            resources.push(resource);
        }
    }
    (!resources.is_empty()).then(|| {
        let mut list = json!({
            "kind": "APIResourceList", "groupVersion": of_version(kinds, group, version)[0].resource.api_version(), "resources": resources,
        });
        // The oldest list is of no version.
        if !group.is_empty() {
            list["apiVersion"] = "v1".into();
        }
        list
    })
}

fn of_version<'a>(kinds: &'a [Arc<Kind>], group: &str, version: &str) -> Vec<&'a Kind> {
    let is_it =
        |kind: &&Arc<Kind>| kind.resource.group == group && kind.resource.version == version;
    kinds.iter().filter(is_it).map(Arc::as_ref).collect()
}

/// Where OpenAPI has a version: `api/v1`.
fn root(kind: &Kind) -> String {
    let is_core = kind.resource.group.is_empty();
    let root = if is_core { "api" } else { "apis" };
    format!("{root}/{}", kind.resource.api_version())
}

/// `/openapi/v3`: where the document of each version is.
pub(crate) fn openapi(kinds: &[Arc<Kind>]) -> Value {
    let paths: serde_json::Map<_, _> = kinds
        .iter()
        .map(|kind| root(kind))
        .map(|path| {
            let url = format!("/openapi/v3/{path}");
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// `/`: what there is.
pub(crate) fn paths_of(kinds: &[Arc<Kind>]) -> Value {
    let versions = kinds.iter().flat_map(|kind| {
        let path = format!("/{}", root(kind));
        [
            path.rsplit_once('/')
                .map_or("", |(front, _)| front)
                .to_owned(),
            path,
        ]
    });
    let others = "/apis /healthz /livez /openapi/v2 /openapi/v3 /readyz /version".split(' ');
    let paths: std::collections::BTreeSet<_> = versions.chain(others.map(str::to_owned)).collect();
    json!({"paths": paths})
}

pub(crate) fn openapi_of(kinds: &[Arc<Kind>], group: &str, version: &str) -> Option<Value> {
    let kinds = of_version(kinds, group, version);
    (!kinds.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.2"},
            "paths": paths(&kinds, |reference| json!({
                "content": {"application/json": {"schema": reference}},
            })),
            "components": {"schemas": schema::documents(&kinds)},
        })
    })
}

/// `/openapi/v2`: the document of all kinds.
pub(crate) fn openapi_v2(kinds: &[Arc<Kind>]) -> String {
    let kinds: Vec<_> = kinds.iter().map(Arc::as_ref).collect();
    let document = json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": paths(&kinds, |reference| json!({"schema": reference})),
        "definitions": schema::documents(&kinds),
    });
    document.to_string().replace(REFERENCE, "#/definitions/")
}

/// What can be done with each kind: whether fields are checked is what kubectl asks of it.
fn paths(kinds: &[&Kind], answer: impl Fn(Value) -> Value) -> Value {
    let mut paths = serde_json::Map::new();
    for kind in kinds {
        let Resource {
            group,
            version,
            plural,
            namespaced,
        } = &kind.resource;
        let scope = namespaced.then_some("/namespaces/{namespace}");
        let scope = scope.unwrap_or_default();
        let name = match kind.type_name() {
            Some(name) => name.to_owned(),
            None => format!("{group}.{version}.{}", kind.kind),
        };
        let of = response(group, version, &kind.kind);
        let operation = |action: &str, names: &[&str]| {
            let parameters = names
                .iter()
                .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}));
            let mut answer = answer(json!({"$ref": format!("{REFERENCE}{name}")}));
            answer["description"] = "OK".into();
            json!({
                "parameters": parameters.collect::<Vec<_>>(), "responses": {"200": answer},
                "x-kubernetes-action": action, "x-kubernetes-group-version-kind": of,
            })
        };
        let write = &["dryRun", "fieldManager", "fieldValidation"][..];
        let path = format!("/{}{scope}/{plural}", root(kind));
        let verbs = kind.verbs();
        let mut add = |path: String, method: &str, verb: &str, names: &[&str]| {
            if verbs.contains(&verb) {
                paths.entry(path).or_insert_with(|| json!({}))[method] = operation(verb, names);
            }
        };
        add(path.clone(), "post", "create", write);
        let path = format!("{path}/{{name}}");
        add(path.clone(), "get", "get", &[]);
        add(path.clone(), "put", "update", write);
        let apply = ["dryRun", "fieldManager", "fieldValidation", "force"];
        add(path, "patch", "patch", &apply);
    }
    paths.into()
}

/// A kind in the aggregated form.
fn resource(kind: &Kind) -> Value {
    let of = &kind.resource;
    let subresources = kind.subresources.iter().map(|name| {
        let (of, verbs) = subresource(name, kind);
        json!({"subresource": name, "responseKind": of, "verbs": verbs})
    });
    let mut resource = json!({
        "resource": of.plural,
        "responseKind": response(&of.group, &of.version, &kind.kind),
        "scope": if of.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs(),
    });
    let texts = |of: &[String]| list(of.iter().map(|text| json!(text)));
    set(&mut resource, "shortNames", &texts(&kind.short));
    set(&mut resource, "categories", &texts(&kind.categories));
    set(&mut resource, "subresources", &list(subresources));
    resource
}

/// `/api` or `/apis` in the aggregated form.
pub(crate) fn aggregated(kinds: &[Arc<Kind>], core: bool) -> Value {
    let items = names_of_groups(kinds, core).into_iter().map(|group| {
        let versions = versions_of(kinds, group).into_iter().map(|version| {
            let kinds = of_version(kinds, group, version).into_iter();
            let resources: Vec<_> = kinds.map(resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        });
        json!({
            "metadata": {"name": group, "creationTimestamp": null},
            "versions": versions.collect::<Vec<_>>(),
        })
    });
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::kinds::Kinds;

    #[test]
    fn every_line_of_the_tables_of_requests_is_used() {
        let kinds = Kinds::new().all();
        let lines = |text: &'static str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(|line| line.split(' ').collect::<Vec<_>>())
        };
        let mut verbs = vec!["create", "update", "patch", "get"];
        verbs.extend(["delete", "deletecollection", "list", "watch"]);
        for line in lines(include_str!("subresources.txt")) {
            let [name, of, can] = line[..] else {
                panic!("{line:?}");
            };
            assert!(
                name == "*" || kinds.iter().any(|kind| kind.has(name)),
                "{name}"
            );
            assert!(
                of.starts_with(['-', '+']) || of.split('/').count() == 3,
                "{of}"
            );
            assert!(can.split(',').all(|verb| verbs.contains(&verb)), "{can}");
        }
    }
}
