//! The body of an answer: out come its bytes as they arrive, or the other protocol that it ends in.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;

use super::{blame::blame, usage::InUse};
use crate::{
    Error, Result,
    error::{CallerError, NetworkError, PeerError},
    limits,
    net::stream_of,
};

/// The body of an answer. Dropping it gives up what has not been read.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    /// Its place on a connection that others share.
    _in_use: Option<InUse>,
}

impl Body {
    pub(super) fn new(incoming: Incoming, in_use: Option<InUse>) -> Self {
        Self {
            incoming,
            _in_use: in_use,
        }
    }

    /// The next bytes, a slice of the buffer that they were read into; `None` at the end.
    ///
    /// Cancel safe: a dropped future takes nothing.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Lost`](crate::error::NetworkError::Lost) if the connection broke before
    /// the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.incoming.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(blame(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The next bytes of an answer that is to end.
    pub(crate) async fn soon(&mut self) -> Result<Option<Bytes>> {
        let silent = limits::REQUEST;
        match tokio::time::timeout(silent, self.chunk()).await {
            Ok(chunk) => chunk,
            Err(_) => Err(NetworkError::Silent { silent }.into()),
        }
    }

    /// All of it, which is an object. That it is larger than any can be is the server's fault.
    pub(crate) async fn object(self, operation: &str) -> Result<Bytes> {
        let too_large = |limit| PeerError::Answer {
            operation: operation.to_owned(),
            problem: format!("it has more than {limit} bytes"),
        };
        self.bytes(limits::OBJECT)
            .await
            .map_err(|error| match error {
                Error::Caller(CallerError::TooMuchOutput { limit }) => too_large(limit).into(),
                error => error,
            })
    }

    /// All of it, up to so many bytes.
    ///
    /// # Errors
    ///
    /// Those of [`chunk`](Self::chunk),
    /// [`CallerError::TooMuchOutput`](crate::error::CallerError::TooMuchOutput), and
    /// [`NetworkError::Silent`](crate::error::NetworkError::Silent) if nothing of it arrives for
    /// [`limits::REQUEST`].
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes> {
        let hint = self.incoming.size_hint().lower();
        if hint > limit as u64 {
            return Err(CallerError::TooMuchOutput { limit }.into());
        }
        let first = self.soon().await?.unwrap_or_default();
        let Some(second) = self.soon().await? else {
            return match first.len() <= limit {
                true => Ok(first),
                false => Err(CallerError::TooMuchOutput { limit }.into()),
            };
        };
        // The hint is the peer's word: it is taken for no more than a first guess.
        let guess = usize::try_from(hint).unwrap_or(0).min(1 << 20);
        let mut all = BytesMut::with_capacity(guess.max(first.len() + second.len()));
        all.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if all.len() + chunk.len() > limit {
                return Err(CallerError::TooMuchOutput { limit }.into());
            }
            all.extend_from_slice(&chunk);
            next = self.soon().await?;
        }
        Ok(all.freeze())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        Pin::new(&mut self.get_mut().incoming)
            .poll_frame(cx)
            .map_err(blame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What an answer to [`Client::send_upgrade`](crate::Client::send_upgrade) goes on with.
#[derive(Debug)]
#[non_exhaustive]
pub enum MaybeUpgraded {
    /// A body: the server did not upgrade.
    Body(Body),
    /// The other protocol, after a 101.
    Upgraded(Upgraded),
}

/// A connection whose protocol is the one that the request asked for.
#[derive(Debug)]
pub struct Upgraded(pub(crate) TokioIo<hyper::upgrade::Upgraded>);

stream_of!(Upgraded);
