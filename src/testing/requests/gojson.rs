//! JSON as Go reads it: in flow bytes, out come `encoding/json`'s words for what is wrong with them
//! (`scanner.go`), and the fields that they name twice.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

use crate::testing::{checks::schema, values::paths};

/// Values within values: as for `serde_json`.
const DEPTH: usize = 128;

const END: &str = "unexpected end of JSON input";

/// The fields that a JSON text names, in its order, and those that it names twice.
pub(crate) fn fields(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let (_, Scanner { fields, twice, .. }) = scan(bytes);
    (fields, twice)
}

/// What JSON is, if it is no object.
pub(crate) fn other_type(value: &Value, wanted: &str) -> Option<String> {
    let of = schema::go_type_of(value);
    let is_it = value.is_object() || value.is_null();
    (!is_it).then(|| format!("json: cannot unmarshal {of} into Go value of type {wanted}"))
}

pub(crate) fn read(bytes: &[u8]) -> Result<Value, String> {
    scan(bytes).0?;
    let read = serde_json::from_slice(bytes);
    let read = read.or_else(|_| serde_json::from_str(&readable(bytes)));
    read.map_err(|error| error.to_string())
}

/// JSON with U+FFFD for each byte that is no UTF-8 and each half of a pair of escapes, as `unquote`
/// of `decode.go` reads them.
fn readable(bytes: &[u8]) -> String {
    static ESCAPE: LazyLock<Regex> = LazyLock::new(|| {
        let pair = r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..";
        Regex::new(&format!(r"{pair}|(?P<half>\\u[dD][89a-fA-F]..)|\\.")).expect("a pattern")
    });
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    let replaced = ESCAPE.replace_all(&text, |found: &Captures<'_>| match found.name("half") {
        Some(_) => "\u{fffd}".to_owned(),
        None => found[0].to_owned(),
    });
    replaced.into_owned()
}

fn scan(bytes: &[u8]) -> (Result<(), String>, Scanner<'_>) {
    let mut scanner = Scanner {
        bytes,
        at: 0,
        fields: Vec::new(),
        twice: Vec::new(),
    };
    let scanned = scanner.value("", 0).and_then(|()| match scanner.peek() {
        Ok(_) => scanner.wrong("after top-level value"),
        Err(_) => Ok(()),
    });
    (scanned, scanner)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    fields: Vec<String>,
    twice: Vec<String>,
}

impl Scanner<'_> {
    /// The next byte that is no space.
    fn peek(&mut self) -> Result<u8, String> {
        let rest = self.bytes[self.at..].iter();
        self.at += rest.take_while(|byte| b" \t\r\n".contains(byte)).count();
        self.byte()
    }

    fn byte(&self) -> Result<u8, String> {
        self.bytes
            .get(self.at)
            .copied()
            .ok_or_else(|| END.to_owned())
    }

    fn wrong<T>(&self, place: &str) -> Result<T, String> {
        let spelled = match self.byte()? {
            b'\'' => "\\'".to_owned(),
            b'"' => "\"".to_owned(),
            byte @ 0x80.. => char::from(byte).to_string(),
            byte if byte < 0x20 && !b"\t\r\n".contains(&byte) => format!("\\x{byte:02x}"),
            byte => char::from(byte).escape_default().to_string(),
        };
        Err(format!("invalid character '{spelled}' {place}"))
    }

    fn value(&mut self, path: &str, depth: usize) -> Result<(), String> {
        if depth > DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        match self.peek()? {
            b'{' => self.all(
                b'}',
                "after object key:value pair",
                |scanner, known: &mut Vec<_>| {
                    if scanner.peek()? != b'"' {
                        return scanner.wrong("looking for beginning of object key string");
                    }
                    let start = scanner.at;
                    scanner.string()?;
                    let name = serde_json::from_slice::<String>(&scanner.bytes[start..scanner.at]);
                    let name = name.unwrap_or_default();
                    if scanner.peek()? != b':' {
                        return scanner.wrong("after object key");
                    }
                    scanner.at += 1;
                    let path = paths::join(path, &name);
                    if known.contains(&name) {
                        scanner.twice.push(path.clone());
                    }
                    known.push(name);
                    scanner.fields.push(path.clone());
                    scanner.value(&path, depth + 1)
                },
            ),
            b'[' => self.all(b']', "after array element", |scanner, known| {
                let path = format!("{path}[{}]", known.len());
                known.push(String::new());
                scanner.value(&path, depth + 1)
            }),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.wrong("looking for beginning of value"),
        }
    }

    /// What is between brackets.
    fn all(
        &mut self,
        end: u8,
        after: &str,
        mut one: impl FnMut(&mut Self, &mut Vec<String>) -> Result<(), String>,
    ) -> Result<(), String> {
        self.at += 1;
        let mut known = Vec::new();
        while self.peek()? != end || !known.is_empty() {
            one(self, &mut known)?;
            match self.peek()? {
                b',' => self.at += 1,
                byte if byte == end => break,
                _ => return self.wrong(after),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.byte()? {
                b'"' => break,
                b'\\' => {
                    self.at += 1;
                    match self.byte()? {
                        b'u' => self.four_digits()?,
                        byte if b"\"\\/bfnrt".contains(&byte) => {}
                        _ => return self.wrong("in string escape code"),
                    }
                }
                ..0x20 => return self.wrong("in string literal"),
                _ => {}
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }

    fn four_digits(&mut self) -> Result<(), String> {
        (0..4).try_for_each(|_| {
            self.at += 1;
            match self.byte()?.is_ascii_hexdigit() {
                true => Ok(()),
                false => self.wrong("in \\u hexadecimal character escape"),
            }
        })
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for wanted in word.chars() {
            if char::from(self.byte()?) != wanted {
                return self.wrong(&format!("in literal {word} (expecting '{wanted}')"));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.byte()? == b'-' {
            self.at += 1;
        }
        match self.byte()? {
            b'0' => self.at += 1,
            _ => self.digits("in numeric literal")?,
        }
        if self.byte().is_ok_and(|byte| byte == b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if self.byte().is_ok_and(|byte| matches!(byte, b'e' | b'E')) {
            self.at += 1;
            if self.byte().is_ok_and(|byte| matches!(byte, b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digits(&mut self, place: &str) -> Result<(), String> {
        let count = self.bytes[self.at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        self.at += count;
        match count {
            0 => self.wrong(place),
            _ => Ok(()),
        }
    }
}

/// Why Go cannot read a time, perhaps one with microseconds (`time.Parse`).
pub(crate) fn no_time(text: &str, is_micro: bool) -> Option<String> {
    // The elements of a layout, of which the last but one is a fraction that is asked for, or not.
    static ELEMENTS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
        let elements = r"2006=\d{4} -=- 01=\d\d -=- 02=\d\d T=T 15=\d\d :=: 04=\d\d :=: 05=\d\d
                         .000000=\.\d{6} =(\.\d*)? Z07:00=Z|[-+]..:..";
        let parse = |text: &'static str| {
            let (element, pattern) = text.split_once('=').expect("an element of a layout");
            (
                element,
                Regex::new(&format!("^(?:{pattern})")).expect("a pattern"),
            )
        };
        elements.split_ascii_whitespace().map(parse).collect()
    });
    let fraction = if is_micro { ".000000" } else { "" };
    let layout = format!("2006-01-02T15:04:05{fraction}Z07:00");
    let fault = |why: &str| {
        Some(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {why}"
        ))
    };
    let mut rest = text;
    let mut numbers = Vec::new();
    for (element, pattern) in ELEMENTS.iter() {
        if *element == if is_micro { "" } else { ".000000" } {
            continue;
        }
        let Some(found) = pattern.find(rest) else {
            return fault(&format!("{rest:?} as {element:?}"));
        };
        numbers.extend(found.as_str().parse::<u32>());
        rest = &rest[found.end()..];
    }
    let ranges = [
        ("month", 1, 12),
        ("day", 1, 31),
        ("hour", 0, 23),
        ("minute", 0, 59),
        ("second", 0, 59),
    ];
    let out = ranges.into_iter().zip(numbers.into_iter().skip(1));
    let mut out = out.filter(|((_, least, most), number)| !(*least..=*most).contains(number));
    match out.next() {
        Some(((name, ..), _)) => Some(format!("parsing time {text:?}: {name} out of range")),
        None if !rest.is_empty() => Some(format!("parsing time {text:?}: extra text: {rest:?}")),
        None => None,
    }
}

/// Why Go reads no duration in a text (`time.ParseDuration`).
pub(crate) fn no_duration(text: &str) -> Option<String> {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return None;
    }
    loop {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let unit = rest.trim_start_matches(is_number);
        let end = unit.find(is_number).unwrap_or(unit.len());
        let of = format!("in duration {text:?}");
        let (unit, after) = unit.split_at(end);
        match unit {
            _ if unit.len() + after.len() == rest.len() => {
                return Some(format!("time: invalid duration {text:?}"));
            }
            "" => return Some(format!("time: missing unit {of}")),
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => rest = after,
            unit => return Some(format!("time: unknown unit {unit:?} {of}")),
        }
        if rest.is_empty() {
            return None;
        }
    }
}
