//! Which kind of objects: a group, a version and the plural name that paths have.

use std::{borrow::Cow, fmt, fmt::Write as _};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{Result, error::CallerError};

/// What may stand in a path segment or a query value as it is (RFC 3986, section 2.3).
pub(crate) const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A kind of objects, as it stands in paths.
///
/// ```
/// use kubewire::Resource;
///
/// let pods = Resource::core("v1", "pods");
/// let deployments = Resource::new("apps", "v1", "deployments");
/// assert_eq!(deployments.to_string(), "deployments.apps");
/// assert_eq!(pods.to_string(), "pods");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resource {
    group: Cow<'static, str>,
    version: Cow<'static, str>,
    plural: Cow<'static, str>,
}

impl Resource {
    /// A resource of an API group: `apps`, `v1`, `deployments`.
    pub fn new(
        group: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
        plural: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
        }
    }

    /// A resource of the core group, which has no name: `v1`, `pods`.
    pub fn core(
        version: impl Into<Cow<'static, str>>,
        plural: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new("", version, plural)
    }

    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The version of the group.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The plural name.
    pub fn plural(&self) -> &str {
        &self.plural
    }

    /// The path of all objects, or those of one namespace.
    #[cfg_attr(not(feature = "client"), allow(dead_code))]
    pub(crate) fn path(
        &self,
        namespace: Option<&str>,
        query: &[(&'static str, String)],
    ) -> Result<String> {
        let escape = |text| utf8_percent_encode(text, ESCAPED);
        let segment = |what: &str, text: &str| match text {
            // A segment of dots would be another path (RFC 3986, section 3.3).
            "" | "." | ".." => Err(CallerError::Request(format!(
                "{text:?} is not a {what}'s name"
            ))),
            _ => Ok(()),
        };
        segment("version", &self.version)?;
        segment("resource", &self.plural)?;
        let mut path = match &*self.group {
            "" => format!("/api/{}", escape(&self.version)),
            group => format!("/apis/{}/{}", escape(group), escape(&self.version)),
        };
        // Writing to a String does not fail.
        if let Some(namespace) = namespace {
            segment("namespace", namespace)?;
            let _ = write!(path, "/namespaces/{}", escape(namespace));
        }
        let _ = write!(path, "/{}", escape(&self.plural));
        push_query(&mut path, query);
        Ok(path)
    }
}

/// Appends a query, percent-encoded.
#[cfg_attr(not(feature = "client"), allow(dead_code))]
pub(crate) fn push_query(path: &mut String, query: &[(&'static str, String)]) {
    for (at, (key, value)) in query.iter().enumerate() {
        let separator = if at == 0 { '?' } else { '&' };
        let _ = write!(
            path,
            "{separator}{key}={}",
            utf8_percent_encode(value, ESCAPED)
        );
    }
}

/// As kubectl writes it: `pods`, `deployments.apps`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.group {
            "" => f.write_str(&self.plural),
            group => write!(f, "{}.{group}", self.plural),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let pods = Resource::core("v1", "pods");
        assert_eq!(pods.path(None, &[]).unwrap(), "/api/v1/pods");
        let query = [
            ("labelSelector", "a in (b,c)".to_owned()),
            ("watch", "true".into()),
        ];
        assert_eq!(
            pods.path(Some("default"), &query).unwrap(),
            "/api/v1/namespaces/default/pods?labelSelector=a%20in%20%28b%2Cc%29&watch=true"
        );
        let crd = Resource::new("example.com", "v1beta1", "things");
        assert_eq!(
            crd.path(None, &[]).unwrap(),
            "/apis/example.com/v1beta1/things"
        );
        assert!(pods.path(Some(".."), &[]).is_err());
    }
}
