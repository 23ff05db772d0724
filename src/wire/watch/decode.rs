//! What objects become: in flow unparsed objects and lists, out come values of a Rust type.

use serde::{Deserialize, de::DeserializeOwned};

use super::{Encoding, EventError, List, ListDecoder, Object, json, json_de};

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

    /// Reads a list, or a page of one: what it says beside its items, and the items.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode), and if the list is malformed.
    fn decode_list(list: &Object) -> Result<(List, Vec<Self>), EventError> {
        // The whole is here, and no part of it is larger.
        let all = list.bytes.len();
        let mut decoder = ListDecoder::with_bounds(list.encoding, all, all);
        decoder.push(list.bytes.clone());
        let mut items = Vec::new();
        while let Some(item) = decoder.next_item()? {
            items.push(Self::decode(&item)?);
        }
        let list = decoder.finish()?;
        while let Some(item) = decoder.next_item()? {
            items.push(Self::decode(&item)?);
        }
        Ok((list, items))
    }
}

impl<T: DeserializeOwned> Decode for T {
    const ENCODING: Encoding = Encoding::Json;

    fn decode(object: &Object) -> Result<Self, EventError> {
        object.decode()
    }

    fn decode_list(list: &Object) -> Result<(List, Vec<Self>), EventError> {
        let Whole { metadata, items } = match list.encoding {
            Encoding::Json => {
                let text = list.text()?;
                let (whole, end) = json_de::from_str(text)?;
                end_of(&text.as_bytes()[end..])?;
                whole
            }
            _ => list.decode()?,
        };
        let list = List {
            resource_version: metadata.resource_version,
            continue_token: metadata.next,
            remaining_item_count: metadata.remaining_item_count,
            ..List::default()
        };
        Ok((list, items.unwrap_or_default()))
    }
}

/// Nothing but space may follow an answer.
fn end_of(rest: &[u8]) -> Result<(), EventError> {
    match rest.trim_ascii().is_empty() {
        true => Ok(()),
        false => Err(json::malformed("something follows the object")),
    }
}

/// What an answer is, before it becomes something.
#[cfg(feature = "client")]
impl Object {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it says that it is a Status.
    pub(crate) fn is_status(&self) -> bool {
        let kind = self.metadata().and_then(|it| Ok(it.kind()? == "Status"));
        kind.unwrap_or(false)
    }

    /// That nothing follows the object.
    ///
    /// # Errors
    ///
    /// If something does, or if the object is malformed.
    pub(crate) fn alone(&self) -> Result<(), EventError> {
        if self.encoding != Encoding::Json {
            return Ok(());
        }
        let start = json::skip_space(&self.bytes, 0);
        let end = start + json::skip_value(&self.bytes[start..])?;
        end_of(&self.bytes[end..])
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: DeserializeOwned"))]
struct Whole<T> {
    #[serde(default)]
    metadata: WholeMetadata,
    /// Go writes an empty slice as `null`.
    #[serde(deserialize_with = "Option::deserialize")]
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WholeMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
    remaining_item_count: Option<u64>,
}
