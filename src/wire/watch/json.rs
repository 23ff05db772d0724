//! JSON, read no further than asked: where an object ends, and its members one at a time.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::{Encoding, EventError};

pub(super) const fn malformed(what: &'static str) -> EventError {
    EventError::Malformed {
        encoding: Encoding::Json,
        what,
    }
}

/// Finds the end of the object at the start of a growing buffer.
///
/// API servers write each event on one line and a newline after it
/// (`k8s.io/apimachinery/pkg/util/framer/framer.go` promises neither). So a newline is the first
/// guess, and a guess is believed only where it is certain: a raw newline cannot lie inside a
/// string, and outside strings `}` is followed by `{` only between two objects. Where that does
/// not decide, at the end of what has arrived, braces are counted.
#[derive(Debug, Default, Clone)]
pub(super) struct EndOfObject {
    /// No newline before this.
    searched: usize,
    /// Braces are counted from here on; before the count began, 0.
    counted: usize,
    counting: bool,
    in_string: bool,
    depth: u64,
}

impl EndOfObject {
    /// The length of the object that `data` begins with; `None` if its end is not there yet.
    ///
    /// `data` is what the last call had and what arrived since; its first byte must be `{`. The
    /// end is never within what the last call had.
    pub(super) fn find(&mut self, data: &[u8]) -> Option<usize> {
        if !self.counting {
            // The byte before is looked at again together with the one after it.
            let from = self.searched.saturating_sub(1);
            match memchr(b'\n', &data[self.searched..]) {
                Some(at) => {
                    let newline = self.searched + at;
                    if data.get(newline + 1) == Some(&b'{')
                        && data[newline - 1] == b'}'
                        && !may_end_within(&data[from..newline])
                    {
                        return Some(newline);
                    }
                }
                None if data.last() != Some(&b'}') && !may_end_within(&data[from..]) => {
                    self.searched = data.len();
                    return None;
                }
                None => {}
            }
            self.counting = true;
        }
        self.count(data)
    }

    fn count(&mut self, data: &[u8]) -> Option<usize> {
        let mut at = self.counted;
        while at < data.len() {
            if self.in_string {
                match memchr2(b'"', b'\\', &data[at..]) {
                    None => at = data.len(),
                    Some(found) if data[at + found] == b'"' => {
                        at += found + 1;
                        self.in_string = false;
                    }
                    Some(found) if at + found + 1 < data.len() => at += found + 2,
                    Some(found) => {
                        // The byte after the backslash has not arrived.
                        at += found;
                        break;
                    }
                }
                continue;
            }
            match data[at] {
                b'"' => self.in_string = true,
                b'{' => self.depth += 1,
                b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        self.counted = at;
        None
    }
}

/// Whether an object may end before the last byte of `line`, which holds no newline.
///
/// Behind the end of an object comes white space or the next object. Inside strings braces and
/// spaces may stand in any order, so `true` may be wrong; `false` never is. Written so that it
/// compiles to vector instructions.
fn may_end_within(line: &[u8]) -> bool {
    let mut doubtful = 0_u8;
    for (this, next) in line.iter().zip(line.get(1..).unwrap_or_default()) {
        doubtful |= u8::from((*this == b'}') & ((*next == b'{') | (*next <= b' ')));
    }
    doubtful != 0
}

/// A name and the data from the start of its value on.
type Member<'a> = (Cow<'a, [u8]>, &'a [u8]);

/// The members of an object, one at a time; the value of the last is skipped only on the way to
/// the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Members<'a> {
    data: &'a [u8],
    at: usize,
    /// `at` is the start of a value that has not been skipped.
    at_value: bool,
    done: bool,
}

impl<'a> Members<'a> {
    /// The members of the object that `data` begins with; none, if it begins with `null`.
    pub(super) fn new(data: &'a [u8]) -> Result<Self, EventError> {
        let at = skip_space(data, 0);
        let done = match data.get(at) {
            Some(b'{') => false,
            Some(b'n') => true,
            _ => return Err(malformed("an object should stand here")),
        };
        Ok(Self {
            data,
            at: at + 1,
            at_value: false,
            done,
        })
    }

    /// The next name, and the data from the start of its value on.
    pub(super) fn next(&mut self) -> Result<Option<Member<'a>>, EventError> {
        if self.done {
            return Ok(None);
        }
        let data = self.data;
        if self.at_value {
            self.at = self.skip_value()?;
        }
        let first = !self.at_value && data.get(self.at.wrapping_sub(1)) == Some(&b'{');
        let mut at = skip_space(data, self.at);
        match data.get(at) {
            Some(b'}') => {
                self.done = true;
                self.at = at + 1;
                return Ok(None);
            }
            Some(b',') if !first => at = skip_space(data, at + 1),
            Some(b'"') if first => {}
            _ => return Err(malformed("a member or the end of an object should follow")),
        }
        let (name, rest) = string(&data[at..])?;
        at = skip_space(data, data.len() - rest.len());
        if data.get(at) != Some(&b':') {
            return Err(malformed("a colon should follow the name of a member"));
        }
        self.at = skip_space(data, at + 1);
        self.at_value = true;
        let name = match unescape(name)? {
            Cow::Borrowed(name) => Cow::Borrowed(name.as_bytes()),
            Cow::Owned(name) => Cow::Owned(name.into_bytes()),
        };
        Ok(Some((name, &data[self.at..])))
    }

    /// Where the value at hand ends.
    fn skip_value(&self) -> Result<usize, EventError> {
        skip_value(&self.data[self.at..]).map(|len| self.at + len)
    }
}

/// The length of the value that `data` begins with.
pub(super) fn skip_value(data: &[u8]) -> Result<usize, EventError> {
    let (open, close) = match data.first() {
        Some(b'"') => {
            let (_, rest) = string(data)?;
            return Ok(data.len() - rest.len());
        }
        Some(b'{') => (b'{', b'}'),
        Some(b'[') => (b'[', b']'),
        Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            let ends = |b: &u8| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace();
            return Ok(data.iter().position(ends).unwrap_or(data.len()));
        }
        _ => return Err(malformed("a value should stand here")),
    };
    let mut depth = 0_u64;
    let mut at = 0;
    while at < data.len() {
        match data[at] {
            b'"' => {
                let (_, rest) = string(&data[at..])?;
                at = data.len() - rest.len();
                continue;
            }
            byte if byte == open => depth += 1,
            byte if byte == close => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Err(malformed("a value does not end"))
}

pub(super) fn skip_space(data: &[u8], mut at: usize) -> usize {
    // RFC 8259, section 2: space, tab, line feed, carriage return.
    while matches!(data.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// What stands between the quotes that `data` begins with, escapes and all, and what follows.
fn string(data: &[u8]) -> Result<(&[u8], &[u8]), EventError> {
    if data.first() != Some(&b'"') {
        return Err(malformed("a string should stand here"));
    }
    let mut at = 1;
    loop {
        let rest = data.get(at..).unwrap_or_default();
        match memchr2(b'"', b'\\', rest) {
            Some(found) if rest[found] == b'"' => {
                return Ok((&data[1..at + found], &data[at + found + 1..]));
            }
            Some(found) => at += found + 2,
            None => return Err(malformed("a string does not end")),
        }
    }
}

fn unescape(inside: &[u8]) -> Result<Cow<'_, str>, EventError> {
    if memchr(b'\\', inside).is_none() {
        return std::str::from_utf8(inside)
            .map(Cow::Borrowed)
            .map_err(|_| malformed("a string is not UTF-8"));
    }
    let mut quoted = Vec::with_capacity(inside.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(inside);
    quoted.push(b'"');
    serde_json::from_slice(&quoted)
        .map(Cow::Owned)
        .map_err(|_| malformed("a string has an escape that is none"))
}

/// The string that `data` begins with; empty for `null`.
pub(super) fn text(data: &[u8]) -> Result<Cow<'_, str>, EventError> {
    if data.first() == Some(&b'n') {
        return Ok(Cow::Borrowed(""));
    }
    unescape(string(data)?.0)
}

/// The integer that `data` begins with; 0 for `null`.
pub(super) fn integer(data: &[u8]) -> Result<i64, EventError> {
    let len = skip_value(data)?;
    if data.first() == Some(&b'n') {
        return Ok(0);
    }
    std::str::from_utf8(&data[..len])
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(malformed("an integer should stand here"))
}
