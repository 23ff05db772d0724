//! Terminal sizes: in flow the bytes of the resize channel, out come [`TerminalSize`]s.
//!
//! A size is a JSON object, `{"Width":80,"Height":24}`; objects follow one another with or without
//! white space, and message boundaries mean nothing
//! (`k8s.io/cri-streaming/pkg/streaming/remotecommand/httpstream.go`, `handleResizeEvents`).

use serde::Deserialize;

use super::watch::{EndOfValue, skip_space};

/// Bytes of one size: more than any has.
const LONGEST: usize = 1024;

/// The size of a terminal, in character cells.
///
/// ```
/// use kubewire::wire::resize::TerminalSize;
///
/// assert_eq!(TerminalSize::new(80, 24).to_json(), br#"{"Width":80,"Height":24}"#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl TerminalSize {
    /// A size of `width` columns and `height` rows.
    pub const fn new(width: u16, height: u16) -> Self {
        Self { width, height }
    }

    /// The object that servers expect. kubelets decode it with Go's `encoding/json`, in whose
    /// spelling it is written.
    pub fn to_json(self) -> Vec<u8> {
        format!(r#"{{"Width":{},"Height":{}}}"#, self.width, self.height).into_bytes()
    }
}

/// Go matches names without regard to case, and the JavaScript client relies on it.
#[derive(Deserialize)]
struct Wire {
    #[serde(alias = "width", alias = "WIDTH", default)]
    #[serde(rename = "Width")]
    width: u16,
    #[serde(alias = "height", alias = "HEIGHT", default)]
    #[serde(rename = "Height")]
    height: u16,
}

/// Something on the resize channel that is not a size.
///
/// ```
/// use kubewire::wire::resize::ResizeDecoder;
///
/// let error = ResizeDecoder::default().push(b"80x24", |_| {}).unwrap_err();
/// assert_eq!(error.to_string(), "the resize channel carries what is not a terminal size");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the resize channel carries what is not a terminal size")]
#[non_exhaustive]
pub struct ResizeError;

/// The bytes of the resize channel, put together.
///
/// ```
/// use kubewire::wire::resize::{ResizeDecoder, TerminalSize};
///
/// let (mut decoder, mut sizes) = (ResizeDecoder::default(), Vec::new());
/// decoder.push(br#"{"Width":80,"#, |size| sizes.push(size))?;
/// decoder.push(br#""Height":24}"#, |size| sizes.push(size))?;
/// assert_eq!(sizes, [TerminalSize::new(80, 24)]);
/// # Ok::<(), kubewire::wire::resize::ResizeError>(())
/// ```
#[derive(Debug, Default)]
pub struct ResizeDecoder {
    /// The start of a size whose end had not arrived.
    partial: Vec<u8>,
    end: EndOfValue,
}

impl ResizeDecoder {
    /// Takes the next bytes of the channel and gives `each` size that they complete. A message may
    /// complete millions, of which few matter: none is kept here.
    ///
    /// # Errors
    ///
    /// If the bytes are not a sequence of sizes.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(TerminalSize),
    ) -> Result<(), ResizeError> {
        if !self.partial.is_empty() {
            let before = self.partial.len();
            // No size is longer; what follows it is looked at afterwards.
            let take = bytes.len().min(LONGEST + 1 - before);
            self.partial.extend_from_slice(&bytes[..take]);
            let Some(end) = find(&mut self.end, &self.partial)? else {
                return Ok(());
            };
            each(size(&self.partial[..end])?);
            bytes = &bytes[end - before..];
            self.partial.clear();
        }
        loop {
            bytes = &bytes[skip_space(bytes, 0)..];
            match bytes.first() {
                None => return Ok(()),
                Some(b'{') => {}
                Some(_) => return Err(ResizeError),
            }
            self.end = EndOfValue::default();
            let Some(end) = find(&mut self.end, bytes)? else {
                self.partial.extend_from_slice(bytes);
                return Ok(());
            };
            each(size(&bytes[..end])?);
            bytes = &bytes[end..];
        }
    }
}

/// Where the size ends that `bytes` begin with; `None` if that has not arrived.
fn find(end: &mut EndOfValue, bytes: &[u8]) -> Result<Option<usize>, ResizeError> {
    let end = end.find(bytes).map_err(|_| ResizeError)?;
    if end.unwrap_or(bytes.len()) > LONGEST {
        return Err(ResizeError);
    }
    Ok(end)
}

fn size(object: &[u8]) -> Result<TerminalSize, ResizeError> {
    let Wire { width, height } = serde_json::from_slice(object).map_err(|_| ResizeError)?;
    Ok(TerminalSize { width, height })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_at_every_split() {
        let wire = b"{\"Width\":80,\"Height\":24}{\"width\":132,\"height\":43}\n {\"Height\":1}\n";
        for split in 0..=wire.len() {
            let mut decoder = ResizeDecoder::default();
            let mut sizes = Vec::new();
            for piece in [&wire[..split], &wire[split..]] {
                decoder.push(piece, |size| sizes.push(size)).unwrap();
            }
            let expected = [(80, 24), (132, 43), (0, 1)].map(|(w, h)| TerminalSize::new(w, h));
            assert_eq!(sizes, expected, "split at {split}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for wire in [
            &b"80x24"[..],
            b"{\"Width\":-1}",
            b"{\"Width\":65536}",
            b"null",
        ] {
            assert_eq!(
                ResizeDecoder::default().push(wire, |_| {}),
                Err(ResizeError)
            );
        }
        let long = format!("{{\"Width\":1{}}}", " ".repeat(LONGEST));
        let pushed = ResizeDecoder::default().push(long.as_bytes(), |_| {});
        assert_eq!(pushed, Err(ResizeError));
        let mut decoder = ResizeDecoder::default();
        let none = |_| panic!("a size");
        assert_eq!(decoder.push(&[b' '; 900], none), Ok(()));
        assert_eq!(decoder.push(b"{\"Width\":", none), Ok(()));
        assert_eq!(decoder.push(&[b' '; 2000], none), Err(ResizeError));
    }

    #[test]
    fn a_written_size_reads_the_same() {
        let size = TerminalSize::new(65535, 0);
        let mut sizes = Vec::new();
        let pushed = ResizeDecoder::default().push(&size.to_json(), |size| sizes.push(size));
        assert_eq!((pushed, sizes), (Ok(()), vec![size]));
    }
}
