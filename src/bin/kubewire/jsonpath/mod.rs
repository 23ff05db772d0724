//! kubectl's JSONPath: in flow a template and an object, out comes text, or the values that it
//! finds.
//!
//! The dialect is that of `k8s.io/client-go/util/jsonpath`, which is older than RFC 9535 and has
//! another syntax: text around braces, `range` and `end`, filters of one comparison, regular
//! expressions, unions of names without quotes. No crate has it.

use std::borrow::Cow;

use serde_json::{Number, Value};

mod compare;
mod parse;

use crate::answer::go_json;
pub(crate) use compare::float;
use parse::{Bound, Node, Operator, Slice, Step};

/// Levels of objects that `..` goes down, and of nested ranges: 512. Objects are nested 128 deep at
/// most, for that is what the parser of JSON takes.
const DEPTH: usize = 512;

#[derive(Debug, Clone)]
pub(crate) struct JsonPath {
    nodes: Vec<Node>,
    /// Whether a field that is nowhere is an empty result instead of an error.
    pub(crate) allow_missing: bool,
}

type Values<'a> = Vec<Cow<'a, Value>>;

#[derive(Default)]
struct Place {
    begins: bool,
    ends: bool,
    ranges: usize,
}

impl JsonPath {
    /// A template, such as `{.metadata.name}{"\n"}`.
    pub(crate) fn parse(template: &str) -> Result<Self, String> {
        Ok(Self {
            nodes: parse::template(template)?,
            allow_missing: true,
        })
    }

    /// A path with or without the braces and the first dot
    /// (`k8s.io/kubectl/pkg/cmd/get/customcolumn.go`, `RelaxedJSONPathExpression`).
    pub(crate) fn relaxed(path: &str) -> Result<Self, String> {
        let inner = path
            .strip_prefix('{')
            .and_then(|path| path.strip_suffix('}'));
        let inner = inner.unwrap_or(path);
        let inner = inner.strip_prefix('.').unwrap_or(inner);
        if inner.is_empty() || inner.contains(['{', '}']) {
            let problem = "is no path such as .metadata.name or {.metadata.name}";
            return Err(format!("{path:?} {problem}"));
        }
        Self::parse(&format!("{{.{inner}}}"))
    }

    /// What each node finds; those of a range for each of its values.
    pub(crate) fn find<'a>(&'a self, object: &'a Value) -> Result<Vec<Values<'a>>, String> {
        let mut found = Vec::new();
        let object = Cow::Borrowed(object);
        self.run(object, 0, &mut Place::default(), &mut found)?;
        Ok(found)
    }

    pub(crate) fn first<'a>(&'a self, object: &'a Value) -> Result<Values<'a>, String> {
        Ok(self.find(object)?.into_iter().next().unwrap_or_default())
    }

    pub(crate) fn text(&self, object: &Value) -> Result<String, String> {
        let mut text = String::new();
        for values in self.find(object)? {
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    text.push(' ');
                }
                match &**value {
                    Value::String(value) => text.push_str(value),
                    Value::Null => text.push_str("<nil>"),
                    Value::Number(number) => text.push_str(&sprint_number(number)),
                    value => text.push_str(&go_json(value)),
                }
            }
        }
        Ok(text)
    }

    /// All that is found, node by node, each as a list.
    pub(crate) fn lists(&self, object: &Value) -> Result<Vec<Value>, String> {
        let list = |values: Values<'_>| values.into_iter().map(Cow::into_owned).collect();
        Ok(self.find(object)?.into_iter().map(list).collect())
    }

    /// Evaluates the nodes from one on, to the end of the range that it is in; gives where that is.
    fn run<'a>(
        &'a self,
        object: Cow<'a, Value>,
        from: usize,
        place: &mut Place,
        found: &mut Vec<Values<'a>>,
    ) -> Result<usize, String> {
        if place.ranges > DEPTH {
            return Err("ranges are nested too deep".to_owned());
        }
        let mut at = from;
        while let Some(node) = self.nodes.get(at) {
            let values = match node {
                Node::Text(text) => vec![Cow::Owned(Value::String(text.clone()))],
                Node::Steps(steps) => self.walk(vec![object.clone()], steps, place)?,
            };
            if std::mem::take(&mut place.ends) {
                return Ok(at);
            }
            if std::mem::take(&mut place.begins) {
                place.ranges += 1;
                let mut end = None;
                for value in values {
                    end = Some(self.run(value, at + 1, place, found)?);
                }
                // Nothing in it is evaluated, but its end has to be found.
                at = end.unwrap_or_else(|| self.end_of(at));
                place.ranges -= 1;
            } else {
                found.push(values);
            }
            at += 1;
        }
        Ok(at)
    }

    /// The node that ends the range that a node begins.
    fn end_of(&self, begin: usize) -> usize {
        let mut open = 0_usize;
        for (at, node) in self.nodes.iter().enumerate().skip(begin) {
            let Node::Steps(steps) = node else { continue };
            let count = |is: fn(&&Step) -> bool| steps.iter().filter(is).count();
            open += count(|step| matches!(step, Step::Range));
            open = open.saturating_sub(count(|step| matches!(step, Step::End)));
            if open == 0 {
                return at;
            }
        }
        self.nodes.len()
    }

    fn walk<'a>(
        &'a self,
        mut values: Values<'a>,
        steps: &'a [Step],
        place: &mut Place,
    ) -> Result<Values<'a>, String> {
        for step in steps {
            values = match step {
                Step::Range => {
                    place.begins = true;
                    values
                }
                Step::End if place.ranges == 0 => return Err("not in range, nothing to end".into()),
                Step::End => {
                    place.ends = true;
                    Values::new()
                }
                Step::Literal(literal) => values.iter().map(|_| Cow::Borrowed(literal)).collect(),
                Step::Field(name) => self.field(values, name)?,
                Step::Slice(slice) => elements(values, slice)?,
                Step::Wildcard => values.into_iter().flat_map(children).collect(),
                Step::Recursive => {
                    let mut all = Values::new();
                    descend(values, &mut all, 0)?;
                    all
                }
                Step::Union(members) => {
                    let mut all = Values::new();
                    for member in members {
                        all.extend(self.walk(values.clone(), member, place)?);
                    }
                    all
                }
                Step::Filter(left, compared) => self.filter(values, left, compared.as_ref())?,
            };
        }
        Ok(values)
    }

    fn field<'a>(&self, values: Values<'a>, name: &str) -> Result<Values<'a>, String> {
        if values.is_empty() {
            return Ok(values);
        }
        let of = |value| match value {
            Cow::Borrowed(value) => Value::get(value, name).map(Cow::Borrowed),
            Cow::Owned(value) => value.get(name).cloned().map(Cow::Owned),
        };
        let found: Values<'a> = values.into_iter().filter_map(of).collect();
        if found.is_empty() && !self.allow_missing {
            return Err(format!("{name} is not found"));
        }
        Ok(found)
    }

    fn filter<'a>(
        &'a self,
        values: Values<'a>,
        left: &'a [Step],
        compared: Option<&'a (Operator, Vec<Step>)>,
    ) -> Result<Values<'a>, String> {
        let mut passed = Values::new();
        for value in values {
            if !value.is_array() {
                let what = compare::type_of(&value);
                return Err(format!(
                    "{what} is not array or slice and cannot be filtered"
                ));
            }
            for item in children(value) {
                let mut place = Place::default();
                let lefts = self.walk(vec![item.clone()], left, &mut place);
                let Some((operator, right)) = compared else {
                    if lefts.is_ok_and(|found| !found.is_empty()) {
                        passed.push(item);
                    }
                    continue;
                };
                let lefts = lefts?;
                let rights = self.walk(vec![item.clone()], right, &mut place)?;
                match (&lefts[..], &rights[..]) {
                    ([], _) | (_, []) => {}
                    ([left], [right]) => {
                        if operator.holds(left, right)? {
                            passed.push(item);
                        }
                    }
                    _ => return Err("can only compare one element at a time".to_owned()),
                }
            }
        }
        Ok(passed)
    }
}

/// What is in a list or an object.
fn children(value: Cow<'_, Value>) -> Values<'_> {
    match value {
        Cow::Borrowed(Value::Array(items)) => items.iter().map(Cow::Borrowed).collect(),
        Cow::Borrowed(Value::Object(fields)) => fields.values().map(Cow::Borrowed).collect(),
        Cow::Owned(Value::Array(items)) => items.into_iter().map(Cow::Owned).collect(),
        Cow::Owned(Value::Object(fields)) => fields
            .into_iter()
            .map(|(_, value)| Cow::Owned(value))
            .collect(),
        _ => Values::new(),
    }
}

/// Each list and object, and those in it.
fn descend<'a>(values: Values<'a>, all: &mut Values<'a>, depth: usize) -> Result<(), String> {
    if depth > DEPTH {
        return Err("the object is nested too deep".to_owned());
    }
    for value in values {
        let below = children(value.clone());
        if !below.is_empty() {
            all.push(value);
            descend(below, all, depth + 1)?;
        }
    }
    Ok(())
}

fn elements<'a>(values: Values<'a>, slice: &Slice) -> Result<Values<'a>, String> {
    let mut found = Values::new();
    for value in values {
        let Some(length) = value.as_array().map(Vec::len) else {
            if value.is_null() {
                continue;
            }
            let what = compare::type_of(&value);
            return Err(format!("{what} is not array or slice"));
        };
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        let mut from = slice.from.unwrap_or(0);
        if from < 0 {
            from = from.saturating_add(length);
        }
        let to = match slice.to {
            Bound::Open => length,
            // Of one element, where a place below 0 counts from the end.
            Bound::Next => match slice.from.unwrap_or(0).saturating_add(1) {
                to if to <= 0 => to.saturating_add(length),
                to => to,
            },
            Bound::At(to) if to < 0 => to.saturating_add(length),
            Bound::At(to) => to,
        };
        // Of one element they are equal where no number is greater: that is out of bounds.
        if from == to && !matches!(slice.to, Bound::Next) {
            return Ok(found);
        }
        let out = |index: i64| format!("array index out of bounds: index {index}, length {length}");
        if from >= length || from < 0 {
            return Err(out(from));
        }
        if to > length || to < 0 {
            return Err(out(to.saturating_sub(1)));
        }
        if from > to {
            return Err(format!(
                "starting index {from} is greater than ending index {to}"
            ));
        }
        let step = slice.step.unwrap_or(1);
        let step = usize::try_from(step).ok().filter(|step| *step > 0);
        let step = step.ok_or("step must be > 0")?;
        // Both are within the list.
        let (from, to) = (from as usize, to as usize);
        let items = children(value).into_iter();
        found.extend(items.take(to).skip(from).step_by(step));
    }
    Ok(found)
}

/// A value as Go's `fmt.Sprint` writes it, which is what custom columns show.
pub(crate) fn sprint(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => sprint_number(number),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(sprint).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name}:{}", sprint(value));
            let fields: Vec<_> = fields.iter().map(field).collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}

fn sprint_number(number: &Number) -> String {
    match (number.is_f64(), number.as_f64()) {
        (true, Some(value)) => float(value, 1e-4..1e21, 2),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests;
