//! Lists in pages: out come objects with the version of the list that they belong to.

use serde::{Deserialize, de::DeserializeOwned};

use super::Request;
use crate::Result;

/// Objects of one kind, as a list or a page of one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = kubewire::testing::ApiServer::builder().start().await?;
/// # let client = kubewire::Client::new(&server.config())?;
/// use kubewire::request::Resource;
/// use serde_json::{Value, json};
///
/// let maps = client.request(Resource::namespaced("", "v1", "configmaps")).namespace("default");
/// use kubewire::request::List;
///
/// let _: Value = maps.create(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site"}})).await?;
/// let all: List<Value> = maps.list().await?;
/// assert_eq!(all.items.len(), 1);
/// assert!(!all.metadata.resource_version.is_empty()); // where a watch can go on
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
#[non_exhaustive]
pub struct List<T> {
    /// The version of the list, and what follows it.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The objects. Servers leave out their `apiVersion` and `kind`.
    #[serde(deserialize_with = "null_is_empty")]
    pub items: Vec<T>,
}

/// `metav1.ListMeta`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct ListMeta {
    /// The version from which a watch goes on where this list ends.
    pub resource_version: String,
    /// What to ask for the next page with; empty at the end.
    #[serde(rename = "continue")]
    pub next: String,
    /// How many objects follow, where the server says.
    pub remaining_item_count: Option<u64>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            metadata: ListMeta::default(),
            items: Vec::new(),
        }
    }
}

/// Go writes an empty slice as `null`.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The pages of a list; see [`Request::pages`].
#[derive(Debug)]
pub struct Pages<T> {
    request: Request,
    size: u32,
    /// What to ask for the next page with; `None` at the end.
    next: Option<String>,
    item: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Pages<T> {
    pub(super) fn new(request: Request, size: u32) -> Self {
        Self {
            request,
            size,
            next: Some(String::new()),
            item: std::marker::PhantomData,
        }
    }

    /// The next page; `None` after the last. Cancel safe: the same page is asked for again.
    ///
    /// # Errors
    ///
    /// Those of [`Request`]. A 410 `Expired` means that the server no longer has the version of
    /// the list: begin again.
    pub async fn next(&mut self) -> Result<Option<List<T>>> {
        let Some(next) = &self.next else {
            return Ok(None);
        };
        let next = Some(next.as_str()).filter(|next| !next.is_empty());
        let page: List<T> = self.request.page(self.size, next).await?;
        self.next = Some(page.metadata.next.clone()).filter(|next| !next.is_empty());
        Ok(Some(page))
    }
}
