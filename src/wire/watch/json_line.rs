//! Where an event in JSON ends, if it is alone on its line: in flow what has arrived of it, out
//! comes its length.

use memchr::memchr2;

/// Finds the end of the event at the start of a growing buffer.
///
/// API servers write each event compactly on one line, and a newline after it
/// (`k8s.io/apimachinery/pkg/runtime/serializer/json/json.go`, `Encode`). So an event that begins
/// compactly, a name right behind its brace, ends with its line: a raw newline cannot lie inside a
/// string, and no encoder breaks the lines of an object that it began like this. That it is the
/// only one on its line shows in a name that each event has once, `object`, and that takes no more
/// than a search for the newline and a rare letter of the name. Where an event is not written so,
/// or may end before its line does, braces are counted.
#[derive(Debug, Default, Clone)]
pub(super) struct EndOfEvent {
    /// No end before this.
    searched: usize,
    /// Names before this that may be those of an event's object.
    names: usize,
    /// Braces are counted from here on; before the count began, 0.
    counted: usize,
    counting: bool,
    in_string: bool,
    /// What was counted last, white space aside, is a closing brace.
    closed: bool,
    depth: u64,
}

impl EndOfEvent {
    /// The length of the event that `data` begins with; `None` if its end is not there yet.
    ///
    /// `data` is what the last call had and what arrived since; its first byte must be `{`. The
    /// end may be within what the last call had if another event follows it on its line.
    pub(super) fn find(&mut self, data: &[u8], bound: usize) -> Option<usize> {
        let compact = *data.get(1)? == b'"';
        self.counting |= !compact;
        while !self.counting {
            let rest = &data[self.searched..];
            let Some(found) = memchr2(b'\n', b'j', rest) else {
                self.searched = data.len();
                if data.len() <= bound && !rest.trim_ascii_end().ends_with(b"}") {
                    return None;
                }
                self.counting = true;
                break;
            };
            let at = self.searched + found;
            self.searched = at + 1;
            if data[at] == b'j' {
                self.names += usize::from(is_name(data, at));
                self.counting = self.names > 1;
                continue;
            }
            let line = data[..at].trim_ascii_end();
            if self.names == 1 && line.ends_with(b"}") {
                return Some(line.len());
            }
            self.counting = true;
        }
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

/// Whether the letter at `at` is that of a name `object`, which may not have arrived whole. Behind a
/// list, where it stands in the rows of a table, it is none of an event.
fn is_name(data: &[u8], at: usize) -> bool {
    let (before, rest) = data.split_at(at);
    let whole = match rest.strip_prefix(b"ject\"") {
        Some(behind) => matches!(behind.trim_ascii_start().first(), None | Some(b':')),
        None => b"ject\"".starts_with(rest),
    };
    whole && before.ends_with(b"\"ob") && !before.ends_with(b"],\"ob")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end that is found when `data` arrives in two parts.
    fn end(data: &[u8], split: usize) -> Option<usize> {
        let mut finder = EndOfEvent::default();
        let first = finder.find(&data[..split], 1000);
        first.or_else(|| finder.find(data, 1000))
    }

    #[test]
    fn an_end_is_found_wherever_the_data_is_cut() {
        let text = "}\\n{ } {\\\"object\\\":j".repeat(20);
        let event = format!("{{\"type\":\"\",\"object\":{{\"a\":\"{text}\",\"j\":{{}}}}}}");
        let table = "{\"type\":\"\",\"object\":{\"rows\":[{\"cells\":[1],\"object\":{}}]}}";
        let named = "{\"object\":{\"object\":\"object\"},\"type\":\"\"}";
        let spaced = "{ \"type\": \"\",\n\"object\": {\n}\n}";
        let events = [&event, table, named, spaced];
        for (event, next) in events
            .iter()
            .flat_map(|event| events.map(|next| (event, next)))
        {
            for between in ["\n", "", " ", "  \t\r", " \n"] {
                let data = format!("{event}{between}{next}\n");
                for split in 1..data.len() {
                    let end = end(data.as_bytes(), split).map(|end| data[..end].trim_ascii_end());
                    assert_eq!(end, Some(*event), "{data:?} split at {split}");
                }
            }
        }
    }

    #[test]
    fn what_begins_compactly_ends_with_its_line() {
        // No encoder writes these: whatever they are, every cut gives the same, and no end is found
        // where nothing is left to take.
        for data in [
            "{\"a\":{\"b\":{}  \n,\"c\":1}}",
            "{\"object\":{\"b\":{}  \n,\"c\":1}}",
        ] {
            let line = data.lines().next().unwrap().trim_ascii_end();
            for split in 1..data.len() {
                let end = end(data.as_bytes(), split).unwrap();
                assert_eq!(data[..end].trim_ascii_end(), line, "split at {split}");
            }
        }
    }
}
