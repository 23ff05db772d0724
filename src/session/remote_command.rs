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

mod inbound;

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{
    KeepaliveConfig, Message, Opcode, Session, Subprotocol, Transmit,
    link::{Link, of_link},
};
use crate::{
    Role,
    error::{CallerError, Error, PeerError},
    limits,
    wire::{
        channel::{self, Channel, Encoding},
        resize::{ResizeDecoder, TerminalSize},
        status::Status,
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

/// Which streams a session has; [`RemoteCommand`] has an example.
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
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// let output = client.pod("default", "web-0").exec(["cat"]).input("all of it").output().await?;
/// assert!(output.status.input_at_exit().is_whole());
/// # Ok(())
/// # });
/// ```
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
///
/// ```
/// use kubewire::{
///     Role,
///     session::{
///         RemoteCommand, Session as _, Subprotocol,
///         remote_command::{RemoteCommandEvent, Streams},
///     },
///     wire::{channel::Channel, status::Status},
/// };
/// use std::time::Instant;
///
/// let (now, v5) = (Instant::now(), Subprotocol::V5);
/// let streams = Streams { stdout: true, ..Streams::default() };
/// let mut server = RemoteCommand::new(Role::Server, v5, streams, Default::default(), now);
/// let mut client = RemoteCommand::new(Role::Client, v5, streams, Default::default(), now);
/// server.write(now, Channel::Stdout, "hello".into())?;
/// server.exit(now, &Status::success())?;
/// while let Some(transmit) = server.poll_transmit() {
///     client.handle_message(now, transmit.to_message());
/// }
/// let events: Vec<_> = std::iter::from_fn(|| client.poll_event()).collect();
/// assert!(matches!(&events[0], RemoteCommandEvent::Data(Channel::Stdout, bytes) if bytes == "hello"));
/// assert!(matches!(&events[1], RemoteCommandEvent::Status(status) if status.is_success()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
            true => Some(status.to_message()),
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

    fn fail(&mut self, error: PeerError) {
        self.link.fail(&error);
        let how = self.verdict(Some(error.into()));
        self.end(how);
    }
}

impl Session for RemoteCommand {
    type Event = RemoteCommandEvent;

    of_link!(handle_activity handle_hold poll_transmit queued is_ended poll_event);

    #[inline]
    fn handle_message(&mut self, now: Instant, message: Message) {
        if let Some(event) = self.take(now, message) {
            self.events.push_back(event);
        }
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

    fn handle_end(&mut self, lost: Option<Error>) {
        if !self.link.is_ended() {
            self.link.handle_end(lost.as_ref());
            let how = self.verdict(lost);
            self.end(how);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.link.is_ended() {
            return;
        }
        if self.grace().is_some_and(|at| at <= now) {
            self.link.leave(true);
            let late = Error::late("closing after the status", limits::CLOSE_GRACE);
            let how = self.verdict(Some(late));
            return self.end(how);
        }
        if let Some(how) = self.link.handle_timeout(now) {
            self.end(how);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.link.is_ended() {
            return None;
        }
        let times = [self.grace(), self.link.poll_timeout()];
        times.into_iter().flatten().min()
    }

    fn close(&mut self) {
        self.events.clear();
        self.link
            .leave(matches!(self.state, State::Complete { .. }));
    }
}

#[cfg(test)]
mod tests;
