//! Text that is safe on a terminal: in flow names, cells and messages of servers and containers,
//! out they come on one line, with nothing in them that a terminal would obey.
//!
//! All that is printed and is not a remote's own output goes through here.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
};

use kubewire::error::is_obeyed;

/// Text that a terminal shows and does not obey.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Printable(String);

impl Printable {
    /// Text whose lines are joined by spaces.
    pub(crate) fn line(text: &str) -> Self {
        let mut lines = text.split(['\r', '\n']).filter(|line| !line.is_empty());
        let mut line = Self::default();
        line.push(lines.next().unwrap_or_default());
        for next in lines {
            line.0.push(' ');
            line.push(next);
        }
        line
    }

    /// A cell of a table: the first line of a text, and dots if there are more
    /// (`k8s.io/cli-runtime/pkg/printers/tableprinter.go`, `printRow`).
    pub(crate) fn cell(text: &str) -> Self {
        let mut cell = Self::default();
        match text.split_once(['\n', '\r', '\u{c}']) {
            None => cell.push(text),
            Some((first, _)) => {
                cell.push(first);
                cell.0.push_str("...");
            }
        }
        cell
    }

    /// Text with its lines and tabs.
    pub(crate) fn lines(text: &str) -> Self {
        let mut lines = Self::default();
        for part in text.split_inclusive(['\n', '\t']) {
            let kept = part.strip_suffix(['\n', '\t']).unwrap_or(part);
            lines.push(kept);
            lines.0.push_str(&part[kept.len()..]);
        }
        lines
    }

    /// A document, such as YAML: with its lines on a terminal; as it is in a file or a pipe, where
    /// another program reads it.
    pub(crate) fn document(text: String) -> String {
        match io::stdout().is_terminal() {
            true => Self::lines(&text).0,
            false => text,
        }
    }

    /// JSON on one line or many: the same value, for JSON can say every character by its number.
    pub(crate) fn json(text: &str) -> Self {
        let mut json = Self::default();
        for c in text.chars() {
            match c {
                '\n' => json.0.push(c),
                c if is_obeyed(c) => {
                    // Writing to a String does not fail. They are all in the first plane.
                    let _ = write!(json.0, "\\u{:04x}", u32::from(c));
                }
                c => json.0.push(c),
            }
        }
        json
    }

    /// Its columns on a terminal, where all characters are as wide as one.
    pub(crate) fn width(&self) -> usize {
        self.0.chars().count()
    }

    fn push(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\t' => self.0.push(' '),
                // As kubectl, `less` and `cat -v` have them.
                '\0'..='\x1f' => self.0.extend(['^', char::from(c as u8 ^ 0x40)]),
                '\x7f' => self.0.push_str("^?"),
                c if is_obeyed(c) => self.0.extend(c.escape_unicode()),
                c => self.0.push(c),
            }
        }
    }
}

impl fmt::Display for Printable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\x1b]0;x\x07\u{9b}2J\u{202e}b\tc\0\x7f";

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        let harmless = "a^[]0;x^G\\u{9b}2J\\u{202e}b c^@^?";
        assert_eq!(Printable::line(HOSTILE).0, harmless);
        assert_eq!(Printable::cell(HOSTILE).0, harmless);
        assert_eq!(Printable::lines(HOSTILE).0, harmless.replace("b c", "b\tc"));
        for c in (0..=0x2fff).filter_map(char::from_u32) {
            let text = format!("x{c}y\nz");
            for made in [Printable::line(&text), Printable::cell(&text)] {
                assert!(!made.0.contains(is_obeyed), "{c:?}");
            }
            let lines = Printable::lines(&text);
            assert!(
                !lines.0.replace(['\n', '\t'], "").contains(is_obeyed),
                "{c:?}"
            );
        }
    }

    #[test]
    fn lines_are_joined_cut_or_kept() {
        let text = "one\r\n\ntwo\n";
        assert_eq!(Printable::line(text).0, "one two");
        assert_eq!(Printable::cell(text).0, "one...");
        assert_eq!(Printable::lines("a: 1\nb: \"ü\"\n").0, "a: 1\nb: \"ü\"\n");
        assert_eq!(Printable::line("").0, "");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({ "x": HOSTILE, "y": [1, "ü"] });
        for text in [value.to_string(), format!("{value:#}")] {
            let json = Printable::json(&text);
            assert!(!json.0.replace('\n', "").contains(is_obeyed));
            let read: serde_json::Value = serde_json::from_str(&json.0).unwrap();
            assert_eq!(read, value);
        }
    }
}
