//! Terminal sizes: in flow the bytes of the resize channel, out come [`TerminalSize`]s.
//!
//! A size is a JSON object, `{"Width":80,"Height":24}`; objects follow one another with or without
//! white space, and message boundaries mean nothing
//! (`k8s.io/cri-streaming/pkg/streaming/remotecommand/httpstream.go`, `handleResizeEvents`).

use serde::Deserialize;

/// Bytes of one size that are kept while it is incomplete: more than any size has.
const LONGEST: usize = 1024;

/// The size of a terminal, in character cells.
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the resize channel carries what is not a terminal size")]
#[non_exhaustive]
pub struct ResizeError;

/// The bytes of the resize channel, put together.
#[derive(Debug, Default)]
pub struct ResizeDecoder {
    partial: Vec<u8>,
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
        bytes: &[u8],
        mut each: impl FnMut(TerminalSize),
    ) -> Result<(), ResizeError> {
        self.partial.extend_from_slice(bytes);
        let mut values = serde_json::Deserializer::from_slice(&self.partial).into_iter::<Wire>();
        let taken = loop {
            match values.next() {
                Some(Ok(Wire { width, height })) => each(TerminalSize { width, height }),
                Some(Err(error)) if !error.is_eof() => return Err(ResizeError),
                _ => break values.byte_offset(),
            }
        };
        self.partial.drain(..taken);
        if self.partial.len() > LONGEST {
            return Err(ResizeError);
        }
        // What one large message has needed, the next sizes do not.
        self.partial.shrink_to(LONGEST);
        Ok(())
    }
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
