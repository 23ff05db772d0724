//! Bodies in gzip (RFC 1952), inflated as they arrive.
//!
//! In go the chunks of a body, cut anywhere: members one after the other, as many as there are. API
//! servers write one for a list, and from Kubernetes 1.37 on one for each event of a watch. Out come
//! pieces of what was compressed, none larger than [`PIECE`], so that whoever bounds what it makes of
//! them bounds what a small body can become.

use bytes::{Buf as _, Bytes};
use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Bytes of the largest piece that is handed out.
pub const PIECE: usize = 32 << 10;

/// Bytes of the largest header of a member, its file's name and its comment included.
pub const HEADER: usize = 4 << 10;

/// Inflates a body.
///
/// ```
/// use kubewire::wire::gzip::Decoder;
///
/// // What `printf hello | gzip -n` writes.
/// let hello = [
///     0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 7, 0, 0x86, 0xa6, 0x10,
///     0x36, 5, 0, 0, 0,
/// ];
/// let mut decoder = Decoder::new();
/// decoder.push(hello.to_vec().into());
/// decoder.push(hello.to_vec().into());
/// assert_eq!(decoder.next_piece()?.as_deref(), Some(&b"hellohello"[..]));
/// assert_eq!(decoder.next_piece()?, None);
/// decoder.finish()?;
/// # Ok::<_, kubewire::wire::gzip::GzipError>(())
/// ```
///
/// After an error it stays in error.
pub struct Decoder {
    at: At,
    inflate: Decompress,
    /// Of what the member at hand has become.
    crc: Crc,
    /// What of the chunks has not been read.
    input: Bytes,
    /// The start of a header or trailer whose end had not arrived.
    carry: Vec<u8>,
    piece: Vec<u8>,
    failed: Option<GzipError>,
}

/// Where in the body the next byte lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In the header of a member, or before another.
    Header,
    Content,
    Trailer,
}

/// Why a body is no gzip.
///
/// ```
/// use kubewire::wire::gzip::{Decoder, GzipError};
///
/// let mut decoder = Decoder::new();
/// decoder.push("{}".into());
/// assert!(matches!(decoder.next_piece(), Err(GzipError::Malformed(_))));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GzipError {
    /// What should be a member does not begin like one.
    #[error("malformed gzip: {0}")]
    Malformed(&'static str),
    /// The content is not what the member's checksum or length is of.
    #[error("gzip whose {0} is another than that of its content")]
    Corrupt(&'static str),
    /// The body ended in the midst of a member.
    #[error("the body ends in the midst of a member of gzip")]
    Cut,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder of a body of which nothing has arrived.
    pub fn new() -> Self {
        Self {
            at: At::Header,
            inflate: Decompress::new(false),
            crc: Crc::new(),
            input: Bytes::new(),
            carry: Vec::new(),
            piece: Vec::new(),
            failed: None,
        }
    }

    /// Takes the next chunk of the body.
    ///
    /// Take out all pieces first: a chunk that meets the unread rest of another is copied behind
    /// it.
    pub fn push(&mut self, chunk: Bytes) {
        self.input = super::behind(&self.input, chunk);
    }

    /// The next piece; `None` if what has arrived is read.
    ///
    /// # Errors
    ///
    /// [`GzipError::Malformed`] and [`GzipError::Corrupt`].
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, GzipError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Err(error) = self.fill() {
            self.failed = Some(error);
            self.input = Bytes::new();
            // What came before it comes out, and then the error.
            return self
                .take_piece()
                .map_or(Err(error), |piece| Ok(Some(piece)));
        }
        Ok(self.take_piece())
    }

    /// The body has ended.
    ///
    /// # Errors
    ///
    /// [`GzipError::Cut`] if it ended in the midst of a member; none at all is an empty body.
    pub fn finish(&self) -> Result<(), GzipError> {
        match self.at == At::Header && self.carry.is_empty() && self.input.is_empty() {
            true => Ok(()),
            false => Err(self.failed.unwrap_or(GzipError::Cut)),
        }
    }

    fn take_piece(&mut self) -> Option<Bytes> {
        if self.piece.is_empty() {
            return None;
        }
        // A small event must not keep a large buffer alive.
        if self.piece.len() < PIECE / 2 {
            let piece = Bytes::copy_from_slice(&self.piece);
            self.piece.clear();
            return Some(piece);
        }
        Some(std::mem::take(&mut self.piece).into())
    }

    /// Reads on until the piece is full or nothing more can be read.
    fn fill(&mut self) -> Result<(), GzipError> {
        loop {
            match self.at {
                At::Header => {
                    let Some(()) = self.part(HEADER, header)? else {
                        return Ok(());
                    };
                    self.inflate.reset(false);
                    self.crc.reset();
                    self.at = At::Content;
                }
                At::Content => {
                    if self.piece.capacity() < PIECE {
                        self.piece.reserve_exact(PIECE - self.piece.len());
                    }
                    let (read, written) = (self.inflate.total_in(), self.piece.len());
                    // This never makes the vector larger.
                    let status = self
                        .inflate
                        .decompress_vec(&self.input, &mut self.piece, FlushDecompress::None)
                        .map_err(|_| GzipError::Malformed("its content cannot be inflated"))?;
                    let read = (self.inflate.total_in() - read) as usize;
                    self.input.advance(read);
                    self.crc.update(&self.piece[written..]);
                    if status == Status::StreamEnd {
                        self.at = At::Trailer;
                    } else if self.piece.len() == self.piece.capacity() || self.input.is_empty() {
                        return Ok(());
                    } else if read == 0 {
                        return Err(GzipError::Malformed("its content does not go on"));
                    }
                }
                At::Trailer => {
                    let (sum, amount) = (self.crc.sum(), self.crc.amount());
                    let Some([crc, len]) = self.part(8, trailer)? else {
                        return Ok(());
                    };
                    if crc != sum {
                        return Err(GzipError::Corrupt("checksum"));
                    }
                    if len != amount {
                        return Err(GzipError::Corrupt("length"));
                    }
                    self.at = At::Header;
                }
            }
            if self.piece.len() >= PIECE {
                return Ok(());
            }
        }
    }

    /// Takes what `parse` reads, of at most `bound` bytes, off the input once it is there whole.
    fn part<T>(
        &mut self,
        bound: usize,
        parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, GzipError>,
    ) -> Result<Option<T>, GzipError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        if self.carry.is_empty()
            && let Some((part, len)) = parse(&self.input)?
        {
            self.input.advance(len);
            return Ok(Some(part));
        }
        let carried = self.carry.len();
        let more = self.input.len().min(bound - carried);
        self.carry.extend_from_slice(&self.input[..more]);
        match parse(&self.carry)? {
            Some((part, len)) => {
                self.input.advance(len - carried);
                self.carry.clear();
                Ok(Some(part))
            }
            None if self.carry.len() < bound => {
                self.input.advance(more);
                Ok(None)
            }
            None => Err(GzipError::Malformed("the header of a member is too long")),
        }
    }
}

/// RFC 1952, section 2.3.
fn header(data: &[u8]) -> Result<Option<((), usize)>, GzipError> {
    const MAGIC: &[u8] = &[0x1f, 0x8b, 8];
    const FHCRC: u8 = 2;
    const FEXTRA: u8 = 4;
    const FNAME: u8 = 8;
    const FCOMMENT: u8 = 16;
    const RESERVED: u8 = 0xe0;
    let magic = MAGIC.len().min(data.len());
    if data[..magic] != MAGIC[..magic] {
        return Err(GzipError::Malformed("no member begins like this"));
    }
    let Some(fixed) = data.first_chunk::<10>() else {
        return Ok(None);
    };
    let flags = fixed[3];
    if flags & RESERVED != 0 {
        return Err(GzipError::Malformed("a member has flags that are reserved"));
    }
    let mut len = 10;
    if flags & FEXTRA != 0 {
        let Some(extra) = data[len..].first_chunk() else {
            return Ok(None);
        };
        len += 2 + usize::from(u16::from_le_bytes(*extra));
    }
    for text in [FNAME, FCOMMENT] {
        if flags & text != 0 {
            let end = data.get(len..).and_then(|rest| memchr::memchr(0, rest));
            let Some(end) = end else {
                return Ok(None);
            };
            len += end + 1;
        }
    }
    if flags & FHCRC != 0 {
        let Some(crc) = data.get(len..).and_then(|rest| rest.first_chunk()) else {
            return Ok(None);
        };
        let mut of_header = Crc::new();
        of_header.update(&data[..len]);
        if u32::from(u16::from_le_bytes(*crc)) != of_header.sum() & 0xffff {
            return Err(GzipError::Corrupt("header's checksum"));
        }
        len += 2;
    }
    Ok((len <= data.len()).then_some(((), len)))
}

/// The checksum and the length of the content, modulo 2^32.
fn trailer(data: &[u8]) -> Result<Option<([u32; 2], usize)>, GzipError> {
    let Some([a, b, c, d, e, f, g, h]) = data.first_chunk::<8>().copied() else {
        return Ok(None);
    };
    let [crc, len] = [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes);
    Ok(Some(([crc, len], 8)))
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("at", &self.at)
            .field("input", &self.input.len())
            .field("piece", &self.piece.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, GzBuilder, write::GzEncoder};

    use super::*;

    fn member(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// What comes out of these chunks, and whether the body ends where it should.
    fn inflate<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Result<(), GzipError>) {
        let mut decoder = Decoder::new();
        let mut content = Vec::new();
        for chunk in chunks {
            decoder.push(Bytes::copy_from_slice(chunk));
            loop {
                match decoder.next_piece() {
                    Ok(Some(piece)) => {
                        assert!(!piece.is_empty() && piece.len() <= PIECE);
                        content.extend_from_slice(&piece);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(decoder.next_piece(), Err(error));
                        return (content, Err(error));
                    }
                }
            }
        }
        (content, decoder.finish())
    }

    fn lines(count: usize) -> Vec<u8> {
        (0..count)
            .flat_map(|at| format!("line {at}\n").into_bytes())
            .collect()
    }

    #[test]
    fn every_split_of_members_gives_the_same() {
        let named = GzBuilder::new()
            .filename("pods.json")
            .comment("all of them")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), Compression::best());
        let named = {
            let mut named = named;
            named.write_all(b"named").unwrap();
            named.finish().unwrap()
        };
        let body = [member(b"first"), named, member(b""), member(&lines(30))].concat();
        let content = [&b"firstnamed"[..], &lines(30)].concat();
        for split in 0..=body.len() {
            let (first, second) = body.split_at(split);
            assert_eq!(
                inflate([first, second]),
                (content.clone(), Ok(())),
                "{split}"
            );
        }
        assert_eq!(inflate(body.chunks(1)), (content, Ok(())));
    }

    #[test]
    fn what_is_large_comes_in_pieces() {
        let content = lines(100_000);
        let body = member(&content).repeat(2);
        for size in [100, 16 << 10, body.len()] {
            let (inflated, end) = inflate(body.chunks(size));
            assert_eq!(end, Ok(()));
            assert!(inflated == content.repeat(2));
        }
    }

    #[test]
    fn a_body_that_is_cut_is_no_body() {
        let body = [member(b"first"), member(&lines(30))].concat();
        let ends = [0, member(b"first").len(), body.len()];
        for cut in 0..=body.len() {
            let (_, end) = inflate([&body[..cut]]);
            let expected = match ends.contains(&cut) {
                true => Ok(()),
                false => Err(GzipError::Cut),
            };
            assert_eq!(end, expected, "{cut}");
        }
    }

    #[test]
    fn what_came_before_garbage_comes_out_and_then_the_error() {
        let first = member(b"first");
        for garbage in [&b"x"[..], b"\x1f\x8b\x07", b"\0\0\0\0", b"{}"] {
            let (content, end) = inflate([&first[..], garbage]);
            assert_eq!(content, b"first");
            assert!(matches!(end, Err(GzipError::Malformed(_))), "{end:?}");
        }
        let (_, end) = inflate([&b"\x1f\x8b\x08\xe0\0\0\0\0\0\0"[..]]);
        let reserved = "a member has flags that are reserved";
        assert_eq!(end, Err(GzipError::Malformed(reserved)));
    }

    #[test]
    fn what_is_not_what_was_compressed_is_an_error() {
        let body = member(&lines(30));
        for at in 10..body.len() {
            let mut body = body.clone();
            body[at] ^= 1;
            let (content, end) = inflate([&body[..]]);
            // What a bit of the content makes of it may be the same.
            assert!(end.is_err() || content == lines(30), "{at}");
        }
        for (at, what) in [(body.len() - 8, "checksum"), (body.len() - 1, "length")] {
            let mut body = body.clone();
            body[at] ^= 1;
            assert_eq!(inflate([&body[..]]).1, Err(GzipError::Corrupt(what)));
        }
    }

    #[test]
    fn a_header_s_checksum_is_looked_at() {
        let mut body = b"\x1f\x8b\x08\x02\0\0\0\0\0\xff".to_vec();
        let mut crc = Crc::new();
        crc.update(&body);
        let right = (crc.sum() as u16).to_le_bytes();
        body.extend(right);
        body.extend(&member(b"content")[10..]);
        assert_eq!(inflate([&body[..]]), (b"content".to_vec(), Ok(())));
        body[10] ^= 1;
        let what = "header's checksum";
        assert_eq!(inflate([&body[..]]).1, Err(GzipError::Corrupt(what)));
    }

    #[test]
    fn a_header_without_end_is_an_error() {
        let mut name = b"\x1f\x8b\x08\x08\0\0\0\0\0\0".to_vec();
        name.resize(2 * HEADER, b'x');
        for size in [1, 100, name.len()] {
            let (_, end) = inflate(name.chunks(size));
            assert!(matches!(end, Err(GzipError::Malformed(_))), "{end:?}");
        }
        let extra = [&b"\x1f\x8b\x08\x04\0\0\0\0\0\0\xff\xff"[..], &[0; HEADER]].concat();
        assert!(matches!(
            inflate([&extra[..]]).1,
            Err(GzipError::Malformed(_))
        ));
    }
}
