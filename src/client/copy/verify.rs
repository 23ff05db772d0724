//! What the container says of the files there: in flow the sizes and digests of what was copied,
//! out comes whether `sha256sum` finds the same.

use std::fmt::Write as _;

use bytes::Bytes;

use super::{
    Record,
    side::{Side, send_all},
};
use crate::{
    Result,
    client::Stdio,
    error::{Error, Hint, PeerError},
};

/// The exit code of `xargs` if the program that it runs fails, and if it is not there (POSIX,
/// xargs, "EXIT STATUS").
const FAILED: i32 = 123;

/// Compares the files with `sha256sum` in the container. `false` if it has none.
pub(super) async fn verify(side: &Side, directory: &str, records: &[Record]) -> Result<bool> {
    if records.is_empty() {
        return Ok(true);
    }
    let mut front = directory.as_bytes().to_vec();
    if !directory.starts_with('/') {
        front.splice(0..0, *b"./");
    }
    let name = |record: &Record| {
        let mut name = front.clone();
        // A file that was copied alone has no name below itself.
        if !record.name.is_empty() {
            name.push(b'/');
            name.extend_from_slice(&record.name);
        }
        name
    };
    // A name that is escaped has twice its length; digest, spaces and line feed have 68 bytes.
    let longest = |record: &Record| 2 * (front.len() + record.name.len()) + 72;
    let limit = records.iter().map(longest).sum();
    let exec = side.exec(["xargs", "-0", "sha256sum"]);
    let exec = exec.stdin(Stdio::piped()).max_output(limit);
    let mut child = match exec.spawn().await {
        Ok(child) => child,
        Err(error) if is_missing(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let stdin = child.stdin.take();
    let names = async {
        let mut stdin = stdin;
        if let Some(stdin) = &mut stdin {
            for records in records.chunks(256) {
                let mut names = Vec::new();
                for record in records {
                    names.extend_from_slice(&name(record));
                    names.push(0);
                }
                // One that reads no more says why in its status.
                if send_all(stdin, Bytes::from(names)).await.is_err() {
                    return;
                }
            }
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), names);
    let output = match output {
        Ok(output) => output,
        Err(error) if is_missing(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let code = output.status.code();
    if output.stdout.is_empty() && !matches!(code, Some(0 | FAILED)) {
        return Ok(false);
    }
    let mut lines = &output.stdout[..];
    for record in records {
        let digest = match line(&mut lines, &name(record)) {
            Some(digest) => digest,
            None => {
                let complaint = String::from_utf8_lossy(&output.stderr);
                let complaint = complaint.trim();
                return Err(differs(
                    record,
                    &format!("the container cannot read it: {complaint}"),
                ));
            }
        };
        if !digest.eq_ignore_ascii_case(hex(&record.digest).as_bytes()) {
            let problem = format!("its {} bytes are others in the container", record.size);
            return Err(differs(record, &problem));
        }
    }
    Ok(true)
}

fn differs(record: &Record, problem: &str) -> Error {
    PeerError::Copy {
        path: record.path().display().to_string(),
        problem: problem.to_owned(),
    }
    .into()
}

/// Whether the container has no such program.
pub(super) fn is_missing(error: &Error) -> bool {
    match error {
        Error::Api(error) => matches!(error.hint, Some(Hint::Program(_))),
        _ => false,
    }
}

/// Takes the line of a name: its digest, two more bytes, and the name, which coreutils escapes
/// where it must and busybox does not.
fn line<'a>(lines: &mut &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let escaped = lines.first() == Some(&b'\\');
    let rest = &lines[usize::from(escaped)..];
    let (digest, rest) = rest.split_at_checked(64)?;
    let (_, rest) = rest.split_at_checked(2)?;
    let name = if escaped { escape(name) } else { name.to_vec() };
    let rest = rest.strip_prefix(&name[..])?;
    *lines = rest.strip_prefix(b"\n")?;
    Some(digest)
}

/// As `sha256sum` of coreutils escapes a name.
fn escape(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len() + 2);
    for byte in name {
        match byte {
            b'\\' => escaped.extend_from_slice(b"\\\\"),
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' => escaped.extend_from_slice(b"\\r"),
            byte => escaped.push(*byte),
        }
    }
    escaped
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
