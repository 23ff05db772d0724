//! Lists in pages: in flow the bodies of answers, out come objects, each read when its last byte is
//! there, with the version of the list that they belong to.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use http::Method;

use super::{Request, request::Answer};
use crate::{
    Error, Result,
    error::{NetworkError, PeerError},
    limits,
    transport::http::body::Body,
    wire::watch::{Decode, Encoding, EventError, ListDecoder},
};

/// Objects of one kind, as a list or a page of one.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
/// use kubewire::request::Resource;
/// use serde_json::{Value, json};
///
/// let maps = client.request(Resource::namespaced("", "v1", "configmaps")).namespace("default");
/// use kubewire::request::List;
///
/// let _: Value = maps.create(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site"}})).await?;
/// let all: List<Value> = maps.list().await?;
/// assert!(all.items.iter().any(|map| map["metadata"]["name"] == "site"));
/// assert!(!all.metadata.resource_version.is_empty()); // where a watch can go on
/// for map in all {
///     println!("{}", map["metadata"]["name"]);
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct List<T> {
    /// The version of the list, and what follows it.
    pub metadata: ListMeta,
    /// The objects. Servers leave out their `apiVersion` and `kind`.
    pub items: Vec<T>,
}

/// `metav1.ListMeta`.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
/// use k8s_openapi::api::core::v1::Pod;
///
/// let list = client.api::<Pod>().namespace("default").list().await?;
/// assert!(list.metadata.next.is_empty()); // that was all
/// // What happens from there on:
/// let watch = client.api::<Pod>().namespace("default").watch().from(list.metadata.resource_version);
/// # drop(watch);
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListMeta {
    /// The version from which a watch goes on where this list ends.
    pub resource_version: String,
    /// What to ask for the next page with; empty at the end.
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

impl<T> IntoIterator for List<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl Request {
    async fn page<T: Decode + Send>(&self, size: u32, next: Option<&str>) -> Result<List<T>> {
        let mut request = self.clone();
        if size > 0 {
            request = request.query("limit", size.to_string());
        }
        if let Some(next) = next {
            request = request.query("continue", next);
        }
        let call = request.call("list", Method::GET, None)?;
        let operation = call.operation.clone();
        let page = async || {
            let (encoding, body) = request.body::<T>(call.clone()).await?;
            read_page(&operation, encoding, body).await
        };
        match page().await {
            Err(Error::Network(NetworkError::Lost(_))) => page().await,
            page => page,
        }
    }
}

/// A page, of which no more is kept than one item that has not arrived whole, and what was made of
/// the others.
async fn read_page<T: Decode + Send>(
    operation: &str,
    encoding: Encoding,
    mut body: Body,
) -> Result<List<T>> {
    let too_large = |what: &str, bound: usize| {
        PeerError::answer(
            operation,
            format!("{what} of it has more than {bound} bytes"),
        )
    };
    // What is short may be a Status, or anything.
    let mut start = BytesMut::new();
    let mut ended = false;
    while !ended && start.len() <= limits::REFUSAL {
        match body.soon().await? {
            Some(chunk) => start.extend_from_slice(&chunk),
            None => ended = true,
        }
    }
    let start = start.freeze();
    let answer = Answer::new(operation.to_owned(), encoding, start.clone());
    answer.status()?;
    let mut list = ListDecoder::with_bounds(encoding, limits::WATCH_EVENT, limits::OBJECT);
    let mut items = Vec::new();
    let mut take = |list: &mut ListDecoder| -> Result<()> {
        loop {
            let item = list.next_item();
            match item.and_then(|item| item.map(|item| T::decode(&item)).transpose()) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => return Ok(()),
                Err(EventError::TooLarge { bound }) => {
                    return Err(too_large("an object", bound).into());
                }
                Err(error) => return Err(answer.unreadable(error)),
            }
        }
    };
    let mut left = limits::OBJECT;
    let mut next = Some(start);
    while let Some(chunk) = next {
        let Some(rest) = left.checked_sub(chunk.len()) else {
            return Err(too_large("a page", limits::OBJECT).into());
        };
        left = rest;
        list.push(chunk);
        take(&mut list)?;
        next = match ended {
            true => None,
            false => body.soon().await?,
        };
    }
    let end = list.finish().map_err(|error| answer.unreadable(error))?;
    take(&mut list)?;
    if !list.has_items() {
        return Err(answer.unreadable(EventError::Decode("it is no list with items".to_owned())));
    }
    let metadata = ListMeta {
        resource_version: end.resource_version,
        next: end.continue_token,
        remaining_item_count: end.remaining_item_count,
    };
    Ok(List { metadata, items })
}

/// The pages of a list; see [`Request::pages`]. As a [`Stream`](futures_core::Stream) it goes on
/// after an error, with the page that failed.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
/// use futures_util::TryStreamExt as _;
/// use k8s_openapi::api::core::v1::Pod;
///
/// let mut pages = client.api::<Pod>().pages(500);
/// while let Some(page) = pages.try_next().await? {
///     println!("{} pods, and {:?} more", page.items.len(), page.metadata.remaining_item_count);
/// }
/// # Ok(())
/// # });
/// ```
pub struct Pages<T> {
    request: Request,
    size: u32,
    /// What to ask for the next page with; `None` at the end.
    next: Option<String>,
    pub(super) pages: u32,
    asked: Option<Asked<T>>,
}

type Asked<T> = Pin<Box<dyn Future<Output = Result<List<T>>> + Send>>;

debug_fields!([T] Pages<T> { request, size, next });

impl<T: Decode + Send + 'static> Pages<T> {
    pub(super) fn new(request: Request, size: u32) -> Self {
        Self {
            request,
            size,
            next: Some(String::new()),
            pages: 0,
            asked: None,
        }
    }

    /// The next page; `None` after the last. Cancel safe: the next call waits for the same page.
    ///
    /// # Errors
    ///
    /// Those of [`Request`]; [`PeerError::Answer`] if the list has no end: a page names itself as
    /// the next, or there are 100,000. A 410 `Expired` means that the server no longer has the
    /// version of the list: begin again.
    pub async fn next(&mut self) -> Result<Option<List<T>>> {
        poll_fn(|cx| self.poll(cx)).await.transpose()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<List<T>>>> {
        let Some(next) = &self.next else {
            return Poll::Ready(None);
        };
        let asked = self.asked.get_or_insert_with(|| {
            let (request, size, next) = (self.request.clone(), self.size, next.clone());
            Box::pin(async move {
                let next = Some(next.as_str()).filter(|next| !next.is_empty());
                request.page(size, next).await
            })
        });
        let page = ready!(asked.as_mut().poll(cx));
        self.asked = None;
        let page = page.and_then(|page| {
            let after = Some(page.metadata.next.clone()).filter(|next| !next.is_empty());
            if after.is_some() && (self.next == after || self.pages >= limits::LIST_PAGES) {
                self.next = None;
                let list = self.request.call("list", Method::GET, None)?;
                return Err(PeerError::endless(list.operation).into());
            }
            self.pages += 1;
            self.next = after;
            Ok(page)
        });
        Poll::Ready(Some(page))
    }
}

stream!([T: Decode + Send + 'static] Pages<T>, Result<List<T>>, poll);
