//! Unix sockets to listen on: in flows a path, out come connections, and at the end the path is
//! free again.

use std::{fs, io, io::ErrorKind, os::unix::fs::FileTypeExt as _};

use tokio::net::{UnixListener, UnixStream};

use crate::failure::{Failure, Local as _};

/// A socket of a path, which is removed when nobody listens on it any more.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    listener: UnixListener,
    path: String,
}

impl UnixSocket {
    /// Listens at a path. A socket that nobody listens on any more is replaced.
    pub(crate) fn bind(path: &str) -> Result<Self, Failure> {
        if path.is_empty() {
            // The system would choose a name that nobody knows.
            bail!("unix: needs the path of the socket");
        }
        let shown = format!("unix:{path}");
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_left(path) => {
                fs::remove_file(path).local(&shown)?;
                UnixListener::bind(path)
            }
            bound => bound,
        };
        Ok(Self {
            listener: listener.local(&shown)?,
            path: path.to_owned(),
        })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The next connection. Cancel safety: none is lost.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(socket, _)| socket)
    }
}

/// Whether it is a socket on which nobody listens.
fn is_left(path: &str) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let connected = std::os::unix::net::UnixStream::connect(path);
    is_socket && connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Whoever has removed it meanwhile has done what is to be done.
        let _ = fs::remove_file(&self.path);
    }
}
