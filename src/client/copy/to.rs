//! Copies to a container: in flows a path of this machine, out comes a copy of it there, whole or
//! not at all.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::mpsc;

#[cfg(doc)]
use super::super::Exec;
use super::{
    Copied, NotKept, Record, bytes_path,
    finish::Finish,
    lock, name_bytes,
    options::Options,
    pack::{Keep, Packed, Plan, pack, pack_directories, total},
    progress::Progress,
    side::{Side, thread},
    split,
    stage::Stage,
    tools::{Method, Tools},
    unnamed,
    unpack::compare,
    verify::{Lately, early, verify},
};
#[cfg(doc)]
use crate::error::CallerError;
use crate::{Pod, Result, error::Error};

/// A copy from this machine to a container.
///
/// The destination is the copy's name; its directory must exist. One that ends with a slash is
/// the directory into which the copy goes under its own name. What is there already is replaced
/// file by file, and what else is there stays.
///
/// Kept are modes, times in seconds, symbolic and hard links, and holes. Owner is who runs the
/// programs there, unless [`preserve_owner`](Self::preserve_owner) asks for more. What the
/// container cannot keep, [`Copied::not_kept`] says.
///
/// The container needs one of these:
///
/// * `tar`, and a shell with `cat`, `mkdir`, `mv`, `rm` and `chmod`. The copy is kept aside in a
///   directory such as `.kubewire-0123456789abcdef.part`, in the destination if that is a directory
///   already and beside it if not, and gets its name when it is verified;
/// * `tar` alone, which writes files under their names;
/// * a shell and `cat`, with `mkdir` for directories: an exec for each file. It is kept aside too if
///   the programs for that are there. Hard links become files of their own.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// # let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # std::fs::write(here.path().join("index.html"), "hello")?;
/// # let (site, srv) = (here.path(), there.path().to_str().expect("it is UTF-8"));
/// // `site` is a directory here, `srv` is one in the container.
/// let copied = client.pod("default", "web-0").copy_to(site, format!("{srv}/site")).run().await?;
/// assert_eq!((copied.files, copied.bytes), (1, 5));
/// assert!(copied.left_out.is_empty());
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is copied until it is run"]
pub struct CopyTo {
    options: Options,
    source: PathBuf,
    destination: String,
}

/// A copy under way, which outlives its connections.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) side: Side,
    pub(super) plan: Arc<Plan>,
    pub(super) tools: Tools,
    pub(super) method: Method,
    /// The directory of the destination, and the destination.
    pub(super) directory: String,
    pub(super) target: Vec<u8>,
    pub(super) stage: Option<Stage>,
    pub(super) packed: Arc<Mutex<Packed>>,
    /// What was sent, also over connections before.
    pub(super) sent: HashMap<Arc<[u8]>, Record>,
    pub(super) not_kept: Vec<NotKept>,
    /// Files whose attributes are to be given them.
    pub(super) appended: Vec<(Vec<u8>, tar::Header)>,
    pub(super) is_local: bool,
    committing: bool,
}

/// The name in the stage, and in an archive that is unpacked there.
pub(super) const STAGED: &str = "it";

impl CopyTo {
    pub(super) fn new(pod: &Pod, source: PathBuf, destination: String) -> Self {
        Self {
            options: Options::new(pod),
            source,
            destination,
        }
    }

    super::copy_options!();

    /// Copies, compares every file with `sha256sum` in the container, or with `cksum` if it has no
    /// other, or, if both or `xargs` are missing there, by reading all back, and then gives the copy
    /// its name.
    ///
    /// Cancel safety: dropping the future closes the connection. What was kept aside in the
    /// container is removed by a task of the runtime, for which
    /// [`Progress::settled`] waits. With `tar` alone, a file may be left that is not whole.
    ///
    /// # Errors
    ///
    /// * [`CallerError::File`] for a file that cannot be read, or becomes shorter meanwhile;
    /// * [`CallerError::NothingToCopyWith`] if the container has no programs for it;
    /// * [`CallerError::TimedOut`] past the [`deadline`](Self::deadline);
    /// * [`Error::Api`] with the words of `tar` if that fails, and those of
    ///   [`Exec::spawn`];
    /// * [`PeerError::Copy`](crate::error::PeerError::Copy), which names the file, if something
    ///   else is in the container than was sent, whatever the server said;
    /// * [`CallerError::HalfClose`] if the server lacks `v5.channel.k8s.io`, over which alone a
    ///   program sees the end of its input.
    pub async fn run(&self) -> Result<Copied> {
        let begin = || self.begin();
        self.options.run("copy to", begin, Work::attempt).await
    }

    async fn begin(&self) -> Result<Work> {
        let own = self.source.file_name();
        let place = Place::new(&self.destination, own.map(|name| name_bytes(name.as_ref())));
        let place = place.ok_or_else(|| unnamed(&self.source))?;
        let plan = self.options.plan(self.source.clone());
        let (counted, path) = (plan.clone(), self.source.clone());
        let counting = thread(&self.options.progress, move || {
            Ok((total(&counted), path.is_dir()))
        });
        let (total, is_directory) = counting.await?;
        self.options.progress.total(total);
        Work::begin(&self.options.side, place, plan, is_directory).await
    }
}

/// Where a copy goes in a container.
#[derive(Debug)]
pub(super) struct Place {
    directory: String,
    name: Vec<u8>,
}

impl Place {
    /// `own` is the name of what is copied.
    pub(super) fn new(destination: &str, own: Option<Vec<u8>>) -> Option<Self> {
        let (directory, name) = split(destination);
        let name = name.filter(|_| !destination.ends_with('/'));
        let (directory, name) = match name {
            Some(name) => (directory, name.as_bytes().to_vec()),
            None => (destination, own?),
        };
        Some(Self {
            directory: directory.to_owned(),
            name,
        })
    }
}

impl Work {
    pub(super) async fn begin(
        side: &Side,
        place: Place,
        mut plan: Plan,
        is_directory: bool,
    ) -> Result<Self> {
        let Place { directory, name } = place;
        let front = directory.trim_end_matches('/').as_bytes();
        let target = [front, b"/", &name].concat();
        let tools = Tools::look(side, &target).await?;
        let side = &tools.on(side);
        let method = tools.method_to(side)?;
        // In the destination, which may be a file system of its own.
        let inside = match std::str::from_utf8(&target) {
            Ok(target) if tools.is_directory() && is_directory => target,
            _ => &directory,
        };
        let stages = method == Method::Staged || (method == Method::Cat && tools.can_stage());
        let stage = stages.then(|| Stage::new(side, inside, &plan.progress));
        plan.root = match stages {
            true => PathBuf::from(STAGED),
            false => bytes_path(&name),
        };
        plan.holes = tools.is_gnu();
        plan.sum = side.sum;
        Ok(Self {
            side: side.clone(),
            plan: Arc::new(plan),
            tools,
            method,
            directory,
            target,
            stage,
            packed: Arc::default(),
            sent: HashMap::new(),
            not_kept: Vec::new(),
            appended: Vec::new(),
            is_local: true,
            committing: false,
        })
    }

    async fn attempt(&mut self) -> Result<Copied> {
        let was_committed = self.resume().await?;
        if !was_committed {
            let left = self.send().await?;
            self.settle(left).await?;
        }
        self.copied().await
    }

    /// Verifies what is left of what was sent, and gives it its name.
    pub(super) async fn settle(&mut self, left: Vec<Record>) -> Result<()> {
        self.finish().await?;
        self.verify(left).await?;
        if let Some(stage) = &mut self.stage {
            self.committing = true;
            stage.commit(&self.target).await?;
        }
        Ok(())
    }

    /// What was copied, after all else.
    pub(super) async fn copied(&mut self) -> Result<Copied> {
        self.directories().await?;
        let mut packed = lock(&self.packed);
        let sizes = packed.records.iter().filter(|it| !it.link);
        Ok(Copied {
            files: packed.records.len() as u64,
            bytes: sizes.map(|it| it.size).sum(),
            compared: true,
            left_out: std::mem::take(&mut packed.left_out),
            not_kept: std::mem::take(&mut self.not_kept),
        })
    }

    /// Sends what is not there yet. Gives the files that are still to be compared.
    async fn send(&mut self) -> Result<Vec<Record>> {
        if self.method == Method::Cat {
            super::cat::send(self).await?;
            return Ok(lock(&self.packed).records.clone());
        }
        let exec = self.extract();
        let (tell, told) = mpsc::unbounded_channel();
        let (plan, packed) = (self.plan.clone(), self.packed.clone());
        let job = move |to| {
            let mut packed = lock(&packed);
            packed.lately = Lately::new(tell);
            pack(&plan, &mut packed, to)
        };
        let sending = async {
            let (stage, progress) = (self.stage.as_ref(), &self.plan.progress);
            self.side.send(exec, stage, progress, job).await?;
            lock(&self.packed).lately.settle();
            Ok::<(), Error>(())
        };
        let place = self.place();
        let comparing = async { Ok(early(&self.side, &place, told).await) };
        let ((), mut left) = tokio::try_join!(sending, comparing)?;
        let packed = lock(&self.packed);
        // They are written once more.
        let filled = packed.records.iter();
        let filled = filled.filter(|it| packed.filled.contains_key(&it.name[..]));
        left.extend(filled.cloned());
        Ok(left)
    }

    /// Where the copy is until it has its name.
    fn place(&self) -> Vec<u8> {
        match &self.stage {
            Some(stage) => stage.path(),
            None => self.target.clone(),
        }
    }

    /// The `tar` that takes the archive.
    pub(super) fn extract(&mut self) -> crate::client::Exec {
        let owners = self.plan.keep == Keep::Owners;
        match &mut self.stage {
            Some(stage) => stage.exec(&extract(owners)),
            None => {
                let words = extract(owners).into_iter().chain([&self.directory[..]]);
                self.side.program(words)
            }
        }
    }

    fn note_sent(&mut self) {
        let packed = lock(&self.packed);
        let records = packed.records.iter();
        let records = records.map(|it| (it.name.clone(), it.clone()));
        self.sent.extend(records);
    }

    pub(super) fn shown(&self) -> PathBuf {
        let name = self.target.rsplit(|it| *it == b'/').next();
        bytes_path(name.unwrap_or_default())
    }

    /// A name below the root, as it is in the directory of the archive.
    pub(super) fn archived(&self, below: &[u8]) -> Vec<u8> {
        super::below(&name_bytes(&self.plan.root), below)
    }

    /// The directory in which the archive's names are.
    pub(super) fn inside(&self) -> Vec<u8> {
        match &self.stage {
            Some(stage) => stage.tree().into_bytes(),
            None => self.directory.clone().into_bytes(),
        }
    }

    /// What could not go in the archive.
    async fn finish(&mut self) -> Result<()> {
        if self.stage.is_none() && self.method == Method::Tar {
            let packed = lock(&self.packed);
            if !packed.filled.is_empty() {
                self.not_kept.push(NotKept::Holes);
            }
            return Ok(());
        }
        let mut finish = Finish::new(&self.inside());
        {
            let packed = lock(&self.packed);
            for (name, filled) in &packed.filled {
                finish.dig(&self.archived(name), filled.size, &filled.segments);
            }
            let dug = packed.filled.iter().map(|(name, it)| (name, &it.header));
            let appended = self.appended.iter().map(|(name, it)| (name, it));
            for (name, header) in dug.chain(appended) {
                finish.attributes(&self.archived(name), header, self.plan.keep);
            }
        }
        self.lost(finish.run(&self.side).await?);
        Ok(())
    }

    pub(super) fn lost(&mut self, lost: Vec<NotKept>) {
        for it in lost {
            if !self.not_kept.contains(&it) {
                self.not_kept.push(it);
            }
        }
    }

    /// Compares what is left of what is there with what was sent.
    async fn verify(&mut self, left: Vec<Record>) -> Result<()> {
        let place = self.place();
        if verify(&self.side, &place, &self.shown(), left).await? {
            return Ok(());
        }
        let records = lock(&self.packed).records.clone();
        if self.method == Method::Cat {
            return super::cat::read_back(self, &place, records).await;
        }
        let inside = self.inside();
        let inside = String::from_utf8_lossy(&inside);
        let base = self.plan.root.clone();
        let name = format!("./{}", String::from_utf8_lossy(&name_bytes(&base)));
        let words = ["tar", "-c", "-f", "-", "-C", &inside, &name];
        let exec = self.side.reader(Vec::new(), words);
        let (sum, shown) = (self.plan.sum, self.shown());
        let job = move |input| compare(input, &base, sum, &shown, &records);
        self.side.receive(exec, &Progress::default(), job).await
    }

    /// Gives the directories the modes and times that they are to have, now that all is in them.
    async fn directories(&mut self) -> Result<()> {
        let directories = std::mem::take(&mut lock(&self.packed).directories);
        if directories.is_empty() {
            return Ok(());
        }
        if self.method == Method::Cat {
            let mut finish = Finish::new(b".");
            for (below, header) in &directories {
                let name = super::below(&self.target, &name_bytes(below));
                finish.attributes(&name, header, self.plan.keep);
            }
            let lost = finish.run(&self.side).await?;
            self.lost(lost);
            return Ok(());
        }
        let owners = self.plan.keep == Keep::Owners;
        let exec = extract(owners).into_iter().chain([&self.directory[..]]);
        let exec = self.side.program(exec);
        let name = self.shown();
        let job = move |to| pack_directories(&name, &directories, to);
        let progress = Progress::default();
        self.side.send(exec, None, &progress, job).await
    }

    /// Finds out what is there already. Whether that is all, under its name.
    pub(super) async fn resume(&mut self) -> Result<bool> {
        self.note_sent();
        lock(&self.packed).done.clear();
        let Some(stage) = &self.stage else {
            self.plan.progress.start(0, 0);
            return Ok(false);
        };
        if !stage.is_made() {
            return Ok(false);
        }
        if !stage.quiet().await? {
            if !self.committing {
                return Ok(false);
            }
            let records = lock(&self.packed).records.clone();
            let there = verify(&self.side, &self.target, &self.shown(), records).await;
            return match there {
                Err(error @ Error::Network(_)) => Err(error),
                there => Ok(there.unwrap_or(false)),
            };
        }
        super::resume::resume(self).await?;
        Ok(false)
    }
}

fn extract(owners: bool) -> Vec<&'static str> {
    let mut words = vec!["tar", "-x", "-p", "-f", "-", "-C"];
    if !owners {
        // As whoever runs it (GNU tar and busybox alike).
        words.insert(2, "-o");
    }
    words
}
