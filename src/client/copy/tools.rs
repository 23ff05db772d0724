//! What a container has to copy with: in flows what a shell there finds, out comes the method.

use super::{
    shell::{LOOK, escaped},
    side::{Side, is_missing},
    sums::Sum,
};
use crate::{Error, Result, error::CallerError, session::Subprotocol};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// By `tar`, with a shell that keeps aside what is not verified yet.
    Staged,
    /// By `tar` alone, which writes files under their names.
    Tar,
    /// By `cat`, a process for each file.
    Cat,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Tools {
    names: Vec<String>,
    shell: bool,
    /// What the server speaks, if anything could be run.
    protocol: Option<Subprotocol>,
}

impl Tools {
    /// Looks what is there, and whether `path` is a directory.
    pub(super) async fn look(side: &Side, path: &[u8]) -> Result<Self> {
        let path = escaped(path);
        let exec = side.script(LOOK, [&path[..]]);
        let look = async {
            let child = exec.spawn().await?;
            let protocol = child.protocol();
            Ok((child.wait_with_output().await?, protocol))
        };
        match look.await {
            Ok((output, protocol)) => {
                let text = String::from_utf8_lossy(&output.stdout);
                let names: Vec<_> = text.lines().map(str::to_owned).collect();
                // A shell that cannot run that script is none.
                let shell = names.last().is_some_and(|last| last == ".");
                Ok(Self {
                    names,
                    shell,
                    protocol: Some(protocol),
                })
            }
            Err(error) if is_missing(&error) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn on(&self, side: &Side) -> Side {
        Side {
            shell: self.shell,
            sum: match self.has("sha256sum") || !self.has("cksum") {
                true => side.sum,
                false => Sum::Cksum,
            },
            ..side.clone()
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|it| it == name)
    }

    pub(super) fn has_all(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.has(name))
    }

    /// Whether `tar` is GNU's, which knows holes.
    pub(super) fn is_gnu(&self) -> bool {
        self.has("gnu")
    }

    /// Whether `tar` can be told what to leave out, which not every busybox's can.
    pub(super) fn takes_lists(&self) -> bool {
        self.has("lists")
    }

    pub(super) fn is_directory(&self) -> bool {
        self.has("directory")
    }

    pub(super) fn method_to(&self, side: &Side) -> Result<Method> {
        if let Some(protocol) = self.protocol.filter(|it| !it.has_half_close()) {
            let protocol = protocol.name();
            return Err(CallerError::HalfClose { protocol }.into());
        }
        if !self.shell {
            // If it lacks that too, the exec says so.
            return Ok(Method::Tar);
        }
        match self.has("tar") {
            true if self.can_stage() => Ok(Method::Staged),
            true => Ok(Method::Tar),
            false if self.has("cat") => Ok(Method::Cat),
            false => Err(without_tools(side)),
        }
    }

    pub(super) fn method_from(&self, side: &Side) -> Result<Method> {
        match self.shell && !self.has("tar") {
            false => Ok(Method::Tar),
            true if self.has("cat") => Ok(Method::Cat),
            true => Err(without_tools(side)),
        }
    }

    /// That a file has changed while `tar` read it is no failure where files are compared: then it
    /// is told of those that are others.
    pub(super) fn forgive_change(&self, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if self.can_compare() && self.has("xargs") && is_of_change(&error) => Ok(()),
            done => done,
        }
    }

    fn can_compare(&self) -> bool {
        self.has("sha256sum") || self.has("cksum")
    }

    pub(super) fn can_stage(&self) -> bool {
        self.has_all(&["cat", "mkdir", "mv", "rm", "chmod"])
    }

    /// Whether the beginning of a file can be told from another.
    pub(super) fn can_append(&self) -> bool {
        self.can_compare() && self.has_all(&["cat", "wc", "xargs"])
    }

    /// Whether the rest of a file can be had.
    pub(super) fn can_skip(&self) -> bool {
        self.can_compare() && self.has_all(&["head", "tail"])
    }
}

pub(super) fn without_tools(side: &Side) -> crate::Error {
    let target = side.container.as_ref();
    let target = target.map_or_else(String::new, |name| format!(" --target={name}"));
    CallerError::NothingToCopyWith {
        pod: format!("pod {}/{}", side.pod.namespace(), side.pod.name()),
        name: side.pod.name().to_owned(),
        target: format!(" -n {}{target}", side.pod.namespace()),
    }
    .into()
}

/// Whether all that GNU's tar complains of is that files have changed while it read them.
pub(super) fn is_of_change(error: &Error) -> bool {
    let Error::Api(error) = error else {
        return false;
    };
    let mut lines = error.operation.lines().peekable();
    error.status.code_of_exit() == Some(1)
        && lines.peek().is_some()
        && lines.all(|line| line.ends_with(": file changed as we read it"))
}
