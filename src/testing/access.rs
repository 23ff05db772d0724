//! Who may what: in flow a request's headers, out comes its user, and what that may do or the
//! refusal that the API server gives.
//!
//! Rights are those that the test declares, and those of the RBAC objects that the server has
//! (`k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/rbac.go`).

use std::sync::Arc;

use http::{HeaderMap, header::AUTHORIZATION};
use serde_json::{Value, json};

use super::{
    json::{items, text, texts},
    store::{self, Store},
    target::refusal,
};
use crate::{Resource, server::Refusal, wire::status::Status};

pub(super) const ADMIN: &str = "admin";
pub(super) const NOBODY: &str = "nobody";
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";

/// A rule of a user's rights: verbs on resources, in all groups and namespaces unless it says
/// otherwise. `*` stands for all.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kubewire::{Client, testing::{ApiServer, Rule}};
///
/// let server = ApiServer::builder()
///     .pod("default", "web-0", |pod| pod.container("main", ["sleep", "infinity"]))
///     .user("reader", [Rule::new(["get"], ["pods"]).namespace("default")])
///     .start()
///     .await?;
/// let token = server.token_of("reader").expect("it is declared");
/// let pod = Client::new(&server.config_with_token(token))?.pod("default", "web-0");
/// assert_eq!(pod.containers().await?.len(), 1);
/// assert!(pod.exec(["true"]).output().await.unwrap_err().is_forbidden());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Rule {
    verbs: Vec<String>,
    resources: Vec<String>,
    group: String,
    namespace: Option<String>,
    names: Vec<String>,
}

impl Rule {
    /// Allows verbs, such as `get`, on resources, such as `pods` or `pods/exec`.
    ///
    /// exec, attach and port-forward are `create` on `pods/exec`, and so on.
    pub fn new<V, R>(verbs: V, resources: R) -> Self
    where
        V: IntoIterator<Item: Into<String>>,
        R: IntoIterator<Item: Into<String>>,
    {
        Self {
            verbs: verbs.into_iter().map(Into::into).collect(),
            resources: resources.into_iter().map(Into::into).collect(),
            group: "*".to_owned(),
            namespace: None,
            names: Vec::new(),
        }
    }

    /// In this API group only; empty for the core group.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// In this namespace only.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// For the object of this name only, or of several if it is called again.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// As a `PolicyRule`.
    fn to_json(&self) -> Value {
        json!({
            "verbs": self.verbs, "apiGroups": [self.group], "resources": self.resources,
            "resourceNames": self.names,
        })
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

impl User {
    pub(super) fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        Self {
            name: name.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }
}

#[derive(Debug)]
struct Account {
    user: User,
    token: String,
    rules: Vec<Rule>,
}

/// The users and their tokens.
#[derive(Debug)]
pub(super) struct Access {
    accounts: Vec<Account>,
    /// Who a request without a token is.
    anonymous: User,
    roles: Arc<Store>,
}

/// What a request wants to do with which object.
#[derive(Debug, Clone)]
pub(super) struct Action {
    /// Such as `create`.
    pub(super) verb: String,
    /// Empty for the core group.
    pub(super) group: String,
    /// Such as `pods/exec`.
    pub(super) resource: String,
    /// Empty for all.
    pub(super) namespace: String,
    pub(super) name: String,
}

fn rbac(plural: &'static str) -> Resource {
    Resource::namespaced("rbac.authorization.k8s.io", "v1", plural)
}

/// Whether a `PolicyRule` allows it (`RuleAllows`).
fn allows(rule: &Value, action: &Action) -> bool {
    let any = |field: &str, wanted: &str| texts(&rule[field]).any(|v| v == "*" || v == wanted);
    let is_all = |(_, name)| texts(&rule["resources"]).any(|v| v.strip_prefix("*/") == Some(name));
    any("verbs", &action.verb)
        && any("apiGroups", &action.group)
        && (any("resources", &action.resource)
            || action.resource.split_once('/').is_some_and(is_all))
        && (items(&rule["resourceNames"]).len() == 0
            || texts(&rule["resourceNames"]).any(|name| name == action.name))
}

impl Access {
    /// Without TLS the server is what `kubectl proxy` is, and everybody is the admin.
    pub(super) fn new(tls: bool, users: Vec<(String, Vec<Rule>)>, roles: Arc<Store>) -> Self {
        let account = |user, rules| Account {
            user,
            token: format!("{:032x}", rand::random::<u128>()),
            rules,
        };
        let admin = User::new(ADMIN, &[MASTERS, AUTHENTICATED]);
        let mut accounts = vec![
            account(admin.clone(), Vec::new()),
            account(User::new(NOBODY, &[AUTHENTICATED]), Vec::new()),
        ];
        accounts.extend(
            users
                .into_iter()
                .map(|(name, rules)| account(User::new(name, &[AUTHENTICATED]), rules)),
        );
        Self {
            accounts,
            anonymous: match tls {
                true => User::new("system:anonymous", &["system:unauthenticated"]),
                false => admin,
            },
            roles,
        }
    }

    /// A user's token; `None` if there is no such user.
    pub(super) fn token(&self, user: &str) -> Option<&str> {
        let mut accounts = self.accounts.iter();
        let known = accounts.find(|known| known.user.name == user)?;
        Some(&known.token)
    }

    /// Whose token this is.
    pub(super) fn user(&self, token: &str) -> Option<&User> {
        let mut accounts = self.accounts.iter();
        Some(&accounts.find(|known| known.token == token)?.user)
    }

    /// The user of a request.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Result<User, Refusal> {
        // What is no bearer token is nobody's business here.
        let token = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let user = match token {
            None => &self.anonymous,
            Some(token) => self.user(token).ok_or_else(|| {
                Refusal::new(Status::failure(401, "Unauthorized", "Unauthorized"))
            })?,
        };
        self.impersonate(user, headers)
    }

    /// Who it is to be (`k8s.io/apiserver/pkg/endpoints/filters/impersonation.go`).
    fn impersonate(&self, user: &User, headers: &HeaderMap) -> Result<User, Refusal> {
        let values = |name| {
            headers
                .get_all(name)
                .into_iter()
                .filter_map(|v| v.to_str().ok())
        };
        let Some(name) = values("impersonate-user").next() else {
            return Ok(user.clone());
        };
        let wanted = |resource: &str, name: &str| Action {
            verb: "impersonate".to_owned(),
            group: String::new(),
            resource: resource.to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
        };
        self.authorize(user, &wanted("users", name))?;
        let mut other = User::new(name, &[]);
        for group in values("impersonate-group") {
            self.authorize(user, &wanted("groups", group))?;
            other.groups.push(group.to_owned());
        }
        if !other.groups.iter().any(|group| group == AUTHENTICATED) {
            other.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(other)
    }

    /// All rules that a user has in a namespace, or everywhere if that is empty, as `PolicyRule`s.
    pub(super) fn rules(&self, user: &User, namespace: &str) -> Vec<Value> {
        if user.groups.iter().any(|group| group == MASTERS) {
            return vec![json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})];
        }
        let declared = self
            .accounts
            .iter()
            .filter(|known| known.user.name == user.name);
        let declared = declared
            .flat_map(|known| &known.rules)
            .filter(|rule| rule.namespace.as_ref().is_none_or(|only| only == namespace));
        let mut rules: Vec<_> = declared.map(Rule::to_json).collect();
        if user.groups.iter().any(|group| group == AUTHENTICATED) {
            // The ClusterRole `system:basic-user`.
            rules.push(json!({
                "verbs": ["create"],
                "apiGroups": ["authentication.k8s.io", "authorization.k8s.io"],
                "resources": [
                    "selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews",
                ],
            }));
        }
        let mut bound = |bindings: &'static str, namespace: Option<&str>| {
            for (_, binding) in self.roles.now(&rbac(bindings), namespace) {
                if !items(&binding.json["subjects"]).any(|subject| is_subject(user, subject)) {
                    continue;
                }
                let role = &binding.json["roleRef"];
                let (plural, of) = match text(&role["kind"]) {
                    "Role" => ("roles", namespace.unwrap_or_default()),
                    _ => ("clusterroles", ""),
                };
                let role = self
                    .roles
                    .get(&store::key(&rbac(plural), of, text(&role["name"])));
                rules.extend(
                    role.iter()
                        .flat_map(|role| items(&role.json["rules"]))
                        .cloned(),
                );
            }
        };
        bound("clusterrolebindings", None);
        if !namespace.is_empty() {
            bound("rolebindings", Some(namespace));
        }
        rules
    }

    pub(super) fn is_allowed(&self, user: &User, action: &Action) -> bool {
        let rules = self.rules(user, &action.namespace);
        rules.iter().any(|rule| allows(rule, action))
    }

    /// Refuses what the user may not do, in the words of
    /// `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go` (`forbiddenMessage`).
    pub(super) fn authorize(&self, user: &User, action: &Action) -> Result<(), Refusal> {
        if self.is_allowed(user, action) {
            return Ok(());
        }
        let user = &user.name;
        let Action {
            verb,
            group,
            resource,
            namespace,
            name,
        } = action;
        let kind = resource.split('/').next().unwrap_or_default();
        let of = if name.is_empty() {
            String::new()
        } else {
            format!(" {name:?}")
        };
        let scope = match &**namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let qualified = Resource::cluster(group.clone(), "", kind.to_owned());
        let message = format!(
            "{qualified}{of} is forbidden: User {user:?} cannot {verb} resource {resource:?} in \
             API group {group:?} {scope}"
        );
        Err(refusal(
            (403, "Forbidden"),
            message,
            [group, kind, name],
            [],
        ))
    }
}

/// Whether a binding's subject is this user (`appliesToUser`).
fn is_subject(user: &User, subject: &Value) -> bool {
    let name = text(&subject["name"]);
    match text(&subject["kind"]) {
        "User" => user.name == name,
        "Group" => user.groups.iter().any(|group| group == name),
        "ServiceAccount" => {
            let namespace = text(&subject["namespace"]);
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}
