//! Any events in any encoding, written in any legal way and cut anywhere, come out as they went
//! in; any bytes at all come out as events or as an error.

#![allow(clippy::unwrap_used)]

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use kubewire::wire::watch::{Decoder, Encoding, Event, EventError, List, ListDecoder, Object};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Map, Value, json};

/// Text with whatever could mislead a scan.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,12}",
        "[{}\\[\\]\"\\\\, \n\t:]{0,12}",
        "\\PC{0,6}",
        Just("} {".to_owned()),
        Just("}\n{".to_owned()),
        Just("\u{1F980}\\\"".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4).prop_map(|entries| Map::from_iter(entries).into()),
        ]
    })
}

fn texts() -> impl Strategy<Value = Map<String, Value>> {
    vec((text(), text().prop_map(Value::from)), 0..3).prop_map(Map::from_iter)
}

/// An object with metadata, and other members before, between and behind.
fn object() -> impl Strategy<Value = Value> {
    let metadata = (
        [text(), text(), text(), text()],
        any::<i64>(),
        texts(),
        texts(),
        prop::option::of(value()),
    );
    (metadata, value(), prop::option::of(value())).prop_map(|(metadata, spec, status)| {
        let ([name, namespace, uid, version], generation, labels, annotations, fields) = metadata;
        json!({
            "kind": "Thing", "apiVersion": "example.com/v1",
            "metadata": {
                "name": name, "namespace": namespace, "uid": uid, "resourceVersion": version,
                "generation": generation, "creationTimestamp": null, "labels": labels,
                "annotations": annotations, "managedFields": fields,
            },
            "a": spec, "z": status,
        })
    })
}

/// How to write: which entry of a map comes first, how much space stands between tokens, whether
/// characters are escaped that need not be.
#[derive(Debug, Clone, Copy)]
struct Style {
    rotate: usize,
    space: &'static str,
    escape: bool,
}

fn style() -> impl Strategy<Value = Style> {
    let space = prop::sample::select(vec!["", " ", "\n", "\r\n\t", "\n  "]);
    (0..8_usize, space, any::<bool>()).prop_map(|(rotate, space, escape)| Style {
        rotate,
        space,
        escape,
    })
}

fn rotated(map: &Map<String, Value>, by: usize) -> impl Iterator<Item = (&String, &Value)> {
    let by = by.checked_rem(map.len()).unwrap_or(0);
    map.iter().skip(by).chain(map.iter().take(by))
}

fn write_json_text(text: &str, style: Style, out: &mut String) {
    if !style.escape {
        return out.push_str(&serde_json::to_string(text).unwrap());
    }
    out.push('"');
    for unit in text.encode_utf16() {
        out.push_str(&format!("\\u{unit:04x}"));
    }
    out.push('"');
}

fn write_json(value: &Value, style: Style, out: &mut String) {
    match value {
        Value::Object(map) => {
            out.push('{');
            for (index, (name, value)) in rotated(map, style.rotate).enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                out.push_str(style.space);
                write_json_text(name, style, out);
                out.push_str(style.space);
                out.push(':');
                out.push_str(style.space);
                write_json(value, style, out);
                out.push_str(style.space);
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                out.push_str(style.space);
                write_json(value, style, out);
                out.push_str(style.space);
            }
            out.push(']');
        }
        Value::String(text) => write_json_text(text, style, out),
        other => out.push_str(&other.to_string()),
    }
}

fn cbor_head(major: u8, n: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    match n {
        0..24 => out.push(major | n as u8),
        24..=0xff => out.extend([major | 24, n as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((n as u16).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(n.to_be_bytes());
        }
    }
}

fn write_cbor(value: &Value, style: Style, out: &mut Vec<u8>) {
    let text = |text: &str, out: &mut Vec<u8>| {
        cbor_head(if style.escape { 3 } else { 2 }, text.len() as u64, out);
        out.extend(text.as_bytes());
    };
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(value) => out.push(0xf4 + u8::from(*value)),
        Value::Number(n) => match n.as_i64().unwrap() {
            n @ 0.. => cbor_head(0, n as u64, out),
            n => cbor_head(1, !n as u64, out),
        },
        Value::String(s) => text(s, out),
        Value::Array(values) => {
            cbor_head(4, values.len() as u64, out);
            values.iter().for_each(|v| write_cbor(v, style, out));
        }
        Value::Object(map) => {
            if !style.space.is_empty() {
                out.extend([0xd9, 0xd9, 0xf7]);
            }
            cbor_head(5, map.len() as u64, out);
            for (name, value) in rotated(map, style.rotate) {
                text(name, out);
                write_cbor(value, style, out);
            }
        }
    }
}

/// A stream of events, and a separator behind each, which for JSON may be nothing at all.
fn write(encoding: Encoding, events: &[(Value, Style)], separator: &str) -> Vec<u8> {
    let mut body = Vec::new();
    // One encoder writes them all: it escapes the names of each or of none.
    let escape = events.first().is_some_and(|(_, style)| style.escape);
    for (object, style) in events {
        let style = &Style { escape, ..*style };
        let event = json!({"type": "MODIFIED", "object": object, "more": {"x": "}"}});
        match encoding {
            Encoding::Json => {
                let mut text = String::new();
                write_json(&event, *style, &mut text);
                body.extend(text.as_bytes());
                body.extend(separator.as_bytes());
            }
            _ => write_cbor(&event, *style, &mut body),
        }
    }
    body
}

fn cut<'a>(body: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|i| i.index(body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|w| &body[w[0]..w[1]]).collect()
}

fn decode(encoding: Encoding, chunks: &[&[u8]]) -> Result<Vec<Event>, EventError> {
    let mut decoder = Decoder::new(encoding);
    let mut events = Vec::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = decoder.next_event()? {
            events.push(event);
        }
    }
    decoder.finish()?;
    Ok(events)
}

fn check_metadata(event: &Event, expected: &Value, order: &[usize]) {
    let metadata = event.object.metadata().unwrap();
    let of = |name: &str| expected["metadata"][name].as_str().unwrap().to_owned();
    for field in order {
        match field {
            0 => assert_eq!(metadata.name().unwrap(), of("name")),
            1 => assert_eq!(metadata.namespace().unwrap(), of("namespace")),
            2 => assert_eq!(metadata.uid().unwrap(), of("uid")),
            3 => assert_eq!(metadata.resource_version().unwrap(), of("resourceVersion")),
            4 => assert_eq!(metadata.kind().unwrap(), "Thing"),
            5 => assert_eq!(metadata.api_version().unwrap(), "example.com/v1"),
            6 => assert_eq!(
                metadata.generation().unwrap(),
                expected["metadata"]["generation"].as_i64().unwrap()
            ),
            7 => assert_eq!(metadata.deletion_timestamp().unwrap(), None),
            field => {
                let (found, name) = match field {
                    8 => (metadata.labels(), "labels"),
                    _ => (metadata.annotations(), "annotations"),
                };
                let found: Map<_, _> = found
                    .unwrap()
                    .map(|entry| entry.unwrap())
                    .map(|(key, value)| (key.into_owned(), value.into_owned().into()))
                    .collect();
                assert_eq!(Value::Object(found), expected["metadata"][name]);
            }
        }
    }
}

fn check(
    encoding: Encoding,
    events: &[(Value, Style)],
    separator: &str,
    cuts: &[Index],
    order: &[usize],
) {
    let body = write(encoding, events, separator);
    let decoded = decode(encoding, &cut(&body, cuts)).unwrap();
    assert_eq!(decoded.len(), events.len());
    for (event, (expected, _)) in decoded.iter().zip(events) {
        assert_eq!(event.event_type.as_str(), "MODIFIED");
        check_metadata(event, expected, order);
        assert_eq!(&event.object.decode::<Value>().unwrap(), expected);
        if encoding == Encoding::Json {
            let bytes = event.object.bytes().unwrap();
            assert_eq!(&serde_json::from_slice::<Value>(&bytes).unwrap(), expected);
        }
    }
}

fn order() -> impl Strategy<Value = Vec<usize>> {
    Just((0..10).collect::<Vec<_>>()).prop_shuffle()
}

/// A list that arrives in pieces, and its items.
fn open(encoding: Encoding, pieces: &[&[u8]]) -> Result<(List, Vec<Object>), EventError> {
    let mut decoder = ListDecoder::with_bounds(encoding, 1 << 20, 1 << 20);
    let mut items = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(item) = decoder.next_item()? {
            items.push(item);
        }
    }
    let list = decoder.finish()?;
    while let Some(item) = decoder.next_item()? {
        items.push(item);
    }
    Ok((list, items))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_json_events_come_out_as_they_went_in(
        events in vec((object(), style()), 0..5),
        separator in prop::sample::select(vec!["\n", "", " ", "\r\n", "\n\n", " \n"]),
        cuts in vec(any::<Index>(), 0..6),
        order in order(),
    ) {
        check(Encoding::Json, &events, separator, &cuts, &order);
    }

    #[test]
    fn any_cbor_events_come_out_as_they_went_in(
        events in vec((object(), style()), 0..5),
        cuts in vec(any::<Index>(), 0..6),
        order in order(),
    ) {
        check(Encoding::Cbor, &events, "", &cuts, &order);
    }

    #[test]
    fn an_event_is_delivered_as_soon_as_its_last_byte_is_there(
        events in vec((object(), style()), 1..4),
        separator in prop::sample::select(vec!["\n", ""]),
        json in any::<bool>(),
    ) {
        let encoding = if json { Encoding::Json } else { Encoding::Cbor };
        let mut decoder = Decoder::new(encoding);
        for event in &events {
            let body = write(encoding, std::slice::from_ref(event), separator);
            let last = body.len() - 1 - usize::from(json && separator == "\n");
            decoder.push(Bytes::copy_from_slice(&body[..last]));
            prop_assert!(decoder.next_event().unwrap().is_none());
            decoder.push(Bytes::copy_from_slice(&body[last..=last]));
            prop_assert!(decoder.next_event().unwrap().is_some());
            decoder.push(Bytes::copy_from_slice(&body[last + 1..]));
            prop_assert!(decoder.next_event().unwrap().is_none());
            decoder.finish().unwrap();
        }
    }

    #[test]
    fn lists_give_their_items_and_where_to_go_on(
        items in vec(object(), 0..5),
        style in style(),
        version in "[0-9]{1,9}",
        token in text(),
        cuts in vec(any::<Index>(), 0..6),
        json in any::<bool>(),
    ) {
        let list = json!({
            "kind": "ThingList", "apiVersion": "example.com/v1",
            "metadata": {"resourceVersion": version, "continue": token, "remainingItemCount": 7},
            "items": items,
        });
        let encoding = if json { Encoding::Json } else { Encoding::Cbor };
        let body = if json {
            let mut text = String::new();
            write_json(&list, style, &mut text);
            text.into_bytes()
        } else {
            let mut body = Vec::new();
            write_cbor(&list, style, &mut body);
            body
        };
        let (list, found) = open(encoding, &cut(&body, &cuts)).unwrap();
        prop_assert_eq!((&list.resource_version, &list.continue_token), (&version, &token));
        prop_assert_eq!(found.len(), items.len());
        for (found, expected) in found.iter().zip(&items) {
            prop_assert_eq!(&found.decode::<Value>().unwrap(), expected);
            prop_assert_eq!(found.metadata().unwrap().kind().unwrap(), "Thing");
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_without_panic(
        bytes in vec(prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\ \nnull012kobject".to_vec())], 0..200),
        encoding in prop::sample::select(vec![Encoding::Json, Encoding::Protobuf, Encoding::Cbor]),
        cuts in vec(any::<Index>(), 0..4),
    ) {
        for event in decode(encoding, &cut(&bytes, &cuts)).into_iter().flatten() {
            if let Ok(metadata) = event.object.metadata() {
                let _ = (metadata.kind(), metadata.deletion_timestamp(), metadata.generation());
                let _ = metadata.labels().map(Iterator::count);
            }
            let _ = (event.object.decode::<Value>(), event.object.status());
        }
        let _ = Event::from_message(encoding, bytes.clone().into());
        let _ = open(encoding, &cut(&bytes, &cuts));
    }
}

#[test]
fn binary_data_in_cbor_decodes_as_base64() {
    let mut body = vec![0xa2];
    for (key, item) in [
        ("type", &b"\x45ADDED"[..]),
        ("object", b"\xa1\x44data\xd6\x43\xff\x00\x01"),
    ] {
        cbor_head(2, key.len() as u64, &mut body);
        body.extend(key.as_bytes());
        body.extend(item);
    }
    let events = decode(Encoding::Cbor, &[&body]).unwrap();
    let object: Value = events[0].object.decode().unwrap();
    assert_eq!(object, json!({"data": STANDARD.encode([0xff, 0, 1])}));
}

#[test]
fn hostile_input_is_bounded() {
    let refused = |encoding, body: &[u8]| {
        let mut decoder = Decoder::with_bound(encoding, 1000);
        body.chunks(64).find_map(|chunk| {
            decoder.push(Bytes::copy_from_slice(chunk));
            assert!(decoder.buffered() <= 1000 + 64 + 4);
            decoder.next_event().err()
        })
    };
    let too_large = Some(EventError::TooLarge { bound: 1000 });
    let endless = [&b"{\"type\":\""[..], &[b'x'; 2000]].concat();
    assert_eq!(refused(Encoding::Json, &endless), too_large);
    assert_eq!(
        refused(Encoding::Protobuf, &1001_u32.to_be_bytes()),
        too_large
    );
    assert_eq!(
        refused(Encoding::Protobuf, &u32::MAX.to_be_bytes()),
        too_large
    );
    assert_eq!(
        refused(Encoding::Cbor, b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff"),
        too_large
    );
    assert_eq!(refused(Encoding::Cbor, &[0xc1; 2000]), too_large);
    let deep = refused(Encoding::Cbor, &[0x81; 999]).unwrap();
    assert_eq!(
        deep.to_string(),
        "malformed CBOR: the items are nested too deeply"
    );
    let indefinite = refused(Encoding::Cbor, b"\xbf\xff").unwrap();
    assert_eq!(
        indefinite.to_string(),
        "malformed CBOR: an item has an indefinite length"
    );
    let deep = [&b"{\"type\":\"ADDED\",\"object\":"[..], &[b'['; 100_000]].concat();
    let event = Event::from_message(Encoding::Json, [&deep[..], b"}"].concat().into()).unwrap();
    assert_eq!(
        event.object.decode::<Value>().unwrap_err().to_string(),
        "malformed JSON: the values are nested too deeply"
    );
    let status = |causes: usize| {
        let causes = ["{}"].repeat(causes).join(",");
        let json = format!(r#"{{"status":"Failure","details":{{"causes":[{causes}]}}}}"#);
        Object::new(Encoding::Json, json.into()).status()
    };
    assert!(status(20_000).is_ok());
    let bound = 64 << 10;
    assert_eq!(status(30_000), Err(EventError::TooLarge { bound }));
}

/// A Status in protobuf, as the API server writes it into an `ERROR` event.
#[test]
fn a_status_in_protobuf_reads_whole() {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let cause = [field(1, b"ResourceVersionTooLarge"), field(2, b"too large")].concat();
    let details = [field(4, &cause), vec![5 << 3, 1]].concat();
    let message = [
        field(1, b""),
        field(2, b"Failure"),
        field(3, b"Too large resource version: 1000000, current: 544"),
        field(4, b"Timeout"),
        field(5, &details),
        vec![6 << 3, 0xf8, 0x03],
    ]
    .concat();
    let meta = [field(1, b"v1"), field(2, b"Status")].concat();
    let unknown = [&b"k8s\0"[..], &field(1, &meta), &field(2, &message)].concat();
    let long = |number: u8, bytes: &[u8]| {
        assert!(
            (128..1 << 14).contains(&bytes.len()),
            "the length takes two bytes"
        );
        let len = [0x80 | (bytes.len() & 0x7f) as u8, (bytes.len() >> 7) as u8];
        [&[number << 3 | 2][..], &len, bytes].concat()
    };
    let message = [field(1, b"ERROR"), long(2, &long(1, &unknown))].concat();
    let body = [&(message.len() as u32).to_be_bytes()[..], &message].concat();
    let events = decode(Encoding::Protobuf, &[&body]).unwrap();
    let status = events[0].object.status().unwrap();
    assert_eq!((status.code, status.reason.as_str()), (504, "Timeout"));
    assert!(status.has_cause("ResourceVersionTooLarge"));
    assert_eq!(status.details.unwrap().retry_after_seconds, 1);
    assert_eq!(
        events[0].object.metadata().unwrap().kind().unwrap(),
        "Status"
    );
    assert_eq!(
        events[0]
            .object
            .metadata()
            .unwrap()
            .resource_version()
            .unwrap(),
        ""
    );
}

#[test]
fn items_come_as_they_arrive_and_no_more_than_one_is_kept() {
    let item = |n: u32| {
        format!(
            r#"{{"metadata":{{"name":"p{n}"}},"spec":"{}"}}"#,
            "x".repeat(500)
        )
    };
    let mut decoder = ListDecoder::with_bounds(Encoding::Json, 1000, 1000);
    decoder.push(r#"{"kind":"PodList","apiVersion":"v1","items":["#.into());
    assert!(decoder.next_item().unwrap().is_none());
    // A list without end: 5 MiB through a bound of 1,000 bytes.
    for n in 0..10_000 {
        let item = item(n);
        let (start, rest) = item.split_at(300);
        decoder.push(Bytes::copy_from_slice(start.as_bytes()));
        assert!(decoder.next_item().unwrap().is_none());
        decoder.push(format!("{rest},").into());
        let found = decoder.next_item().unwrap().unwrap();
        assert_eq!(found.metadata().unwrap().name().unwrap(), format!("p{n}"));
        assert_eq!(found.metadata().unwrap().kind().unwrap(), "Pod");
        assert!(decoder.next_item().unwrap().is_none());
        assert!(decoder.buffered() <= 1000);
    }
    assert_eq!(decoder.finish().unwrap_err(), EventError::Cut);
}

#[test]
fn a_list_that_is_none_or_too_large_is_refused() {
    let too_large = Err(EventError::TooLarge { bound: 1 << 20 });
    let huge = "x".repeat(2 << 20);
    for body in [
        format!(r#"{{"items":[{{"a":"{huge}"#),
        format!(r#"{{"{huge}"#),
        format!(r#"{{"metadata":"{huge}"#),
        format!("{{{}", r#""a":"bcdefgh","#.repeat(1 << 17)),
    ] {
        let pieces: Vec<_> = body.as_bytes().chunks(4096).collect();
        assert_eq!(open(Encoding::Json, &pieces).map(drop), too_large);
    }
    let length = [&b"\x12\xff\xff\xff\x7f"[..], huge.as_bytes()].concat();
    assert_eq!(open(Encoding::Protobuf, &[&length]).map(drop), too_large);
    assert_eq!(
        open(Encoding::Cbor, &[huge.as_bytes()]).map(drop),
        too_large
    );
    for body in [
        "",
        "null",
        "[]",
        "{",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"items":{}}"#,
        r#"{"items":[{}{}]}"#,
        r#"{"items":[,{}]}"#,
        r#"{"items":[1]}"#,
        r#"{"items":[{}}"#,
        r#"{"items":[]}}"#,
        r#"{"items":[]"#,
        r#"{,"a":1}"#,
    ] {
        assert!(open(Encoding::Json, &[body.as_bytes()]).is_err(), "{body}");
    }
    for body in [
        r#"{"items":null}"#,
        r#" { "items" : [ ] , "a" : [ { } ] } "#,
        "{}",
    ] {
        let (_, items) = open(Encoding::Json, &[body.as_bytes()]).unwrap();
        assert!(items.is_empty(), "{body}");
    }
}

#[test]
fn a_table_is_whole() {
    let body = r#"{"kind":"Table","metadata":{"resourceVersion":"7"},"rows":[{"cells":[1]}]}"#;
    for split in 0..body.len() {
        let mut decoder = ListDecoder::new(Encoding::Json);
        for part in [&body[..split], &body[split..]] {
            decoder.push(Bytes::copy_from_slice(part.as_bytes()));
            assert!(decoder.next_item().unwrap().is_none());
        }
        assert_eq!(decoder.finish().unwrap().resource_version, "7");
        assert!(decoder.next_item().unwrap().is_none());
        assert_eq!(decoder.table().unwrap().bytes().unwrap(), body);
    }
}

#[test]
fn a_list_in_protobuf_is_the_same_however_it_is_cut() {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let item = |name: &str| field(2, &field(1, &field(1, name.as_bytes())));
    let list = field(1, &[field(2, b"7"), field(3, b"next")].concat());
    let message = [list, item("a"), item("b"), vec![5 << 3, 1]].concat();
    let meta = [field(1, b"v1"), field(2, b"PodList")].concat();
    let tail = field(4, b"application/json");
    let whole = [&b"k8s\0"[..], &field(1, &meta), &field(2, &message), &tail].concat();
    for (body, kind) in [(&whole, "Pod"), (&message, "")] {
        for split in 0..=body.len() {
            let (list, items) =
                open(Encoding::Protobuf, &[&body[..split], &body[split..]]).unwrap();
            assert_eq!(
                (&*list.resource_version, &*list.continue_token),
                ("7", "next")
            );
            let names = items.iter().map(|item| {
                let metadata = item.metadata().unwrap();
                (
                    metadata.name().unwrap().into_owned(),
                    metadata.kind().unwrap().into_owned(),
                )
            });
            let expected = ["a", "b"].map(|name| (name.to_owned(), kind.to_owned()));
            assert_eq!(names.collect::<Vec<_>>(), expected, "cut at {split}");
        }
    }
}

#[test]
fn a_list_whose_fields_have_other_wire_types_is_refused_however_it_is_cut() {
    // Field 2 as a number whose last byte is yet to come.
    for body in [b"k8s\0\x10\xe9\xef\x10".as_slice(), b"k8s\0\x0d\0\0\0\0"] {
        for split in 0..=body.len() {
            assert!(
                open(Encoding::Protobuf, &[&body[..split], &body[split..]]).is_err(),
                "cut at {split}"
            );
        }
    }
}

#[test]
fn items_before_the_kind_of_their_list_wait_for_it() {
    let body = r#"{"apiVersion":"v1","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}],
        "kind":"PodList","metadata":{"resourceVersion":"7"}}"#;
    for split in 0..body.len() {
        let (start, rest) = body.as_bytes().split_at(split);
        let (list, items) = open(Encoding::Json, &[start, rest]).unwrap();
        assert_eq!(list.resource_version, "7");
        let kinds: Vec<_> = items
            .iter()
            .map(|item| item.metadata().unwrap().kind().unwrap())
            .collect();
        assert_eq!(kinds, ["Pod", "Pod"], "cut at {split}");
    }
}
