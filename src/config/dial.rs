//! The dialler of a program's own: in flow host and port, out comes a byte stream.

use std::{future::Future, io, pin::Pin, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::guarded::Guarded;

/// What a connection can run over: a TCP or Unix stream, a [`tokio::io::duplex`], anything that
/// reads and writes. It is implemented for all of them.
///
/// ```
/// fn is_one(_: &impl kubewire::config::ByteStream) {}
///
/// let (near, _far) = tokio::io::duplex(1024);
/// is_one(&near);
/// ```
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

pub(crate) type BoxedStream = Box<dyn ByteStream>;

type Dialling = Pin<Box<dyn Future<Output = io::Result<BoxedStream>> + Send>>;

/// See [`Config::with_dialer`](super::Config::with_dialer).
#[derive(Clone)]
pub(crate) struct Dial(Arc<dyn Fn(String, u16) -> Dialling + Send + Sync>);

impl Dial {
    pub(super) fn new<F, R, S>(dial: F) -> Self
    where
        F: Fn(String, u16) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<S>> + Send + 'static,
        S: ByteStream,
    {
        Self(Arc::new(move |host, port| {
            let dialling = dial(host, port);
            Box::pin(async move { Ok(Box::new(Guarded::new(dialling.await?)) as BoxedStream) })
        }))
    }

    pub(crate) async fn dial(&self, host: &str, port: u16) -> io::Result<BoxedStream> {
        (self.0)(host.to_owned(), port).await
    }
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dial")
    }
}
