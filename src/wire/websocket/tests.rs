use super::*;
use crate::Role;

fn frame(fin: bool, opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    FrameHeader {
        fin,
        opcode,
        mask,
        length: payload.len() as u64,
    }
    .encode(&mut out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(&mut out[start..], key, 0);
    }
    out
}

fn decode_all(role: Role, chunks: &[&[u8]]) -> Result<Vec<Message>, WebSocketError> {
    let mut decoder = Decoder::new(role, 1 << 20);
    let mut input = BytesMut::new();
    let mut messages = Vec::new();
    for chunk in chunks {
        input.extend_from_slice(chunk);
        while let Some(message) = decoder.decode(&mut input)? {
            messages.push(message);
        }
    }
    Ok(messages)
}

#[test]
fn a_header_reads_as_it_was_written() {
    for length in [
        0,
        1,
        125,
        126,
        127,
        65535,
        65536,
        u64::from(u32::MAX),
        u64::MAX,
    ] {
        for mask in [None, Some([1, 2, 3, 4])] {
            let header = FrameHeader {
                fin: true,
                opcode: Opcode::Binary,
                mask,
                length,
            };
            let mut wire = Vec::new();
            header.encode(&mut wire);
            assert_eq!(FrameHeader::parse(&wire), Ok(Some((header, wire.len()))));
            for cut in 0..wire.len() {
                assert_eq!(FrameHeader::parse(&wire[..cut]), Ok(None));
            }
        }
    }
}

#[test]
fn masking_works_at_every_offset_and_length() {
    let key = [0x12, 0x34, 0x56, 0x78];
    for offset in 0..9 {
        for length in 0..200 {
            let data: Vec<u8> = (0..length).collect();
            let mut masked = data.clone();
            apply_mask(&mut masked, key, offset);
            for (i, byte) in masked.iter().enumerate() {
                assert_eq!(*byte, data[i] ^ key[(i + offset) % 4]);
            }
            #[cfg(any(feature = "client", feature = "server"))]
            for head in [&b""[..], b"head", &[7; 64]] {
                let copy = masked_copy(head, &data, key, offset);
                assert_eq!(copy, [head, &masked].concat());
            }
        }
    }
}

#[test]
fn messages_are_the_same_at_every_split() {
    let wire = [
        frame(true, Opcode::Binary, None, b"one"),
        frame(false, Opcode::Text, None, b"fr"),
        frame(true, Opcode::Ping, None, b"?"),
        frame(false, Opcode::Continuation, None, b""),
        frame(true, Opcode::Continuation, None, b"agment"),
        frame(true, Opcode::Binary, None, &[7; 300]),
        frame(true, Opcode::Close, None, b"\x03\xe8bye"),
    ]
    .concat();
    let expected = [
        Message::Binary("one".into()),
        Message::Ping("?".into()),
        Message::Text("fragment".into()),
        Message::Binary(vec![7; 300].into()),
        Message::Close(Some(Close {
            code: 1000,
            reason: "bye".into(),
        })),
    ];
    for split in 0..=wire.len() {
        let (a, b) = wire.split_at(split);
        assert_eq!(
            decode_all(Role::Client, &[a, b]).unwrap(),
            expected,
            "split at {split}"
        );
    }
}

#[test]
fn a_whole_frame_is_not_copied() {
    let mut input = BytesMut::from(&frame(true, Opcode::Binary, None, &[1; 1000])[..]);
    let start = input[4..].as_ptr();
    let mut decoder = Decoder::new(Role::Client, 1 << 20);
    let Some(Message::Binary(payload)) = decoder.decode(&mut input).unwrap() else {
        panic!("no message");
    };
    assert_eq!(payload.as_ptr(), start);
}

#[test]
fn a_server_unmasks() {
    let wire = frame(true, Opcode::Binary, Some([9, 8, 7, 6]), b"masked payload");
    assert_eq!(
        decode_all(Role::Server, &[&wire]).unwrap(),
        [Message::Binary("masked payload".into())]
    );
}

#[test]
fn what_breaks_the_protocol_is_named() {
    use WebSocketError as E;
    let cases: [(Role, Vec<u8>, E); 10] = [
        (Role::Client, vec![0xc2, 0], E::ReservedBits),
        (Role::Client, vec![0x83, 0], E::UnknownOpcode(3)),
        (Role::Client, vec![0x09, 0], E::ControlFrame),
        (Role::Client, vec![0x89, 126, 0, 126], E::ControlFrame),
        (Role::Client, vec![0x88, 1, 3], E::CloseBody),
        (
            Role::Client,
            frame(true, Opcode::Binary, Some([0; 4]), b"x"),
            E::Masked,
        ),
        (
            Role::Server,
            frame(true, Opcode::Binary, None, b"x"),
            E::Unmasked,
        ),
        (
            Role::Client,
            frame(true, Opcode::Continuation, None, b"x"),
            E::Fragments,
        ),
        (
            Role::Client,
            [
                frame(false, Opcode::Text, None, b"x"),
                frame(true, Opcode::Text, None, b"x"),
            ]
            .concat(),
            E::Fragments,
        ),
        (
            Role::Client,
            vec![0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            E::TooLong {
                length: u64::MAX,
                limit: 1 << 20,
            },
        ),
    ];
    for (role, wire, error) in cases {
        assert_eq!(decode_all(role, &[&wire]), Err(error));
    }
}

#[test]
fn fragments_cannot_add_up_past_the_bound() {
    let half = vec![0; 600 << 10];
    let wire = [
        frame(false, Opcode::Binary, None, &half),
        frame(true, Opcode::Continuation, None, &half),
    ]
    .concat();
    assert_eq!(
        decode_all(Role::Client, &[&wire]),
        Err(WebSocketError::TooLong {
            length: 1200 << 10,
            limit: 1 << 20
        })
    );
}

fn close(payload: &[u8]) -> Result<Vec<Message>, WebSocketError> {
    decode_all(Role::Client, &[&frame(true, Opcode::Close, None, payload)])
}

#[test]
fn a_close_has_a_code_that_may_be_sent_and_a_reason_that_is_text() {
    for code in [
        0,
        1,
        999,
        1004,
        1005,
        1006,
        1015,
        1016,
        2999,
        5000,
        u16::MAX,
    ] {
        let error = close(&code.to_be_bytes()).unwrap_err();
        assert_eq!(error, WebSocketError::CloseCode(code));
        assert_eq!(error.close_code(), 1002);
    }
    for code in [1000, 1003, 1007, 1011, 1014, 3000, 4999] {
        let reason = String::new();
        let expected = Message::Close(Some(Close { code, reason }));
        assert_eq!(close(&code.to_be_bytes()).unwrap(), [expected]);
    }
    let error = close(b"\x03\xe8caf\xe9").unwrap_err();
    assert_eq!((&error, error.close_code()), (&WebSocketError::Utf8, 1007));
}

#[test]
fn text_is_checked_across_fragments_and_fails_with_the_first_that_is_none() {
    let text = "κόσμε €𝄞".as_bytes();
    for first in 0..=text.len() {
        for second in first..=text.len() {
            let wire = [
                frame(false, Opcode::Text, None, &text[..first]),
                frame(false, Opcode::Continuation, None, &text[first..second]),
                frame(true, Opcode::Continuation, None, &text[second..]),
            ]
            .concat();
            let expected = Message::Text(Bytes::copy_from_slice(text));
            assert_eq!(decode_all(Role::Client, &[&wire]).unwrap(), [expected]);
        }
    }
    for (wire, what) in [
        (frame(true, Opcode::Text, None, b"\xff"), "no byte of UTF-8"),
        (
            frame(true, Opcode::Text, None, b"\xe2\x82"),
            "a character is cut",
        ),
        (
            frame(false, Opcode::Text, None, b"\xed\xa0\x80"),
            "a surrogate, before the end",
        ),
        (
            frame(false, Opcode::Text, None, b"\xf4\x90"),
            "beyond Unicode, before the end",
        ),
    ] {
        assert_eq!(
            decode_all(Role::Client, &[&wire]),
            Err(WebSocketError::Utf8),
            "{what}"
        );
    }
    let cut = [
        frame(false, Opcode::Text, None, b"\xe2"),
        frame(true, Opcode::Continuation, None, b"\x82"),
    ];
    assert_eq!(
        decode_all(Role::Client, &[&cut.concat()]),
        Err(WebSocketError::Utf8)
    );
    // Bytes are no text.
    let binary = frame(true, Opcode::Binary, None, b"\xff");
    assert!(decode_all(Role::Client, &[&binary]).is_ok());
}
