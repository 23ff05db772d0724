//! What the server has: out of the table of kinds come the documents by which clients find out
//! which resources there are, each alone (`k8s.io/apiserver/pkg/endpoints/discovery`) or all in
//! one (`.../discovery/aggregated`).

use std::sync::Arc;

use serde_json::{Value, json};

use super::kinds::Kind;

/// The media type of the aggregated form.
pub(super) const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const CHANGE: &[&str] = &["get", "patch", "update"];
const STREAM: &[&str] = &["create", "get"];
const CREATE: &[&str] = &["create"];

/// A subresource: its group, version and kind, where they are not the resource's, and its verbs.
fn subresource(name: &str, kind: &Kind) -> ([String; 3], &'static [&'static str]) {
    let own = [
        kind.resource.group.to_string(),
        kind.resource.version.to_string(),
        kind.kind.clone(),
    ];
    let options = |of: &str| {
        let [group, version, kind] = own.clone();
        [group, version, format!("{kind}{of}Options")]
    };
    let other = |group: &str, version: &str, kind: &str| [group, version, kind].map(str::to_owned);
    match name {
        "attach" => (options("Attach"), STREAM),
        "exec" => (options("Exec"), STREAM),
        "portforward" => (options("PortForward"), STREAM),
        "proxy" => (
            options("Proxy"),
            &["create", "delete", "get", "patch", "update"],
        ),
        "log" => (own, &["get"]),
        "binding" => (other("", "v1", "Binding"), CREATE),
        "eviction" => (other("policy", "v1", "Eviction"), CREATE),
        "token" => (other("authentication.k8s.io", "v1", "TokenRequest"), CREATE),
        "scale" => (other("autoscaling", "v1", "Scale"), CHANGE),
        "finalize" => (own, &["update"]),
        _ => (own, CHANGE),
    }
}

/// `/api`.
pub(super) fn versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// A version of a group, and its kinds.
type Version<'a> = (&'a str, Vec<&'a Kind>);
type Group<'a> = (&'a str, Vec<Version<'a>>);

/// The core group or all others, and their versions, in order.
fn grouped(kinds: &[Arc<Kind>], core: bool) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for kind in kinds
        .iter()
        .filter(|kind| kind.resource.group.is_empty() == core)
    {
        let (group, version) = (&*kind.resource.group, &*kind.resource.version);
        let at = groups.iter().position(|(name, _)| *name == group);
        let at = at.unwrap_or_else(|| {
            groups.push((group, Vec::new()));
            groups.len() - 1
        });
        let versions = &mut groups[at].1;
        match versions.iter_mut().find(|(name, _)| *name == version) {
            Some((_, kinds)) => kinds.push(kind),
            None => versions.push((version, vec![kind])),
        }
    }
    groups
}

fn group_of(name: &str, versions: &[Version<'_>]) -> Value {
    let versions: Vec<_> = versions
        .iter()
        .map(
            |(version, _)| json!({"groupVersion": format!("{name}/{version}"), "version": version}),
        )
        .collect();
    json!({"name": name, "preferredVersion": versions[0], "versions": versions})
}

/// `/apis`.
pub(super) fn groups(kinds: &[Arc<Kind>]) -> Value {
    let groups = grouped(kinds, false);
    let groups = groups
        .iter()
        .map(|(name, versions)| group_of(name, versions));
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Vec<_>>()})
}

/// `/apis/{group}`; `None` if there is no such group.
pub(super) fn group(kinds: &[Arc<Kind>], group: &str) -> Option<Value> {
    let groups = grouped(kinds, false);
    let (name, versions) = groups.iter().find(|(name, _)| *name == group)?;
    let mut object = group_of(name, versions);
    object["kind"] = "APIGroup".into();
    object["apiVersion"] = "v1".into();
    Some(object)
}

/// `/api/v1` or `/apis/{group}/{version}`; `None` if there is no such version.
pub(super) fn resources(kinds: &[Arc<Kind>], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    let mine = kinds
        .iter()
        .filter(|kind| kind.resource.group == group && kind.resource.version == version);
    for kind in mine {
        let (plural, namespaced) = (&kind.resource.plural, kind.resource.namespaced);
        let mut resource = json!({
            "name": plural, "singularName": kind.singular, "namespaced": namespaced,
            "kind": kind.kind, "verbs": kind.verbs(),
        });
        if !kind.short.is_empty() {
            resource["shortNames"] = kind.short.clone().into();
        }
        if !kind.categories.is_empty() {
            resource["categories"] = kind.categories.clone().into();
        }
        resources.push(resource);
        for name in &kind.subresources {
            let ([of_group, of_version, of_kind], verbs) = subresource(name, kind);
            let mut resource = json!({
                "name": format!("{plural}/{name}"), "singularName": "", "namespaced": namespaced,
                "kind": of_kind, "verbs": verbs,
            });
            if (&*of_group, &*of_version) != (group, version) {
                resource["group"] = of_group.into();
                resource["version"] = of_version.into();
            }
            resources.push(resource);
        }
    }
    let group_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
            "resources": resources,
        })
    })
}

/// `/openapi/v3`: where the document of each version is.
pub(super) fn openapi(kinds: &[Arc<Kind>]) -> Value {
    let mut paths = serde_json::Map::new();
    for kind in kinds {
        let path = match &*kind.resource.group {
            "" => format!("api/{}", kind.resource.version),
            _ => format!("apis/{}", kind.resource.api_version()),
        };
        let url = format!("/openapi/v3/{path}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// The document of a version: which operations there are, and for custom resources their schemas.
/// Whether fields are checked is what kubectl asks of it.
pub(super) fn openapi_of(kinds: &[Arc<Kind>], group: &str, version: &str) -> Option<Value> {
    let mine = kinds
        .iter()
        .filter(|kind| kind.resource.group == group && kind.resource.version == version);
    let (mut paths, mut schemas) = (serde_json::Map::new(), serde_json::Map::new());
    for kind in mine {
        let root = if group.is_empty() { "api" } else { "apis" };
        let scope = if kind.resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let (of, plural) = (kind.resource.api_version(), &kind.resource.plural);
        let path = format!("/{root}/{of}{scope}/{plural}/{{name}}");
        let gvk = json!({"group": group, "version": version, "kind": kind.kind});
        let mut names = vec!["dryRun", "fieldManager", "force"];
        if kind.custom.is_some() || cfg!(feature = "k8s-openapi") {
            names.push("fieldValidation");
        }
        let parameters: Vec<_> = names
            .into_iter()
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}))
            .collect();
        let patch = json!({
            "parameters": parameters, "responses": {}, "x-kubernetes-group-version-kind": gvk,
        });
        paths.insert(path, json!({"patch": patch}));
        if let Some(custom) = kind
            .custom
            .as_ref()
            .filter(|custom| custom.schema.is_object())
        {
            let mut schema = custom.schema.clone();
            schema["x-kubernetes-group-version-kind"] = json!([gvk]);
            schemas.insert(format!("{group}.{version}.{}", kind.kind), schema);
        }
    }
    (!paths.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.2"},
            "paths": paths, "components": {"schemas": schemas},
        })
    })
}

/// `/api` or `/apis` in the aggregated form.
pub(super) fn aggregated(kinds: &[Arc<Kind>], core: bool) -> Value {
    let response = |[group, version, kind]: [String; 3]| json!({"group": group, "version": version, "kind": kind});
    let resource = |kind: &Kind| {
        let of = &kind.resource;
        let own = [
            of.group.to_string(),
            of.version.to_string(),
            kind.kind.clone(),
        ];
        let subresources = kind.subresources.iter().map(|name| {
            let (of, verbs) = subresource(name, kind);
            json!({"subresource": name, "responseKind": response(of), "verbs": verbs})
        });
        let mut resource = json!({
            "resource": of.plural,
            "responseKind": response(own),
            "scope": if of.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": kind.singular,
            "verbs": kind.verbs(),
        });
        let mut add = |name: &str, values: Vec<Value>| {
            if !values.is_empty() {
                resource[name] = values.into();
            }
        };
        let values = |texts: &[String]| texts.iter().cloned().map(Value::from).collect();
        add("shortNames", values(&kind.short));
        add("categories", values(&kind.categories));
        add("subresources", subresources.collect());
        resource
    };
    let items = grouped(kinds, core).into_iter().map(|(group, versions)| {
        let versions = versions.into_iter().map(|(version, kinds)| {
            let resources: Vec<_> = kinds.into_iter().map(resource).collect();
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
