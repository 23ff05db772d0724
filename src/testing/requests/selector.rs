//! Selectors: in flows the text of a label or field selector, out come requirements that an
//! object's labels or fields meet or do not.

use serde_json::Value;

use crate::{
    server::Refusal,
    testing::{
        checks::validation::faults,
        kinds::{Kind, rules},
        values::json::{self, items},
    },
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    In,
    NotIn,
    Exists,
    Missing,
    Greater,
    Less,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    fn new<'a>(key: &str, operator: Operator, values: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            key: key.to_owned(),
            operator,
            values: values.into_iter().map(str::to_owned).collect(),
        }
    }

    /// Of one object alone.
    pub(crate) fn named(name: &str) -> Self {
        Self::new("metadata.name", Operator::In, [name])
    }

    fn matches(&self, get: impl Fn(&str) -> Option<String>) -> bool {
        let value = get(&self.key);
        let is_in = value
            .as_ref()
            .is_some_and(|value| self.values.contains(value));
        let number = |text: &String| text.parse::<i64>().ok();
        let numbers = || Some((number(value.as_ref()?)?, number(self.values.first()?)?));
        match self.operator {
            Operator::In => is_in,
            Operator::NotIn => !is_in,
            Operator::Exists => value.is_some(),
            Operator::Missing => value.is_none(),
            Operator::Greater => numbers().is_some_and(|(value, than)| value > than),
            Operator::Less => numbers().is_some_and(|(value, than)| value < than),
        }
    }
}

/// Reads a label selector (`k8s.io/apimachinery/pkg/labels/selector.go`).
pub(crate) fn labels(text: &str) -> Result<Vec<Requirement>, Refusal> {
    let mut parser = Parser { rest: text };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            "" => return Ok(requirements),
            token if is_identifier(token) || token == "!" => {
                let requirement = parser.requirement();
                requirements.push(requirement.map_err(|what| {
                    Refusal::bad_request(format!("unable to parse requirement: {what}"))
                })?);
            }
            other => return found(other, ", expected: !, identifier, or 'end of string'"),
        }
        match parser.next() {
            "" => return Ok(requirements),
            "," => match parser.peek() {
                token if is_identifier(token) || token == "!" => {}
                other => return found(other, ", expected: identifier after ','"),
            },
            other => return found(other, ", expected: ',' or 'end of string'"),
        }
    }
}

fn found<T>(token: &str, wanted: &str) -> Result<T, Refusal> {
    Err(Refusal::bad_request(format!("found '{token}'{wanted}")))
}

/// The symbols of selectors; all else is an identifier or a keyword.
const SYMBOLS: [char; 7] = ['=', '!', '(', ')', ',', '>', '<'];

fn is_identifier(token: &str) -> bool {
    !token.is_empty() && !token.starts_with(SYMBOLS)
}

/// A selector from some point on.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// The next token; empty at the end.
    fn peek(&self) -> &'a str {
        let text = self.rest.trim_start();
        let end = match text.get(..2) {
            Some("==" | "!=") => 2,
            _ if text.starts_with(SYMBOLS) => 1,
            _ => text
                .find(|c: char| c.is_whitespace() || SYMBOLS.contains(&c))
                .unwrap_or(text.len()),
        };
        &text[..end]
    }

    fn next(&mut self) -> &'a str {
        let token = self.peek();
        self.rest = &self.rest.trim_start()[token.len()..];
        token
    }

    /// The next token, which must be an identifier.
    fn identifier(&mut self) -> Result<&'a str, String> {
        match self.next() {
            token if is_identifier(token) => Ok(token),
            token => Err(format!("found '{token}', expected: identifier")),
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let is_missing = self.peek() == "!";
        if is_missing {
            self.next();
        }
        let key = self.identifier()?;
        if let Some(why) = faults("labelkey", key).first() {
            return Err(format!("<nil>: Invalid value: {key:?}: {why}"));
        }
        let (operator, values) = match (is_missing, self.peek()) {
            (true, _) => (Operator::Missing, Vec::new()),
            (false, "" | ",") => (Operator::Exists, Vec::new()),
            (false, _) => match self.next() {
                "in" => (Operator::In, self.list()?),
                "notin" => (Operator::NotIn, self.list()?),
                "=" | "==" => (Operator::In, vec![self.value()?]),
                "!=" => (Operator::NotIn, vec![self.value()?]),
                ">" => (Operator::Greater, vec![self.value()?]),
                "<" => (Operator::Less, vec![self.value()?]),
                other => {
                    let known = "in, notin, =, ==, !=, gt, lt";
                    return Err(format!("found '{other}', expected: {known}"));
                }
            },
        };
        let is_number = matches!(operator, Operator::Greater | Operator::Less);
        for (at, value) in values.iter().enumerate() {
            if is_number && value.parse::<i64>().is_err() {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                return Err(format!("values[{at}]: Invalid value: {value:?}: {why}"));
            }
            if let Some(why) = faults("labelvalue", value).first() {
                return Err(format!(
                    "values[{at}][{key}]: Invalid value: {value:?}: {why}"
                ));
            }
        }
        Ok(Requirement::new(key, operator, values))
    }

    /// The one value of a comparison.
    fn value(&mut self) -> Result<&'a str, String> {
        match self.peek() {
            "" | "," => Ok(""),
            _ => self.identifier(),
        }
    }

    /// The values in parentheses.
    fn list(&mut self) -> Result<Vec<&'a str>, String> {
        match self.next() {
            "(" => {}
            other => return Err(format!("found '{other}' expected: '('")),
        }
        let mut values = Vec::new();
        loop {
            // Where there is none is the empty value.
            values.push(match self.peek() {
                "," | ")" => "",
                _ => self.identifier()?,
            });
            match self.next() {
                "," => {}
                ")" => return Ok(values),
                other => return Err(format!("found '{other}', expected: ',' or ')'")),
            }
        }
    }
}

/// Reads a field selector (`k8s.io/apimachinery/pkg/fields/selector.go`) for a kind, whose fields
/// are those of `AddFieldLabelConversionsFor…` in `k8s.io/kubernetes/pkg/apis/*/v1/conversion.go`.
pub(crate) fn fields(text: &str, kind: &Kind) -> Result<Vec<Requirement>, Refusal> {
    let mut requirements = Vec::new();
    for part in terms(text).into_iter().filter(|part| !part.is_empty()) {
        let operators = [
            ("!=", Operator::NotIn),
            ("==", Operator::In),
            ("=", Operator::In),
        ];
        let found = operators
            .into_iter()
            .filter_map(|(spelled, operator)| Some((part.find(spelled)?, spelled, operator)));
        // Of those at one place the longest, which is the first.
        let Some((at, spelled, operator)) = found.min_by_key(|(at, ..)| *at) else {
            let why = format!("invalid selector: '{text}'; can't understand '{part}'");
            return Err(Refusal::bad_request(why));
        };
        let (key, value) = (&part[..at], &part[at + spelled.len()..]);
        let value = unescape(value).map_err(Refusal::bad_request)?;
        let mut own = rules::of_kind(kind, "select")
            .map(|rule| rule.field)
            .peekable();
        let versions = kind.custom.iter();
        let mut selectable = versions.flat_map(|version| items(&version["selectableFields"]));
        let has_own = kind.custom.is_some() || own.peek().is_some();
        let is_placed = kind.resource.namespaced || kind.custom.is_some() || !has_own;
        let is_known = key == "metadata.name"
            || key == "metadata.namespace" && is_placed
            || own.any(|field| field == key)
            || selectable
                .any(|field| json::text(&field["jsonPath"]).trim_start_matches('.') == key);
        if !is_known {
            return Err(Refusal::bad_request(match has_own {
                true if kind.kind == "Job" => format!("field label {key:?} not supported for Job"),
                true if kind.resource.group == "resource.k8s.io" => {
                    let of = format!("{}, Kind={}", kind.resource.api_version(), kind.kind);
                    format!("field label not supported for {of}: {key}")
                }
                true => format!("field label not supported: {key}"),
                false => format!(
                    "{key:?} is not a known field selector: only \"metadata.name\", \
                     \"metadata.namespace\""
                ),
            }));
        }
        requirements.push(Requirement::new(key, operator, [&*value]));
    }
    Ok(requirements)
}

/// The parts of a field selector, which commas separate unless they are escaped.
fn terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|character| {
        let is_end = character == ',' && !escaped;
        escaped = character == '\\' && !escaped;
        is_end
    })
    .collect()
}

fn unescape(value: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => escaped,
                other => {
                    let other: String = other.into_iter().collect();
                    let what = "invalid field selector: invalid escape sequence";
                    return Err(format!("{what}: \\{other}"));
                }
            },
            ',' | '=' => {
                let what = "invalid field selector: unescaped character in value";
                // Go prints the byte.
                return Err(format!("{what}: {}", u32::from(character)));
            }
            character => character,
        });
    }
    Ok(plain)
}

pub(crate) fn selects(labels: &[Requirement], fields: &[Requirement], object: &Value) -> bool {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let label = |key: &str| text(&object["metadata"]["labels"][key]);
    let field = |path: &str| {
        let path = format!("/{}", path.replace('.', "/"));
        Some(object.pointer(&path).and_then(text).unwrap_or_default())
    };
    labels.iter().all(|r| r.matches(label)) && fields.iter().all(|r| r.matches(field))
}

#[cfg(test)]
mod tests {
    #[test]
    fn selectors_are_those_of_labels() {
        let labels = [("app", "web"), ("tier", "front"), ("size", "3")];
        let get = |key: &str| {
            let found = labels.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| (*value).to_owned())
        };
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app=db", false),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("other notin (db)", true),
            ("tier", true),
            ("!tier", false),
            ("!other,app in (web),tier=front", true),
            ("size>2,size<4", true),
            ("size > 3", false),
            ("other<4", false),
        ] {
            let all = super::labels(text).unwrap();
            assert_eq!(all.iter().all(|r| r.matches(get)), expected, "{text}");
        }
        for text in [
            "app in web",
            "a b",
            "app=a b",
            "=web",
            "a,,b",
            "size>x",
            "app=-",
        ] {
            let refusal = super::labels(text).unwrap_err();
            assert_eq!(refusal.code(), 400, "{text}");
        }
    }
}
