//! Words of others for people: in flows any text, out comes one line without control characters,
//! and not without end.

use std::fmt::{self, Write as _};

use crate::limits;

/// Shows what it holds with control characters escaped, up to [`limits::ERROR_TEXT`] characters.
pub(crate) struct Printable<T>(pub(crate) T);

/// A text as one line: white space is one space each, and no more than so many characters stay.
pub(crate) fn line(text: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let words: Vec<_> = text.split_whitespace().collect();
    let mut line = String::new();
    // Writing to a String does not fail.
    let _ = clean(&mut line, words.join(" "), most);
    line
}

/// What a refusal that is no Status says in plain text, with its code: its body may be a page, or
/// compressed.
pub(crate) fn refusal(code: u16, form: Option<&str>, body: &[u8]) -> Option<String> {
    let is_plain = form.is_none_or(|form| !form.contains("html"));
    let words = std::str::from_utf8(body).ok().map(str::trim);
    let words = words.filter(|words| is_plain && !words.is_empty())?;
    let words = line(words.as_bytes(), limits::SERVER_TEXT);
    Some(format!("{words} (code {code})"))
}

/// Writes a text without what a terminal obeys, up to so many characters.
fn clean(to: &mut impl fmt::Write, text: impl fmt::Display, most: usize) -> fmt::Result {
    let mut cleaner = Cleaner {
        to,
        left: most,
        is_cut: false,
    };
    match write!(cleaner, "{text}") {
        Err(_) if cleaner.is_cut => to.write_char('…'),
        result => result,
    }
}

/// Whether a terminal does something else than to show it: controls, and what changes the direction of the text behind it (Unicode Standard Annex #9,
/// section 2).
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

struct Cleaner<'a, W> {
    to: &'a mut W,
    left: usize,
    is_cut: bool,
}

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        clean(f, &self.0, limits::ERROR_TEXT)
    }
}

impl<W: fmt::Write> fmt::Write for Cleaner<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for one in text.chars() {
            if self.left == 0 {
                // It stops whoever writes.
                self.is_cut = true;
                return Err(fmt::Error);
            }
            self.left -= 1;
            match is_obeyed(one) {
                true => write!(self.to, "{}", one.escape_default())?,
                false => self.to.write_char(one)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_all_else_stays() {
        let text = Printable("a\u{1b}[2Jb\r\nc\u{9b}d \u{202e}„é“").to_string();
        assert_eq!(text, "a\\u{1b}[2Jb\\r\\nc\\u{9b}d \\u{202e}„é“");
    }

    #[test]
    fn a_line_has_no_ends_of_lines_and_so_many_characters() {
        assert_eq!(line(b" a\x07\r\n\n b\t\xff ", 99), "a\\u{7} b \u{fffd}");
        assert_eq!(line(b"one two", 5), "one t…");
    }

    #[test]
    fn a_text_without_end_is_cut() {
        let whole = "é".repeat(limits::ERROR_TEXT);
        assert_eq!(Printable(&whole).to_string(), whole);
        assert_eq!(
            Printable(format!("{whole}x")).to_string(),
            format!("{whole}…")
        );
    }
}
