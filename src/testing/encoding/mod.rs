//! Objects as bytes: in flow objects in JSON's terms, out come bodies and watch events in the
//! encoding that was negotiated.

mod cbor;
mod protobuf;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::wire::{status::Status, watch::Encoding};

/// What is sent: an object, a list or a Status.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// For a list, without its items.
    pub(super) json: Value,
    /// The protobuf message of an object that is more than its metadata, whatever that says about
    /// the metadata.
    pub(super) message: Option<Bytes>,
    /// Those of a list.
    pub(super) items: Option<Vec<Document>>,
}

impl Document {
    /// An object, without a protobuf message of its own unless its kind implies one.
    pub(super) fn object(json: Value) -> Self {
        Self {
            json,
            message: None,
            items: None,
        }
    }

    pub(super) fn status(status: &Status) -> Self {
        let json = serde_json::from_slice(&status.to_json());
        Self::object(json.unwrap_or_default())
    }

    /// As a body of its own.
    ///
    /// # Errors
    ///
    /// A Status if there is no message of the object.
    pub(super) fn encode(self, encoding: Encoding) -> Result<Bytes, Status> {
        match encoding {
            Encoding::Protobuf => protobuf::envelope(&self).map(Bytes::from),
            Encoding::Cbor => Ok(cbor::encode(&self.into_json()).into()),
            Encoding::Json => Ok(format!("{}\n", self.into_json()).into()),
        }
    }

    /// As an event of a watch.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub(super) fn encode_event(self, encoding: Encoding, event: &str) -> Result<Bytes, Status> {
        match encoding {
            Encoding::Protobuf => protobuf::event(event, &self).map(Bytes::from),
            Encoding::Cbor => {
                let event = json!({"type": event, "object": self.into_json()});
                Ok(cbor::encode_event(&event).into())
            }
            // The type comes first, as in `metav1.WatchEvent`.
            Encoding::Json => {
                let object = self.into_json();
                Ok(format!("{{\"type\":\"{event}\",\"object\":{object}}}\n").into())
            }
        }
    }

    fn into_json(self) -> Value {
        let mut json = self.json;
        if let Some(items) = self.items {
            json["items"] = items.into_iter().map(Self::into_json).collect();
        }
        json
    }
}

/// What the body of one object or list, or that of a watch, is called.
pub(super) fn content_type(encoding: Encoding, is_watch: bool) -> &'static str {
    match encoding {
        Encoding::Protobuf if is_watch => "application/vnd.kubernetes.protobuf;stream=watch",
        Encoding::Cbor if is_watch => "application/cbor-seq",
        encoding => encoding.media_type(),
    }
}
