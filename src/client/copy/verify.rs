//! What the container says of the files there: in flow their names, out come their digests, as
//! `sha256sum` finds them.

use std::path::Path;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use super::{
    Record,
    side::{Side, is_missing, of_stream, send_all},
    unpack::wrong,
};
use crate::{Result, client::Stdio, error::Error};

/// The exit code of `xargs` if a program that it runs fails (POSIX, xargs, "EXIT STATUS").
const FAILED: i32 = 123;

pub(super) type Digest = [u8; 32];

/// Compares files with `sha256sum` in the container. `false` if it has none.
///
/// `shown` is what errors call the directory.
pub(super) async fn verify(
    side: &Side,
    directory: &[u8],
    shown: &Path,
    records: &[Record],
) -> Result<bool> {
    let names = records.iter().map(|it| &it.name[..]);
    let Some((digests, complaint)) = digests(side, directory, names).await? else {
        return Ok(false);
    };
    for (record, digest) in records.iter().zip(digests) {
        let problem = match digest {
            Some(digest) if digest == record.digest => continue,
            Some(_) => format!("its {} bytes are others in the container", record.size),
            None => format!("the container cannot read it: {complaint}"),
        };
        return Err(wrong(&record.shown(shown), problem));
    }
    Ok(true)
}

/// The digests of files below a directory, in their order, and what `sha256sum` complains of.
/// `None` if it is not there.
pub(super) async fn digests<'a>(
    side: &Side,
    directory: &[u8],
    names: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<Option<(Vec<Option<Digest>>, String)>> {
    let mut names = names.peekable();
    if names.peek().is_none() {
        return Ok(Some(Default::default()));
    }
    let mut front = directory.to_vec();
    if !directory.starts_with(b"/") {
        front.splice(0..0, *b"./");
    }
    let path = |name: &[u8]| {
        // A file that was copied alone has no name below itself.
        match name {
            b"" => front.clone(),
            name => [&front, &b"/"[..], name].concat(),
        }
    };
    let exec = side.program(["xargs", "-0", "sha256sum"]);
    let mut child = match exec.stdin(Stdio::piped()).spawn().await {
        Ok(child) => child,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let (mut stdin, stdout, stderr) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let asked = names.clone();
    let ask = async {
        let (Some(mut stdin), mut words) = (stdin.take(), Vec::new()) else {
            return;
        };
        for name in asked {
            words.extend_from_slice(&path(name));
            words.push(0);
            // One that reads no more says why in its status.
            if words.len() > 16 << 10
                && send_all(&mut stdin, Bytes::from(std::mem::take(&mut words)))
                    .await
                    .is_err()
            {
                return;
            }
        }
        let _ = send_all(&mut stdin, Bytes::from(words)).await;
    };
    let answer = async {
        let mut lines = Lines::default();
        let mut digests = Vec::new();
        let Some(mut stdout) = stdout else {
            return Ok((digests, lines));
        };
        let mut buffer = vec![0; 32 << 10];
        loop {
            let read = stdout.read(&mut buffer).await.map_err(of_stream)?;
            lines.feed(&buffer[..read], read == 0);
            while let Some(name) = names.peek() {
                match lines.next(&path(name)) {
                    Line::More => break,
                    Line::Of(digest) => digests.push(Some(digest)),
                    Line::Other => digests.push(None),
                }
                names.next();
            }
            if read == 0 {
                return Ok::<_, Error>((digests, lines));
            }
        }
    };
    let (answered, complaint, ()) = tokio::join!(answer, super::side::complaint(stderr), ask);
    let status = match child.wait().await {
        Ok(status) => status,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let (digests, lines) = answered?;
    if lines.is_empty && !matches!(status.code(), Some(0 | FAILED)) {
        return Ok(None);
    }
    Ok(Some((digests, complaint)))
}

/// The lines of `sha256sum`, of which only who knows the names can say where they end.
#[derive(Debug)]
struct Lines {
    bytes: Vec<u8>,
    read: usize,
    is_empty: bool,
    has_ended: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            read: 0,
            is_empty: true,
            has_ended: false,
        }
    }
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
        self.is_empty &= bytes.is_empty();
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
