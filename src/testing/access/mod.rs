//! Who may what: in flow a request's headers, out comes its user, and what that may do or the
//! refusal that the API server gives.
//!
//! Rights are those of the RBAC objects that the server has
//! (`k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/rbac.go`), of which every cluster has some;
//! what the test declares becomes others.

pub(super) mod reviews;
pub(super) mod roles;
pub(super) mod tokens;

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, header::AUTHORIZATION};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use self::tokens::Tokens;
use crate::{
    Resource,
    server::Refusal,
    testing::{objects::store::Store, requests::target::refusal, values::json::texts},
    wire::status::Status,
};

pub(super) const ADMIN: &str = "admin";
pub(super) const NOBODY: &str = "nobody";
pub(super) const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const ANONYMOUS: &str = "system:anonymous";
pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

/// A rule of a user's rights: verbs on resources, in all groups and namespaces unless it says
/// otherwise. `*` stands for all.
/// See [`ApiServerBuilder`](crate::testing::ApiServerBuilder) for an example.
#[derive(Debug, Clone)]
#[must_use]
pub struct Rule {
    verbs: Vec<String>,
    resources: Vec<String>,
    group: String,
    pub(super) namespace: Option<String>,
    names: Vec<String>,
}

impl Rule {
    /// Allows verbs, such as `get`, on resources, such as `pods` or `pods/exec`.
    ///
    /// exec, attach and port-forward need `get` and `create` on `pods/exec`, and so on.
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

    setters! {
        /// In this API group only; empty for the core group.
        fn group(group: impl Into<String>) group = group.into();

        /// In this namespace only.
        fn namespace(namespace: impl Into<String>) namespace = Some(namespace.into());

        /// For the object of this name only, or of several if it is called again.
        fn name(name: impl Into<String>) names.push(name.into());
    }

    /// As a `PolicyRule`.
    pub(super) fn to_json(&self) -> Value {
        let mut rule = json!({
            "verbs": self.verbs, "apiGroups": [self.group], "resources": self.resources,
        });
        if !self.names.is_empty() {
            rule["resourceNames"] = self.names.clone().into();
        }
        rule
    }
}

#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
    /// As `UserInfo` has them, for those who are impersonated.
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub(super) fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        Self {
            name: name.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            uid: String::new(),
            extra: BTreeMap::new(),
        }
    }

    pub(super) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|known| known == group)
    }

    /// A service account, by one of its tokens.
    pub(super) fn account(namespace: &str, name: &Value, uid: &Value, token: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let [all, own] = accounts_of(namespace);
        let mut user = Self::new(
            format!("system:serviceaccount:{namespace}:{}", text(name)),
            &[&all, &own, AUTHENTICATED],
        );
        let token = vec![format!("JTI={}", text(token))];
        user.uid = text(uid);
        user.extra.insert(
            "authentication.kubernetes.io/credential-id".to_owned(),
            token,
        );
        user
    }

    /// As a `UserInfo`.
    pub(super) fn info(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.clone().into();
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }
}

/// The groups of a service account.
fn accounts_of(namespace: &str) -> [String; 2] {
    let all = "system:serviceaccounts";
    [all.to_owned(), format!("{all}:{namespace}")]
}

#[derive(Debug)]
pub(super) struct Access {
    /// By their tokens.
    accounts: Vec<(String, User)>,
    /// Who a request without a token is.
    anonymous: User,
    pub(super) issued: Tokens,
    pub(super) roles: Arc<Store>,
}

/// What a request wants to do with which object, or with which path that is no resource's.
#[derive(Debug, Clone, Default)]
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
    /// Empty for resources.
    pub(super) path: String,
}

impl Action {
    /// A verb on an object.
    pub(super) fn new(verb: &str, [group, resource, namespace, name]: [&str; 4]) -> Self {
        Self {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            path: String::new(),
        }
    }

    /// A verb on a path that is no resource's.
    pub(super) fn at(verb: &str, path: &str) -> Self {
        let path = path.to_owned();
        Self {
            path,
            ..Self::new(verb, [""; 4])
        }
    }

    /// In the words of `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`
    /// (`forbiddenMessage`).
    pub(super) fn refuse(&self, user: &User) -> Refusal {
        let (user, Self { verb, group, .. }) = (&user.name, self);
        let (resource, name, path) = (&self.resource, &self.name, &self.path);
        let kind = resource.split('/').next().unwrap_or_default();
        let of = match &**name {
            "" => String::new(),
            name => format!(" {name:?}"),
        };
        let scope = match &*self.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let qualified = Resource::cluster(group.clone(), "", kind.to_owned());
        let message = match path.is_empty() {
            true => format!(
                "{qualified}{of} is forbidden: User {user:?} cannot {verb} resource {resource:?} \
                 in API group {group:?} {scope}"
            ),
            false => format!("forbidden: User {user:?} cannot {verb} path {path:?}"),
        };
        refusal((403, "Forbidden"), message, [group, kind, name], [])
    }
}

impl Access {
    /// Without TLS the server is what `kubectl proxy` is, and everybody is the admin.
    pub(super) fn new<'a>(
        tls: bool,
        users: impl Iterator<Item = &'a str>,
        roles: Arc<Store>,
    ) -> Self {
        let account = |user| (format!("{:032x}", rand::random::<u128>()), user);
        let admin = User::new(ADMIN, &[MASTERS, AUTHENTICATED]);
        let others = [NOBODY].into_iter().chain(users);
        let others = others.map(|name| account(User::new(name, &[AUTHENTICATED])));
        Self {
            accounts: [account(admin.clone())].into_iter().chain(others).collect(),
            anonymous: match tls {
                true => User::new(ANONYMOUS, &[UNAUTHENTICATED]),
                false => admin,
            },
            issued: Tokens::default(),
            roles,
        }
    }

    pub(super) fn token(&self, user: &str) -> Option<&str> {
        let mut accounts = self.accounts.iter();
        let (token, _) = accounts.find(|(_, known)| known.name == user)?;
        Some(token)
    }

    pub(super) fn user(&self, token: &str) -> Option<User> {
        let mut accounts = self.accounts.iter();
        let known = accounts.find(|(known, _)| known == token);
        let issued = || self.issued.user(token, &self.roles);
        known.map(|(_, user)| user.clone()).or_else(issued)
    }

    /// The user of a request, who may do what it asks for.
    pub(super) fn admit(&self, headers: &HeaderMap, action: &Action) -> Result<User, Refusal> {
        // What is no bearer token is nobody's business here.
        let token = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let user = match token {
            None => self.anonymous.clone(),
            Some(token) => self.user(token).ok_or_else(|| {
                Refusal::new(Status::failure(401, "Unauthorized", "Unauthorized"))
            })?,
        };
        let user = self.impersonate(&user, headers, action)?;
        self.authorize(&user, action)?;
        Ok(user)
    }

    /// Who it is to be (`k8s.io/apiserver/pkg/endpoints/filters/impersonation`).
    fn impersonate(
        &self,
        user: &User,
        headers: &HeaderMap,
        action: &Action,
    ) -> Result<User, Refusal> {
        let values = |name: &str| {
            let values = headers.get_all(name).into_iter();
            let values = values.filter_map(|value| Some(value.to_str().ok()?.to_owned()));
            values.collect::<Vec<_>>()
        };
        let first = |name| values(name).into_iter().next().unwrap_or_default();
        let mut other = User::new(first("impersonate-user"), &[]);
        other.groups = values("impersonate-group");
        other.uid = first("impersonate-uid");
        for name in headers.keys() {
            if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
                let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
                other.extra.insert(key, values(name.as_str()));
            }
        }
        let User {
            name,
            groups,
            uid,
            extra,
        } = &other;
        if name.is_empty() {
            if groups.is_empty() && uid.is_empty() && extra.is_empty() {
                return Ok(user.clone());
            }
            let list = |values: &[String]| match values {
                [] => "[]string(nil)".to_owned(),
                values => format!(
                    "[]string{{{}}}",
                    format!("{values:?}").trim_matches(['[', ']'])
                ),
            };
            let extra = extra
                .iter()
                .map(|(key, values)| format!("{key:?}:{}", list(values)));
            let extra = match &*extra.collect::<Vec<_>>().join(", ") {
                "" => "(nil)".to_owned(),
                extra => format!("{{{extra}}}"),
            };
            return Err(Refusal::bad_request(format!(
                "requested &user.DefaultInfo{{Name:\"\", UID:{uid:?}, Groups:{}, \
                 Extra:map[string][]string{extra}}} without impersonating a user name",
                list(groups)
            )));
        }
        let account = name.strip_prefix("system:serviceaccount:");
        let account = account.and_then(|name| name.split_once(':'));
        let wanted = |group: &str, resource: &str, name: &str| {
            Action::new("impersonate", [group, resource, "", name])
        };
        let mut all = vec![match account {
            Some((namespace, name)) => {
                Action::new("impersonate", ["", "serviceaccounts", namespace, name])
            }
            None => wanted("", "users", name),
        }];
        all.extend(groups.iter().map(|name| wanted("", "groups", name)));
        let of = "authentication.k8s.io";
        all.extend((!uid.is_empty()).then(|| wanted(of, "uids", uid)));
        for (key, values) in extra {
            let resource = format!("userextras/{key}");
            all.extend(values.iter().map(|value| wanted(of, &resource, value)));
        }
        let has_any = |user| {
            let mut rules = self.rules(user, &all[0].namespace).into_iter();
            rules.any(|rule| texts(&rule["verbs"]).any(|verb| verb == "impersonate"))
        };
        if !user.is_in(MASTERS) && !has_any(user) {
            // Who has no right of this kind is told of the newer ones, which nobody has here.
            let mode = match account {
                Some(_) => "serviceaccount",
                None if name.starts_with("system:node:") => "arbitrary-node",
                None => "user-info",
            };
            let verb = format!("impersonate-on:{mode}:{}", action.verb);
            let action = action.clone();
            return Err(Action { verb, ..action }.refuse(user));
        }
        all.iter()
            .try_for_each(|action| self.authorize(user, action))?;
        if let (Some((namespace, _)), true) = (account, groups.is_empty()) {
            other.groups = accounts_of(namespace).into();
        }
        let more = match &*other.name {
            ANONYMOUS => UNAUTHENTICATED,
            _ => AUTHENTICATED,
        };
        if !other.is_in(AUTHENTICATED) && !other.is_in(UNAUTHENTICATED) {
            other.groups.push(more.to_owned());
        }
        Ok(other)
    }
}
