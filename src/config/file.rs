//! The form of a kubeconfig file: in flows its text, out come its entries.
//!
//! The form is that of `k8s.io/client-go/tools/clientcmd/api/v1/types.go`; fields that are not
//! read here are ignored, as are unknown ones. One entry that cannot be read does not spoil the
//! others: it counts once it is selected.

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
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

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Strict {
    current_context: Option<String>,
    clusters: Option<Vec<Option<NamedEntry<Cluster>>>>,
    contexts: Option<Vec<Option<NamedEntry<Context>>>>,
    users: Option<Vec<Option<NamedEntry<User>>>>,
}

#[derive(Deserialize)]
struct NamedEntry<T> {
    name: Option<String>,
    #[serde(rename = "cluster", alias = "context", alias = "user")]
    entry: Option<T>,
}

/// The same, each entry as it is.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Raw {
    current_context: Option<String>,
    clusters: Option<Vec<serde_json::Value>>,
    contexts: Option<Vec<serde_json::Value>>,
    users: Option<Vec<serde_json::Value>>,
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
    pub(super) extension: serde_json::Value,
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
        match document::<Strict>(text) {
            Ok(strict) => Ok(strict.into()),
            Err(place) => match document::<Raw>(text) {
                Ok(raw) => Ok(raw.into()),
                Err(_) => Err(format!("is not a kubeconfig in YAML or JSON{place}")),
            },
        }
    }
}

impl From<Strict> for File {
    fn from(strict: Strict) -> Self {
        Self {
            current_context: strict.current_context,
            clusters: named(strict.clusters),
            contexts: named(strict.contexts),
            users: named(strict.users),
        }
    }
}

impl From<Raw> for File {
    fn from(raw: Raw) -> Self {
        Self {
            current_context: raw.current_context,
            clusters: each(raw.clusters, "cluster"),
            contexts: each(raw.contexts, "context"),
            users: each(raw.users, "user"),
        }
    }
}

/// Entries without a name cannot be selected.
fn named<T: Default>(list: Option<Vec<Option<NamedEntry<T>>>>) -> Vec<Named<T>> {
    let entries = list.into_iter().flatten().flatten();
    let named = entries.filter_map(|NamedEntry { name, entry }| {
        let entry = Ok(entry.unwrap_or_default());
        name.map(|name| Named { name, entry })
    });
    named.collect()
}

/// Each entry by itself; `kind` is the field that holds it.
fn each<T: DeserializeOwned + Default>(
    list: Option<Vec<serde_json::Value>>,
    kind: &str,
) -> Vec<Named<T>> {
    let entries = list.into_iter().flatten();
    entries
        .filter_map(|mut named| {
            let name = named.get("name")?.as_str()?.to_owned();
            let entry = match named.get_mut(kind).map(serde_json::Value::take) {
                None | Some(serde_json::Value::Null) => Ok(T::default()),
                Some(entry) => serde_json::from_value(entry.clone())
                    .map_err(|_| format!("{} is not what it should be", culprit::<T>(&entry))),
            };
            Some(Named { name, entry })
        })
        .collect()
}

/// The field that cannot be read, or the one in it. serde's own words would repeat its value.
fn culprit<T: DeserializeOwned>(entry: &serde_json::Value) -> String {
    let fields = entry.as_object().into_iter().flatten();
    let alone = |(field, value): &(&String, &serde_json::Value)| {
        let alone = serde_json::Map::from_iter([((*field).clone(), (*value).clone())]);
        serde_json::from_value::<T>(alone.into()).is_err()
    };
    match fields.into_iter().find(alone) {
        Some((field, value)) => {
            let is_read = |value| serde_json::from_value::<T>(json!({field: value})).is_ok();
            format!("the value of {field}{}", below(value, &is_read))
        }
        None => "it".to_owned(),
    }
}

/// Fields of which each is left out in its turn.
const FEW: usize = 64;

/// The path of the one field below a value without which that could be read, if there is one.
pub(crate) fn below(
    value: &serde_json::Value,
    is_read: &dyn Fn(serde_json::Value) -> bool,
) -> String {
    let fields = value.as_object().filter(|fields| fields.len() <= FEW);
    let fields = fields.into_iter().flatten();
    let mut alone = fields.filter_map(|(field, inner)| {
        let with = |inner: Option<serde_json::Value>| {
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

/// The first document of a text in YAML or JSON, or the place where it is none.
pub(crate) fn document<T: DeserializeOwned + Default>(text: &str) -> Result<T, String> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    // As in Go.
    options.duplicate_keys = DuplicateKeyPolicy::LastWins;
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(T::default());
    }
    let mut bytes = text.as_bytes();
    let mut documents = serde_saphyr::read_with_options(&mut bytes, options);
    match documents.next() {
        None => Ok(T::default()),
        Some(first) => first.map(Option::unwrap_or_default).map_err(|error| {
            error.location().map_or_else(String::new, |at| {
                format!(", at line {} column {}", at.line(), at.column())
            })
        }),
    }
}
