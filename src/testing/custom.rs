//! What a custom resource is to be: in flow a test's declarations, out comes its kind; and
//! definitions that clients write, out comes what is wrong with their versions
//! (`k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation`).

use serde_json::Value;

use super::{
    json::{items, members, text},
    kinds::Kind,
    subresources,
    target::Invalid,
};
use crate::Resource;

/// The declaration of a custom resource; see
/// [`ApiServerBuilder::resource_with`](super::ApiServerBuilder::resource_with).
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
pub struct ResourceBuilder(Kind);

impl ResourceBuilder {
    pub(super) fn new(resource: Resource, kind: &str) -> Self {
        let mut kind = Kind::custom(resource, kind);
        if let Some(custom) = &mut kind.custom {
            custom.scale = Some(subresources::SCALE.map(str::to_owned));
        }
        Self(kind)
    }

    /// Gives it the subresource `status`: then the status can be written there alone.
    pub fn status(mut self) -> Self {
        self.0.subresources.push("status".to_owned());
        self
    }

    /// Gives it the subresource `scale`, of `spec.replicas` and `status.replicas`.
    pub fn scale(mut self) -> Self {
        self.0.subresources.push("scale".to_owned());
        self
    }

    /// Lets field selectors name a field, such as `spec.color`; name and namespace they can.
    pub fn selectable_field(mut self, field: impl Into<String>) -> Self {
        if let Some(custom) = &mut self.0.custom {
            custom.selectable.push(field.into());
        }
        self
    }

    /// Gives it a short name.
    pub fn short_name(mut self, name: impl Into<String>) -> Self {
        self.0.short.push(name.into());
        self
    }

    /// Puts it in a category, such as `all`.
    pub fn category(mut self, name: impl Into<String>) -> Self {
        self.0.categories.push(name.into());
        self
    }

    pub(super) fn into_kind(self) -> Kind {
        self.0
    }
}

/// What is wrong with the versions of a definition.
pub(super) fn faults(spec: &Value) -> Vec<Invalid> {
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
        Invalid::value("spec.versions", &format!("[{spelled}]"), why)
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
    // Where all have one, it is that of the definition.
    let mut other = versions.windows(2);
    let is_one = other.all(|pair| pair[0]["schema"] == pair[1]["schema"]);
    let many = if is_one { 1 } else { versions.len() };
    for (at, version) in versions.iter().take(many).enumerate() {
        let field = match is_one {
            true => "spec.validation".to_owned(),
            false => format!("spec.versions[{at}].schema"),
        };
        let schema = &version["schema"]["openAPIV3Schema"];
        let field = field + ".openAPIV3Schema";
        untyped(schema, "at the root", &field, &mut faults);
    }
    faults
}

/// The schemas that do not say which type they are of.
fn untyped(schema: &Value, level: &str, at: &str, faults: &mut Vec<Invalid>) {
    if !schema.is_object() {
        return;
    }
    let is = |name: &str| schema[name] == true;
    let is_free = is("x-kubernetes-int-or-string") || is("x-kubernetes-preserve-unknown-fields");
    if text(&schema["type"]).is_empty() && !is_free {
        let why = format!("must not be empty {level}");
        faults.push(Invalid::required(format!("{at}.type"), &why));
    }
    if schema["type"] == "array" && schema["items"].is_null() {
        faults.push(Invalid::required(
            format!("{at}.items"),
            "must be specified",
        ));
    }
    for (name, inner) in members(&schema["properties"]) {
        let at = format!("{at}.properties[{name}]");
        untyped(inner, "for specified object fields", &at, faults);
    }
    for (name, level) in [
        ("items", "for specified array items"),
        ("additionalProperties", "for specified object fields"),
    ] {
        untyped(&schema[name], level, &format!("{at}.{name}"), faults);
    }
}
