//! Events out of the chunks of a watch's response body.
//!
//! In go the chunks, cut anywhere; out come events, each a slice of the chunk that it arrived in,
//! or a copy if it straddles two.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use super::{Encoding, Event, EventError, cbor::EndOfItem, json_line::EndOfEvent, keep};
use crate::{limits, wire::behind};

/// Cuts the body of a watch into events.
///
/// Every way to cut the same body into chunks gives the same events. After an error the decoder
/// stays in error: events have no mark at which reading could begin anew.
///
/// ```
/// use kubewire::wire::watch::{Decoder, Encoding, EventType};
///
/// let mut decoder = Decoder::new(Encoding::Json);
/// decoder.push(r#"{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"a"}"#.into());
/// assert!(decoder.next_event()?.is_none());
/// decoder.push("}}\n".into());
/// let event = decoder.next_event()?.expect("the event is complete");
/// assert_eq!(event.event_type, EventType::Added);
/// assert_eq!(event.object.metadata()?.name()?, "a");
/// decoder.finish()?;
/// # Ok::<_, kubewire::wire::watch::EventError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    encoding: Encoding,
    bound: usize,
    /// What of the last chunk has not been handed out.
    chunk: Bytes,
    /// The start of an event whose end had not arrived.
    carry: BytesMut,
    /// Bytes of the last event.
    last: usize,
    json: EndOfEvent,
    cbor: EndOfItem,
    failed: Option<EventError>,
}

impl Decoder {
    /// A decoder of events of at most [`WATCH_EVENT`](limits::WATCH_EVENT) bytes.
    pub fn new(encoding: Encoding) -> Self {
        Self::with_bound(encoding, limits::WATCH_EVENT)
    }

    /// A decoder of events of at most `bound` bytes.
    pub fn with_bound(encoding: Encoding, bound: usize) -> Self {
        Self {
            encoding,
            bound,
            chunk: Bytes::new(),
            carry: BytesMut::new(),
            last: 0,
            json: EndOfEvent::default(),
            cbor: EndOfItem::default(),
            failed: None,
        }
    }

    /// Takes the next chunk of the body.
    ///
    /// Take out all events first: a chunk that meets the unread rest of another is copied behind
    /// it.
    pub fn push(&mut self, chunk: Bytes) {
        self.chunk = behind(&self.chunk, chunk);
    }

    /// The next event; `None` if it has not arrived whole.
    ///
    /// # Errors
    ///
    /// If the body is malformed or an event exceeds the bound.
    pub fn next_event(&mut self) -> Result<Option<Event>, EventError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let event = self.next_frame().and_then(|frame| {
            frame
                .map(|frame| Event::from_message(self.encoding, frame))
                .transpose()
        });
        if let Err(error) = &event {
            self.failed = Some(error.clone());
            self.chunk = Bytes::new();
            self.carry = BytesMut::new();
        }
        event
    }

    /// The body has ended.
    ///
    /// # Errors
    ///
    /// [`EventError::Cut`] if it ended in the midst of an event.
    pub fn finish(&mut self) -> Result<(), EventError> {
        let is_blank = |bytes: &[u8]| {
            bytes.is_empty() || self.encoding == Encoding::Json && bytes.trim_ascii().is_empty()
        };
        if is_blank(&self.carry) && is_blank(&self.chunk) {
            return Ok(());
        }
        Err(EventError::Cut)
    }

    /// Bytes that have arrived and are not part of an event handed out.
    pub fn buffered(&self) -> usize {
        self.chunk.len() + self.carry.len()
    }

    fn next_frame(&mut self) -> Result<Option<Bytes>, EventError> {
        if self.carry.is_empty() {
            if self.encoding == Encoding::Json {
                let blank = self.chunk.len() - self.chunk.trim_ascii_start().len();
                self.chunk.advance(blank);
            }
            if self.chunk.is_empty() {
                return Ok(None);
            }
            if let Some(end) = Self::end(
                self.encoding,
                &mut self.json,
                &mut self.cbor,
                &self.chunk,
                self.bound,
            )? {
                let frame = self.chunk.split_to(end);
                return self.frame(frame).map(Some);
            }
            // Events of a watch are of much the same size.
            self.carry
                .reserve(self.chunk.len().max(self.last + self.last / 8));
            keep(&mut self.carry, &self.chunk, self.bound);
            self.chunk = Bytes::new();
            return self.within_bound().map(|()| None);
        }
        while !self.chunk.is_empty() {
            let before = self.carry.len();
            let take = self.likely_rest().min(self.chunk.len());
            keep(&mut self.carry, &self.chunk[..take], self.bound);
            let end = Self::end(
                self.encoding,
                &mut self.json,
                &mut self.cbor,
                &self.carry,
                self.bound,
            )?;
            let Some(end) = end else {
                self.chunk.advance(take);
                self.within_bound()?;
                continue;
            };
            match end.checked_sub(before) {
                // Of what was just copied, the part behind the event stays in the chunk.
                Some(rest) => self.chunk.advance(rest),
                // Only now it shows that another event begins in what was kept.
                None => {
                    let others = [&self.carry[end..before], &self.chunk];
                    self.chunk = others.concat().into();
                }
            }
            self.carry.truncate(end);
            let frame = self.carry.split().freeze();
            return self.frame(frame).map(Some);
        }
        Ok(None)
    }

    /// How much of the chunk to copy behind the carry before looking for the end again: little
    /// more than the event, so that no event keeps a large buffer alive.
    fn likely_rest(&self) -> usize {
        match self.encoding {
            Encoding::Json => memchr(b'\n', &self.chunk).map_or(usize::MAX, |at| at + 1),
            Encoding::Protobuf => {
                let header = self.carry.first_chunk().copied();
                let whole = header.map_or(0, |len| u32::from_be_bytes(len) as usize);
                whole.saturating_add(4) - self.carry.len()
            }
            Encoding::Cbor => 4096.max(self.cbor.known().saturating_sub(self.carry.len())),
        }
    }

    fn end(
        encoding: Encoding,
        json: &mut EndOfEvent,
        cbor: &mut EndOfItem,
        data: &[u8],
        bound: usize,
    ) -> Result<Option<usize>, EventError> {
        match encoding {
            Encoding::Json if data.first() != Some(&b'{') => {
                Err(encoding.malformed("an event should begin with a brace"))
            }
            Encoding::Json => Ok(json.find(data, bound)),
            Encoding::Cbor => cbor.find(data, bound),
            Encoding::Protobuf => {
                // `k8s.io/apimachinery/pkg/util/framer/framer.go`: length, big-endian.
                let Some(header) = data.first_chunk() else {
                    return Ok(None);
                };
                let len = u32::from_be_bytes(*header) as usize;
                if len > bound {
                    return Err(EventError::TooLarge { bound });
                }
                Ok((data.len() - 4 >= len).then_some(4 + len))
            }
        }
    }

    fn within_bound(&self) -> Result<(), EventError> {
        if self.carry.len() > self.bound.saturating_add(4) {
            return Err(EventError::TooLarge { bound: self.bound });
        }
        Ok(())
    }

    /// A whole event; the next one is looked for from the start.
    fn frame(&mut self, mut frame: Bytes) -> Result<Bytes, EventError> {
        match self.encoding {
            Encoding::Json => self.json = EndOfEvent::default(),
            Encoding::Cbor => self.cbor = EndOfItem::default(),
            Encoding::Protobuf => frame.advance(4),
        }
        self.last = frame.len();
        if frame.len() > self.bound {
            return Err(EventError::TooLarge { bound: self.bound });
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_on_one_line_are_the_same_at_every_split() {
        let event = |name: &str| format!(r#"{{"type":"ADDED","object":{{"name":"{name}"}}}}"#);
        let body = ["a", "b", "c"].map(event).concat();
        let expected = ["a", "b", "c"].map(|name| format!(r#"{{"name":"{name}"}}"#));
        for (first, second) in
            (0..body.len()).flat_map(|at| (at..body.len()).map(move |to| (at, to)))
        {
            let mut decoder = Decoder::with_bound(Encoding::Json, body.len() / 3);
            let mut objects = Vec::new();
            for part in [&body[..first], &body[first..second], &body[second..]] {
                decoder.push(Bytes::copy_from_slice(part.as_bytes()));
                while let Some(event) = decoder.next_event().unwrap() {
                    objects.push(event.object.bytes().unwrap().to_vec());
                }
            }
            decoder.finish().unwrap();
            let texts = objects.iter().map(|bytes| str::from_utf8(bytes).unwrap());
            assert!(texts.eq(&expected), "split at {first} and {second}");
        }
    }

    #[test]
    fn what_follows_an_event_and_is_none_is_an_error_or_part_of_its_line() {
        let body = br#"{"type":"ADDED","object":{}},"more":{"x":1}}"#;
        for split in 1..body.len() {
            let mut decoder = Decoder::new(Encoding::Json);
            let mut events = 0;
            let mut failed = false;
            for part in [&body[..split], &body[split..], b"\n"] {
                decoder.push(Bytes::copy_from_slice(part));
                while let Some(event) = decoder.next_event().transpose() {
                    if event.is_err() {
                        failed = true;
                        break;
                    }
                    events += 1;
                }
            }
            assert!(events <= 1 && (failed || events == 1), "split at {split}");
        }
    }
}
