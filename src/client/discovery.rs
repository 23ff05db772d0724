//! Which resources a server has: in flow `/api` and `/apis`, out comes the [`Resource`] that a
//! kind, a plural, a singular or a short name means.
//!
//! Servers from 1.26 on tell it all in two answers (aggregated discovery); others are asked for each
//! version of each group.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderValue,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde::Deserialize;
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::Instant,
};

use super::{Client, Resource, request::read};
use crate::{
    Error, Result,
    error::{CallerError, NetworkError, panic::caught_in},
    limits,
    transport::http::{Outgoing, refusal, text, unexpected},
};

/// `k8s.io/client-go/discovery/discovery_client.go`, `acceptDiscoveryFormats`.
const ACCEPTED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                        application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                        application/json";

#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Option<(Instant, Arc<Discovery>)>>);

/// The resources of a server, in the order of preference that it gives.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
/// let discovery = client.discover().await?;
/// let deployments = discovery.find("deploy").expect("it is served");
/// assert_eq!(deployments.kind, "Deployment");
/// assert!(deployments.verbs.iter().any(|verb| verb == "watch"));
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    resources: Vec<ApiResource>,
}

/// A resource and its names.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
/// let pods = client.find("po").await?;
/// assert_eq!((pods.resource.plural.as_ref(), pods.kind.as_str()), ("pods", "Pod"));
/// assert!(pods.subresources.iter().any(|name| name == "log"));
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiResource {
    /// The resource.
    pub resource: Resource,
    /// The `kind` of its objects.
    pub kind: String,
    /// The singular in small letters.
    pub singular: String,
    /// Abbreviations, such as `po`.
    pub short_names: Vec<String>,
    /// Groups of resources that it belongs to, such as `all`.
    pub categories: Vec<String>,
    /// What can be done with it: `get`, `list`, `watch`, …
    pub verbs: Vec<String>,
    /// Its subresources, such as `status`.
    pub subresources: Vec<String>,
    /// Whether this is the version of its group that the server prefers.
    pub preferred: bool,
}

impl Discovery {
    /// All resources.
    pub fn resources(&self) -> &[ApiResource] {
        &self.resources
    }

    /// The resource of a name, in any case: a plural, a singular, a kind or a short name, alone or
    /// followed by a group (`deployments.apps`) or a version and a group (`deployments.v1.apps`).
    ///
    /// Where several groups have the name, the server's first wins; a plural wins over a short
    /// name.
    pub fn find(&self, name: &str) -> Option<&ApiResource> {
        let name = name.to_ascii_lowercase();
        let (front, rest) = match name.split_once('.') {
            Some((front, rest)) => (front, Some(rest)),
            None => (&*name, None),
        };
        let is_of = |known: &ApiResource| {
            let Resource { group, version, .. } = &known.resource;
            let versioned = format!("{version}.{group}");
            match rest {
                None => known.preferred,
                Some(rest) if known.preferred && rest == group => true,
                Some(rest) => rest == versioned || rest == versioned.trim_end_matches('.'),
            }
        };
        let ways: [fn(&ApiResource, &str) -> bool; 4] = [
            |known, name| known.resource.plural == name,
            |known, name| known.singular == name,
            |known, name| known.kind.eq_ignore_ascii_case(name),
            |known, name| known.short_names.iter().any(|short| short == name),
        ];
        let known = self.resources.iter().filter(|_| !front.is_empty());
        ways.iter()
            .find_map(|is| known.clone().find(|it| is(it, front) && is_of(it)))
    }
}

impl Client {
    /// The resources of the server, as they were at most [`limits::DISCOVERY`] ago. One caller at a
    /// time asks; the others wait for it.
    ///
    /// # Errors
    ///
    /// Those of [`Request`](super::Request). A group whose own server does not answer is left out.
    pub async fn discover(&self) -> Result<Arc<Discovery>> {
        let mut cache = self.discovered.0.lock().await;
        if let Some((at, known)) = &*cache
            && at.elapsed() < limits::DISCOVERY
        {
            return Ok(Arc::clone(known));
        }
        let known = Arc::new(self.ask_all().await?);
        *cache = Some((Instant::now(), Arc::clone(&known)));
        Ok(known)
    }

    /// The resource of a name, as [`Discovery::find`] has it. One that is not known is looked for
    /// at the server once more: it may be new.
    ///
    /// # Errors
    ///
    /// [`CallerError::NoResource`] if the server has none of this name, and those of
    /// [`discover`](Self::discover).
    pub async fn find(&self, name: &str) -> Result<ApiResource> {
        let asked = Instant::now();
        if let Some(known) = self.discover().await?.find(name) {
            return Ok(known.clone());
        }
        {
            let mut cache = self.discovered.0.lock().await;
            // Unless it has been asked just now.
            if cache.as_ref().is_some_and(|(at, _)| *at < asked) {
                *cache = None;
            }
        }
        let known = self.discover().await?;
        known.find(name).cloned().ok_or_else(|| {
            let name = name.to_owned();
            CallerError::NoResource { name }.into()
        })
    }

    async fn ask_all(&self) -> Result<Discovery> {
        let deadline = limits::REQUEST;
        let (core, groups) = tokio::try_join!(
            self.ask("/api".into(), deadline),
            self.ask("/apis".into(), deadline)
        )?;
        let (mut known, mut wanted) = (Vec::new(), Vec::new());
        match core {
            Answer::Aggregated(groups) => known.extend(groups.known()),
            Answer::Plain(body) => {
                let Versions { versions } = read("discover /api", &body)?;
                wanted.extend(GroupVersion::of("", versions, None));
            }
        }
        match groups {
            Answer::Aggregated(groups) => known.extend(groups.known()),
            Answer::Plain(body) => {
                let Groups { groups } = read("discover /apis", &body)?;
                wanted.extend(groups.into_iter().flat_map(|group| {
                    let versions = group.versions.into_iter().map(|one| one.version);
                    let preferred = group.preferred_version.map(|one| one.version);
                    GroupVersion::of(&group.name, versions.collect(), preferred)
                }));
            }
        }
        known.extend(self.ask_versions(wanted).await?);
        Ok(Discovery { resources: known })
    }

    /// The resources of versions, in their order, asked for at once.
    async fn ask_versions(&self, wanted: Vec<GroupVersion>) -> Result<Vec<ApiResource>> {
        let permits = Arc::new(Semaphore::new(limits::DISCOVERY_REQUESTS));
        let mut asked = JoinSet::new();
        for (at, wanted) in wanted.into_iter().enumerate() {
            let (client, permits) = (self.clone(), Arc::clone(&permits));
            asked.spawn(async move {
                // It is never closed.
                let _permit = permits.acquire().await;
                let known = caught_in("the discovery", client.ask_version(wanted)).await;
                known.map(|known| (at, known))
            });
        }
        let mut found = Vec::new();
        while let Some(known) = asked.join_next().await {
            // The runtime is shut down.
            found.push(known.map_err(|_| CallerError::Killed)??);
        }
        found.sort_by_key(|(at, _)| *at);
        Ok(found.into_iter().flat_map(|(_, known)| known).collect())
    }

    async fn ask_version(&self, wanted: GroupVersion) -> Result<Vec<ApiResource>> {
        let (group, version) = (wanted.group.as_str(), wanted.version.as_str());
        let path = match group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        let body = match self.ask(path.clone(), limits::DISCOVERY_GROUP).await {
            Ok(Answer::Plain(body)) => body,
            Ok(Answer::Aggregated(_)) => return Ok(Vec::new()),
            // An aggregated server that is down must not hide all others.
            Err(error) if is_absent(&error) && !group.is_empty() => {
                tracing::warn!(group, version, %error, "the group is left out");
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let list: Resources = read(&format!("discover {path}"), &body)?;
        Ok(list.known(group, version, wanted.preferred))
    }

    async fn ask(&self, path: String, deadline: Duration) -> Result<Answer> {
        let operation = format!("discover {path}");
        let mut outgoing = Outgoing::get(operation.as_str(), path);
        outgoing.deadline = Some(deadline);
        outgoing.about.verb = "get".into();
        outgoing
            .headers
            .insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let response = self.http().send(outgoing).await?;
        if !response.status().is_success() {
            return Err(refusal(&operation, response).await);
        }
        let (head, body) = response.into_parts();
        if let Some(error) = unexpected(&operation, &head) {
            return Err(error);
        }
        let form = text(&head.headers, CONTENT_TYPE);
        let aggregated = form.is_some_and(|form| form.contains("as=APIGroupDiscoveryList"));
        let body = body.object(&operation).await?;
        match aggregated {
            true => Ok(Answer::Aggregated(read(&operation, &body)?)),
            false => Ok(Answer::Plain(body)),
        }
    }
}

/// Whether a group's own server, and not the API server, is at fault.
fn is_absent(error: &Error) -> bool {
    match error {
        Error::Api(error) => matches!(error.status.code, 404 | 502..=504),
        // The path of a group with a name that is none cannot be asked for.
        Error::Network(NetworkError::TimedOut { .. }) | Error::Caller(CallerError::Path { .. }) => {
            true
        }
        _ => false,
    }
}

/// What older servers are asked about one by one.
struct GroupVersion {
    group: String,
    version: String,
    preferred: bool,
}

impl GroupVersion {
    /// Those of a group, whose first version is preferred unless it says otherwise.
    fn of(group: &str, versions: Vec<String>, preferred: Option<String>) -> Vec<Self> {
        let preferred = preferred.or_else(|| versions.first().cloned());
        let of = |version: String| Self {
            group: group.to_owned(),
            preferred: Some(&version) == preferred.as_ref(),
            version,
        };
        versions.into_iter().map(of).collect()
    }
}

enum Answer {
    Aggregated(Aggregated),
    Plain(bytes::Bytes),
}

/// `APIGroupDiscoveryList` of `k8s.io/api/apidiscovery/v2/types.go`.
#[derive(Deserialize)]
struct Aggregated {
    #[serde(default)]
    items: Vec<AggregatedGroup>,
}

#[derive(Deserialize)]
struct AggregatedGroup {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    versions: Vec<AggregatedVersion>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
struct AggregatedVersion {
    version: String,
    #[serde(default)]
    resources: Vec<AggregatedResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedResource {
    resource: String,
    response_kind: Option<Kind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    subresources: Vec<AggregatedSubresource>,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

#[derive(Deserialize)]
struct AggregatedSubresource {
    subresource: String,
}

impl Aggregated {
    fn known(self) -> Vec<ApiResource> {
        let mut known = Vec::new();
        for group in self.items {
            for (at, version) in group.versions.into_iter().enumerate() {
                let known_as = |it: AggregatedResource| ApiResource {
                    resource: Resource {
                        namespaced: it.scope == "Namespaced",
                        ..Resource::namespaced(
                            group.metadata.name.clone(),
                            version.version.clone(),
                            it.resource,
                        )
                    },
                    kind: it.response_kind.map_or_else(String::new, |it| it.kind),
                    singular: it.singular_resource,
                    short_names: it.short_names,
                    categories: it.categories,
                    verbs: it.verbs,
                    subresources: it
                        .subresources
                        .into_iter()
                        .map(|it| it.subresource)
                        .collect(),
                    preferred: at == 0,
                };
                known.extend(version.resources.into_iter().map(known_as));
            }
        }
        known
    }
}

/// `APIVersions` of `k8s.io/apimachinery/pkg/apis/meta/v1/types.go`, as the others below.
#[derive(Deserialize)]
struct Versions {
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    versions: Vec<Version>,
    preferred_version: Option<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<PlainResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlainResource {
    name: String,
    #[serde(default)]
    singular_name: String,
    namespaced: bool,
    kind: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

impl Resources {
    fn known(self, group: &str, version: &str, preferred: bool) -> Vec<ApiResource> {
        let (subresources, resources): (Vec<_>, Vec<_>) = self
            .resources
            .into_iter()
            .partition(|resource| resource.name.contains('/'));
        let known = resources.into_iter().map(|resource| ApiResource {
            subresources: subresources
                .iter()
                .filter_map(|sub| sub.name.strip_prefix(&resource.name)?.strip_prefix('/'))
                .map(str::to_owned)
                .collect(),
            resource: Resource {
                namespaced: resource.namespaced,
                ..Resource::namespaced(group.to_owned(), version.to_owned(), resource.name)
            },
            // Servers before 1.28 leave it empty for built-in resources.
            singular: match resource.singular_name.as_str() {
                "" => resource.kind.to_ascii_lowercase(),
                singular => singular.to_owned(),
            },
            kind: resource.kind,
            short_names: resource.short_names,
            categories: resource.categories,
            verbs: resource.verbs,
            preferred,
        });
        known.collect()
    }
}

#[cfg(test)]
mod tests;
