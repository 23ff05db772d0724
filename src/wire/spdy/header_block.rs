//! Header blocks: names and values, compressed (section 2.6.10).
//!
//! In flow the blocks of one direction, in the order of their frames; out come [`Headers`]. The
//! blocks of a direction form one zlib stream with SPDY's preset dictionary, flushed at the end of
//! each block, so that every block must be read, wanted or not.

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{
    Compress, Compression, Decompress, DecompressError, FlushCompress, FlushDecompress, Status,
};

use super::{SpdyError, dictionary::DICTIONARY, u32_at};
use crate::limits;

/// What the first guess at a block's size is, compressed or not.
const GUESS: usize = 256;

/// Names and values, in the order of the block.
///
/// A value may hold several, separated by zero bytes (section 2.6.10).
///
/// ```
/// use kubewire::wire::spdy::Headers;
///
/// let headers = Headers::new().with("streamtype", "data").with("port", "8080");
/// assert_eq!(headers.get("port"), Some("8080"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Bytes, Bytes)>);

impl Headers {
    /// No headers, as in every SYN_REPLY of Kubernetes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header. Names are lower case: `moby/spdystream` ends the connection at any other
    /// (`spdy/read.go`, `parseHeaderValueBlock`).
    #[must_use]
    pub fn with(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let name = name.into();
        debug_assert!(is_name(&name));
        self.0.push((name, value.into()));
        self
    }

    /// The value of the header `name`, if it is there and is UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name.as_bytes())?;
        std::str::from_utf8(value).ok()
    }

    /// Names and values, in the order of the block.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn parse(mut block: Bytes) -> Result<Self, SpdyError> {
        let mut headers = Vec::new();
        if block.len() < 4 {
            return Err(SpdyError::HeadersLength);
        }
        for _ in 0..u32_at(&block.split_to(4), 0) {
            let name = field(&mut block)?;
            let value = field(&mut block)?;
            // Names are not empty, lower case, and different from each other (section 2.6.10).
            if !is_name(&name) || headers.iter().any(|(other, _)| *other == name) {
                let name = String::from_utf8_lossy(&name).chars().take(64).collect();
                return Err(SpdyError::HeaderName(name));
            }
            if headers.len() == limits::SPDY_HEADER_COUNT {
                return Err(SpdyError::HeadersTooLarge(limits::SPDY_HEADERS));
            }
            headers.push((name, value));
        }
        if !block.is_empty() {
            return Err(SpdyError::HeadersLength);
        }
        Ok(Self(headers))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.0.len() as u32);
        for (name, value) in &self.0 {
            for part in [name, value] {
                out.put_u32(part.len() as u32);
                out.put_slice(part);
            }
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(u8::is_ascii_uppercase)
}

/// A length and that many bytes.
fn field(block: &mut Bytes) -> Result<Bytes, SpdyError> {
    if block.len() < 4 {
        return Err(SpdyError::HeadersLength);
    }
    let length = u32_at(&block.split_to(4), 0) as usize;
    if block.len() < length {
        return Err(SpdyError::HeadersLength);
    }
    Ok(block.split_to(length))
}

/// Expands the header blocks of one direction.
///
/// ```
/// use kubewire::wire::spdy::{HeaderReader, HeaderWriter, Headers};
///
/// let (mut writer, mut reader) = (HeaderWriter::new(), HeaderReader::new());
/// for port in ["80", "443"] {
///     // In the order in which they were written: each block refers to those before it.
///     let block = writer.write(&Headers::new().with("port", port))?;
///     assert_eq!(reader.read(&block)?.get("port"), Some(port));
/// }
/// # Ok::<(), kubewire::wire::spdy::SpdyError>(())
/// ```
#[derive(Debug)]
pub struct HeaderReader {
    context: Decompress,
}

impl Default for HeaderReader {
    fn default() -> Self {
        Self::new()
    }
}

impl HeaderReader {
    /// The context at the start of a connection. It allocates about 48 KiB.
    pub fn new() -> Self {
        Self {
            context: Decompress::new(true),
        }
    }

    /// Expands the next block.
    ///
    /// # Errors
    ///
    /// If the block cannot be expanded, expands to more than
    /// [`limits::SPDY_HEADERS`] bytes, or does not hold headers. The context is of no use then.
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        let mut input = block;
        let mut output = Vec::with_capacity(GUESS);
        loop {
            let before = self.context.total_in();
            let outcome = self
                .context
                .decompress_vec(input, &mut output, FlushDecompress::Sync);
            input = &input[(self.context.total_in() - before) as usize..];
            match outcome {
                Ok(Status::StreamEnd) if !input.is_empty() => {
                    return Err(SpdyError::Compression("bytes after the end".into()));
                }
                // Output that leaves room means that the input gave all it had.
                Ok(_) if output.len() < output.capacity() => break,
                Ok(_) => {
                    if output.len() > limits::SPDY_HEADERS {
                        return Err(SpdyError::HeadersTooLarge(limits::SPDY_HEADERS));
                    }
                    output.reserve(output.len().max(GUESS));
                }
                Err(error) => self.set_dictionary(&error)?,
            }
        }
        if !input.is_empty() {
            return Err(SpdyError::Compression("a part was left over".into()));
        }
        if output.len() > limits::SPDY_HEADERS {
            return Err(SpdyError::HeadersTooLarge(limits::SPDY_HEADERS));
        }
        Headers::parse(output.into())
    }

    /// Sets the dictionary if that is what the error asks for.
    fn set_dictionary(&mut self, error: &DecompressError) -> Result<(), SpdyError> {
        if error.needs_dictionary().is_none() {
            return Err(SpdyError::Compression(error.to_string()));
        }
        // zlib refuses a dictionary whose checksum is not the one that the stream names.
        self.context
            .set_dictionary(DICTIONARY)
            .map(drop)
            .map_err(|_| SpdyError::Compression("another dictionary".into()))
    }
}

/// Compresses the header blocks of one direction, for a [`HeaderReader`].
#[derive(Debug)]
pub struct HeaderWriter {
    context: Compress,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Default for HeaderWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl HeaderWriter {
    /// The smallest window that the dictionary fits in, as a power of two: what a block can refer
    /// to beyond it is not worth ten times the memory.
    const WINDOW_BITS: u8 = 11;

    /// The context at the start of a connection.
    pub fn new() -> Self {
        // More effort makes a block of 16 bytes one of 12, with ten times as many instructions.
        let mut context =
            Compress::new_with_window_bits(Compression::fast(), true, Self::WINDOW_BITS);
        // It can only fail on a stream without the zlib head, or one already begun.
        let checksum = context.set_dictionary(DICTIONARY);
        debug_assert!(checksum.is_ok());
        Self {
            context,
            plain: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// Compresses the next block. It must reach the other end before any later one.
    ///
    /// # Errors
    ///
    /// If zlib fails, which it has no reason to.
    pub fn write(&mut self, headers: &Headers) -> Result<Bytes, SpdyError> {
        self.plain.clear();
        headers.encode(&mut self.plain);
        self.packed.clear();
        self.packed.reserve(GUESS);
        let mut input = &self.plain[..];
        loop {
            let before = self.context.total_in();
            self.context
                .compress_vec(input, &mut self.packed, FlushCompress::Sync)
                .map_err(|error| SpdyError::Compression(error.to_string()))?;
            input = &input[(self.context.total_in() - before) as usize..];
            // A flush is complete when it leaves room in the output (zlib.h, `deflate`).
            if self.packed.len() < self.packed.capacity() {
                break;
            }
            self.packed.reserve(self.packed.len());
        }
        debug_assert!(input.is_empty());
        let mut block = BytesMut::with_capacity(self.packed.len());
        block.extend_from_slice(&self.packed);
        Ok(block.freeze())
    }
}
