//! What files are compared by: in flow their bytes here, and what a program in the container prints
//! of them there, out come digests.

use crc::{CRC_32_CKSUM, Crc, Table};
use sha2::{Digest as _, Sha256};

/// The program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sum {
    #[default]
    Sha256,
    /// POSIX's, where there is no other.
    Cksum,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digest {
    Sha256([u8; 32]),
    Cksum(u32, u64),
}

impl Sum {
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256sum",
            Self::Cksum => "cksum",
        }
    }

    pub(super) fn hasher(self) -> Hasher {
        match self {
            Self::Sha256 => Hasher::Sha256(Sha256::new()),
            Self::Cksum => Hasher::Cksum(CKSUM.digest(), 0),
        }
    }

    /// The digest that a line begins with, and what is behind.
    pub(super) fn read(self, line: &[u8]) -> Option<(Digest, &[u8])> {
        match self {
            Self::Sha256 => {
                let (text, rest) = line.split_at_checked(64)?;
                let mut digest = [0; 32];
                for (byte, pair) in digest.iter_mut().zip(text.chunks(2)) {
                    let pair = std::str::from_utf8(pair).ok()?;
                    *byte = u8::from_str_radix(pair, 16).ok()?;
                }
                Some((Digest::Sha256(digest), rest))
            }
            Self::Cksum => {
                let (crc, rest) = number(line)?;
                let (size, rest) = number(rest.strip_prefix(b" ")?)?;
                Some((Digest::Cksum(crc.try_into().ok()?, size), rest))
            }
        }
    }

    /// What is between the digest of a file and its name.
    fn space(self) -> usize {
        match self {
            Self::Sha256 => 2,
            Self::Cksum => 1,
        }
    }
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|it| it.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

static CKSUM: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_CKSUM);

/// Makes the digest of what it is given.
#[derive(Clone)]
pub(super) enum Hasher {
    Sha256(Sha256),
    /// With the count of bytes.
    Cksum(crc::Digest<'static, u32, Table<16>>, u64),
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Cksum(hasher, size) => {
                hasher.update(bytes);
                *size += bytes.len() as u64;
            }
        }
    }

    pub(super) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Self::Cksum(mut hasher, size) => {
                // The size is behind the bytes, as few octets as it needs (POSIX, cksum).
                let octets = (64 - size.leading_zeros()).div_ceil(8) as usize;
                hasher.update(&size.to_le_bytes()[..octets]);
                Digest::Cksum(hasher.finalize(), size)
            }
        }
    }
}

/// The lines of that program, of which only who knows the names can say where they end.
#[derive(Debug, Default)]
pub(super) struct Lines {
    sum: Sum,
    bytes: Vec<u8>,
    read: usize,
    pub(super) has_begun: bool,
    has_ended: bool,
}

pub(super) enum Line {
    /// It may be the name's, when more has come.
    More,
    Of(Digest),
    /// It is another's, or none.
    Other,
}

impl Lines {
    pub(super) fn of(sum: Sum) -> Self {
        Self {
            sum,
            ..Self::default()
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8], has_ended: bool) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
        self.has_begun |= !bytes.is_empty();
        self.has_ended = has_ended;
    }

    /// Takes the line of a name: its digest, and the name, which coreutils' `sha256sum` escapes
    /// where it must and busybox's does not.
    pub(super) fn next(&mut self, name: &[u8]) -> Line {
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
        let digest = self.sum.read(&rest[usize::from(escaped)..]);
        let digest = digest.and_then(|(digest, rest)| {
            let rest = rest.get(self.sum.space()..)?.strip_prefix(&name[..])?;
            Some((digest, rest.strip_prefix(b"\n")?.len()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_at_every_split() {
        let digest = "5a".repeat(32);
        let shas = format!("{digest}  ./a\n{digest}  ./b\nc\n\\{digest}  ./d\\ne\n");
        let crcs = "7 9 ./a\n7 9 ./b\nc\n7 9 ./d\ne\n".to_owned();
        let names: [&[u8]; 5] = [b"./a", b"./missing", b"./b\nc", b"./d\ne", b"./last"];
        for (sum, text, digest) in [
            (Sum::Sha256, shas, Digest::Sha256([0x5a; 32])),
            (Sum::Cksum, crcs, Digest::Cksum(7, 9)),
        ] {
            for at in 0..=text.len() {
                let (first, second) = text.as_bytes().split_at(at);
                let (mut lines, mut found) = (Lines::of(sum), Vec::new());
                for (bytes, end) in [(first, false), (second, false), (&b""[..], true)] {
                    lines.feed(bytes, end);
                    while let Some(name) = names.get(found.len()) {
                        match lines.next(name) {
                            Line::More => break,
                            Line::Of(it) => found.push(it == digest),
                            Line::Other => found.push(false),
                        }
                    }
                }
                assert_eq!(found, [true, false, true, true, false], "{sum:?} {at}");
            }
        }
    }

    #[test]
    fn programs_of_this_machine_make_the_same() {
        let directory = tempfile::tempdir().expect("there is room");
        for size in [0, 1, 255, 256, 65_535, 65_536, 70_001] {
            let bytes: Vec<u8> = (0..size).map(|at: u32| (at * 7 / 5) as u8).collect();
            let path = directory.path().join("it");
            std::fs::write(&path, &bytes).expect("it can be written");
            for sum in [Sum::Sha256, Sum::Cksum] {
                let output = std::process::Command::new(sum.program())
                    .stdin(std::fs::File::open(&path).expect("it is there"))
                    .output()
                    .expect("coreutils are there");
                let mut hasher = sum.hasher();
                bytes.chunks(1000).for_each(|it| hasher.update(it));
                let found = sum.read(&output.stdout).map(|(digest, _)| digest);
                assert_eq!(found, Some(hasher.finish()), "{sum:?} {size}");
            }
        }
    }
}
