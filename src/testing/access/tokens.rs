//! Tokens of service accounts: in flow requests for them, out come tokens that this server takes
//! (`k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage/token.go`).

use std::{collections::HashMap, sync::Mutex};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Response;
use serde_json::{Value, json};

use super::User;
use crate::{
    Resource,
    error::panic::lock,
    server::Refusal,
    testing::{
        checks,
        kinds::rules,
        objects::{
            self,
            store::{self, Store, seconds},
        },
        pods::logs,
        requests::target::{Invalid, invalid, not_implemented},
        router::{self, Body},
        values::json::{items, some, text},
        writes::{Write, managed},
    },
    wire::stamp::Stamp,
};

/// For whom a token is if nobody is named, and who gives it.
const API: &str = "https://kubernetes.default.svc";

/// The tokens that were given, and what they say.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<HashMap<String, Value>>);

impl Tokens {
    /// Whose token this is, as long as it is valid and the account is there.
    pub(super) fn user(&self, token: &str, store: &Store) -> Option<User> {
        let claims = lock(&self.0).get(token)?.clone();
        let of = &claims["kubernetes.io"];
        let (namespace, account) = (text(&of["namespace"]), &of["serviceaccount"]);
        let resource = Resource::namespaced("", "v1", "serviceaccounts");
        let object = store.get(&store::key(&resource, namespace, text(&account["name"])))?;
        let is_valid = claims["exp"].as_i64()? > logs::now().unix_seconds()
            && items(&claims["aud"]).any(|audience| audience == API)
            && object.json["metadata"]["uid"] == account["uid"];
        is_valid
            .then(|| User::account(namespace, &account["name"], &account["uid"], &claims["jti"]))
    }
}

/// Answers a request for a token.
pub(crate) fn serve(write: &Write<'_>) -> Result<Response<Body>, Refusal> {
    let (target, query) = (write.target, &write.query.target);
    let kind = &query.kind;
    let mut request = write.object(&query.resource().api_version(), &kind.kind)?;
    let account = objects::find(write.cluster, target)?;
    let metadata = &account.json["metadata"];
    let refuse = |name, faults| invalid(&kind.qualified(), name, faults);
    if let Some(name) = some(&request["metadata"]["name"]).filter(|name| *name != target.name()) {
        let why = "must match the service account name if specified";
        let fault = Invalid::value("metadata.name", &format!("{name:?}"), why);
        return Err(refuse(target.name(), vec![fault]));
    }
    rules::complete(kind, &mut request);
    let faults = checks::of_kind(kind, &request);
    if !faults.is_empty() {
        return Err(refuse("", faults));
    }
    if !request["spec"]["boundObjectRef"].is_null() {
        return Err(not_implemented("tokens that are bound to objects"));
    }
    let now = logs::now();
    managed::updated(kind, &write.manager("Update"), None, &mut request, now);
    for field in ["name", "namespace", "uid"] {
        request["metadata"][field] = metadata[field].clone();
    }
    request["metadata"]["creationTimestamp"] = seconds(now).into();
    let spec = &mut request["spec"];
    spec["boundObjectRef"] = Value::Null;
    if items(&spec["audiences"]).len() == 0 {
        spec["audiences"] = json!([API]);
    }
    let from = now.unix_seconds();
    let until = from.saturating_add(spec["expirationSeconds"].as_i64().unwrap_or_default());
    let named = |field: &str| metadata[field].clone();
    let claims = json!({
        "aud": spec["audiences"], "exp": until, "iat": from, "iss": API, "jti": write.uid,
        "kubernetes.io": {
            "namespace": named("namespace"),
            "serviceaccount": {"name": named("name"), "uid": named("uid")},
        },
        "nbf": from,
        "sub": format!("system:serviceaccount:{}:{}", target.namespace, target.name()),
    });
    let header = json!({"alg": "RS256", "kid": "embedded"});
    // Who gave it remembers it, so that there is nothing to sign.
    let signature = rand::random::<[u8; 32]>();
    let parts = [
        header.to_string().as_bytes(),
        claims.to_string().as_bytes(),
        &signature,
    ]
    .map(|part| URL_SAFE_NO_PAD.encode(part));
    let token = parts.join(".");
    let expires = Stamp::from_unix(until, 0).map(seconds);
    request["status"] = json!({"token": token, "expirationTimestamp": expires});
    if !write.dry {
        lock(&write.cluster.access.issued.0).insert(token, claims);
    }
    Ok(router::object(201, &request))
}
