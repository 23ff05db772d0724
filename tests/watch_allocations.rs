//! An event or a line that lies in one buffer costs no allocation and no copy: counted, not timed.

#![allow(clippy::unwrap_used)]

#[path = "common/capture.rs"]
mod capture;

use bytes::Bytes;
use kubewire::{
    session::watch::{Mirror, SharedMirror, Update},
    wire::{
        line::LineSplitter,
        stamp::Stamp,
        watch::{Decoder, Encoding, Event, EventError},
    },
};

/// Bytes whose clones and slices cost nothing themselves.
fn fixed(bytes: Vec<u8>) -> Bytes {
    Bytes::from_static(Vec::leak(bytes))
}

#[test]
fn events_in_one_chunk_and_their_metadata_do_not_allocate() {
    for (name, encoding) in [
        ("watch-json", Encoding::Json),
        ("watch-list", Encoding::Json),
        ("watch-protobuf", Encoding::Protobuf),
        ("watch-cbor", Encoding::Cbor),
    ] {
        let one = capture::body(name);
        let body = fixed(one.repeat(20));
        let range = body.as_ptr_range();
        let mut decoder = Decoder::new(encoding);
        let mut events = 0;
        let counted = allocation_counter::measure(|| {
            decoder.push(body.clone());
            while let Some(event) = decoder.next_event().unwrap() {
                let metadata = event.object.metadata().unwrap();
                let name = metadata.name().unwrap();
                assert!(name.is_empty() || range.contains(&name.as_ptr()));
                assert!(!metadata.kind().unwrap().is_empty());
                assert!(!metadata.resource_version().unwrap().is_empty());
                let _ = (metadata.uid().unwrap(), metadata.namespace().unwrap());
                let _ = (
                    metadata.generation().unwrap(),
                    metadata.deletion_timestamp().unwrap(),
                );
                let _ = metadata.labels().unwrap().count();
                events += 1;
            }
        });
        assert!(events >= 20, "{name}: {events}");
        assert_eq!(counted.count_total, 0, "{name}");
    }
}

/// Of an object of which nothing is kept: its key, which is put together first, and its version; for
/// a mirror that is shared what holds what is kept, too.
#[test]
fn mirrors_allocate_for_an_object_what_they_keep() {
    const COUNT: u64 = 100;
    let object = |n| {
        let event = format!(
            r#"{{"type":"ADDED","object":{{"metadata":{{"name":"a-{n}","namespace":"b","uid":"c","resourceVersion":"{n}"}}}}}}"#
        );
        Update::Event(Event::from_message(Encoding::Json, fixed(event.into_bytes())).unwrap())
    };
    let updates: Vec<_> = (0..COUNT).map(object).collect();
    let mut mirror = Mirror::new();
    let alone = allocation_counter::measure(|| {
        for update in &updates {
            let changes = mirror.apply(update, |_| Ok::<_, EventError>(()));
            assert_eq!(changes.unwrap().len(), 1);
        }
    });
    let mut mirror = SharedMirror::new(Vec::new());
    let shared = allocation_counter::measure(|| {
        for update in &updates {
            let Update::Event(event) = update else {
                continue;
            };
            assert!(!mirror.knows(&event.object));
            mirror.apply(update, |_| Ok(()));
        }
    });
    // Beside them the tables grow, a few times in all; and what is told is a list.
    assert!(alone.count_total < 5 * COUNT, "{}", alone.count_total);
    assert!(shared.count_total < 5 * COUNT, "{}", shared.count_total);
}

#[test]
fn lines_in_one_chunk_do_not_allocate() {
    let body = fixed(capture::body("logs-tail").repeat(100));
    let mut splitter = LineSplitter::new(1024);
    let mut lines = 0;
    let counted = allocation_counter::measure(|| {
        splitter.push(body.clone());
        while let Some(line) = splitter.next_line() {
            assert!(Stamp::parse_prefix(line.bytes).is_some());
            lines += 1;
        }
    });
    assert_eq!((lines, counted.count_total), (500, 0));
}

#[test]
fn an_event_over_two_chunks_is_copied_once() {
    let one = capture::body("watch-json");
    let (first, second) = one.split_at(3000);
    let (first, second) = (fixed(first.to_vec()), fixed(second.to_vec()));
    let mut decoder = Decoder::new(Encoding::Json);
    let counted = allocation_counter::measure(|| {
        decoder.push(first.clone());
        assert!(decoder.next_event().unwrap().is_none());
        decoder.push(second.clone());
        assert!(decoder.next_event().unwrap().is_some());
        assert!(decoder.next_event().unwrap().is_some());
        assert!(decoder.next_event().unwrap().is_none());
    });
    // The copy, its growth, and the count of those who share it.
    assert!(counted.count_total <= 3, "{}", counted.count_total);
    assert!(
        counted.bytes_total <= 3 * one.len() as u64,
        "{}",
        counted.bytes_total
    );
}
