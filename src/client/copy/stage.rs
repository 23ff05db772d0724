//! What the container keeps aside until it is verified: in flow programs that write there, out
//! comes a directory that gets its name at once, or is removed.

use std::time::Duration;

use super::{
    options::is_cut,
    progress::Progress,
    shell::{APPEND, COMMIT, GONE, IN_STAGE, QUIET, REMOVE, SIZE, WRITE, escaped},
    side::Side,
    to::STAGED,
};
use crate::{Result, client::Exec};

/// How long the removal of what is no longer wanted may take.
const REMOVAL: Duration = Duration::from_secs(5);

/// Between attempts at it.
const AGAIN: Duration = Duration::from_millis(500);

/// A directory in the container. Dropping it removes it, if a runtime is there to do that.
#[derive(Debug)]
pub(super) struct Stage {
    side: Side,
    directory: String,
    name: String,
    progress: Progress,
    is_made: bool,
}

impl Stage {
    /// Will be made in `directory`, by what runs in it first.
    pub(super) fn new(side: &Side, directory: &str, progress: &Progress) -> Self {
        Self {
            side: side.clone(),
            directory: directory.to_owned(),
            name: super::aside(),
            progress: progress.clone(),
            is_made: false,
        }
    }

    pub(super) fn is_made(&self) -> bool {
        self.is_made
    }

    /// The directory that is written into.
    pub(super) fn tree(&self) -> String {
        let directory = self.directory.trim_end_matches('/');
        format!("{directory}/{}/tree", self.name)
    }

    pub(super) fn path(&self) -> Vec<u8> {
        format!("{}/{STAGED}", self.tree()).into_bytes()
    }

    /// A program, with what is kept aside as the directory that its last argument names.
    pub(super) fn exec(&mut self, command: &[&str]) -> Exec {
        self.is_made = true;
        let tree = format!("../{}/tree", self.name);
        let words = [&[&self.directory[..], &self.name], command, &[&tree]].concat();
        self.side.script(IN_STAGE, words)
    }

    /// Ends what an earlier connection has left running. Whether the stage is there.
    pub(super) async fn quiet(&self) -> Result<bool> {
        quiet(&self.side, [&self.directory, &self.name]).await
    }

    /// Whether what ran in it has ended.
    pub(super) async fn is_idle(&self) -> Result<bool> {
        let exec = self.side.script(GONE, [&self.directory[..], &self.name]);
        let said = self.side.run(exec, "copy to").await?;
        Ok(said.starts_with(b"gone"))
    }

    pub(super) async fn size(&self, below: &[u8]) -> Result<u64> {
        let exec = self.side.script(SIZE, [&escaped(below)[..], &self.tree()]);
        let said = self.side.run(exec, "copy to").await?;
        let size = String::from_utf8_lossy(&said).trim().parse();
        Ok(size.unwrap_or_default())
    }

    /// Takes what comes behind a file that is there.
    pub(super) fn append(&self, name: &[u8]) -> Exec {
        self.script(APPEND, name)
    }

    pub(super) fn write(&self, name: &[u8]) -> Exec {
        self.script(WRITE, name)
    }

    /// A script that takes a name, and which stage it is.
    fn script(&self, script: &str, name: &[u8]) -> Exec {
        let words = [&escaped(name)[..], &self.directory, &self.name];
        self.side.script(script, words)
    }

    /// Gives it its name. The stage is gone then.
    pub(super) async fn commit(&mut self, target: &[u8]) -> Result<()> {
        let exec = self.script(COMMIT, target);
        self.side.run(exec, "copy to").await?;
        self.is_made = false;
        Ok(())
    }
}

async fn quiet(side: &Side, words: [&str; 2]) -> Result<bool> {
    let said = side.run(side.script(QUIET, words), "copy to").await?;
    Ok(said.starts_with(b"here"))
}

impl Drop for Stage {
    fn drop(&mut self) {
        let (true, Ok(runtime)) = (self.is_made, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let progress = self.progress.clone();
        let busy = progress.busy();
        let (side, directory) = (self.side.clone(), self.directory.clone());
        let name = self.name.clone();
        runtime.spawn(async move {
            let words = [&directory[..], &name];
            let once = async || {
                if quiet(&side, words).await? {
                    side.run(side.script(REMOVE, words), "copy to").await?;
                }
                Ok(())
            };
            let removal = async {
                loop {
                    match once().await {
                        Err(error) if is_cut(&error) => tokio::time::sleep(AGAIN).await,
                        done => return done,
                    }
                }
            };
            let removed = tokio::time::timeout(REMOVAL, removal).await;
            if !matches!(removed, Ok(Ok(_))) {
                tracing::warn!(?removed, "what a copy kept aside is left");
                progress.leave(format!("{}/{name}", directory.trim_end_matches('/')));
            }
            drop(busy);
        });
    }
}
