//! The standard streams of this process, each on a thread of its own: in flow the bytes of one
//! side, out they come on the other.
//!
//! A read of a terminal or a write to a pipe may block for ever; on a thread it blocks neither the
//! session nor the end of the process.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind, IoSlice, Read as _, Write},
    thread,
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::sync::{mpsc, oneshot};

/// Bytes that one read takes: what goes into one message.
const READ: usize = kubewire::limits::INPUT_MESSAGE;

/// Reads that may wait for the session.
const READS: usize = 2;

/// Slices that may wait to be written, and that one write may take. Servers send at most 32 KiB in
/// one.
const WRITES: usize = 32;

/// How long to wait when a stream that another process made non-blocking has to wait.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Input(mpsc::Receiver<io::Result<Bytes>>);

impl Input {
    pub(crate) fn start() -> io::Result<Self> {
        let mut file = unbuffered(&io::stdin())?;
        let (sender, receiver) = mpsc::channel(READS);
        spawn("stdin", move || {
            let mut buffer = vec![0; READ];
            loop {
                let read = match file.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => Ok(Bytes::copy_from_slice(&buffer[..read])),
                    Err(error) if retry(&error) => continue,
                    Err(error) => Err(error),
                };
                let failed = read.is_err();
                if sender.blocking_send(read).is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(Self(receiver))
    }

    /// The next bytes; `None` at the end. Cancel safety: nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.0.recv().await
    }
}

#[derive(Debug)]
pub(crate) struct Output {
    slices: mpsc::Sender<Bytes>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Output {
    pub(crate) fn stdout() -> io::Result<Self> {
        Self::start("stdout", unbuffered(&io::stdout())?)
    }

    pub(crate) fn stderr() -> io::Result<Self> {
        Self::start("stderr", unbuffered(&io::stderr())?)
    }

    fn start(name: &str, mut file: impl Write + Send + 'static) -> io::Result<Self> {
        let (slices, mut receiver) = mpsc::channel(WRITES);
        let (sender, done) = oneshot::channel();
        spawn(name, move || {
            // If nobody waits for the result, the process is ending anyway.
            let _ = sender.send(write(&mut file, &mut receiver));
        })?;
        Ok(Self { slices, done })
    }

    /// Queues bytes; waits while too many are queued. `false` means that it is time to ask
    /// [`finish`](Self::finish) what has failed.
    pub(crate) async fn write(&self, bytes: Bytes) -> bool {
        self.slices.send(bytes).await.is_ok()
    }

    /// Waits until everything is written, or one write has failed.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.slices);
        let panicked = || io::Error::other("the thread that writes has panicked");
        self.done.await.unwrap_or_else(|_| Err(panicked()))
    }
}

fn write(file: &mut impl Write, receiver: &mut mpsc::Receiver<Bytes>) -> io::Result<()> {
    let mut batch = Vec::with_capacity(WRITES);
    let mut queue = VecDeque::with_capacity(WRITES);
    while receiver.blocking_recv_many(&mut batch, WRITES) > 0 {
        queue.extend(batch.drain(..).filter(|bytes| !bytes.is_empty()));
        while !queue.is_empty() {
            let slices: Vec<_> = queue.iter().map(|bytes| IoSlice::new(bytes)).collect();
            match file.write_vectored(&slices) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => consume(&mut queue, written),
                Err(error) if retry(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn consume(queue: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = queue.front_mut() {
        if written < front.len() {
            front.advance(written);
            return;
        }
        written -= front.len();
        queue.pop_front();
    }
}

fn retry(error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::Interrupted => true,
        ErrorKind::WouldBlock => {
            thread::sleep(PAUSE);
            true
        }
        _ => false,
    }
}

/// The stream without the standard library's buffer, which would hold the end of a line back.
#[cfg(unix)]
fn unbuffered(stream: &impl std::os::fd::AsFd) -> io::Result<File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

/// The stream without the standard library's buffer, which would hold the end of a line back.
#[cfg(windows)]
fn unbuffered(stream: &impl std::os::windows::io::AsHandle) -> io::Result<File> {
    Ok(stream.as_handle().try_clone_to_owned()?.into())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Panics;

    impl Write for Panics {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            panic!("this writer panics, as it is to");
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_writer_that_panics_is_an_error_and_not_the_end_of_the_output() {
        let output = Output::start("test", Panics).unwrap();
        // The queue is longer than it is filled: whether the thread still takes is a race.
        let _ = output.write(Bytes::from_static(b"text")).await;
        let error = output.finish().await.unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
    }

    #[test]
    fn a_short_write_leaves_the_rest() {
        let slices = ["ab", "cd", "ef"].map(|text| Bytes::from_static(text.as_bytes()));
        for written in 0..=6 {
            let mut queue = VecDeque::from(slices.clone());
            consume(&mut queue, written);
            let rest: Vec<u8> = queue.iter().flatten().copied().collect();
            assert_eq!(rest, b"abcdef"[written..]);
            assert!(queue.iter().all(|slice| !slice.is_empty()));
        }
    }
}
