//! JSON, read no further than asked: where an object ends, and its members one at a time.

use std::borrow::Cow;

use memchr::memchr2;

use super::{
    Encoding, EventError,
    json_blocks::{self, BLOCK, Reached},
};

pub(super) const fn malformed(what: &'static str) -> EventError {
    EventError::Malformed {
        encoding: Encoding::Json,
        what,
    }
}

/// Finds the end of the object at the start of a growing buffer.
///
/// API servers write each event compactly on one line, and a newline after it
/// (`k8s.io/apimachinery/pkg/runtime/serializer/json/json.go`, `Encode`). So an object that begins
/// compactly, a name right behind its brace, ends at the first newline behind a closing brace: a
/// raw newline cannot lie inside a string, and no encoder breaks the lines of an object that it
/// began like this. Where an object is not written so, or may end before its line does, braces
/// are counted.
#[derive(Debug, Default, Clone)]
pub(super) struct EndOfObject {
    /// No end before this.
    searched: usize,
    /// Braces are counted from here on; before the count began, 0.
    counted: usize,
    counting: bool,
    in_string: bool,
    /// What was counted last, white space aside, is a closing brace.
    closed: bool,
    depth: u64,
}

impl EndOfObject {
    /// The length of the object that `data` begins with; `None` if its end is not there yet.
    ///
    /// `data` is what the last call had and what arrived since; its first byte must be `{`. The
    /// end is never within what the last call had, except where something follows it that is
    /// neither white space nor an object.
    pub(super) fn find(&mut self, data: &[u8]) -> Option<usize> {
        let compact = match data.get(1) {
            None => return None,
            Some(second) => *second == b'"',
        };
        if !self.counting && compact {
            loop {
                let Some(at) = closing(&data[self.searched..]) else {
                    if data.last() == Some(&b'}') {
                        break;
                    }
                    self.searched = data.len();
                    return None;
                };
                let end = self.searched + at + 1;
                let mut behind = data[end..].iter();
                match behind.find(|b| !matches!(b, b' ' | b'\t' | b'\r')) {
                    Some(b'\n') => return Some(end),
                    // Two objects on a line, or the middle of a string; or the rest is missing.
                    Some(b'{') | None => break,
                    Some(_) => self.searched = end,
                }
            }
        }
        self.counting = true;
        self.count(data, compact)
    }

    fn count(&mut self, data: &[u8], compact: bool) -> Option<usize> {
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
            let byte = data[at];
            match byte {
                b'"' => self.in_string = true,
                b'{' => self.depth += 1,
                b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                // The rule of `find`, so that the end does not depend on how the body was cut.
                b'\n' if compact && self.closed => return Some(at),
                _ => {}
            }
            self.closed = byte == b'}' || self.closed && byte.is_ascii_whitespace();
            at += 1;
        }
        self.counted = at;
        None
    }
}

/// The first brace that closes something and has white space or another object behind it.
fn closing(data: &[u8]) -> Option<usize> {
    let ends = |pair: &[u8]| pair[0] == b'}' && matches!(pair[1], b'{' | b'\0'..=b' ');
    let mut at = 0;
    loop {
        // Where blocks stopped, and at first: many may stand close together.
        let end = data.len().min(at + 17);
        if let Some(found) = data[at..end].windows(2).position(ends) {
            return Some(at + found);
        }
        if end == data.len() {
            return None;
        }
        at = end - 1;
        skip_blocks::<512>(data, &mut at);
        skip_blocks::<64>(data, &mut at);
        skip_blocks::<16>(data, &mut at);
    }
}

/// Moves `at` over whole blocks in which nothing closes.
fn skip_blocks<const BLOCK: usize>(data: &[u8], at: &mut usize) {
    while let (Some(these), Some(nexts)) = (
        data.get(*at..*at + BLOCK),
        data.get(*at + 1..*at + BLOCK + 1),
    ) {
        let pairs = these.iter().zip(nexts);
        if pairs.fold(u8::MAX, |least, (this, next)| {
            least.min(distance(*this, *next))
        }) == 0
        {
            break;
        }
        *at += BLOCK;
    }
}

/// 0 if an object may end with `this` before `next`; in the fewest operations that exist for
/// vectors, so that it is 0 also before some bytes that stand behind a brace in strings alone.
#[inline(always)]
fn distance(this: u8, next: u8) -> u8 {
    (this ^ b'}') | (next.saturating_sub(33) & 37)
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
            _ => return Err(malformed("an object should stand here")),
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
            _ => return Err(malformed("a member or the end of an object should follow")),
        }
        let (name, len) = string(&data[at..])?;
        at = skip_space(data, at + len);
        if data.get(at) != Some(&b':') {
            return Err(malformed("a colon should follow the name of a member"));
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
        _ => return Err(malformed("a value should stand here")),
    }
    EndOfValue::default()
        .find(data)?
        .ok_or(malformed("a value does not end"))
}

/// Finds the end of the value at the start of a growing buffer.
#[derive(Debug, Default, Clone)]
pub(in crate::wire) struct EndOfValue {
    /// How far the value is known.
    pub(super) at: usize,
    pub(super) in_string: bool,
    pub(super) depth: u64,
}

/// Bytes of a value that are looked at a string at a time: most values are no longer.
const SHORT: usize = 32;

impl EndOfValue {
    /// The length of the value; `None` if its end is not there yet. Of a number that is the byte
    /// behind it. Brackets are counted whatever their kind: who reads the value minds that.
    ///
    /// `data` is what the last call had and what arrived since.
    pub(in crate::wire) fn find(&mut self, data: &[u8]) -> Result<Option<usize>, EventError> {
        // Where no vector instruction collects marks, blocks cost more than strings do.
        let mut until = match cfg!(target_arch = "x86_64") {
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
        return Err(malformed("a string should stand here"));
    }
    let mut at = 1;
    while let Some(found) = data.get(at..).and_then(quote_or_escape) {
        at += found + 1;
        if data[at - 1] == b'"' {
            return Ok(at);
        }
        at += 1;
    }
    Err(malformed("a string does not end"))
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
        .ok_or(malformed("an integer should stand here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ends that are found when `data` arrives in two parts, and that they are never within
    /// the first part once it has been looked at.
    fn end(data: &[u8], split: usize) -> Option<usize> {
        let mut finder = EndOfObject::default();
        if let Some(end) = finder.find(&data[..split]) {
            return Some(end);
        }
        let end = finder.find(data);
        assert!(
            end.is_none_or(|end| end >= split),
            "{end:?} is before {split}"
        );
        end
    }

    #[test]
    fn an_end_is_found_wherever_the_data_is_cut() {
        let long = format!("{{\"a\":\"{}\",\"b\":{{}}}}\n{{", "} {x".repeat(200));
        for (data, expected) in [
            ("{\"a\":{}}\n{\"b\"", 8),
            ("{\"a\":{}}{\"b\"", 8),
            ("{\"a\":\"}\\n{ } {\"}  \t{\"b\"", 16),
            ("{ \"a\": {\n}\n}\n{", 12),
            ("{\n\"a\": {}\n\n}{", 12),
            (&long, long.len() - 2),
        ] {
            let data = data.as_bytes();
            for split in 1..data.len() {
                assert_eq!(
                    end(data, split),
                    Some(expected),
                    "{data:?} split at {split}"
                );
            }
        }
    }

    #[test]
    fn no_end_is_passed_over() {
        for (this, next) in (0..=255).flat_map(|this| (0..=255).map(move |next| (this, next))) {
            let ends = this == b'}' && (next == b'{' || next <= b' ');
            assert!(!ends || distance(this, next) == 0, "{this} {next}");
            // Most of what follows a brace must not stop the search.
            let goes_on = this == b'}' && b",}]\"\\:".contains(&next);
            assert!(!goes_on || distance(this, next) != 0, "{next}");
        }
    }

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

    #[test]
    fn what_begins_compactly_ends_with_its_line() {
        // No encoder writes this: whatever it is, every cut gives the same, and no end is found
        // where nothing is left to take.
        let data = b"{\"a\":{\"b\":{}  \n,\"c\":1}}";
        for split in 1..data.len() {
            let end = end(data, split).unwrap();
            assert_eq!(
                data[..end].trim_ascii_end(),
                b"{\"a\":{\"b\":{}",
                "split at {split}"
            );
        }
    }
}
