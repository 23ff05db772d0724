//! Events to sockets and back: the only tasks, clocks and sockets of this crate.

#[cfg(feature = "client")]
pub(crate) mod http;
pub(crate) mod sync;
pub(crate) mod ws;

/// The time, by the clock that the timers follow: tests that pause tokio's pause the sessions too.
pub(crate) fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// Sockets and timers panic outside of a runtime.
#[cfg(feature = "client")]
pub(crate) fn has_runtime() -> crate::Result<()> {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => Ok(()),
        Err(_) => Err(crate::error::CallerError::NoRuntime.into()),
    }
}

pub use ws::any::AnyWebSocket;
