//! Credentials that end and are issued anew: one issue at a time, and nobody who holds a valid
//! credential waits for it.
//!
//! In flow the outcomes of an [`Issuer`] and what the server refuses; out come [`Issued`]
//! credentials.
//!
//! ```text
//!            issued                  a fifth of its life is left
//!   none ─────────────▶ valid ─────────────────────────────────▶ valid, renewed behind it
//!    ▲                    │ the server refuses it, or its time is over      │
//!    └── all who need it wait for one issue ◀──────────────────────────────┘
//! ```

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use secrecy::ExposeSecret;
use tokio::{sync::watch, time::Instant};

use super::{exec::Plugin, oidc::Provider};
use crate::{
    Result,
    config::Identity,
    error::panic::{caught_in, lock},
    limits,
};

pub(super) enum Issuer {
    Exec(Plugin),
    Oidc(Provider),
    #[cfg(test)]
    Panics(Arc<AtomicU64>),
}

impl Issuer {
    async fn issue(&self) -> Result<Issued> {
        match self {
            Self::Exec(exec) => exec.issue().await,
            Self::Oidc(oidc) => oidc.issue().await,
            #[cfg(test)]
            Self::Panics(calls) => {
                calls.fetch_add(1, Ordering::Relaxed);
                panic!("an issuer that panics")
            }
        }
    }
}

pub(crate) struct Issued {
    /// The `Authorization` header.
    pub(crate) header: Option<HeaderValue>,
    /// Certificate chain and private key, inline.
    pub(crate) identity: Option<Identity>,
    /// When it ends, by this machine's clock.
    pub(crate) expires: Option<SystemTime>,
    /// Whether another may be issued while this one is in use. Not if that asks the user.
    pub(crate) early: bool,
}

impl Issued {
    fn same_identity(&self, other: &Self) -> bool {
        let pem = |identity: &Option<Identity>| {
            let (certificate, key) = identity.as_ref()?;
            Some((certificate.read().ok()?, key.read().ok()?))
        };
        match (pem(&self.identity), pem(&other.identity)) {
            (Some(a), Some(b)) => {
                a.0.expose_secret() == b.0.expose_secret()
                    && a.1.expose_secret() == b.1.expose_secret()
            }
            (None, None) => true,
            _ => false,
        }
    }

    fn same_as(&self, other: &Self) -> bool {
        self.header == other.header && self.same_identity(other)
    }
}

pub(super) struct Renewal {
    issuer: Issuer,
    state: Mutex<State>,
    generation: AtomicU64,
}

type Outcome = Option<Result<Arc<Issued>>>;

#[derive(Default)]
struct State {
    held: Option<Held>,
    flight: Option<watch::Receiver<Outcome>>,
}

struct Held {
    issued: Arc<Issued>,
    since: Instant,
    /// When to issue another while this one is used.
    early: Option<Instant>,
    /// The end of it. The system's clock counts while the machine sleeps, this one does not.
    until: Option<Instant>,
    refused: bool,
    /// It was issued because the same one was refused: another issue will not help soon.
    in_vain: bool,
}

impl Held {
    fn new(issued: Arc<Issued>) -> Self {
        let since = Instant::now();
        let life = issued.expires.map(|expires| {
            expires
                .duration_since(SystemTime::now())
                .unwrap_or(Duration::ZERO)
        });
        let before = |life: Duration| (life / 5).min(limits::RENEW_BEFORE);
        Self {
            early: life
                .filter(|_| issued.early)
                .and_then(|life| since.checked_add(life - before(life))),
            until: life.and_then(|life| since.checked_add(life)),
            issued,
            since,
            refused: false,
            in_vain: false,
        }
    }

    fn valid(&self, now: Instant) -> bool {
        !self.refused
            && self.until.is_none_or(|until| now < until)
            && self
                .issued
                .expires
                .is_none_or(|expires| SystemTime::now() < expires)
    }
}

impl Renewal {
    pub(super) fn new(issuer: Issuer) -> Arc<Self> {
        Arc::new(Self {
            issuer,
            state: Mutex::default(),
            generation: AtomicU64::new(0),
        })
    }

    /// A credential that is valid, or as new as can be had.
    ///
    /// Dropping the future changes nothing: an issue that is under way goes on for the others.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Arc<Issued>> {
        loop {
            let mut flight = {
                let mut state = lock(&self.state);
                let now = Instant::now();
                match &state.held {
                    Some(held) if held.valid(now) => {
                        let issued = Arc::clone(&held.issued);
                        if held.early.is_some_and(|early| early <= now) {
                            self.start(&mut state);
                        }
                        return Ok(issued);
                    }
                    _ => self.start(&mut state),
                }
            };
            // An error here means that the runtime of the caller that started it has ended.
            if let Ok(outcome) = flight.wait_for(Option::is_some).await
                && let Some(outcome) = outcome.clone()
            {
                return outcome;
            }
        }
    }

    /// Takes note that the server refused a credential. Whether [`get`](Self::get) may now give
    /// another.
    pub(super) fn refuse(&self, sent: Option<&HeaderValue>) -> bool {
        let mut state = lock(&self.state);
        let Some(held) = &mut state.held else {
            return true;
        };
        if held.issued.header.as_ref() != sent {
            return true;
        }
        let young = held.since.elapsed() < limits::RENEW_AGAIN;
        if held.in_vain && young {
            return false;
        }
        // Only its connection tells whether a certificate was the old one.
        held.refused |= held.issued.identity.is_none() || !young;
        true
    }

    /// A number that changes with the certificate.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn start(self: &Arc<Self>, state: &mut State) -> watch::Receiver<Outcome> {
        if let Some(flight) = &state.flight
            && flight.has_changed().is_ok()
        {
            return flight.clone();
        }
        let (report, flight) = watch::channel(None);
        state.flight = Some(flight.clone());
        let renewal = Arc::clone(self);
        // Where the runtime ends under it, whoever waits starts another on its own.
        tokio::spawn(async move {
            let issue = renewal.issuer.issue();
            let issued = caught_in("the renewal of the credentials", issue).await;
            let outcome = issued.map(Arc::new);
            renewal.land(&outcome);
            report.send_replace(Some(outcome));
        });
        flight
    }

    fn land(&self, outcome: &Result<Arc<Issued>>) {
        let mut state = lock(&self.state);
        state.flight = None;
        match outcome {
            Ok(issued) => {
                let mut held = Held::new(Arc::clone(issued));
                held.in_vain = state
                    .held
                    .as_ref()
                    .is_some_and(|old| old.refused && old.issued.same_as(issued));
                let old = state.held.replace(held);
                if old.is_some_and(|old| !old.issued.same_identity(issued)) {
                    self.generation.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                if let Some(held) = &mut state.held
                    && held.valid(Instant::now())
                {
                    tracing::warn!(%error, "the credentials cannot be renewed yet");
                    held.early = Instant::now().checked_add(limits::RENEW_AGAIN);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_once() {
        let calls = Arc::<AtomicU64>::default();
        let renewal = Renewal::new(Issuer::Panics(Arc::clone(&calls)));
        for asked in 1..=2 {
            let error = renewal.get().await.err().expect("an error");
            assert!(error.to_string().contains("panicked"), "{error}");
            assert_eq!(calls.load(Ordering::Relaxed), asked);
        }
    }
}
