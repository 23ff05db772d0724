//! Reviews: in flow questions about users and their rights, out come answers, and nothing is
//! stored.

use http::{Response, StatusCode};
use serde_json::json;

use super::{
    access::{Action, User},
    json::{map, text, texts},
    logs, managed,
    router::{self, Body},
    store::seconds,
    target::{Invalid, invalid, not_implemented},
    writes::Write,
};
use crate::server::Refusal;

/// Answers a question.
pub(super) fn serve(write: &Write<'_>) -> Result<Response<Body>, Refusal> {
    let (target, kind) = (write.target, &*write.target.kind.kind);
    let mut review = write.object(&target.resource().api_version(), kind)?;
    let (access, user) = (&write.cluster.access, write.user);
    map(&mut review["metadata"]);
    map(&mut review["spec"]);
    let wrong = |field: &str, value: &str, why: &str| {
        // The kind is not known any more where this is said.
        let of = format!(".{}", target.resource().group);
        Err(invalid(&of, "", vec![Invalid::value(field, value, why)]))
    };
    let spec = review["spec"].clone();
    let url = &spec["nonResourceAttributes"];
    let resource = &spec["resourceAttributes"];
    let spelled = json!({"Path": text(&url["path"]), "Verb": text(&url["verb"])}).to_string();
    let mut asked = user.clone();
    match kind {
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let groups: Vec<_> = texts(&spec["groups"]).collect();
            asked = User::new(text(&spec["user"]), &groups);
            let of = "spec.nonResourceAttributes";
            if kind.starts_with("Local") && url.is_object() {
                return wrong(of, &spelled, "disallowed on this kind of request");
            }
            if asked.name.is_empty() && asked.groups.is_empty() {
                let why = "at least one of user or group must be specified";
                return wrong("spec.user", "\"\"", why);
            }
            let namespace = &resource["namespace"];
            if kind.starts_with("Local") && *namespace != *target.namespace {
                let of = "spec.resourceAttributes.namespace";
                return wrong(of, &namespace.to_string(), "must match metadata.namespace");
            }
        }
        "SelfSubjectReview" => {
            review["metadata"]["creationTimestamp"] = seconds(logs::now()).into();
        }
        _ => {}
    }
    let status = match kind {
        "SelfSubjectReview" => json!({"userInfo": user.info()}),
        "TokenReview" => match access.user(text(&review["spec"]["token"])) {
            _ if text(&review["spec"]["token"]).is_empty() => {
                let why = "token is required for TokenReview in authentication";
                return Err(Refusal::bad_request(why));
            }
            Some(user) => json!({"authenticated": true, "user": user.info()}),
            None => json!({"user": {}, "error": "invalid bearer token"}),
        },
        "SelfSubjectRulesReview" => {
            let namespace = text(&review["spec"]["namespace"]).to_owned();
            if namespace.is_empty() {
                return Err(Refusal::bad_request("no namespace on request"));
            }
            review["spec"] = json!({});
            let rules = access.rules(user, &namespace).into_iter();
            let (of_paths, of_resources): (Vec<_>, Vec<_>) =
                rules.partition(|rule| rule["nonResourceURLs"].is_array());
            json!({
                "resourceRules": of_resources,
                "nonResourceRules": of_paths,
                "incomplete": false,
            })
        }
        "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            if resource.is_object() && url.is_object() {
                let why = "cannot be specified in combination with resourceAttributes";
                return wrong("spec.nonResourceAttributes", &spelled, why);
            }
            if !resource.is_object() && !url.is_object() {
                let why =
                    "exactly one of nonResourceAttributes or resourceAttributes must be specified";
                return wrong("spec.resourceAttributes", "null", why);
            }
            let of = if url.is_object() { url } else { resource };
            let text = |field: &str| text(&of[field]).to_owned();
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
                path: text("path"),
            };
            let why = access.why(&asked, &action);
            let mut status = json!({"allowed": why.is_some()});
            if let Some(why) = why.filter(|why| !why.is_empty()) {
                status["reason"] = why.into();
            }
            status
        }
        other => return Err(not_implemented(other)),
    };
    managed::updated(
        &target.kind,
        &write.manager("Update"),
        None,
        &mut review,
        logs::now(),
    );
    if !target.namespace.is_empty() {
        review["metadata"]["namespace"] = (&*target.namespace).into();
    }
    review["status"] = status;
    let mut response = router::object(&review);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}
