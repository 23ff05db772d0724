//! Random schedules of faults, over real sockets and in virtual time: whatever happens to answers
//! and connections, a result is complete and right, or an error says that the connection was lost.
//! What goes on after a loss, a mirror or a followed log, ends as if nothing had been.
//!
//! Schedule N is made from the number N. Those with an even N run a short session and cut or stall
//! it at one byte, so that 10,000 of them try every byte; the others choose the session as well.
//! `KUBEWIRE_SCHEDULES` says how many there are for each verb (10,000 in release builds, 300 in
//! others), `KUBEWIRE_SEED` runs one alone.

#![cfg(all(feature = "testing", feature = "copy"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod harness;
mod proxy;
mod requests;
mod sessions;
