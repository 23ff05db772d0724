//! Who may what: in flow a request's headers, out comes its user, or the refusal that the API
//! server gives.

use http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    server::Refusal,
    wire::status::{Status, StatusDetails},
};

pub(super) const ADMIN: &str = "admin";
pub(super) const NOBODY: &str = "nobody";

/// The users and their tokens.
#[derive(Debug)]
pub(super) struct Access {
    tokens: [(&'static str, String); 2],
    /// Who a request without a token is.
    anonymous: &'static str,
}

/// What a request wants to do with which object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Action<'a> {
    /// Such as `create`.
    pub(super) verb: &'a str,
    /// Empty for the core group.
    pub(super) group: &'a str,
    /// Such as `pods/exec`.
    pub(super) resource: &'a str,
    /// Empty for all.
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl Access {
    /// Without TLS the server is what `kubectl proxy` is, and everybody is the admin.
    pub(super) fn new(tls: bool) -> Self {
        let token = || format!("{:032x}", rand::random::<u128>());
        Self {
            tokens: [(ADMIN, token()), (NOBODY, token())],
            anonymous: if tls { "system:anonymous" } else { ADMIN },
        }
    }

    pub(super) fn token(&self, user: &str) -> &str {
        let known = self.tokens.iter().find(|(name, _)| *name == user);
        known.map_or("", |(_, token)| token)
    }

    /// The user of a request.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Result<&'static str, Refusal> {
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Ok(self.anonymous);
        };
        let token = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let known = self
            .tokens
            .iter()
            .find(|(_, known)| Some(known.as_str()) == token);
        match known {
            Some((user, _)) => Ok(user),
            None => Err(Refusal::new(Status::failure(
                401,
                "Unauthorized",
                "Unauthorized",
            ))),
        }
    }

    /// Refuses what the user may not do, in the words of
    /// `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go` (`forbiddenMessage`).
    pub(super) fn authorize(&self, user: &str, action: Action<'_>) -> Result<(), Refusal> {
        if user == ADMIN {
            return Ok(());
        }
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
        let scope = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {namespace:?}")
        };
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let message = format!(
            "{qualified}{of} is forbidden: User {user:?} cannot {verb} resource {resource:?} in \
             API group {group:?} {scope}"
        );
        let mut status = Status::failure(403, "Forbidden", message);
        status.details = Some(StatusDetails {
            name: name.to_owned(),
            kind: kind.to_owned(),
            ..StatusDetails::default()
        });
        Err(Refusal::new(status))
    }
}
