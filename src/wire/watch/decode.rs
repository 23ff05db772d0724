//! What objects become: in flow unparsed objects, out come values of a Rust type.

use serde::de::DeserializeOwned;

#[cfg(feature = "client")]
use super::json;
use super::{Encoding, EventError, Object};

/// A type that objects of the API become: any `serde` type, or with the feature `k8s-pb` a message
/// of k8s-pb in [`Protobuf`](super::Protobuf).
///
/// ```
/// use kubewire::{request::Kind, watch::Decode};
///
/// /// Every type whose objects can be found and read.
/// async fn count<K: Kind + Decode + Send>(client: &kubewire::Client) -> kubewire::Result<usize> {
///     Ok(client.api::<K>().list().await?.items.len())
/// }
/// ```
pub trait Decode: Sized {
    /// The encoding that is asked for first. What the server does not have comes as JSON.
    const ENCODING: Encoding;

    /// Reads an object.
    ///
    /// # Errors
    ///
    /// If the object is not of this type, or not in an encoding that it is read from.
    fn decode(object: &Object) -> Result<Self, EventError>;
}

impl<T: DeserializeOwned> Decode for T {
    const ENCODING: Encoding = Encoding::Json;

    fn decode(object: &Object) -> Result<Self, EventError> {
        object.decode()
    }
}

/// What an answer is, before it becomes something.
#[cfg(feature = "client")]
impl Object {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_status(&self) -> bool {
        let kind = self.metadata().and_then(|it| Ok(it.kind()? == "Status"));
        kind.unwrap_or(false)
    }

    /// That nothing follows the object, which is well-formed.
    pub(crate) fn alone(&self) -> Result<(), EventError> {
        if self.encoding != Encoding::Json {
            return Ok(());
        }
        let start = json::skip_space(&self.bytes, 0);
        let end = start + json::skip_value(&self.bytes[start..])?;
        match self.bytes[end..].trim_ascii().is_empty() {
            true => Ok(()),
            false => Err(Encoding::Json.malformed("something follows the object")),
        }
    }
}
