//! A connection to the API server: TCP, directly or through a proxy, and mostly TLS over it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// A connection to the API server, ready for HTTP.
pub struct Connection(Layer);

enum Layer {
    Plain(Link),
    Tls(Box<TlsStream<Link>>),
}

/// What leads to the server: TCP, or TLS to a proxy.
pub(super) enum Link {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    pub(super) fn plain(link: Link) -> Self {
        Self(Layer::Plain(link))
    }

    pub(super) fn tls(stream: TlsStream<Link>) -> Self {
        Self(Layer::Tls(Box::new(stream)))
    }

    /// Whether the server chose HTTP/2 in the TLS handshake.
    pub fn is_http2(&self) -> bool {
        match &self.0 {
            Layer::Plain(_) => false,
            Layer::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        let link = match &self.0 {
            Layer::Plain(link) => link,
            Layer::Tls(stream) => stream.get_ref().0,
        };
        match link {
            Link::Tcp(stream) => stream,
            Link::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// The protocol and the address at the other end of the TCP connection: a proxy's, if there is one.
impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            Layer::Plain(_) => "Plain",
            Layer::Tls(_) => "Tls",
        };
        let mut tuple = f.debug_tuple(name);
        if let Ok(peer) = self.tcp().peer_addr() {
            tuple.field(&peer);
        }
        tuple.finish()
    }
}

/// Reads and writes by the stream of each variant; `$at` is the field that holds the enum.
macro_rules! streams {
    ($type:ty, $(.$at:tt,)? $first:path, $second:path) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match &mut self.get_mut()$(.$at)? {
                    $first(stream) => Pin::new(stream).poll_read(cx, buf),
                    $second(stream) => Pin::new(stream).poll_read(cx, buf),
                }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                match &mut self.get_mut()$(.$at)? {
                    $first(stream) => Pin::new(stream).poll_write(cx, buf),
                    $second(stream) => Pin::new(stream).poll_write(cx, buf),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match &mut self.get_mut()$(.$at)? {
                    $first(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                    $second(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match &self$(.$at)? {
                    $first(stream) => stream.is_write_vectored(),
                    $second(stream) => stream.is_write_vectored(),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match &mut self.get_mut()$(.$at)? {
                    $first(stream) => Pin::new(stream).poll_flush(cx),
                    $second(stream) => Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match &mut self.get_mut()$(.$at)? {
                    $first(stream) => Pin::new(stream).poll_shutdown(cx),
                    $second(stream) => Pin::new(stream).poll_shutdown(cx),
                }
            }
        }
    };
}

streams!(Link, Link::Tcp, Link::Tls);
streams!(Connection, .0, Layer::Plain, Layer::Tls);
