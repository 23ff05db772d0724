//! The containers of a pod: in flows the pod's JSON, out comes what exec and attach care about.

use std::collections::HashMap;

use serde::Deserialize;

/// The annotation that says which container is meant where none is named
/// (`k8s.io/kubectl/pkg/cmd/util/podcmd`, `DefaultContainerAnnotationName`).
const DEFAULT: &str = "kubectl.kubernetes.io/default-container";

/// A container of a pod, as its specification has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Which of the pod's lists it is in.
    pub kind: ContainerKind,
    /// Whether its process has an input to attach to.
    pub stdin: bool,
    /// Whether its process has a terminal.
    pub tty: bool,
    /// Whether kubectl takes it where none is named: the one of the annotation
    /// `kubectl.kubernetes.io/default-container`, or else the first.
    pub default: bool,
}

/// Which of a pod's lists a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContainerKind {
    /// `spec.containers`.
    Regular,
    /// `spec.initContainers`.
    Init,
    /// `spec.ephemeralContainers`.
    Ephemeral,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    annotations: HashMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    containers: Vec<Entry>,
    init_containers: Vec<Entry>,
    ephemeral_containers: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    stdin: bool,
    #[serde(default)]
    tty: bool,
}

/// The containers of a pod's JSON: regular, init, ephemeral.
pub(super) fn of_pod(json: &[u8]) -> Result<Vec<Container>, serde_json::Error> {
    let Object { metadata, spec } = serde_json::from_slice(json)?;
    let lists = [
        (ContainerKind::Regular, spec.containers),
        (ContainerKind::Init, spec.init_containers),
        (ContainerKind::Ephemeral, spec.ephemeral_containers),
    ];
    let all = lists.into_iter().flat_map(|(kind, list)| {
        list.into_iter().map(move |entry| Container {
            name: entry.name,
            kind,
            stdin: entry.stdin,
            tty: entry.tty,
            default: false,
        })
    });
    let mut all: Vec<_> = all.collect();
    let named = metadata.annotations.get(DEFAULT);
    let default = named
        .and_then(|name| all.iter().position(|container| container.name == *name))
        .or_else(|| {
            let regular = |container: &Container| container.kind == ContainerKind::Regular;
            all.iter().position(regular)
        });
    if let Some(default) = default {
        all[default].default = true;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, kind: ContainerKind, default: bool) -> Container {
        Container {
            name: name.into(),
            kind,
            stdin: false,
            tty: false,
            default,
        }
    }

    #[test]
    fn the_first_regular_container_is_the_default() {
        let json = br#"{"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}],
            "ephemeralContainers": [{"name": "e"}]}}"#;
        let expected = [
            container("a", ContainerKind::Regular, true),
            container("b", ContainerKind::Regular, false),
            container("i", ContainerKind::Init, false),
            container("e", ContainerKind::Ephemeral, false),
        ];
        assert_eq!(of_pod(json).unwrap(), expected);
    }

    #[test]
    fn the_annotation_names_another_default_if_there_is_one() {
        let pod = |name: &str| {
            let json = format!(
                r#"{{"metadata": {{"annotations": {{"{DEFAULT}": "{name}"}}}}, "spec":
                   {{"containers": [{{"name": "a"}}, {{"name": "b", "tty": true, "stdin": true}}]}}}}"#
            );
            of_pod(json.as_bytes()).unwrap()
        };
        let b = &pod("b")[1];
        assert_eq!((b.default, b.tty, b.stdin), (true, true, true));
        assert!(!pod("b")[0].default);
        assert!(pod("gone")[0].default);
    }

    #[test]
    fn what_is_no_pod_is_an_error() {
        assert!(of_pod(b"{}").is_err());
        assert!(of_pod(br#"{"spec": {"containers": [{}]}}"#).is_err());
    }
}
