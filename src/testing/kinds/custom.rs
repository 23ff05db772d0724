//! What a custom resource is to be: in flow a test's declarations, out comes its kind; and
//! definitions that clients write, out comes what is wrong with their versions
//! (`k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation`).

use serde_json::{Value, json};

use super::{Kind, rules, types};
use crate::{
    Resource,
    testing::{
        checks::{schema, validation},
        requests::target::Invalid,
        values::json::{items, members, push, text, texts},
        writes::subresources,
    },
};

/// The declaration of a custom resource; see
/// [`ApiServerBuilder::resource_with`](crate::testing::ApiServerBuilder::resource_with).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use kubewire::{Resource, testing::ApiServer};
///
/// let widgets = Resource::namespaced("example.com", "v1", "widgets");
/// let server = ApiServer::builder()
///     .resource_with(widgets, "Widget", |widget| widget.status().short_name("wd"))
///     .start()
///     .await?;
/// # let _ = server;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ResourceBuilder {
    pub(crate) kind: Kind,
}

impl ResourceBuilder {
    pub(crate) fn new(resource: Resource, kind: &str) -> Self {
        let kind = Kind::custom(resource, kind);
        Self { kind }
    }

    /// What a definition would say.
    fn definition(&mut self) -> &mut Value {
        self.kind.custom.get_or_insert_default()
    }

    setters! {
        /// Gives it the subresource `status`: then the status can be written there alone.
        fn status() kind.subresources.push("status".to_owned());

        /// Gives it a short name.
        fn short_name(name: impl Into<String>) kind.short.push(name.into());

        /// Puts it in a category, such as `all`.
        fn category(name: impl Into<String>) kind.categories.push(name.into());
    }

    /// Gives it the subresource `scale`, of `spec.replicas` and `status.replicas`.
    pub fn scale(mut self) -> Self {
        self.kind.subresources.push("scale".to_owned());
        let paths = subresources::SCALE.into_iter();
        self.definition()["subresources"]["scale"] = paths.collect();
        self
    }

    /// Lets field selectors name a field, such as `spec.color`; name and namespace they can.
    pub fn selectable_field(mut self, field: impl Into<String>) -> Self {
        let fields = &mut self.definition()["selectableFields"];
        push(fields, json!({"jsonPath": field.into()}));
        self
    }
}

/// What is wrong with the versions of a definition.
pub(crate) fn faults(spec: &Value) -> Vec<Invalid> {
    let versions: Vec<_> = items(&spec["versions"]).collect();
    let mut faults = Vec::new();
    let invalid = |why| {
        let spelled = versions.iter().map(|version| {
            format!(
                r#"{{"Name":{},"Served":{},"Storage":{},"Deprecated":false,"DeprecationWarning":null,"Schema":null,"Subresources":null,"AdditionalPrinterColumns":null,"SelectableFields":null}}"#,
                version["name"], version["served"], version["storage"]
            )
        });
        let spelled = spelled.collect::<Vec<_>>().join(",");
        let spelled = match spec["versions"].is_null() {
            true => "null".to_owned(),
            false => format!("[{spelled}]"),
        };
        Invalid::value("spec.versions", &spelled, why)
    };
    let names: Vec<_> = versions.iter().map(|version| &version["name"]).collect();
    if (1..names.len()).any(|at| names[..at].contains(&names[at])) {
        faults.push(invalid("must contain unique version names"));
    }
    let stored = versions.iter().filter(|version| version["storage"] == true);
    let stored: Vec<_> = stored.map(|version| text(&version["name"])).collect();
    let status = match stored[..] {
        [_] => None,
        [] => Some((
            "null".to_owned(),
            "must have at least one stored version".to_owned(),
        )),
        [first, .., last] => Some((
            format!("[{first:?}]"),
            format!("must have the storage version {last}"),
        )),
    };
    if let Some((known, why)) = status {
        faults.push(invalid(
            "must have exactly one version marked as storage version",
        ));
        faults.push(Invalid::value("status.storedVersions", &known, &why));
    }
    for why in validation::faults("dns1035", names.first().map_or("a", |name| text(name))) {
        faults.push(Invalid::value("spec.version", &names[0].to_string(), &why));
    }
    for (at, version) in versions.iter().enumerate() {
        let schema = &version["schema"]["openAPIV3Schema"];
        let path = format!("spec.versions[{at}]");
        let of = format!("{path}.schema.openAPIV3Schema");
        structural(schema, "at the root", &of, &mut faults);
        for (index, field) in items(&version["selectableFields"]).enumerate() {
            let names = text(&field["jsonPath"]).split('.').skip(1);
            let found = names.fold(schema, |schema, name| &schema["properties"][name]);
            if !found.is_object() && text(&field["jsonPath"]).starts_with('.') {
                let field = field["jsonPath"].to_string();
                let at = format!("{path}.selectableFields[{index}].jsonPath");
                let why = "is an invalid path: does not refer to a valid field";
                faults.push(Invalid::value(at, &field, why));
            }
        }
    }
    faults
}

/// What all versions have is the definition's, and called so.
pub(crate) fn rename(spec: &Value, faults: &mut Vec<Invalid>) {
    faults.retain_mut(|fault| {
        let parts = fault.field.strip_prefix("spec.versions[");
        let Some((index, rest)) = parts.and_then(|rest| rest.split_once("].")) else {
            return true;
        };
        let (name, rest) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
        let all: Vec<_> = items(&spec["versions"])
            .map(|version| &version[name])
            .collect();
        let of_all = match name {
            "schema" if rest != ".openAPIV3Schema" => "validation",
            "additionalPrinterColumns" | "selectableFields" | "subresources" => name,
            _ => return true,
        };
        if all.windows(2).any(|pair| pair[0] != pair[1]) {
            return true;
        }
        let is_first = index == "0";
        fault.field = format!("spec.{of_all}{rest}");
        is_first
    });
    for fault in faults
        .iter_mut()
        .filter(|fault| fault.field.contains("Columns"))
    {
        fault.field = fault.field.replace("jsonPath", "JSONPath");
    }
}

/// Why a schema is not structural, as far as that goes
/// (`k8s.io/apiextensions-apiserver/pkg/apiserver/schema/validation.go`).
fn structural(schema: &Value, level: &str, at: &str, faults: &mut Vec<Invalid>) {
    if !schema.is_object() {
        return;
    }
    for rule in rules::all(&types::full("extensions.Schema")) {
        if rule.holds(schema) {
            rule.check(schema, at, faults);
        }
    }
    let is = |name: &str| schema[name] == true;
    let (of, field) = (text(&schema["type"]), |name: &str| format!("{at}.{name}"));
    let is_free = is("x-kubernetes-int-or-string") || is("x-kubernetes-preserve-unknown-fields");
    if of.is_empty() && !is_free && schema["$ref"].is_null() {
        let why = format!("must not be empty {level}");
        faults.push(Invalid::required(field("type"), &why));
    }
    if level == "at the root" && !["", "object"].contains(&of) {
        let why = "must be object at the root";
        faults.push(Invalid::value(
            field("type"),
            &schema["type"].to_string(),
            why,
        ));
    }
    let is_whole = level == "at the root" || is("x-kubernetes-embedded-resource");
    let named = &schema["properties"]["metadata"];
    let is_said = |(name, said): (&String, &Value)| match &**name {
        "type" | "description" => false,
        "properties" => members(said).any(|(name, _)| !["name", "generateName"].contains(&&**name)),
        _ => true,
    };
    if is_whole && members(named).any(is_said) {
        let why = "must not specify anything other than name and generateName, but metadata is \
                   implicitly specified";
        faults.push(Invalid::forbidden(field("properties[metadata]"), why));
    }
    for key in texts(&schema["x-kubernetes-list-map-keys"]) {
        let items = &schema["items"];
        let is_required = texts(&items["required"]).any(|name| name == key);
        if items["properties"][key]["default"].is_null() && !is_required {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or \
                       be a required property";
            let name = format!("items.properties[{key}].default");
            faults.push(Invalid::required(field(&name), why));
        }
    }
    if !schema["default"].is_null() {
        let mut defaults = Vec::new();
        schema::check(&schema["default"], schema, "", true, &mut defaults);
        faults.extend(defaults.into_iter().map(|fault| Invalid {
            field: field("default"),
            ..fault
        }));
    }
    for (name, inner) in members(&schema["properties"]) {
        let at = format!("{at}.properties[{name}]");
        structural(inner, "for specified object fields", &at, faults);
    }
    for (name, level) in [
        ("items", "for specified array items"),
        ("additionalProperties", "for specified object fields"),
    ] {
        structural(&schema[name], level, &format!("{at}.{name}"), faults);
    }
}
