//! exec and attach: in flow WebSocket messages and the commands of one end, out come the streams'
//! bytes, terminal sizes, and how it ended.
//!
//! ```text
//!   client:  open -- Status --> complete -- close, or end on v5 --> ended: Ok
//!              |                   +------- lost before the close -> ended: Lost
//!              +-- close or end without a Status -----------------> ended: ClosedWithoutStatus
//!                  (channel.k8s.io has none: its close 1000 is a success)
//!
//!   server:  open -- exit(Status) --> complete -- the client's close, or its end --> ended: Ok
//!              +-- the client's close or end -------------------------------------> ended
//! ```
//!
//! A [`RemoteCommandEvent::Status`] comes at most once, [`RemoteCommandEvent::Ended`] exactly once and last. What arrived
//! before either has been an [`RemoteCommandEvent::Data`] before it.

use std::{collections::VecDeque, io, sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    Close, Keepalive, KeepaliveConfig, Message, Opcode, Session, Subprotocol, Transmit,
    keepalive::Due,
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

/// One session of exec or attach, as a client or as a server.
#[derive(Debug)]
pub struct RemoteCommand {
    role: Role,
    protocol: Subprotocol,
    streams: Streams,
    keepalive: Keepalive,
    transmits: VecDeque<Transmit>,
    queued: usize,
    events: VecDeque<RemoteCommandEvent>,
    /// The error channel so far, while it is no whole Status.
    status: Vec<u8>,
    sizes: ResizeDecoder,
    /// Whether stdin has been closed by itself.
    stdin_closed: bool,
    /// When the Status was seen or sent.
    complete: Option<Instant>,
    last_inbound: Instant,
    held: bool,
    close_sent: bool,
    ended: bool,
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
            role,
            protocol,
            streams,
            keepalive: Keepalive::new(keepalive, now),
            transmits: VecDeque::new(),
            queued: 0,
            events: VecDeque::new(),
            status: Vec::new(),
            sizes: ResizeDecoder::default(),
            stdin_closed: false,
            complete: None,
            last_inbound: now,
            held: false,
            close_sent: false,
            ended: false,
        };
        if role == Role::Server {
            // Servers begin with an empty message on the first channel that they write
            // (k8s.io/apiserver/pkg/util/proxy/websocket.go, `createWebSocketStreams`).
            let first = match streams {
                Streams { stdout: true, .. } => Channel::Stdout,
                Streams { stderr: true, .. } => Channel::Stderr,
                _ => Channel::Error,
            };
            session.send(first, Bytes::new());
        }
        session
    }

    /// The subprotocol in use.
    pub fn protocol(&self) -> Subprotocol {
        self.protocol
    }

    /// Which streams the session has.
    pub fn streams(&self) -> Streams {
        self.streams
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
            self.keepalive.input(now);
            self.send(channel, payload);
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
        if !self.transmits.is_empty() || self.protocol.encoding() != Encoding::Binary {
            return Ok(None);
        }
        self.keepalive.input(now);
        Ok(Some(channel::prefix(channel)))
    }

    fn check_write(&self, channel: Channel) -> Result<(), CallerError> {
        let ours = match self.role {
            Role::Client => channel == Channel::Stdin && !self.stdin_closed,
            Role::Server => matches!(channel, Channel::Stdout | Channel::Stderr),
        };
        match ours && !self.is_over() {
            true => Ok(()),
            false => Err(CallerError::Ended),
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
        if self.stdin_closed || self.is_over() || self.role == Role::Server {
            return Ok(());
        }
        if !self.protocol.has_half_close() {
            return Err(CallerError::HalfClose {
                protocol: self.protocol.name(),
            });
        }
        self.stdin_closed = true;
        self.keepalive.outbound(now);
        self.queue(Transmit::new(
            Opcode::Binary,
            channel::close_signal(Channel::Stdin).to_vec(),
        ));
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
        if self.is_over() || self.role == Role::Server {
            return Err(CallerError::Ended);
        }
        self.keepalive.outbound(now);
        self.send(Channel::Resize, size.to_json().into());
        Ok(())
    }

    /// Says how the work ended, and closes (server).
    ///
    /// # Errors
    ///
    /// [`CallerError::Ended`] if that has been said, or the session is over.
    pub fn exit(&mut self, now: Instant, status: &Status) -> Result<(), CallerError> {
        if self.role == Role::Client || self.is_over() {
            return Err(CallerError::Ended);
        }
        if self.protocol.has_status() {
            self.send(Channel::Error, status.to_json().into());
        } else if !status.is_success() {
            self.send(Channel::Error, status.to_string().into());
        }
        self.complete = Some(now);
        self.send_close(Close::NORMAL, "");
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.ended || self.complete.is_some() || self.close_sent
    }

    fn send(&mut self, channel: Channel, payload: Bytes) {
        let transmit = match self.protocol.encoding() {
            Encoding::Binary => Transmit {
                opcode: Opcode::Binary,
                prefix: Some(channel::prefix(channel)),
                payload,
            },
            Encoding::Base64 => Transmit::new(Opcode::Text, channel::to_base64(channel, &payload)),
        };
        self.queue(transmit);
    }

    fn queue(&mut self, transmit: Transmit) {
        self.queued += transmit.len();
        self.transmits.push_back(transmit);
    }

    fn send_close(&mut self, code: u16, reason: &str) {
        if !self.close_sent {
            self.close_sent = true;
            self.queue(Transmit::close(code, reason));
        }
    }

    fn end(&mut self, how: Result<(), Error>) {
        if !self.ended {
            self.ended = true;
            self.events.push_back(RemoteCommandEvent::Ended(how));
        }
    }

    /// The peer broke the protocol.
    fn fail(&mut self, error: PeerError) {
        // "1002 indicates that an endpoint is terminating the connection due to a protocol
        // error" (RFC 6455, section 7.4.1).
        self.send_close(1002, &error.to_string());
        self.end(Err(error.into()));
    }

    /// Takes a message, and gives the event of a stream at once instead of queueing it. Others may
    /// be queued.
    #[inline]
    fn take(&mut self, now: Instant, message: Message) -> Option<RemoteCommandEvent> {
        self.handle_activity(now);
        if self.ended {
            return None;
        }
        match message {
            Message::Binary(bytes) | Message::Text(bytes) => match self.handle_frame(now, bytes) {
                Ok(event) => return event,
                Err(error) => self.fail(error),
            },
            Message::Ping(payload) => self.pong(payload),
            Message::Pong(payload) => self.keepalive.pong(now, &payload),
            Message::Close(close) => self.handle_close(now, close),
        }
        None
    }

    /// Owes a pong.
    fn pong(&mut self, payload: Bytes) {
        // "MAY elect to send a Pong frame for only the most recently processed Ping" (RFC 6455,
        // section 5.5.3): a flood of pings must not grow the queue.
        let pong = Transmit::new(Opcode::Pong, payload);
        match self.transmits.iter_mut().find(|t| t.opcode == Opcode::Pong) {
            Some(queued) => {
                self.queued = self.queued - queued.len() + pong.len();
                *queued = pong;
            }
            None if !self.close_sent => self.queue(pong),
            None => {}
        }
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
        match (self.role, frame) {
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
                if !bytes.is_empty() && !self.stdin_closed {
                    return Ok(Some(RemoteCommandEvent::Data(Channel::Stdin, bytes)));
                }
            }
            (Role::Server, Frame::Data(Channel::Resize, bytes)) => {
                let sizes = self.sizes.push(&bytes)?;
                self.events
                    .extend(sizes.into_iter().map(RemoteCommandEvent::Resize));
            }
            (Role::Server, Frame::Close(Channel::Stdin)) => {
                if !std::mem::replace(&mut self.stdin_closed, true) {
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

    fn handle_status(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> Result<Option<RemoteCommandEvent>, PeerError> {
        if self.complete.is_some() || bytes.is_empty() {
            return Ok(None);
        }
        let status = if self.protocol.has_status() {
            if self.status.len() + bytes.len() > limits::STATUS {
                return Err(StatusError::TooLong(limits::STATUS).into());
            }
            self.status.extend_from_slice(bytes);
            match Status::from_json(&self.status) {
                Ok(status) => status,
                // The error channel is a stream: a Status may come in pieces.
                Err(StatusError::Truncated) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        } else {
            Status::from_text(&String::from_utf8_lossy(bytes))
        };
        self.status = Vec::new();
        Ok(Some(self.complete(now, status)))
    }

    fn complete(&mut self, now: Instant, status: Status) -> RemoteCommandEvent {
        self.complete = Some(now);
        // Input that has not gone out now finds no reader any more.
        self.transmits
            .retain(|t| !matches!(t.opcode, Opcode::Text | Opcode::Binary));
        self.queued = self.transmits.iter().map(Transmit::len).sum();
        RemoteCommandEvent::Status(Box::new(status))
    }

    fn handle_close(&mut self, now: Instant, close: Option<Close>) {
        // "MUST send a Close frame in response ... typically echos the status code" (RFC 6455,
        // section 5.5.1).
        self.send_close(close.as_ref().map_or(Close::NORMAL, |close| close.code), "");
        let (code, reason) = close.map_or((None, String::new()), |c| (Some(c.code), c.reason));
        if self.role == Role::Server || self.complete.is_some() {
            return self.end(Ok(()));
        }
        // channel.k8s.io is silent on success (cri-streaming httpstream.go, `v1WriteStatusFunc`).
        if !self.protocol.has_status() && code == Some(Close::NORMAL) {
            let status = self.complete(now, Status::success());
            self.events.push_back(status);
            return self.end(Ok(()));
        }
        self.end(Err(NetworkError::ClosedWithoutStatus {
            code,
            reason,
            source: None,
        }
        .into()));
    }

    /// When to give up on a server that has sent the Status and neither closes nor sends, or on
    /// a client that does not close after it.
    fn grace(&self) -> Option<Instant> {
        let complete = self.complete?;
        match self.role {
            Role::Client if self.held => None,
            Role::Client => Some(complete.max(self.last_inbound) + limits::CLOSE_GRACE),
            Role::Server => Some(complete + limits::LINGER),
        }
    }
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
        self.last_inbound = now;
        self.keepalive.inbound(now);
    }

    fn handle_end(&mut self, lost: Option<Error>) {
        if self.ended {
            return;
        }
        let cut = || Arc::new(io::Error::from(io::ErrorKind::UnexpectedEof));
        let how = match (self.complete, lost) {
            (_, Some(Error::Peer(error))) => return self.fail(error),
            (Some(_), _) if self.role == Role::Server || self.protocol.status_is_last() => Ok(()),
            (Some(_), Some(error)) => Err(error),
            (Some(_), None) => Err(NetworkError::Lost(cut()).into()),
            (None, Some(Error::Network(NetworkError::Lost(source)))) => {
                Err(NetworkError::ClosedWithoutStatus {
                    code: None,
                    reason: String::new(),
                    source: Some(source),
                }
                .into())
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(NetworkError::ClosedWithoutStatus {
                code: None,
                reason: String::new(),
                source: None,
            }
            .into()),
        };
        self.end(how);
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        if self.held && !held {
            self.last_inbound = now;
        }
        self.held = held;
        self.keepalive.hold(now, held);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        if self.grace().is_some_and(|at| at <= now) {
            self.send_close(Close::NORMAL, "");
            let late: Error = NetworkError::TimedOut {
                operation: "closing after the status".into(),
                after: match self.role {
                    Role::Client => limits::CLOSE_GRACE,
                    Role::Server => limits::LINGER,
                },
            }
            .into();
            return self.handle_end(Some(late));
        }
        if self.close_sent {
            return;
        }
        loop {
            match self.keepalive.handle_timeout(now) {
                Due::Nothing => return,
                // The message without a channel that keeps a server from idling is unknown to
                // clients (client-go takes it for the end, `remotecommand/websocket.go`).
                Due::Send(transmit)
                    if self.role == Role::Server && transmit.opcode == Opcode::Binary => {}
                Due::Send(transmit) => {
                    // One ping in the queue asks as much as two.
                    if !self.transmits.iter().any(|t| t.opcode == transmit.opcode) {
                        self.queue(transmit);
                    }
                }
                Due::Dead(silent) => {
                    return self.end(Err(NetworkError::Silent { silent }.into()));
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let pings = (!self.close_sent).then(|| self.keepalive.deadline());
        self.grace().into_iter().chain(pings).min()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.transmits.pop_front()?;
        self.queued -= transmit.len();
        Some(transmit)
    }

    fn queued(&self) -> usize {
        self.queued
    }

    fn is_ended(&self) -> bool {
        self.ended
    }

    fn poll_event(&mut self) -> Option<RemoteCommandEvent> {
        self.events.pop_front()
    }

    fn close(&mut self) {
        self.events.clear();
        self.ended = true;
        if self.role == Role::Server && self.complete.is_none() {
            // To a client of channel.k8s.io a normal close is a success.
            return self.send_close(Close::INTERNAL, "no status");
        }
        self.send_close(Close::NORMAL, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
