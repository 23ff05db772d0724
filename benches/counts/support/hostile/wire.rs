//! The decoders.

use std::{hint::black_box, iter::once};

use bytes::{Bytes, BytesMut};
use kubewire::{
    Role,
    config::{Config, KubeconfigOptions},
    limits,
    wire::{
        channel::{self, Encoding as ChannelEncoding},
        line::LineSplitter,
        port_channel::{PortChannel, Preamble},
        resize::ResizeDecoder,
        spdy::{self, HeaderReader, HeaderWriter, Headers},
        stamp::Stamp,
        status::Status,
        watch::{Decoder as WatchDecoder, Encoding, ListDecoder, Object, ObjectMeta},
        websocket::Decoder,
    },
};

use super::{Pieces, Row};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = websocket();
    rows.extend(channels());
    rows.extend(spdy());
    rows.extend(lines());
    rows.extend(events());
    rows.extend(lists());
    rows.extend(objects());
    rows
}

/// One piece, as long as asked for: what begins, repeats and ends a document.
pub(super) fn document(
    start: &str,
    again: &str,
    end: &str,
) -> impl Fn(usize) -> Pieces + Sync + 'static {
    let [start, again, end] = [start, again, end].map(str::to_owned);
    move |size| {
        let times = size.saturating_sub(start.len() + end.len()) / again.len() + 1;
        Box::new(once(Bytes::from(
            [&start, &again.repeat(times), &end[..]].concat(),
        )))
    }
}

fn websocket() -> Vec<Row> {
    let frames = |input_is, role, start: &[u8], again: &[u8], piece| {
        Row::new(
            "WebSocket frames",
            input_is,
            start,
            again,
            piece,
            move |input| {
                let mut decoder = Decoder::new(role, limits::MESSAGE);
                let mut buffer = BytesMut::new();
                for piece in input {
                    buffer.extend_from_slice(&piece);
                    loop {
                        match decoder.decode(&mut buffer) {
                            Ok(Some(message)) => drop(black_box(message)),
                            Ok(None) => break,
                            Err(_) => return,
                        }
                    }
                }
            },
        )
    };
    let long = b"\x82\x7f\x00\x00\x00\x00\x01\xf0\x00\x00";
    let masked = b"\x82\xff\x00\x00\x00\x00\x01\xf0\x00\x00abcd";
    vec![
        frames(
            "fragments of a byte",
            Role::Client,
            b"\x01\x01a",
            b"\x00\x01a",
            64,
        )
        .kept_to(limits::MESSAGE),
        frames(
            "fragments of nothing",
            Role::Client,
            b"\x01\x01a",
            b"\x00\x00",
            64,
        ),
        frames("empty messages", Role::Client, b"", b"\x82\x00", 64),
        frames("pings of nothing", Role::Client, b"", b"\x89\x00", 64),
        frames(
            "a long message, 16 bytes at a time",
            Role::Client,
            long,
            b"a",
            16,
        )
        .kept_to(limits::MESSAGE),
        frames("the same, masked", Role::Server, masked, b"a", 16).kept_to(limits::MESSAGE),
        frames(
            "masked messages of a byte",
            Role::Server,
            b"",
            b"\x82\x81abcdx",
            64,
        ),
    ]
}

fn channels() -> Vec<Row> {
    let parse = |input_is, encoding, again: &[u8], piece| {
        Row::new(
            "channel messages",
            input_is,
            b"",
            again,
            piece,
            move |input| {
                for piece in input {
                    drop(black_box(channel::parse(encoding, true, piece)));
                }
            },
        )
    };
    let status = |input_is, start, again, end| {
        Row::new("Status", input_is, b"", b"x", 1, |input| {
            for piece in input {
                drop(black_box(Status::from_json(&piece)));
            }
        })
        .made_of(document(start, again, end))
    };
    vec![
        parse("of two bytes", ChannelEncoding::Binary, b"\x01a", 2),
        parse("base64 of a byte", ChannelEncoding::Base64, b"1YQ==", 5),
        parse("long base64", ChannelEncoding::Base64, b"1", usize::MAX).whole(1),
        Row::new(
            "port channel messages",
            "of two bytes",
            b"",
            b"\x00\x01a",
            3,
            |input| {
                let mut preamble = Preamble::default();
                for piece in input {
                    if let Ok(Some((_, mut payload))) =
                        PortChannel::parse(piece, ChannelEncoding::Binary)
                    {
                        black_box(preamble.take(&mut payload));
                    }
                }
            },
        ),
        Row::new(
            "terminal sizes",
            "a byte at a time",
            b"",
            b"{}  ",
            1,
            |input| {
                let mut decoder = ResizeDecoder::default();
                for piece in input {
                    let each = |size| {
                        black_box(size);
                    };
                    decoder.push(&piece, each).unwrap();
                }
            },
        ),
        // Wherever it comes from, no more than 64 KiB are parsed.
        status("causes", r#"{"details":{"causes":[{}"#, ",{}", "]}}").whole(64),
        status("members of no name", r#"{"":0"#, r#","":0"#, "}").whole(1),
        status("depth", r#"{"x":"#, "[", "").whole(1),
        status(
            "a long message of escapes",
            r#"{"message":""#,
            r"\u0001",
            "\"}",
        )
        .whole(4),
    ]
}

fn spdy() -> Vec<Row> {
    let frames = |input_is, start: &[u8], again: &[u8], piece| {
        Row::new("SPDY frames", input_is, start, again, piece, |input| {
            let mut decoder = spdy::Decoder::new();
            for mut piece in input {
                loop {
                    match decoder.decode(&mut piece) {
                        Ok(Some(frame)) => drop(black_box(frame)),
                        Ok(None) => break,
                        Err(_) => return,
                    }
                }
            }
        })
    };
    let headers = |input_is, headers: &dyn Fn() -> Headers| {
        let mut writer = HeaderWriter::new();
        // The second block, and all after it, refer to the one before.
        let first = writer.write(&headers()).unwrap();
        let again = writer.write(&headers()).unwrap();
        Row::new("SPDY headers", input_is, b"", b"x", 1, |input| {
            let mut reader = HeaderReader::new();
            for piece in input {
                if black_box(reader.read(&piece)).is_err() {
                    return;
                }
            }
        })
        .made_of(move |_| Box::new(once(first.clone()).chain(std::iter::repeat(again.clone()))))
    };
    vec![
        frames(
            "data of nothing",
            b"",
            b"\x00\x00\x00\x01\x00\x00\x00\x00",
            3,
        ),
        frames(
            "data of a byte",
            b"",
            b"\x00\x00\x00\x01\x00\x00\x00\x01x",
            64,
        ),
        frames(
            "unknown frames",
            b"",
            b"\x80\x03\x00\x63\x00\x00\x00\x00",
            64,
        ),
        frames(
            "a long frame, a byte at a time",
            b"\x00\x00\x00\x01\x00\xff\xff\xff",
            b"x",
            1,
        ),
        frames(
            "a long frame that is unknown",
            b"\x80\x03\x00\x63\x00\xff\xff\xff",
            b"x",
            1,
        ),
        headers("blocks that expand to 8 KiB", &|| {
            Headers::new().with("a", vec![b'a'; 8000])
        }),
        headers("a hundred headers a block", &|| {
            (0..100_u32).fold(Headers::new(), |headers, at| {
                headers.with(format!("{at}"), "")
            })
        }),
    ]
}

fn lines() -> Vec<Row> {
    let split = |input_is, again: &[u8], piece| {
        Row::new("lines", input_is, b"", again, piece, |input| {
            let mut splitter = LineSplitter::new(limits::LOG_LINE);
            for piece in input {
                splitter.push(piece);
                while let Some(line) = splitter.next_line() {
                    black_box(line);
                }
            }
        })
    };
    let stamps = |input_is, again: &[u8], piece| {
        Row::new("stamps", input_is, b"", again, piece, |input| {
            for piece in input {
                black_box(Stamp::parse_prefix(&piece));
            }
        })
    };
    vec![
        split("nothing but newlines", b"\n", 64),
        split("one without end", b"x", 16).kept_to(limits::LOG_LINE),
        split("a newline a read", b"xxxxxxxxxxxxxxx\n", 16),
        stamps("digits without end", b"2026-11-22T01:55:55.0", usize::MAX).whole(0),
        stamps("of the shortest form", b"2026-11-22T01:55:55Z ", 21),
    ]
}

fn events() -> Vec<Row> {
    let events = |input_is, encoding, start: &[u8], again: &[u8]| {
        Row::new("watch events", input_is, start, again, 64, move |input| {
            let mut decoder = WatchDecoder::new(encoding);
            for piece in input {
                decoder.push(piece);
                loop {
                    match decoder.next_event() {
                        Ok(Some(event)) => {
                            let metadata = event.object.metadata();
                            let _ = black_box(metadata.and_then(|found| found.generation()));
                        }
                        Ok(None) => break,
                        Err(_) => return,
                    }
                }
            }
        })
    };
    let json = |input_is, start: &str, again: &str| {
        events(input_is, Encoding::Json, start.as_bytes(), again.as_bytes())
            .kept_to(limits::WATCH_EVENT)
    };
    let array = b"\x9a\x7f\xff\xff\xff";
    vec![
        json(
            "JSON: newlines behind an object that goes on",
            "{\"x\":\"}{\",",
            "\n",
        ),
        json("JSON: braces in a string", "{\"x\":\"", "} "),
        json("JSON: objects in a string", "{\"x\":\"", "}{"),
        json("JSON: a string without end", "{\"x\":\"", "\\\\"),
        json("JSON: depth", "{\"x\":", "[{\"\":"),
        json(
            "JSON: names",
            "{\"type\":\"\",\"object\":{\"metadata\":{\"\":0",
            ",\"\":0",
        ),
        events(
            "JSON: small events",
            Encoding::Json,
            b"",
            b"{\"type\":\"\",\"object\":{}}",
        ),
        events("JSON: space", Encoding::Json, b"", b" \n"),
        events(
            "protobuf: a length without end",
            Encoding::Protobuf,
            b"\x7f\xff\xff\xff",
            b"\x00",
        ),
        events(
            "protobuf: a large event",
            Encoding::Protobuf,
            b"\x01\xff\xff\xff",
            b"\x0a\x00",
        )
        .kept_to(limits::WATCH_EVENT),
        events("protobuf: empty events", Encoding::Protobuf, b"", b"\x00"),
        events("CBOR: small items", Encoding::Cbor, array, b"\xa0").kept_to(limits::WATCH_EVENT),
        events("CBOR: empty strings", Encoding::Cbor, array, b"\x40").kept_to(limits::WATCH_EVENT),
        events("CBOR: depth", Encoding::Cbor, b"", b"\x81"),
        events("CBOR: numbers", Encoding::Cbor, b"", b"\x00"),
    ]
}

fn lists() -> Vec<Row> {
    let list = |input_is, encoding, start: &[u8], again: &[u8]| {
        Row::new("lists", input_is, start, again, 64, move |input| {
            let mut list = ListDecoder::new(encoding);
            for piece in input {
                list.push(piece);
                loop {
                    match list.next_item() {
                        Ok(Some(item)) => drop(black_box(item)),
                        Ok(None) => break,
                        Err(_) => return,
                    }
                }
            }
            black_box(list.finish().is_ok());
        })
    };
    let array = b"\xd9\xd9\xf7\xa2\x44kind\x47PodList\x45items\x9a\x7f\xff\xff\xff";
    let table = br#"{"kind":"Table","columnDefinitions":[],"rows":["#;
    vec![
        list(
            "JSON: items",
            Encoding::Json,
            br#"{"kind":"PodList","items":[{}"#,
            b",{}",
        ),
        list(
            "JSON: items before their kind",
            Encoding::Json,
            b"{\"items\":[{}",
            b",{}",
        )
        .kept_to(limits::LIST_BODY),
        list("JSON: names", Encoding::Json, b"{\"\":0", b",\"\":0").kept_to(limits::WATCH_EVENT),
        list("JSON: rows of a table", Encoding::Json, table, b"{},").kept_to(limits::LIST_BODY),
        list(
            "protobuf: items of nothing",
            Encoding::Protobuf,
            b"",
            b"\x12\x00",
        ),
        list("CBOR: items", Encoding::Cbor, array, b"\xa0").kept_to(limits::LIST_BODY),
    ]
}

fn objects() -> Vec<Row> {
    let whole = |of, input_is, start, again, end, take: fn(&Object)| {
        Row::new(of, input_is, b"", b"x", 1, move |input| {
            for piece in input {
                take(&Object::new(Encoding::Json, piece));
            }
        })
        .made_of(document(start, again, end))
        .whole(2)
    };
    let stripped = |object: &Object| drop(black_box(object.without_managed_fields()));
    let labels = |object: &Object| {
        let Ok(metadata) = object.metadata() else {
            return;
        };
        let Ok(labels) = metadata.labels() else {
            return;
        };
        black_box(labels.get("none").is_ok());
    };
    let kept = |object: &Object| drop(black_box(ObjectMeta::of(object)));
    let kubeconfig = |input_is, start, again, end| {
        Row::new("kubeconfig", input_is, b"", b"x", 1, |input| {
            for piece in input {
                let text = std::str::from_utf8(&piece).unwrap();
                let config = Config::from_kubeconfig_str(text, &KubeconfigOptions::new());
                drop(black_box(
                    config.map(drop).map_err(|error| error.to_string()),
                ));
            }
        })
        .made_of(document(start, again, end))
        .whole(256)
    };
    let (managed, again) = (r#"{"metadata":{"managedFields":[{}"#, ",{}");
    let (labelled, label) = (r#"{"metadata":{"labels":{"":"""#, r#","":"""#);
    vec![
        whole("managedFields", "entries", managed, again, "]}}", stripped),
        whole(
            "managedFields",
            "the member again and again",
            r#"{"metadata":{"a":0"#,
            r#","managedFields":0"#,
            "}}",
            stripped,
        ),
        whole(
            "managedFields",
            "depth",
            r#"{"metadata":{"managedFields":"#,
            "[",
            "",
            stripped,
        ),
        whole("labels", "of no name", labelled, label, "}}}", labels),
        whole(
            "metadata that is kept",
            "labels of no name",
            labelled,
            label,
            "}}}",
            kept,
        )
        .whole(64),
        kubeconfig("users", "users:\n", "- {}\n", ""),
        kubeconfig("depth", "users: ", "[", ""),
        kubeconfig("aliases", "a: &a [b,b,b,b,b,b,b,b]\nc: [", "*a,", "]"),
    ]
}
