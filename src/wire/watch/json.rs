//! JSON, read no further than asked: where a value ends, and the members of an object one at a time.

use std::borrow::Cow;

use memchr::{memchr2, memmem};

use super::{
    Encoding::Json,
    EventError,
    json_blocks::{self, BLOCK, Reached},
};

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
    /// Where the member at hand begins, the comma before it included.
    start: usize,
    done: bool,
}

impl<'a> Members<'a> {
    /// The members of the object that `data` begins with; none, if it begins with `null`.
    pub(super) fn new(data: &'a [u8]) -> Result<Self, EventError> {
        let at = skip_space(data, 0);
        let done = match data.get(at) {
            Some(b'{') => false,
            Some(b'n') => true,
            _ => return Err(Json.malformed("an object should stand here")),
        };
        Ok(Self {
            data,
            at: at + 1,
            at_value: false,
            start: at + 1,
            done,
        })
    }

    /// The next name, and the data from the start of its value on. After an error it is the same
    /// again.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Member<'a>>, EventError> {
        if self.done {
            return Ok(None);
        }
        let data = self.data;
        let first = !self.at_value;
        let mut at = match first {
            true => self.at,
            false => self.skip_value()?,
        };
        at = skip_space(data, at);
        let start = at;
        match data.get(at) {
            Some(b'}') => {
                self.done = true;
                return Ok(None);
            }
            Some(b',') if !first => at = skip_space(data, at + 1),
            Some(b'"') if first => {}
            _ => return Err(Json.malformed("a member or the end of an object should follow")),
        }
        let (name, len) = string(&data[at..])?;
        at = skip_space(data, at + len);
        if data.get(at) != Some(&b':') {
            return Err(Json.malformed("a colon should follow the name of a member"));
        }
        let name = match name.escaped {
            false => Cow::Borrowed(name.inside),
            true => Cow::Owned(name.text()?.into_owned().into_bytes()),
        };
        (self.start, self.at, self.at_value) = (start, skip_space(data, at + 1), true);
        Ok(Some((name, &data[self.at..])))
    }

    /// The member at hand and one comma: the one before it, or for the first the one behind.
    pub(super) fn span(&self) -> Result<&'a [u8], EventError> {
        let mut end = self.skip_value()?;
        if self.data[self.start] != b',' {
            let behind = skip_space(self.data, end);
            if self.data.get(behind) == Some(&b',') {
                end = behind + 1;
            }
        }
        Ok(&self.data[self.start..end])
    }

    /// Where the value at hand ends.
    #[inline]
    fn skip_value(&self) -> Result<usize, EventError> {
        let data = &self.data[self.at..];
        let len = match plain_len(data) {
            Some(len) => len,
            None => skip_value(data)?,
        };
        Ok(self.at + len)
    }
}

/// The length of the value that `data` begins with.
pub(super) fn skip_value(data: &[u8]) -> Result<usize, EventError> {
    match data.first() {
        Some(b'"') => return string(data).map(|(_, len)| len),
        Some(b'{' | b'[') => {}
        Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            let ends = |b: &u8| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace();
            return Ok(data.iter().position(ends).unwrap_or(data.len()));
        }
        _ => return Err(Json.malformed("a value should stand here")),
    }
    EndOfValue::default()
        .find(data)?
        .ok_or(Json.malformed("a value does not end"))
}

/// Finds the end of the value at the start of a growing buffer.
#[derive(Debug, Default, Clone)]
pub(in crate::wire) struct EndOfValue {
    /// How far the value is known.
    pub(super) at: usize,
    pub(super) in_string: bool,
    pub(super) depth: u64,
}

/// Where no vector instruction collects marks, blocks cost more than strings do.
const VECTORS: bool = cfg!(target_arch = "x86_64");
/// Bytes of a value that are looked at a string at a time: most values are no longer.
const SHORT: usize = 32;

impl EndOfValue {
    /// The length of the value; `None` if its end is not there yet. Of a number that is the byte
    /// behind it. Brackets are counted whatever their kind: who reads the value minds that.
    ///
    /// `data` is what the last call had and what arrived since.
    pub(in crate::wire) fn find(&mut self, data: &[u8]) -> Result<Option<usize>, EventError> {
        let mut until = match VECTORS {
            true => self.at + SHORT,
            false => usize::MAX,
        };
        loop {
            if let Some(end) = self.by_string(data, until) {
                return Ok(Some(end));
            }
            if self.at < until {
                return Ok(None);
            }
            until = usize::MAX;
            if self.depth == 0 {
                continue;
            }
            match json_blocks::skip(data, self) {
                Reached::End(end) => return Ok(Some(end)),
                Reached::On => {}
                Reached::Odd => until = self.at + BLOCK + 1,
            }
        }
    }

    /// The same a string at a time; `None` also if the end is not before `until`.
    fn by_string(&mut self, data: &[u8], until: usize) -> Option<usize> {
        let Self {
            mut at,
            mut in_string,
            mut depth,
        } = *self;
        'arrived: while at < until {
            while in_string {
                let Some(found) = data.get(at..).and_then(quote_or_escape) else {
                    at = data.len();
                    break 'arrived;
                };
                at += found + 1;
                if data[at - 1] == b'\\' {
                    if at == data.len() {
                        // The byte after the backslash has not arrived.
                        at -= 1;
                        break 'arrived;
                    }
                    at += 1;
                    if at >= until {
                        break 'arrived;
                    }
                    continue;
                }
                if depth == 0 {
                    return Some(at);
                }
                // Behind most strings one byte stands before the next.
                match data.get(at..).and_then(<[u8]>::first_chunk) {
                    Some([b':' | b',', b'"']) => at += 2,
                    _ => in_string = false,
                }
            }
            let Some(byte) = data.get(at) else { break };
            match CLASSES[usize::from(*byte)] {
                Class::Quote => in_string = true,
                Class::Open => depth += 1,
                Class::Close => match depth {
                    0 => return Some(at),
                    1 => return Some(at + 1),
                    _ => depth -= 1,
                },
                Class::Behind if depth == 0 => return Some(at),
                Class::Behind | Class::Other => {}
            }
            at += 1;
        }
        *self = Self {
            at,
            in_string,
            depth,
        };
        None
    }
}

/// What a byte outside of strings means for where a value ends.
#[derive(Clone, Copy)]
enum Class {
    Other,
    Quote,
    Open,
    Close,
    /// A number or a literal ends before it.
    Behind,
}

static CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    classes[b'"' as usize] = Class::Quote;
    classes[b'{' as usize] = Class::Open;
    classes[b'[' as usize] = Class::Open;
    classes[b'}' as usize] = Class::Close;
    classes[b']' as usize] = Class::Close;
    let mut behind = b", \t\n\r".as_slice();
    while let [byte, rest @ ..] = behind {
        classes[*byte as usize] = Class::Behind;
        behind = rest;
    }
    classes
};

pub(in crate::wire) fn skip_space(data: &[u8], mut at: usize) -> usize {
    // RFC 8259, section 2: space, tab, line feed, carriage return.
    while matches!(data.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// What stands between the quotes of a string.
#[derive(Debug, Clone, Copy)]
struct Quoted<'a> {
    inside: &'a [u8],
    escaped: bool,
}

impl<'a> Quoted<'a> {
    fn text(self) -> Result<Cow<'a, str>, EventError> {
        let Self { inside, escaped } = self;
        if !escaped {
            return std::str::from_utf8(inside)
                .map(Cow::Borrowed)
                .map_err(|_| Json.malformed("a string is not UTF-8"));
        }
        let mut quoted = Vec::with_capacity(inside.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(inside);
        quoted.push(b'"');
        serde_json::from_slice(&quoted)
            .map(Cow::Owned)
            .map_err(|_| Json.malformed("a string has an escape that is none"))
    }
}

/// The string that `data` begins with, and its length with its quotes.
#[inline(always)]
fn string(data: &[u8]) -> Result<(Quoted<'_>, usize), EventError> {
    let (escaped, len) = string_len(data)?;
    let inside = &data[1..len - 1];
    Ok((Quoted { inside, escaped }, len))
}

/// Whether the string that `data` begins with has escapes, and its length with its quotes.
#[inline(always)]
pub(super) fn string_len(data: &[u8]) -> Result<(bool, usize), EventError> {
    match plain_len(data) {
        Some(len) => Ok((false, len)),
        None => escaped_len(data).map(|len| (true, len)),
    }
}

/// The length of the string that `data` begins with, if it has no escapes.
#[inline(always)]
fn plain_len(data: &[u8]) -> Option<usize> {
    let inside = data.strip_prefix(b"\"")?;
    let found = quote_or_escape(inside)?;
    (inside[found] == b'"').then_some(found + 2)
}

/// The same of one that has escapes.
#[cold]
fn escaped_len(data: &[u8]) -> Result<usize, EventError> {
    if data.first() != Some(&b'"') {
        return Err(Json.malformed("a string should stand here"));
    }
    let mut at = 1;
    if VECTORS {
        match json_blocks::skip_string(data, at) {
            Ok(end) => return Ok(end),
            Err(on) => at = on,
        }
    }
    while let Some(found) = data.get(at..).and_then(quote_or_escape) {
        at += found + 1;
        if data[at - 1] == b'"' {
            return Ok(at);
        }
        at += 1;
    }
    Err(Json.malformed("a string does not end"))
}

/// The first quote or backslash.
///
/// Names and most values are too short for a vector search to pay: the first words go by.
#[inline]
fn quote_or_escape(data: &[u8]) -> Option<usize> {
    const WORDS: usize = 4;
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // One less than nothing has its highest bit: the lowest marked byte is the one that is looked
    // for; above it a mark may be wrong. Bytes that have this bit are others.
    let less = |word: u64, byte: u8| (word ^ (ONES * u64::from(byte))).wrapping_sub(ONES);
    let mut at = 0;
    for word in data.chunks_exact(8).take(WORDS) {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        let found = (less(word, b'"') | less(word, b'\\')) & !word & HIGHS;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    memchr2(b'"', b'\\', &data[at..]).map(|found| at + found)
}

/// Whether no member that begins in `data` has this name, of letters: neither it nor an escape that is
/// a letter is there at all, which is sooner seen than where each value ends.
pub(super) fn lacks(data: &[u8], name: &[u8]) -> bool {
    let is_letter = |at: usize| matches!(data.get(at + 4), Some(b'4'..=b'7'));
    memmem::find(data, name).is_none() && !memmem::find_iter(data, b"\\u00").any(is_letter)
}

/// The string that `data` begins with; empty for `null`.
pub(super) fn text(data: &[u8]) -> Result<Cow<'_, str>, EventError> {
    if data.first() == Some(&b'n') {
        return Ok(Cow::Borrowed(""));
    }
    string(data)?.0.text()
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
        .ok_or(Json.malformed("an integer should stand here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_in_the_same_place_wherever_it_is_cut() {
        // Runs of backslashes before quotes, at every place of a word and beyond the words.
        for run in 0..5 {
            for before in (0..40).chain([100]) {
                let text = format!("{}{}\"", "x".repeat(before), "\\".repeat(run));
                // An odd run escapes the quote, and another one ends the string.
                let text = match run % 2 {
                    0 => format!("\"{text}"),
                    _ => format!("\"{text}]}}\""),
                };
                for value in [text.clone(), format!("[{{{text}:[{text}]}}]")] {
                    let whole = format!("{value},\"]");
                    for cut in 0..whole.len() {
                        let mut finder = EndOfValue::default();
                        let first = finder.find(&whole.as_bytes()[..cut]).unwrap();
                        let end = first.or_else(|| finder.find(whole.as_bytes()).unwrap());
                        assert_eq!(end, Some(value.len()), "{whole} cut at {cut}");
                        assert_eq!(first.is_some(), cut >= value.len(), "{whole} cut at {cut}");
                    }
                    assert_eq!(skip_value(whole.as_bytes()), Ok(value.len()));
                }
            }
        }
    }
}
