//! Frames out of a byte stream that arrives in pieces.
//!
//! In flow messages, cut anywhere; out come frames. The payload of DATA is
//! handed out as it arrives, always as slices of the input: a DATA frame that spans messages
//! comes out as several [`Data`], of which only the last has the flag. Control frames that span
//! messages, a few dozen bytes each, are copied together.

use bytes::{Buf, Bytes, BytesMut};

use super::{Data, Frame, HEAD, SpdyError, StreamId, head::Head};

/// Frames out of a byte stream that arrives in pieces.
///
/// Kubernetes' own implementation writes the fields of a frame one by one, each into a WebSocket
/// message of its own, so that frames spanning messages are the rule (`spdy/write.go`).
///
/// ```
/// use kubewire::wire::spdy::{Decoder, Frame, Ping};
///
/// let mut decoder = Decoder::new();
/// // Messages are cut anywhere.
/// assert_eq!(decoder.decode(&mut (&b"\x80\x03\x00\x06\x00\x00"[..]).into())?, None);
/// assert!(!decoder.is_between_frames());
/// let frame = decoder.decode(&mut (&b"\x00\x04\x00\x00\x00\x07"[..]).into())?;
/// assert_eq!(frame, Some(Frame::Ping(Ping { id: 7 })));
/// # Ok::<(), kubewire::wire::spdy::SpdyError>(())
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    /// In a head, of which `have` bytes have arrived.
    Head { bytes: [u8; HEAD], have: usize },
    /// In the payload of DATA, with `left` bytes to come.
    Data {
        stream: StreamId,
        fin: bool,
        left: usize,
    },
    /// In the body of a control frame.
    Control { head: Head, body: BytesMut },
}

impl Default for State {
    fn default() -> Self {
        Self::Head {
            bytes: [0; HEAD],
            have: 0,
        }
    }
}

impl Decoder {
    /// A decoder at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the bytes so far end with a frame. If not, an end of the connection cuts one.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Head { have: 0, .. })
    }

    /// Takes the next frame, or what has arrived of a DATA frame's payload, off the front of
    /// `input`. `None` means that all of `input` is used up and a frame goes on in the next.
    ///
    /// # Errors
    ///
    /// If the bytes cannot be SPDY. Nothing that follows means anything then.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Frame>, SpdyError> {
        loop {
            match &mut self.state {
                State::Head { bytes, have } => {
                    let head = if *have == 0 && input.len() >= HEAD {
                        Head::parse(input).inspect(|_| {
                            input.advance(HEAD);
                        })?
                    } else {
                        let take = input.len().min(HEAD - *have);
                        bytes[*have..*have + take].copy_from_slice(&input[..take]);
                        input.advance(take);
                        *have += take;
                        if *have < HEAD {
                            return Ok(None);
                        }
                        Head::parse(bytes)?
                    };
                    match head {
                        None => return Ok(None),
                        Some(Head::Data {
                            stream,
                            fin,
                            length: 0,
                        }) => {
                            self.state = State::default();
                            let payload = Bytes::new();
                            return Ok(Some(Frame::Data(Data {
                                stream,
                                payload,
                                fin,
                            })));
                        }
                        Some(Head::Data {
                            stream,
                            fin,
                            length: left,
                        }) => self.state = State::Data { stream, fin, left },
                        Some(head @ Head::Control { length, .. }) if input.len() >= length => {
                            self.state = State::default();
                            return Frame::of_head(&head, input.split_to(length)).map(Some);
                        }
                        Some(head) => {
                            let body = BytesMut::new();
                            self.state = State::Control { head, body };
                        }
                    }
                }
                State::Data { stream, fin, left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let payload = input.split_to(input.len().min(*left));
                    *left -= payload.len();
                    let last = *left == 0;
                    let data = Data {
                        stream: *stream,
                        payload,
                        fin: last && *fin,
                    };
                    if last {
                        self.state = State::default();
                    }
                    return Ok(Some(Frame::Data(data)));
                }
                State::Control { head, body } => {
                    let take = input.len().min(head.length() - body.len());
                    body.extend_from_slice(&input[..take]);
                    input.advance(take);
                    if body.len() < head.length() {
                        return Ok(None);
                    }
                    let frame = Frame::of_head(head, body.split().freeze());
                    self.state = State::default();
                    return frame.map(Some);
                }
            }
        }
    }
}
