//! Objects of a type that is known: in flows the type, out come requests and watches that give and
//! take nothing else.

use std::{marker::PhantomData, time::Duration};

use serde::Serialize;
use serde_json::Value;

use super::{Client, Deleted, List, MirrorBuilder, Pages, Patch, Request, Watch};
use crate::{
    Result,
    error::CallerError,
    resource::{InNamespaces, Kind, Scope},
    session::watch::Form,
    wire::watch::{Decode, TypedEvent},
};

/// The objects of one type; see [`Client::api`].
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
/// use k8s_openapi::api::core::v1::ConfigMap;
/// use serde_json::json;
///
/// let maps = client.api::<ConfigMap>().namespace("default");
/// let mut map = ConfigMap::default();
/// map.metadata.name = Some("site".to_owned());
/// maps.create(&map).await?;
/// maps.patch("site", &json!({"data": {"theme": "dark"}})).await?;
/// let map = maps.get("site").await?;
/// assert_eq!(map.data.unwrap_or_default()["theme"], "dark");
/// # Ok(())
/// # });
/// ```
///
/// The errors are those of [`Request`], which is the same for a resource that only the running
/// program knows.
#[derive(Debug)]
#[must_use = "nothing is sent until a method such as `get` is awaited"]
pub struct Api<K> {
    request: Request,
    /// The same of selected objects.
    list: Request,
    watch: Watch,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self {
            request: self.request.clone(),
            list: self.list.clone(),
            watch: self.watch.clone(),
            kind: PhantomData,
        }
    }
}

impl<K: Kind> Api<K> {
    pub(super) fn new(client: &Client) -> Self {
        let resource = crate::Resource {
            namespaced: <K::Scope as Scope>::NAMESPACED,
            ..K::resource()
        };
        let mut request = client.request(resource.clone());
        let mut watch = client.watch(resource);
        if K::is_metadata() {
            request = request.metadata();
            watch = watch.form(Form::Metadata);
        }
        Self {
            list: request.clone(),
            request,
            watch,
            kind: PhantomData,
        }
    }

    /// In this namespace. Without one, lists and watches are of all namespaces, and every other
    /// request is in the client's namespace.
    ///
    /// Objects of the cluster have none:
    ///
    /// ```compile_fail,E0277
    /// # fn run(client: kubewire::Client) {
    /// client.api::<k8s_openapi::api::core::v1::Node>().namespace("default");
    /// # }
    /// ```
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self
    where
        K::Scope: InNamespaces,
    {
        let namespace = namespace.into();
        self.request = self.request.namespace(&namespace);
        self.list = self.list.namespace(&namespace);
        self.watch = self.watch.namespace(namespace);
        self
    }

    /// Of lists and watches only objects with these labels: `app=web,tier!=cache`.
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        let selector = selector.into();
        self.list = self.list.labels(&selector);
        self.watch = self.watch.labels(selector);
        self
    }

    /// Of lists and watches only objects with these fields: `spec.nodeName=node-1`.
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        let selector = selector.into();
        self.list = self.list.fields(&selector);
        self.watch = self.watch.fields(selector);
        self
    }

    /// How long the answer of a request may take to begin, each time it is sent; by default
    /// [`limits::REQUEST`](crate::limits::REQUEST).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request = self.request.timeout(timeout);
        self.list = self.list.timeout(timeout);
        self
    }

    /// The status of the objects, which has a path and rights of its own: what is changed there
    /// changes nothing else.
    pub fn status(&self) -> ApiStatus<K> {
        ApiStatus(Self {
            request: self.request.clone().subresource("status"),
            ..self.clone()
        })
    }

    /// A watch of the objects.
    pub fn watch(&self) -> Watch<TypedEvent<K>>
    where
        K: Decode,
    {
        self.watch.clone().typed()
    }

    /// A copy of the objects that follows the server's, for many readers.
    pub fn mirror(&self) -> MirrorBuilder<K>
    where
        K: Decode + Send + Sync,
    {
        self.watch().mirror(K::decode)
    }

    fn whole() -> Result<()> {
        match K::is_metadata() {
            false => Ok(()),
            true => Err(CallerError::MetadataOnly {
                resource: K::resource().to_string(),
            }
            .into()),
        }
    }
}

impl<K: Kind + Decode> Api<K> {
    /// The object of this name.
    ///
    /// # Errors
    ///
    /// Those of [`Request`].
    pub async fn get(&self, name: &str) -> Result<K> {
        self.request.get(name).await
    }

    /// All objects, in one list; see [`Request::list`].
    ///
    /// # Errors
    ///
    /// Those of [`Request::list`].
    pub async fn list(&self) -> Result<List<K>>
    where
        K: Send,
    {
        self.list.list().await
    }

    /// The objects in pages of so many; 0 for all at once. Nothing is sent yet.
    pub fn pages(&self, size: u32) -> Pages<K>
    where
        K: Send,
    {
        self.list.pages(size)
    }

    /// Changes the object of this name, or with [`Patch::Apply`] creates it. A reference is a
    /// [merge patch](Patch::Inferred), or a JSON Patch if it is a list.
    ///
    /// # Errors
    ///
    /// Those of [`Request::patch`].
    pub async fn patch<'a, T>(&self, name: &str, patch: impl Into<Patch<'a, T>>) -> Result<K>
    where
        T: Serialize + 'a,
    {
        self.request.patch(name, patch).await
    }

    /// Deletes the object of this name; see [`Request::delete`] for the options.
    ///
    /// # Errors
    ///
    /// Those of [`Request`].
    pub async fn delete(&self, name: &str, options: Option<&Value>) -> Result<Deleted<K>> {
        self.request.delete(name, options).await
    }

    /// Adds a finalizer to the object of this name; see [`Request::add_finalizer`].
    ///
    /// # Errors
    ///
    /// Those of [`Request::update`].
    pub async fn add_finalizer(&self, name: &str, finalizer: &str) -> Result<()> {
        Self::whole()?;
        self.request.add_finalizer(name, finalizer).await
    }

    /// Removes a finalizer from the object of this name; see [`Request::remove_finalizer`].
    ///
    /// # Errors
    ///
    /// Those of [`Request::update`].
    pub async fn remove_finalizer(&self, name: &str, finalizer: &str) -> Result<()> {
        Self::whole()?;
        self.request.remove_finalizer(name, finalizer).await
    }
}

impl<K: Kind + Serialize + Decode> Api<K> {
    /// Creates an object and gives it as the server made it.
    ///
    /// # Errors
    ///
    /// Those of [`Request`]; 409 `AlreadyExists` is an [`Error::Api`](crate::Error::Api).
    pub async fn create(&self, object: &K) -> Result<K> {
        Self::whole()?;
        self.request.create(object).await
    }

    /// Puts the object in place of the one of this name. If it has a `resourceVersion` that is not
    /// the present one, that is an [`Error::Conflict`](crate::Error::Conflict).
    ///
    /// # Errors
    ///
    /// Those of [`Request`].
    pub async fn replace(&self, name: &str, object: &K) -> Result<K> {
        Self::whole()?;
        self.request.replace(name, object).await
    }

    /// Reads the object of this name, changes it and puts it back, again after a conflict; see
    /// [`Request::update`].
    ///
    /// # Errors
    ///
    /// Those of [`Request::update`].
    pub async fn update(&self, name: &str, change: impl FnMut(&mut K)) -> Result<K> {
        Self::whole()?;
        self.request.update(name, change).await
    }
}

/// The status of the objects of one type; see [`Api::status`].
///
/// ```
/// # async fn run(client: kubewire::Client) -> kubewire::Result<()> {
/// use k8s_openapi::api::core::v1::Pod;
/// use serde_json::json;
///
/// let pods = client.api::<Pod>().namespace("default");
/// pods.status().patch("web-0", &json!({"status": {"reason": "Inspected"}})).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is sent until a method such as `get` is awaited"]
pub struct ApiStatus<K>(Api<K>);

impl<K: Kind + Decode> ApiStatus<K> {
    /// The object of this name, its status with it.
    ///
    /// # Errors
    ///
    /// Those of [`Request`].
    pub async fn get(&self, name: &str) -> Result<K> {
        self.0.get(name).await
    }

    /// Changes the status of the object of this name, as [`Api::patch`] does the object.
    ///
    /// # Errors
    ///
    /// Those of [`Request::patch`].
    pub async fn patch<'a, T>(&self, name: &str, patch: impl Into<Patch<'a, T>>) -> Result<K>
    where
        T: Serialize + 'a,
    {
        self.0.patch(name, patch).await
    }

    /// Puts the status of this object in place of that of the object of this name.
    ///
    /// # Errors
    ///
    /// Those of [`Request`].
    pub async fn replace(&self, name: &str, object: &K) -> Result<K>
    where
        K: Serialize,
    {
        self.0.replace(name, object).await
    }

    /// Reads the object of this name, changes it and puts its status back, again after a conflict.
    ///
    /// # Errors
    ///
    /// Those of [`Request::update`].
    pub async fn update(&self, name: &str, change: impl FnMut(&mut K)) -> Result<K>
    where
        K: Serialize,
    {
        self.0.update(name, change).await
    }
}
