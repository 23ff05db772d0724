//! CBOR as Kubernetes writes it (KEP-4222): definite lengths, strings as byte strings.

use std::borrow::Cow;

use bytes::BufMut;

use super::{Encoding::Cbor, EventError};
use crate::limits;

/// The start of a data item (RFC 8949, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) major: u8,
    /// The low five bits; for floats and simple values they say which it is.
    pub(super) info: u8,
    pub(super) argument: u64,
    pub(super) len: usize,
}

impl Head {
    /// Reads a head; `None` if it is not all there.
    pub(super) fn read(data: &[u8]) -> Result<Option<Self>, EventError> {
        let Some((first, rest)) = data.split_first() else {
            return Ok(None);
        };
        let (major, info) = (first >> 5, first & 0x1f);
        let size = match info {
            0..=23 => 0,
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            // RFC 8949, section 3.2; `IndefLengthForbidden` in Kubernetes'
            // `runtime/serializer/cbor/internal/modes/decode.go`.
            31 => return Err(Cbor.malformed("an item has an indefinite length")),
            _ => return Err(Cbor.malformed("a reserved item")),
        };
        let Some(bytes) = rest.get(..size) else {
            return Ok(None);
        };
        let argument = match size {
            0 => u64::from(info),
            _ => bytes.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)),
        };
        Ok(Some(Self {
            major,
            info,
            argument,
            len: 1 + size,
        }))
    }
}

/// Writes a head in its shortest form (RFC 8949, section 4.2.1).
pub(crate) fn put_head(major: u8, argument: u64, out: &mut impl BufMut) {
    let bytes = argument.to_be_bytes();
    let (info, size) = match argument {
        0..=23 => (argument as u8, 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.put_u8(major << 5 | info);
    out.put_slice(&bytes[8 - size..]);
}

/// Finds the end of the item at the start of a growing buffer, item by item, without recursion.
#[derive(Debug, Clone)]
pub(super) struct EndOfItem {
    /// How far the items are known; beyond what has arrived, inside a string.
    at: usize,
    /// How many items the open arrays and maps still hold; the first entry is the sequence itself.
    open: [u64; limits::WATCH_DEPTH + 1],
    depth: usize,
}

impl Default for EndOfItem {
    fn default() -> Self {
        let mut open = [0; limits::WATCH_DEPTH + 1];
        open[0] = 1;
        Self {
            at: 0,
            open,
            depth: 1,
        }
    }
}

impl EndOfItem {
    /// How many bytes the item has at least.
    pub(super) fn known(&self) -> usize {
        self.at
    }

    /// The length of the item; `None` if its end is not there yet.
    ///
    /// `data` is what the last call had and what arrived since.
    pub(super) fn find(&mut self, data: &[u8], bound: usize) -> Result<Option<usize>, EventError> {
        let mut at = self.at;
        while self.depth > 0 {
            let mut left = self.open[self.depth - 1];
            while left > 0 {
                let rest = data.get(at..).unwrap_or_default();
                // Nearly every item is a short one.
                let (major, argument, mut len) = match rest.first() {
                    Some(first) if first & 0x1f < 24 => (first >> 5, u64::from(first & 0x1f), 1),
                    _ => match Head::read(rest)? {
                        Some(head) => (head.major, head.argument, head.len),
                        None => {
                            self.open[self.depth - 1] = left;
                            self.at = at;
                            return Ok(None);
                        }
                    },
                };
                // A tag belongs to the item that follows it (RFC 8949, section 3.4).
                left -= u64::from(major != 6);
                match major {
                    2 | 3 => {
                        let inside = usize::try_from(argument).unwrap_or(usize::MAX);
                        len = inside.saturating_add(len);
                    }
                    4 | 5 => {
                        self.open[self.depth - 1] = left;
                        left = argument.saturating_mul(u64::from(major) - 3);
                        if self.depth == self.open.len() {
                            return Err(Cbor.malformed("the items are nested too deeply"));
                        }
                        self.depth += 1;
                    }
                    _ => {}
                }
                at = at.saturating_add(len);
                if at > bound {
                    return Err(EventError::TooLarge { bound });
                }
            }
            self.depth -= 1;
        }
        self.at = at;
        Ok((at <= data.len()).then_some(at))
    }
}

/// The length of the item that `data` begins with.
pub(super) fn skip(data: &[u8]) -> Result<usize, EventError> {
    // A plain item needs no stack.
    let first = head(data)?;
    match first.major {
        0 | 1 | 7 => return Ok(first.len),
        2 | 3 => return string(data).map(|(_, rest)| data.len() - rest.len()),
        _ => {}
    }
    EndOfItem::default()
        .find(data, usize::MAX)?
        .ok_or(Cbor.malformed("an item does not end"))
}

/// What follows the tags that `data` begins with.
///
/// Kubernetes tags objects as self-described CBOR (RFC 8949, section 3.4.6).
pub(super) fn untag(mut data: &[u8]) -> Result<&[u8], EventError> {
    while data.first().is_some_and(|b| b >> 5 == 6) {
        let head = head(data)?;
        data = &data[head.len..];
    }
    Ok(data)
}

pub(super) fn head(data: &[u8]) -> Result<Head, EventError> {
    Head::read(data)?.ok_or(Cbor.malformed("an item does not end"))
}

/// A key and the data from the start of its value on.
type Entry<'a> = (Cow<'a, [u8]>, &'a [u8]);

/// The entries of a map, one at a time; a value is skipped only on the way to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entries<'a> {
    data: &'a [u8],
    /// The entry at hand, from its key on.
    entry: &'a [u8],
    left: u64,
    at_value: bool,
}

impl<'a> Entries<'a> {
    /// The entries of the map that `data` begins with; none, if it begins with null.
    pub(super) fn new(data: &'a [u8]) -> Result<Self, EventError> {
        let data = untag(data)?;
        let head = head(data)?;
        let left = match (head.major, head.info) {
            (5, _) => head.argument,
            (7, 22) => 0,
            _ => return Err(Cbor.malformed("a map should stand here")),
        };
        Ok(Self {
            data: &data[head.len..],
            entry: &[],
            left,
            at_value: false,
        })
    }

    /// Whether no entry follows the one at hand.
    pub(super) fn is_last(&self) -> bool {
        self.left == 0
    }

    /// The next key, and the data from the start of its value on. After an error it is the same
    /// again.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Entry<'a>>, EventError> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut data = self.data;
        if self.at_value {
            data = &data[skip(data)?..];
        }
        let (key, rest) = string(data)?;
        *self = Self {
            data: rest,
            entry: data,
            left: self.left - 1,
            at_value: true,
        };
        Ok(Some((Cow::Borrowed(key), rest)))
    }

    /// The entry at hand.
    pub(super) fn span(&self) -> Result<&'a [u8], EventError> {
        let behind = self.data.len() - skip(self.data)?;
        Ok(&self.entry[..self.entry.len() - behind])
    }
}

/// The string of either kind that `data` begins with, and what follows.
pub(super) fn string(data: &[u8]) -> Result<(&[u8], &[u8]), EventError> {
    let data = untag(data)?;
    let head = head(data)?;
    if !matches!(head.major, 2 | 3) {
        return Err(Cbor.malformed("a string should stand here"));
    }
    usize::try_from(head.argument)
        .ok()
        .and_then(|len| data[head.len..].split_at_checked(len))
        .ok_or(Cbor.malformed("a string does not end"))
}

/// The string that `data` begins with, as text; empty for null.
pub(super) fn text(data: &[u8]) -> Result<&str, EventError> {
    if data.first() == Some(&0xf6) {
        return Ok("");
    }
    std::str::from_utf8(string(data)?.0).map_err(|_| Cbor.malformed("a string is not UTF-8"))
}

/// The integer that `data` begins with; 0 for null.
pub(super) fn integer(data: &[u8]) -> Result<i64, EventError> {
    let head = head(untag(data)?)?;
    let number = i64::try_from(head.argument);
    match (head.major, head.info, number) {
        (0, _, Ok(number)) => Ok(number),
        // RFC 8949, section 3.1: major type 1 is -1 - n.
        (1, _, Ok(number)) => Ok(-1 - number),
        (7, 22, _) => Ok(0),
        _ => Err(Cbor.malformed("an integer should stand here")),
    }
}
