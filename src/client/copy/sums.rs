//! What `sha256sum` prints: in flow its bytes and the names that it was asked for, out come digests.

pub(super) type Digest = [u8; 32];

/// The lines of `sha256sum`, of which only who knows the names can say where they end.
#[derive(Debug, Default)]
pub(super) struct Lines {
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
    pub(super) fn feed(&mut self, bytes: &[u8], has_ended: bool) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
        self.has_begun |= !bytes.is_empty();
        self.has_ended = has_ended;
    }

    /// Takes the line of a name: its digest, two more bytes, and the name, which coreutils escapes
    /// where it must and busybox does not.
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

/// The digest that a text begins with.
pub(super) fn of_hex(text: &[u8]) -> Option<Digest> {
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.get(..64)?.chunks(2)) {
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
