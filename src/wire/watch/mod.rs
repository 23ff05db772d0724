//! Watch events: JSON, protobuf and CBOR framing, and objects left unparsed.
//!
//! In go the chunks of a watch's response body; a [`Decoder`] cuts them into [`Event`]s, each a
//! slice of the chunk that it arrived in. An event's [`Object`] is not parsed until asked:
//! [`Object::metadata`] reads the few fields that a cache or a controller sorts by, straight from
//! the bytes, and [`Object::decode`] all of it, into any serde type. A [`List`] opens the answer
//! to a list request in the same way.

mod cbor;
mod cbor_de;
mod cursor;
mod decode;
mod decoder;
mod json;
mod json_blocks;
mod json_de;
mod json_line;
mod list;
mod managed;
mod metadata;
mod object_meta;
#[cfg(feature = "k8s-pb")]
mod prost;
mod protobuf;
mod typed;

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use serde::Deserialize;

use self::cursor::{Field, Members, Value};
pub(in crate::wire) use self::json::{EndOfValue, skip_space};
#[cfg(feature = "k8s-pb")]
pub use self::prost::Protobuf;
#[cfg(all(feature = "testing", unix))]
pub(crate) use self::{
    cbor::put_head,
    protobuf::{Fields, MAGIC, Value as Raw, put_varint},
};
pub use self::{
    decode::Decode,
    decoder::Decoder,
    list::{List, ListDecoder},
    metadata::{Labels, Metadata},
    object_meta::ObjectMeta,
    typed::TypedEvent,
};
use super::{keep, status::Status};
use crate::limits;

/// How objects are written.
///
/// ```
/// use kubewire::watch::Encoding;
///
/// let json = Encoding::from_content_type("application/json;stream=watch");
/// assert_eq!(json, Some(Encoding::Json));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// JSON objects one after the other, by custom a line each.
    Json,
    /// `application/vnd.kubernetes.protobuf`. Built-in resources only: custom resources and most
    /// aggregated APIs have no protobuf.
    Protobuf,
    /// CBOR (KEP-4222), where the server has it.
    Cbor,
}

impl Encoding {
    /// The encoding that a `Content-Type` names, of a watch or of a single object.
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        // `k8s.io/apimachinery/pkg/runtime/types.go`, ContentType*.
        match media.to_ascii_lowercase().as_str() {
            "application/json" => Some(Self::Json),
            "application/vnd.kubernetes.protobuf" => Some(Self::Protobuf),
            "application/cbor" | "application/cbor-seq" => Some(Self::Cbor),
            _ => None,
        }
    }

    /// What is wrong with bytes in this encoding.
    const fn malformed(self, what: &'static str) -> EventError {
        let encoding = self;
        EventError::Malformed { encoding, what }
    }

    /// The media type that asks for this encoding.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
            Self::Cbor => "application/cbor",
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Protobuf => "protobuf",
            Self::Cbor => "CBOR",
        })
    }
}

/// What an [`Event`] says about its object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventType {
    /// The object was created, or entered the selection, or was there when the watch began.
    Added,
    /// The object changed.
    Modified,
    /// The object was removed or left the selection; the object is its last state.
    Deleted,
    /// No object changed up to the object's resourceVersion.
    Bookmark,
    /// The watch is over; the object is a [`Status`].
    Error,
    /// A type that this crate does not know.
    Other(Arc<str>),
}

impl EventType {
    fn new(name: &str) -> Self {
        // `k8s.io/apimachinery/pkg/watch/watch.go`.
        match name {
            "ADDED" => Self::Added,
            "MODIFIED" => Self::Modified,
            "DELETED" => Self::Deleted,
            "BOOKMARK" => Self::Bookmark,
            "ERROR" => Self::Error,
            other => Self::Other(other.into()),
        }
    }

    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
            Self::Other(name) => name,
        }
    }
}

/// One event of a watch.
///
/// ```
/// use kubewire::watch::{Encoding, Event, EventType};
///
/// let message = r#"{"type":"DELETED","object":{"metadata":{"name":"web-0"}}}"#;
/// let event = Event::from_message(Encoding::Json, message.into())?;
/// assert_eq!(event.event_type, EventType::Deleted);
/// assert_eq!(event.object.metadata()?.name()?, "web-0");
/// # Ok::<(), kubewire::wire::watch::EventError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub event_type: EventType,
    /// To which object.
    pub object: Object,
}

impl Event {
    /// Reads one event that arrived as a message of its own: over WebSockets a watch sends one
    /// event a message, protobuf without its length prefix
    /// (`k8s.io/apiserver/pkg/endpoints/handlers/watch.go`).
    ///
    /// # Errors
    ///
    /// If the message is no event.
    pub fn from_message(encoding: Encoding, message: Bytes) -> Result<Self, EventError> {
        let (mut event_type, mut object) = (None, None);
        let mut members = Members::new(encoding, &message)?;
        while let Some((key, value)) = members.next()? {
            if key.is(TYPE) {
                event_type = Some(EventType::new(&value.text()?));
            } else if key.is(OBJECT) {
                object = Some(match &event_type {
                    _ if encoding == Encoding::Protobuf => raw_extension(value)?,
                    // By custom nothing follows the object, and its end is left unread.
                    Some(_) => members.last(value)?,
                    None => value.bytes()?,
                });
            }
            if event_type.is_some() && object.is_some() {
                break;
            }
        }
        // In protobuf an empty text or message is not written.
        let (event_type, object) = match encoding {
            Encoding::Protobuf => (
                event_type.unwrap_or_else(|| EventType::new("")),
                object.unwrap_or_default(),
            ),
            _ => (
                event_type.ok_or(encoding.malformed("an event has no type"))?,
                object.ok_or(encoding.malformed("an event has no object"))?,
            ),
        };
        let object = Object::new(encoding, message.slice_ref(object));
        Ok(Self { event_type, object })
    }
}

/// The object in a `runtime.RawExtension`.
fn raw_extension(value: Value<'_>) -> Result<&[u8], EventError> {
    let mut members = value.members()?;
    while let Some((key, value)) = members.next()? {
        if key.is(RAW) {
            return value.bytes();
        }
    }
    Ok(&[])
}

// `metav1.WatchEvent` and `runtime.RawExtension`.
const TYPE: Field = Field("type", 1);
const OBJECT: Field = Field("object", 2);
const RAW: Field = Field("raw", 1);

/// One object, as it arrived and unparsed.
///
/// It keeps the buffer that it arrived in alive. Whoever stores objects for long and receives
/// them in large buffers copies its [`bytes`](Self::bytes).
///
/// ```
/// use kubewire::watch::{Encoding, Object};
///
/// let json = r#"{"kind":"Pod","metadata":{"name":"web-0"},"status":{"phase":"Running"}}"#;
/// let object = Object::new(Encoding::Json, json.into());
/// assert_eq!(object.metadata()?.name()?, "web-0"); // a look at the first bytes
/// let pod: serde_json::Value = object.decode()?; // all of them
/// assert_eq!(pod["status"]["phase"], "Running");
/// # Ok::<(), kubewire::wire::watch::EventError>(())
/// ```
#[derive(Clone)]
pub struct Object {
    encoding: Encoding,
    bytes: Bytes,
    /// What the list said about its items, which do not say it themselves.
    of_list: Option<Arc<TypeMeta>>,
}

/// `apiVersion` and `kind`.
#[derive(Debug, Default, PartialEq, Eq)]
struct TypeMeta {
    api_version: String,
    kind: String,
}

impl Object {
    /// An object as it stands in a watch event or in the answer to a GET request.
    pub fn new(encoding: Encoding, bytes: Bytes) -> Self {
        Self {
            encoding,
            bytes,
            of_list: None,
        }
    }

    /// How the object is written.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The object and nothing else, sharing the buffer that it arrived in.
    ///
    /// In protobuf these are the magic bytes and the `runtime.Unknown` around the object (not
    /// for items of lists, which have none); see [`protobuf_message`](Self::protobuf_message).
    /// In JSON this looks for the object's end, at the cost of a pass over it.
    ///
    /// # Errors
    ///
    /// If the object is malformed.
    pub fn bytes(&self) -> Result<Bytes, EventError> {
        match self.encoding {
            Encoding::Json => {
                let start = json::skip_space(&self.bytes, 0);
                let len = json::skip_value(&self.bytes[start..])?;
                Ok(self.bytes.slice(start..start + len))
            }
            Encoding::Protobuf | Encoding::Cbor => Ok(self.bytes.clone()),
        }
    }

    /// The fields that most readers want, found in the bytes when asked for.
    ///
    /// # Errors
    ///
    /// If the object is malformed before its metadata begins.
    #[inline]
    pub fn metadata(&self) -> Result<Metadata<'_>, EventError> {
        Metadata::new(self)
    }

    /// Parses the object, or as much of it as `T` has: fields that a type does not name are passed
    /// over. Five fields of a Pod of 7 KB are a fifth of the instructions of a whole one. `T` may borrow from the object.
    ///
    /// ```
    /// use std::borrow::Cow;
    ///
    /// use kubewire::watch::{Encoding, Object};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Pod<'a> {
    ///     #[serde(borrow)]
    ///     status: Status<'a>,
    /// }
    ///
    /// #[derive(serde::Deserialize)]
    /// #[serde(rename_all = "camelCase")]
    /// struct Status<'a> {
    ///     #[serde(borrow)]
    ///     phase: Cow<'a, str>,
    ///     #[serde(borrow, rename = "podIP")]
    ///     pod_ip: Option<Cow<'a, str>>,
    /// }
    ///
    /// let pod = r#"{"spec":{"containers":[]},"status":{"phase":"Running","podIP":"10.0.0.7"}}"#;
    /// let object = Object::new(Encoding::Json, pod.into());
    /// let pod: Pod<'_> = object.decode()?;
    /// assert!(matches!(pod.status.phase, Cow::Borrowed("Running")));
    /// assert_eq!(pod.status.pod_ip.as_deref(), Some("10.0.0.7"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A `&str` cannot hold a text in which an escape had to be undone; a `Cow` can.
    ///
    /// Of JSON that `T` does not name the brackets are counted and the strings skipped; nothing else
    /// of it is checked, as serde_json would.
    ///
    /// # Errors
    ///
    /// If the object is not what `T` expects; always for protobuf, which serde cannot read: give
    /// [`protobuf_message`](Self::protobuf_message) to a prost type.
    pub fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, EventError> {
        match self.encoding {
            // What follows the object is not its business.
            Encoding::Json => json_de::from_str(self.text()?),
            Encoding::Cbor => cbor_de::from_slice(&self.bytes),
            Encoding::Protobuf => Err(EventError::NoSerde),
        }
    }

    /// The text of JSON: one look at the whole instead of one at each string.
    fn text(&self) -> Result<&str, EventError> {
        str::from_utf8(&self.bytes).map_err(|_| Encoding::Json.malformed("an object is not UTF-8"))
    }

    /// The message of the object itself, for a prost type; `None` in other encodings.
    ///
    /// # Errors
    ///
    /// If the envelope around the message is malformed.
    pub fn protobuf_message(&self) -> Result<Option<Bytes>, EventError> {
        if self.encoding != Encoding::Protobuf {
            return Ok(None);
        }
        let envelope = protobuf::Envelope::open(self.encoding, &self.bytes)?;
        Ok(Some(self.bytes.slice_ref(envelope.message)))
    }

    /// What the object says of its kind, and its message.
    #[cfg(feature = "k8s-pb")]
    fn protobuf_kind(&self) -> Result<(&str, &[u8]), EventError> {
        let envelope = protobuf::Envelope::open(self.encoding, &self.bytes)?;
        let kind = match &self.of_list {
            Some(of_list) => &of_list.kind,
            None => protobuf::text(protobuf::type_meta(envelope.type_meta)?[1])?,
        };
        Ok((kind, envelope.message))
    }

    /// Reads the object as a Status, which the object of an `ERROR` event is.
    ///
    /// # Errors
    ///
    /// If it is none, or has more than 64 KiB, as with an HTTP answer that refuses a request: what
    /// is made of its causes is fifty times as large.
    pub fn status(&self) -> Result<Status, EventError> {
        let bound = limits::REFUSAL;
        if self.bytes.len() > bound {
            return Err(EventError::TooLarge { bound });
        }
        match self.encoding {
            Encoding::Json => {
                let end = json::skip_value(&self.bytes)?;
                Status::from_json(&self.bytes[..end]).map_err(|e| EventError::Decode(e.to_string()))
            }
            Encoding::Cbor => self.decode(),
            Encoding::Protobuf => {
                protobuf::status(protobuf::Envelope::open(self.encoding, &self.bytes)?.message)
            }
        }
    }
}

/// The bytes are an object of someone's cluster, perhaps a Secret: only their number is shown.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("encoding", &self.encoding)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Why bytes are no event, or no object.
///
/// ```
/// use kubewire::{watch::{Encoding, Object}, wire::watch::EventError};
///
/// let object = Object::new(Encoding::Json, r#"{"metadata":{"name":1}}"#.into());
/// let decoded = object.decode::<std::collections::HashMap<String, String>>();
/// assert!(matches!(decoded, Err(EventError::Decode(_))));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The bytes break the rules of their encoding.
    #[error("malformed {encoding}: {what}")]
    Malformed {
        /// The encoding.
        encoding: Encoding,
        /// What was found.
        what: &'static str,
    },
    /// An event exceeds the bound on its size.
    #[error("an event is larger than {bound} bytes")]
    TooLarge {
        /// The bound, in bytes.
        bound: usize,
    },
    /// The object is not of the type that it was decoded into.
    #[error("the object cannot be decoded: {0}")]
    Decode(String),
    /// Serde cannot read protobuf.
    #[error("protobuf is not decoded by serde: give the raw message to a prost type")]
    NoSerde,
    /// The object is to become a prost type, and the server has no protobuf of it: custom resources
    /// and most aggregated APIs come as JSON.
    #[error(
        "the server sends {found}, and a prost type is read from protobuf: give it a serde type"
    )]
    NotProtobuf {
        /// How the object came.
        found: Encoding,
    },
    /// The body ended in the midst of an event.
    #[error("the body ends in the midst of an event")]
    Cut,
}

/// Text that is borrowed from the object unless an escape had to be undone.
type Text<'a> = Cow<'a, str>;
