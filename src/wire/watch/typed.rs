//! An event whose object is known to be of some type.

use std::{fmt, marker::PhantomData, ops::Deref};

use super::{Decode, Event, EventError};

/// An event whose object decodes into `K`, once asked to.
///
/// It is an [`Event`] in all else: the metadata are read without parsing the object. As each is
/// decoded by itself, an object that is no `K` is the error of its own event and of no other.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// use k8s_openapi::api::core::v1::Pod;
/// use kubewire::watch::Update;
///
/// let mut updates = client.api::<Pod>().namespace("default").watch().stream();
/// while let Some(update) = updates.next().await {
///     if let Update::Event(event) = update? {
///         assert_eq!(event.object.metadata()?.name()?, "web-0"); // without parsing the Pod
///         let pod: Pod = event.decode()?;
///         assert!(pod.spec.is_some());
///         break;
///     }
/// }
/// # Ok(())
/// # });
/// ```
pub struct TypedEvent<K> {
    event: Event,
    kind: PhantomData<fn() -> K>,
}

impl<K: Decode> TypedEvent<K> {
    /// Parses the object.
    ///
    /// # Errors
    ///
    /// Those of [`Decode::decode`].
    pub fn decode(&self) -> Result<K, EventError> {
        K::decode(&self.event.object)
    }
}

impl<K> From<Event> for TypedEvent<K> {
    fn from(event: Event) -> Self {
        let kind = PhantomData;
        Self { event, kind }
    }
}

impl<K> From<TypedEvent<K>> for Event {
    fn from(typed: TypedEvent<K>) -> Self {
        typed.event
    }
}

impl<K> Deref for TypedEvent<K> {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

impl<K> AsRef<Event> for TypedEvent<K> {
    fn as_ref(&self) -> &Event {
        &self.event
    }
}

impl AsRef<Self> for Event {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<K> Clone for TypedEvent<K> {
    fn clone(&self) -> Self {
        self.event.clone().into()
    }
}

impl<K> fmt::Debug for TypedEvent<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.event.fmt(f)
    }
}
