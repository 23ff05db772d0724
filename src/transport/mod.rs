//! Events to sockets and back: the only tasks, clocks and sockets of this crate.

#[cfg(feature = "client")]
pub(crate) mod http;
pub(crate) mod sync;
pub(crate) mod ws;

/// The time, by the clock that the timers follow: tests that pause tokio's pause the sessions too.
pub(crate) fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// The runtime, without which sockets and timers panic.
#[cfg(feature = "client")]
pub(crate) fn runtime() -> crate::Result<tokio::runtime::Handle> {
    tokio::runtime::Handle::try_current().map_err(|_| crate::error::CallerError::NoRuntime.into())
}

pub use ws::any::AnyWebSocket;
