//! Whether texts and metadata may be written: in flow texts, and objects before and after, out come
//! the API server's words for what is wrong (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use std::{
    net::IpAddr,
    sync::{LazyLock, OnceLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use regex::Regex;
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde_json::Value;

use super::cron;
use crate::testing::{
    checks,
    kinds::Kind,
    requests::target::{Invalid, Target},
    values::json::{items, set, some, text, texts},
};

/// A line of the table of formats.
struct Test {
    format: &'static str,
    test: &'static str,
    words: &'static str,
    regex: OnceLock<Option<Regex>>,
}

static FORMATS: LazyLock<Vec<Test>> = LazyLock::new(|| {
    let lines = include_str!("formats.txt").lines();
    let test = |line: &'static str| {
        let (format, rest) = line.split_once(' ')?;
        let (test, words) = rest.split_once(' ')?;
        let regex = OnceLock::new();
        (format != "#").then_some(Test {
            format,
            test,
            words,
            regex,
        })
    };
    lines.filter_map(test).collect()
});

impl Test {
    fn passes(&self, text: &str) -> bool {
        if let Some(most) = self.test.strip_prefix("<=") {
            return most.parse().is_ok_and(|most: usize| text.len() <= most);
        }
        let (pattern, wanted) = match self.test.strip_prefix('!') {
            Some(pattern) => (pattern, false),
            None => (self.test, true),
        };
        let regex = self.regex.get_or_init(|| Regex::new(pattern).ok());
        regex
            .as_ref()
            .is_none_or(|regex| regex.is_match(text) == wanted)
    }
}

/// What is wrong with a text that is to have this format.
pub(crate) fn faults(format: &str, text: &str) -> Vec<String> {
    let unless = |is_right: bool, words: &str| match is_right {
        true => Vec::new(),
        false => vec![words.to_owned()],
    };
    match format {
        "regex" => {
            let why = |error| format!("must be a valid regular expression, but isn't: {error}");
            Regex::new(text).err().map(why).into_iter().collect()
        }
        "schedule" => cron::fault(text).into_iter().collect(),
        "clusterip" if text == "None" => Vec::new(),
        "ip" | "clusterip" => unless(
            text.parse::<IpAddr>().is_ok(),
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        "ipv4" => unless(text.parse::<std::net::Ipv4Addr>().is_ok(), ""),
        "ipv6" => unless(text.parse::<std::net::Ipv6Addr>().is_ok(), ""),
        "csr" | "certificates" => {
            let bytes = STANDARD.decode(text).unwrap_or_default();
            let found = <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes);
            let kinds: Vec<_> = found.flatten().map(|(kind, _)| kind).collect();
            let (wanted, words) = match format {
                "csr" => (
                    SectionKind::Csr,
                    "PEM block type must be CERTIFICATE REQUEST",
                ),
                _ => (SectionKind::Certificate, ""),
            };
            let is_all = kinds.iter().all(|kind| *kind == wanted);
            unless(is_all && !kinds.is_empty(), words)
        }
        "paddedcidr" => faults("cidr", text.trim()),
        "cidr" => unless(
            cidr(text).is_some(),
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ),
        _ => {
            let tests = FORMATS.iter().filter(|test| test.format == format);
            let failed = tests.flat_map(|test| match test.test.strip_prefix('=') {
                Some(other) => faults(other, text),
                None => unless(test.passes(text), test.words),
            });
            failed.collect()
        }
    }
}

/// A network: its address as a number, the bits of such an address, and those that count.
fn cidr(text: &str) -> Option<(u128, u32, u32)> {
    let (ip, counted) = text.split_once('/')?;
    let (number, bits) = match ip.parse().ok()? {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let counted = counted.parse().ok()?;
    (counted <= bits).then_some((number, bits, counted))
}

/// Whether a network is a part of another, and not all of it; what is no network is.
pub(super) fn is_within(part: &str, whole: &str) -> bool {
    let Some(((part, bits, more), (whole, of, counted))) = cidr(part).zip(cidr(whole)) else {
        return true;
    };
    let front = |number: u128| number.checked_shr(bits - counted).unwrap_or(0);
    bits == of && more > counted && front(part) == front(whole)
}

/// What is wrong with an object's name, given or generated; the rest of its metadata is in the table
/// of rules.
pub(crate) fn names(kind: &Kind, object: &Value) -> Vec<Invalid> {
    let metadata = &object["metadata"];
    let of = |field: &str, text: &str, name: &str| -> Vec<_> {
        let why = faults(kind.name_format(), name).into_iter();
        let spelled = format!("{text:?}");
        why.map(|why| Invalid::value(field, &spelled, &why))
            .collect()
    };
    // What is generated may follow a dash, which hides what is before it (`maskTrailingDash`).
    let mut found = match text(&metadata["generateName"]) {
        "" => Vec::new(),
        front => {
            let mut name = front.to_owned();
            if let Some(masked) = front.strip_suffix('-').filter(|rest| !rest.is_empty()) {
                name = masked.to_owned();
                name.pop();
                name.push('a');
            }
            of("metadata.generateName", front, &name)
        }
    };
    let (field, why) = ("metadata.name", "name or generateName is required");
    found.extend(match text(&metadata["name"]) {
        "" => vec![Invalid::required(field, why)],
        name => of(field, name, name),
    });
    found
}

/// Keeps the server's part of the metadata, and says what was wrong with the attempt to change it.
pub(crate) fn keep_metadata(before: &Value, after: &mut Value) -> Vec<Invalid> {
    let mut faults = Vec::new();
    let (old, new) = (&before["metadata"], &mut after["metadata"]);
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let value = &new[field];
        if !value.is_null() && *value != old[field] {
            let path = format!("metadata.{field}");
            faults.push(Invalid::value(
                path,
                &value.to_string(),
                "field is immutable",
            ));
        }
    }
    let known: Vec<_> = texts(&old["finalizers"]).collect();
    let added = texts(&new["finalizers"]).filter(|name| !known.contains(name));
    let added: Vec<_> = added.map(|name| format!("{name:?}")).collect();
    if !old["deletionTimestamp"].is_null() && !added.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers \
             []string{{{}}}",
            added.join(", ")
        );
        faults.push(Invalid::forbidden("metadata.finalizers", &why));
    }
    let kept = "uid creationTimestamp deletionTimestamp deletionGracePeriodSeconds resourceVersion \
                generation";
    for field in kept.split(' ') {
        set(new, field, &old[field]);
    }
    // Who knows better who owns what may say so (`DecodeManagedFields`).
    let is_known = |entry: &Value| {
        ["Apply", "Update"].contains(&text(&entry["operation"]))
            && some(&entry["apiVersion"]).is_some()
            && entry["fieldsType"] == "FieldsV1"
    };
    let entries = items(&new["managedFields"]);
    if entries.len() == 0 || !entries.clone().all(is_known) {
        set(new, "managedFields", &old["managedFields"]);
    }
    faults
}

/// What is wrong with the metadata of an update: what was changed that cannot be, and what is wrong
/// however it came to be, as `rest.BeforeUpdate` says it and then, again, the kind's own strategy.
pub(crate) fn metadata(target: &Target, mut kept: Vec<Invalid>, whole: &[Invalid]) -> Vec<Invalid> {
    let is_of = |fault: &Invalid, field: &str| {
        let name = fault.field.strip_prefix("metadata.");
        name.is_some_and(|name| name.starts_with(field))
    };
    let of_both = ["labels", "annotations", "ownerReferences", "finalizers["];
    let checked = whole
        .iter()
        .filter(|fault| of_both.iter().any(|field| is_of(fault, field)));
    kept.extend(checked.cloned());
    let first = whole
        .iter()
        .chain(&kept)
        .filter(|fault| !is_of(fault, "finalizers["));
    let again = match target.subresource {
        None => target.kind.checked_again(),
        Some(_) => "U",
    };
    let again = again
        .chars()
        .flat_map(|how| if how == 'U' { &kept } else { whole });
    first.chain(again).cloned().collect()
}

pub(crate) fn immutable(kind: &Kind, before: &Value, after: &Value) -> Vec<Invalid> {
    let mut faults = checks::changed(kind, before, after);
    if kind.custom.is_none() && before["immutable"] == true {
        for field in ["data", "binaryData", "stringData", "immutable"] {
            if before[field] != after[field] {
                let why = "field is immutable when `immutable` is set";
                faults.push(Invalid::forbidden(field, why));
            }
        }
    }
    let gates = |pod: &Value| -> Vec<_> {
        let gates = items(&pod["spec"]["schedulingGates"]);
        gates.map(|gate| text(&gate["name"]).to_owned()).collect()
    };
    let known = gates(before);
    if let (true, Some(new)) = (
        kind.is_core("pods"),
        gates(after).into_iter().find(|gate| !known.contains(gate)),
    ) {
        let why = format!("only deletion is allowed, but found new scheduling gate '{new}'");
        faults.push(Invalid::forbidden("spec.schedulingGates", &why));
    }
    let count = |pod: &Value, list: &str| items(&pod["spec"][list]).len();
    let lists = ["containers", "initContainers"].into_iter();
    let mut lists = lists.filter(|list| count(before, list) != count(after, list));
    let why = "pod updates may not add or remove containers";
    let other = lists
        .next()
        .map(|list| Invalid::forbidden(format!("spec.{list}"), why));
    let other = other.or_else(|| deadline(before, after));
    if let Some(fault) = other.filter(|_| kind.is_core("pods")) {
        faults.retain(|fault| fault.field != "spec");
        faults.push(fault);
    }
    faults
}

/// Which ephemeral containers have gone or changed, which stay as they are.
pub(crate) fn ephemeral(before: &Value, after: &Value) -> Vec<Invalid> {
    let fault = |old: &Value| {
        let how = match items(&after["spec"]["ephemeralContainers"])
            .find(|new| new["name"] == old["name"])
        {
            None => "removed",
            Some(new) if new != old => "changed",
            Some(_) => return None,
        };
        let why = format!(
            "existing ephemeral containers {} may not be {how}\n",
            old["name"]
        );
        Some(Invalid::forbidden("spec.ephemeralContainers", &why))
    };
    items(&before["spec"]["ephemeralContainers"])
        .filter_map(fault)
        .collect()
}

/// What is wrong with another deadline of a pod, which may come and get shorter.
fn deadline(before: &Value, after: &Value) -> Option<Invalid> {
    let of = |pod: &Value| pod["spec"]["activeDeadlineSeconds"].as_i64();
    let (old, new) = (of(before), of(after));
    let why = match (old?, new) {
        (_, None) => "must not update from a positive integer to nil value",
        (_, Some(new)) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            "must be between 0 and 2147483647, inclusive"
        }
        (old, Some(new)) if old < new => "must be less than or equal to previous value",
        _ => return None,
    };
    let spelled = new.map_or("null".to_owned(), |new| new.to_string());
    Some(Invalid::value("spec.activeDeadlineSeconds", &spelled, why))
}

#[cfg(test)]
pub(crate) fn is_format(name: &str) -> bool {
    let coded = "regex schedule certificates clusterip csr ip ipv4 ipv6 cidr paddedcidr";
    coded.split(' ').any(|known| known == name) || FORMATS.iter().any(|test| test.format == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_the_api_server_does() {
        for (format, name, is_valid) in [
            ("subdomain", "web-0.example", true),
            ("subdomain", "Web", false),
            ("subdomain", "a_b", false),
            ("subdomain", "a..b", false),
            ("subdomain", "-a", false),
            ("label", "a.b", false),
            ("label", "a-b", true),
            ("path", "system:node", true),
            ("path", "a/b", false),
            ("path", "..", false),
            ("labelkey", "app.kubernetes.io/name", true),
            ("labelkey", "a/b/c", false),
            ("labelkey", "/b", false),
            ("labelvalue", "", true),
            ("labelvalue", "a b", false),
            ("portname", "http", true),
            ("portname", "8080", false),
            ("cidr", "10.0.0.0/8", true),
            ("cidr", "10.0.0.0/33", false),
        ] {
            assert_eq!(faults(format, name).is_empty(), is_valid, "{name}");
        }
        assert_eq!(faults("label", &"a".repeat(64)).len(), 1);
        for test in FORMATS.iter() {
            match test.test.strip_prefix('=') {
                Some(other) => assert!(is_format(other), "{other}"),
                None => assert!(test.passes("a") || test.regex.get().is_none_or(Option::is_some)),
            }
        }
    }
}
