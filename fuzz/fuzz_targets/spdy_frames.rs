//! Whatever a frame parses to is written to bytes that parse to the same, and a decoder that gets
//! the bytes in pieces finds the same frames.
#![no_main]

use bytes::{Bytes, BytesMut};
use kubewire::wire::spdy::{Data, Decoder, Frame};
use libfuzzer_sys::fuzz_target;

/// Joins DATA of one stream that a decoder has handed out in pieces.
fn push(frames: &mut Vec<Frame>, frame: Frame) {
    if let (Some(Frame::Data(last)), Frame::Data(next)) = (frames.last_mut(), &frame) {
        if last.stream == next.stream && !last.fin {
            let payload = [&last.payload[..], &next.payload[..]].concat().into();
            *last = Data { payload, fin: next.fin, ..*next };
            return;
        }
    }
    frames.push(frame);
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, data)) = data.split_first() else {
        return;
    };
    let bytes = Bytes::copy_from_slice(data);
    let mut rest = bytes.clone();
    let mut whole = Vec::new();
    let failed = loop {
        let before = rest.clone();
        match Frame::parse(&mut rest) {
            Ok(Some(frame)) => {
                if let Frame::Data(data) = &frame {
                    let range = bytes.as_ptr_range();
                    assert!(data.payload.is_empty() || range.contains(&data.payload.as_ptr()));
                }
                if !matches!(frame, Frame::Unknown(_)) {
                    let mut again = BytesMut::new();
                    frame.encode(&mut again);
                    if !matches!(&frame, Frame::RstStream(reset) if reset.status.0 == 0) {
                        assert_eq!(Frame::parse(&mut again.freeze()), Ok(Some(frame.clone())));
                    }
                }
                push(&mut whole, frame);
            }
            Ok(None) => {
                assert_eq!(rest, before, "partial consumes nothing");
                break false;
            }
            Err(_) => break true,
        }
    };
    let mut decoder = Decoder::new();
    let mut pieces = Vec::new();
    let mut broken = false;
    'all: for piece in bytes.chunks(usize::from(size).max(1)) {
        let mut piece = bytes.slice_ref(piece);
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(frame)) => push(&mut pieces, frame),
                Ok(None) => break,
                Err(_) => {
                    broken = true;
                    break 'all;
                }
            }
        }
    }
    assert_eq!(failed, broken);
    // The decoder may have begun on a frame that is not whole.
    for (a, b) in whole.iter().zip(&pieces).take(whole.len().saturating_sub(1)) {
        assert_eq!(a, b);
    }
    assert!(pieces.len() >= whole.len());
});
