//! How objects are merged: in flow schemas, out comes what is one value, and by which fields the items
//! of a list are told apart.

use serde_json::Value;

use super::Kind;
use crate::testing::{
    checks::schema::{field, of, resolve},
    values::json::{text, texts},
};

/// What a schema says about the merging of a field. The items of a list are where the list is.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    schema: &'a Value,
    /// The kind of the whole object.
    root: Option<&'a str>,
    is_custom: bool,
}

impl<'a> Place<'a> {
    /// The whole object.
    pub(crate) fn of(kind: &'a Kind) -> Self {
        Self {
            schema: of(kind),
            root: Some(&kind.kind),
            is_custom: kind.custom.is_some(),
        }
    }

    /// A field of this one, or of its items.
    pub(crate) fn field(self, name: &str) -> Self {
        let mut inside = resolve(self.schema);
        if inside["items"].is_object() {
            inside = resolve(&inside["items"]);
        }
        Self {
            schema: field(inside, name, self.root.is_some()).unwrap_or(&Value::Null),
            root: None,
            ..self
        }
    }

    /// The fields by which the items of a list are told apart; none if by themselves. All other
    /// lists are one value.
    pub(crate) fn keys(self) -> Option<Vec<&'a str>> {
        let keys = texts(&self.schema["x-kubernetes-list-map-keys"]);
        match text(&self.schema["x-kubernetes-list-type"]) {
            "set" => Some(Vec::new()),
            "map" => Some(keys.collect()),
            _ => None,
        }
    }

    /// Why a field of this one is no list of a Go struct, if it is none
    /// (`k8s.io/apimachinery/pkg/util/strategicpatch/meta.go`).
    pub(crate) fn no_list(self, name: &str) -> Option<String> {
        let outer = [self.schema, &self.schema["items"]];
        let outer = outer
            .iter()
            .find_map(|of| text(&of["$ref"]).rsplit('.').next());
        let outer = self.root.or(outer).unwrap_or_default();
        let found = self.field(name).schema;
        match text(&found["type"]) {
            "array" => None,
            _ if found.is_null() => Some(format!(
                "unable to find api field in struct {outer} for the json field {name:?}"
            )),
            _ => Some("expected slice or array type, but got: struct".to_owned()),
        }
    }

    /// Whether nothing but what is there tells the items of a list apart.
    pub(crate) fn has_no_defaults(self) -> bool {
        self.is_custom
    }

    /// Likewise for a strategic merge patch, which knows at most one field.
    pub(crate) fn merge_key(self) -> Option<Option<&'a str>> {
        let is_merged = self.schema["x-kubernetes-patch-strategy"] == "merge";
        is_merged.then(|| self.schema["x-kubernetes-patch-merge-key"].as_str())
    }

    /// Whether a map, or the item of a list, is one value.
    pub(crate) fn is_atomic(self) -> bool {
        let is_raw =
            |of: &Value| !self.is_custom && of["x-kubernetes-preserve-unknown-fields"] == true;
        let is = |of: &Value| of["x-kubernetes-map-type"] == "atomic" || is_raw(of);
        is(self.schema) || is(&self.schema["items"])
    }
}
