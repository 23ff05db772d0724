//! A site: a custom resource, as far as the controller knows it. What else is in one is kept, since
//! it is sent back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kubewire::{
    Resource,
    request::{Kind, Namespaced},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Site {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: Spec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Status>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Spec {
    pub(crate) page: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) observed_generation: Option<i64>,
    pub(crate) published: bool,
}

impl Kind for Site {
    type Scope = Namespaced;

    fn resource() -> Resource {
        Resource::namespaced("example.com", "v1", "sites")
    }
}

impl Site {
    pub(crate) fn finalizers(&mut self) -> &mut Vec<String> {
        self.metadata.finalizers.get_or_insert_default()
    }

    /// What makes this site the owner of an object.
    pub(crate) fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: Self::resource().api_version(),
            kind: "Site".to_owned(),
            name: self.metadata.name.clone().unwrap_or_default(),
            uid: self.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            ..OwnerReference::default()
        }
    }
}
