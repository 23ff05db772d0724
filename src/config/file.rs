//! The form of a kubeconfig file: in flows its text, out come its entries.
//!
//! The form is that of `k8s.io/client-go/tools/clientcmd/api/v1/types.go`; fields that are not
//! read here are ignored, as are unknown ones. One entry that cannot be read does not spoil the
//! others: it counts once it is selected.

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use serde_saphyr::DuplicateKeyPolicy;

use super::exec::ExecEntry;

#[derive(Default)]
pub(super) struct File {
    pub(super) current_context: Option<String>,
    pub(super) clusters: Vec<Named<Cluster>>,
    pub(super) contexts: Vec<Named<Context>>,
    pub(super) users: Vec<Named<User>>,
}

/// An entry, or what is wrong with it.
pub(super) struct Named<T> {
    pub(super) name: String,
    pub(super) entry: Result<T, String>,
}

/// `Cluster` of the v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Cluster {
    pub(super) server: Option<String>,
    pub(super) tls_server_name: Option<String>,
    pub(super) insecure_skip_tls_verify: Option<bool>,
    pub(super) certificate_authority: Option<PathBuf>,
    pub(super) certificate_authority_data: Option<String>,
    pub(super) proxy_url: Option<SecretString>,
    pub(super) disable_compression: Option<bool>,
    pub(super) extensions: Option<Vec<Option<NamedExtension>>>,
}

/// `NamedExtension` of the v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default)]
pub(super) struct NamedExtension {
    pub(super) name: Option<String>,
    pub(super) extension: Value,
}

/// `Context` of the v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default)]
pub(super) struct Context {
    pub(super) cluster: Option<String>,
    pub(super) user: Option<String>,
    pub(super) namespace: Option<String>,
}

/// `AuthInfo` of the v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct User {
    pub(super) client_certificate: Option<PathBuf>,
    pub(super) client_certificate_data: Option<String>,
    pub(super) client_key: Option<PathBuf>,
    pub(super) client_key_data: Option<SecretString>,
    pub(super) token: Option<SecretString>,
    #[serde(rename = "tokenFile")]
    pub(super) token_file: Option<PathBuf>,
    #[serde(rename = "as")]
    pub(super) impersonate: Option<String>,
    pub(super) as_uid: Option<String>,
    pub(super) as_groups: Option<Vec<Option<String>>>,
    pub(super) as_user_extra: Option<BTreeMap<String, Option<Vec<Option<String>>>>>,
    pub(super) username: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) auth_provider: Option<AuthProvider>,
    pub(super) exec: Option<ExecEntry>,
}

/// `AuthProviderConfig` of the v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default)]
pub(super) struct AuthProvider {
    pub(super) name: Option<String>,
    pub(super) config: Option<BTreeMap<String, Option<SecretString>>>,
}

impl File {
    /// Reads the first document of a text, as Go does. The error gives a place and no text: any
    /// line may hold a secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut file = document(text)
            .map_err(|place| format!("is not a kubeconfig in YAML or JSON{place}"))?;
        let mut list = |field| match file.get_mut(field).map(Value::take) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(entries)) => Ok(entries),
            Some(_) => Err(format!("is not a kubeconfig: {field} is not a list")),
        };
        let (clusters, contexts, users) = (list("clusters")?, list("contexts")?, list("users")?);
        let current_context = match file.get_mut("current-context").map(Value::take) {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name),
            Some(_) => return Err(format!("the value of current-context {NO_TEXT}")),
        };
        if !matches!(file, Value::Null | Value::Object(_)) {
            return Err("is not a kubeconfig in YAML or JSON".to_owned());
        }
        Ok(Self {
            current_context,
            clusters: each(clusters, "cluster"),
            contexts: each(contexts, "context"),
            users: each(users, "user"),
        })
    }
}

/// As Go, which takes no number or boolean for a text.
const NO_TEXT: &str = "is a number or a boolean where a text must be: put it in quotes";

/// Each entry by itself; `kind` is the field that holds it. Those without a name cannot be selected.
fn each<T: DeserializeOwned + Default>(entries: Vec<Value>, kind: &str) -> Vec<Named<T>> {
    let named = entries.into_iter().filter_map(|mut named| {
        let name = match named.get("name")? {
            Value::String(name) => name.clone(),
            name @ (Value::Number(_) | Value::Bool(_)) => {
                let entry = Err(format!("its name {NO_TEXT}"));
                return Some(Named {
                    name: name.to_string(),
                    entry,
                });
            }
            _ => return None,
        };
        let entry = match named.get_mut(kind).map(Value::take) {
            None | Some(Value::Null) => Ok(T::default()),
            Some(entry) => serde_json::from_value(entry.clone()).map_err(|_| culprit::<T>(&entry)),
        };
        Some(Named { name, entry })
    });
    named.collect()
}

/// What is wrong, and with which field. serde's own words would repeat its value.
fn culprit<T: DeserializeOwned>(entry: &Value) -> String {
    let fields = entry.as_object().into_iter().flatten();
    let reads = |field: &String, value| serde_json::from_value::<T>(json!({field: value})).is_ok();
    match fields
        .into_iter()
        .find(|(field, value)| !reads(field, (*value).clone()))
    {
        Some((field, value)) => {
            let below = below(value, &|value| reads(field, value));
            let problem = match reads(field, quoted(value)) {
                true => NO_TEXT,
                false => "is not what it should be",
            };
            format!("the value of {field}{below} {problem}")
        }
        None => "it is not what it should be".to_owned(),
    }
}

/// The value with its numbers and booleans in quotes.
fn quoted(value: &Value) -> Value {
    match value {
        Value::Number(_) | Value::Bool(_) => value.to_string().into(),
        Value::Array(values) => values.iter().map(quoted).collect(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| (key.clone(), quoted(value)));
            Value::Object(fields.collect())
        }
        _ => value.clone(),
    }
}

/// Fields of which each is left out in its turn.
const FEW: usize = 64;

/// The path of the one field below a value without which that could be read, if there is one.
pub(crate) fn below(value: &Value, is_read: &dyn Fn(Value) -> bool) -> String {
    let fields = value.as_object().filter(|fields| fields.len() <= FEW);
    let fields = fields.into_iter().flatten();
    let mut alone = fields.filter_map(|(field, inner)| {
        let with = |inner: Option<Value>| {
            let mut rest = value.as_object()?.clone();
            rest.remove(field);
            rest.extend(inner.map(|inner| (field.clone(), inner)));
            is_read(rest.into()).then_some(())
        };
        with(None)?;
        let deeper = below(inner, &|inner| with(Some(inner)).is_some());
        Some(format!(".{field}{deeper}"))
    });
    alone.next().unwrap_or_default()
}

/// The first document of a text in YAML or JSON, or the place where it is none. What it is read into
/// is told numbers and booleans from texts by serde_json, which YAML's own reader takes for both.
pub(crate) fn document(text: &str) -> Result<Value, String> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    // As in Go.
    options.duplicate_keys = DuplicateKeyPolicy::LastWins;
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Value::Null);
    }
    let mut bytes = text.as_bytes();
    let mut documents = serde_saphyr::read_with_options(&mut bytes, options);
    match documents.next() {
        None => Ok(Value::Null),
        Some(first) => first.map_err(|error| {
            error.location().map_or_else(String::new, |at| {
                format!(", at line {} column {}", at.line(), at.column())
            })
        }),
    }
}
