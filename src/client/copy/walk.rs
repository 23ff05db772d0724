//! Copies from a container that has a shell and `cat`: in flow contents with marks between them,
//! out come files.
//!
//! A shell cannot say how long a file is, so a mark says where it ends: 32 random letters, which no
//! file has but by the will of a container, and that may send what it likes anyway.

use std::{
    collections::HashMap,
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use memchr::memmem::Finder;

use super::{
    Reason, bytes_path,
    from::Work,
    lock, name_bytes,
    pipe::PipeReader,
    place::{About, Attributes},
    shell::{WALK, escaped},
    times,
    unpack::{Counted, Unpacker, below, wrong},
};
use crate::{Result, limits};

/// The bytes of a header, and of the target of a link.
const HEADER: usize = 64 << 10;

/// What has come, in its order.
#[derive(Debug, Default)]
pub(super) struct Walked {
    names: Vec<Vec<u8>>,
    /// How many of them need not come again.
    whole: usize,
    /// The first names of files with several.
    first: HashMap<Vec<u8>, PathBuf>,
}

/// Gets all, or what is left of it.
pub(super) async fn receive(work: &mut Work, is_again: bool) -> Result<()> {
    if is_again {
        let partial = lock(&work.unpacker)
            .partial
            .as_ref()
            .map(|it| name_bytes(&it.about.below));
        work.rest(|_| false).await?;
        let mut walked = lock(&work.walked);
        // The one that was cut is the last.
        if let Some(name) = partial
            && lock(&work.unpacker).records.contains_key(&name[..])
        {
            walked.whole = walked.names.len();
        }
    }
    let path = escaped(work.from.rooted().as_bytes());
    let mark = format!(
        "{:016x}{:016x}",
        rand::random::<u64>(),
        rand::random::<u64>()
    );
    let skip = lock(&work.walked).whole.to_string();
    let exec = work.side.reading(WALK, [&path[..], &mark, &skip]);
    let (unpacker, walked) = (work.unpacker.clone(), work.walked.clone());
    let job = move |input: PipeReader| {
        lock(&unpacker).awaited = input.awaited();
        let mut marked = Marked::new(input, mark.as_bytes());
        walk(&mut marked, &mut lock(&unpacker), &mut lock(&walked))
    };
    work.side.receive(exec, &work.progress, job).await
}

fn walk(from: &mut Marked<impl Read>, unpacker: &mut Unpacker, walked: &mut Walked) -> Result<()> {
    let broken = |error: io::Error| wrong(Path::new("the copy"), error.to_string());
    let (whole, mut at) = (walked.whole, 0);
    let mut counted = Counted::new(unpacker.rules.bounds);
    unpacker.forget();
    loop {
        let header = from.short().map_err(broken)?;
        let Some(header) = Header::parse(&header) else {
            return Err(wrong(Path::new("the copy"), "a header of it is none"));
        };
        let path = bytes_path(header.name);
        let path =
            below(&path, None).ok_or_else(|| wrong(&path, "it is not what was asked for"))?;
        if header.kind == b'e' {
            return Ok(());
        }
        counted.entry(&path, header.size.unwrap_or_default())?;
        if at < whole {
            if walked.names.get(at).map(|it| &it[..]) != Some(header.name) {
                walked.whole = 0;
                return Err(wrong(
                    &path,
                    "other files are there than were before the cut",
                ));
            }
        } else {
            walked.names.truncate(at);
            walked.names.push(header.name.to_vec());
        }
        at += 1;
        let rules = &unpacker.rules;
        let attributes = Attributes {
            mode: header.mode.filter(|_| rules.modes),
            time: header.time,
            owner: None,
        };
        let is_excluded = rules.exclude.has(header.name);
        match header.kind {
            b'f' if is_excluded => from.drain().map_err(broken)?,
            b'l' if is_excluded => drop(from.short().map_err(broken)?),
            _ if is_excluded => {}
            b'd' => unpacker.directory(path, attributes)?,
            b'l' => {
                let mut target = from.short().map_err(broken)?;
                // The line feed is that of `readlink`.
                target.pop();
                unpacker.symlink(path, bytes_path(&target), None)?;
            }
            b'n' => unpacker.leave_out(
                path,
                Reason::Lacks {
                    program: "readlink",
                },
            ),
            b'f' => {
                let first = header.linked.and_then(|id| walked.first.get(id));
                if let Some(first) = first.filter(|it| **it != path) {
                    from.drain().map_err(broken)?;
                    unpacker.hard_link(&path, first)?;
                } else {
                    if let Some(id) = header.linked {
                        walked.first.insert(id.to_vec(), path.clone());
                    }
                    let about = About {
                        below: path.clone(),
                        size: header.size,
                        attributes,
                    };
                    let growing = unpacker.root.file(about, unpacker.rules.sum)?;
                    from.ended = false;
                    let mut counting = |bytes| counted.bytes(&path, bytes);
                    let announced = header.size.unwrap_or_default();
                    let mut bounded = Bounded {
                        from: &mut *from,
                        left: announced,
                        count: &mut counting,
                    };
                    unpacker.grow(growing, &mut bounded)?;
                    if !from.ended {
                        from.drain().map_err(broken)?;
                    }
                }
            }
            b'k' => {}
            _ => unpacker.leave_out(path, Reason::Special),
        }
        walked.whole = walked.whole.max(at);
    }
}

struct Bounded<'a, R, F> {
    from: &'a mut Marked<R>,
    left: u64,
    count: F,
}

impl<R: Read, F: FnMut(u64) -> Result<()>> Read for Bounded<'_, R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let more = (read as u64).saturating_sub(self.left);
        self.left = self.left.saturating_sub(read as u64);
        (self.count)(more).map_err(io::Error::other)?;
        Ok(read)
    }
}

/// What is said of a file before its contents.
struct Header<'a> {
    kind: u8,
    mode: Option<u32>,
    time: Option<SystemTime>,
    size: Option<u64>,
    /// What tells a file apart that has several names.
    linked: Option<&'a [u8]>,
    name: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (line, name) = (&bytes[..end], &bytes[end + 1..]);
        let mut words = line.split(|byte| *byte == b' ');
        let kind = match words.next()? {
            [kind] => *kind,
            _ => return None,
        };
        let mut text = || std::str::from_utf8(words.next()?).ok();
        let mode = text().and_then(|it| u32::from_str_radix(it, 8).ok());
        let seconds = text().and_then(|it| it.parse().ok());
        let time = seconds.and_then(times::to_disk);
        let size = text().and_then(|it| it.parse().ok());
        let names = text().and_then(|it| it.parse::<u64>().ok());
        let linked = words
            .next()
            .filter(|_| names.is_some_and(|names| names > 1));
        Some(Self {
            kind,
            // Set-user-ID would be that of whoever runs this.
            mode: mode.map(|mode| mode & 0o777),
            time,
            size: size.filter(|_| matches!(kind, b'f' | b'k')),
            linked,
            name,
        })
    }
}

/// Bytes in which marks are ends.
struct Marked<R> {
    from: R,
    finder: Finder<'static>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
}

impl<R: Read> Marked<R> {
    fn new(from: R, mark: &[u8]) -> Self {
        Self {
            from,
            finder: Finder::new(mark).into_owned(),
            buffer: vec![0; 2 * limits::COPY_STEP],
            start: 0,
            end: 0,
            ended: true,
        }
    }

    /// The bytes up to a mark, of which there must not be many.
    fn short(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.ended = false;
        self.by_ref()
            .take(HEADER as u64 + 1)
            .read_to_end(&mut bytes)?;
        match bytes.len() > HEADER {
            true => Err(io::Error::other("a name is longer than any")),
            false => Ok(bytes),
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        self.ended = false;
        io::copy(self, &mut io::sink()).map(|_| ())
    }
}

impl<R: Read> Read for Marked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let length = self.finder.needle().len();
        loop {
            let there = &self.buffer[self.start..self.end];
            let found = self.finder.find(there);
            // The last bytes may be the beginning of the mark.
            let ready = found.unwrap_or_else(|| (there.len() + 1).saturating_sub(length));
            if found == Some(0) {
                self.start += length;
                self.ended = true;
                return Ok(0);
            }
            if ready > 0 {
                let read = ready.min(buffer.len());
                buffer[..read].copy_from_slice(&there[..read]);
                self.start += read;
                return Ok(read);
            }
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            match self.from.read(&mut self.buffer[self.end..])? {
                0 => return Err(io::Error::other("it has no end")),
                read => self.end += read,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives as much as it is told at once.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.1.min(self.0.len()).min(buffer.len());
            buffer[..read].copy_from_slice(&self.0[..read]);
            self.0 = &self.0[read..];
            Ok(read)
        }
    }

    #[test]
    fn marks_are_found_at_every_split() -> io::Result<()> {
        let text = b"oneMARKMARKtwo MAR MMARKrest";
        for piece in 1..text.len() {
            let mut marked = Marked::new(Pieces(text, piece), b"MARK");
            assert_eq!(marked.short()?, b"one");
            assert_eq!(marked.short()?, b"");
            assert_eq!(marked.short()?, b"two MAR M");
            assert!(marked.short().is_err(), "there is no other mark");
        }
        Ok(())
    }

    #[test]
    fn a_header_says_what_the_container_can_say() {
        let header = Header::parse(b"f 4755 1000 12 2 8:1\nline\nfeed").expect("it is one");
        assert_eq!(
            (header.kind, header.mode, header.size),
            (b'f', Some(0o755), Some(12))
        );
        assert_eq!(
            (header.linked, header.name),
            (Some(&b"8:1"[..]), &b"line\nfeed"[..])
        );
        let header = Header::parse(b"f 755\nx").expect("it is one");
        assert_eq!(
            (header.mode, header.time, header.size),
            (Some(0o755), None, None)
        );
        assert!(Header::parse(b"").is_none());
    }
}
