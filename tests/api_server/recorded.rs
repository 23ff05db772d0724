//! What a 1.36.2 API server answered to a row of requests: a line each with the method, the path,
//! the headers, the body, and the code with the words, the causes, the owners of fields or what else
//! the answer says; nothing where a request is only made for those that follow.

use super::*;

async fn replay(lines: &str) {
    let server = builder().start().await.unwrap();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for line in lines.lines() {
        let (method, path, headers, body, expected): (String, String, Value, Value, Value) =
            serde_json::from_str(line).unwrap();
        let mut all = vec![("user-agent", "kubectl/v1.37.1")];
        let headers = headers.as_object().unwrap();
        let own = headers
            .iter()
            .map(|(name, value)| (&**name, value.as_str().unwrap()));
        all.extend(own);
        let body = match body {
            Value::Null => String::new(),
            Value::String(text) => text,
            body => {
                if !headers.contains_key("Content-Type") {
                    all.push(("content-type", JSON));
                }
                body.to_string()
            }
        };
        let answer = send(&server, &format!("{method} {path}"), &all, &body).await;
        if expected.is_null() {
            continue;
        }
        compared += 1;
        let json: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let owners = json["metadata"]["managedFields"].as_array().map(|owners| {
            let owner = |of: &Value| {
                json!([
                    of["manager"],
                    of["operation"],
                    of["subresource"],
                    of["fieldsV1"]
                ])
            };
            owners.iter().map(owner).collect::<Value>()
        });
        for (what, value) in expected.as_object().unwrap() {
            let found = match &**what {
                "code" => json!(answer.code),
                "causes" => json["details"]["causes"].clone(),
                "owners" => json!(owners),
                "text" => json!(answer.text),
                "type" => json!(answer.header("content-type")),
                "warning" => json!(answer.header("warning")),
                "left" => json["metadata"]["remainingItemCount"].clone(),
                "event" => json["type"].clone(),
                what @ ("annotations" | "finalizers" | "generation" | "labels"
                | "ownerReferences") => json["metadata"][what].clone(),
                what => json[what].clone(),
            };
            if found != *value {
                wrong.push(format!(
                    "{method} {path} {body}\n  {what} {value}\n  {found}"
                ));
            }
        }
    }
    assert!(compared > 30, "{compared}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn users_have_the_rights_that_they_have_in_a_cluster() {
    replay(include_str!("rights.jsonl")).await;
}

#[tokio::test]
async fn writes_are_answered_as_a_cluster_answers_them() {
    replay(include_str!("writes.jsonl")).await;
}

#[tokio::test]
async fn pods_lists_deletions_and_encodings_are_answered_as_a_cluster_answers_them() {
    replay(include_str!("answers.jsonl")).await;
}

#[tokio::test]
async fn definitions_and_every_kind_are_answered_as_a_cluster_answers_them() {
    replay(include_str!("definitions.jsonl")).await;
}

#[tokio::test]
async fn warnings_nulls_times_and_forms_are_answered_as_a_cluster_answers_them() {
    replay(include_str!("details.jsonl")).await;
}

#[tokio::test]
async fn what_cannot_be_changed_is_refused_as_by_a_cluster() {
    replay(include_str!("fixed.jsonl")).await;
}

#[tokio::test]
async fn events_tokens_claims_and_applied_custom_resources_are_answered_as_by_a_cluster() {
    replay(include_str!("events.jsonl")).await;
}

#[tokio::test]
async fn patches_are_read_and_merged_as_by_a_cluster() {
    replay(include_str!("patches.jsonl")).await;
}

#[tokio::test]
async fn bindings_approvals_and_what_a_status_changes_are_answered_as_by_a_cluster() {
    replay(include_str!("decisions.jsonl")).await;
}

#[tokio::test]
async fn options_paths_ports_and_defaults_are_answered_as_by_a_cluster() {
    replay(include_str!("options.jsonl")).await;
}

#[tokio::test]
async fn kinds_and_logs_of_what_does_not_run_are_answered_as_by_a_cluster() {
    replay(include_str!("kinds.jsonl")).await;
}

#[tokio::test]
async fn metadata_owners_and_quantities_of_updates_are_answered_as_by_a_cluster() {
    replay(include_str!("updates.jsonl")).await;
}
