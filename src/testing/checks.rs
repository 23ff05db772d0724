//! Whether objects of built-in kinds may be written, by the table of rules: in flow objects, out come
//! the fields that are wrong (`k8s.io/kubernetes/pkg/apis/*/validation`).

use serde_json::Value;

use super::{
    json::{items, members, text},
    kinds::{Kind, NameRule},
    rules::{self, Rule, each, get, join, plain},
    selector, subresources,
    target::Invalid,
    types::{self, Of, Shape},
    validation::{CONFIG_KEY, name_fault},
};

/// What is wrong with an object of a built-in kind.
pub(super) fn faults(kind: &Kind, object: &Value) -> Vec<Invalid> {
    let mut faults = Vec::new();
    let spec = &object["spec"];
    let wanted = format!(
        "{}.{}",
        text(&spec["names"]["plural"]),
        text(&spec["group"])
    );
    let name = &object["metadata"]["name"];
    let is_definition = kind.custom.is_none() && kind.kind == "CustomResourceDefinition";
    if is_definition && *name != *wanted {
        let why = "must be spec.names.plural+\".\"+spec.group";
        faults.push(Invalid::value("metadata.name", &name.to_string(), why));
    }
    if let Some(name) = kind.type_name() {
        check(name, object, "", &mut faults);
    }
    faults
}

fn check(name: &str, object: &Value, at: &str, faults: &mut Vec<Invalid>) {
    if !object.is_object() {
        return;
    }
    let holding = || rules::all(name).iter().filter(|rule| rule.holds(object));
    for rule in holding() {
        rule.check(object, at, faults);
    }
    for field in types::fields(name) {
        let Of::Type(inner) = &field.of else {
            continue;
        };
        let (value, path) = match field.is_inline() {
            true => (object, at.to_owned()),
            false => (&object[field.name], join(at, field.name)),
        };
        match field.shape {
            Shape::One if path == "metadata" => {}
            Shape::One => check(inner, value, &path, faults),
            Shape::List => {
                for (index, item) in items(value).enumerate() {
                    check(inner, item, &format!("{path}[{index}]"), faults);
                }
            }
            Shape::Map => members(value)
                .for_each(|(key, item)| check(inner, item, &format!("{path}[{key}]"), faults)),
        }
    }
    for rule in holding().filter(|rule| rule.rule == "unique") {
        let mut seen = Vec::new();
        for (field, item) in each(object, rule.field, at) {
            let value = spell(rule.value, item);
            let field = match rule.value.strip_prefix('$') {
                Some(name) => join(&field, name),
                None => field,
            };
            if value != "null" && seen.contains(&value) {
                let message = format!("Duplicate value: {value}");
                faults.push(Invalid::new(field, "FieldValueDuplicate", message));
            }
            seen.push(value);
        }
    }
}

/// Words in which `$a/b` and `%a/b` are fields.
fn spell(words: &'static str, object: &Value) -> String {
    let mut spelled = String::new();
    let mut rest = words;
    while let Some(at) = rest.find(['$', '%']) {
        let is_path = |character: char| character.is_ascii_alphanumeric() || character == '/';
        let (before, path) = (&rest[..at], &rest[at + 1..]);
        let (path, after) = path.split_at(path.find(|c| !is_path(c)).unwrap_or(path.len()));
        let value = get(object, path);
        spelled.push_str(before);
        spelled.push_str(&match rest.as_bytes()[at] {
            b'$' => value.to_string(),
            _ => plain(value),
        });
        rest = after;
    }
    spelled + rest
}

impl Rule {
    fn check(&self, object: &Value, at: &str, faults: &mut Vec<Invalid>) {
        let words = self.value;
        match self.rule {
            "selects" => return selects(object, self.field, at, faults),
            "keys" => return config_keys(object, self.field, words, faults),
            "size" => return size(object, self.field, words, faults),
            "required" | "missing" | "enum" | "range" | "label" | "invalid" | "fault"
            | "refers" => {}
            _ => return,
        }
        for (field, value) in each(object, self.field, at) {
            let spelled = value.to_string();
            let is_there = !plain(value).is_empty();
            let mut invalid = |why: &str| {
                faults.push(Invalid::value(&*field, &spelled, why));
            };
            match self.rule {
                "required" if is_there => {}
                "required" | "missing" => faults.push(Invalid::required(field, words)),
                "fault" => {
                    let message = spell(words, object);
                    faults.push(Invalid::new(field, "FieldValueInvalid", message));
                }
                "refers" => {
                    let known = each(object, words, "");
                    if is_there && !known.iter().any(|(_, known)| *known == value) {
                        let message = format!("Not found: {spelled}");
                        faults.push(Invalid::new(field, "FieldValueNotFound", message));
                    }
                }
                "invalid" => invalid(words),
                "enum" => {
                    let known: Vec<_> = words.split(' ').map(|name| format!("{name:?}")).collect();
                    // The items of a list have the list's name.
                    let field = field.trim_end_matches(|c: char| c == ']' || c.is_ascii_digit());
                    let field = field.trim_end_matches('[');
                    if is_there && !known.contains(&spelled) {
                        faults.push(Invalid::unsupported(field, &spelled, known));
                    }
                }
                "range" => {
                    let (least, most) = words.split_once(' ').unwrap_or((words, ""));
                    let number = |text: &str| text.parse::<i64>().ok();
                    let is_out = value.as_i64().is_some_and(|value| {
                        number(least).is_some_and(|least| value < least)
                            || number(most).is_some_and(|most| value > most)
                    });
                    match most {
                        _ if !is_out => {}
                        "" => invalid(&format!("must be greater than or equal to {least}")),
                        _ => invalid(&format!("must be between {least} and {most}, inclusive")),
                    }
                }
                _ => {
                    let name = value.as_str().filter(|name| !name.is_empty());
                    if let Some(why) = name.and_then(|name| name_fault(NameRule::Label, name)) {
                        invalid(&why);
                    }
                }
            }
        }
    }
}

/// Bytes of a ConfigMap's or a Secret's data: `MaxSecretSize`.
const DATA: usize = 1 << 20;

/// Whether texts and binary data are small enough together. Four characters of base64 are three
/// bytes.
fn size(object: &Value, texts: &str, binary: &str, faults: &mut Vec<Invalid>) {
    let of = |field: &str| {
        members(&object[field])
            .map(|(_, value)| text(value).len())
            .sum::<usize>()
    };
    if of(texts) + of(binary) / 4 * 3 > DATA {
        let message = format!("Too long: may not be more than {DATA} bytes");
        let field = if texts == "none" { "data" } else { "[]" };
        faults.push(Invalid::new(field, "FieldValueTooLong", message));
    }
}

fn config_keys(object: &Value, path: &str, other: &str, faults: &mut Vec<Invalid>) {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    for (key, _) in members(&object[path]) {
        let field = format!("{path}[{key}]");
        let mut invalid =
            |why: &str| faults.push(Invalid::value(&*field, &format!("{key:?}"), why));
        if key.is_empty() || !key.bytes().all(is_inner) {
            invalid(CONFIG_KEY);
        }
        if object[other].get(key).is_some() {
            invalid(&format!("duplicate of key present in {other}"));
        }
    }
}

fn selects(object: &Value, path: &'static str, at: &str, faults: &mut Vec<Invalid>) {
    let selector = subresources::selector_text(get(object, path));
    let template = &object["template"];
    let selected = selector::labels(&selector);
    if selected.is_ok_and(|labels| !selector::selects(&labels, &[], template)) {
        let labels = template["metadata"]["labels"].to_string();
        let why = "`selector` does not match template `labels`";
        let field = join(at, "template.metadata.labels");
        faults.push(Invalid::value(field, &labels, why));
    }
}

/// What was changed that cannot be.
pub(super) fn changed(kind: &Kind, before: &Value, after: &Value) -> Vec<Invalid> {
    let mut faults = Vec::new();
    for rule in rules::of_kind(kind, "immutable").filter(|rule| rule.holds(before)) {
        let (old, new) = (get(before, rule.field), get(after, rule.field));
        if !old.is_null() && old != new {
            let field = rule.field.replace('/', ".");
            faults.push(Invalid::value(
                field,
                &new.to_string(),
                "field is immutable",
            ));
        }
    }
    faults
}
