//! Signs of life: when to ping, and when silence means that the peer is gone.
//!
//! In flow the times at which bytes arrived, input was sent and the peer was held back; out come
//! pings to send and the verdict. Time is handed in.
//!
//! A missing pong proves nothing by itself. A server whose process does not read its stdin blocks
//! on that pipe and reads no further message, pings included (`wsstream/conn.go` writes to an
//! `io.Pipe`); and a peer that this side holds back cannot be heard. So silence is fatal only while
//! every input that was sent is known to have been read, because a later ping was answered, and
//! while nothing is held back. In doubt it takes much longer.
//!
//! ```text
//!   known ---- input sent ----> in doubt        known: `silence` without a byte is death
//!     ^                            |            in doubt: `unread` without a byte is
//!     +-- a later ping answered ---+            held: pings go on, no deadline
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Opcode, Transmit, later::later};
use crate::limits;

/// How often to ask for a sign of life, and how long to wait for one.
///
/// ```
/// use kubewire::KeepaliveConfig;
/// use std::time::Duration;
///
/// // For a load balancer that drops what is idle for 15 s.
/// let keepalive = KeepaliveConfig { interval: Duration::from_secs(10), ..Default::default() };
/// assert!(keepalive.silence > keepalive.interval);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepaliveConfig {
    /// The time without inbound bytes after which a ping is sent, and between pings. Load
    /// balancers drop connections that idle for a minute or more.
    pub interval: Duration,
    /// The time without inbound bytes, though a ping is out, after which the peer is dead.
    pub silence: Duration,
    /// The same while it is not known that the peer has read all input, because its process may
    /// leave it unread and the peer answers no pings meanwhile. Not less than `silence`. Of a
    /// network that is gone the operating system tells earlier, for nobody confirms the input: on
    /// Linux after about 15 minutes.
    pub unread: Duration,
    /// The time without outbound messages after which an empty one is sent: servers end a session
    /// that has idled for four hours, and to them a ping is no message.
    pub refresh: Duration,
}

impl Default for KeepaliveConfig {
    fn default() -> Self {
        Self {
            interval: limits::KEEPALIVE_INTERVAL,
            silence: limits::SILENCE,
            unread: limits::UNREAD,
            refresh: limits::IDLE_REFRESH,
        }
    }
}

/// What is due of a [`Keepalive`].
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// A message to send.
    Send(Transmit),
    /// The peer has been silent for this long and must be taken for dead.
    Dead(Duration),
}

/// The state of one connection's signs of life.
///
/// ```
/// use kubewire::session::{Due, Keepalive, KeepaliveConfig};
/// use std::time::Instant;
///
/// let (config, now) = (KeepaliveConfig::default(), Instant::now());
/// let mut keepalive = Keepalive::new(config, now);
/// assert_eq!(keepalive.handle_timeout(now), Due::Nothing);
/// assert!(matches!(keepalive.handle_timeout(now + config.interval), Due::Send(_)));
/// ```
#[derive(Debug)]
pub struct Keepalive {
    config: KeepaliveConfig,
    last_inbound: Instant,
    last_ping: Instant,
    last_message: Instant,
    /// The number of the last ping, which is its payload.
    pings: u64,
    /// The last ping before the last input, while it is in doubt whether that has been read.
    doubt: Option<u64>,
    held: bool,
}

impl Keepalive {
    /// Begins at `now`.
    pub fn new(config: KeepaliveConfig, now: Instant) -> Self {
        Self {
            config,
            last_inbound: now,
            last_ping: now,
            last_message: now,
            pings: 0,
            doubt: None,
            held: false,
        }
    }

    /// Bytes arrived.
    #[inline]
    pub fn inbound(&mut self, now: Instant) {
        self.last_inbound = now;
    }

    /// A pong arrived.
    pub fn pong(&mut self, now: Instant, payload: &[u8]) {
        self.inbound(now);
        if let Ok(number) = payload.try_into().map(u64::from_be_bytes)
            && self.doubt.is_some_and(|before| number > before)
        {
            self.doubt = None;
        }
    }

    /// A message was sent that the peer reads at once: a size, the end of input.
    #[inline]
    pub fn outbound(&mut self, now: Instant) {
        self.last_message = now;
    }

    /// Input was sent that the peer may take long to read.
    #[inline]
    pub fn input(&mut self, now: Instant) {
        self.outbound(now);
        self.doubt = Some(self.pings);
    }

    /// The peer is held back, or no longer.
    pub fn hold(&mut self, now: Instant, held: bool) {
        if self.held && !held {
            // What queued up meanwhile arrives only now.
            self.last_inbound = now;
        }
        self.held = held;
    }

    fn ping_at(&self) -> Instant {
        later(self.last_inbound.max(self.last_ping), self.config.interval)
    }

    fn dead_at(&self) -> Option<Instant> {
        let asked = self.last_ping > self.last_inbound;
        let silence = match self.doubt {
            None => self.config.silence,
            Some(_) => self.config.unread.max(self.config.silence),
        };
        (asked && !self.held).then(|| later(self.last_inbound, silence))
    }

    fn refresh_at(&self) -> Instant {
        later(self.last_message, self.config.refresh)
    }

    /// When the peer was last heard, or let go; `None` while it is held back.
    pub(super) fn heard(&self) -> Option<Instant> {
        (!self.held).then_some(self.last_inbound)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn deadline(&self) -> Instant {
        let next = self.ping_at().min(self.refresh_at());
        self.dead_at().map_or(next, |dead| dead.min(next))
    }

    /// What is due at `now`; to be called until it is [`Due::Nothing`].
    pub fn handle_timeout(&mut self, now: Instant) -> Due {
        if self.dead_at().is_some_and(|dead| dead <= now) {
            return Due::Dead(now - self.last_inbound);
        }
        if self.refresh_at() <= now {
            self.last_message = now;
            return Due::Send(Transmit::new(Opcode::Binary, Bytes::new()));
        }
        if self.ping_at() <= now {
            self.last_ping = now;
            self.pings += 1;
            let payload = self.pings.to_be_bytes().to_vec();
            return Due::Send(Transmit::new(Opcode::Ping, payload));
        }
        Due::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::SECOND;

    fn config() -> KeepaliveConfig {
        KeepaliveConfig {
            interval: 20 * SECOND,
            silence: 70 * SECOND,
            unread: 14_400 * SECOND,
            refresh: 1800 * SECOND,
        }
    }

    /// Runs until `end` without inbound bytes: the pings sent, and the verdict.
    fn run(alive: &mut Keepalive, from: Instant, end: Duration) -> (Vec<u64>, Option<Duration>) {
        let mut pings = Vec::new();
        loop {
            let now = alive.deadline();
            if now > from + end {
                return (pings, None);
            }
            match alive.handle_timeout(now) {
                Due::Send(Transmit {
                    opcode: Opcode::Ping,
                    ..
                }) => {
                    pings.push((now - from).as_secs());
                }
                Due::Send(_) => {}
                Due::Dead(silent) => return (pings, Some(silent)),
                Due::Nothing => panic!("nothing is due at the deadline"),
            }
        }
    }

    #[test]
    fn a_duration_without_bound_is_never() {
        let start = Instant::now();
        let never = KeepaliveConfig {
            interval: Duration::MAX,
            silence: Duration::MAX,
            unread: Duration::MAX,
            refresh: Duration::MAX,
        };
        let mut alive = Keepalive::new(never, start);
        let year = start + 365 * 86_400 * SECOND;
        assert_eq!(alive.handle_timeout(year), Due::Nothing);
        assert!(alive.deadline() > year);
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_dead() {
        let start = Instant::now();
        let mut alive = Keepalive::new(config(), start);
        assert_eq!(
            run(&mut alive, start, 100 * SECOND),
            (vec![20, 40, 60], Some(70 * SECOND))
        );
    }

    #[test]
    fn any_byte_is_a_sign_of_life() {
        let start = Instant::now();
        let mut alive = Keepalive::new(config(), start);
        assert_eq!(run(&mut alive, start, 65 * SECOND).1, None);
        alive.inbound(start + 65 * SECOND);
        let (pings, verdict) = run(&mut alive, start, 200 * SECOND);
        assert_eq!((pings, verdict), (vec![85, 105, 125], Some(70 * SECOND)));
    }

    #[test]
    fn silence_is_longer_while_input_may_be_unread() {
        let start = Instant::now();
        let mut alive = Keepalive::new(config(), start);
        alive.input(start);
        let (pings, verdict) = run(&mut alive, start, 1000 * SECOND);
        assert_eq!((pings.len(), verdict), (50, None));
        // The answer to a ping that was sent before the input proves nothing,
        alive.input(start + 1000 * SECOND);
        alive.pong(start + 1001 * SECOND, &50u64.to_be_bytes());
        assert_eq!(run(&mut alive, start, 1500 * SECOND).1, None);
        // that to a later one does.
        alive.pong(start + 1501 * SECOND, &51u64.to_be_bytes());
        assert_eq!(run(&mut alive, start, 2000 * SECOND).1, Some(70 * SECOND));
        let mut alive = Keepalive::new(config(), start);
        alive.input(start);
        let (_, verdict) = run(&mut alive, start, 20_000 * SECOND);
        assert_eq!(verdict, Some(14_400 * SECOND));
    }

    #[test]
    fn no_deadline_runs_while_the_peer_is_held_back() {
        let start = Instant::now();
        let mut alive = Keepalive::new(config(), start);
        alive.hold(start + SECOND, true);
        assert_eq!(run(&mut alive, start, 500 * SECOND).1, None);
        alive.hold(start + 500 * SECOND, false);
        assert_eq!(run(&mut alive, start, 569 * SECOND).1, None);
        assert_eq!(run(&mut alive, start, 600 * SECOND).1, Some(70 * SECOND));
    }

    #[test]
    fn an_idle_session_is_refreshed_before_four_hours() {
        let start = Instant::now();
        let mut alive = Keepalive::new(config(), start);
        let mut messages = 0;
        while alive.deadline() < start + 14_400 * SECOND {
            let now = alive.deadline();
            match alive.handle_timeout(now) {
                Due::Send(Transmit {
                    opcode: Opcode::Binary,
                    payload,
                    ..
                }) => {
                    assert!(payload.is_empty());
                    messages += 1;
                }
                Due::Send(ping) => alive.pong(now, &ping.payload),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(messages, 7);
    }
}
