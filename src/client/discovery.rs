//! Which resources a server has: in flows a name that a user gives, out comes the resource.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::ACCEPT};
use serde::Deserialize;

use super::Client;
use crate::{
    Resource, Result,
    error::{CallerError, PeerError},
    limits,
    transport::http::collect,
    wire::watch::EventError,
};

/// A resource that a server has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Discovered {
    /// The resource.
    pub resource: Resource,
    /// The kind of its objects, such as `Pod`.
    pub kind: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

/// All resources of a server in one answer (KEP-3352), where it has that; else its groups.
#[derive(Deserialize)]
#[serde(untagged)]
enum Groups {
    Aggregated {
        items: Vec<Group>,
    },
    Plain {
        groups: Vec<GroupVersions>,
    },
    /// `/api` of servers without aggregation.
    Core {
        versions: Vec<String>,
    },
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
    #[serde(default)]
    resources: Vec<Aggregated>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Aggregated {
    resource: String,
    #[serde(default)]
    response_kind: Kind,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default)]
    short_names: Vec<String>,
}

#[derive(Deserialize, Default)]
struct Kind {
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersions {
    name: String,
    preferred_version: Version,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Plain>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Plain {
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    short_names: Vec<String>,
}

impl Plain {
    fn is_called(&self, name: &str) -> bool {
        // Subresources are no resources of their own.
        !self.name.contains('/')
            && (self.name == name
                || self.singular_name == name
                || self.kind.eq_ignore_ascii_case(name)
                || self.short_names.iter().any(|short| short == name))
    }
}

impl From<Aggregated> for Plain {
    fn from(of: Aggregated) -> Self {
        Self {
            name: of.resource,
            kind: of.response_kind.kind,
            namespaced: of.scope == "Namespaced",
            singular_name: of.singular_resource,
            short_names: of.short_names,
        }
    }
}

/// `k8s.io/client-go/discovery/discovery_client.go`: aggregated first, plain as the fallback.
const ACCEPT_GROUPS: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                             application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                             application/json";

pub(super) async fn find(client: &Client, wanted: &str) -> Result<Discovered> {
    for path in ["/api", "/apis"] {
        for (group, version, resources) in groups(client, path, wanted).await? {
            let (name, of_group) = match wanted.split_once('.') {
                Some((name, of_group)) => (name, Some(of_group)),
                None => (wanted, None),
            };
            if of_group.is_some_and(|of_group| of_group != group) {
                continue;
            }
            let resources = match resources {
                Some(resources) => resources,
                None => plain(client, &group, &version).await?,
            };
            if let Some(found) = resources.into_iter().find(|r| r.is_called(name)) {
                return Ok(Discovered {
                    resource: Resource::new(group, version, found.name),
                    kind: found.kind,
                    namespaced: found.namespaced,
                });
            }
        }
    }
    let text = format!("the server has no resource {wanted:?}");
    Err(CallerError::Request(text).into())
}

type Found = (String, String, Option<Vec<Plain>>);

/// The groups with their preferred versions, and their resources if they are known with that.
async fn groups(client: &Client, path: &str, wanted: &str) -> Result<Vec<Found>> {
    let body = get(client, path, ACCEPT_GROUPS, wanted).await?;
    Ok(match parse(&body)? {
        Groups::Aggregated { items } => items
            .into_iter()
            .filter_map(|group| {
                // The preferred version comes first.
                let first = group.versions.into_iter().next()?;
                let resources = first.resources.into_iter().map(Plain::from).collect();
                Some((group.metadata.name, first.version, Some(resources)))
            })
            .collect(),
        Groups::Plain { groups } => groups
            .into_iter()
            .map(|group| (group.name, group.preferred_version.version, None))
            .collect(),
        Groups::Core { versions } => versions
            .into_iter()
            .map(|version| (String::new(), version, None))
            .collect(),
    })
}

async fn plain(client: &Client, group: &str, version: &str) -> Result<Vec<Plain>> {
    let path = match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    let body = get(client, &path, "application/json", &path).await?;
    Ok(parse::<Resources>(&body)?.resources)
}

fn parse<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T> {
    let parsed = serde_json::from_slice(body);
    Ok(parsed.map_err(|e| PeerError::from(EventError::Decode(e.to_string())))?)
}

async fn get(client: &Client, path: &str, accept: &'static str, wanted: &str) -> Result<Bytes> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    let response = client.http().get(path, &headers).await?;
    let operation = format!("discovery of {wanted}");
    collect(&operation, response, limits::LIST_BODY).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_of_a_resource_will_do() {
        let pods: Resources = parse(&Bytes::from_static(
            br#"{"resources": [{"name": "pods", "singularName": "pod", "namespaced": true,
                "kind": "Pod", "shortNames": ["po"]}, {"name": "pods/log", "kind": "Pod"}]}"#,
        ))
        .unwrap();
        for name in ["pods", "pod", "po", "Pod"] {
            assert!(pods.resources[0].is_called(name), "{name}");
            assert!(!pods.resources[1].is_called(name), "{name}");
        }
        assert!(!pods.resources[0].is_called("services"));
    }
}
