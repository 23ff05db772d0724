//! Advice from a refusal: in flows the server's Status, out comes what a user can do about it.
//!
//! The server says these things in its message only, for people; the words are those of
//! `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go` (`forbiddenMessage`),
//! `k8s.io/kubernetes/pkg/registry/core/pod/strategy.go` (`validateContainer`) and of runc. A
//! message in other words gives no hint, and the message itself is always shown.

use super::Hint;
use crate::wire::status::Status;

/// Subresources whose WebSocket requests need two verbs: `get` for the request itself, and from
/// 1.35 on `create` as well (`AuthorizePodWebsocketUpgradeCreatePermission`).
const UPGRADED: [&str; 3] = ["pods/exec", "pods/attach", "pods/portforward"];

/// What a user can do about `status`, if it says.
pub(super) fn find(status: &Status) -> Option<Hint> {
    let message = status.message.as_str();
    if status.code == 403 {
        return rule(message);
    }
    // `k8s.io/streaming/pkg/httpstream/spdy/upgrade.go`, and `wsstream` has the same.
    if status.code == 400 && message.contains("Upgrade request required")
        || message.contains("unable to upgrade: missing upgrade headers")
    {
        return Some(Hint::Upgrade);
    }
    containers(message).or_else(|| program(message))
}

fn rule(message: &str) -> Option<Hint> {
    let (who, rest) = message.split_once(" cannot ")?;
    // It has no rights, and is not to have any.
    if who.ends_with("User \"system:anonymous\"") {
        return Some(Hint::Credentials(String::new()));
    }
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, rest) = rest.split_once('"')?;
    let group = rest
        .split_once("API group \"")
        .and_then(|(_, rest)| rest.split_once('"'));
    let verbs = match verb {
        "get" | "create" if UPGRADED.contains(&resource) => vec!["get".into(), "create".into()],
        verb => vec![verb.to_owned()],
    };
    Some(Hint::Rule {
        group: group.map_or("", |(group, _)| group).to_owned(),
        resource: resource.to_owned(),
        verbs,
    })
}

fn containers(message: &str) -> Option<Hint> {
    let (_, mut rest) = message.split_once("choose one of: [")?;
    let mut names = Vec::new();
    // "choose one of: [a b] or one of the init containers: [c]"
    loop {
        let (list, after) = rest.split_once(']')?;
        names.extend(list.split_whitespace().map(str::to_owned));
        match after.split_once('[') {
            Some((_, next)) => rest = next,
            None => return (!names.is_empty()).then_some(Hint::Containers(names)),
        }
    }
}

fn program(message: &str) -> Option<Hint> {
    const ENDINGS: [&str; 4] = [
        "executable file not found",
        "no such file or directory",
        "permission denied",
        "exec format error",
    ];
    if !message.contains("unable to start container process")
        || !ENDINGS.iter().any(|ending| message.contains(ending))
    {
        return None;
    }
    let (_, rest) = message.rsplit_once("exec: \"")?;
    Some(Hint::Program(rest.split_once('"')?.0.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(code: u16, message: &str) -> Option<Hint> {
        find(&Status::failure(code, "", message))
    }

    #[test]
    fn a_missing_right_names_its_rule() {
        let message = "pods \"web-0\" is forbidden: User \"nobody\" cannot create resource \
                       \"pods/exec\" in API group \"\" in the namespace \"default\"";
        let rule = hint(403, message).unwrap();
        assert_eq!(
            rule,
            Hint::Rule {
                group: String::new(),
                resource: "pods/exec".into(),
                verbs: vec!["get".into(), "create".into()]
            }
        );
        let message = "deployments.apps is forbidden: User \"x\" cannot list resource \
                       \"deployments\" in API group \"apps\" at the cluster scope";
        assert_eq!(
            hint(403, message),
            Some(Hint::Rule {
                group: "apps".into(),
                resource: "deployments".into(),
                verbs: vec!["list".into()]
            })
        );
        assert_eq!(hint(403, "no"), None);
        for of in [
            "get path \"/api\"",
            "get resource \"pods\" in API group \"\"",
        ] {
            let message = format!("forbidden: User \"system:anonymous\" cannot {of}");
            assert_eq!(hint(403, &message), Some(Hint::Credentials(String::new())));
        }
    }

    #[test]
    fn an_ambiguous_container_names_all() {
        let names = |names: &[&str]| {
            Some(Hint::Containers(
                names.iter().map(|&name| name.to_owned()).collect(),
            ))
        };
        let message = "a container name must be specified for pod two, choose one of: [a b]";
        assert_eq!(hint(400, message), names(&["a", "b"]));
        let message = format!("{message} or one of the init containers: [c]");
        assert_eq!(hint(400, &message), names(&["a", "b", "c"]));
        assert_eq!(hint(400, "choose one of: [a"), None);
    }

    #[test]
    fn a_program_that_cannot_start_is_named() {
        let message = "OCI runtime exec failed: exec failed: unable to start container process: \
                       exec: \"/no/such/program\": stat /no/such/program: no such file or \
                       directory: unknown";
        assert_eq!(
            hint(500, message),
            Some(Hint::Program("/no/such/program".into()))
        );
        assert_eq!(hint(500, "no such file or directory"), None);
    }
}
