//! Every capture of a watch or a log decodes the same however it arrives, and a cut anywhere
//! leaves exactly the events or lines that had arrived whole.

#![allow(clippy::unwrap_used)]

#[path = "common/capture.rs"]
mod capture;

use std::time::Instant;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use kubewire::{
    Error,
    logs::{LogEnd, LogUpdate},
    session::{
        Exchange as _, Head, Message,
        logs::{LogConfig, LogRequest, Logs},
        watch::{Watch, WatchConfig},
    },
    watch::Update,
    wire::{
        line::{LineEnd, LineSplitter},
        stamp::Stamp,
        watch::{Decoder, Encoding, Event, EventError, EventType, Object},
    },
};
use serde_json::Value;

const WATCHES: [(&str, Encoding, usize); 6] = [
    ("watch-json", Encoding::Json, 2),
    ("watch-list", Encoding::Json, 3),
    ("watch-metadata", Encoding::Json, 1),
    ("watch-expired", Encoding::Json, 1),
    ("watch-protobuf", Encoding::Protobuf, 1),
    ("watch-cbor", Encoding::Cbor, 1),
];

type Seen = (EventType, Bytes);

fn decode<'a>(
    encoding: Encoding,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Seen>, Result<(), EventError>) {
    let mut decoder = Decoder::new(encoding);
    let mut seen = Vec::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = decoder.next_event().unwrap() {
            seen.push((event.event_type, event.object.bytes().unwrap()));
        }
    }
    let end = decoder.finish();
    (seen, end)
}

#[test]
fn every_watch_decodes_the_same_at_every_split() {
    for (name, encoding, count) in WATCHES {
        let body = capture::body(name);
        let (whole, end) = decode(encoding, [&body[..]]);
        assert_eq!((whole.len(), end), (count, Ok(())), "{name}");
        for split in 0..=body.len() {
            let (first, second) = body.split_at(split);
            let (seen, end) = decode(encoding, [first, second]);
            assert_eq!((&seen, end), (&whole, Ok(())), "{name} split at {split}");
        }
        for size in [1, 2, 3, 5, 7, 64, 1000] {
            let (seen, end) = decode(encoding, body.chunks(size));
            assert_eq!((&seen, end), (&whole, Ok(())), "{name} in chunks of {size}");
        }
    }
}

#[test]
fn a_watch_cut_anywhere_gives_what_had_arrived_whole() {
    for (name, encoding, _) in WATCHES {
        let body = capture::body(name);
        let (whole, _) = decode(encoding, [&body[..]]);
        let mut complete = 0;
        for cut in 0..body.len() {
            let (seen, end) = decode(encoding, [&body[..cut]]);
            assert_eq!(seen, whole[..seen.len()], "{name} cut at {cut}");
            assert!(seen.len() >= complete, "{name} cut at {cut}");
            complete = seen.len();
            if end.is_ok() {
                let again = decode(encoding, [&body[cut..]]);
                assert_eq!(again.0.len() + complete, whole.len(), "{name} cut at {cut}");
            }
        }
        assert_eq!(
            complete + usize::from(encoding != Encoding::Json),
            whole.len(),
            "{name}"
        );
    }
}

#[test]
fn a_watch_over_a_websocket_is_one_event_a_message() {
    let over_http = decode(Encoding::Json, [&capture::body("watch-json")[..]]).0;
    let messages = capture::messages("watch-ws");
    assert_eq!(messages.len(), 1);
    let event = Event::from_message(Encoding::Json, messages[0].clone().into()).unwrap();
    assert_eq!(event.event_type, EventType::Added);
    assert_eq!(event.object.bytes().unwrap(), over_http[0].1);
}

#[test]
fn a_continuous_watch_takes_the_capture_of_a_websocket() {
    let now = Instant::now();
    let config = WatchConfig {
        from: Some("0".into()),
        ..WatchConfig::default()
    };
    let mut watch = Watch::new(config, now, 1);
    assert!(watch.poll_request(now).unwrap().is_watch);
    let opened = Head {
        status: 101,
        ..Head::default()
    };
    watch.handle_head(now, opened);
    for message in capture::messages("watch-ws") {
        watch.handle_message(now, Message::Text(message.into()));
    }
    let Some(Update::Event(event)) = watch.poll_update() else {
        panic!("no event");
    };
    assert_eq!(event.object.metadata().unwrap().name().unwrap(), "box");
    watch.handle_end(now, None);
    assert!(watch.poll_update().is_none());
    assert!(!watch.wants_response(), "it goes on with another request");
}

#[test]
fn binary_messages_are_in_the_encoding_that_was_asked_for() {
    // As `HandleWS` sends it: the event of the stream, without its length.
    let protobuf = capture::body("watch-protobuf")[4..].to_vec();
    let cbor = capture::body("watch-cbor");
    for (encoding, message) in [(Encoding::Protobuf, protobuf), (Encoding::Cbor, cbor)] {
        let now = Instant::now();
        let config = WatchConfig {
            from: Some("0".into()),
            encoding,
            ..WatchConfig::default()
        };
        let mut watch = Watch::new(config, now, 1);
        assert!(watch.poll_request(now).is_some());
        let opened = Head {
            status: 101,
            ..Head::default()
        };
        watch.handle_head(now, opened);
        let json = capture::messages("watch-ws").remove(0);
        for message in [Message::Binary(message.into()), Message::Text(json.into())] {
            watch.handle_message(now, message);
            let Some(Update::Event(event)) = watch.poll_update() else {
                panic!("no event of {encoding}");
            };
            assert_eq!(event.object.metadata().unwrap().name().unwrap(), "box");
        }
        watch.handle_message(now, Message::Binary(vec![0xff; 9].into()));
        assert!(matches!(
            watch.poll_update(),
            Some(Update::Retrying {
                error: Error::Peer(_),
                ..
            })
        ));
    }
}

#[test]
fn a_log_takes_the_capture_of_a_websocket_and_its_base64() {
    let messages = capture::messages("logs-ws");
    for base64 in [false, true] {
        let to_message = |bytes: &[u8]| match base64 {
            true => Message::Text(STANDARD.encode(bytes).into()),
            false => Message::Binary(bytes.to_vec().into()),
        };
        let now = Instant::now();
        let config = LogConfig {
            resume: false,
            ..LogConfig::default()
        };
        let mut logs = Logs::new(config, now, 1);
        assert!(matches!(logs.poll_request(now), Some(LogRequest::Log(_))));
        let opened = Head {
            status: 101,
            ..Head::default()
        };
        logs.handle_head(now, opened);
        let mut lines = Vec::new();
        for message in &messages {
            logs.handle_message(now, to_message(message));
            while let Some(update) = logs.poll_update() {
                match update {
                    LogUpdate::Line(line) => lines.push(line.bytes),
                    other => panic!("{other:?}"),
                }
            }
        }
        let expected: Vec<_> = (101..=112).map(|n| format!("line {n}")).collect();
        assert_eq!(lines, expected);
        logs.handle_end(now, None);
        let end = logs.poll_update();
        assert!(
            matches!(end, Some(LogUpdate::Ended(LogEnd::Complete))),
            "{end:?}"
        );
    }
}

fn only(name: &str, encoding: Encoding) -> Object {
    let mut decoder = Decoder::new(encoding);
    decoder.push(capture::body(name).into());
    decoder.next_event().unwrap().unwrap().object
}

#[test]
fn the_encodings_agree_on_the_metadata() {
    let parsed: Value = only("watch-json", Encoding::Json).decode().unwrap();
    for (name, encoding) in [
        ("watch-json", Encoding::Json),
        ("watch-protobuf", Encoding::Protobuf),
        ("watch-cbor", Encoding::Cbor),
    ] {
        let object = only(name, encoding);
        let metadata = object.metadata().unwrap();
        let expected = &parsed["metadata"];
        // The last first, so that going back is tried too.
        let annotations = metadata.annotations().unwrap();
        let key = "kubectl.kubernetes.io/last-applied-configuration";
        let applied = annotations.get(key).unwrap().unwrap();
        assert_eq!(
            applied,
            expected["annotations"][key].as_str().unwrap(),
            "{name}"
        );
        assert_eq!(annotations.count(), 1);
        assert_eq!(metadata.deletion_timestamp().unwrap(), None);
        assert_eq!(metadata.kind().unwrap(), "Pod");
        assert_eq!(metadata.api_version().unwrap(), "v1");
        assert_eq!(metadata.name().unwrap(), expected["name"].as_str().unwrap());
        assert_eq!(metadata.namespace().unwrap(), "default");
        assert_eq!(metadata.uid().unwrap(), expected["uid"].as_str().unwrap());
        assert_eq!(metadata.resource_version().unwrap(), "544");
        assert_eq!(metadata.generation().unwrap(), 1);
        assert_eq!(
            metadata.creation_timestamp().unwrap(),
            Stamp::parse(b"2026-11-22T01:55:41Z")
        );
        let labels: Result<Vec<_>, _> = metadata.labels().unwrap().collect();
        assert_eq!(labels.unwrap(), [("app".into(), "box".into())]);
    }
}

#[test]
fn cbor_decodes_to_what_json_decodes_to() {
    let json: Value = only("watch-json", Encoding::Json).decode().unwrap();
    let cbor: Value = only("watch-cbor", Encoding::Cbor).decode().unwrap();
    assert_eq!(cbor, json);
}

#[test]
fn protobuf_gives_the_message_and_refuses_serde() {
    let object = only("watch-protobuf", Encoding::Protobuf);
    let message = object.protobuf_message().unwrap().unwrap();
    // The Pod begins with its metadata, that with the name.
    assert_eq!(&message[..8], b"\x0a\xfa\x16\x0a\x03box");
    assert_eq!(object.decode::<Value>(), Err(EventError::NoSerde));
}

#[test]
fn an_expired_watch_says_so_in_a_status() {
    let status = only("watch-expired", Encoding::Json).status().unwrap();
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
}

fn lines(chunks: &[&[u8]]) -> Vec<(Bytes, LineEnd)> {
    let mut splitter = LineSplitter::new(1024);
    let mut lines = Vec::new();
    let mut take = |splitter: &mut LineSplitter| {
        while let Some(line) = splitter.next_line() {
            lines.push((line.to_bytes(), line.end));
        }
    };
    for chunk in chunks {
        splitter.push(Bytes::copy_from_slice(chunk));
        take(&mut splitter);
    }
    splitter.finish();
    take(&mut splitter);
    lines
}

#[test]
fn every_log_splits_the_same_at_every_split_and_every_line_has_its_stamp() {
    for (name, first, count) in [("logs-follow", 65, 19), ("logs-tail", 81, 5)] {
        let body = capture::body(name);
        let whole = lines(&[&body]);
        let mut last = None;
        for (index, (line, end)) in whole.iter().enumerate() {
            let (stamp, used) = Stamp::parse_prefix(line).unwrap();
            assert_eq!(line[used..], *format!(" line {}", first + index).as_bytes());
            assert_eq!(*end, LineEnd::Newline);
            assert!(last < Some(stamp));
            last = Some(stamp);
        }
        assert_eq!(whole.len(), count);
        for split in 0..=body.len() {
            let (left, right) = body.split_at(split);
            assert_eq!(lines(&[left, right]), whole, "{name} split at {split}");
        }
        let bytes: Vec<_> = body.chunks(1).collect();
        assert_eq!(lines(&bytes), whole, "{name} byte by byte");
    }
}

#[test]
fn a_log_over_a_websocket_begins_with_an_empty_message() {
    let messages = capture::messages("logs-ws");
    assert_eq!(messages[0], b"");
    let chunks: Vec<_> = messages.iter().map(|m| &m[..]).collect();
    let lines = lines(&chunks);
    assert_eq!(lines.len(), 12);
    assert_eq!(lines[0].0, "line 101");
    assert_eq!(lines[11].0, "line 112");
}

#[test]
fn objects_without_managed_fields_keep_all_else() {
    for (name, encoding, _) in WATCHES {
        let body = Bytes::from(capture::body(name));
        let mut decoder = Decoder::new(encoding);
        decoder.push(body);
        while let Some(event) = decoder.next_event().unwrap() {
            let stripped = event.object.without_managed_fields().unwrap();
            let (before, after) = (
                event.object.metadata().unwrap(),
                stripped.metadata().unwrap(),
            );
            assert_eq!(before.name().unwrap(), after.name().unwrap(), "{name}");
            assert_eq!(
                before.resource_version().unwrap(),
                after.resource_version().unwrap()
            );
            let labels = |m: &kubewire::wire::watch::Metadata<'_>| {
                let labels = m.labels().unwrap().map(Result::unwrap);
                labels
                    .map(|(key, value)| (key.into_owned(), value.into_owned()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(labels(&before), labels(&after), "{name}");
            let lengths = (
                event.object.bytes().unwrap().len(),
                stripped.bytes().unwrap().len(),
            );
            if encoding == Encoding::Protobuf {
                assert!(lengths.1 < lengths.0, "a Pod has some");
                continue;
            }
            let mut expected: Value = event.object.decode().unwrap();
            let removed = expected
                .get_mut("metadata")
                .and_then(Value::as_object_mut)
                .and_then(|metadata| metadata.remove("managedFields"));
            assert_eq!(removed.is_some(), lengths.1 < lengths.0, "{name}");
            assert_eq!(stripped.decode::<Value>().unwrap(), expected, "{name}");
        }
    }
}
