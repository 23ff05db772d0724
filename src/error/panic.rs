//! Panics in tasks of this library's: in flows work, out comes its result, or an error with the words
//! of its panic. Otherwise whoever waits would see nothing, or an end.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
};

#[cfg(feature = "client")]
use super::Result;
use super::{CallerError, Error};

/// Locks, whoever has panicked: no state is wrong for that, since every change of one is made under
/// one lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does work that may panic; of a panic what it said.
pub(crate) fn words<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        text.unwrap_or_else(|| "without a text".to_owned())
    })
}

/// That someone has panicked.
pub(crate) fn panicked(who: &str, message: String) -> Error {
    let who = who.to_owned();
    CallerError::Panicked { who, message }.into()
}

/// Does work, whose panic is an error.
#[cfg(feature = "client")]
pub(crate) fn caught<T>(who: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    words(work).unwrap_or_else(|message| Err(panicked(who, message)))
}

/// The same of a future, which is not polled again after that.
#[cfg(feature = "client")]
pub(crate) async fn caught_in<T>(who: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = Box::pin(work);
    std::future::poll_fn(|cx| match caught(who, || Ok(work.as_mut().poll(cx))) {
        Ok(polled) => polled,
        Err(error) => std::task::Poll::Ready(Err(error)),
    })
    .await
}

/// The same of work that blocks, in a thread of the runtime's, where it begins at once.
#[cfg(feature = "client")]
pub(crate) fn blocking<T: Send + 'static>(
    who: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> impl Future<Output = Result<T>> + Send {
    let done = tokio::task::spawn_blocking(move || caught(who, work));
    // It was not begun where the runtime is shut down.
    async move { done.await.map_err(|_| CallerError::Killed)? }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_blocks_says_who_panicked() {
        let done = blocking("the reading of files", || -> Result<()> {
            panic!("at {}", 7)
        });
        let error = done.await.unwrap_err().to_string();
        assert!(
            error.contains("the reading of files panicked: at 7"),
            "{error}"
        );
        assert_eq!(blocking("nobody", || Ok(3)).await.ok(), Some(3));
    }
}
