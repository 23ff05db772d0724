//! What a request is about: in flow a group, a version, a plural and names, out come paths.

use std::{borrow::Cow, fmt::Write as _};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{Result, error::CallerError};

/// What may stand in a path segment or a query value as it is (RFC 3986, section 2.3).
#[cfg_attr(not(feature = "client"), allow(dead_code))]
pub(crate) const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A kind of object as the API server's paths name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Resource {
    /// The API group, such as `apps`; empty for the core group.
    pub group: Cow<'static, str>,
    /// The version in the group, such as `v1`.
    pub version: Cow<'static, str>,
    /// The name in paths, such as `deployments`.
    pub plural: Cow<'static, str>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// A resource whose objects live in namespaces: `("apps", "v1", "deployments")`.
    pub fn namespaced(
        group: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
        plural: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
            namespaced: true,
        }
    }

    /// A resource whose objects are the cluster's: `("", "v1", "nodes")`.
    pub fn cluster(
        group: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
        plural: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            namespaced: false,
            ..Self::namespaced(group, version, plural)
        }
    }

    /// The resource of a type of k8s-openapi: `Resource::of::<Pod>()`. Types of subresources have
    /// none.
    #[cfg(feature = "k8s-openapi")]
    pub fn of<K>() -> Self
    where
        K: k8s_openapi::Resource,
        K::Scope: Scope,
    {
        Self {
            namespaced: K::Scope::NAMESPACED,
            ..Self::namespaced(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT)
        }
    }

    /// The `apiVersion` of its objects: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        match &*self.group {
            "" => self.version.clone().into_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The path of all its objects, of those in a namespace, or of one, or of a subresource.
    #[cfg_attr(not(feature = "client"), allow(dead_code))]
    pub(crate) fn path(
        &self,
        namespace: Option<&str>,
        name: Option<&str>,
        subresource: Option<&str>,
    ) -> Result<String> {
        let root = if self.group.is_empty() {
            "/api"
        } else {
            "/apis"
        };
        let mut path = root.to_owned();
        let namespace = namespace.filter(|_| self.namespaced);
        let plural = [("namespaces", namespace), (self.plural.as_ref(), name)];
        let plural = match namespace {
            Some(_) => &plural[..],
            None => &plural[1..],
        };
        let group = (!self.group.is_empty()).then_some(("an API group", self.group.as_ref()));
        for (what, segment) in group
            .into_iter()
            .chain([("a version", self.version.as_ref())])
        {
            push(&mut path, what, segment)?;
        }
        for (collection, name) in plural {
            push(&mut path, "a resource", collection)?;
            if let Some(name) = name {
                push(&mut path, "a name", name)?;
            }
        }
        // A subresource may have several segments: `proxy/metrics`.
        for segment in subresource.iter().flat_map(|path| path.split('/')) {
            push(&mut path, "a subresource", segment)?;
        }
        Ok(path)
    }
}

#[cfg_attr(not(feature = "client"), allow(dead_code))]
fn push(path: &mut String, what: &'static str, segment: &str) -> Result<()> {
    // A segment of dots would be another path (RFC 3986, section 3.3).
    if matches!(segment, "" | "." | "..") {
        return Err(CallerError::Name {
            what: what.into(),
            name: segment.to_owned(),
        }
        .into());
    }
    // Writing to a String does not fail.
    let _ = write!(path, "/{}", utf8_percent_encode(segment, ESCAPED));
    Ok(())
}

/// Adds a query.
#[cfg_attr(not(feature = "client"), allow(dead_code))]
pub(crate) fn with_query(mut path: String, query: &[(impl AsRef<str>, String)]) -> String {
    for (at, (key, value)) in query.iter().enumerate() {
        let separator = if at == 0 { '?' } else { '&' };
        let (key, value) = (
            utf8_percent_encode(key.as_ref(), ESCAPED),
            utf8_percent_encode(value, ESCAPED),
        );
        let _ = write!(path, "{separator}{key}={value}");
    }
    path
}

/// As kubectl writes it: `deployments.apps`.
impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.plural)?;
        match &*self.group {
            "" => Ok(()),
            group => write!(f, ".{group}"),
        }
    }
}

/// Where the objects of a type of k8s-openapi live: in namespaces, or in the cluster.
#[cfg(feature = "k8s-openapi")]
pub trait Scope: sealed::Sealed {
    /// Whether they live in namespaces.
    const NAMESPACED: bool;
}

#[cfg(feature = "k8s-openapi")]
mod sealed {
    use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};

    pub trait Sealed {}

    impl Sealed for ClusterResourceScope {}
    impl Sealed for NamespaceResourceScope {}

    impl super::Scope for ClusterResourceScope {
        const NAMESPACED: bool = false;
    }

    impl super::Scope for NamespaceResourceScope {
        const NAMESPACED: bool = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let pods = Resource::namespaced("", "v1", "pods");
        let path = |resource: &Resource, namespace, name, subresource| {
            resource.path(namespace, name, subresource).unwrap()
        };
        assert_eq!(path(&pods, None, None, None), "/api/v1/pods");
        assert_eq!(
            path(&pods, Some("a b"), Some("x/y"), Some("log")),
            "/api/v1/namespaces/a%20b/pods/x%2Fy/log"
        );
        let nodes = Resource::cluster("", "v1", "nodes");
        assert_eq!(
            path(&nodes, Some("a"), Some("n"), Some("proxy/stats")),
            "/api/v1/nodes/n/proxy/stats"
        );
        let deployments = Resource::namespaced("apps", "v1", "deployments");
        assert_eq!(
            path(&deployments, Some("a"), None, None),
            "/apis/apps/v1/namespaces/a/deployments"
        );
        assert_eq!(
            (deployments.api_version(), deployments.to_string()),
            ("apps/v1".to_owned(), "deployments.apps".to_owned())
        );
        assert_eq!(pods.api_version(), "v1");
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_refused() {
        let pods = Resource::namespaced("", "v1", "pods");
        for name in ["", ".", ".."] {
            assert!(pods.path(Some(name), None, None).is_err());
            assert!(pods.path(None, Some(name), None).is_err());
            assert!(
                pods.path(None, Some("x"), Some(&format!("a/{name}")))
                    .is_err()
            );
        }
    }

    #[cfg(feature = "k8s-openapi")]
    #[test]
    fn types_of_k8s_openapi_know_their_resource() {
        use k8s_openapi::api::{apps::v1::Deployment, core::v1 as core};
        let deployments = Resource::namespaced("apps", "v1", "deployments");
        assert_eq!(Resource::of::<Deployment>(), deployments);
        assert_eq!(
            Resource::of::<core::Pod>(),
            Resource::namespaced("", "v1", "pods")
        );
        assert_eq!(
            Resource::of::<core::Node>(),
            Resource::cluster("", "v1", "nodes")
        );
    }

    #[test]
    fn queries_are_escaped() {
        let query = [("a", "b=c,d in (e)".to_owned()), ("f", String::new())];
        assert_eq!(
            with_query("/x".to_owned(), &query),
            "/x?a=b%3Dc%2Cd%20in%20%28e%29&f="
        );
    }
}
