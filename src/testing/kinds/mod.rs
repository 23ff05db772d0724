//! The kinds of objects that a server has: in flow the table of built-in kinds, a test's
//! declarations and CustomResourceDefinitions, out comes what a request for a resource is about.

pub(super) mod custom;
pub(super) mod discovery;
pub(super) mod place;
pub(super) mod rules;
pub(super) mod types;

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use crate::{
    Resource,
    error::panic::lock,
    testing::{
        objects::store,
        values::json::{items, text},
    },
};

/// One kind of object in one version.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(super) resource: Resource,
    pub(super) kind: String,
    pub(super) singular: String,
    pub(super) short: Vec<String>,
    pub(super) categories: Vec<String>,
    pub(super) subresources: Vec<String>,
    properties: Vec<String>,
    /// What the definition of a custom resource, or the test in its place, says of the version.
    pub(super) custom: Option<Value>,
    /// Whether its objects have protobuf messages, as far as is known from the last.
    has_messages: Arc<AtomicBool>,
}

fn list(text: &str) -> Vec<String> {
    match text {
        "-" => Vec::new(),
        text => text.split(',').map(str::to_owned).collect(),
    }
}

impl Kind {
    /// A line of the table.
    fn parse(line: &str) -> Option<Self> {
        let [
            version,
            kind,
            plural,
            properties,
            short,
            categories,
            subresources,
        ] = line.split_whitespace().collect::<Vec<_>>()[..]
        else {
            return None;
        };
        let properties = list(properties);
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let mut resource =
            Resource::cluster(group.to_owned(), version.to_owned(), plural.to_owned());
        resource.namespaced = properties.iter().any(|property| property == "ns");
        Some(Self {
            short: list(short),
            categories: list(categories),
            subresources: list(subresources),
            properties,
            custom: None,
            ..Self::custom(resource, kind)
        })
    }

    /// A custom kind without anything special.
    pub(super) fn custom(resource: Resource, kind: &str) -> Self {
        Self {
            resource,
            kind: kind.to_owned(),
            singular: kind.to_lowercase(),
            short: Vec::new(),
            categories: Vec::new(),
            subresources: Vec::new(),
            properties: vec!["gen".to_owned()],
            custom: Some(json!({})),
            has_messages: Arc::default(),
        }
    }

    /// The kinds that a CustomResourceDefinition defines, one a served version.
    pub(super) fn of_definition(definition: &Value) -> Vec<Self> {
        let spec = &definition["spec"];
        let text = |value: &Value| text(value).to_owned();
        let texts = |value: &Value| items(value).map(text).collect();
        let names = &spec["names"];
        let served = items(&spec["versions"]).filter(|version| version["served"] == true);
        let kinds = served.map(|version| {
            let mut resource = Resource::namespaced(
                text(&spec["group"]),
                text(&version["name"]),
                text(&names["plural"]),
            );
            resource.namespaced = spec["scope"] == "Namespaced";
            let mut kind = Self::custom(resource, &text(&names["kind"]));
            if let Some(singular) = names["singular"].as_str() {
                singular.clone_into(&mut kind.singular);
            }
            kind.short = texts(&names["shortNames"]);
            kind.categories = texts(&names["categories"]);
            let is_there = |name: &&str| version["subresources"][*name].is_object();
            let there = ["status", "scale"].into_iter().filter(is_there);
            kind.subresources = there.map(str::to_owned).collect();
            kind.custom = Some(version.clone());
            kind
        });
        kinds.collect()
    }

    pub(super) fn is(&self, property: &str) -> bool {
        self.properties.iter().any(|known| known == property)
    }

    /// How it checks the metadata of an update: whole (`W`), or as changed (`U`).
    pub(super) fn checked_again(&self) -> &str {
        let mut properties = self.properties.iter();
        let again = properties.find_map(|property| property.strip_prefix("again."));
        again.unwrap_or("U")
    }

    /// The name of its type in OpenAPI, if it is a built-in one.
    pub(super) fn type_name(&self) -> Option<&'static str> {
        match self.custom {
            Some(_) => None,
            None => types::name(&self.resource.api_version(), &self.kind),
        }
    }

    pub(super) fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|known| known == subresource)
    }

    pub(super) fn is_core(&self, plural: &str) -> bool {
        self.resource.group.is_empty() && self.resource.plural == plural
    }

    /// Whether its objects define custom resources.
    pub(super) fn is_definition(&self) -> bool {
        self.custom.is_none() && self.resource.plural == "customresourcedefinitions"
    }

    pub(super) fn name_format(&self) -> &'static str {
        let formats = ["label", "path"].into_iter().find(|format| self.is(format));
        formats.unwrap_or("subdomain")
    }

    pub(super) fn go_name(&self) -> String {
        let group = self.resource.group.split('.').next();
        let package = group.filter(|group| !group.is_empty()).unwrap_or("core");
        match self.custom {
            Some(_) => "*unstructured.Unstructured".to_owned(),
            None => format!("*{package}.{}", self.kind),
        }
    }

    /// The kind of what a subresource reads and writes, if it is none of its object's.
    pub(super) fn of_subresource(name: &str) -> Option<Self> {
        let (group, kind) = match name {
            "scale" => ("autoscaling", "Scale"),
            "token" => ("authentication.k8s.io", "TokenRequest"),
            _ => return None,
        };
        let plural = format!("{}s", kind.to_lowercase());
        Some(Self {
            custom: None,
            properties: Vec::new(),
            ..Self::custom(Resource::namespaced(group, "v1", plural), kind)
        })
    }

    /// As messages have it: `Deployment.apps`.
    pub(super) fn qualified(&self) -> String {
        match store::group_of(&self.resource.group) {
            "" => self.kind.clone(),
            group => format!("{}.{group}", self.kind),
        }
    }

    pub(super) fn has_messages(&self) -> bool {
        self.type_name().is_some() || self.has_messages.load(Ordering::Relaxed)
    }

    pub(super) fn set_messages(&self, yes: bool) {
        self.has_messages.store(yes, Ordering::Relaxed);
    }

    /// What can be done with it, in the order of discovery.
    pub(super) fn verbs(&self) -> Vec<&'static str> {
        let verbs = match () {
            () if self.is("create") => "create",
            () if self.is("static") => "get list",
            // `k8s.io/kubernetes/pkg/registry/core/namespace/storage/storage.go` deletes one by one.
            () if self.is_core("namespaces") => "create delete get list patch update watch",
            () if self.custom.is_none() => {
                "create delete deletecollection get list patch update watch"
            }
            () => "delete deletecollection get list patch create update watch",
        };
        verbs.split(' ').collect()
    }
}

/// How important a version is: stable ones before beta and alpha, later ones first, and those that
/// are called otherwise last (`k8s.io/apimachinery/pkg/version/helpers.go`).
fn priority(version: &str) -> Option<(u8, u32, u32)> {
    let numbers = version.strip_prefix('v')?;
    let split = |level: &str, rank| {
        let (major, minor) = numbers.split_once(level)?;
        Some((rank, major.parse().ok()?, minor.parse().ok()?))
    };
    let stable = numbers.parse().ok().map(|major| (2, major, 0));
    stable
        .or_else(|| split("beta", 1))
        .or_else(|| split("alpha", 0))
}

/// All kinds, in the order of discovery.
#[derive(Debug)]
pub(super) struct Kinds(Mutex<Vec<Arc<Kind>>>);

impl Kinds {
    /// The built-in kinds.
    pub(super) fn new() -> Self {
        let lines = include_str!("kinds.txt").lines();
        let lines = lines.filter(|line| !line.starts_with('#'));
        let kinds = lines.map(|line| Arc::new(Kind::parse(line).expect("seven columns")));
        Self(Mutex::new(kinds.collect()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Kind>>> {
        lock(&self.0)
    }

    /// What this server serves.
    pub(super) fn all(&self) -> Vec<Arc<Kind>> {
        let kinds = self.lock();
        let served = kinds.iter().filter(|kind| !kind.is("gone"));
        served.cloned().collect()
    }

    pub(super) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let kinds = self.lock();
        let wanted = [group, version, plural];
        let of = |kind: &Resource| [&*kind.group, &*kind.version, &*kind.plural] == wanted;
        kinds.iter().find(|kind| of(&kind.resource)).cloned()
    }

    /// A resource in the first of its versions.
    pub(super) fn any(&self, group: &str, plural: &str) -> Option<Arc<Kind>> {
        let all = self.all();
        let mut all = all.into_iter();
        all.find(|kind| kind.resource.group == group && kind.resource.plural == plural)
    }

    /// A core kind, which is in the table.
    pub(super) fn core(&self, plural: &str) -> Arc<Kind> {
        self.find("", "v1", plural).expect("a line of the table")
    }

    /// Adds a kind, or replaces the custom one of this name and version.
    pub(super) fn add(&self, kind: Kind) -> Arc<Kind> {
        let kind = Arc::new(kind);
        let mut kinds = self.lock();
        match kinds.iter_mut().find(|k| k.resource == kind.resource) {
            Some(known) => known.clone_from(&kind),
            None => {
                // The more important version comes first.
                let is_before = |known: &Arc<Kind>| {
                    known.resource.group != kind.resource.group
                        || priority(&known.resource.version) >= priority(&kind.resource.version)
                };
                let at = kinds.iter().rposition(is_before).map_or(0, |at| at + 1);
                kinds.insert(at, kind.clone());
            }
        }
        kind
    }

    /// Forgets a custom resource.
    pub(super) fn remove(&self, group: &str, plural: &str) {
        self.lock().retain(|kind| {
            kind.custom.is_none() || kind.resource.group != group || kind.resource.plural != plural
        });
    }

    /// The kind of a resource that a test names, which becomes known by that.
    pub(super) fn declare(&self, resource: &Resource, kind: &str) -> Arc<Kind> {
        match self.find(&resource.group, &resource.version, &resource.plural) {
            Some(known) => known,
            None => self.add(Kind::custom(resource.clone(), kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_kind_once() {
        let kinds = Kinds::new();
        let all = kinds.all();
        assert!(all.len() > 50);
        for kind in &all {
            let Resource {
                group,
                version,
                plural,
                ..
            } = &kind.resource;
            let found = kinds.find(group, version, plural).unwrap();
            assert!(Arc::ptr_eq(kind, &found), "{plural} twice");
        }
        let pods = kinds.core("pods");
        assert_eq!((&*pods.kind, &*pods.short[0]), ("Pod", "po"));
        assert!(pods.resource.namespaced && pods.has("log") && pods.is("gen"));
    }
}
