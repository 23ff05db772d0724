//! What a request is about, for traces: in flow its method and path, out come verb, resource,
//! namespace and name as the API server tells them apart
//! (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`, `NewRequestInfo`).

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

/// A request in the words of RBAC. Of a path that is no resource's only the verb is known: the
/// method in small letters.
#[derive(Debug, Default, PartialEq)]
pub(super) struct About<'a> {
    pub(super) verb: Cow<'static, str>,
    /// As kubectl writes it, with its subresource: `deployments.apps/scale`.
    pub(super) resource: Option<String>,
    pub(super) namespace: Option<Cow<'a, str>>,
    pub(super) name: Option<Cow<'a, str>>,
}

pub(super) fn about<'a>(method: &Method, path_and_query: &'a str) -> About<'a> {
    let (path, query) = path_and_query
        .split_once('?')
        .unwrap_or((path_and_query, ""));
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, rest) = match &segments[..] {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => ("", &[][..]),
    };
    let (namespace, rest) = match rest {
        // `namespaces/x/status` and `finalize` are the namespace's own.
        ["namespaces", name, "status" | "finalize", ..] | ["namespaces", name] => {
            (Some(*name), rest)
        }
        ["namespaces", name, rest @ ..] => (Some(*name), rest),
        rest => (None, rest),
    };
    let Some((plural, rest)) = rest.split_first() else {
        return About {
            verb: method.as_str().to_ascii_lowercase().into(),
            ..About::default()
        };
    };
    let name = rest.first().copied();
    let watch = query
        .split('&')
        .any(|part| matches!(part, "watch=true" | "watch=1"));
    let verb = match (method.as_str(), name) {
        ("GET" | "HEAD", None) if watch => "watch",
        ("GET" | "HEAD", None) => "list",
        ("GET" | "HEAD", Some(_)) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", None) => "deletecollection",
        ("DELETE", Some(_)) => "delete",
        _ => "",
    };
    let dot = if group.is_empty() { "" } else { "." };
    let subresource = rest.get(1).map(|part| format!("/{part}"));
    let decode = |text: &'a str| percent_decode_str(text).decode_utf8_lossy();
    About {
        verb: verb.into(),
        resource: Some(format!(
            "{plural}{dot}{group}{}",
            subresource.unwrap_or_default()
        )),
        namespace: namespace.map(decode),
        name: name.map(decode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_as_the_api_server_does() {
        for (method, path, expected) in [
            ("GET", "/api/v1/pods?limit=500", "list pods - -"),
            ("GET", "/api/v1/pods?a=b&watch=true", "watch pods - -"),
            ("GET", "/api/v1/nodes/n", "get nodes - n"),
            ("GET", "/api/v1/namespaces", "list namespaces - -"),
            (
                "PUT",
                "/api/v1/namespaces/x/finalize",
                "update namespaces/finalize x x",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a%20b/pods/p%2Fq",
                "delete pods a b p/q",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/pods",
                "deletecollection pods a -",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/services/s/proxy/x/y",
                "get services/proxy a s",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch deployments.apps/scale a d",
            ),
            (
                "POST",
                "/apis/apps/v1/namespaces/a/deployments",
                "create deployments.apps a -",
            ),
            ("GET", "/apis/apps/v1", "get - - -"),
            ("GET", "/version", "get - - -"),
            ("GET", "", "get - - -"),
        ] {
            let About {
                verb,
                resource,
                namespace,
                name,
            } = about(&method.parse().unwrap(), path);
            let told = [resource.as_deref(), namespace.as_deref(), name.as_deref()];
            let told = told.map(|part| part.unwrap_or("-")).join(" ");
            assert_eq!(format!("{verb} {told}"), expected, "{method} {path}");
        }
    }
}
