//! What is forwarded to: in flow the names that users write, `svc/web` and `http`; out come the
//! kind of object, its name, and a port by number or name.

use std::{fmt, str::FromStr};

use crate::{client::Resource, error::CallerError};

/// What connections are forwarded to.
///
/// It is parsed from what kubectl takes: `NAME` and `pod/NAME`, `svc/NAME`, `deploy/NAME` and the
/// like, with any name of the resource that the API server has for these kinds.
///
/// ```
/// use kubewire::port_forward::ForwardTarget;
///
/// let web: ForwardTarget = "svc/web".parse().unwrap();
/// assert_eq!(web, ForwardTarget::Service("web".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardTarget {
    /// The pod of this name.
    Pod(String),
    /// A pod that the service of this name selects. Ports are the service's.
    Service(String),
    /// A pod that a workload selects with its `spec.selector`. Ports are the pod's.
    Workload {
        /// Such as `Resource::namespaced("apps", "v1", "deployments")`.
        resource: Resource,
        /// Its name.
        name: String,
    },
}

/// The workloads whose pods can be found: group, plural, and other names.
const WORKLOADS: [(&str, &str, [&str; 2]); 6] = [
    ("apps", "deployments", ["deployment", "deploy"]),
    ("apps", "statefulsets", ["statefulset", "sts"]),
    ("apps", "daemonsets", ["daemonset", "ds"]),
    ("apps", "replicasets", ["replicaset", "rs"]),
    ("batch", "jobs", ["job", "job"]),
    (
        "",
        "replicationcontrollers",
        ["replicationcontroller", "rc"],
    ),
];

impl FromStr for ForwardTarget {
    type Err = CallerError;

    fn from_str(text: &str) -> Result<Self, CallerError> {
        let (kind, name) = text.split_once('/').unwrap_or(("pods", text));
        let name = name.to_owned();
        if name.is_empty() || name.contains('/') {
            return Err(CallerError::misnamed(text, "the name of an object"));
        }
        // As `docker` and `ssh` have it.
        if let Some((target, port)) = text.rsplit_once(':') {
            let what = format!(
                "a pod, a service or a workload, of which {target:?} would be one: the port \
                 {port:?} goes to `Tunnel::open` or `Tunnel::listen`"
            );
            return Err(CallerError::misnamed(text, what));
        }
        let lower = kind.to_ascii_lowercase();
        // `deployments.apps` and `deployments.v1.apps` are the same.
        let (front, group) = lower.split_once('.').unwrap_or((&lower, ""));
        match (front, group) {
            ("pod" | "pods" | "po", "" | "v1") => return Ok(Self::Pod(name)),
            ("service" | "services" | "svc", "" | "v1") => return Ok(Self::Service(name)),
            _ => {}
        }
        let known = WORKLOADS.into_iter().find(|(of, plural, others)| {
            let versioned = group
                .strip_prefix("v1")
                .map(|rest| rest.trim_start_matches('.'));
            (*plural == front || others.contains(&front))
                && (group.is_empty() || group == *of || versioned == Some(*of))
        });
        match known {
            Some((group, plural, _)) => Ok(Self::Workload {
                resource: Resource::namespaced(group, "v1", plural),
                name,
            }),
            None => Err(CallerError::NoForward {
                target: text.to_owned(),
                kind: kind.to_owned(),
            }),
        }
    }
}

impl TryFrom<&str> for ForwardTarget {
    type Error = CallerError;

    fn try_from(text: &str) -> Result<Self, CallerError> {
        text.parse()
    }
}

impl TryFrom<String> for ForwardTarget {
    type Error = CallerError;

    fn try_from(text: String) -> Result<Self, CallerError> {
        text.parse()
    }
}

/// As kubectl writes it: `pod/web-0`, `service/web`, `deployments.apps/web`.
impl fmt::Display for ForwardTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod/{name}"),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Workload { resource, name } => write!(f, "{resource}/{name}"),
        }
    }
}

/// A port of a [`ForwardTarget`]: of a service its own, otherwise the pod's.
///
/// ```
/// use kubewire::port_forward::ForwardPort;
///
/// assert_eq!(ForwardPort::from(8080), ForwardPort::Number(8080));
/// assert_eq!(ForwardPort::from("http"), ForwardPort::Name("http".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ForwardPort {
    /// By number.
    Number(u16),
    /// By the name that the service or a container of the pod gives it.
    Name(String),
}

impl From<u16> for ForwardPort {
    fn from(number: u16) -> Self {
        Self::Number(number)
    }
}

/// A number if it is one: a name has a letter.
impl From<&str> for ForwardPort {
    fn from(text: &str) -> Self {
        match text.parse() {
            Ok(number) => Self::Number(number),
            Err(_) => Self::Name(text.to_owned()),
        }
    }
}

impl From<String> for ForwardPort {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// A number from 1 to 65535, or else a name: letters, digits and hyphens, at most 63, as a service
/// may have it (`k8s.io/kubernetes/pkg/apis/core/validation`, `ValidateDNS1123Label`). A
/// container's has at most 15.
impl FromStr for ForwardPort {
    type Err = CallerError;

    fn from_str(text: &str) -> Result<Self, CallerError> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse() {
                Ok(number @ 1..) => Ok(Self::Number(number)),
                _ => Err(CallerError::misnamed(text, "a port number")),
            };
        }
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        match text.len() <= 63 && text.bytes().all(good) {
            true => Ok(Self::Name(text.to_owned())),
            false => {
                let what = "a port number or the name of a port";
                Err(CallerError::misnamed(text, what))
            }
        }
    }
}

impl fmt::Display for ForwardPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// What a [`ForwardPort`] means at the moment.
///
/// ```no_run
/// # async fn run(tunnel: kubewire::port_forward::Tunnel) -> kubewire::Result<()> {
/// let port = tunnel.resolve("http").await?;
/// println!("{} of the service is {} of the pod", port.target, port.pod);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolvedPort {
    /// Its number at the target: of a service its own port, otherwise the same as `pod`.
    pub target: u16,
    /// The number at the pod.
    pub pod: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_behind_a_target_is_shown_its_place() {
        for text in ["web-0:80", "svc/web:http", "deploy/web:80:90"] {
            let error = text.parse::<ForwardTarget>().unwrap_err().to_string();
            assert!(error.contains("goes to `Tunnel::open`"), "{error}");
        }
    }

    #[test]
    fn targets_are_written_as_for_kubectl() {
        let of = |text: &str| text.parse::<ForwardTarget>().unwrap();
        for text in ["web", "pod/web", "po/web", "pods/web", "pods.v1/web"] {
            assert_eq!(of(text), ForwardTarget::Pod("web".into()), "{text}");
        }
        for text in ["svc/web", "service/web", "services/web", "Service/web"] {
            assert_eq!(of(text), ForwardTarget::Service("web".into()), "{text}");
        }
        for (text, group, plural) in [
            ("deploy/web", "apps", "deployments"),
            ("deployment.apps/web", "apps", "deployments"),
            ("deployments.v1.apps/web", "apps", "deployments"),
            ("sts/web", "apps", "statefulsets"),
            ("ds/web", "apps", "daemonsets"),
            ("rs/web", "apps", "replicasets"),
            ("job/web", "batch", "jobs"),
            ("jobs.batch/web", "batch", "jobs"),
            ("rc/web", "", "replicationcontrollers"),
        ] {
            let target = ForwardTarget::Workload {
                resource: Resource::namespaced(group, "v1", plural),
                name: "web".into(),
            };
            assert_eq!(of(text), target, "{text}");
        }
        for text in ["", "/web", "svc/", "node/a", "svc/a/b", "deploy.batch/web"] {
            assert!(text.parse::<ForwardTarget>().is_err(), "{text}");
        }
        assert_eq!(of("deploy/web").to_string(), "deployments.apps/web");
    }

    #[test]
    fn ports_are_numbers_or_names() {
        let of = |text: &str| text.parse::<ForwardPort>().ok();
        assert_eq!(of("80"), Some(80.into()));
        assert_eq!(of("http-2"), Some("http-2".into()));
        assert_eq!(ForwardPort::from("80"), ForwardPort::Number(80));
        let longest = "a".repeat(63);
        assert_eq!(of(&longest), Some(longest.as_str().into()));
        let too_long = "a".repeat(64);
        for text in ["", "0", "65536", "HTTP", "a:b", &too_long] {
            assert_eq!(of(text), None, "{text:?}");
        }
    }
}
