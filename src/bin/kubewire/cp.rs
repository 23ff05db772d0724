//! `kubewire cp`: copies files and trees to and from containers.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use kubewire::{Client, Error, Pod, copy::Copied, error::Hint};

use crate::{
    connection::Connection,
    failure::{Failure, note},
    signals::{Received, Signals},
    target,
};

/// The time between a copy that failed and its next beginning.
const PAUSE: Duration = Duration::from_secs(1);

/// Copy files and directories to and from containers
///
/// The container needs `tar`. What arrived is compared with what was sent, file by file. A
/// directory that is copied to a container goes into one that is there already, and takes the name
/// that it is given otherwise; from a container it always takes the name. Exit codes: 0 if all was
/// copied, 1 if not.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire cp site web-0:/srv/site\n  \
    kubewire cp other/web-0:/var/log/app.log . -c main\n  \
    kubewire cp a.txt b.txt web-0:/tmp\n  \
    kubewire exec a -- tar cf - -C /srv site | kubewire exec -i b -- tar xf - -C /srv")]
pub(crate) struct Cp {
    /// What to copy and, last, where to: a path of this machine, or POD:PATH, NAMESPACE/POD:PATH
    #[arg(value_name = "PATH", required = true, num_args = 2.., value_parser = place)]
    paths: Vec<Place>,
    /// The container; without it the pod's default container, or its first
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Keep no modes: copies have those of new files
    #[arg(long)]
    no_preserve: bool,
    /// Keep the owner's and the group's numbers, which needs root in the container
    #[arg(long, conflicts_with = "no_preserve")]
    preserve_owner: bool,
    /// How often to begin a copy anew whose connection fails; without end if negative
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    retries: i64,
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    There {
        namespace: Option<String>,
        pod: String,
        path: String,
    },
}

/// `[[NAMESPACE/]POD:]PATH` (`k8s.io/kubectl/pkg/cmd/cp/cp.go`, `extractFileSpec`).
fn place(text: &str) -> Result<Place, String> {
    if text == "-" {
        let instead = "an archive is no file here; use exec: kubewire exec -i POD -- tar xf -";
        return Err(instead.to_owned());
    }
    let Some((pod, path)) = text.split_once(':') else {
        return match text {
            "" => Err("an empty path".to_owned()),
            text => Ok(Place::Here(text.into())),
        };
    };
    // So a file whose name has a colon can be named; and a drive of Windows.
    if pod.starts_with(['.', '/']) || (cfg!(windows) && pod.len() == 1) {
        return Ok(Place::Here(text.into()));
    }
    let (namespace, pod) = match pod.split_once('/') {
        Some((namespace, pod)) => (Some(namespace), pod),
        None => (None, pod),
    };
    let is_name = |name: &str| !name.is_empty() && !name.contains('/');
    if !is_name(pod) || !namespace.is_none_or(is_name) || path.is_empty() {
        return Err("what is copied is [[NAMESPACE/]POD:]PATH".to_owned());
    }
    Ok(Place::There {
        namespace: namespace.map(str::to_owned),
        pod: pod.to_owned(),
        path: path.to_owned(),
    })
}

impl Cp {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let client = connection.client()?;
        let local = |error| Failure::local("signals cannot be received", &error);
        let mut signals = Signals::new().map_err(local)?;
        let ended = async {
            loop {
                if let Received::End(number) = signals.next().await {
                    break number;
                }
            }
        };
        tokio::select! {
            done = self.copy(&client) => done,
            number = ended => Err(Failure::Signal(number)),
        }
    }

    async fn copy(&self, client: &Client) -> Result<u8, Failure> {
        let Some((destination, sources)) = self.paths.split_last() else {
            return Ok(0);
        };
        let several = sources.len() > 1;
        let mut whole = true;
        for source in sources {
            let copied = match (source, destination) {
                (
                    Place::Here(source),
                    Place::There {
                        pod,
                        path,
                        namespace,
                    },
                ) => {
                    let pod = found(client, namespace.as_deref(), pod);
                    self.to(&pod, source, path, several).await?
                }
                (
                    Place::There {
                        pod,
                        path,
                        namespace,
                    },
                    Place::Here(destination),
                ) => {
                    let pod = found(client, namespace.as_deref(), pod);
                    self.from(&pod, path, destination, several).await?
                }
                (Place::Here(_), Place::Here(_)) => {
                    return Err(said("one of source and destination must be in a pod"));
                }
                (Place::There { .. }, Place::There { .. }) => {
                    return Err(said(
                        "cp does not copy between pods; use two execs: kubewire exec A -- tar cf - \
                         PATH | kubewire exec -i B -- tar xf -",
                    ));
                }
            };
            for left_out in &copied.left_out {
                note(&format!("left out: {left_out}"));
                whole = false;
            }
            tracing::info!(
                files = copied.files,
                bytes = copied.bytes,
                compared = copied.compared,
                "copied"
            );
        }
        Ok(u8::from(!whole))
    }

    async fn to(
        &self,
        pod: &Pod,
        source: &Path,
        path: &str,
        several: bool,
    ) -> Result<Copied, Failure> {
        // As it is called, even if it is given as `.`.
        let source = match source.file_name() {
            Some(_) => source.to_owned(),
            None => fs::canonicalize(source)
                .map_err(|error| said(&format!("{}: {error}", source.display())))?,
        };
        self.attempts(pod, async |container| {
            let into = is_directory(pod, container, path).await?;
            if several && !into {
                return Ok(None);
            }
            let path = if into {
                format!("{path}/")
            } else {
                path.to_owned()
            };
            let mut copy = pod.copy_to(&source, path);
            if let Some(container) = container {
                copy = copy.container(container);
            }
            if self.no_preserve {
                copy = copy.no_preserve();
            }
            if self.preserve_owner {
                copy = copy.preserve_owner();
            }
            copy.run().await.map(Some)
        })
        .await?
        .ok_or_else(|| said(&format!("{path} is no directory: it takes one copy")))
    }

    async fn from(
        &self,
        pod: &Pod,
        path: &str,
        destination: &Path,
        several: bool,
    ) -> Result<Copied, Failure> {
        let is_there = destination.is_dir();
        if several && !is_there {
            let destination = destination.display();
            return Err(said(&format!(
                "{destination} is no directory: it takes one copy"
            )));
        }
        self.attempts(pod, async |container| {
            let into = is_there && (several || !is_directory(pod, container, path).await?);
            let destination = match fs::canonicalize(destination) {
                Ok(destination) if into => destination.join(""),
                // As it is called, even if it is given as `.`.
                Ok(destination) => destination,
                Err(_) => destination.to_owned(),
            };
            let mut copy = pod.copy_from(path, destination);
            if let Some(container) = container {
                copy = copy.container(container);
            }
            if self.no_preserve {
                copy = copy.no_preserve();
            }
            copy.run().await
        })
        .await
    }

    /// Tries as often as is asked for, and in the container that is meant.
    async fn attempts<T>(
        &self,
        pod: &Pod,
        mut attempt: impl AsyncFnMut(Option<&str>) -> kubewire::Result<T>,
    ) -> Result<T, Failure> {
        let mut container = self.container.clone();
        if container.is_none() {
            // Who may not read pods is served in the container that the server takes.
            let all = pod.containers().await.unwrap_or_default();
            container = target::default_container(&all, false).map(|one| one.name.clone());
        }
        let mut left = self.retries;
        loop {
            let error = match attempt(container.as_deref()).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if left == 0 || !error.is_retryable() {
                return Err(error.into());
            }
            left = left.saturating_sub(1);
            note(&format!("{error}; beginning anew"));
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn said(problem: &str) -> Failure {
    Failure::Message(problem.to_owned())
}

fn found(client: &Client, namespace: Option<&str>, pod: &str) -> Pod {
    client.pod(namespace.unwrap_or(client.namespace()), pod)
}

/// Whether a path in the container is a directory; not if the container cannot tell.
async fn is_directory(pod: &Pod, container: Option<&str>, path: &str) -> kubewire::Result<bool> {
    // A name that begins with a dash is no option.
    let path = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("./{path}"),
    };
    let mut exec = pod.exec(["test", "-d", &path]);
    if let Some(container) = container {
        exec = exec.container(container);
    }
    match exec.status().await {
        Ok(status) => Ok(status.success()),
        Err(Error::Api(refusal)) if matches!(refusal.hint, Some(Hint::Program(_))) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_from_a_path_as_kubectl_tells_it() {
        let there = |namespace: Option<&str>, pod: &str, path: &str| Place::There {
            namespace: namespace.map(str::to_owned),
            pod: pod.to_owned(),
            path: path.to_owned(),
        };
        for (text, expected) in [
            ("web-0:/a", there(None, "web-0", "/a")),
            ("other/web-0:a:b", there(Some("other"), "web-0", "a:b")),
            ("/tmp/a", Place::Here("/tmp/a".into())),
            ("./a:b", Place::Here("./a:b".into())),
            ("/a:b", Place::Here("/a:b".into())),
        ] {
            assert_eq!(place(text).as_ref(), Ok(&expected), "{text}");
        }
        for text in ["", ":a", "web-0:", "a/b/c:d", "/web-0:", "other/:a", "-"] {
            let accepted = place(text).is_ok_and(|place| matches!(place, Place::There { .. }));
            assert!(!accepted, "{text}");
        }
    }
}
