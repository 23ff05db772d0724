//! What the container says of the files there: in flow their names, out come their digests, as its
//! `sha256sum` or `cksum` finds them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    sync::mpsc,
};

use super::{
    Record, below, lock,
    shell::{BEGINNING, DIGESTS, escaped},
    side::{Side, is_missing, send_all},
    sums::{Digest, Line, Lines, Sum},
    unpack::wrong,
};
use crate::{
    Result,
    client::{Child, ChildStdin, ChildStdout, Exec, Stdio},
    error::{CallerError, Error},
};

/// The exit code of `xargs` if a program that it runs fails (POSIX, xargs, "EXIT STATUS").
const FAILED: i32 = 123;

/// Runs a program with files whose names it reads, so few of them at once that what is told of early
/// is not answered late.
const DIGEST: [&str; 4] = ["xargs", "-0", "-n", "256"];

/// Bytes of a file that is worth a program of its own, which reads it while it comes.
const LARGE: u64 = 8 << 20;

/// Files that may be found to have grown: each costs a program of its own.
const GROWN: usize = 64;

/// Bytes of names that are sent together.
const WORDS: usize = 16 << 10;

/// So many bytes behind a file it is likely to be written: more than what waits on the way.
const BEHIND: u64 = 8 << 20;

/// Compares files with [`Sum::program`] in the container. `false` if it has none.
///
/// `shown` is what errors call the directory.
pub(super) async fn verify(
    side: &Side,
    directory: &[u8],
    shown: &Path,
    records: Vec<Record>,
) -> Result<bool> {
    match compare(side, directory, records).await? {
        None => Ok(false),
        Some(others) => others.judge(shown).map(|()| true),
    }
}

/// The same, but a file that has become longer in the container is the same if it begins with what
/// came, as a log does that is being written.
pub(super) async fn verify_begun(
    side: &Side,
    directory: &[u8],
    shown: &Path,
    records: Vec<Record>,
) -> Result<bool> {
    let Some(mut others) = compare(side, directory, records).await? else {
        return Ok(false);
    };
    let mut left = Vec::new();
    for (at, (record, is_there)) in others.files.into_iter().enumerate() {
        let may_begin = is_there && at < GROWN && record.size > 0;
        if !may_begin || !begins(side, directory, &record).await? {
            left.push((record, is_there));
        }
    }
    others.files = left;
    others.judge(shown).map(|()| true)
}

/// Whether a file in the container begins with what came.
async fn begins(side: &Side, directory: &[u8], record: &Record) -> Result<bool> {
    let path = escaped(&below(directory, &record.name));
    let exec = side.reading(
        BEGINNING,
        [&path[..], &record.size.to_string(), side.sum.program()],
    );
    match side.run(exec, "copy from").await {
        Ok(found) => Ok(side
            .sum
            .read(&found)
            .is_some_and(|it| it.0 == record.digest)),
        Err(error @ Error::Network(_)) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Files that are not the same in the container.
struct Others {
    /// Each, and whether it could be read there.
    files: Vec<(Record, bool)>,
    /// What the program complains of.
    complaint: String,
}

impl Others {
    fn judge(&self, shown: &Path) -> Result<()> {
        let Some((record, is_there)) = self.files.first() else {
            return Ok(());
        };
        let problem = match is_there {
            true => format!(
                "its {} bytes are others in the container, where it may have changed meanwhile",
                record.size
            ),
            false => format!("the container cannot read it: {}", self.complaint),
        };
        Err(wrong(&record.shown(shown), problem))
    }
}

async fn compare(side: &Side, directory: &[u8], records: Vec<Record>) -> Result<Option<Others>> {
    let mut files = Vec::new();
    let other = |record: Record, digest: Option<Digest>| {
        if digest != Some(record.digest) {
            files.push((record, digest.is_some()));
        }
    };
    let paths = Paths::new(directory);
    let told = Told::all(&paths, records);
    let complaint = ask(side, &paths, told, other).await?;
    Ok(complaint.map(|complaint| Others { files, complaint }))
}

/// Compares files while others are still on their way. Gives those that were not found to be the
/// same: one may not be written yet, and what else is wrong [`verify`] says.
pub(super) async fn early(
    side: &Side,
    directory: &[u8],
    told: mpsc::UnboundedReceiver<Record>,
) -> Vec<Record> {
    let mut left = Vec::new();
    let other = |record: Record, digest: Option<Digest>| {
        if digest != Some(record.digest) {
            left.push(record);
        }
    };
    let told = Told { told, bytes: None };
    if let Err(error) = ask(side, &Paths::new(directory), told, other).await {
        tracing::debug!(%error, "files are compared later");
    }
    left
}

/// The digests of files that begin to come: the container reads each while it sends it.
pub(super) async fn ahead(
    side: &Side,
    directory: &[u8],
    mut told: mpsc::UnboundedReceiver<Arc<[u8]>>,
) -> HashMap<Arc<[u8]>, Option<Digest>> {
    let paths = Paths::new(directory);
    let (mut found, mut there) = (HashMap::new(), None);
    while let Some(name) = told.recv().await {
        if there.is_none() {
            there = Some(Ahead::start(side).await);
        }
        let mut digest = None;
        if let Some(Ok(Some(ahead))) = &mut there {
            match ahead.ask(&paths.of(&name)).await {
                Ok(told) => digest = told,
                Err(error) => there = Some(Err(error)),
            }
        }
        found.insert(name, digest);
    }
    match there {
        Some(Ok(Some(ahead))) => ahead.end().await,
        Some(Err(error)) => tracing::debug!(%error, "large files are compared later"),
        _ => {}
    }
    found
}

/// What gives digests one by one.
struct Ahead {
    sum: Sum,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Ahead {
    async fn start(side: &Side) -> Result<Option<Self>> {
        if !side.shell {
            return Ok(None);
        }
        let child = start(
            side.script(DIGESTS, [side.sum.program()])
                .stderr(Stdio::null()),
        )
        .await?;
        Ok(child.and_then(|mut child| {
            let (stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
            let stdout = BufReader::new(stdout);
            Some(Self {
                sum: side.sum,
                child,
                stdin,
                stdout,
            })
        }))
    }

    async fn ask(&mut self, path: &[u8]) -> Result<Option<Digest>> {
        let line = Bytes::from(escaped(path) + "\n");
        send_all(&mut self.stdin, line)
            .await
            .map_err(Error::of_connection)?;
        let mut line = Vec::new();
        let read = self.stdout.read_until(b'\n', &mut line).await;
        if read.map_err(Error::of_connection)? == 0 {
            return Err(CallerError::Ended.into());
        }
        // Of a name with odd characters the line begins with a backslash.
        let line = line.strip_prefix(b"\\").unwrap_or(&line);
        Ok(self.sum.read(line).map(|(digest, _)| digest))
    }

    async fn end(mut self) {
        // It ends itself if it does not hear of it.
        if send_all(&mut self.stdin, Bytes::from_static(b"\n"))
            .await
            .is_ok()
        {
            let _ = self.child.wait().await;
        }
    }
}

/// The digests of files below a directory, by their names. `None` if there is no program for it.
pub(super) async fn digests(
    side: &Side,
    directory: &[u8],
    names: Vec<Arc<[u8]>>,
) -> Result<Option<Vec<(Arc<[u8]>, Option<Digest>)>>> {
    let mut found = Vec::with_capacity(names.len());
    let take = |name, digest| found.push((name, digest));
    let paths = Paths::new(directory);
    let asked = ask(side, &paths, Told::all(&paths, names), take).await?;
    Ok(asked.map(|_| found))
}

/// Who compares files as they come from a container.
#[derive(Debug)]
pub(super) struct Comparing {
    large: mpsc::UnboundedSender<Arc<[u8]>>,
    /// What was told of as large.
    begun: HashSet<Arc<[u8]>>,
    whole: mpsc::UnboundedSender<Record>,
}

impl Comparing {
    /// With what [`ahead`] and [`early`] are told.
    pub(super) fn new(
        large: mpsc::UnboundedSender<Arc<[u8]>>,
        whole: mpsc::UnboundedSender<Record>,
    ) -> Self {
        Self {
            large,
            begun: HashSet::new(),
            whole,
        }
    }

    /// A file of so many bytes comes next.
    pub(super) fn begins(&mut self, name: &[u8], size: u64) {
        if size >= LARGE {
            let name: Arc<[u8]> = name.into();
            // Nobody listens any more if the connection was cut.
            let _ = self.large.send(name.clone());
            self.begun.insert(name);
        }
    }

    pub(super) fn is_whole(&self, record: &Record) {
        if !self.begun.contains(&record.name) {
            // It is told again if nobody listens any more.
            let _ = self.whole.send(record.clone());
        }
    }
}

/// Files that were sent, of which [`early`] is told when they are likely to be written.
#[derive(Debug, Default)]
pub(super) struct Lately {
    tell: Option<mpsc::UnboundedSender<Record>>,
    /// Each with the bytes up to its end.
    waiting: VecDeque<(Record, u64)>,
    sent: u64,
}

impl Lately {
    pub(super) fn new(tell: mpsc::UnboundedSender<Record>) -> Self {
        Self {
            tell: Some(tell),
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, record: &Record) {
        let Some(tell) = &self.tell else { return };
        self.sent = self.sent.saturating_add(record.size);
        self.waiting.push_back((record.clone(), self.sent));
        while let Some((_, end)) = self.waiting.front()
            && self.sent - end >= BEHIND
            && let Some((record, _)) = self.waiting.pop_front()
        {
            // Nobody is told any more if the connection was cut.
            let _ = tell.send(record);
        }
    }

    /// All are written.
    pub(super) fn settle(&mut self) {
        if let Some(tell) = self.tell.take() {
            for (record, _) in self.waiting.drain(..) {
                let _ = tell.send(record);
            }
        }
    }
}

/// The files that are asked about.
struct Told<T> {
    told: mpsc::UnboundedReceiver<T>,
    /// The bytes of all that `xargs` is to read, if that is known.
    bytes: Option<usize>,
}

impl<T: AsRef<[u8]>> Told<T> {
    fn all(paths: &Paths, files: Vec<T>) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let lines = files.iter().map(|file| paths.line(file.as_ref()).len());
        let bytes = Some(lines.sum());
        for file in files {
            // The other end is in this function.
            let _ = tell.send(file);
        }
        Self { told, bytes }
    }
}

/// Asks for the digests of files below a directory, and hands on each, in their order; those that
/// nobody tells without one. Gives what the program complains of;
/// `None` if it is not there.
async fn ask<T: AsRef<[u8]> + Send>(
    side: &Side,
    paths: &Paths,
    mut told: Told<T>,
    mut take: impl FnMut(T, Option<Digest>) + Send,
) -> Result<Option<String>> {
    let Some(first) = told.told.recv().await else {
        return Ok(Some(String::new()));
    };
    let asked = Mutex::new(VecDeque::from([first]));
    let done = converse(side, paths, &mut told, &asked, &mut take).await;
    for file in std::mem::take(&mut *lock(&asked)) {
        take(file, None);
    }
    while let Some(file) = told.told.recv().await {
        take(file, None);
    }
    done
}

/// `asked` has the files that are not answered yet, and one at the beginning.
async fn converse<T: AsRef<[u8]> + Send>(
    side: &Side,
    paths: &Paths,
    told: &mut Told<T>,
    asked: &Mutex<VecDeque<T>>,
    take: &mut (impl FnMut(T, Option<Digest>) + Send),
) -> Result<Option<String>> {
    // Where the names end, their count says, or the end of the input.
    let counted = told.bytes.filter(|_| side.shell);
    let words = DIGEST.into_iter().chain([side.sum.program()]);
    let exec = match counted {
        Some(bytes) => side.watched(bytes, words),
        None => side.program(words).require_half_close(),
    };
    let Some(mut child) = start(exec).await? else {
        return Ok(None);
    };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut words = Vec::new();
    if let Some(first) = lock(asked).front() {
        words.extend_from_slice(&paths.line(first.as_ref()));
    }
    let ask = async {
        let mut stdin = stdin?;
        loop {
            let ready = (words.len() <= WORDS).then(|| told.told.try_recv().ok());
            let next = match ready.flatten() {
                Some(next) => Some(next),
                None => {
                    // One that reads no more says why in its status.
                    let words = Bytes::from(std::mem::take(&mut words));
                    if !words.is_empty() && send_all(&mut stdin, words).await.is_err() {
                        return None;
                    }
                    told.told.recv().await
                }
            };
            let Some(next) = next else { break };
            words.extend_from_slice(&paths.line(next.as_ref()));
            lock(asked).push_back(next);
        }
        if counted.is_none() {
            let _ = stdin.shutdown().await;
        }
        Some(stdin)
    };
    let answer = async {
        let mut lines = Lines::of(side.sum);
        let Some(mut stdout) = stdout else {
            return Ok(lines);
        };
        let mut buffer = vec![0; 32 << 10];
        loop {
            let read = stdout
                .read(&mut buffer)
                .await
                .map_err(Error::of_connection)?;
            lines.feed(&buffer[..read], read == 0);
            let mut asked = lock(asked);
            while let Some(file) = asked.front() {
                let digest = match lines.next(&paths.of(file.as_ref())) {
                    Line::More => break,
                    Line::Of(digest) => Some(digest),
                    Line::Other => None,
                };
                if let Some(file) = asked.pop_front() {
                    take(file, digest);
                }
            }
            if read == 0 {
                return Ok::<_, Error>(lines);
            }
        }
    };
    let (lines, complaint, _stdin) = tokio::join!(answer, super::side::complaint(stderr), ask);
    let status = match child.wait().await {
        Ok(status) => status,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !lines?.has_begun && !matches!(status.code(), Some(0 | FAILED)) {
        return Ok(None);
    }
    Ok(Some(complaint))
}

/// The paths of names below a directory.
struct Paths {
    front: Vec<u8>,
}

impl Paths {
    fn new(directory: &[u8]) -> Self {
        let mut front = directory.to_vec();
        if !directory.starts_with(b"/") {
            front.splice(0..0, *b"./");
        }
        Self { front }
    }

    fn of(&self, name: &[u8]) -> Vec<u8> {
        below(&self.front, name)
    }

    /// As `xargs` takes it.
    fn line(&self, name: &[u8]) -> Vec<u8> {
        let mut line = self.of(name);
        line.push(0);
        line
    }
}

/// `None` if the program is not there.
async fn start(exec: Exec) -> Result<Option<Child>> {
    match exec.stdin(Stdio::piped()).spawn().await {
        Ok(child) => Ok(Some(child)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
