//! Words of others for people: in flows any text, out comes one line without control characters,
//! and not without end.

use std::fmt::{self, Write as _};

use crate::limits;

/// Shows what it holds with control characters escaped, up to [`limits::ERROR_TEXT`] characters.
pub(crate) struct Printable<T>(pub(crate) T);

struct Cleaner<'a, 'f> {
    to: &'a mut fmt::Formatter<'f>,
    left: usize,
    is_cut: bool,
}

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cleaner = Cleaner {
            to: f,
            left: limits::ERROR_TEXT,
            is_cut: false,
        };
        match write!(cleaner, "{}", self.0) {
            Err(_) if cleaner.is_cut => f.write_char('…'),
            result => result,
        }
    }
}

impl fmt::Write for Cleaner<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for one in text.chars() {
            if self.left == 0 {
                // It stops whoever writes.
                self.is_cut = true;
                return Err(fmt::Error);
            }
            self.left -= 1;
            match one.is_control() {
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
        let text = Printable("a\u{1b}[2Jb\r\nc\u{9b}d „é“").to_string();
        assert_eq!(text, "a\\u{1b}[2Jb\\r\\nc\\u{9b}d „é“");
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
