//! The captures: what the server sent, without HTTP and WebSocket around it.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

/// What the server sent on the wire, its HTTP head first.
fn wire(name: &str) -> Vec<u8> {
    // Of the package, or of a workspace below it.
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let captures = above.find_map(|it| Some(it.join("tests/captures")).filter(|it| it.is_dir()));
    let path = captures.unwrap().join(format!("{name}.jsonl"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let mut bytes = Vec::new();
    for line in text.lines().skip(1) {
        let read: Value = serde_json::from_str(line).unwrap();
        if let ("server", Some(b64)) = (read["from"].as_str().unwrap(), read["b64"].as_str()) {
            bytes.extend(STANDARD.decode(b64).unwrap());
        }
    }
    bytes
}

fn behind_head(wire: &[u8]) -> &[u8] {
    let head = memchr::memmem::find(wire, b"\r\n\r\n").unwrap();
    &wire[head + 4..]
}

/// The body of a chunked response.
pub(crate) fn body(name: &str) -> Vec<u8> {
    let wire = wire(name);
    let mut rest = behind_head(&wire);
    let mut body = Vec::new();
    // A capture of a follow ends where the client went away, without the last chunk.
    while let Some(line) = memchr::memmem::find(rest, b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[line + 2..line + 2 + len]);
        rest = &rest[line + 2 + len + 2..];
    }
    body
}

/// The payloads of the server's data frames.
pub(crate) fn messages(name: &str) -> Vec<Vec<u8>> {
    let wire = wire(name);
    let mut rest = behind_head(&wire);
    let mut messages = Vec::new();
    while let [first, len, ..] = *rest {
        assert_eq!(first & 0x80, 0x80, "no fragments in these captures");
        let (len, head) = match len {
            126 => (usize::from(u16::from_be_bytes([rest[2], rest[3]])), 4),
            len => (usize::from(len), 2),
        };
        if first & 0x0f < 8 {
            messages.push(rest[head..head + len].to_vec());
        }
        rest = &rest[head + len..];
    }
    messages
}
