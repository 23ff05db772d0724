//! What targets share: a script of steps that is read off the fuzzer's bytes, and a driver that
//! plays the network to a session that makes requests.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kubewire::{
    error::NetworkError,
    session::{Exchange, Head, Message},
};

/// The fuzzer's bytes, as choices. When they are at an end, every choice is the first.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        byte
    }

    pub fn one_of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[usize::from(self.byte()) % N]
    }

    /// The next bytes, whose number is a choice too.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(u16::from_be_bytes([self.byte() & 0x0f, self.byte()]));
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Lets a network and a clock do to `session` what the script says, and hands over its updates,
/// with whether a response is at hand.
///
/// Holds true of every such session: it wants a request only when it has none, no more of them than
/// responses have ended, and nothing when it says that it is done.
pub fn drive<S: Exchange>(
    script: &mut Script<'_>,
    mut session: S,
    mut now: Instant,
    mut update: impl FnMut(&S, S::Update),
) -> S {
    let (mut requests, mut ends, mut at_hand) = (0_u32, 0_u32, false);
    let mut quiet = 0_u32;
    while !script.is_over() {
        match script.byte() % 8 {
            0 => {
                if session.poll_request(now).is_some() {
                    // A driver drops the response at hand when it is given a request.
                    requests += 1;
                    ends += u32::from(at_hand);
                    at_hand = true;
                    assert!(requests <= ends + 1);
                    quiet = 0;
                }
            }
            1 if at_hand => {
                let head = Head {
                    status: script.one_of([200, 101, 404, 410, 429, 500, 403, 422]),
                    content_type: script.one_of([
                        Some("application/json"),
                        Some("application/json;stream=watch"),
                        Some("application/vnd.kubernetes.protobuf"),
                        Some("application/vnd.kubernetes.protobuf;stream=watch"),
                        Some("application/cbor-seq"),
                        Some("application/cbor"),
                        Some("text/plain"),
                        None,
                    ]),
                    retry_after: script.one_of([
                        None,
                        Some(Duration::from_secs(1)),
                        Some(Duration::MAX),
                    ]),
                    ..Head::default()
                };
                session.handle_head(now, head);
            }
            2 | 3 if at_hand => {
                session.handle_body(now, Bytes::copy_from_slice(script.bytes()));
            }
            4 if at_hand => {
                let payload = Bytes::copy_from_slice(script.bytes());
                let message = match script.byte() % 2 {
                    0 => Message::Binary(payload),
                    _ => Message::Text(payload),
                };
                session.handle_message(now, message);
            }
            5 if at_hand => {
                let lost = NetworkError::Lost(Arc::new(io::ErrorKind::ConnectionReset.into()));
                let error = (script.byte() % 2 == 1).then(|| lost.into());
                session.handle_end(now, error);
                at_hand = false;
                ends += 1;
            }
            6 => {
                if let Some(at) = session.poll_timeout() {
                    now = now.max(at);
                    session.handle_timeout(now);
                    quiet += 1;
                    // Whatever is due has been done, or a request is.
                    assert!(quiet < 4 || at_hand || session.poll_timeout().is_some());
                }
            }
            7 => session.handle_hold(now, script.byte() % 2 == 1),
            _ => {}
        }
        while let Some(given) = session.poll_update() {
            update(&session, given);
        }
        if at_hand && !session.wants_response() {
            at_hand = false;
            ends += 1;
        }
    }
    session
}
