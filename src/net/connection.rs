//! A connection to the API server: TCP, directly or through a proxy, and mostly TLS over it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{certificate::Presented, tls};
use crate::{
    Error,
    config::BoxedStream,
    delegate::{read_inner, write_inner},
};

/// A connection to the API server, ready for HTTP.
pub struct Connection(Either<Link, Box<Secured<Link>>>);

/// TLS, and what it takes to say why it broke.
pub(super) struct Secured<S> {
    stream: TlsStream<S>,
    presented: Arc<Presented>,
    /// Whether the server has said anything: it judges our certificate before (RFC 8446, section
    /// 4.4.2.4), when the handshake is over for us.
    heard: bool,
}

/// What leads to the server: a stream to it, or TLS to a proxy.
pub(super) type Link = Either<Base, Box<Secured<Base>>>;

/// What the rest runs over: TCP, or what the program's own dialler gives.
pub(super) type Base = Either<TcpStream, BoxedStream>;

impl Connection {
    pub(super) fn plain(link: Link) -> Self {
        Self(Either::Left(link))
    }

    pub(super) fn tls(stream: TlsStream<Link>, presented: Arc<Presented>) -> Self {
        Self(Either::Right(Box::new(Secured::new(stream, presented))))
    }

    /// Whether the server chose HTTP/2 in the TLS handshake.
    pub fn is_http2(&self) -> bool {
        match &self.0 {
            Either::Left(_) => false,
            Either::Right(tls) => tls.stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        let link = match &self.0 {
            Either::Left(link) => link,
            Either::Right(tls) => tls.stream.get_ref().0,
        };
        let base = match link {
            Either::Left(base) => base,
            Either::Right(tls) => tls.stream.get_ref().0,
        };
        match base {
            Either::Left(stream) => Some(stream),
            Either::Right(_) => None,
        }
    }
}

/// The protocol and the address at the other end of the TCP connection: a proxy's, if there is one.
impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            Either::Left(_) => "Plain",
            Either::Right(_) => "Tls",
        };
        let mut tuple = f.debug_tuple(name);
        if let Some(peer) = self.tcp().and_then(|tcp| tcp.peer_addr().ok()) {
            tuple.field(&peer);
        }
        tuple.finish()
    }
}

impl<S> Secured<S> {
    pub(super) fn new(stream: TlsStream<S>, presented: Arc<Presented>) -> Self {
        Self {
            stream,
            presented,
            heard: false,
        }
    }

    /// The same error in words of this crate, and ours if it is about our certificate.
    fn explain(&self, error: io::Error) -> io::Error {
        if let Some(problem) = tls::certificate_alert(&error, &self.presented) {
            return Error::from(self.presented.refused(problem, &error)).into();
        }
        let cut = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
        );
        let certificate = self.presented.certificate.as_ref();
        if cut && !self.heard && certificate.is_some_and(|c| c.out_of_date().is_some()) {
            return Error::from(self.presented.refused("it is out of date", &error)).into();
        }
        plain(error)
    }
}

/// rustls refers to its manual.
fn plain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof if error.get_ref().is_some() => io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it was cut: the server, or something before it, closed it without an end of TLS",
        ),
        _ => error,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        if read.is_ok() && !this.heard {
            this.heard = true;
            this.presented.accepted();
        }
        Poll::Ready(read.map_err(|error| this.explain(error)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf));
        Poll::Ready(written.map_err(|error| this.explain(error)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(written.map_err(|error| this.explain(error)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = ready!(Pin::new(&mut this.stream).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| this.explain(error)))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

read_inner!(Connection);
write_inner!(Connection, poll_shutdown);
