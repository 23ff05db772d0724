//! Copies from a container: in flows a path there, out comes a copy of it on this machine, each
//! file whole or not at all.

use std::{
    collections::HashSet,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{
    Copied, NotKept, Record,
    glob::Exclude,
    lock,
    options::Options,
    pack::Keep,
    progress::Progress,
    shell::{REST, escaped},
    side::{Side, thread},
    split,
    tools::{Method, Tools},
    unnamed,
    unpack::{Bounds, Rules, Unpacker},
    verify::{Comparing, ahead, early, verify_begun},
    walk,
};
#[cfg(doc)]
use crate::error::CallerError;
#[cfg(doc)]
use crate::limits;
use crate::{
    Pod, Result,
    client::{Exec, Output},
    error::Error,
};

/// A copy from a container to this machine.
///
/// The destination is the copy's name; directories before it are made. One that ends with a slash
/// is the directory into which the copy goes under its own name.
///
/// What a container sends is not trusted. Nothing is written outside the destination: a name that
/// leads out is an error, and so is a symbolic link on this machine below the destination that a
/// name goes through. Symbolic links that lead out and devices are left out and
/// [named](Copied::left_out). Kept are permissions (not set-user-ID and its like), times in
/// seconds, hard links; zeros become holes. A file gets its name when it is whole.
///
/// The container needs `tar`, or a shell and `cat`. With those, modes, times and hard links are kept
/// if it has `stat`, symbolic links if it has `readlink`; what it lacks, the copy
/// [says](Copied::not_kept).
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// # let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # std::fs::write(there.path().join("app.log"), "hello\n")?;
/// # let (here, log) = (here.path(), there.path().join("app.log"));
/// # let log = log.to_str().expect("it is UTF-8");
/// // `log` is a file in the container.
/// let pod = client.pod("default", "web-0");
/// let copied = pod.copy_from(log, here.join("copy.log")).max_bytes(1 << 30).run().await?;
/// assert_eq!(copied.files, 1);
/// assert_eq!(std::fs::read(here.join("copy.log"))?, b"hello\n");
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is copied until it is run"]
pub struct CopyFrom {
    options: Options,
    source: String,
    destination: PathBuf,
    bounds: Bounds,
}

impl CopyFrom {
    pub(super) fn new(pod: &Pod, source: String, destination: PathBuf) -> Self {
        Self {
            options: Options::new(pod),
            source,
            destination,
            bounds: Bounds::default(),
        }
    }

    super::copy_options!();

    setters! {
        /// How many files, directories and links may come; [`limits::COPY_ENTRIES`] unless set.
        fn max_entries(entries: u64) bounds.entries = entries;

        /// How many bytes of files may come; [`limits::COPY_BYTES`] unless set.
        fn max_bytes(bytes: u64) bounds.bytes = bytes;
    }

    /// Copies, and then compares every file with `sha256sum` in the container, or with `cksum` if it has
    /// no other. Without both, or without `xargs`, what tells that all has arrived is the archive's own structure, to its end.
    ///
    /// Cancel safety: dropping the future closes the connection, with which what runs in the
    /// container ends where there is a shell. Files that are whole stay; one
    /// that is not has a name such as `.kubewire-0123456789abcdef.part`, and is removed by its
    /// thread, for which [`Progress::settled`] waits.
    ///
    /// # Errors
    ///
    /// * [`CallerError::File`] for what cannot be written here;
    /// * [`CallerError::NothingToCopyWith`] if the container has no programs for it;
    /// * [`CallerError::TimedOut`] past the [`deadline`](Self::deadline);
    /// * [`Error::Api`] with the words of `tar` if that fails, and those of
    ///   [`Exec::spawn`];
    /// * [`PeerError::Copy`](crate::error::PeerError::Copy), which names the file, for an archive
    ///   that is cut, too large, or would write elsewhere, and for a file that is another in the
    ///   container, because it has changed meanwhile. One that only became longer, as logs do, is
    ///   as long as it was when its turn came.
    pub async fn run(&self) -> Result<Copied> {
        let begin = || self.begin();
        self.options.run("copy from", begin, Work::attempt).await
    }

    async fn begin(&self) -> Result<Work> {
        let from = Source::new(&self.source);
        let last = self.destination.as_os_str().as_encoded_bytes().last();
        let into = last.is_some_and(|last| std::path::is_separator(char::from(*last)))
            || self.destination.file_name().is_none();
        let root = match (&from.name, into) {
            (_, false) => self.destination.clone(),
            (Some(name), true) => self.destination.join(name),
            (None, true) => return Err(unnamed(Path::new(&self.source))),
        };
        let tools = Tools::look(&self.options.side, from.rooted().as_bytes()).await?;
        let side = tools.on(&self.options.side);
        let method = tools.method_from(&side)?;
        let rules = Rules {
            base: from.name.as_ref().map(PathBuf::from),
            modes: self.options.keep != Keep::Times,
            owners: self.options.keep == Keep::Owners,
            bounds: self.bounds,
            exclude: self.options.exclude.clone(),
            progress: self.options.progress.clone(),
            sum: side.sum,
        };
        let opened = thread(&self.options.progress, move || Unpacker::new(rules, root));
        let unpacker = opened.await?;
        Ok(Work {
            side,
            from,
            tools,
            method,
            unpacker: Arc::new(Mutex::new(unpacker)),
            exclude: self.options.exclude.clone(),
            progress: self.options.progress.clone(),
            cut: false,
            walked: Arc::default(),
        })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) directory: String,
    /// The name in it; all that is in it without one.
    pub(super) name: Option<String>,
}

impl Source {
    pub(super) fn new(path: &str) -> Self {
        let (directory, name) = split(path);
        Self {
            directory: directory.to_owned(),
            name: name.map(str::to_owned),
        }
    }

    /// As a path, which is no option whatever it begins with.
    pub(super) fn rooted(&self) -> String {
        let front = match self.directory.starts_with('/') {
            true => "",
            false => "./",
        };
        match &self.name {
            None => format!("{front}{}", self.directory),
            Some(name) => format!("{front}{}/{name}", self.directory.trim_end_matches('/')),
        }
    }

    pub(super) fn below(&self, below: &[u8]) -> Vec<u8> {
        super::below(self.rooted().as_bytes(), below)
    }

    /// The arguments of the `tar` that archives it.
    pub(super) fn archive<'a>(&'a self, what: &'a str, holes: bool) -> Vec<&'a str> {
        let mut words = vec!["tar", "-c", "-f", "-", "-C", &self.directory, what];
        if holes {
            words.insert(2, "-S");
        }
        words
    }

    /// The same, run, but for what is on a list of [`without`](Self::without).
    pub(super) fn packed(&self, side: &Side, holes: bool, list: Vec<u8>) -> Exec {
        let what = self.what();
        let mut words = self.archive(&what, holes);
        if !list.is_empty() {
            words.splice(2..2, ["-X", "-"]);
        }
        side.reader(list, words)
    }

    /// What `tar` is to leave out, a line each.
    pub(super) fn without<'a>(
        &self,
        exclude: &Exclude,
        done: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<u8> {
        let base = self.name.as_deref().unwrap_or_default();
        let mut list = Vec::new();
        for pattern in exclude.patterns() {
            // Those that mean the same to it.
            let is_name = is_plain(pattern) && !pattern.contains(&b'/');
            if is_name && !Exclude::of(pattern).has(base.as_bytes()) {
                list.extend_from_slice(pattern);
                list.push(b'\n');
            }
        }
        let what = self.what();
        let front = what.trim_end_matches('/').as_bytes();
        for name in done {
            list.extend_from_slice(&[front, b"/", name, b"\n"].concat());
        }
        list
    }

    /// Whether such a list can have this name.
    pub(super) fn can_be_without(&self, name: &[u8]) -> bool {
        is_literal(name) && is_literal(self.name.as_deref().unwrap_or_default().as_bytes())
    }

    /// A name that begins with a dash is no option this way.
    pub(super) fn what(&self) -> String {
        format!("./{}", self.name.as_deref().unwrap_or_default())
    }

    /// Tells the bytes of all its files while something is done, if anybody looks and the container
    /// knows.
    pub(super) async fn counting<T>(
        &self,
        side: &Side,
        tools: &Tools,
        progress: &Progress,
        done: impl Future<Output = T>,
    ) -> T {
        let count = async {
            if progress.is_watched()
                && let Some(total) = self.total(side, tools).await
            {
                progress.total(total);
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            done = done => done,
            never = count => match never {},
        }
    }

    async fn total(&self, side: &Side, tools: &Tools) -> Option<u64> {
        if !tools.has_all(&["find", "stat"]) {
            return None;
        }
        let words = ["-exec", "stat", "-c", "%s", "{}", "+"];
        let output = self.find(side, words).await.ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let sizes = text.lines().map(|line| line.parse::<u64>());
        sizes.sum::<Result<u64, _>>().ok()
    }

    /// What `find` says of the files.
    async fn find<const N: usize>(&self, side: &Side, words: [&str; N]) -> Result<Output> {
        let rooted = self.rooted();
        let words = ["find", &rooted, "-type", "f"].into_iter().chain(words);
        let find = side.reader(Vec::new(), words).max_output(LISTED);
        find.output().await
    }

    /// The files with several names, of which none may come alone. `None` if nobody can tell, or if
    /// `tar` could leave out none of the others.
    pub(super) async fn linked(
        &self,
        side: &Side,
        tools: &Tools,
    ) -> Result<Option<HashSet<Vec<u8>>>> {
        if !tools.takes_lists() || !tools.has("find") {
            return Ok(None);
        }
        let output = match self.find(side, ["-links", "+1", "-print0"]).await {
            Ok(output) => output,
            Err(error) if matches!(error, Error::Network(_)) => return Err(error),
            Err(_) => return Ok(None),
        };
        if !output.status.success() {
            return Ok(None);
        }
        let rooted = self.rooted();
        let names = output.stdout.split(|byte| *byte == 0);
        let names = names.filter_map(|name| {
            let below = name.strip_prefix(rooted.as_bytes())?;
            Some(below.strip_prefix(b"/").unwrap_or(below).to_vec())
        });
        Ok(Some(names.collect()))
    }
}

/// Bytes of a listing.
const LISTED: usize = 64 << 20;

/// A copy under way, which outlives its connections.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) side: Side,
    pub(super) from: Source,
    pub(super) tools: Tools,
    method: Method,
    pub(super) unpacker: Arc<Mutex<Unpacker>>,
    exclude: Exclude,
    pub(super) progress: Progress,
    cut: bool,
    /// What came by `cat`, in its order.
    pub(super) walked: Arc<Mutex<walk::Walked>>,
}

impl Work {
    async fn attempt(&mut self) -> Result<Copied> {
        let is_again = std::mem::replace(&mut self.cut, true);
        let (large, begun) = mpsc::unbounded_channel();
        let (whole, told) = mpsc::unbounded_channel();
        {
            let mut unpacker = lock(&self.unpacker);
            let comparing = Comparing::new(large, whole);
            unpacker
                .records
                .values()
                .for_each(|it| comparing.is_whole(it));
            unpacker.comparing = Some(comparing);
        }
        let (side, from, tools) = (self.side.clone(), self.from.clone(), self.tools.clone());
        let (progress, rooted) = (self.progress.clone(), from.rooted());
        let receiving = async {
            let receive = async {
                match self.method {
                    Method::Cat => walk::receive(self, is_again).await,
                    _ => self.archive(is_again).await,
                }
            };
            from.counting(&side, &tools, &progress, receive).await?;
            lock(&self.unpacker).comparing = None;
            Ok::<(), Error>(())
        };
        let reading = async { Ok(ahead(&side, rooted.as_bytes(), begun).await) };
        let comparing = async { Ok(early(&side, rooted.as_bytes(), told).await) };
        let ((), read, mut left) = tokio::try_join!(receiving, reading, comparing)?;
        let unpacker = self.unpacker.clone();
        let finishing = thread(&self.progress, move || lock(&unpacker).finish());
        finishing.await?;
        {
            let unpacker = lock(&self.unpacker);
            unpacker.keep_last(&mut left);
            let records = unpacker.records.values();
            let is_other =
                |it: &&Record| read.get(&it.name).is_some_and(|&is| is != Some(it.digest));
            left.extend(records.filter(is_other).cloned());
        }
        left.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let compared = verify_begun(&self.side, rooted.as_bytes(), rooted.as_ref(), left);
        let compared = compared.await?;
        let mut unpacker = lock(&self.unpacker);
        let mut not_kept = Vec::new();
        if self.method == Method::Cat {
            if !self.tools.has("stat") {
                not_kept.extend([NotKept::Modes, NotKept::Times, NotKept::HardLinks]);
            }
            if unpacker.rules.owners {
                not_kept.push(NotKept::Owners);
            }
        }
        Ok(Copied {
            files: (unpacker.records.len() + unpacker.links.len()) as u64,
            bytes: unpacker.records.values().map(|it| it.size).sum(),
            compared,
            left_out: std::mem::take(&mut unpacker.left_out),
            not_kept,
        })
    }

    async fn archive(&mut self, is_again: bool) -> Result<()> {
        let done = match is_again {
            true => self.resume().await?,
            false => HashSet::new(),
        };
        if done.contains(&b""[..]) {
            return Ok(());
        }
        let list = match self.tools.takes_lists() {
            true => {
                let done = done.iter().map(|it| &it[..]);
                self.from.without(&self.exclude, done)
            }
            false => Vec::new(),
        };
        let exec = self.from.packed(&self.side, self.tools.is_gnu(), list);
        let unpacker = self.unpacker.clone();
        let job = move |input| lock(&unpacker).unpack(input);
        let done = self.side.receive(exec, &self.progress, job).await;
        self.tools.forgive_change(done)
    }

    /// Gets the rest of the file that was cut, and says what need not come again.
    async fn resume(&mut self) -> Result<HashSet<Arc<[u8]>>> {
        let Some(linked) = self.from.linked(&self.side, &self.tools).await? else {
            let mut unpacker = lock(&self.unpacker);
            unpacker.partial = None;
            self.progress.start(0, 0);
            return Ok(HashSet::new());
        };
        self.rest(|name| linked.contains(name)).await?;
        let unpacker = lock(&self.unpacker);
        let names = unpacker.records.values();
        let names = names.filter(|it| self.from.can_be_without(&it.name));
        let names = names.filter(|it| !linked.contains(&it.name[..]));
        let mut bytes = 0;
        let done: HashSet<_> = names
            .map(|it| {
                bytes += it.size;
                it.name.clone()
            })
            .collect();
        self.progress.start(done.len() as u64, bytes);
        Ok(done)
    }

    /// Gets the rest of the file that was cut, if its beginning is still the same.
    pub(super) async fn rest(&mut self, is_unwanted: impl Fn(&[u8]) -> bool) -> Result<()> {
        let (name, size) = {
            let mut unpacker = lock(&self.unpacker);
            let Some(partial) = &unpacker.partial else {
                return Ok(());
            };
            let name = super::name_bytes(&partial.about.below);
            let can_be_told = partial.about.size.is_some() && partial.size > 0;
            if is_unwanted(&name) || !can_be_told || !self.tools.can_skip() {
                unpacker.partial = None;
                return Ok(());
            }
            (name, partial.size)
        };
        let path = escaped(&self.from.below(&name));
        let (front, next) = (size.to_string(), (size + 1).to_string());
        let exec = self
            .side
            .reading(REST, [&path[..], &front, self.side.sum.program(), &next]);
        let unpacker = self.unpacker.clone();
        let job = move |input| lock(&unpacker).rest(input);
        match self.side.receive(exec, &self.progress, job).await {
            Err(error @ Error::Network(_)) => Err(error),
            // It comes again, then.
            _ => {
                lock(&self.unpacker).partial = None;
                Ok(())
            }
        }
    }
}

/// Whether a line of a list means this and nothing else: GNU's tar takes blanks at its end away.
fn is_plain(name: &[u8]) -> bool {
    !name.iter().any(u8::is_ascii_control) && !name.last().is_some_and(u8::is_ascii_whitespace)
}

fn is_literal(name: &[u8]) -> bool {
    is_plain(name) && !name.iter().any(|byte| b"*?[\\".contains(byte))
}
