//! exec and attach: in flow WebSocket messages and the commands of one end, out come the streams'
//! bytes, terminal sizes, and how it ended.
//!
//! ```text
//!   client:  Running -- Status --> Complete -- close, or end on v5 --> ended: Ok
//!              |                      +------- lost before the close -> ended: Lost
//!              +-- close or end without a Status --------------------> ended: ClosedWithoutStatus
//!                  (channel.k8s.io has none: its close 1000 is a success)
//!
//!   server:  Running -- exit(Status) --> Complete -- the client's close, or its end --> ended: Ok
//!              +-- the client's close or end ----------------------------------------> ended
//! ```
//!
//! A [`RemoteCommandEvent::Status`] comes at most once, [`RemoteCommandEvent::Ended`] exactly once and last. What arrived
//! before either has been an [`RemoteCommandEvent::Data`] before it.

use std::{collections::VecDeque, io, sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    KeepaliveConfig, Message, Opcode, Session, Subprotocol, Transmit,
    later::later,
    link::{Closed, Expired, Link},
};
use crate::{
    Role,
    error::{CallerError, Error, NetworkError, PeerError},
    limits,
    wire::{
        channel::{self, Channel, ChannelError, Encoding, Frame},
        resize::{ResizeDecoder, TerminalSize},
        status::{Status, StatusError},
    },
};

/// What a session of exec or attach tells its user.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RemoteCommandEvent {
    /// Bytes of a stream; never none.
    Data(Channel, Bytes),
    /// A stream ended while the others go on.
    Finished(Channel),
    /// A new size of the client's terminal (server).
    Resize(TerminalSize),
    /// How the work ended (client).
    Status(Box<Status>),
    /// Nothing follows. An error does not undo a Status that came before it; it says that output
    /// may be missing.
    Ended(Result<(), Error>),
}

/// Which streams a session has.
///
/// ```
/// use kubewire::session::remote_command::Streams;
///
/// // `stdin=true&stdout=true`
/// let streams = Streams { stdin: true, stdout: true, ..Streams::default() };
/// assert!(!streams.tty);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams {
    /// Whether the client sends input.
    pub stdin: bool,
    /// Whether the server sends output.
    pub stdout: bool,
    /// Whether the server sends error output; a TTY has none.
    pub stderr: bool,
    /// Whether the remote process has a terminal.
    pub tty: bool,
}

/// What had become of the input of a process when its Status came.
///
/// A process may succeed without having seen its whole input: container runtimes close it when the
/// process's stdout ends before the process does, as in `sh -c 'cat >file'`
/// (containerd/containerd#13934). Nothing undoes that, but here it shows, where more was to come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InputAtExit {
    /// Whether the end of the input had been said, or there was no input; over a subprotocol that
    /// cannot say it, whether it had been reached.
    pub closed: bool,
    /// Bytes that had been written and that the operating system had not taken: nobody can have
    /// read them. Those that a WebSocket had framed are counted with their frames. Bytes that had
    /// been sent may not have been read either.
    pub unsent: usize,
}

impl InputAtExit {
    /// Whether all of the input had been sent before the Status came.
    pub fn is_whole(&self) -> bool {
        self.closed && self.unsent == 0
    }
}

/// How far the work is.
#[derive(Debug)]
enum State {
    Running {
        stdin: Stdin,
        /// The error channel so far, which is no whole Status (client).
        status: Vec<u8>,
    },
    /// The Status has been seen (client) or said (server).
    Complete { since: Instant, input: InputAtExit },
}

/// How far the input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stdin {
    Open,
    /// No more is to come, which the subprotocol cannot say (client).
    Unsaid,
    Closed,
}

/// One session of exec or attach, as a client or as a server.
#[derive(Debug)]
pub struct RemoteCommand {
    link: Link,
    protocol: Subprotocol,
    streams: Streams,
    state: State,
    sizes: ResizeDecoder,
    events: VecDeque<RemoteCommandEvent>,
}

impl RemoteCommand {
    /// A session that begins at `now`, right after the handshake that agreed on `protocol`.
    pub fn new(
        role: Role,
        protocol: Subprotocol,
        streams: Streams,
        keepalive: KeepaliveConfig,
        now: Instant,
    ) -> Self {
        let mut session = Self {
            link: Link::new(role, Some(keepalive), now),
            protocol,
            streams,
            state: State::Running {
                stdin: Stdin::Open,
                status: Vec::new(),
            },
            sizes: ResizeDecoder::default(),
            events: VecDeque::new(),
        };
        if role == Role::Server {
            // Servers begin with an empty message on the first channel that they write
            // (k8s.io/apiserver/pkg/util/proxy/websocket.go, `createWebSocketStreams`).
            let first = match streams {
                Streams { stdout: true, .. } => Channel::Stdout,
                Streams { stderr: true, .. } => Channel::Stderr,
                _ => Channel::Error,
            };
            let transmit = session.transmit(first, Bytes::new());
            session.link.send(now, transmit);
        }
        session
    }

    fn role(&self) -> Role {
        self.link.role()
    }

    /// The subprotocol in use.
    pub fn protocol(&self) -> Subprotocol {
        self.protocol
    }

    /// Which streams the session has.
    pub fn streams(&self) -> Streams {
        self.streams
    }

    /// What had become of the input when the Status came, as far as this session has sent it
    /// (client); `None` before that.
    pub fn input_at_exit(&self) -> Option<InputAtExit> {
        match self.state {
            State::Complete { input, .. } if self.role() == Role::Client => Some(input),
            _ => None,
        }
    }

    /// Sends bytes of stdin (client), stdout or stderr (server), as one message.
    ///
    /// # Errors
    ///
    /// [`CallerError::Ended`] if the stream, the work or the session is over. A client must not
    /// write after the Status: an API server that has sent it reads no more, and the reset that
    /// answers such a write can destroy output that is still on its way.
    pub fn write(
        &mut self,
        now: Instant,
        channel: Channel,
        payload: Bytes,
    ) -> Result<(), CallerError> {
        self.check_write(channel)?;
        if !payload.is_empty() {
            let transmit = self.transmit(channel, payload);
            self.link.send_input(now, transmit);
        }
        Ok(())
    }

    /// [`write`](Self::write) of a payload that the caller sends itself, at once: the prefix of
    /// its message. `None` if the session must do it, for what is queued before it or for its
    /// encoding. It saves whoever copies into a socket's buffer anyway the copy into one of its
    /// own.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_through(
        &mut self,
        now: Instant,
        channel: Channel,
    ) -> Result<Option<u8>, CallerError> {
        self.check_write(channel)?;
        if self.link.queued() > 0 || self.protocol.encoding() != Encoding::Binary {
            return Ok(None);
        }
        self.link.note_input(now);
        Ok(Some(channel::prefix(channel)))
    }

    fn check_write(&mut self, channel: Channel) -> Result<(), CallerError> {
        let role = self.role();
        match (&mut self.state, role, channel) {
            _ if !self.link.is_open() => Err(CallerError::Ended),
            (State::Running { stdin, .. }, Role::Client, Channel::Stdin)
                if *stdin != Stdin::Closed =>
            {
                *stdin = Stdin::Open;
                Ok(())
            }
            (State::Running { .. }, Role::Server, Channel::Stdout | Channel::Stderr) => Ok(()),
            _ => Err(CallerError::Ended),
        }
    }

    /// Ends stdin while output goes on (client). Doing it again does nothing, and neither does it
    /// on a server: servers never send the signal, and client-go complains about one that does
    /// (`k8s.io/apiserver/pkg/util/proxy/websocket.go`; `client-go/tools/remotecommand/websocket.go`).
    ///
    /// # Errors
    ///
    /// [`CallerError::HalfClose`] if the subprotocol cannot say so; the stream stays open.
    pub fn finish(&mut self, now: Instant) -> Result<(), CallerError> {
        let role = self.role();
        match &mut self.state {
            State::Running { stdin, .. }
                if role == Role::Client && self.link.is_open() && *stdin != Stdin::Closed =>
            {
                if !self.protocol.has_half_close() {
                    *stdin = Stdin::Unsaid;
                    return Err(CallerError::HalfClose {
                        protocol: self.protocol.name(),
                    });
                }
                *stdin = Stdin::Closed;
            }
            _ => return Ok(()),
        }
        let signal = channel::close_signal(Channel::Stdin).to_vec();
        let transmit = Transmit::new(Opcode::Binary, signal);
        self.link.send(now, transmit);
        Ok(())
    }

    /// Tells the remote terminal its size (client).
    ///
    /// # Errors
    ///
    /// [`CallerError::ResizeWithoutTty`]: three sizes without a terminal hang an API server's
    /// session for good (seen with 1.36). [`CallerError::Ended`] after the end.
    pub fn resize(&mut self, now: Instant, size: TerminalSize) -> Result<(), CallerError> {
        if !self.streams.tty {
            return Err(CallerError::ResizeWithoutTty);
        }
        if !self.is_running() || self.role() == Role::Server {
            return Err(CallerError::Ended);
        }
        let transmit = self.transmit(Channel::Resize, size.to_json().into());
        self.link.send(now, transmit);
        Ok(())
    }

    /// Says how the work ended, and closes (server).
    ///
    /// # Errors
    ///
    /// [`CallerError::Ended`] if that has been said, or the session is over.
    pub fn exit(&mut self, now: Instant, status: &Status) -> Result<(), CallerError> {
        if self.role() == Role::Client || !self.is_running() {
            return Err(CallerError::Ended);
        }
        let words = match self.protocol.has_status() {
            true => Some(status.to_json()),
            false if status.is_success() => None,
            false => Some(status.to_string().into_bytes()),
        };
        if let Some(words) = words {
            let transmit = self.transmit(Channel::Error, words.into());
            self.link.send(now, transmit);
        }
        self.complete(now);
        self.link.close(now);
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.link.is_open() && matches!(self.state, State::Running { .. })
    }

    fn transmit(&self, channel: Channel, payload: Bytes) -> Transmit {
        match self.protocol.encoding() {
            Encoding::Binary => Transmit {
                opcode: Opcode::Binary,
                prefix: Some(channel::prefix(channel)),
                payload,
            },
            Encoding::Base64 => Transmit::new(Opcode::Text, channel::to_base64(channel, &payload)),
        }
    }

    fn end(&mut self, how: Result<(), Error>) {
        self.link.end();
        self.events.push_back(RemoteCommandEvent::Ended(how));
    }

    /// The peer broke the protocol.
    fn fail(&mut self, error: PeerError) {
        self.link.fail(&error);
        self.end(Err(error.into()));
    }

    /// Takes a message, and gives the event of a stream at once instead of queueing it. Others may
    /// be queued.
    #[inline]
    fn take(&mut self, now: Instant, message: Message) -> Option<RemoteCommandEvent> {
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

    fn complete(&mut self, now: Instant) {
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

    /// Bytes of stdin in a message.
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
    fn verdict(&self, lost: Option<Error>) -> Result<(), Error> {
        let cut = || Arc::new(io::Error::from(io::ErrorKind::UnexpectedEof));
        let without_status = |source| NetworkError::ClosedWithoutStatus {
            code: None,
            reason: String::new(),
            source,
        };
        let complete = matches!(self.state, State::Complete { .. });
        match lost {
            Some(error @ Error::Peer(_)) => Err(error),
            _ if complete && (self.role() == Role::Server || self.protocol.status_is_last()) => {
                Ok(())
            }
            None if complete => Err(NetworkError::Lost(cut()).into()),
            None => Err(without_status(None).into()),
            Some(Error::Network(NetworkError::Lost(source))) if !complete => {
                Err(without_status(Some(source)).into())
            }
            Some(error) => Err(error),
        }
    }

    /// When to give up on a server that has sent the Status and neither closes nor sends.
    fn grace(&self) -> Option<Instant> {
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

impl Session for RemoteCommand {
    type Event = RemoteCommandEvent;

    fn handle_message(&mut self, now: Instant, message: Message) {
        let event = self.take(now, message);
        self.events.extend(event);
    }

    #[inline]
    fn receive(&mut self, now: Instant, message: Message) -> Option<RemoteCommandEvent> {
        let event = self.take(now, message);
        if self.events.is_empty() {
            return event;
        }
        self.events.extend(event);
        self.events.pop_front()
    }

    fn handle_activity(&mut self, now: Instant) {
        self.link.handle_activity(now);
    }

    fn handle_end(&mut self, lost: Option<Error>) {
        if !self.link.is_ended() {
            self.link.handle_end(lost.as_ref());
            let how = self.verdict(lost);
            self.end(how);
        }
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        self.link.handle_hold(now, held);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.link.is_ended() {
            return;
        }
        if self.grace().is_some_and(|at| at <= now) {
            self.link.leave(true);
            let late = NetworkError::TimedOut {
                operation: "closing after the status".into(),
                after: limits::CLOSE_GRACE,
            };
            let how = self.verdict(Some(late.into()));
            return self.end(how);
        }
        match self.link.handle_timeout(now) {
            None => {}
            Some(Expired::Silent(error)) => self.end(Err(error)),
            // All has been said.
            Some(Expired::Unanswered) => self.end(Ok(())),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.link.is_ended() {
            return None;
        }
        let times = [self.grace(), self.link.poll_timeout()];
        times.into_iter().flatten().min()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.link.poll_transmit()
    }

    fn queued(&self) -> usize {
        self.link.queued()
    }

    fn is_ended(&self) -> bool {
        self.link.is_ended()
    }

    fn poll_event(&mut self) -> Option<RemoteCommandEvent> {
        self.events.pop_front()
    }

    fn close(&mut self) {
        self.events.clear();
        self.link
            .leave(matches!(self.state, State::Complete { .. }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_of_sizes_the_last_two_are_told() {
        let now = Instant::now();
        let streams = Streams {
            stdin: true,
            tty: true,
            ..Streams::default()
        };
        let keepalive = KeepaliveConfig::default();
        let mut session =
            RemoteCommand::new(Role::Server, Subprotocol::V5, streams, keepalive, now);
        let mut message = vec![4];
        for _ in 0..500_000 {
            message.extend_from_slice(b"{}");
        }
        message.extend_from_slice(br#"{"Width":80}{"Width":81}"#);
        session.handle_message(now, Message::Binary(message.into()));
        let widths: Vec<u16> = std::iter::from_fn(|| session.poll_event())
            .map(|event| match event {
                RemoteCommandEvent::Resize(size) => size.width,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(widths, [80, 81]);
    }

    #[test]
    fn input_that_was_not_sent_when_the_status_came_is_told() {
        let streams = Streams {
            stdin: true,
            ..Streams::default()
        };
        for (protocol, message) in [
            (Subprotocol::V5, "\x03{\"status\":\"Success\"}"),
            (Subprotocol::V4, "\x03{\"status\":\"Success\"}"),
            (Subprotocol::V4Base64, "3eyJzdGF0dXMiOiJTdWNjZXNzIn0="),
        ] {
            let now = Instant::now();
            let keepalive = KeepaliveConfig::default();
            let exit = |sent: usize, finish: bool| {
                let mut session =
                    RemoteCommand::new(Role::Client, protocol, streams, keepalive, now);
                for _ in 0..3 {
                    let payload = vec![7; 1000].into();
                    session.write(now, Channel::Stdin, payload).unwrap();
                }
                if finish {
                    let _ = session.finish(now);
                }
                for _ in 0..sent {
                    session.poll_transmit();
                }
                session.handle_message(now, Message::Binary(message.into()));
                assert_eq!(session.queued(), 0);
                session.input_at_exit().unwrap()
            };
            let whole = exit(4, true);
            assert!(whole.is_whole(), "{protocol}: {whole:?}");
            let cut = exit(1, true);
            assert_eq!((cut.unsent, cut.is_whole()), (2000, false), "{protocol}");
            let open = exit(3, false);
            assert_eq!((open.unsent, open.closed), (0, false), "{protocol}");
        }
    }

    #[test]
    fn only_clients_signal_the_end_of_a_stream() {
        let streams = Streams {
            stdin: true,
            stdout: true,
            ..Streams::default()
        };
        let signals = |role| {
            let now = Instant::now();
            let keepalive = KeepaliveConfig::default();
            let mut session = RemoteCommand::new(role, Subprotocol::V5, streams, keepalive, now);
            while session.poll_transmit().is_some() {}
            session.finish(now).unwrap();
            session.poll_transmit().map(|transmit| transmit.payload)
        };
        assert_eq!(signals(Role::Client).as_deref(), Some(&[255, 0][..]));
        assert_eq!(signals(Role::Server), None);
    }
}
