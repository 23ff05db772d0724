//! Templates: in flows text, out come the nodes that it is made of
//! (`k8s.io/client-go/util/jsonpath/parser.go`).

use regex::Regex;
use serde_json::Value;

/// Bytes of a template: 64 KiB.
const TEMPLATE: usize = 1 << 16;

/// How deep filters and unions may be in each other.
const NESTED: usize = 16;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    /// What is between braces.
    Steps(Vec<Step>),
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Range,
    End,
    Field(String),
    Slice(Slice),
    Wildcard,
    Recursive,
    Literal(Value),
    Union(Vec<Vec<Step>>),
    /// The elements where the left side is there, or compares so with the right side.
    Filter(Vec<Step>, Option<(Operator, Vec<Step>)>),
}

/// `[from:to:step]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) from: Option<i64>,
    pub(super) to: Bound,
    pub(super) step: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bound {
    /// To the end.
    Open,
    /// The element behind the first.
    Next,
    At(i64),
}

#[derive(Debug, Clone)]
pub(super) enum Operator {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    Matches,
}

impl Operator {
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "<" => Self::Less,
            "<=" => Self::LessEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterEqual,
            "==" => Self::Equal,
            "!=" => Self::NotEqual,
            "=~" => Self::Matches,
            _ => return None,
        })
    }
}

pub(super) fn template(text: &str) -> Result<Vec<Node>, String> {
    if text.len() > TEMPLATE {
        return Err("the template is too long".to_owned());
    }
    let mut nodes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            nodes.push(Node::Text(before.to_owned()));
        }
        let mut action = Action {
            rest: after,
            nested: NESTED,
        };
        nodes.push(Node::Steps(action.steps(Some('}'))?));
        rest = action.rest;
    }
    if !rest.is_empty() {
        nodes.push(Node::Text(rest.to_owned()));
    }
    Ok(nodes)
}

/// What is between braces, as it is read.
struct Action<'a> {
    rest: &'a str,
    /// How many filters and unions may still be in it.
    nested: usize,
}

impl<'a> Action<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next();
        self.rest = chars.as_str();
        next
    }

    /// All characters for which something holds.
    fn take(&mut self, mut holds: impl FnMut(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !holds(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn within(&self, text: &str) -> Result<Vec<Step>, String> {
        let nested = self.nested.checked_sub(1).ok_or("it is nested too deep")?;
        let mut action = Action { rest: text, nested };
        action.steps(None)
    }

    /// The steps to the end, which is that of the text or a character.
    fn steps(&mut self, end: Option<char>) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix("[?(") {
                self.rest = rest;
                steps.push(self.filter()?);
                continue;
            }
            if let Some(rest) = self.rest.strip_prefix("..") {
                if matches!(steps.last(), Some(Step::Recursive)) {
                    return Err("invalid multiple recursive descent".to_owned());
                }
                self.rest = rest;
                steps.push(Step::Recursive);
                if self.peek().is_some_and(|c| c == '_' || c.is_alphanumeric()) {
                    steps.push(self.field());
                }
                continue;
            }
            let next = self.peek();
            match next {
                None if end.is_none() => return Ok(steps),
                None | Some('\n' | '\r') => return Err("unclosed action".to_owned()),
                c if c == end => {
                    self.next();
                    return Ok(steps);
                }
                // The object itself.
                Some(' ' | '@' | '$') => {
                    self.next();
                }
                Some('[') => self.bracket(&mut steps)?,
                Some(quote @ ('"' | '\'')) => {
                    steps.push(Step::Literal(Value::String(self.quoted(quote)?)));
                }
                Some('.') => {
                    self.next();
                    steps.push(self.field());
                }
                Some(c) if matches!(c, '+' | '-') || c.is_ascii_digit() => {
                    steps.push(Step::Literal(self.number()?));
                }
                Some(c) if c == '_' || c.is_alphanumeric() => {
                    let word = self.take(|c| !is_terminator(c));
                    steps.push(match word {
                        "true" | "false" => Step::Literal(Value::Bool(word == "true")),
                        "range" => Step::Range,
                        "end" => Step::End,
                        _ => return Err(format!("unrecognized identifier {word}")),
                    });
                }
                Some(c) => return Err(format!("unrecognized character in action: {c:?}")),
            }
        }
    }

    /// A name, in which a backslash takes the next character as it is.
    fn field(&mut self) -> Step {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if c == '\\' {
                self.next();
                name.extend(self.next());
            } else if is_terminator(c) {
                break;
            } else {
                name.extend(self.next());
            }
        }
        match &*name {
            "*" => Step::Wildcard,
            _ => Step::Field(name),
        }
    }

    fn number(&mut self) -> Result<Value, String> {
        let mut first = true;
        let text = self.take(|c| {
            let sign = std::mem::take(&mut first) && matches!(c, '+' | '-');
            sign || c == '.' || c.is_ascii_digit()
        });
        if let Ok(number) = text.parse::<i64>() {
            return Ok(number.into());
        }
        let number: Result<f64, _> = text.parse();
        match number {
            Ok(number) if number.is_finite() => Ok(number.into()),
            _ => Err(format!("cannot parse number {text}")),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None | Some('\n') => return Err("unterminated quoted string".to_owned()),
                Some(c) if c == quote => return Ok(text),
                Some('\\') => text.push(self.escaped(quote)?),
                Some(c) => text.push(c),
            }
        }
    }

    /// What a backslash means (Go's `strconv.UnquoteChar`).
    fn escaped(&mut self, quote: char) -> Result<char, String> {
        let unknown = || "an escape that is not known".to_owned();
        let escape = self.next().ok_or("unterminated quoted string")?;
        let digits = match escape {
            'a' => return Ok('\u{7}'),
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\u{b}'),
            '\\' => return Ok('\\'),
            c if c == quote => return Ok(c),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(unknown()),
        };
        let mut left = digits;
        let hex = self.take(|c| {
            let takes = left > 0 && c.is_ascii_hexdigit();
            left -= usize::from(takes);
            takes
        });
        let code = u32::from_str_radix(hex, 16).ok().filter(|_| left == 0);
        code.and_then(char::from_u32).ok_or_else(unknown)
    }

    /// `[0]`, `[1:3]`, `['name']`, `[*]` or several with commas between them.
    fn bracket(&mut self, steps: &mut Vec<Step>) -> Result<(), String> {
        self.next();
        let text = self.take(|c| c != ']' && c != '\n');
        if self.next() != Some(']') {
            return Err("unterminated array".to_owned());
        }
        if text.contains(',') {
            let member = |text: &str| self.within(&format!("[{}]", text.trim_matches(' ')));
            let members: Result<_, _> = text.split(',').map(member).collect();
            steps.push(Step::Union(members?));
            return Ok(());
        }
        let name = text
            .strip_prefix('\'')
            .and_then(|text| text.strip_suffix('\''));
        if let Some(name) = name.filter(|name| !name.contains('\'')) {
            // As after a dot: `['a.b']` is two steps, and needs a backslash to be one.
            steps.extend(self.within(&format!(".{name}"))?);
            return Ok(());
        }
        steps.push(Step::Slice(slice(text)?));
        Ok(())
    }

    fn filter(&mut self) -> Result<Step, String> {
        let mut quote = None;
        let mut before = ' ';
        let inner = self.take(|c| {
            match quote {
                None if matches!(c, '"' | '\'') => quote = Some(c),
                Some(open) if c == open && before != '\\' => quote = None,
                None if c == ')' => return false,
                _ => {}
            }
            before = c;
            c != '\n'
        });
        if self.next() != Some(')') {
            return Err("unterminated filter".to_owned());
        }
        if self.next() != Some(']') {
            return Err("unclosed array expect ]".to_owned());
        }
        let is_sign = |c: char| matches!(c, '!' | '<' | '>' | '=');
        let Some(at) = inner.find(is_sign).filter(|at| *at > 0) else {
            return Ok(Step::Filter(self.within(inner)?, None));
        };
        let (left, rest) = inner.split_at(at);
        let right = rest.trim_start_matches(|c| is_sign(c) || c == '~');
        let operator = &rest[..rest.len() - right.len()];
        let operator = Operator::of(operator)
            .ok_or_else(|| format!("unrecognized filter operator {operator}"))?;
        let right = self.within(right)?;
        // A pattern is looked at before any object is.
        if let (Operator::Matches, [Step::Literal(Value::String(pattern))]) =
            (&operator, &right[..])
        {
            Regex::new(pattern).map_err(|error| error.to_string())?;
        }
        Ok(Step::Filter(self.within(left)?, Some((operator, right))))
    }
}

/// The parts between colons.
fn slice(text: &str) -> Result<Slice, String> {
    if text == "*" {
        return slice(":");
    }
    let wrong = || format!("invalid array index {text}");
    let number = |part: Option<&str>| match part {
        None | Some("") => Ok(None),
        Some(part) => part.parse::<i64>().map(Some).map_err(|_| wrong()),
    };
    let mut parts = text.split(':');
    let (from, to, step) = (parts.next(), parts.next(), parts.next());
    if parts.next().is_some() || text.contains('+') {
        return Err(wrong());
    }
    Ok(Slice {
        from: number(from)?,
        to: match (number(to)?, to) {
            (Some(to), _) => Bound::At(to),
            (None, Some(_)) => Bound::Open,
            (None, None) => Bound::Next,
        },
        step: number(step)?,
    })
}

fn is_terminator(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}'
    )
}
