//! YAML as kubectl prints it: in flows a value, out comes a document in block style.
//!
//! Which scalars are quoted and how, where they are folded, and how keys are sorted is what
//! `go.yaml.in/yaml/v2` does (`encode.go`, `emitterc.go`, `sorter.go`), so that the output of both
//! programs can be compared. That writes YAML 1.1, and quotes what would be read as another type there.

use std::{cmp::Ordering, sync::LazyLock};

use regex::Regex;
use serde_json::{Map, Value};

use crate::jsonpath;

/// The column behind which a scalar is folded at its next space.
const WIDTH: usize = 80;
const STEP: usize = 2;
/// Bytes of a key that stands on the line of its value.
const KEY: usize = 128;

pub(crate) fn document(value: &Value) -> String {
    let mut writer = Writer::default();
    // A scalar that is the document stands within it: a line at its margin could end it.
    let indent = if value.is_string() { STEP } else { 0 };
    writer.node(value, indent);
    writer.end_line();
    writer.text
}

#[derive(Debug, Default)]
struct Writer {
    text: String,
    /// The characters on the last line.
    column: usize,
}

impl Writer {
    fn push(&mut self, c: char) {
        self.text.push(c);
        self.column = if c == '\n' { 0 } else { self.column + 1 };
    }

    fn push_str(&mut self, text: &str) {
        text.chars().for_each(|c| self.push(c));
    }

    fn end_line(&mut self) {
        if self.column > 0 {
            self.push('\n');
        }
    }

    fn begin_line(&mut self, indent: usize) {
        self.end_line();
        (0..indent).for_each(|_| self.push(' '));
    }

    /// A value whose first line has begun, and whose others begin at `indent`.
    fn node(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Null => self.push_str("null"),
            Value::Bool(truth) => self.push_str(if *truth { "true" } else { "false" }),
            Value::Number(number) => self.push_str(&match number.as_f64() {
                Some(float) if number.is_f64() => go_float(float),
                _ => number.to_string(),
            }),
            Value::String(text) => self.scalar(text, indent),
            Value::Array(items) if items.is_empty() => self.push_str("[]"),
            Value::Array(items) => self.sequence(items, indent),
            Value::Object(fields) if fields.is_empty() => self.push_str("{}"),
            Value::Object(fields) => self.mapping(fields, indent),
        }
    }

    fn sequence(&mut self, items: &[Value], indent: usize) {
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.begin_line(indent);
            }
            self.push_str("- ");
            self.node(item, indent + STEP);
        }
    }

    fn mapping(&mut self, fields: &Map<String, Value>, indent: usize) {
        let mut fields: Vec<_> = fields.iter().collect();
        fields.sort_by(|(a, _), (b, _)| in_order(a, b));
        for (at, (key, value)) in fields.into_iter().enumerate() {
            if at > 0 {
                self.begin_line(indent);
            }
            if key.len() > KEY || key.contains('\n') {
                self.push_str("? ");
                self.scalar(key, indent + STEP);
                self.begin_line(indent);
                self.push_str(": ");
                self.node(value, indent + STEP);
                continue;
            }
            self.line(key, Style::of(key), None);
            self.push(':');
            match value {
                Value::Array(items) if !items.is_empty() => {
                    self.begin_line(indent);
                    self.sequence(items, indent);
                }
                Value::Object(fields) if !fields.is_empty() => {
                    self.begin_line(indent + STEP);
                    self.mapping(fields, indent + STEP);
                }
                value => {
                    self.push(' ');
                    self.node(value, indent + STEP);
                }
            }
        }
    }

    fn scalar(&mut self, text: &str, indent: usize) {
        match Style::of(text) {
            Style::Literal => self.literal(text, indent),
            style => self.line(text, style, Some(indent)),
        }
    }

    /// A text on one line, or on more that begin at `folded`.
    fn line(&mut self, text: &str, style: Style, folded: Option<usize>) {
        let quote = style.quote();
        quote.into_iter().for_each(|c| self.push(c));
        let mut was_space = false;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|(_, c)| *c);
            let may_fold = c == ' ' && !was_space && at > 0 && next.is_some();
            was_space = c == ' ';
            let indent = folded.filter(|_| may_fold && self.column > WIDTH);
            match (style, c, indent) {
                (Style::DoubleQuoted, _, Some(indent)) => {
                    self.begin_line(indent);
                    if next == Some(' ') {
                        self.push('\\');
                    }
                }
                (_, _, Some(indent)) if next != Some(' ') => self.begin_line(indent),
                (Style::DoubleQuoted, c, None) if "\"\\".contains(c) || !is_printable(c) => {
                    self.push_str(&escaped(c));
                }
                (Style::SingleQuoted, '\'', None) => self.push_str("''"),
                (_, c, _) => self.push(c),
            }
        }
        quote.into_iter().for_each(|c| self.push(c));
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.push('|');
        if text.starts_with([' ', '\n']) {
            // Else the first line would say where all begin.
            self.push_str(&STEP.to_string());
        }
        if !text.ends_with('\n') {
            self.push('-');
        } else if text == "\n" || text.ends_with("\n\n") {
            self.push('+');
        }
        self.push('\n');
        for line in text.split_inclusive('\n') {
            if line != "\n" {
                self.begin_line(indent);
            }
            self.push_str(line);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Literal,
}

impl Style {
    fn of(text: &str) -> Self {
        let is_special = text.chars().any(|c| c != '\n' && !is_printable(c));
        if text.contains('\n') {
            // Spaces there would get lost.
            let ends_in_spaces = text.ends_with(' ') || text.contains(" \n");
            return match is_special || ends_in_spaces {
                true => Self::DoubleQuoted,
                false => Self::Literal,
            };
        }
        if is_special || reads_as_another(text) {
            return Self::DoubleQuoted;
        }
        match has_indicators(text) {
            true => Self::SingleQuoted,
            false => Self::Plain,
        }
    }

    const fn quote(self) -> Option<char> {
        match self {
            Self::SingleQuoted => Some('\''),
            Self::DoubleQuoted => Some('"'),
            Self::Plain | Self::Literal => None,
        }
    }
}

/// Whether a line would not be read as it is, or not as a scalar, without quotes.
fn has_indicators(line: &str) -> bool {
    const FIRST: &str = "#,[]{}&*!|>'\"%@`";
    let is_mark = |rest: &str| rest.is_empty() || rest.starts_with(' ');
    line.starts_with(' ')
        || line.ends_with([' ', ':'])
        || line.contains(": ")
        || line.contains(" #")
        || line.starts_with("---")
        || line.starts_with("...")
        || line.starts_with(|c| FIRST.contains(c))
        || line.strip_prefix(['?', ':', '-']).is_some_and(is_mark)
}

/// Whether YAML 1.1, as Go reads it, takes a text for something else than a string (`resolve.go`).
fn reads_as_another(text: &str) -> bool {
    const WORDS: &str = "y Y yes Yes YES n N no No NO true True TRUE false False FALSE on On ON off Off \
        OFF ~ null Null NULL .nan .NaN .NAN .inf .Inf .INF +.inf +.Inf +.INF -.inf -.Inf -.INF";
    static NUMBERS: LazyLock<Regex> = LazyLock::new(|| {
        let float = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?";
        let integer = r"[-+]?0([xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)";
        let sexagesimal = r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?";
        let date = r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}";
        let time = r"[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]+)?";
        let zone = r"(Z|[-+][0-9]{2}:[0-9]{2})";
        let stamp = format!("{date}([Tt]{time}{zone}| {time})?");
        let all = format!("^({float}|{integer}|{sexagesimal}|{stamp})$");
        Regex::new(&all).expect("it is a regular expression")
    });
    text.is_empty()
        || WORDS.split_ascii_whitespace().any(|word| word == text)
        || (text.starts_with(|c: char| "+-.".contains(c) || c.is_ascii_digit())
            && NUMBERS.is_match(&text.replace('_', "")))
}

/// What is written as it is.
const fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
}

fn escaped(c: char) -> String {
    let named = match c {
        '\0' => '0',
        '\x07' => 'a',
        '\x08' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\x0b' => 'v',
        '\x0c' => 'f',
        '\r' => 'r',
        '\x1b' => 'e',
        '"' | '\\' => c,
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            let number = u32::from(c);
            return match number {
                0..=0xff => format!("\\x{number:02X}"),
                0x100..=0xffff => format!("\\u{number:04X}"),
                _ => format!("\\U{number:08X}"),
            };
        }
    };
    format!("\\{named}")
}

/// As Go prints a float: a whole one as an integer, if it is one of 64 bits, else as its `%g`.
fn go_float(float: f64) -> String {
    if float.fract() == 0.0 && (-9.3e18..1.8e19).contains(&float) {
        return float.to_string();
    }
    jsonpath::float(float, 1e-4..1e6, 2)
}

/// The order of keys: numbers in them by their value, and letters behind all else.
fn in_order(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) else {
        return a.len().cmp(&b.len());
    };
    let (x, y) = (a[at], b[at]);
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => return x.cmp(&y),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // A zero behind other digits does not begin a number.
    let before = a[..at].iter().rev().take_while(|c| c.is_ascii_digit());
    let goes_on = (x == '0' || y == '0') && before.clone().any(|c| *c != '0');
    let number = |chars: &[char]| {
        let digits = chars[at..].iter().map_while(|c| c.to_digit(10));
        let first = u64::from(goes_on);
        digits.fold((first, 0), |(value, length), digit| {
            (
                value.wrapping_mul(10).wrapping_add(digit.into()),
                length + 1,
            )
        })
    };
    number(&a).cmp(&number(&b)).then(x.cmp(&y))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[-+0-9a-fxXobTZ:._ ]{0,12}",
            "[a-z :#'\"\\\\\n\t-]{0,20}",
            "([a-z]{1,9} {1,2}){8,30}[a-z]",
            any::<String>(),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in value()) {
            let document = document(&value);
            let read: Value = serde_saphyr::from_str(&document)
                .map_err(|error| TestCaseError::fail(format!("{error}\n{document}")))?;
            prop_assert_eq!(read, value, "{}", document);
        }
    }

    #[test]
    fn scalars_are_quoted_as_go_quotes_them() {
        for (text, expected) in [
            ("10.96.0.1", "10.96.0.1"),
            ("1.5", "\"1.5\""),
            ("0x1f", "\"0x1f\""),
            ("1e3", "\"1e3\""),
            ("1:30", "\"1:30\""),
            ("12:99", "12:99"),
            ("2026-11-27", "\"2026-11-27\""),
            ("2026-11-27T01:02:03Z", "\"2026-11-27T01:02:03Z\""),
            ("", "\"\""),
            ("yes", "\"yes\""),
            ("yEs", "yEs"),
            ("~", "\"~\""),
            ("*", "'*'"),
            ("-", "'-'"),
            ("-a", "-a"),
            ("a: b", "'a: b'"),
            ("a:b", "a:b"),
            ("it's", "it's"),
            ("'it's'", "'''it''s'''"),
            ("a\tb", "\"a\\tb\""),
            ("a\u{1f600}", "\"a\\U0001F600\""),
            ("\u{e4}", "\u{e4}"),
            ("\n\\", "|2-\n\n  \\"),
            ("---\n", "|\n  ---"),
        ] {
            assert_eq!(document(&json!(text)), format!("{expected}\n"), "{text:?}");
        }
    }

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (float, expected) in [
            (100.0, "100"),
            (1e18, "1000000000000000000"),
            (1e21, "1e+21"),
            (0.5, "0.5"),
            (1_234_567.5, "1.2345675e+06"),
            (0.00001, "1e-05"),
        ] {
            assert_eq!(go_float(float), expected);
        }
    }

    #[test]
    fn keys_are_sorted_by_their_numbers_and_letters_come_last() {
        let mut keys = [
            "a10", "a9", "ab", "a.b", "B", "b", "a", "10", "9", "a01", "a1",
        ];
        keys.sort_by(|a, b| in_order(a, b));
        let expected = [
            "9", "10", "B", "a", "a.b", "a1", "a01", "a9", "a10", "ab", "b",
        ];
        assert_eq!(keys, expected);
    }
}
