//! `kubewire auth can-i --list`: in flow the rules that the server knows of this user, out comes a
//! row for each resource or path, as kubectl has it.

use std::collections::BTreeMap;

use kubewire::Client;
use serde_json::{Value, json};

use crate::{
    failure::Failure,
    printable::Printable,
    review::{self, list, texts},
    table,
};

/// What something may be done with.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Path(String),
    Resource {
        group: String,
        resource: String,
        name: Option<String>,
    },
}

/// Each thing of a rule with each of its verbs: those of a resource are taken together
/// (`k8s.io/kubectl/pkg/util/rbac/rbac.go`, `BreakdownRule`, `CompactRules`).
fn compact<'a>(rules: impl Iterator<Item = &'a Value>) -> Vec<(Thing, Vec<String>)> {
    let mut resources = BTreeMap::<Thing, Vec<String>>::new();
    let mut all = Vec::new();
    for rule in rules {
        let verbs: Vec<_> = texts(&rule["verbs"]).collect();
        for path in texts(&rule["nonResourceURLs"]) {
            let each = verbs.iter().map(|verb| vec![verb.clone()]);
            all.extend(each.map(|verb| (Thing::Path(path.clone()), verb)));
        }
        let mut names: Vec<_> = texts(&rule["resourceNames"]).map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for name in names.iter().cloned() {
                    let thing = Thing::Resource {
                        group: group.clone(),
                        resource: resource.clone(),
                        name,
                    };
                    let known = resources.entry(thing).or_default();
                    for verb in &verbs {
                        if !known.contains(verb) {
                            known.push(verb.clone());
                        }
                    }
                }
            }
        }
    }
    all.extend(resources);
    // As Go prints rules.
    all.sort_by_cached_key(|(thing, verbs)| {
        let (group, resource, name, path) = match thing {
            Thing::Path(path) => (None, None, None, Some(path)),
            Thing::Resource {
                group,
                resource,
                name,
            } => (Some(group), Some(resource), name.as_ref(), None),
        };
        format!(
            "{},APIGroups:{},Resources:{},ResourceNames:{},NonResourceURLs:{},",
            list(verbs),
            list(group),
            list(resource),
            list(name),
            list(path)
        )
    });
    all
}

fn row((thing, verbs): (Thing, Vec<String>)) -> Vec<Printable> {
    let (what, path, name) = match thing {
        Thing::Path(path) => (String::new(), Some(path), None),
        Thing::Resource {
            group,
            resource,
            name,
        } => {
            let (resource, subresource) = match resource.split_once('/') {
                Some((resource, subresource)) => (resource, format!("/{subresource}")),
                None => (&*resource, String::new()),
            };
            let dot = if group.is_empty() { "" } else { "." };
            (format!("{resource}{dot}{group}{subresource}"), None, name)
        }
    };
    [what, list(&path), list(&name), list(&verbs)]
        .iter()
        .map(|cell| Printable::cell(cell))
        .collect()
}

pub(crate) async fn list_all(client: Client, headings: bool) -> Result<u8, Failure> {
    let review = json!({"spec": {"namespace": client.namespace()}});
    let (group, kind) = ("authorization.k8s.io", "SelfSubjectRulesReview");
    let review = review::ask(&client, group, kind, review).await?;
    let status = &review["status"];
    let (Some(resources), Some(paths)) = (
        status["resourceRules"].as_array(),
        status["nonResourceRules"].as_array(),
    ) else {
        bail!("the server's answer does not say what is allowed");
    };
    if status["incomplete"] == true {
        let why = status["evaluationError"].as_str().unwrap_or_default();
        note!("Warning: the list may be incomplete: {why}");
    }
    let rules = compact(resources.iter().chain(paths)).into_iter().map(row);
    let names = ["Resources", "Non-Resource URLs", "Resource Names", "Verbs"];
    let heading = headings.then(|| names.into_iter().map(Printable::cell).collect());
    let rows: Vec<_> = heading.into_iter().chain(rules).collect();
    table::print(&rows)?;
    Ok(0)
}
