//! What a request is about: in flow a group, a version and a plural, out come their names.

#[cfg(feature = "client")]
mod kind;
#[cfg(feature = "client")]
mod path;

use std::borrow::Cow;

#[cfg(feature = "client")]
pub use kind::{Cluster, InNamespaces, Kind, Namespaced, Scope};
#[cfg(feature = "client")]
pub(crate) use path::{push, with_query};

/// A kind of object as the API server's paths name it.
///
/// ```
/// use kubewire::Resource;
///
/// let deployments = Resource::namespaced("apps", "v1", "deployments");
/// assert_eq!(deployments.api_version(), "apps/v1");
/// assert!(!Resource::cluster("", "v1", "nodes").namespaced);
/// ```
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

    /// The `apiVersion` of its objects: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        match &*self.group {
            "" => self.version.clone().into_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// Five characters that spell no words, as in the names that Kubernetes makes
/// (`k8s.io/apimachinery/pkg/util/rand/rand.go`).
#[cfg(any(feature = "client", feature = "testing"))]
pub(crate) fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let letter = |_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
    (0..5).map(letter).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_as_kubectl_names_them() {
        let deployments = Resource::namespaced("apps", "v1", "deployments");
        assert_eq!(
            (deployments.api_version(), deployments.to_string()),
            ("apps/v1".to_owned(), "deployments.apps".to_owned())
        );
        let pods = Resource::namespaced("", "v1", "pods");
        assert_eq!(pods.api_version(), "v1");
    }
}
