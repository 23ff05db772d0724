//! Where an object in JSON ends, if it is alone on its line: in flow what has arrived of it, out
//! comes its length.

use memchr::memchr2;

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
