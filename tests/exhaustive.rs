//! The smallest decoders over all inputs of bounded size: no panic, no overflow, and what is
//! decoded, encoded again, is the same.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use bytes::{Bytes, BytesMut};
use kubewire::wire::{
    channel::{self, Channel, Encoding, Frame},
    port_channel::{PortChannel, Preamble},
    spdy,
    stamp::Stamp,
    websocket::{FrameHeader, MAX_HEADER, apply_mask},
};

/// All first two bytes, with every kind of extended length and of mask, cut anywhere.
#[test]
fn websocket_headers() {
    let lengths = [
        0,
        1,
        124,
        125,
        126,
        127,
        128,
        0xfffe,
        0xffff,
        0x1_0000,
        0x1_0001,
        1 << 31,
    ];
    let lengths = lengths
        .into_iter()
        .chain([u64::from(u32::MAX), 1 << 32, 1 << 62]);
    let lengths: Vec<_> = lengths
        .chain([i64::MAX as u64, 1 << 63, u64::MAX])
        .collect();
    let mut whole = 0;
    for start in 0..=u16::MAX {
        let [first, second] = start.to_be_bytes();
        let extended: Vec<Vec<u8>> = match second & 0x7f {
            126 => lengths
                .iter()
                .map(|length| (*length as u16).to_be_bytes().to_vec())
                .collect(),
            127 => lengths
                .iter()
                .map(|length| length.to_be_bytes().to_vec())
                .collect(),
            _ => vec![Vec::new()],
        };
        for extended in extended {
            let mut input = vec![first, second];
            input.extend(&extended);
            input.extend([1, 2, 3, 0xff]);
            input.resize(MAX_HEADER + 1, 9);
            let Ok(parsed) = FrameHeader::parse(&input) else {
                continue;
            };
            let (header, used) = parsed.expect("a header is never longer");
            for cut in 0..used {
                // A prefix is incomplete, never another header.
                assert_eq!(FrameHeader::parse(&input[..cut]), Ok(None));
            }
            let mut again = Vec::new();
            header.encode(&mut again);
            assert!(again.len() <= used);
            let (same, length) = FrameHeader::parse(&again).unwrap().unwrap();
            assert_eq!((same, length), (header, again.len()));
            let minimal = match extended.len() {
                2 => header.length > 125,
                8 => header.length > 0xffff,
                _ => true,
            };
            assert_eq!(again == input[..used], minimal, "{:x?}", &input[..used]);
            whole += 1;
        }
    }
    // 3 opcodes of data, final or not, and 3 of control, which are final and short.
    let sizes = 126 + 2 * lengths.len();
    let short = lengths
        .iter()
        .filter(|length| (**length as u16) <= 125)
        .count();
    let tiny = lengths.iter().filter(|length| **length <= 125).count();
    assert_eq!(whole, (6 * sizes + 3 * (126 + short + tiny)) * 2);
}

/// All offsets against the definition, for all lengths around a word and its multiples.
#[test]
fn masks() {
    let key = [0x01, 0x80, 0xff, 0x5a];
    let data: Vec<u8> = (0..80_u8).map(|n| n.wrapping_mul(37)).collect();
    for offset in (0..64).chain([usize::MAX / 2, usize::MAX, u32::MAX as usize]) {
        for start in 0..8 {
            for length in 0..=data.len() - start {
                let mut masked = data.clone();
                let part = &mut masked[start..start + length];
                apply_mask(part, key, offset);
                for (at, byte) in part.iter().enumerate() {
                    assert_eq!(*byte, data[start + at] ^ key[(at % 4 + offset % 4) % 4]);
                }
                apply_mask(part, key, offset);
                assert_eq!(masked, data);
            }
        }
    }
}

/// All flags and types of frames, with lengths and ids at their edges, whole and byte by byte.
#[test]
fn spdy_heads() {
    let edges = [0, 1, 2, 0x7fff_fffe, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    let lengths = [
        0, 1, 3, 4, 5, 7, 8, 9, 10, 12, 16, 0xffff, 0x1_0000, 0x1_0001, 0xff_ffff,
    ];
    let kinds = (0..=12).chain([0x7fff, 0x8000, u16::MAX]);
    let firsts = kinds.flat_map(|kind| {
        [2, 3, 4, 0x7fff].map(|version| (0x8000 | version) << 16 | u32::from(kind))
    });
    let firsts: Vec<u32> = firsts.chain(edges).collect();
    let mut decoded = 0;
    for first in firsts {
        for flags in 0..=u8::MAX {
            for length in lengths {
                let mut wire = BytesMut::new();
                wire.extend_from_slice(&first.to_be_bytes());
                wire.extend_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
                // Longer ones must wait for the rest.
                let have = length.min(20);
                for word in 0..have {
                    wire.extend_from_slice(&[edges[word as usize % edges.len()].to_be_bytes()[3]]);
                }
                let wire = wire.freeze();
                let outcome = spdy::Frame::parse(&mut wire.clone());
                if let Ok(None) = outcome {
                    assert!(length > 20);
                    continue;
                }
                let mut decoder = spdy::Decoder::new();
                let mut one = Ok(None);
                for at in 0..wire.len() {
                    one = decoder.decode(&mut wire.slice(at..=at));
                    if one != Ok(None) {
                        break;
                    }
                }
                let Ok(Some(frame)) = outcome else {
                    assert_eq!(one, outcome);
                    continue;
                };
                if !matches!(frame, spdy::Frame::Data(_)) {
                    assert_eq!(one, Ok(Some(frame.clone())));
                }
                let mut again = BytesMut::new();
                frame.encode(&mut again);
                let same = spdy::Frame::parse(&mut again.freeze());
                assert_eq!(same, Ok(Some(frame)));
                decoded += 1;
            }
        }
    }
    assert!(decoded > 10_000, "{decoded}");
}

/// Every byte at every place of a stamp in each form: what is still a stamp is one as Go writes
/// it, and reads back.
#[test]
fn stamps_of_which_one_byte_is_another() {
    let forms = [
        "2026-11-22T01:55:55Z",
        "2024-02-29T23:59:59.1Z",
        "2026-11-22T01:55:55.156900177Z",
        "2026-11-22T01:55:55.156900177+05:30",
        "0000-01-01T00:00:00-23:59",
        "9999-12-31T23:59:59.999999999+00:00",
    ];
    for form in forms {
        for at in 0..form.len() {
            for byte in 0..=u8::MAX {
                let mut text = form.as_bytes().to_vec();
                text[at] = byte;
                let prefix = Stamp::parse_prefix(&text);
                let Some(stamp) = Stamp::parse(&text) else {
                    assert!(prefix.is_none_or(|(_, used)| used < text.len()));
                    continue;
                };
                assert_eq!(prefix, Some((stamp, text.len())));
                // An offset may lead out of the years that have four digits.
                if (-62_167_219_200..253_402_300_800).contains(&stamp.unix_seconds()) {
                    assert_eq!(Stamp::parse(stamp.to_string().as_bytes()), Some(stamp));
                }
            }
            assert_eq!(
                Stamp::parse(&form.as_bytes()[..at]),
                None,
                "{form} cut at {at}"
            );
        }
    }
}

/// Every day of four centuries, of which the calendar repeats itself, and what is no day.
#[test]
fn days() {
    let mut next = Stamp::parse(b"1970-01-01T00:00:00Z")
        .unwrap()
        .unix_seconds();
    for year in 1970..2370 {
        for month in 0..=13 {
            for day in 0..=32 {
                let text = format!("{year}-{month:02}-{day:02}T00:00:00.000000000Z");
                let Some(stamp) = Stamp::parse(text.as_bytes()) else {
                    continue;
                };
                assert_eq!((stamp.unix_seconds(), stamp.to_string()), (next, text));
                next += 86_400;
            }
        }
    }
    assert_eq!(next, 146_097 * 86_400);
}

/// All messages of up to two bytes, of three with a channel in front, and of a group of base64 with
/// any two characters; and what any two bytes are in base64.
#[test]
fn channel_messages() {
    let short = (0..=u16::MAX).flat_map(|n| {
        let [a, b] = n.to_be_bytes();
        [
            vec![],
            vec![a],
            vec![a, b],
            vec![255, a, b],
            [&[b'0' + a % 6, a, b][..], b"=="].concat(),
            [&[b'1', a, b][..], b"Q="].concat(),
            [&[b'1', a, b][..], b"QQ"].concat(),
            [b"1Q", &[a, b][..], b"="].concat(),
            [b"1QQ", &[a, b][..]].concat(),
        ]
    });
    for message in short {
        let message = Bytes::from(message);
        for (encoding, close) in [
            (Encoding::Binary, false),
            (Encoding::Binary, true),
            (Encoding::Base64, false),
        ] {
            let Ok(Some(frame)) = channel::parse(encoding, close, message.clone()) else {
                continue;
            };
            let again = match (&frame, encoding) {
                (Frame::Close(channel), _) => vec![255, channel.number()],
                (Frame::Data(channel, payload), Encoding::Binary) => {
                    [&[channel.number()][..], &payload[..]].concat()
                }
                (Frame::Data(channel, payload), Encoding::Base64) => {
                    channel::to_base64(*channel, payload).to_vec()
                }
            };
            assert_eq!(again, message);
        }
    }
    for pair in 0..=u16::MAX {
        for payload in [&pair.to_be_bytes()[..], &[pair as u8]] {
            let message = channel::to_base64(Channel::Stdout, payload);
            let read = channel::parse(Encoding::Base64, false, message);
            let payload = Bytes::copy_from_slice(payload);
            assert_eq!(read, Ok(Some(Frame::Data(Channel::Stdout, payload))));
        }
    }
    for number in 0..=u8::MAX {
        let channel = Channel::from_number(number);
        assert!(channel.is_none_or(|channel| channel.number() == number));
    }
}

/// All channels of ports in both encodings, with all preambles.
#[test]
fn port_channels() {
    for encoding in [Encoding::Binary, Encoding::Base64] {
        for index in 0..encoding.max_ports() as u8 {
            for error in [false, true] {
                let channel = PortChannel { index, error };
                for length in 0..4 {
                    let payload = &b"abc"[..length];
                    let message = channel.message(payload, encoding);
                    let parsed = PortChannel::parse(message, encoding).unwrap();
                    assert_eq!(parsed, Some((channel, Bytes::from_static(payload))));
                }
            }
        }
        for head in 0..=u8::MAX {
            if let Ok(Some((channel, rest))) = PortChannel::parse(vec![head].into(), encoding) {
                assert_eq!((channel.head(encoding), rest.len()), (head, 0));
            }
        }
    }
    for port in 0..=u16::MAX {
        let mut payload = Bytes::from([&port.to_le_bytes()[..], b"!"].concat());
        let mut preamble = Preamble::default();
        assert_eq!(preamble.take(&mut payload), Some(port));
        assert_eq!(payload, "!");
    }
}
