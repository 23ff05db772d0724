//! Whether objects may be written, by the table of rules: in flow objects, out come the fields that
//! are wrong (`k8s.io/kubernetes/pkg/apis/*/validation`).

pub(super) mod bounds;
pub(super) mod cron;
pub(super) mod schema;
pub(super) mod validation;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    server::Refusal,
    testing::{
        kinds::{
            Kind, custom,
            rules::{self, Rule},
            types::{self, Of, Shape},
        },
        requests::{
            gojson, selector,
            target::{Invalid, invalid},
        },
        values::{
            json::{items, members, text},
            paths::{clear, each, get, join, plain, segments},
            quantity,
        },
        writes::{admission, subresources},
    },
};

/// The reason of what is told to the client and refused by nobody.
pub(super) const WARNING: &str = "Warning";

/// What the rules say of all metadata, faults and warnings.
pub(super) fn metadata(kind: &Kind, object: &Value) -> Vec<Invalid> {
    let mut found = Vec::new();
    let of = match kind.custom {
        Some(_) => Some("meta.Custom"),
        None => Some("meta.BuiltIn").filter(|_| !kind.is("unnamed")),
    };
    for name in ["meta.ObjectMeta"].into_iter().chain(of) {
        let name = types::full(name);
        check(&name, &object["metadata"], "metadata", &mut found);
    }
    found.extend(controllers(&object["metadata"]["ownerReferences"]));
    found
}

/// What a client is told of an object that may be written.
pub(super) fn warnings(kind: &Kind, object: &Value) -> Vec<String> {
    let found = metadata(kind, object).into_iter();
    let found = found.chain(of_kind(kind, object));
    let warnings = found.filter(|found| found.reason == WARNING);
    let text = |Invalid { field, message, .. }| match &*field {
        "" => message,
        field => format!("{field}: {message}"),
    };
    warnings.map(text).collect()
}

/// What is wrong with an object, besides its metadata and what a definition says of it.
pub(super) fn faults(kind: &Kind, object: &Value) -> Vec<Invalid> {
    let mut faults = of_kind(kind, object);
    if kind.is_definition() {
        faults.extend(custom::faults(&object["spec"]));
        custom::rename(&object["spec"], &mut faults);
    }
    faults
}

/// What is wrong with an object by the rules of its kind alone.
pub(super) fn of_kind(kind: &Kind, object: &Value) -> Vec<Invalid> {
    let mut faults = all(kind.type_name().unwrap_or_default(), object);
    for rule in rules::of_kind(kind, "named") {
        for fault in &mut faults {
            if let Some(rest) = fault.field.strip_prefix(rule.field) {
                fault.field = format!("{}{rest}", rule.value);
            }
        }
    }
    faults
}

pub(super) fn of_type(name: &str, value: &Value) -> Vec<Invalid> {
    all(&types::full(name), value)
}

fn all(name: &str, value: &Value) -> Vec<Invalid> {
    let mut faults = Vec::new();
    check(name, value, "", &mut faults);
    faults
}

/// Refuses options of a request by the rules of a type.
pub(super) fn options(of: &str, kind: &str, options: &Value) -> Result<(), Refusal> {
    match of_type(of, options) {
        faults if faults.is_empty() => Ok(()),
        faults => Err(invalid(&format!("{kind}.meta.k8s.io"), "", faults)),
    }
}

/// An object has one controller at most.
fn controllers(owners: &Value) -> Option<Invalid> {
    let controls = |owner: &&Value| owner["controller"] == true;
    let name = |owner: &Value| format!("{}/{}", text(&owner["kind"]), text(&owner["name"]));
    let mut named = items(owners).filter(controls).map(name);
    let (one, other) = (named.next()?, named.next()?);
    let words = format!(
        "Only one reference can have Controller set to true. Found \"true\" in references for \
         {one} and {other}"
    );
    // As Go writes them.
    let order = "apiVersion kind name uid controller blockOwnerDeletion";
    let spelled = items(owners).map(|owner| {
        let fields = order.split(' ').filter(|field| !owner[*field].is_null());
        let fields = fields.map(|field| format!("{field:?}:{}", owner[field]));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    });
    let spelled = format!("[{}]", spelled.collect::<Vec<_>>().join(","));
    Some(Invalid::value("metadata.ownerReferences", &spelled, &words))
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
            // They are checked by other rules.
            Shape::One if inner.ends_with(".ObjectMeta") => {}
            Shape::One
                if holding().any(|rule| rule.rule == "selects" && rule.field == field.name) => {}
            Shape::One => check(inner, value, &path, faults),
            Shape::List => items(value)
                .enumerate()
                .for_each(|(index, item)| check(inner, item, &format!("{path}[{index}]"), faults)),
            Shape::Map => members(value)
                .for_each(|(key, item)| check(inner, item, &format!("{path}[{key}]"), faults)),
        }
    }
    for rule in holding().filter(|rule| ["unique", "alone"].contains(&rule.rule)) {
        let mut seen = Vec::new();
        let (by, shown) = rule.value.split_once(" => ").unwrap_or((rule.value, ""));
        let named = by.split_once(' ');
        let named = named.filter(|(name, _)| name.chars().all(char::is_alphanumeric));
        let own = by.strip_prefix('$').unwrap_or_default();
        let (name, words) = named.unwrap_or((own, by));
        for (mut field, item) in each(object, rule.field, at) {
            let value = spell(words, &item);
            if !name.is_empty() {
                field = join(&field, name);
            }
            if !["null", "\"\""].contains(&&*value) && seen.contains(&value) {
                faults.push(match rule.rule {
                    "unique" => {
                        let shown = if shown.is_empty() { words } else { shown };
                        Invalid::new(field, format!("Duplicate value: {}", spell(shown, &item)))
                    }
                    _ => Invalid::value(field, &value, "must be unique"),
                });
            }
            seen.push(value);
        }
    }
}

/// Words in which `$a/b` and `%a/b` are fields.
fn spell(words: &str, object: &Value) -> String {
    let mut spelled = String::new();
    let mut rest = words;
    while let Some(at) = rest.find(['$', '%']) {
        let is_path = |character: char| character.is_ascii_alphanumeric() || character == '/';
        let (before, path) = (&rest[..at], &rest[at + 1..]);
        let end = path.find(|c| !is_path(c)).unwrap_or(path.len());
        let (path, after) = path.split_at(path[..end].trim_end_matches('/').len());
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
    pub(super) fn check(&self, object: &Value, at: &str, faults: &mut Vec<Invalid>) {
        let words = self.value;
        match self.rule {
            "selects" => return selects(object, self.field, at, faults),
            "single" => {
                let there = self
                    .field
                    .split('+')
                    .filter(|name| !object[*name].is_null());
                let more = there.skip(1);
                return faults.extend(more.map(|name| Invalid::forbidden(join(at, name), words)));
            }
            "size" => return faults.extend(size(object, self.field, words, at)),
            "ordered" => return faults.extend(ordered(object, self.field, words, at)),
            "resources" => return faults.extend(resources(object, at)),
            "twice" => return admission::twice(object, at, faults),
            "default" | "inherit" | "named" | "replace" | "set" | "drop" | "unique" | "alone"
            | "fixed" | "immutable" | "select" => return,
            _ => {}
        }
        let (first, rest) = words.split_once(' ').unwrap_or((words, ""));
        for (field, value) in each(object, self.field, at) {
            let (given, spelled) = (plain(&value), value.to_string());
            let is_there = !given.is_empty();
            let invalid = |why: &str| {
                let why = why.replace("{}", &given);
                format!("Invalid value: {spelled}: {why}")
            };
            let required = || Invalid::required("", words).message;
            let known = each(object, first, "");
            let is_among = || known.iter().any(|(_, known)| *known == value);
            let holds = |name: &str| items(&value).any(|item| item == name);
            let fault = match self.rule {
                "required" => (!is_there).then(required),
                "present" => value.is_null().then(required),
                "missing" => Some(required()),
                "fault" => Some(spell(words, object)),
                "warn" => {
                    let message = spell(words, object).replace("{}", &spelled);
                    faults.push(Invalid {
                        field,
                        reason: WARNING,
                        message,
                    });
                    continue;
                }
                "invalid" => is_there.then(|| invalid(words)),
                "forbidden" => is_there.then(|| format!("Forbidden: {words}")),
                "disjoint" => object[words]
                    .get(&given)
                    .map(|_| invalid(&format!("duplicate of key present in {words}"))),
                "refers" => (is_there && !is_among()).then(|| {
                    let mut known: Vec<_> = known.iter().map(|(_, known)| plain(known)).collect();
                    known.sort();
                    let colon = if rest.is_empty() { "" } else { ": " };
                    let rest = rest.replace("{}", &known.join(", "));
                    format!("Not found: {spelled}{colon}{rest}")
                }),
                "apart" => (is_there && is_among()).then(|| format!("Duplicate value: {spelled}")),
                "equals" => (spell(first, object) != given).then(|| invalid(rest)),
                "enum" => {
                    let known = words.split(' ').map(|name| name.replace('_', " "));
                    let known: Vec<_> = known.map(|name| format!("{name:?}")).collect();
                    let is_known = !is_there || known.contains(&spelled);
                    (!is_known).then(|| Invalid::unsupported("", &spelled, known).message)
                }
                "range" => {
                    let limit = |text: &str| text.parse::<i64>().ok();
                    let is_in = |value: i64| {
                        limit(first).is_none_or(|least| value >= least)
                            && limit(rest).is_none_or(|most| value <= most)
                    };
                    let is_out = value.as_i64().is_some_and(|value| !is_in(value));
                    is_out.then(|| match rest {
                        "" => invalid(&format!("must be greater than or equal to {first}")),
                        most => invalid(&format!("must be between {first} and {most}, inclusive")),
                    })
                }
                "format" | "matches" | "always" => {
                    let is_checked = match self.rule {
                        "format" => value.is_string() && is_there,
                        "matches" => value.is_string(),
                        _ => true,
                    };
                    let spelled = if value.is_null() { "\"\"" } else { &spelled };
                    let why = validation::faults(words, &given).into_iter();
                    let why = why.filter(|_| is_checked);
                    faults.extend(
                        why.map(|why| Invalid::value(&*field, spelled, &why.replace("{}", &given))),
                    );
                    None
                }
                "least" => {
                    let both = quantity::number(&given).zip(quantity::number(first));
                    let is_less = both.is_some_and(|(this, least)| this < least);
                    is_less.then(|| invalid(rest))
                }
                "most" => {
                    let most = get(object, first).as_i64().unwrap_or(0);
                    let is_out = value.as_i64().is_some_and(|this| this < 0 || this > most);
                    is_out.then(|| invalid(&spell(rest, object)))
                }
                "whole" => {
                    let is_whole = quantity::number(&given).is_none_or(|n| n % quantity::NANO == 0);
                    (!is_whole).then(|| invalid("must be an integer"))
                }
                "excludes" => first.split(',').all(holds).then(|| invalid(rest)),
                "only" => {
                    let (format, words) = rest.split_once(' ').unwrap_or_default();
                    let is_of = |name: &String| validation::faults(format, name).is_empty();
                    let all = members(&object["hard"]).all(|(name, _)| is_of(name));
                    (!all && first.split(',').any(holds)).then(|| invalid(words))
                }
                "within" => {
                    let is_within = validation::is_within(&given, text(&object[words]));
                    let why = format!("must be a strict subset of `{words}`");
                    (!is_within).then(|| invalid(&why))
                }
                "json" if value.is_string() => {
                    let bytes = STANDARD.decode(&given).unwrap_or_default();
                    let map = "map[string]interface {}";
                    let read = gojson::read(&bytes);
                    let why = read.map_or_else(Some, |value| gojson::other_type(&value, map));
                    let words = "Invalid value: \"<secret contents redacted>\"";
                    why.map(|why| format!("{words}: {why}"))
                }
                _ => None,
            };
            faults.extend(fault.map(|message| Invalid::new(field, message)));
        }
    }
}

/// Which quantities of a map are more than those of another of the same name. Of the words the first
/// is the other map, the second the one that is blamed, `low` or `high` what is said of it, and the
/// rest between colons is how both are called.
fn ordered(object: &Value, field: &'static str, words: &str, at: &str) -> Vec<Invalid> {
    let mut words = words.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (other, blamed, said, called) = (word(), word(), word(), word());
    let (low_called, high_called) = called.split_once(':').unwrap_or_default();
    let number = |value: &Value| quantity::number(text(value));
    let pairs = members(get(object, field)).map(|(name, low)| (name, low, &object[other][name]));
    let wrong =
        pairs.filter(|(_, low, high)| number(high).is_some_and(|high| number(low) > Some(high)));
    wrong
        .map(|(name, low, high)| {
            let value = if said == "low" { low } else { high };
            let (low, high) = (text(low), text(high));
            let why =
                format!("{low_called} value {low} is greater than {high_called} value {high}");
            Invalid::value(
                join(at, &format!("{blamed}[{name}]")),
                &value.to_string(),
                &why,
            )
        })
        .collect()
}

/// Which requests go beyond their limits, and which resources that are not shared are asked for
/// otherwise than as a whole (`ValidateResourceRequirements`).
fn resources(object: &Value, at: &str) -> Vec<Invalid> {
    let mut faults = Vec::new();
    let number = |value: &Value| quantity::number(text(value));
    let (limits, requests) = (&object["limits"], &object["requests"]);
    let is_extended = |name: &str| name.contains('/') && !name.contains("kubernetes.io/");
    for (field, of) in [("limits", limits), ("requests", requests)] {
        let whole = members(of).filter(|(name, _)| is_extended(name));
        let odd = whole.filter(|(_, value)| number(value).is_some_and(|n| n % quantity::NANO != 0));
        faults.extend(odd.map(|(name, value)| {
            let field = join(at, &format!("{field}[{name}]"));
            Invalid::value(field, &value.to_string(), "must be an integer")
        }));
    }
    for (name, request) in members(requests) {
        let (limit, value) = (&limits[name], request.to_string());
        let is_shared = !is_extended(name) && !name.starts_with("hugepages-");
        let why = match number(limit) {
            None if is_shared => continue,
            None => {
                let why = "Limit must be set for non overcommitable resources";
                faults.push(Invalid::required(join(at, "limits"), why));
                continue;
            }
            Some(limit) if is_shared && number(request) > Some(limit) => "less than or equal to",
            limit if !is_shared && number(request) != limit => "equal to",
            _ => continue,
        };
        let why = format!("must be {why} {name} limit of {}", text(limit));
        faults.push(Invalid::value(join(at, "requests"), &value, &why));
    }
    let has = |front: &str| members(requests).any(|(name, _)| name.starts_with(front));
    if has("hugepages-") && !has("cpu") && !has("memory") {
        faults.push(Invalid::forbidden(at, "HugePages require cpu or memory"));
    }
    faults
}

/// Whether texts and binary data, whose names follow the number, are small enough together. Four
/// characters of base64 are three bytes.
fn size(object: &Value, field: &str, words: &str, at: &str) -> Option<Invalid> {
    let mut words = words.split(' ');
    let most = words.next()?.parse::<usize>().ok()?;
    let mut of = |is_counted: bool| {
        let all = members(&object[words.next().unwrap_or_default()]);
        let sizes = all.map(|(key, value)| text(value).len() + usize::from(is_counted) * key.len());
        sizes.sum::<usize>()
    };
    let all = of(at == "metadata") + of(false) / 4 * 3;
    let message = || format!("Too long: may not be more than {most} bytes");
    (all > most).then(|| Invalid::new(join(at, field), message()))
}

/// Whether a selector is one, and selects what the template is labelled.
fn selects(object: &Value, path: &'static str, at: &str, faults: &mut Vec<Invalid>) {
    let (own, field) = (get(object, path), join(at, path));
    let before = faults.len();
    check(&types::full("meta.LabelSelector"), own, &field, faults);
    if faults.len() > before {
        let why = "invalid label selector";
        faults.push(Invalid::value(field, &own.to_string(), why));
        return;
    }
    let template = &object["template"];
    let selected = selector::labels(&subresources::selector_text(own));
    let is_selected = |labels: &[_]| selector::selects(labels, &[], template);
    if own.is_null() || selected.is_ok_and(|labels| !is_selected(&labels)) {
        let labels = template["metadata"]["labels"].to_string();
        let why = "`selector` does not match template `labels`";
        let field = join(at, "template.metadata.labels");
        faults.push(Invalid::value(field, &labels, why));
    }
}

/// What was changed that cannot be.
pub(super) fn changed(kind: &Kind, before: &Value, after: &Value) -> Vec<Invalid> {
    let rules = ["immutable", "fixed"].into_iter();
    let rules = rules.flat_map(|rule| rules::of_kind(kind, rule));
    let changed = rules.filter(|rule| rule.holds(after)).filter_map(|rule| {
        let is_fixed = rule.rule == "fixed";
        let (but, words) = match is_fixed {
            true => rule.value.split_once(' ')?,
            false => ("", rule.value),
        };
        let part = |object: &Value| {
            let mut part = get(object, rule.field).clone();
            for path in but.split(',').filter(|path| *path != "-") {
                clear(&mut part, &segments(path));
            }
            part
        };
        let (old, new) = (part(before), part(after));
        let fault = || match words.split_once(' ') {
            Some((field, words)) => Invalid::new(field, spell(words, after)),
            None => {
                let field = rule.field.replace('/', ".");
                Invalid::value(field, &new.to_string(), "field is immutable")
            }
        };
        ((is_fixed || !old.is_null()) && old != new).then(fault)
    });
    changed.collect()
}
