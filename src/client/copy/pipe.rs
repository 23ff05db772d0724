//! A pipe between the connection and a thread that reads or writes the disk: in flow slices on one
//! side, out they come on the other. It is bounded, so that the slower side holds the faster back.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    rc::Rc,
    sync::{Arc, Weak},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::limits;

pub(super) fn pipe() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(limits::COPY_STEPS)
}

/// Whether anybody waits for what a thread does: a hole can be as long as the disk, and nothing
/// goes through the pipe meanwhile.
#[derive(Debug, Clone, Default)]
pub(super) struct Awaited(Weak<()>);

impl Awaited {
    /// As long as the first of these is held.
    pub(super) fn new() -> (Arc<()>, Self) {
        let held = Arc::new(());
        let awaited = Self(Arc::downgrade(&held));
        (held, awaited)
    }

    pub(super) fn check(&self) -> io::Result<()> {
        match self.0.strong_count() {
            0 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }
}

/// The thread's writing end.
pub(super) struct PipeWriter {
    to: mpsc::Sender<Bytes>,
    step: BytesMut,
    awaited: Awaited,
}

impl PipeWriter {
    pub(super) fn new(to: mpsc::Sender<Bytes>, awaited: Awaited) -> Self {
        Self {
            to,
            step: BytesMut::with_capacity(limits::COPY_STEP),
            awaited,
        }
    }

    pub(super) fn awaited(&self) -> Awaited {
        self.awaited.clone()
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(limits::COPY_STEP - self.step.len());
        self.step.extend_from_slice(&bytes[..taken]);
        if self.step.len() == limits::COPY_STEP {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.step.is_empty() {
            return Ok(());
        }
        let next = BytesMut::with_capacity(limits::COPY_STEP);
        let step = std::mem::replace(&mut self.step, next).freeze();
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.to.blocking_send(step).map_err(gone)
    }
}

/// The thread's reading end.
pub(super) struct PipeReader {
    from: mpsc::Receiver<Bytes>,
    step: Bytes,
    state: Rc<State>,
    awaited: Awaited,
}

/// What the thread knows of its reader, and tells it, while an archive owns that.
#[derive(Debug, Default)]
pub(super) struct State {
    ended: Cell<bool>,
    allowance: Cell<Option<u64>>,
}

impl State {
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Lets so many more bytes be read, or all.
    pub(super) fn allow(&self, bytes: Option<u64>) {
        self.allowance.set(bytes);
    }
}

impl PipeReader {
    pub(super) fn new(from: mpsc::Receiver<Bytes>, awaited: Awaited) -> Self {
        Self {
            from,
            step: Bytes::new(),
            state: Rc::default(),
            awaited,
        }
    }

    pub(super) fn awaited(&self) -> Awaited {
        self.awaited.clone()
    }

    pub(super) fn state(&self) -> Rc<State> {
        self.state.clone()
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.step.is_empty() && !self.state.ended.get() {
            match self.from.blocking_recv() {
                Some(step) => self.step = step,
                None => self.state.ended.set(true),
            }
        }
        let read = buffer.len().min(self.step.len());
        if let Some(left) = self.state.allowance.get() {
            let left = left.checked_sub(read as u64).ok_or_else(|| {
                let problem = "the headers of the archive are longer than any that are allowed";
                io::Error::new(io::ErrorKind::InvalidData, problem)
            })?;
            self.state.allowance.set(Some(left));
        }
        self.step.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}
