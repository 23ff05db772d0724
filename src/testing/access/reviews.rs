//! Reviews: in flow questions about users and their rights, out come answers, and nothing is
//! stored.

use http::Response;
use serde_json::json;

use super::{Action, User};
use crate::{
    server::Refusal,
    testing::{
        checks,
        kinds::rules,
        objects::store::seconds,
        pods::logs,
        requests::{
            selector,
            target::{invalid, not_implemented},
        },
        router::{self, Body},
        values::json::{map, text, texts},
        writes::{Write, managed},
    },
};

pub(crate) fn serve(write: &Write<'_>) -> Result<Response<Body>, Refusal> {
    let (target, kind) = (write.target, &*write.target.kind.kind);
    let mut review = write.object(&target.resource().api_version(), kind)?;
    let (access, user) = (&write.cluster.access, write.user);
    map(&mut review["metadata"]);
    if !target.namespace.is_empty() {
        review["metadata"]["namespace"] = (&*target.namespace).into();
    }
    rules::complete(&target.kind, &mut review);
    let faults = checks::of_kind(&target.kind, &review);
    if !faults.is_empty() {
        // The kind is not known any more where this is said.
        let of = format!(".{}", target.resource().group);
        return Err(invalid(&of, "", faults));
    }
    let spec = review["spec"].clone();
    let status = match kind {
        "SelfSubjectReview" => json!({"userInfo": user.info()}),
        "TokenReview" => match access.user(text(&spec["token"])) {
            _ if text(&spec["token"]).is_empty() => {
                let why = "token is required for TokenReview in authentication";
                return Err(Refusal::bad_request(why));
            }
            Some(user) => json!({"authenticated": true, "user": user.info()}),
            None => json!({"user": {}, "error": "invalid bearer token"}),
        },
        "SelfSubjectRulesReview" => {
            let namespace = text(&spec["namespace"]);
            if namespace.is_empty() {
                return Err(Refusal::bad_request("no namespace on request"));
            }
            review["spec"] = json!({});
            let rules = access.rules(user, namespace).into_iter();
            let (of_paths, of_resources): (Vec<_>, Vec<_>) =
                rules.partition(|rule| rule["nonResourceURLs"].is_array());
            json!({
                "resourceRules": of_resources,
                "nonResourceRules": of_paths,
                "incomplete": false,
            })
        }
        "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let (url, resource) = (&spec["nonResourceAttributes"], &spec["resourceAttributes"]);
            let groups: Vec<_> = texts(&spec["groups"]).collect();
            let asked = match kind {
                "SelfSubjectAccessReview" => user.clone(),
                _ => User::new(text(&spec["user"]), &groups),
            };
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
            let raw = |field: &str| of[field]["rawSelector"].as_str().unwrap_or_default();
            let is_field = |term: &str| term.is_empty() || term.contains('=');
            let wrong = match () {
                () if !raw("fieldSelector").split(',').all(is_field) => "fieldSelector",
                () if selector::labels(raw("labelSelector")).is_err() => "labelSelector",
                () => "",
            };
            if !wrong.is_empty() {
                let why = format!("spec.resourceAttributes.{wrong} ignored due to parse error");
                status["evaluationError"] = why.into();
            }
            if let Some(why) = why.filter(|why| !why.is_empty()) {
                status["reason"] = why.into();
            }
            status
        }
        other => return Err(not_implemented(other)),
    };
    let (manager, now) = (write.manager("Update"), logs::now());
    managed::updated(&target.kind, &manager, None, &mut review, now);
    if kind == "SelfSubjectReview" {
        review["metadata"]["creationTimestamp"] = seconds(now).into();
    }
    review["status"] = status;
    Ok(router::object(201, &review))
}
