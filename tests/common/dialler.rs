//! A dialler that panics: in flow which of its calls do, out comes a configuration with it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use kubewire::Config;
use tokio::net::TcpStream;

/// What it says.
pub(crate) const WORDS: &str = "it is meant to";

/// Its calls of these numbers, counted from 0, panic.
pub(crate) fn dialler_that_panics(config: Config, at: &'static [usize]) -> Config {
    let calls = Arc::new(AtomicUsize::new(0));
    config.with_dialer(move |host, port| {
        let call = calls.fetch_add(1, SeqCst);
        async move {
            assert!(!at.contains(&call), "{WORDS}");
            TcpStream::connect((host, port)).await
        }
    })
}
