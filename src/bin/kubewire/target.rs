//! Which container, and which of its streams: the flags that exec and attach share.

use clap::Args;
use kubewire::{
    Error, Pod,
    error::Hint,
    exec::{Container, ContainerKind, Stdio, TerminalSize},
};

use crate::{
    connection::Connection,
    failure::{Failure, note},
    terminal,
};

/// A container and its streams.
#[derive(Args)]
pub(crate) struct Target {
    /// The pod: NAME or pod/NAME
    #[arg(value_name = "POD")]
    pod: String,
    /// The container; without it the pod's default container, or its first
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
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

impl Target {
    /// The pod that is meant.
    pub(crate) fn pod(&self, connection: &Connection) -> Result<Pod, Failure> {
        let name = match self.pod.split_once('/') {
            None => self.pod.as_str(),
            // The names that the API server knows the resource by.
            Some(("pod" | "pods" | "po", name)) => name,
            Some((kind, _)) => {
                let message = format!("{}: only pods can be named, not a {kind}", self.pod);
                return Err(Failure::Message(message));
            }
        };
        let client = connection.client()?;
        let namespace = client.namespace().to_owned();
        Ok(client.pod(namespace, name))
    }

    /// The container to name after the server has refused to choose one; any other error comes
    /// back as it is.
    pub(crate) async fn default_container(
        &self,
        pod: &Pod,
        error: Error,
    ) -> kubewire::Result<String> {
        let ambiguous = match &error {
            Error::Api(refusal) => matches!(refusal.hint, Some(Hint::Containers(_))),
            _ => false,
        };
        if self.container.is_some() || !ambiguous {
            return Err(error);
        }
        match pod.containers().await {
            Ok(all) => self.choose(&all).map(|one| one.name.clone()).ok_or(error),
            Err(_) => Err(error),
        }
    }

    /// The container that the user means, out of all that there are. Says so if it had to be
    /// guessed.
    pub(crate) fn choose<'a>(&self, all: &'a [Container]) -> Option<&'a Container> {
        if let Some(name) = &self.container {
            return all.iter().find(|one| one.name == *name);
        }
        default_container(all, self.quiet)
    }

    /// What becomes of stdin.
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

/// The container that is meant where none is named. Says so if it is the first because the pod
/// does not say which.
pub(crate) fn default_container(all: &[Container], quiet: bool) -> Option<&Container> {
    let default = all.iter().find(|one| one.default)?;
    let is_first = all.first().is_some_and(|first| first.default);
    if all.len() > 1 && is_first && !quiet {
        let names: Vec<_> = all.iter().map(label).collect();
        let name = &default.name;
        note(&format!(
            "Defaulted container {name:?} out of: {}",
            names.join(", ")
        ));
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

/// A terminal that the remote gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    /// Its size at the start.
    pub(crate) size: TerminalSize,
    /// Whether stdin is a terminal that must be in raw mode.
    pub(crate) raw: bool,
}
