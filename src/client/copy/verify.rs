//! What the container says of the files there: in flow their names, out come their digests, as
//! `sha256sum` finds them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

use super::{
    Record, below, lock,
    shell::COUNTED,
    side::{Side, is_missing, of_stream, send_all},
    unpack::wrong,
};
use crate::{
    Result,
    client::{Child, Exec, Stdio},
    error::Error,
};

/// The exit code of `xargs` if a program that it runs fails (POSIX, xargs, "EXIT STATUS").
const FAILED: i32 = 123;

/// Files of one `sha256sum`: few enough that what is told of early is not answered late.
const AT_ONCE: &str = "256";

/// Bytes of a file that is worth a `sha256sum` of its own, which reads it while it comes.
const LARGE: u64 = 8 << 20;

/// Bytes of names that are sent together.
const WORDS: usize = 16 << 10;

/// So many bytes behind a file it is likely to be written: more than what waits on the way.
const BEHIND: u64 = 8 << 20;

pub(super) type Digest = [u8; 32];

/// Compares files with `sha256sum` in the container. `false` if it has none.
///
/// `shown` is what errors call the directory.
pub(super) async fn verify(
    side: &Side,
    directory: &[u8],
    shown: &Path,
    records: Vec<Record>,
) -> Result<bool> {
    let mut first = None;
    let other = |record: Record, digest: Option<Digest>| {
        if digest != Some(record.digest) && first.is_none() {
            first = Some((record, digest.is_some()));
        }
    };
    let paths = Paths::new(directory);
    let told = Told::all(&paths, records);
    let Some(complaint) = ask(side, &paths, AT_ONCE, told, other).await? else {
        return Ok(false);
    };
    let Some((record, is_there)) = first else {
        return Ok(true);
    };
    let problem = match is_there {
        true => format!("its {} bytes are others in the container", record.size),
        false => format!("the container cannot read it: {complaint}"),
    };
    Err(wrong(&record.shown(shown), problem))
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
    if let Err(error) = ask(side, &Paths::new(directory), AT_ONCE, told, other).await {
        tracing::debug!(%error, "files are compared later");
    }
    left
}

/// The digests of files that begin to come: the container reads each while it sends it.
pub(super) async fn ahead(
    side: &Side,
    directory: &[u8],
    told: mpsc::UnboundedReceiver<Arc<[u8]>>,
) -> HashMap<Arc<[u8]>, Option<Digest>> {
    let mut found = HashMap::new();
    let take = |name, digest| {
        found.insert(name, digest);
    };
    let told = Told { told, bytes: None };
    if let Err(error) = ask(side, &Paths::new(directory), "1", told, take).await {
        tracing::debug!(%error, "large files are compared later");
    }
    found
}

/// The digests of files below a directory, by their names. `None` if there is no `sha256sum`.
pub(super) async fn digests(
    side: &Side,
    directory: &[u8],
    names: Vec<Arc<[u8]>>,
) -> Result<Option<Vec<(Arc<[u8]>, Option<Digest>)>>> {
    let mut found = Vec::with_capacity(names.len());
    let take = |name, digest| found.push((name, digest));
    let paths = Paths::new(directory);
    let asked = ask(side, &paths, AT_ONCE, Told::all(&paths, names), take).await?;
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
/// nobody tells without one, `at_once` of them from one `sha256sum`. Gives what that complains of;
/// `None` if it is not there.
async fn ask<T: AsRef<[u8]> + Send>(
    side: &Side,
    paths: &Paths,
    at_once: &str,
    mut told: Told<T>,
    mut take: impl FnMut(T, Option<Digest>) + Send,
) -> Result<Option<String>> {
    let Some(first) = told.told.recv().await else {
        return Ok(Some(String::new()));
    };
    let asked = Mutex::new(VecDeque::from([first]));
    let done = converse(side, paths, at_once, &mut told, &asked, &mut take).await;
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
    at_once: &str,
    told: &mut Told<T>,
    asked: &Mutex<VecDeque<T>>,
    take: &mut (impl FnMut(T, Option<Digest>) + Send),
) -> Result<Option<String>> {
    let exec = side.program(["xargs", "-0", "-n", at_once, "sha256sum"]);
    let Some(mut child) = start(exec).await? else {
        return Ok(None);
    };
    if child.stdin.as_ref().is_some_and(|it| !it.can_shutdown()) {
        // Nothing but the count of the bytes says where the names end.
        child.kill();
        let Some(bytes) = told.bytes.filter(|_| side.shell) else {
            return Ok(None);
        };
        let bytes = bytes.to_string();
        match start(side.script(COUNTED, [&bytes[..], at_once])).await? {
            Some(other) => child = other,
            None => return Ok(None),
        }
    }
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut words = Vec::new();
    if let Some(first) = lock(asked).front() {
        words.extend_from_slice(&paths.line(first.as_ref()));
    }
    let ask = async {
        let Some(mut stdin) = stdin else { return };
        loop {
            let next = match told.told.try_recv() {
                Ok(next) => Some(next),
                Err(_) => {
                    // One that reads no more says why in its status.
                    let words = Bytes::from(std::mem::take(&mut words));
                    if !words.is_empty() && send_all(&mut stdin, words).await.is_err() {
                        return;
                    }
                    told.told.recv().await
                }
            };
            let Some(next) = next else { break };
            words.extend_from_slice(&paths.line(next.as_ref()));
            lock(asked).push_back(next);
            if words.len() > WORDS {
                let words = Bytes::from(std::mem::take(&mut words));
                if send_all(&mut stdin, words).await.is_err() {
                    return;
                }
            }
        }
        // Where it has no such end, the program counts.
        let _ = stdin.shutdown().await;
    };
    let answer = async {
        let mut lines = Lines::default();
        let Some(mut stdout) = stdout else {
            return Ok(lines);
        };
        let mut buffer = vec![0; 32 << 10];
        loop {
            let read = stdout.read(&mut buffer).await.map_err(of_stream)?;
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
    let (lines, complaint, ()) = tokio::join!(answer, super::side::complaint(stderr), ask);
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

/// The lines of `sha256sum`, of which only who knows the names can say where they end.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    read: usize,
    has_begun: bool,
    has_ended: bool,
}

enum Line {
    /// It may be the name's, when more has come.
    More,
    Of(Digest),
    /// It is another's, or none.
    Other,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], has_ended: bool) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
        self.has_begun |= !bytes.is_empty();
        self.has_ended = has_ended;
    }

    /// Takes the line of a name: its digest, two more bytes, and the name, which coreutils escapes
    /// where it must and busybox does not.
    fn next(&mut self, name: &[u8]) -> Line {
        let rest = &self.bytes[self.read..];
        // Escaped, a name has at most twice its length.
        if !self.has_ended && rest.len() < 68 + 2 * name.len() {
            return Line::More;
        }
        let escaped = rest.first() == Some(&b'\\');
        let name = match escaped {
            true => escape(name),
            false => name.to_vec(),
        };
        let digest = rest[usize::from(escaped)..].split_at_checked(64);
        let digest = digest.and_then(|(digest, rest)| {
            let rest = rest.get(2..)?.strip_prefix(&name[..])?;
            let rest = rest.strip_prefix(b"\n")?;
            Some((of_hex(digest)?, rest.len()))
        });
        match digest {
            Some((digest, left)) => {
                self.read = self.bytes.len() - left;
                Line::Of(digest)
            }
            None => Line::Other,
        }
    }
}

/// As `sha256sum` of coreutils escapes a name.
fn escape(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len() + 2);
    for byte in name {
        match byte {
            b'\\' => escaped.extend_from_slice(b"\\\\"),
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' => escaped.extend_from_slice(b"\\r"),
            byte => escaped.push(*byte),
        }
    }
    escaped
}

pub(super) fn of_hex(text: &[u8]) -> Option<Digest> {
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.chunks(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_at_every_split() {
        let digest = "5a".repeat(32);
        let text = format!("{digest}  ./a\n{digest}  ./b\nc\n\\{digest}  ./d\\ne\n");
        let names: [&[u8]; 5] = [b"./a", b"./missing", b"./b\nc", b"./d\ne", b"./last"];
        for at in 0..=text.len() {
            let (first, second) = text.as_bytes().split_at(at);
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for (bytes, end) in [(first, false), (second, false), (&b""[..], true)] {
                lines.feed(bytes, end);
                while let Some(name) = names.get(found.len()) {
                    match lines.next(name) {
                        Line::More => break,
                        Line::Of(digest) => found.push(digest == [0x5a; 32]),
                        Line::Other => found.push(false),
                    }
                }
            }
            assert_eq!(found, [true, false, true, true, false], "{at}");
        }
    }
}
