//! Messages of k8s-pb: in flow unparsed objects, out come messages.

use std::ops::{Deref, DerefMut};

use ::prost::Message;
use k8s_pb::Resource;

use super::{Decode, Encoding, EventError, Object};

/// A message of k8s-pb, which is read from protobuf: a fraction of the work of JSON, and two thirds
/// of its bytes.
///
/// It stands wherever a `serde` type does that is read and not written: `client.api::<Protobuf<Pod>>()`,
/// `client.mirror::<Protobuf<Pod>>()`, `watch.typed::<Protobuf<Pod>>()`. JSON is accepted too, for
/// servers that have nothing else of a resource, as of custom ones; an object that comes so is
/// refused by [`EventError::NotProtobuf`].
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
/// use k8s_pb::api::core::v1::Pod;
/// use kubewire::watch::Protobuf;
///
/// let pods = client.api::<Protobuf<Pod>>().namespace("default");
/// let pod = pods.get("web-0").await?;
/// let spec = pod.spec.as_ref().expect("every pod has one");
/// assert_eq!(spec.containers[0].name(), "main");
///
/// let mirror = pods.mirror().start();
/// mirror.wait_until_ready().await?;
/// assert_eq!(mirror.get("web-0").expect("it is there").spec.as_ref(), Some(spec));
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Protobuf<M>(pub M);

impl<M> Deref for Protobuf<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M> DerefMut for Protobuf<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.0
    }
}

impl<M: Message + Default + Resource> Decode for Protobuf<M> {
    const ENCODING: Encoding = Encoding::Protobuf;

    fn decode(object: &Object) -> Result<Self, EventError> {
        if object.encoding() != Encoding::Protobuf {
            return Err(EventError::NotProtobuf {
                found: object.encoding(),
            });
        }
        let (kind, message) = object.protobuf_kind()?;
        // Every message reads as every other, as far as the numbers of fields agree.
        if !kind.is_empty() && kind != M::KIND {
            let found = format!("it is a {kind}, not a {}", M::KIND);
            return Err(EventError::Decode(found));
        }
        let message = M::decode(message).map_err(|error| EventError::Decode(error.to_string()))?;
        Ok(Self(message))
    }
}
