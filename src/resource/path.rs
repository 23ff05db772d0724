//! The paths of requests: in flow a resource and names, out come paths and queries.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Resource;
use crate::{Result, error::CallerError};

/// What may stand in a path segment or a query value as it is (RFC 3986, section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl Resource {
    /// The path of all its objects, of those in a namespace, or of one, or of a subresource.
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

pub(crate) fn push(path: &mut String, what: &'static str, segment: &str) -> Result<()> {
    // A segment of dots would be another path (RFC 3986, section 3.3).
    if matches!(segment, "" | "." | "..") {
        return Err(CallerError::misnamed(segment, what).into());
    }
    // Writing to a String does not fail.
    let _ = write!(path, "/{}", utf8_percent_encode(segment, ESCAPED));
    Ok(())
}

pub(crate) fn with_query(mut path: String, query: &[(impl AsRef<str>, impl AsRef<str>)]) -> String {
    for (at, (key, value)) in query.iter().enumerate() {
        let separator = if at == 0 { '?' } else { '&' };
        let key = utf8_percent_encode(key.as_ref(), ESCAPED);
        let value = utf8_percent_encode(value.as_ref(), ESCAPED);
        let _ = write!(path, "{separator}{key}={value}");
    }
    path
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

    #[test]
    fn queries_are_escaped() {
        let query = [("a", "b=c,d in (e)".to_owned()), ("f", String::new())];
        assert_eq!(
            with_query("/x".to_owned(), &query),
            "/x?a=b%3Dc%2Cd%20in%20%28e%29&f="
        );
    }
}
