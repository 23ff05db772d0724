use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

fn id(id: u32) -> StreamId {
    StreamId::new(id).unwrap()
}

fn encoded(frames: &[Frame]) -> Bytes {
    let mut out = BytesMut::new();
    for frame in frames {
        frame.encode(&mut out);
    }
    out.freeze()
}

/// Everything that `decode` makes of `pieces`, with the pieces of each DATA frame put together
/// again where `whole` says so.
fn decoded(pieces: impl IntoIterator<Item = Bytes>) -> Result<Vec<Frame>, SpdyError> {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    for mut piece in pieces {
        while let Some(frame) = decoder.decode(&mut piece)? {
            frames.push(frame);
        }
        assert!(piece.is_empty(), "None means that the input is used up");
    }
    Ok(frames)
}

/// DATA payloads of a stream joined up to its flag or to another stream's frame.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut out: Vec<Frame> = Vec::new();
    for frame in frames {
        if let (Some(Frame::Data(last)), Frame::Data(next)) = (out.last_mut(), &frame)
            && last.stream == next.stream
            && !last.fin
        {
            let mut payload = BytesMut::from(&last.payload[..]);
            payload.extend_from_slice(&next.payload);
            last.payload = payload.freeze();
            last.fin = next.fin;
            continue;
        }
        out.push(frame);
    }
    out
}

fn arbitrary_frame() -> impl Strategy<Value = Frame> {
    let stream = (1..=StreamId::MAX).prop_map(id);
    let bytes = prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    prop_oneof![
        (stream.clone(), bytes.clone(), any::<bool>()).prop_map(|(stream, payload, fin)| {
            Frame::Data(Data {
                stream,
                payload,
                fin,
            })
        }),
        (
            stream.clone(),
            prop::option::of(stream.clone()),
            0..8u8,
            any::<bool>(),
            any::<bool>(),
            bytes.clone()
        )
            .prop_map(
                |(stream, associated, priority, fin, unidirectional, block)| Frame::SynStream(
                    SynStream {
                        stream,
                        associated,
                        priority,
                        fin,
                        unidirectional,
                        block
                    }
                )
            ),
        (stream.clone(), any::<bool>(), bytes.clone())
            .prop_map(|(stream, fin, block)| Frame::SynReply(SynReply { stream, fin, block })),
        (stream.clone(), 1..=u32::MAX).prop_map(|(stream, status)| Frame::RstStream(RstStream {
            stream,
            status: RstStatus(status)
        })),
        any::<u32>().prop_map(|id| Frame::Ping(Ping { id })),
        (prop::option::of(stream.clone()), any::<u32>()).prop_map(|(last_good, status)| {
            Frame::GoAway(GoAway {
                last_good,
                status: GoAwayStatus(status),
            })
        }),
        (stream, any::<bool>(), bytes)
            .prop_map(|(stream, fin, block)| Frame::Headers(HeadersFrame { stream, fin, block })),
        Just(Frame::Unknown(10)),
    ]
}

#[test]
fn frames_have_the_bytes_of_the_draft() {
    let frames = [
        Frame::Data(Data {
            stream: id(5),
            payload: Bytes::from_static(b"hi"),
            fin: true,
        }),
        Frame::RstStream(RstStream {
            stream: id(3),
            status: RstStatus::CANCEL,
        }),
        Frame::Ping(Ping { id: 0x0102_0304 }),
        Frame::GoAway(GoAway {
            last_good: None,
            status: GoAwayStatus::OK,
        }),
    ];
    let expected: &[u8] = b"\x00\x00\x00\x05\x01\x00\x00\x02hi\
        \x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x03\x00\x00\x00\x05\
        \x80\x03\x00\x06\x00\x00\x00\x04\x01\x02\x03\x04\
        \x80\x03\x00\x07\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00";
    assert_eq!(encoded(&frames), expected);
}

#[test]
fn an_incomplete_frame_consumes_nothing() {
    let whole = encoded(&[Frame::Data(Data {
        stream: id(1),
        payload: Bytes::from_static(b"payload"),
        fin: false,
    })]);
    for length in 0..whole.len() {
        let mut input = whole.slice(..length);
        assert_eq!(Frame::parse(&mut input), Ok(None));
        assert_eq!(input, whole.slice(..length));
    }
}

#[test]
fn a_payload_is_a_slice_of_the_input() {
    let frame = Frame::Data(Data {
        stream: id(1),
        payload: Bytes::from(vec![7; 1000]),
        fin: false,
    });
    let input = encoded(&[frame.clone(), frame]);
    let range = input.as_ptr_range();
    for frames in [
        decoded([input.clone()]).unwrap(),
        decoded([input.slice(..500), input.slice(500..)]).unwrap(),
        decoded(input.chunks(7).map(|c| input.slice_ref(c))).unwrap(),
    ] {
        for frame in frames {
            let Frame::Data(data) = frame else { panic!() };
            assert!(range.contains(&data.payload.as_ptr()));
        }
    }
    let mut rest = input.clone();
    while let Some(Frame::Data(data)) = Frame::parse(&mut rest).unwrap() {
        assert_eq!(data.payload.len(), 1000);
        assert!(range.contains(&data.payload.as_ptr()));
    }
    assert!(rest.is_empty());
}

#[test]
fn what_cannot_be_a_frame_is_refused() {
    let refused = |bytes: &'static [u8]| Frame::parse(&mut Bytes::from_static(bytes)).unwrap_err();
    assert_eq!(
        refused(b"\x80\x02\x00\x01\x00\x00\x00\x00"),
        SpdyError::Version(2)
    );
    assert_eq!(
        refused(b"\x00\x00\x00\x00\x00\x00\x00\x00"),
        SpdyError::StreamZero("DATA")
    );
    assert_eq!(
        refused(b"\x80\x03\x00\x01\x00\xff\xff\xff"),
        SpdyError::TooLarge(0xff_ffff)
    );
    assert_eq!(
        refused(b"\x80\x03\x00\x03\x00\x00\x00\x04\x00\x00\x00\x01"),
        SpdyError::Length {
            frame: "RST_STREAM",
            length: 4
        }
    );
    assert_eq!(
        refused(b"\x80\x03\x00\x03\x00\x00\x00\x08\x80\x00\x00\x00\x00\x00\x00\x05"),
        SpdyError::StreamZero("RST_STREAM")
    );
    for kind in [1, 2, 6, 7, 8] {
        let mut input = BytesMut::new();
        Head::encode_control(kind, 0, 3, &mut input);
        input.extend_from_slice(&[0, 0, 1]);
        let outcome = Frame::parse(&mut input.freeze());
        assert!(
            matches!(outcome, Err(SpdyError::Length { length: 3, .. })),
            "type {kind}: {outcome:?}"
        );
    }
}

#[test]
fn a_reset_never_goes_out_with_status_zero() {
    let frame = RstStream {
        stream: id(1),
        status: RstStatus(0),
    };
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    assert_eq!(out[12..], RstStatus::INTERNAL_ERROR.0.to_be_bytes());
}

proptest! {
    #[test]
    fn every_frame_survives_every_split(
        frames in prop::collection::vec(arbitrary_frame(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes = encoded(&frames);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| bytes.slice(cut[0]..cut[1]));
        prop_assert_eq!(joined(decoded(pieces).unwrap()), joined(frames.clone()));
        // Byte by byte, and the pure function.
        let single = (0..bytes.len()).map(|at| bytes.slice(at..=at));
        prop_assert_eq!(joined(decoded(single).unwrap()), joined(frames.clone()));
        let mut rest = bytes.clone();
        for frame in frames {
            prop_assert_eq!(Frame::parse(&mut rest), Ok(Some(frame)));
        }
        prop_assert_eq!(Frame::parse(&mut rest), Ok(None));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        size in 1..40usize,
    ) {
        let bytes = Bytes::from(bytes);
        let _ = decoded(bytes.chunks(size).map(|chunk| bytes.slice_ref(chunk)));
        let _ = HeaderReader::new().read(&bytes);
    }

    #[test]
    fn header_blocks_survive_in_order(
        blocks in prop::collection::vec(prop::collection::btree_map("[a-z0-9-]{1,9}", ".{0,90}", 0..5), 1..9)
    ) {
        let (mut writer, mut reader) = (HeaderWriter::new(), HeaderReader::new());
        for block in blocks {
            let headers = block
                .into_iter()
                .fold(Headers::new(), |all, (name, value)| all.with(name, value));
            let packed = writer.write(&headers).unwrap();
            prop_assert!(packed.ends_with(b"\0\0\xff\xff"), "flushed for readers that wait for it");
            prop_assert_eq!(reader.read(&packed).unwrap(), headers);
        }
    }
}

fn forward_headers(kind: &'static str) -> Headers {
    Headers::new()
        .with("streamtype", kind)
        .with("port", "18080")
        .with("requestid", "0")
}

#[test]
fn the_dictionary_is_that_of_the_draft() {
    let mut context = flate2::Decompress::new(true);
    let begun = context.decompress(
        b"\x78\xf9\xe3\xc6\xa7\xc2",
        &mut [0],
        flate2::FlushDecompress::Sync,
    );
    assert_eq!(begun.unwrap_err().needs_dictionary(), Some(0xe3c6_a7c2));
    assert_eq!(
        context
            .set_dictionary(super::dictionary::DICTIONARY)
            .unwrap(),
        0xe3c6_a7c2
    );
}

#[test]
fn the_first_block_names_the_dictionary() {
    let block = HeaderWriter::new()
        .write(&forward_headers("error"))
        .unwrap();
    assert_eq!(block[0] & 0x0f, 8, "deflate");
    assert_eq!(
        u16::from_be_bytes([block[0], block[1]]) % 31,
        0,
        "the head's own check"
    );
    assert_eq!(block[1] & 0x20, 0x20, "a preset dictionary");
    assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
}

/// The blocks of kubectl 1.37.1 and of the kubelet, from the capture of a port-forward.
#[test]
fn blocks_of_kubectl_and_of_the_kubelet_expand() {
    let mut reader = HeaderReader::new();
    let first = reader
        .read(
            b"x\xf9\xe3\xc6\xa7\xc2\x02%:p:+)JM\xcc\x85\x16%\xac\xa9\xa0\x80\x86\x14\xcbE\
            \xa0$\xccjha`a\xc0\xc0\xc0\xc0Y\x04\x89\xc7LP\xfaf4\x00\x00\x00\x00\xff\xff",
        )
        .unwrap();
    assert_eq!(first.get("streamtype"), Some("error"));
    assert_eq!(first.get("port"), Some("18080"));
    assert_eq!(first.get("requestid"), Some("0"));
    assert_eq!(first.iter().count(), 3);
    let second = reader
        .read(b"\x82\xea&B\x19\xaa\x05\xa0\xb2*\x11\x00\x00\x00\xff\xff")
        .unwrap();
    assert_eq!(second.get("streamtype"), Some("data"));

    let mut reader = HeaderReader::new();
    let reply = reader
        .read(b"x\xf9\xe3\xc6\xa7\xc2b```\x00\x00\x00\x00\xff\xff")
        .unwrap();
    assert!(reply.is_empty());
    assert!(
        reader
            .read(b"\x02a\x00\x00\x00\x00\xff\xff")
            .unwrap()
            .is_empty()
    );
}

/// `compress/zlib` takes a stream that names no dictionary too.
#[test]
fn a_stream_without_the_dictionary_expands() {
    let plain = b"\0\0\0\x01\0\0\0\x01a\0\0\0\x01b";
    let mut packed = b"\x78\x01\x00\x0e\x00\xf1\xff".to_vec();
    packed.extend_from_slice(plain);
    packed.extend_from_slice(b"\0\0\0\xff\xff");
    assert_eq!(
        HeaderReader::new().read(&packed).unwrap().get("a"),
        Some("b")
    );
}

#[test]
fn expansion_is_bounded() {
    let mut packed = Vec::with_capacity(64 << 10);
    flate2::Compress::new(flate2::Compression::best(), true)
        .compress_vec(&vec![0; 10 << 20], &mut packed, flate2::FlushCompress::Sync)
        .unwrap();
    assert!(
        packed.len() < crate::limits::SPDY_CONTROL_FRAME,
        "a frame could carry it"
    );
    assert_eq!(
        HeaderReader::new().read(&packed),
        Err(SpdyError::HeadersTooLarge(crate::limits::SPDY_HEADERS))
    );
}

#[test]
fn large_blocks_pass_up_to_the_bound() {
    let (mut writer, mut reader) = (HeaderWriter::new(), HeaderReader::new());
    let fits = "x".repeat(crate::limits::SPDY_HEADERS - 13);
    let packed = writer.write(&Headers::new().with("a", fits)).unwrap();
    assert_eq!(reader.read(&packed).unwrap().iter().count(), 1);
    // Incompressible, so that the writer's buffer grows as well.
    let noise: String = (0..7_000u32)
        .map(|n| char::from(33 + (n.wrapping_mul(2_654_435_761) >> 25) as u8 % 90))
        .collect();
    let headers = Headers::new().with("a", noise);
    let packed = writer.write(&headers).unwrap();
    assert_eq!(reader.read(&packed).unwrap(), headers);
    let exceeds = "x".repeat(crate::limits::SPDY_HEADERS - 12);
    let packed = writer.write(&Headers::new().with("a", exceeds)).unwrap();
    assert!(reader.read(&packed).is_err());
}

#[test]
fn malformed_blocks_are_refused() {
    let refused = |plain: &[u8]| {
        let mut packed = Vec::with_capacity(1000);
        flate2::Compress::new(flate2::Compression::fast(), true)
            .compress_vec(plain, &mut packed, flate2::FlushCompress::Sync)
            .unwrap();
        HeaderReader::new().read(&packed).unwrap_err()
    };
    assert_eq!(refused(b"\0\0"), SpdyError::HeadersLength);
    assert_eq!(refused(b"\xff\xff\xff\xff"), SpdyError::HeadersLength);
    assert_eq!(refused(b"\0\0\0\0more"), SpdyError::HeadersLength);
    assert_eq!(
        refused(b"\0\0\0\x01\xff\xff\xff\xffa"),
        SpdyError::HeadersLength
    );
    let name = |name: &str| SpdyError::HeaderName(name.into());
    assert_eq!(refused(b"\0\0\0\x01\0\0\0\x01A\0\0\0\x01b"), name("A"));
    assert_eq!(refused(b"\0\0\0\x01\0\0\0\0\0\0\0\x01b"), name(""));
    let twice = b"\0\0\0\x02\0\0\0\x01a\0\0\0\x01b\0\0\0\x01a\0\0\0\x01b";
    assert_eq!(refused(twice), name("a"));
    let other_dictionary = b"\x78\xf9\x01\x02\x03\x04\x02\x00\x00\x00\xff\xff";
    assert!(matches!(
        HeaderReader::new().read(other_dictionary),
        Err(SpdyError::Compression(_))
    ));
}
