//! Frames that another encoder writes, from the draft (SPDY 3.1, sections 2.2 and 2.6), are read
//! with the fields that were written, and written by ours are the same bytes.
#![no_main]

use bytes::{Bytes, BytesMut};
use kubewire::wire::spdy::{
    Data, Frame, GoAway, GoAwayStatus, HeadersFrame, Ping, RstStatus, RstStream, StreamId, SynReply,
    SynStream,
};
use kubewire_fuzz::Script;
use libfuzzer_sys::fuzz_target;

const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;

fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a short body");
    let mut frame = vec![0x80, 3];
    frame.extend(kind.to_be_bytes());
    frame.push(flags);
    frame.extend(&length.to_be_bytes()[1..]);
    frame.extend(body);
    frame
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    while !script.is_over() {
        let number = u32::from_be_bytes(std::array::from_fn(|_| script.byte()));
        let stream = (number & 0x7fff_ffff).max(1);
        let id = StreamId::new(stream).expect("neither 0 nor too large");
        let flags = script.byte();
        let fin = flags & FLAG_FIN != 0;
        let block = script.bytes();
        let payload = Bytes::copy_from_slice(block);
        let (frame, wire) = match script.byte() % 7 {
            0 => {
                let mut wire = stream.to_be_bytes().to_vec();
                wire.push(flags & FLAG_FIN);
                wire.extend(&u32::try_from(block.len()).expect("short").to_be_bytes()[1..]);
                wire.extend(block);
                (Frame::Data(Data { stream: id, payload, fin }), wire)
            }
            1 => {
                let associated = script.byte() % 2 * 9;
                let priority = script.byte() % 8;
                let mut body = stream.to_be_bytes().to_vec();
                body.extend([0, 0, 0, associated, priority << 5, 0]);
                body.extend(block);
                let frame = SynStream {
                    stream: id,
                    associated: StreamId::new(associated.into()),
                    priority,
                    fin,
                    unidirectional: flags & FLAG_UNIDIRECTIONAL != 0,
                    block: payload,
                };
                let flags = flags & (FLAG_FIN | FLAG_UNIDIRECTIONAL);
                (Frame::SynStream(frame), control(1, flags, &body))
            }
            2 => {
                let body = [&stream.to_be_bytes()[..], block].concat();
                let frame = SynReply { stream: id, fin, block: payload };
                (Frame::SynReply(frame), control(2, flags & FLAG_FIN, &body))
            }
            3 => {
                let status = u32::from(script.byte()) + 1;
                let body = [stream.to_be_bytes(), status.to_be_bytes()].concat();
                let frame = RstStream { stream: id, status: RstStatus(status) };
                (Frame::RstStream(frame), control(3, 0, &body))
            }
            4 => (Frame::Ping(Ping { id: number }), control(6, 0, &number.to_be_bytes())),
            5 => {
                let status = u32::from(script.byte());
                let body = [stream.to_be_bytes(), status.to_be_bytes()].concat();
                let frame = GoAway { last_good: Some(id), status: GoAwayStatus(status) };
                (Frame::GoAway(frame), control(7, 0, &body))
            }
            _ => {
                let body = [&stream.to_be_bytes()[..], block].concat();
                let frame = HeadersFrame { stream: id, fin, block: payload };
                (Frame::Headers(frame), control(8, flags & FLAG_FIN, &body))
            }
        };
        let mut ours = BytesMut::new();
        frame.encode(&mut ours);
        assert_eq!(ours, wire);
        assert_eq!(Frame::parse(&mut Bytes::from(wire)), Ok(Some(frame)));
    }
});
