//! What roles allow: in flow users and what they want to do, out comes why they may, or a refusal; and
//! the roles that a test declares
//! (`k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/rbac.go`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Access, Action, GROUP, MASTERS, Rule, User};
use crate::{
    Resource,
    server::Refusal,
    testing::{
        objects::store,
        requests::target::{forbidden, missing},
        values::json::{items, set, text, texts},
    },
};

/// Of what plural an object of RBAC is, and the object.
type Given = (&'static str, Value);

/// What gives a user the rights that a test declares: a role and its binding, and one of each for
/// every namespace.
pub(crate) fn declared(user: &str, rules: &[Rule]) -> Vec<Given> {
    let mut by_namespace: BTreeMap<Option<&str>, Vec<Value>> = BTreeMap::new();
    for rule in rules {
        let of = by_namespace.entry(rule.namespace.as_deref()).or_default();
        of.push(rule.to_json());
    }
    let name = format!("testing:{user}");
    let given = by_namespace.into_iter().flat_map(|(namespace, rules)| {
        let (kind, plural, bindings) = match namespace {
            Some(_) => ("Role", "roles", "rolebindings"),
            None => ("ClusterRole", "clusterroles", "clusterrolebindings"),
        };
        let mut metadata = json!({"name": name});
        set(&mut metadata, "namespace", &json!(namespace));
        let role = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata,
            "rules": rules,
        });
        let binding = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": format!("{kind}Binding"),
            "metadata": metadata,
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name},
            "subjects": [{"kind": "User", "apiGroup": GROUP, "name": user}],
        });
        [(plural, role), (bindings, binding)]
    });
    given.collect()
}

fn rbac(plural: &'static str) -> Resource {
    Resource::namespaced(GROUP, "v1", plural)
}

/// Whether a `PolicyRule` allows it (`RuleAllows`).
fn allows(rule: &Value, action: &Action) -> bool {
    let any = |field: &str, wanted: &str| texts(&rule[field]).any(|v| v == "*" || v == wanted);
    let is_all = |(_, name)| texts(&rule["resources"]).any(|v| v.strip_prefix("*/") == Some(name));
    let is_path = |known: &str| match known.strip_suffix('*') {
        Some(front) => action.path.starts_with(front),
        None => known == action.path,
    };
    let is_it = match action.path.is_empty() {
        false => texts(&rule["nonResourceURLs"]).any(is_path),
        true => {
            any("apiGroups", &action.group)
                && (any("resources", &action.resource)
                    || action.resource.split_once('/').is_some_and(is_all))
                && (items(&rule["resourceNames"]).len() == 0
                    || texts(&rule["resourceNames"]).any(|name| name == action.name))
        }
    };
    is_it && any("verbs", &action.verb)
}

/// The parts of a rule, each of one verb on one thing, by how messages call the thing
/// (`BreakdownRule`, `CompactString`).
fn parts(rule: &Value) -> Vec<(String, Action)> {
    let some = |field: &str| texts(&rule[field]).collect::<Vec<_>>();
    let (verbs, mut parts) = (some("verbs"), Vec::new());
    for (group, resource) in some("apiGroups").into_iter().flat_map(|group| {
        let resources = some("resources").into_iter();
        resources.map(move |resource| (group, resource))
    }) {
        let called = format!("APIGroups:[{group:?}], Resources:[{resource:?}]");
        let names = some("resourceNames");
        let named = names
            .iter()
            .map(|name| (format!(", ResourceNames:[{name:?}]"), *name));
        let all = names.is_empty().then(|| (String::new(), ""));
        for (of, name) in named.chain(all) {
            let action = |verb: &&str| Action::new(verb, [group, resource, "", name]);
            parts.extend(
                verbs
                    .iter()
                    .map(|verb| (called.clone() + &of, action(verb))),
            );
        }
    }
    for path in some("nonResourceURLs") {
        let called = format!("NonResourceURLs:[{path:?}]");
        parts.extend(
            verbs
                .iter()
                .map(|verb| (called.clone(), Action::at(verb, path))),
        );
    }
    parts
}

impl Access {
    /// All rules that a user has in a namespace, or everywhere if that is empty, as `PolicyRule`s.
    pub(super) fn rules(&self, user: &User, namespace: &str) -> Vec<Value> {
        self.bound(user, namespace)
            .into_iter()
            .map(|(rule, _)| rule)
            .collect()
    }

    /// Likewise, each with the words of why.
    fn bound(&self, user: &User, namespace: &str) -> Vec<(Value, String)> {
        let mut rules = Vec::new();
        let mut bound = |kind: &str, plural: &'static str, of: Option<&str>| {
            for (key, binding) in self.roles.now(&rbac(plural), of) {
                let mut subjects = items(&binding.json["subjects"]);
                let Some(subject) = subjects.find(|subject| is_subject(user, subject)) else {
                    continue;
                };
                let spelled = |namespace: &str, name: &str| match namespace {
                    "" => name.to_owned(),
                    namespace => format!("{name}/{namespace}"),
                };
                let role = &binding.json["roleRef"];
                let why = format!(
                    "RBAC: allowed by {kind} {:?} of {} {:?} to {} {:?}",
                    spelled(&key.2, &key.3),
                    text(&role["kind"]),
                    text(&role["name"]),
                    text(&subject["kind"]),
                    spelled(text(&subject["namespace"]), text(&subject["name"])),
                );
                let found = self.of_role(role, namespace).unwrap_or_default();
                rules.extend(found.into_iter().map(|rule| (rule, why.clone())));
            }
        };
        bound("ClusterRoleBinding", "clusterrolebindings", None);
        if !namespace.is_empty() {
            bound("RoleBinding", "rolebindings", Some(namespace));
        }
        rules
    }

    /// The rules of a role; `None` if there is none.
    fn of_role(&self, role: &Value, namespace: &str) -> Option<Vec<Value>> {
        let (plural, of) = match text(&role["kind"]) {
            "Role" => ("roles", namespace),
            _ => ("clusterroles", ""),
        };
        let role = self
            .roles
            .get(&store::key(&rbac(plural), of, text(&role["name"])))?;
        Some(items(&role.json["rules"]).cloned().collect())
    }

    /// Why a user may do it, which may be without words; `None` if not.
    pub(crate) fn why(&self, user: &User, action: &Action) -> Option<String> {
        if user.is_in(MASTERS) {
            return Some(String::new());
        }
        let mut rules = self.bound(user, &action.namespace).into_iter();
        Some(rules.find(|(rule, _)| allows(rule, action))?.1)
    }

    pub(super) fn authorize(&self, user: &User, action: &Action) -> Result<(), Refusal> {
        let why = self.why(user, action);
        why.map(drop).ok_or_else(|| action.refuse(user))
    }

    /// Refuses roles, and bindings to roles, that have rights which the user has not
    /// (`k8s.io/kubernetes/pkg/registry/rbac/validation/rule.go`, `ConfirmNoEscalation`).
    pub(crate) fn check_escalation(
        &self,
        user: &User,
        resource: &Resource,
        before: Option<&Value>,
        object: &Value,
    ) -> Result<(), Refusal> {
        let is_same = |field: &str| before.is_some_and(|before| before[field] == object[field]);
        let metadata = &object["metadata"];
        let (name, namespace) = (text(&metadata["name"]), text(&metadata["namespace"]));
        let may = |verb: &str, plural: &str, name: &str| {
            let action = Action::new(verb, [GROUP, plural, namespace, name]);
            self.why(user, &action).is_some()
        };
        let rules = match &*resource.plural {
            _ if resource.group != GROUP => return Ok(()),
            "roles" | "clusterroles" if is_same("rules") => return Ok(()),
            plural @ ("roles" | "clusterroles") if may("escalate", plural, name) => return Ok(()),
            "roles" | "clusterroles" => items(&object["rules"]).cloned().collect(),
            _ if is_same("roleRef") && is_same("subjects") => return Ok(()),
            _ => {
                let role = &object["roleRef"];
                let plural = format!("{}s", text(&role["kind"]).to_lowercase());
                if may("bind", &plural, text(&role["name"])) {
                    return Ok(());
                }
                let found = self.of_role(role, namespace);
                found.ok_or_else(|| missing(resource, text(&role["name"])))?
            }
        };
        let own = self.rules(user, namespace);
        let lacks = |part: &(String, Action)| !own.iter().any(|rule| allows(rule, &part.1));
        let mut lacking: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (called, Action { verb, .. }) in rules.iter().flat_map(parts).filter(lacks) {
            lacking.entry(called).or_default().push(format!("{verb:?}"));
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let lines = lacking.iter();
        let lines =
            lines.map(|(called, verbs)| format!("\n{{{called}, Verbs:[{}]}}", verbs.join(" ")));
        let why = format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:{}",
            user.name,
            user.groups,
            lines.collect::<String>()
        );
        Err(forbidden(resource, name, &why))
    }
}

/// Whether a binding's subject is this user (`appliesToUser`).
fn is_subject(user: &User, subject: &Value) -> bool {
    let name = text(&subject["name"]);
    match text(&subject["kind"]) {
        "User" => user.name == name,
        "Group" => user.is_in(name),
        "ServiceAccount" => {
            let namespace = text(&subject["namespace"]);
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}
