//! Which container, and which of its streams: the flags that exec and attach share.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use kubewire::{
    Pod,
    exec::{Container, ContainerKind, Stdio, TerminalSize},
};
use serde_json::Value;

use crate::{
    connection::Connection,
    duration,
    failure::{Failure, note},
    get::asked,
    terminal,
    workload::{self, Wait},
};

#[derive(Args)]
pub(crate) struct Target {
    /// The pod: NAME, pod/NAME, or what selects pods, of which one is taken: deploy/NAME, svc/NAME
    #[arg(value_name = "POD")]
    pod: Option<String>,
    /// The file, in YAML or JSON, of the pod or of what selects it, instead of its name
    #[arg(short, long, value_name = "FILE", conflicts_with = "pod")]
    filename: Option<PathBuf>,
    /// How long to wait for a pod that runs, where one is chosen: 1m30s, or a number of seconds
    #[arg(long, value_name = "DURATION", default_value = "1m0s", value_parser = duration::or_seconds)]
    pod_running_timeout: Duration,
    /// The container; without it the pod's default container, or its first
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass stdin on to the container
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Use a terminal; with --stdin, the one that stdin is
    #[arg(short, long)]
    tty: bool,
    /// Leave out hints: only what the remote writes, and errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// The container that is named: an empty name is none, as for kubectl.
pub(crate) fn named(container: Option<&String>) -> Option<&String> {
    container.filter(|name| !name.is_empty())
}

impl Target {
    pub(crate) async fn pod(&self, connection: &Connection) -> Result<Pod, Failure> {
        let client = connection.client()?;
        let (name, namespace) = match &self.filename {
            None => match &self.pod {
                Some(pod) => (pod.clone(), None),
                None => {
                    bail!("which pod? Name one as <POD>, or what selects pods, or give -f");
                }
            },
            Some(file) => in_file(file)?,
        };
        let namespace = namespace.filter(|_| !connection.has_namespace());
        let namespace = namespace.unwrap_or_else(|| client.namespace().to_owned());
        let wait = Wait::Running(self.pod_running_timeout);
        let found = workload::pod(&client, &namespace, &name, wait).await?;
        Ok(client.pod(namespace, found.name))
    }

    pub(crate) fn container(&self) -> Option<&String> {
        named(self.container.as_ref())
    }

    /// Says which container of several is used, if the user named none.
    pub(crate) async fn note_default(&self, pod: &Pod, used: Option<&str>) {
        if self.container().is_none() && !self.quiet && used.is_some() {
            // They could be read a moment ago; if they no longer can, there is nothing to say.
            default_container(&pod.containers().await.unwrap_or_default(), false);
        }
    }

    /// The container that the user means, out of all that there are. Says so if it had to be
    /// guessed.
    pub(crate) fn choose<'a>(&self, all: &'a [Container]) -> Option<&'a Container> {
        if let Some(name) = self.container() {
            return all.iter().find(|one| one.name == *name);
        }
        default_container(all, self.quiet)
    }

    pub(crate) fn stdio(&self) -> Stdio {
        if self.stdin {
            Stdio::piped()
        } else {
            Stdio::null()
        }
    }

    /// The terminal that the remote gets, if it gets one.
    pub(crate) fn terminal(&self) -> Option<Terminal> {
        if !self.tty {
            return None;
        }
        let local = terminal::stdin_is_one();
        if self.stdin && !local {
            // Without a terminal on this side there is nobody to type; kubectl does the same.
            if !self.quiet {
                note("Unable to use a TTY - input is not a terminal or the right kind of file");
            }
            return None;
        }
        Some(Terminal {
            size: terminal::size(),
            raw: self.stdin,
        })
    }
}

/// What an object's file names, such as `Deployment/web`, and the namespace, if it says one.
fn in_file(file: &Path) -> Result<(String, Option<String>), Failure> {
    let name = file.display();
    if file == Path::new("-") {
        bail!("-f -: stdin is the remote's; give a file or TYPE/NAME");
    }
    let mut objects = asked::documents(file)?.into_iter();
    let object = objects.next().unwrap_or_default();
    if objects.next().is_some() {
        bail!("{name} has several objects: name the one that is meant as TYPE/NAME");
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let metadata = &object["metadata"];
    match (text(&object["kind"]), text(&metadata["name"])) {
        (Some(kind), Some(object)) => {
            let target = format!("{}/{object}", kind.to_lowercase());
            Ok((target, text(&metadata["namespace"])))
        }
        _ => bail!("{name} has no object with a kind and a name"),
    }
}

/// The container that is meant where none is named. Says so if it is the first because the pod
/// does not say which.
pub(crate) fn default_container(all: &[Container], quiet: bool) -> Option<&Container> {
    let default = all.iter().find(|one| one.default)?;
    let is_first = all.first().is_some_and(|first| first.default);
    if all.len() > 1 && is_first && !quiet {
        let names: Vec<_> = all.iter().map(label).collect();
        let name = &default.name;
        note!("Defaulted container {name:?} out of: {}", names.join(", "));
    }
    Some(default)
}

/// A container's name in a list, as kubectl writes it.
fn label(container: &Container) -> String {
    let name = &container.name;
    match container.kind {
        kind if kind.is_init() => format!("{name} (init)"),
        ContainerKind::Ephemeral => format!("{name} (ephem)"),
        _ => name.clone(),
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    pub(crate) size: TerminalSize,
    /// Whether stdin is a terminal that must be in raw mode.
    pub(crate) raw: bool,
}
