//! Signs of life of a SPDY connection: when to ping, and what silence means.
//!
//! In flow the times at which bytes arrived and payload was sent; out come pings to send and
//! verdicts. Any byte is a sign of life, not only the answer to a ping: `moby/spdystream` hands
//! pings to one of five workers in turn, so that one stream that its application does not read
//! can swallow every fifth (`connection.go`, `Serve`).
//!
//! ```text
//!   heard --- ping, `suspect` without a byte ---> suspect --- `silence`, or `stalled` ---> dead
//!     ^                                              |
//!     +------------------- any byte -----------------+
//! ```
//!
//! A suspect connection should get no new streams. It is dead after `silence` if a ping was
//! answered after the last payload; otherwise that payload may be waiting for an application that
//! does not read, behind which `moby/spdystream` answers nothing, and it is given `stalled`.

use std::time::{Duration, Instant};

use crate::{Role, limits, session::later::later};

/// How often to ask a SPDY connection for a sign of life, and how long to wait for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MuxKeepalive {
    /// The time without inbound bytes after which a ping is sent, and between pings.
    pub interval: Duration,
    /// The time without inbound bytes, though a ping is out, after which the connection is
    /// suspect.
    pub suspect: Duration,
    /// The time without inbound bytes, though a ping is out, after which the connection is dead.
    pub silence: Duration,
    /// The same, while payload has been sent of which it is not known that it was read.
    pub stalled: Duration,
}

impl Default for MuxKeepalive {
    fn default() -> Self {
        Self {
            interval: limits::SPDY_KEEPALIVE_INTERVAL,
            suspect: limits::SPDY_SUSPECT,
            silence: limits::SILENCE,
            stalled: limits::SPDY_STALLED,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// A ping with this id.
    Ping(u32),
    Suspect,
    Dead(Duration),
}

#[derive(Debug)]
pub(super) struct Pings {
    config: MuxKeepalive,
    last_inbound: Instant,
    last_ping: Instant,
    last_id: u32,
    /// The last ping before the last payload, while none after it has been answered.
    doubt: Option<u32>,
    suspect: bool,
    held: bool,
}

impl Pings {
    pub(super) fn new(role: Role, config: MuxKeepalive, now: Instant) -> Self {
        Self {
            config,
            last_inbound: now,
            last_ping: now,
            // The first is 1 from clients and 2 from servers (section 2.6.5).
            last_id: match role {
                Role::Client => u32::MAX,
                Role::Server => 0,
            },
            doubt: None,
            suspect: false,
            held: false,
        }
    }

    /// Bytes arrived. Whether that clears a suspicion.
    pub(super) fn inbound(&mut self, now: Instant) -> bool {
        self.last_inbound = now;
        std::mem::take(&mut self.suspect)
    }

    /// Payload goes out.
    pub(super) fn outbound(&mut self) {
        self.doubt = Some(self.last_id);
    }

    pub(super) fn answered(&mut self, id: u32) {
        // Ids are handed out in steps of two and do not come around in the life of a connection.
        if self
            .doubt
            .is_some_and(|before| (1..1 << 31).contains(&id.wrapping_sub(before)))
        {
            self.doubt = None;
        }
    }

    pub(super) fn hold(&mut self, now: Instant, held: bool) {
        if self.held && !held {
            self.last_inbound = now;
        }
        self.held = held;
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    fn ping_at(&self) -> Instant {
        later(self.last_inbound.max(self.last_ping), self.config.interval)
    }

    /// When silence becomes the next worse thing.
    fn verdict_at(&self) -> Option<Instant> {
        let asked = self.last_ping > self.last_inbound && !self.held;
        let after = match (self.suspect, self.doubt) {
            (false, _) => self.config.suspect,
            (true, None) => self.config.silence,
            (true, Some(_)) => self.config.stalled,
        };
        asked.then(|| later(self.last_inbound, after))
    }

    pub(super) fn deadline(&self) -> Instant {
        let ping = self.ping_at();
        self.verdict_at().map_or(ping, |verdict| verdict.min(ping))
    }

    /// What is due at `now`; to be called until it is nothing.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Due {
        if self.verdict_at().is_some_and(|at| at <= now) {
            if self.suspect {
                return Due::Dead(now - self.last_inbound);
            }
            self.suspect = true;
            return Due::Suspect;
        }
        if self.ping_at() <= now {
            self.last_ping = now;
            self.last_id = self.last_id.wrapping_add(2);
            return Due::Ping(self.last_id);
        }
        Due::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::SECOND;

    fn pings(start: Instant) -> Pings {
        let config = MuxKeepalive {
            interval: 10 * SECOND,
            suspect: 25 * SECOND,
            silence: 70 * SECOND,
            stalled: 300 * SECOND,
        };
        Pings::new(Role::Client, config, start)
    }

    /// Runs until `end` without inbound bytes: when the last ping went, the suspicion and the death.
    fn run(pings: &mut Pings, start: Instant, end: u64) -> (u64, Option<u64>, Option<u64>) {
        let (mut ping, mut suspect) = (0, None);
        loop {
            let now = pings.deadline();
            let at = (now - start).as_secs();
            if at > end {
                return (ping, suspect, None);
            }
            match pings.handle_timeout(now) {
                Due::Ping(_) => ping = at,
                Due::Suspect => suspect = Some(at),
                Due::Dead(_) => return (ping, suspect, Some(at)),
                Due::Nothing => panic!("nothing is due at the deadline"),
            }
        }
    }

    #[test]
    fn silence_makes_suspect_and_then_dead() {
        let start = Instant::now();
        assert_eq!(
            run(&mut pings(start), start, 1000),
            (60, Some(25), Some(70))
        );
    }

    #[test]
    fn any_byte_clears_the_suspicion() {
        let start = Instant::now();
        let mut pings = pings(start);
        assert_eq!(run(&mut pings, start, 69), (60, Some(25), None));
        assert!(pings.inbound(start + 69 * SECOND));
        assert!(!pings.is_suspect());
        assert_eq!(run(&mut pings, start, 200), (129, Some(94), Some(139)));
    }

    #[test]
    fn a_stalled_application_is_given_longer() {
        let start = Instant::now();
        let mut pings = pings(start);
        pings.outbound();
        assert_eq!(run(&mut pings, start, 299), (290, Some(25), None));
        // The answer to a ping before the payload proves nothing; that to a later one does.
        pings.inbound(start + 299 * SECOND);
        pings.outbound();
        let before = pings.last_id;
        pings.answered(before);
        assert_eq!(run(&mut pings, start, 390).2, None);
        pings.answered(before + 2);
        assert!(pings.doubt.is_none());
        assert!(run(&mut pings, start, 400).2.is_some());
    }

    #[test]
    fn nothing_is_concluded_while_the_peer_is_held_back() {
        let start = Instant::now();
        let mut pings = pings(start);
        pings.hold(start, true);
        assert_eq!(run(&mut pings, start, 500), (500, None, None));
        pings.hold(start + 500 * SECOND, false);
        assert_eq!(run(&mut pings, start, 2000), (560, Some(525), Some(570)));
    }

    #[test]
    fn ids_have_the_parity_of_the_role() {
        let start = Instant::now();
        for (role, first) in [(Role::Client, 1), (Role::Server, 2)] {
            let mut pings = Pings::new(role, MuxKeepalive::default(), start);
            let due = pings.handle_timeout(pings.deadline());
            assert_eq!(due, Due::Ping(first));
        }
    }
}
