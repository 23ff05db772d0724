//! What becomes of a remote process's standard streams: in flow the caller's choices, out come
//! readers and writers on this side.

use std::{
    fmt,
    fs::File,
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Result,
    error::{CallerError, panic::lock},
};

pub(super) type Reader = Pin<Box<dyn AsyncRead + Send>>;
pub(super) type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// What becomes of one of the remote process's standard streams.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// # let path = std::env::temp_dir().join(format!("kubewire-stdio-{}", std::process::id()));
/// use kubewire::exec::Stdio;
/// use std::fs::File;
///
/// let pod = client.pod("default", "web-0");
/// let listing = File::create(&path)?;
/// let status = pod.exec(["echo", "hello"]).stdout(listing).stderr(Stdio::inherit()).status().await?;
/// assert!(status.success());
/// assert_eq!(std::fs::read(&path)?, b"hello\n");
/// # std::fs::remove_file(&path)?;
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Stdio(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Piped,
    Null,
    Inherit,
    File(Arc<File>),
    Input(Input),
}

impl Stdio {
    /// The stream gets a handle on this side.
    pub const fn piped() -> Self {
        Self(Kind::Piped)
    }

    /// Input is empty, output is dropped.
    pub const fn null() -> Self {
        Self(Kind::Null)
    }

    /// The stream is this program's own. A task copies it, as for a file.
    ///
    /// A read of a program's own stdin cannot be given up: one that waits when the remote process
    /// ends takes the next bytes that come, and tokio's runtime waits for it when it shuts down
    /// (see [`tokio::io::stdin`]).
    pub const fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    pub(super) const fn is_piped(&self) -> bool {
        matches!(self.0, Kind::Piped)
    }

    pub(super) const fn is_null(&self) -> bool {
        matches!(self.0, Kind::Null)
    }

    /// What a task reads stdin from, if one does.
    pub(super) fn reader(&self) -> Result<Option<Reader>> {
        Ok(match &self.0 {
            Kind::Piped | Kind::Null => None,
            Kind::Inherit => Some(Box::pin(tokio::io::stdin())),
            Kind::File(file) => Some(Box::pin(reopen(file)?)),
            Kind::Input(input) => Some(input.open()?),
        })
    }

    /// What a task writes output to, if one does; `own` is the stream of this program.
    pub(super) fn writer(&self, own: impl FnOnce() -> Writer) -> Result<Option<Writer>> {
        Ok(match &self.0 {
            Kind::Piped | Kind::Null => None,
            Kind::Inherit => Some(own()),
            Kind::File(file) => Some(Box::pin(reopen(file)?)),
            Kind::Input(_) => return Err(CallerError::InputForOutput.into()),
        })
    }
}

fn reopen(file: &File) -> Result<tokio::fs::File> {
    let file = file.try_clone();
    let file = file.map_err(|error| CallerError::Stream(Arc::new(error)))?;
    Ok(tokio::fs::File::from_std(file))
}

/// The file is shared: what is read or written moves its position for all who hold it. As an
/// output it is written from its position on.
impl From<File> for Stdio {
    fn from(file: File) -> Self {
        Self(Kind::File(Arc::new(file)))
    }
}

impl From<Input> for Stdio {
    fn from(input: Input) -> Self {
        Self(Kind::Input(input))
    }
}

/// What the remote process reads: bytes, a file, or any reader.
///
/// ```
/// use kubewire::exec::Input;
///
/// let text: Input = "a line\n".into();
/// let bytes: Input = vec![0, 1, 2].into();
/// let reader = Input::reader(tokio::io::empty());
/// ```
#[derive(Clone)]
pub struct Input(Source);

#[derive(Clone)]
enum Source {
    Bytes(Bytes),
    File(Arc<File>),
    Reader(Arc<Mutex<Option<Reader>>>),
}

impl Input {
    /// What `reader` gives, up to its end. It can be read once: a second spawn of the same
    /// builder is [`CallerError::InputTaken`].
    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self(Source::Reader(Arc::new(Mutex::new(Some(Box::pin(reader))))))
    }

    pub(super) fn open(&self) -> Result<Reader> {
        Ok(match &self.0 {
            Source::Bytes(bytes) => Box::pin(std::io::Cursor::new(bytes.clone())),
            Source::File(file) => Box::pin(reopen(file)?),
            Source::Reader(reader) => lock(reader).take().ok_or(CallerError::InputTaken)?,
        })
    }
}

/// Without the bytes, which may be secret.
impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Bytes(bytes) => write!(f, "Input({} bytes)", bytes.len()),
            Source::File(_) => f.write_str("Input(a file)"),
            Source::Reader(_) => f.write_str("Input(a reader)"),
        }
    }
}

macro_rules! from_bytes {
    ($($type:ty),*) => {$(
        impl From<$type> for Input {
            fn from(bytes: $type) -> Self {
                Self(Source::Bytes(bytes.into()))
            }
        }
    )*};
}

from_bytes!(Bytes, Vec<u8>, String);

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<&[u8]> for Input {
    fn from(bytes: &[u8]) -> Self {
        Self(Source::Bytes(Bytes::copy_from_slice(bytes)))
    }
}

impl<const N: usize> From<&[u8; N]> for Input {
    fn from(bytes: &[u8; N]) -> Self {
        bytes[..].into()
    }
}

/// From its position on; it is read once, as any reader. A [`std::fs::File`] can be read again.
impl From<tokio::fs::File> for Input {
    fn from(file: tokio::fs::File) -> Self {
        Self::reader(file)
    }
}

/// From its position on.
impl From<File> for Input {
    fn from(file: File) -> Self {
        Self(Source::File(Arc::new(file)))
    }
}
