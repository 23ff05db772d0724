//! Changes to objects: the forms of one, and changes to what an object is now, however many others
//! change it meanwhile.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Request;
use crate::{
    Error, Result, limits,
    wire::{status::Status, watch::Decode},
};

/// A change to an object, in one of the forms that the API server knows
/// (`k8s.io/apimachinery/pkg/types/patch.go`).
///
/// A reference to anything that can be serialized is [`Inferred`](Self::Inferred):
///
/// ```no_run
/// # async fn run(client: kubewire::Client) -> kubewire::Result<()> {
/// use k8s_openapi::api::apps::v1::Deployment;
/// use kubewire::request::Patch;
/// use serde_json::json;
///
/// let deployments = client.api::<Deployment>().namespace("default");
/// let three = json!({"spec": {"replicas": 3}});
/// deployments.patch("web", &three).await?; // merged
/// deployments.patch("web", Patch::Strategic(&three)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Patch<'a, T> {
    /// A list is a JSON Patch, all else a JSON Merge Patch.
    Inferred(&'a T),
    /// A JSON Patch: a list of operations (RFC 6902).
    Json(&'a T),
    /// A JSON Merge Patch: fields to set, and `null` for those to remove (RFC 7386).
    Merge(&'a T),
    /// As `Merge`, but lists are merged by their items' keys. Only built-in resources know it.
    Strategic(&'a T),
    /// Server-side apply: the fields that this manager wants as they are.
    Apply {
        /// The object with `apiVersion`, `kind` and those fields.
        object: &'a T,
        /// Who owns the fields.
        manager: &'a str,
        /// Whether to take fields over that others own. Without it that is a conflict.
        force: bool,
    },
}

impl<'a, T> From<&'a T> for Patch<'a, T> {
    fn from(patch: &'a T) -> Self {
        Self::Inferred(patch)
    }
}

/// What the server answers to a delete.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// use kubewire::request::{Deleted, Resource};
/// use serde_json::{Value, json};
///
/// let maps = client.request(Resource::namespaced("", "v1", "configmaps"));
/// let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site"}});
/// let _: Value = maps.create(&map).await?;
/// match maps.delete::<Value>("site", None).await? {
///     Deleted::Gone(status) => assert!(status.is_success()),
///     Deleted::Object(map) => println!("it stays for {}", map["metadata"]["finalizers"]),
///     _ => {}
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Deleted<T> {
    /// The object as it was, or as it is while finalizers or a grace period keep it.
    Object(T),
    /// It is gone.
    Gone(Box<Status>),
}

/// Any object, as far as its finalizers go.
#[derive(Deserialize, Serialize)]
struct Held {
    metadata: HeldMetadata,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize, Serialize)]
struct HeldMetadata {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    finalizers: Vec<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Request {
    /// Reads the object of this name, changes it and puts it back; after a conflict all of it
    /// again, up to [`limits::UPDATES`] times. If nothing changes, nothing is sent.
    ///
    /// # Errors
    ///
    /// Those of [`Request`]; [`Error::Conflict`] if others were always faster.
    pub async fn update<T, F>(&self, name: &str, mut change: F) -> Result<T>
    where
        T: Serialize + Decode,
        F: FnMut(&mut T),
    {
        let mut pause = limits::UPDATE_PAUSE;
        let mut tries = 0;
        loop {
            let mut object: T = self.get(name).await?;
            let before = serde_json::to_value(&object).ok();
            change(&mut object);
            if before.is_some() && before == serde_json::to_value(&object).ok() {
                return Ok(object);
            }
            match self.replace(name, &object).await {
                Err(Error::Conflict(conflict)) if tries < limits::UPDATES => {
                    tracing::debug!(%conflict, tries, "reading again");
                    tries += 1;
                    tokio::time::sleep(pause.mul_f64(rand::random_range(1.0..1.5))).await;
                    pause *= 2;
                }
                result => return result,
            }
        }
    }

    /// Adds a finalizer to the object of this name, unless it has it: it is then not gone before
    /// [`remove_finalizer`](Self::remove_finalizer), however it is deleted.
    ///
    /// ```
    /// # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
    /// # use k8s_openapi::api::core::v1::ConfigMap;
    /// let maps = client.api::<ConfigMap>().namespace("default");
    /// # let mut map = ConfigMap::default();
    /// # map.metadata.name = Some("site".to_owned());
    /// # maps.create(&map).await?;
    /// maps.add_finalizer("site", "example.com/page").await?;
    /// maps.delete("site", None).await?;
    /// assert!(maps.get("site").await?.metadata.deletion_timestamp.is_some());
    /// maps.remove_finalizer("site", "example.com/page").await?;
    /// assert!(maps.get("site").await.unwrap_err().is_not_found());
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`update`](Self::update); the server refuses a new finalizer for an object that is
    /// being deleted.
    pub async fn add_finalizer(&self, name: &str, finalizer: &str) -> Result<()> {
        let add = |held: &mut Held| {
            let all = &mut held.metadata.finalizers;
            if !all.iter().any(|one| one == finalizer) {
                all.push(finalizer.to_owned());
            }
        };
        self.update(name, add).await.map(drop)
    }

    /// Removes a finalizer from the object of this name, if it has it.
    ///
    /// # Errors
    ///
    /// Those of [`update`](Self::update).
    pub async fn remove_finalizer(&self, name: &str, finalizer: &str) -> Result<()> {
        let remove = |held: &mut Held| held.metadata.finalizers.retain(|one| one != finalizer);
        self.update(name, remove).await.map(drop)
    }
}
