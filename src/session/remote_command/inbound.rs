//! What the peer says to exec and attach: in flow its messages, out come events, and what the end of
//! the connection means.

use std::time::Instant;

use bytes::Bytes;

use super::{InputAtExit, RemoteCommand, RemoteCommandEvent, State, Stdin};
use crate::{
    Role,
    error::{Error, NetworkError, PeerError},
    limits,
    session::{Message, Transmit, later::later, link::Closed},
    wire::{
        channel::{self, Channel, ChannelError, Encoding, Frame},
        status::{Status, StatusError},
    },
};

impl RemoteCommand {
    /// Takes a message, and gives the event of a stream at once instead of queueing it. Others may
    /// be queued.
    #[inline]
    pub(super) fn take(&mut self, now: Instant, message: Message) -> Option<RemoteCommandEvent> {
        self.link.handle_activity(now);
        if self.link.is_ended() {
            return None;
        }
        match message {
            Message::Binary(bytes) | Message::Text(bytes) => match self.handle_frame(now, bytes) {
                Ok(event) => return event,
                Err(error) => self.fail(error),
            },
            control => {
                if let Some(closed) = self.link.handle_control(now, control) {
                    self.handle_close(now, closed);
                }
            }
        }
        None
    }

    #[inline]
    fn handle_frame(
        &mut self,
        now: Instant,
        message: Bytes,
    ) -> Result<Option<RemoteCommandEvent>, PeerError> {
        let close = self.protocol.has_half_close();
        let Some(frame) = channel::parse(self.protocol.encoding(), close, message)? else {
            return Ok(None);
        };
        match (self.role(), frame) {
            (Role::Client, Frame::Data(channel @ (Channel::Stdout | Channel::Stderr), bytes)) => {
                if !bytes.is_empty() {
                    return Ok(Some(RemoteCommandEvent::Data(channel, bytes)));
                }
            }
            (Role::Client, Frame::Data(Channel::Error, bytes)) => {
                return self.handle_status(now, &bytes);
            }
            (Role::Client, Frame::Close(channel @ (Channel::Stdout | Channel::Stderr))) => {
                return Ok(Some(RemoteCommandEvent::Finished(channel)));
            }
            // A CLOSE of stdin or resize only says that nothing more is read there.
            (Role::Client, Frame::Close(_)) => {}

            (Role::Server, Frame::Data(Channel::Stdin, bytes)) => {
                // "Data after close is dropped" (wsstream/conn.go, `handle`).
                if !bytes.is_empty() && self.stdin() == Some(Stdin::Open) {
                    return Ok(Some(RemoteCommandEvent::Data(Channel::Stdin, bytes)));
                }
            }
            (Role::Server, Frame::Data(Channel::Resize, bytes)) => self.handle_sizes(&bytes)?,
            (Role::Server, Frame::Close(Channel::Stdin)) => {
                if let State::Running { stdin, .. } = &mut self.state
                    && std::mem::replace(stdin, Stdin::Closed) == Stdin::Open
                {
                    return Ok(Some(RemoteCommandEvent::Finished(Channel::Stdin)));
                }
            }
            (Role::Server, Frame::Close(_)) => {}
            (_, Frame::Data(channel, _)) => {
                return Err(ChannelError::WrongDirection(channel.name()).into());
            }
        }
        Ok(None)
    }

    /// How far the input is; `None` when nobody reads it any more.
    fn stdin(&self) -> Option<Stdin> {
        match self.state {
            State::Running { stdin, .. } => Some(stdin),
            State::Complete { .. } => None,
        }
    }

    /// Tells of the last sizes alone: whoever hears an earlier one hears a later one at once.
    fn handle_sizes(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        let mut last = [None; limits::TERMINAL_SIZES];
        self.sizes.push(bytes, |size| {
            last.rotate_left(1);
            last[limits::TERMINAL_SIZES - 1] = Some(size);
        })?;
        let sizes = last.into_iter().flatten();
        self.events.extend(sizes.map(RemoteCommandEvent::Resize));
        Ok(())
    }

    fn handle_status(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> Result<Option<RemoteCommandEvent>, PeerError> {
        let State::Running { status: so_far, .. } = &mut self.state else {
            return Ok(None);
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        let status = if self.protocol.has_status() {
            if so_far.len() + bytes.len() > limits::STATUS {
                return Err(StatusError::TooLong(limits::STATUS).into());
            }
            so_far.extend_from_slice(bytes);
            match Status::from_json(so_far) {
                Ok(status) => status,
                // The error channel is a stream: a Status may come in pieces.
                Err(StatusError::Truncated) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        } else {
            Status::from_text(&String::from_utf8_lossy(bytes))
        };
        self.complete(now);
        Ok(Some(RemoteCommandEvent::Status(Box::new(status))))
    }

    pub(super) fn complete(&mut self, now: Instant) {
        let mut input = InputAtExit {
            closed: !self.streams.stdin || self.stdin().is_some_and(|stdin| stdin != Stdin::Open),
            unsent: 0,
        };
        if self.role() == Role::Client {
            // Input that has not gone out now finds no reader any more.
            for dropped in self.link.take_payload() {
                input.unsent += self.stdin_in(&dropped);
                input.closed &= !is_end_of_stdin(&dropped);
            }
        }
        self.state = State::Complete { since: now, input };
    }

    fn stdin_in(&self, transmit: &Transmit) -> usize {
        match (
            self.protocol.encoding(),
            transmit.prefix,
            &transmit.payload[..],
        ) {
            (Encoding::Binary, Some(prefix), payload)
                if prefix == channel::prefix(Channel::Stdin) =>
            {
                payload.len()
            }
            (Encoding::Base64, None, [b'0', text @ ..]) => {
                let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
                text.len() / 4 * 3 - padding
            }
            _ => 0,
        }
    }

    fn handle_close(&mut self, now: Instant, closed: Closed) {
        let complete = matches!(self.state, State::Complete { .. });
        // channel.k8s.io is silent on success (cri-streaming httpstream.go, `v1WriteStatusFunc`).
        if self.role() == Role::Client
            && !complete
            && !self.protocol.has_status()
            && closed.is_normal()
        {
            self.complete(now);
            let status = RemoteCommandEvent::Status(Box::new(Status::success()));
            self.events.push_back(status);
            return self.end(Ok(()));
        }
        let ok = complete || self.role() == Role::Server;
        self.end(match ok {
            true => Ok(()),
            false => Err(closed.into_error()),
        });
    }

    /// What the end of the connection means for the work.
    pub(super) fn verdict(&self, lost: Option<Error>) -> Result<(), Error> {
        let without_status = |source| NetworkError::ClosedWithoutStatus {
            code: None,
            reason: String::new(),
            source,
        };
        let complete = matches!(self.state, State::Complete { .. });
        let is_server = self.role() == Role::Server;
        match lost {
            // Nothing can be missing, however it ends.
            _ if complete && !is_server && self.protocol.status_is_last() => Ok(()),
            Some(error @ Error::Peer(_)) => Err(error),
            _ if complete && is_server => Ok(()),
            None if complete => Err(Error::cut()),
            None => Err(without_status(None).into()),
            Some(Error::Network(NetworkError::Lost(source))) if !complete => {
                Err(without_status(Some(source)).into())
            }
            Some(error) => Err(error),
        }
    }

    /// When to give up on a server that has sent the Status and neither closes nor sends.
    pub(super) fn grace(&self) -> Option<Instant> {
        match self.state {
            State::Complete { since, .. } if self.role() == Role::Client => {
                let heard = self.link.heard()?;
                Some(later(since.max(heard), limits::CLOSE_GRACE))
            }
            _ => None,
        }
    }
}

fn is_end_of_stdin(transmit: &Transmit) -> bool {
    transmit.prefix.is_none() && transmit.payload == channel::close_signal(Channel::Stdin)[..]
}
