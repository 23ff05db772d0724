//! Panics of the caller's code in a task of ours: in flows work, out comes its result, or an error
//! that says who panicked. Otherwise whoever waits would see nothing, or an end.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use crate::{Result, error::CallerError};

/// Does work, whose panic is an error. It is not polled again after that.
pub(super) async fn caught<T>(who: String, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = Box::pin(work);
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        polled.unwrap_or_else(|panic| {
            let (who, message) = (who.clone(), message(&*panic));
            Poll::Ready(Err(CallerError::Panicked { who, message }.into()))
        })
    })
    .await
}

/// What a panic said.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a text".to_owned())
}
