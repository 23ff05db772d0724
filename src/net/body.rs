//! The bodies of short answers: in flow their chunks, out they come whole.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;

/// The whole of a body; `None` if it is longer than that. Its chunks may be of a byte each, so that
/// none is kept.
pub(crate) async fn short<B>(body: B, most: usize) -> Result<Option<Bytes>, B::Error>
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if data.len() > most - whole.len() {
                return Ok(None);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Some(whole.freeze()))
}
