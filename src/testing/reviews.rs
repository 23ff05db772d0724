//! Reviews: in flow questions about users and their rights, out come answers, and nothing is
//! stored.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    access::{Action, User},
    json::{map, text, texts},
    router::{self, Body},
    target::{Invalid, not_implemented},
    writes::Write,
};
use crate::server::Refusal;

/// Answers a question.
pub(super) fn serve(write: &Write<'_>) -> Result<Response<Body>, Refusal> {
    let (resource, kind) = (write.target.resource(), &*write.target.kind.kind);
    let mut review = write.object(&resource.api_version(), kind)?;
    let access = &write.cluster.access;
    let user = write.user;
    review["status"] = match kind {
        "SelfSubjectReview" => json!({"userInfo": info(user)}),
        "TokenReview" => {
            let token = text(&review["spec"]["token"]);
            if token.is_empty() {
                let why = "token is required for TokenReview in authentication";
                return Err(Refusal::bad_request(why));
            }
            match access.user(token) {
                Some(user) => json!({"authenticated": true, "user": info(user)}),
                None => json!({
                    "user": {},
                    "error": "invalid bearer token",
                }),
            }
        }
        "SelfSubjectAccessReview" => allowed(write, user, &review["spec"])?,
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let spec = &review["spec"];
            let groups: Vec<_> = texts(&spec["groups"]).collect();
            let other = User::new(text(&spec["user"]), &groups);
            if other.name.is_empty() && other.groups.is_empty() {
                let why = "at least one of user or group must be specified";
                let field = Invalid::value("spec.user", "\"\"", why);
                return Err(write.target.invalid("", vec![field]));
            }
            allowed(write, &other, spec)?
        }
        "SelfSubjectRulesReview" => {
            let namespace = text(&review["spec"]["namespace"]);
            json!({
                "resourceRules": access.rules(user, namespace),
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}],
                "incomplete": false,
            })
        }
        other => return Err(not_implemented(other)),
    };
    map(&mut review["metadata"]);
    let mut response = router::object(&review);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

fn info(user: &User) -> Value {
    json!({"username": user.name, "groups": user.groups})
}

fn allowed(write: &Write<'_>, user: &User, spec: &Value) -> Result<Value, Refusal> {
    let attributes = &spec["resourceAttributes"];
    let is_url = spec["nonResourceAttributes"].is_object();
    if attributes.is_object() && is_url {
        let why = "cannot be specified in combination with resourceAttributes";
        let of = &spec["nonResourceAttributes"];
        let value = json!({"Path": text(&of["path"]), "Verb": text(&of["verb"])}).to_string();
        let field = Invalid::value("spec.nonResourceAttributes", &value, why);
        return Err(write.target.invalid("", vec![field]));
    }
    if attributes.is_object() == is_url {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let field = Invalid::value("spec.resourceAttributes", "null", why);
        return Err(write.target.invalid("", vec![field]));
    }
    if is_url {
        // This server lets everybody have what is no resource, as it says in `rules`.
        return Ok(json!({"allowed": spec["nonResourceAttributes"]["verb"] == "get"}));
    }
    let text = |field: &str| text(&attributes[field]).to_owned();
    let resource = match &*text("subresource") {
        "" => text("resource"),
        subresource => format!("{}/{subresource}", text("resource")),
    };
    let action = Action {
        verb: text("verb"),
        group: text("group"),
        resource,
        namespace: text("namespace"),
        name: text("name"),
    };
    Ok(json!({"allowed": write.cluster.access.is_allowed(user, &action)}))
}
