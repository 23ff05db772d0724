//! Watches: in flows which objects, out comes a stream of what happens to them.

use std::{
    collections::HashSet,
    marker::PhantomData,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::header::CONTENT_TYPE;

use super::{
    Client, MirrorBuilder,
    events::{Events, Incoming},
    span,
};
use crate::{
    Resource, Result,
    error::{PeerError, panic::lock},
    resource::with_query,
    session::watch::{Form, Shard, Source, Update, Watch as Session, WatchConfig},
    transport::http::{
        About,
        exchange::{Answer, Driver, Get, StreamStats},
        refusal, text,
    },
    wire::watch::{Decode, Encoding, Event, EventError, Object, TypedEvent},
};

/// The resources of a server that were found to lack watch-list.
pub(crate) type WithoutWatchList = Mutex<HashSet<Resource>>;

/// A watch to be: which objects, and in which form.
///
/// ```no_run
/// # async fn run(client: kubewire::Client) -> kubewire::Result<()> {
/// use kubewire::{Resource, watch::Update};
///
/// let mut watch = client.watch(Resource::namespaced("", "v1", "pods")).namespace("default").stream();
/// while let Some(update) = watch.next().await {
///     if let Update::Event(event) = update? {
///         println!("{} {}", event.event_type.as_str(), event.object.metadata()?.name()?);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a watch does nothing until it is started"]
pub struct Watch<E = Event> {
    of: Watched,
    event: PhantomData<fn() -> E>,
}

#[derive(Debug, Clone)]
struct Watched {
    client: Client,
    resource: Resource,
    namespace: Option<String>,
    name: Option<String>,
    config: WatchConfig,
    websocket: bool,
}

impl Watch {
    pub(super) fn new(client: Client, resource: Resource) -> Self {
        Self {
            of: Watched {
                client,
                resource,
                namespace: None,
                name: None,
                config: WatchConfig::default(),
                websocket: false,
            },
            event: PhantomData,
        }
    }

    /// With events whose objects decode into `K`, any `serde` type, or a message of k8s-pb in
    /// [`Protobuf`](crate::watch::Protobuf).
    pub fn typed<K: Decode>(mut self) -> Watch<TypedEvent<K>> {
        // What serde reads may come as it was asked for.
        if K::ENCODING != Encoding::Json {
            self.of.config.encoding = K::ENCODING;
        }
        Watch {
            of: self.of,
            event: PhantomData,
        }
    }
}

impl<E: From<Event> + 'static> Watch<E> {
    /// A copy of the objects for many readers, of each what `keep` makes of it. Where the type says
    /// what is watched, [`Client::mirror`] is all it takes.
    ///
    /// ```no_run
    /// # async fn run(client: kubewire::Client) -> kubewire::Result<()> {
    /// use serde_json::Value;
    ///
    /// let things = client.find("things").await?.resource;
    /// let things = client.watch(things).mirror(|thing| thing.decode::<Value>()).start();
    /// things.wait_until_ready().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What holds a slice of the object keeps the buffer alive that it arrived in.
    pub fn mirror<K, F>(self, keep: F) -> MirrorBuilder<K>
    where
        K: Send + Sync + 'static,
        F: Fn(&Object) -> Result<K, EventError> + Send + Sync + 'static,
    {
        let event = PhantomData;
        MirrorBuilder::new(Watch { of: self.of, event }, keep)
    }

    pub(super) fn in_namespace(&self) -> Option<&str> {
        self.of.namespace.as_deref()
    }

    setters! {
        /// Only objects of this namespace. Without, those of all.
        fn namespace(namespace: impl Into<String>) of.namespace = Some(namespace.into());

        /// Only the object of this name.
        fn name(name: impl Into<String>) of.name = Some(name.into());

        /// Only objects whose labels match, such as `app=web,tier!=cache`. An object that comes to
        /// match is added, one that no longer does is deleted.
        fn labels(selector: impl Into<String>) of.config.label_selector = selector.into();

        /// Only objects whose fields match, such as `spec.nodeName=node-1`. Which fields can be
        /// selected by depends on the resource.
        fn fields(selector: impl Into<String>) of.config.field_selector = selector.into();

        /// Only a part of the objects (KEP-5866). Servers that do not know shards send all of them,
        /// which the end of the snapshot tells; the others are dropped here.
        fn shard(shard: Shard) of.config.shard = Some(shard);

        /// Go on from this resourceVersion instead of beginning with a snapshot.
        fn from(resource_version: impl Into<String>) of.config.from = Some(resource_version.into());

        /// Which encoding to prefer. What the server does not have comes as JSON.
        fn encoding(encoding: Encoding) of.config.encoding = encoding;

        /// Which form of the objects to ask for: themselves, their metadata only, or a table.
        fn form(form: Form) of.config.form = form;

        /// How many objects a page holds where the snapshot is a list; 0 for all.
        fn page(objects: usize) of.config.page = objects;

        /// Whether to ask for the snapshot as part of the watch (KEP-3157), which is the default;
        /// where the server cannot, it is a list in pages.
        fn watch_list(yes: bool) of.config.watch_list = yes;

        /// How long the server is asked to keep one connection's watch up, and at random up to twice
        /// as long. Without bookmarks it is also the measure of a connection that died silently.
        fn timeout(timeout: Duration) of.config.timeout = timeout;

        /// Bytes of the largest event.
        fn max_event(bytes: usize) of.config.max_event = bytes;

        /// Watch over a WebSocket of its own, one event a message, instead of the body of an HTTP
        /// response: for proxies that hold HTTP bodies back until they end, and for places that let
        /// only WebSockets last. All else is the same, resumption included, and the connection is
        /// pinged. Lists, where watch-list cannot be had, still go over HTTP.
        fn over_websocket() of.websocket = true;
    }

    /// A watch that never ends: a snapshot of all objects first, then every change, whatever
    /// happens to connections. The first request is made when the stream is polled, in a tokio
    /// runtime.
    pub fn stream(self) -> Updates<E> {
        let session = Session::new(self.of.config(), crate::transport::now(), rand::random());
        let (http, resource) = (self.of.client.http().clone(), self.of.resource.clone());
        let without_watch_list = self.of.client.without_watch_list().clone();
        let namespace = self.of.namespace.as_deref();
        let span = span::watch(&self.of.client, &resource.to_string(), namespace);
        let to_get = move |request| self.of.get(request);
        Updates {
            driver: Driver::new(session, http, span, to_get),
            resource,
            without_watch_list,
            event: PhantomData,
        }
    }

    /// A single watch: what the server says, and its end. From the version given with
    /// [`from`](Self::from); without, the server makes up the events that lead to the state of
    /// now, in no order.
    ///
    /// # Errors
    ///
    /// [`Error::Api`](crate::Error::Api) if the server refuses the request, [`Error::Network`](crate::Error::Network) if it cannot be
    /// reached.
    pub async fn once(self) -> Result<Events<E>> {
        let config = self.of.config();
        let from = config.from.clone().unwrap_or_default();
        let request = crate::session::watch::single(&config, &from);
        let get = self.of.get(request)?;
        let operation = get.operation.clone();
        let response = match get.send(self.of.client.http().clone()).await? {
            Answer::Http(response) => response,
            Answer::WebSocket(messages) => {
                let source = Source::messages(config.encoding, config.max_event);
                return Ok(Events::new(source, Incoming::Messages(messages)));
            }
        };
        if response.status() != http::StatusCode::OK {
            return Err(refusal(&operation, response).await);
        }
        let found = text(response.headers(), CONTENT_TYPE).unwrap_or("none");
        let encoding = Encoding::from_content_type(found).ok_or(PeerError::ContentType {
            found: found.to_owned(),
        })?;
        let source = Source::body(encoding, config.max_event);
        Ok(Events::new(source, Incoming::Body(response.into_body())))
    }
}

impl Watched {
    fn get(&self, request: crate::session::watch::Request) -> Result<Get> {
        let path = self.resource.path(self.namespace.as_deref(), None, None)?;
        // A watch has no subprotocol.
        let websocket = (self.websocket && request.is_watch).then_some(&[][..]);
        Ok(Get {
            path_and_query: with_query(path, &request.query),
            operation: format!("watch {}", self.config().what),
            about: About {
                verb: if request.is_watch { "watch" } else { "list" }.into(),
                resource: self.resource.to_string(),
                namespace: self.namespace.clone(),
                name: None,
            },
            accept: request.accept,
            websocket,
            compress: true,
        })
    }

    fn config(&self) -> WatchConfig {
        let mut config = self.config.clone();
        config.what = match &self.namespace {
            Some(namespace) => format!("{} in {namespace}", self.resource),
            None => self.resource.to_string(),
        };
        if let Some(name) = &self.name {
            let by_name = format!("metadata.name={name}");
            config.field_selector = match config.field_selector.as_str() {
                "" => by_name,
                fields => format!("{fields},{by_name}"),
            };
        }
        if lock(self.client.without_watch_list()).contains(&self.resource) {
            config.watch_list = false;
        }
        config
    }
}

/// The stream of a [`Watch`] that never ends, except by an error that repeating cannot help.
///
/// Errors that pass are told as [`Update::Retrying`] and the stream goes on. What the server has
/// understood and refused is an `Err`; the stream goes on after that too, if it is polled again.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// use kubewire::{Resource, watch::Update};
///
/// let pods = Resource::namespaced("", "v1", "pods");
/// let mut updates = client.watch(pods).namespace("default").stream();
/// while let Some(update) = updates.next().await {
///     match update? {
///         Update::Event(event) => println!("{}", event.object.metadata()?.name()?),
///         Update::Retrying { error, retry_in, .. } => println!("{error}; again in {retry_in:?}"),
///         Update::SnapshotEnd { .. } => break, // all that was there has been told
///         _ => {}
///     }
/// }
/// assert!(!updates.resource_version().is_empty());
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Updates<E = Event> {
    driver: Driver<Session>,
    resource: Resource,
    without_watch_list: Arc<WithoutWatchList>,
    event: PhantomData<fn() -> E>,
}

impl<E: From<Event>> Updates<E> {
    /// The next update; never `None`.
    ///
    /// Cancel safe: what has arrived is kept.
    pub async fn next(&mut self) -> Option<Result<Update<E>>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// The version from which a new watch would go on; empty before the first snapshot is
    /// complete.
    pub fn resource_version(&self) -> &str {
        self.driver.session().resource_version()
    }

    /// What the watch has cost so far.
    pub fn stats(&self) -> StreamStats {
        self.driver.stats()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Update<E>>>> {
        let update = ready!(self.driver.poll_update(cx))?;
        if let Update::SnapshotEnd { .. } = update
            && self.driver.session().lacks_watch_list()
        {
            lock(&self.without_watch_list).insert(self.resource.clone());
        }
        if let Update::Retrying {
            error,
            retry_in,
            refused,
        } = &update
        {
            self.driver.count_retry();
            tracing::debug!(parent: self.driver.span(), %error, ?retry_in, refused, "a watch is tried again");
            if *refused {
                return Poll::Ready(Some(Err(error.clone())));
            }
        }
        Poll::Ready(Some(Ok(update.map(E::from))))
    }
}

stream!([E: From<Event>] Updates<E>, Result<Update<E>>, poll);
