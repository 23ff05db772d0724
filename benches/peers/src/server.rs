//! The servers of the rows, each in a process of its own: prints where it listens, a word a line,
//! and serves until its standard input ends.

use std::io::{self, Read as _};

use kubewire::{
    testing::ApiServer,
    wire::websocket::{FrameHeader, Opcode, apply_mask},
};

use crate::{
    application::{application, relay},
    row::{KUBE_PART, Work},
    support::{END, Io, Load, Tls, listen, serve},
};

pub(crate) fn run(kind: &str) {
    let tls = kind.ends_with("-tls").then(Tls::new);
    match kind.trim_end_matches("-tls") {
        "stdin" => {
            println!("{}", listen(None, upload(total())));
            println!("{}", listen(None, upload(total() / KUBE_PART)));
        }
        "echo" => println!("{}", listen(None, echo)),
        "idle" => {
            let nothing = Load {
                frame: 1,
                total: 0,
                end: false,
            };
            println!("{}", serve(nothing, tls.as_ref()));
        }
        "forward" => return forward(),
        kind => {
            let frame = kind.rsplit('-').next().and_then(|size| size.parse().ok());
            let frame = frame.expect("a size");
            let total = crate::row::all().iter().find_map(|row| match row.work {
                Work::Stdout {
                    frame: of, total, ..
                } if of == frame => Some(total),
                _ => None,
            });
            let total = total.expect("a row");
            for total in [total, total / KUBE_PART] {
                println!(
                    "{}",
                    serve(
                        Load {
                            frame,
                            total,
                            end: true
                        },
                        tls.as_ref()
                    )
                );
            }
        }
    }
    finish(tls.map_or(String::new(), |tls| tls.ca));
}

fn total() -> usize {
    crate::row::all()
        .iter()
        .find_map(|row| match row.work {
            Work::Stdin { total } => Some(total),
            _ => None,
        })
        .expect("a row")
}

/// Says the last, and waits.
fn finish(rest: String) {
    println!("end");
    println!("{rest}\nend");
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

/// Takes a client's frames without looking into them; `of_stdin` gets the length of each message
/// of stdin, and its payload if it is all there.
fn frames(
    io: &mut dyn Io,
    mut of_stdin: impl FnMut(&mut dyn Io, usize, &mut [u8]) -> io::Result<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let (mut start, mut end, mut skip) = (0, 0, 0);
    loop {
        if start == end {
            (start, end) = (0, 0);
        } else if end == buffer.len() {
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
        }
        let read = io.read(&mut buffer[end..])?;
        if read == 0 {
            return Ok(());
        }
        end += read;
        while start < end {
            if skip > 0 {
                let part = skip.min(end - start);
                (start, skip) = (start + part, skip - part);
                continue;
            }
            let header = FrameHeader::parse(&buffer[start..end]).map_err(io::Error::other)?;
            let Some((header, head)) = header else { break };
            let length = header.length as usize;
            let is_data = header.opcode == Opcode::Binary && length > 0;
            if is_data && start + head == end {
                break;
            }
            let key = header.mask.unwrap_or_default();
            let is_stdin = is_data && buffer[start + head] ^ key[0] == 0;
            if is_stdin {
                let whole = end - start - head >= length;
                let until = if whole {
                    start + head + length
                } else {
                    start + head + 1
                };
                let payload = &mut buffer[start + head + 1..until];
                if length < 1024 {
                    if !whole {
                        break;
                    }
                    apply_mask(payload, key, 1);
                }
                if of_stdin(io, length - 1, payload)? {
                    return Ok(());
                }
            }
            start += head;
            skip = length;
        }
    }
}

/// Counts so many bytes of input, then says that it is done.
fn upload(total: usize) -> impl Fn(&mut dyn Io, bool) -> io::Result<()> + Clone {
    move |io, websocket| {
        let mut left = total;
        if websocket {
            return frames(io, |io, length, _| {
                left = left.saturating_sub(length);
                if left == 0 {
                    io.write_all(END)?;
                }
                Ok(left == 0)
            });
        }
        let mut buffer = vec![0; 256 << 10];
        while left > 0 {
            left = left.saturating_sub(io.read(&mut buffer)?);
        }
        io.write_all(b"!")
    }
}

/// Sends back what comes.
fn echo(io: &mut dyn Io, websocket: bool) -> io::Result<()> {
    if websocket {
        return frames(io, |io, length, payload| {
            let mut frame = Vec::new();
            FrameHeader {
                fin: true,
                opcode: Opcode::Binary,
                mask: None,
                length: length as u64 + 1,
            }
            .encode(&mut frame);
            frame.push(1);
            frame.extend_from_slice(payload);
            io.write_all(&frame).map(|()| false)
        });
    }
    let mut buffer = [0; 64];
    loop {
        io.read_exact(&mut buffer)?;
        io.write_all(&buffer)?;
    }
}

/// An application, a TCP relay to it, and an API server whose pod has it.
fn forward() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let port = application().await;
        let server = ApiServer::builder()
            .plain()
            .pod("default", "bench", |pod| {
                pod.container("main", ["sleep", "infinity"])
            })
            .start()
            .await
            .expect("a server");
        println!("{}", relay(port).await);
        println!("{}", server.address());
        println!("127.0.0.1:{port}");
        let kubeconfig = server.kubeconfig();
        tokio::task::spawn_blocking(move || finish(kubeconfig))
            .await
            .expect("an end");
        std::process::exit(0);
    });
}
