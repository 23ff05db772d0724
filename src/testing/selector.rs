//! Selectors: in flows the text of a label or field selector, out come requirements that an
//! object's labels or fields meet or do not.

use crate::server::Refusal;

/// One part of a selector.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Requirement {
    Is(String, String),
    IsNot(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Requirement {
    pub(super) fn matches(&self, get: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Self::Is(key, value) => get(key).as_ref() == Some(value),
            Self::IsNot(key, value) => get(key).as_ref() != Some(value),
            Self::In(key, values) => get(key).is_some_and(|value| values.contains(&value)),
            Self::NotIn(key, values) => !get(key).is_some_and(|value| values.contains(&value)),
            Self::Exists(key) => get(key).is_some(),
            Self::Missing(key) => get(key).is_none(),
        }
    }
}

/// Reads a selector (`k8s.io/apimachinery/pkg/labels/selector.go`, without `>` and `<`).
pub(super) fn selector(text: &str) -> Result<Vec<Requirement>, Refusal> {
    let bad = || Refusal::bad_request(format!("unable to parse requirement: {text:?}"));
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    let parts = parts
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let set = |values: &str| -> Result<Vec<String>, Refusal> {
        let inside = values
            .trim()
            .strip_prefix('(')
            .and_then(|v| v.strip_suffix(')'));
        let values = inside.ok_or_else(bad)?.split(',');
        Ok(values.map(|value| value.trim().to_owned()).collect())
    };
    parts
        .map(|part| {
            let pair =
                |(key, value): (&str, &str)| (key.trim().to_owned(), value.trim().to_owned());
            Ok(if let Some(split) = part.split_once("!=") {
                let (key, value) = pair(split);
                Requirement::IsNot(key, value)
            } else if let Some(split) = part.split_once("==").or_else(|| part.split_once('=')) {
                let (key, value) = pair(split);
                Requirement::Is(key, value)
            } else if let Some((key, values)) = part.split_once(" notin ") {
                Requirement::NotIn(key.trim().to_owned(), set(values)?)
            } else if let Some((key, values)) = part.split_once(" in ") {
                Requirement::In(key.trim().to_owned(), set(values)?)
            } else if let Some(key) = part.strip_prefix('!') {
                Requirement::Missing(key.trim().to_owned())
            } else {
                Requirement::Exists(part.to_owned())
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_those_of_labels() {
        let labels = [("app", "web"), ("tier", "front")];
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
        ] {
            let all = selector(text).unwrap();
            assert_eq!(all.iter().all(|r| r.matches(get)), expected, "{text}");
        }
        assert!(selector("app in web").is_err());
    }
}
