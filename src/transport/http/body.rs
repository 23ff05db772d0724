//! The body of an answer: out come its bytes as they arrive, or the other protocol that it ends in.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Response, Version};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{blame, usage::InUse};
use crate::{
    Error, Result,
    delegate::{read_inner, write_inner},
    error::{CallerError, NetworkError, PeerError},
    limits,
    wire::gzip,
};

/// The body of an answer. Dropping it gives up what has not been read.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// let version = http::Request::get("/version").body(bytes::Bytes::new())?;
/// let mut answer = client.send(version).await?;
/// let mut text = Vec::new();
/// while let Some(chunk) = answer.body_mut().chunk().await? {
///     text.extend_from_slice(&chunk);
/// }
/// let version: serde_json::Value = serde_json::from_slice(&text)?;
/// assert_eq!(version["major"], "1");
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    /// What inflates it, if it comes compressed.
    gzip: Option<Box<gzip::Decoder>>,
    received: u64,
    /// When it has to be there where it is read whole, and how long the answer may take.
    end: Option<Box<(Instant, Duration)>>,
    /// Whether its end has a mark of its own, as each stream of HTTP/2 has.
    ends_marked: bool,
    /// Its place on a connection that others share.
    in_use: Option<InUse>,
}

impl Body {
    /// The answer with the body that arrives.
    pub(super) fn of(response: Response<Incoming>, in_use: Option<InUse>) -> Response<Self> {
        let ends_marked = response.version() == Version::HTTP_2;
        response.map(|incoming| Self {
            incoming,
            gzip: None,
            received: 0,
            end: None,
            ends_marked,
            in_use,
        })
    }

    /// It comes in gzip, and is handed out inflated.
    pub(super) fn inflate(mut self) -> Self {
        self.gzip = Some(Box::default());
        self
    }

    /// Where it is read whole, the answer may take no longer than this in all.
    pub(super) fn bound(&mut self, begun: Instant, most: Duration) {
        self.end = begun.checked_add(most).map(|end| Box::new((end, most)));
    }

    /// Bytes that have arrived, as they came over the network.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The next bytes; `None` at the end. They are a slice of the buffer that they were read into,
    /// unless they came compressed.
    ///
    /// There is no deadline: an answer may be a stream that is silent for long. Cancel safe: a
    /// dropped future takes nothing.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Lost`](crate::error::NetworkError::Lost) if the connection broke before
    /// the end, [`PeerError::Gzip`](crate::error::PeerError::Gzip) if it came compressed and is
    /// damaged.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = poll_fn(|cx| self.poll(cx)).await;
            match frame.transpose()?.map(Frame::into_data) {
                None => return Ok(None),
                Some(Ok(data)) => return Ok(Some(data)),
                // Trailers.
                Some(Err(_)) => {}
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        loop {
            if let Some(gzip) = &mut self.gzip
                && let Some(piece) = gzip.next_piece().map_err(PeerError::from)?
            {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(frame) = ready!(Pin::new(&mut self.incoming).poll_frame(cx)) else {
                // Each once: hyper takes a stream that is reset with NO_ERROR for one that has ended;
                // a member that was cut is an end like any other that came too soon.
                let reset = std::mem::take(&mut self.ends_marked) && !self.incoming.is_end_stream();
                let cut = self.gzip.take().is_some_and(|gzip| gzip.finish().is_err());
                return Poll::Ready((reset || cut).then(|| Err(Error::cut())));
            };
            let frame = frame.map_err(|error| self.blame(error))?;
            self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            match &mut self.gzip {
                None => return Poll::Ready(Some(Ok(frame))),
                Some(gzip) => {
                    if let Ok(data) = frame.into_data() {
                        gzip.push(data);
                    }
                }
            }
        }
    }

    /// A body is not told that its connection has been given up, as no ping or probe was answered.
    fn blame(&self, error: hyper::Error) -> Error {
        let error = blame(error);
        let silent = self.in_use.as_ref().map_or(Duration::ZERO, InUse::silence);
        let given_up = match &error {
            Error::Network(NetworkError::Lost(cause)) => match cause.kind() {
                io::ErrorKind::UnexpectedEof => silent >= limits::HTTP2_PONG,
                kind => kind == io::ErrorKind::TimedOut,
            },
            _ => false,
        };
        match given_up {
            true => NetworkError::Silent { silent }.into(),
            false => error,
        }
    }

    /// The next bytes of an answer that is to end.
    pub(crate) async fn soon(&mut self) -> Result<Option<Bytes>> {
        let silent = limits::REQUEST;
        let silence = Instant::now() + silent;
        let (until, late) = match self.end.as_deref() {
            Some(&(end, most)) if end < silence => (end, Error::late("the answer", most)),
            _ => (silence, NetworkError::Silent { silent }.into()),
        };
        let chunk = tokio::time::timeout_at(until, self.chunk()).await;
        chunk.unwrap_or(Err(late))
    }

    /// All of it, which is an object. That it is larger than any can be is the server's fault.
    pub(crate) async fn object(self, operation: &str) -> Result<Bytes> {
        let bytes = self.bytes(limits::OBJECT).await;
        bytes.map_err(|error| match error {
            Error::Caller(CallerError::TooMuchOutput { limit }) => {
                PeerError::answer(operation, format!("it has more than {limit} bytes")).into()
            }
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
    /// [`limits::REQUEST`], and [`NetworkError::TimedOut`](crate::error::NetworkError::TimedOut)
    /// when the configuration's request timeout is over.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes> {
        let hint = self.size_hint().lower();
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
        self.get_mut().poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.gzip.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.gzip {
            None => self.incoming.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

/// What an answer to [`Client::send_upgrade`](crate::Client::send_upgrade) goes on with.
///
/// ```no_run
/// # async fn run(client: kubewire::Client, request: http::Request<bytes::Bytes>) -> kubewire::Result<()> {
/// use kubewire::request::MaybeUpgraded;
///
/// match client.send_upgrade(request).await?.into_body() {
///     MaybeUpgraded::Upgraded(stream) => drop(stream), // AsyncRead and AsyncWrite
///     MaybeUpgraded::Body(body) => println!("{:?}", body.bytes(1 << 16).await?),
///     _ => {}
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum MaybeUpgraded {
    /// A body: the server did not upgrade.
    Body(Body),
    /// The other protocol, after a 101.
    Upgraded(Upgraded),
}

/// A connection whose protocol is the one that the request asked for: see [`MaybeUpgraded`].
#[derive(Debug)]
pub struct Upgraded(pub(crate) TokioIo<hyper::upgrade::Upgraded>);

read_inner!(Upgraded);
write_inner!(Upgraded, poll_shutdown);
