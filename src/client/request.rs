//! Plain requests: in flow a resource, names and objects of any `serde` type, out come objects, or
//! the server's Status as an error.

mod answer;

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Response,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde::Serialize;
use serde_json::Value;

pub(super) use self::answer::{Answer, read};
use super::{Body, Client, Deleted, List, Pages, Patch, Resource};
use crate::{
    Error, Result,
    error::{CallerError, NetworkError},
    limits,
    resource::with_query,
    transport::http::{About, Outgoing, header_value, refusal, text, unexpected},
    wire::watch::{Decode, Encoding},
};

const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// Requests for the objects of one resource; see [`Client::request`].
///
/// Objects are of any `serde` type, or, where they are only read, any that is [`Decode`]. One that
/// leaves fields out loses them when it is sent back: for [`replace`](Self::replace) and [`update`](Self::update) take a complete type, or
/// [`serde_json::Value`].
///
/// ```
/// # kubewire::example(|pod| pod.label("app", "web").container("main", ["sleep", "9"]), async |client| {
/// use kubewire::request::List;
/// use serde_json::Value;
///
/// let pods = client.request(client.find("po").await?.resource).namespace("default");
/// let all: List<Value> = pods.clone().labels("app=web").list().await?;
/// let pod: Value = pods.get("web-0").await?;
/// assert_eq!(all.items[0]["metadata"], pod["metadata"]);
/// assert!(pods.get::<Value>("web-1").await.unwrap_err().is_not_found());
/// # Ok(())
/// # });
/// ```
///
/// Every method gives the server's refusal as [`Error::Api`], with its Status, or as
/// [`Error::Conflict`]; an answer that is not the expected object as
/// [`PeerError::Answer`](crate::error::PeerError::Answer); and besides the errors of
/// [`Client::send`]. Dropping a future gives the request up; the server may carry it out all the same.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until a method such as `get` is awaited"]
pub struct Request {
    client: Client,
    resource: Resource,
    namespace: Option<String>,
    subresource: Option<String>,
    query: Vec<(Cow<'static, str>, String)>,
    /// Ask for the metadata of objects only.
    metadata: bool,
    deadline: Duration,
}

impl Request {
    pub(super) fn new(client: Client, resource: Resource) -> Self {
        Self {
            client,
            resource,
            namespace: None,
            subresource: None,
            query: Vec::new(),
            metadata: false,
            deadline: limits::REQUEST,
        }
    }

    setters! {
        /// In this namespace. Without one, a list is of all namespaces, and every other request of a
        /// namespaced resource is in the client's namespace. Resources of the cluster ignore it.
        fn namespace(namespace: impl Into<String>) namespace = Some(namespace.into());

        /// The subresource of the object: `status`, `scale`, `log`, `eviction`.
        fn subresource(subresource: impl Into<String>) subresource = Some(subresource.into());

        /// One more parameter of the query, such as `dryRun` with `All`.
        fn query(key: impl Into<Cow<'static, str>>, value: impl Into<String>)
            query.push((key.into(), value.into()));

        /// How long the answer may take to begin, each time the request is sent; by default
        /// [`limits::REQUEST`].
        fn timeout(timeout: Duration) deadline = timeout;
    }

    /// Only objects with these labels: `app=web,tier!=cache`.
    pub fn labels(self, selector: impl Into<String>) -> Self {
        self.select("labelSelector", selector)
    }

    /// Only objects with these fields: `metadata.name=web-0`.
    pub fn fields(self, selector: impl Into<String>) -> Self {
        self.select("fieldSelector", selector)
    }

    fn select(mut self, key: &'static str, selector: impl Into<String>) -> Self {
        self.query.retain(|(known, _)| known != key);
        self.query(key, selector)
    }

    pub(super) fn metadata(mut self) -> Self {
        self.metadata = true;
        self
    }

    /// The object of this name.
    ///
    /// # Errors
    ///
    /// Those of [`Request`].
    pub async fn get<T: Decode>(&self, name: &str) -> Result<T> {
        let call = self.call("get", Method::GET, Some(name))?;
        self.object(call).await
    }

    /// The bytes that the server answers, as they are: of an object, a log, a table.
    ///
    /// # Errors
    ///
    /// Those of [`Request`].
    pub async fn get_raw(&self, name: &str, accept: &str) -> Result<Body> {
        let mut call = self.call("get", Method::GET, Some(name))?;
        call.headers.insert(ACCEPT, header_value(accept)?);
        Ok(self.success(call).await?.into_body())
    }

    /// All objects, page by page, in one list. Its version is that of the first page.
    ///
    /// # Errors
    ///
    /// Those of [`Request`]. If the server forgets the list between two pages (410 `Expired`), it
    /// is fetched again, once, in one page.
    pub async fn list<T: Decode + Send + 'static>(&self) -> Result<List<T>> {
        let mut pages = self.pages(limits::PAGE);
        let mut all: Option<List<T>> = None;
        loop {
            match pages.next().await {
                Ok(None) => return Ok(all.unwrap_or_default()),
                Ok(Some(page)) => match &mut all {
                    None => all = Some(page),
                    Some(all) => all.items.extend(page.items),
                },
                // pager.List of k8s.io/client-go/tools/pager falls back in the same way.
                Err(Error::Api(error)) if error.status.code == 410 && all.is_some() => {
                    let page = self.pages(0).next().await?;
                    return Ok(page.unwrap_or_default());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The objects in pages of so many; 0 for all at once. Nothing is sent yet.
    pub fn pages<T: Decode + Send + 'static>(&self, size: u32) -> Pages<T> {
        Pages::new(self.clone(), size)
    }

    /// The bytes of a list, as they are.
    ///
    /// # Errors
    ///
    /// Those of [`Request`].
    pub async fn list_raw(&self, accept: &str) -> Result<Body> {
        let mut call = self.call("list", Method::GET, None)?;
        call.headers.insert(ACCEPT, header_value(accept)?);
        Ok(self.success(call).await?.into_body())
    }

    /// Creates an object and gives it as the server made it.
    ///
    /// # Errors
    ///
    /// Those of [`Request`]; 409 `AlreadyExists` is an [`Error::Api`].
    pub async fn create<T>(&self, object: &T) -> Result<T>
    where
        T: Serialize + Decode,
    {
        self.send("create", Method::POST, None, object).await
    }

    /// Creates a subresource of the object of this name, such as `eviction` or `token`, and gives
    /// what the server answers.
    ///
    /// # Errors
    ///
    /// Those of [`Request`].
    pub async fn create_for<T, R>(&self, name: &str, object: &T) -> Result<R>
    where
        T: Serialize,
        R: Decode,
    {
        self.send("create", Method::POST, Some(name), object).await
    }

    /// Puts the object in place of the one of this name. If it has a `resourceVersion` that is not
    /// the present one, that is an [`Error::Conflict`].
    ///
    /// # Errors
    ///
    /// Those of [`Request`].
    pub async fn replace<T>(&self, name: &str, object: &T) -> Result<T>
    where
        T: Serialize + Decode,
    {
        self.send("update", Method::PUT, Some(name), object).await
    }

    /// Changes the object of this name, or with [`Patch::Apply`] creates it.
    ///
    /// # Errors
    ///
    /// Those of [`Request`]; an [`Error::Conflict`] from apply names the fields and their owners
    /// in the causes of its Status.
    pub async fn patch<'a, T, R>(&self, name: &str, patch: impl Into<Patch<'a, T>>) -> Result<R>
    where
        T: Serialize + 'a,
        R: Decode,
    {
        let mut request = self.clone();
        let patch = patch.into();
        let is_inferred = matches!(patch, Patch::Inferred(_));
        let (form, body) = match patch {
            // Which of the two shows when it is written.
            Patch::Inferred(body) | Patch::Merge(body) => (MERGE_PATCH, body),
            Patch::Json(body) => (JSON_PATCH, body),
            Patch::Strategic(body) => ("application/strategic-merge-patch+json", body),
            Patch::Apply {
                object,
                manager,
                force,
            } => {
                request = request
                    .query("fieldManager", manager)
                    .query("force", force.to_string());
                // JSON is YAML.
                ("application/apply-patch+yaml", object)
            }
        };
        let mut call = request.call("patch", Method::PATCH, Some(name))?;
        request.write(&mut call, form, body)?;
        if is_inferred && call.body.starts_with(b"[") {
            let form = HeaderValue::from_static(JSON_PATCH);
            call.headers.insert(CONTENT_TYPE, form);
        }
        request.object(call).await
    }

    /// Deletes the object of this name. `options` are those of `metav1.DeleteOptions`, such as
    /// `{"propagationPolicy": "Foreground", "preconditions": {"uid": …}}`.
    ///
    /// # Errors
    ///
    /// Those of [`Request`].
    pub async fn delete<T: Decode>(
        &self,
        name: &str,
        options: Option<&Value>,
    ) -> Result<Deleted<T>> {
        let mut call = self.call("delete", Method::DELETE, Some(name))?;
        if let Some(options) = options {
            self.write(&mut call, JSON, options)?;
        }
        let answer = self.answer::<T>(call).await?;
        match answer.status()? {
            Some(status) => Ok(Deleted::Gone(Box::new(status))),
            None => answer.object().map(Deleted::Object),
        }
    }

    pub(super) fn call(
        &self,
        verb: &'static str,
        method: Method,
        name: Option<&str>,
    ) -> Result<Outgoing> {
        let all = name.is_none() && method == Method::GET;
        let namespace = match &self.namespace {
            Some(namespace) => Some(namespace.as_str()),
            None => (!all).then(|| self.client.namespace()),
        };
        let part = self.subresource.as_deref();
        let path = self.resource.path(namespace, name, part)?;
        let mut resource = self.resource.to_string();
        resource.extend(part.iter().flat_map(|part| ["/", part]));
        let namespace = namespace.filter(|_| self.resource.namespaced);
        let place: Vec<_> = [namespace, name].into_iter().flatten().collect();
        let operation = format!("{verb} {resource} {}", place.join("/"));
        let mut call = Outgoing::get(operation.trim_end(), with_query(path, &self.query));
        call.about = About {
            verb: verb.into(),
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        };
        call.method = method;
        call.deadline = Some(self.deadline);
        call.compress = all;
        let accept = match (self.metadata, all) {
            (false, _) => JSON,
            (true, false) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            (true, true) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        };
        call.headers
            .insert(ACCEPT, HeaderValue::from_static(accept));
        Ok(call)
    }

    fn write(&self, call: &mut Outgoing, form: &'static str, body: &impl Serialize) -> Result<()> {
        let body = serde_json::to_vec(body).map_err(|error| CallerError::Json {
            operation: call.operation.clone(),
            source: std::sync::Arc::new(error),
        })?;
        call.body = Bytes::from(body);
        let form = HeaderValue::from_static(form);
        call.headers.insert(CONTENT_TYPE, form);
        Ok(())
    }

    async fn send<R: Decode>(
        &self,
        verb: &'static str,
        method: Method,
        name: Option<&str>,
        object: &impl Serialize,
    ) -> Result<R> {
        let mut call = self.call(verb, method, name)?;
        self.write(&mut call, JSON, object)?;
        self.object(call).await
    }

    async fn object<T: Decode>(&self, call: Outgoing) -> Result<T> {
        self.answer::<T>(call).await?.object()
    }

    async fn answer<T: Decode>(&self, call: Outgoing) -> Result<Answer> {
        let operation = call.operation.clone();
        let again = call.method.is_safe().then(|| call.clone());
        let (encoding, body) = self.body::<T>(call).await?;
        match (body.object(&operation).await, again) {
            (Err(Error::Network(NetworkError::Lost(_))), Some(again)) => {
                let (encoding, body) = self.body::<T>(again).await?;
                let body = body.object(&operation).await?;
                Ok(Answer::new(operation, encoding, body))
            }
            (body, _) => Ok(Answer::new(operation, encoding, body?)),
        }
    }

    /// Sends a request; the answer is in the encoding of `T` where the server has it.
    pub(super) async fn body<T: Decode>(&self, mut call: Outgoing) -> Result<(Encoding, Body)> {
        if T::ENCODING != Encoding::Json
            && let Some(json) = text(&call.headers, ACCEPT)
        {
            let first = json.replacen(Encoding::Json.media_type(), T::ENCODING.media_type(), 1);
            let accept = header_value(&format!("{first},{json}"))?;
            call.headers.insert(ACCEPT, accept);
        }
        let operation = call.operation.clone();
        let (head, body) = self.success(call).await?.into_parts();
        if let Some(error) = unexpected(&operation, &head) {
            return Err(error);
        }
        let encoding = text(&head.headers, CONTENT_TYPE).and_then(Encoding::from_content_type);
        Ok((encoding.unwrap_or(Encoding::Json), body))
    }

    async fn success(&self, call: Outgoing) -> Result<Response<Body>> {
        let operation = call.operation.clone();
        let response = self.client.http().send(call).await?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(refusal(&operation, response).await),
        }
    }
}

#[cfg(test)]
mod tests;
