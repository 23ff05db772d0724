//! What an answer is: in flow bytes in an encoding, out come objects, or the error that they are.

use bytes::Bytes;

use crate::{
    Error, Result,
    error::{ApiError, PeerError},
    limits,
    wire::{
        status::Status,
        watch::{Decode, Encoding, EventError, Object},
    },
};

pub(crate) fn read<T: Decode>(operation: &str, body: &Bytes) -> Result<T> {
    Answer::new(operation.to_owned(), Encoding::Json, body.clone()).object()
}

pub(crate) struct Answer {
    operation: String,
    object: Object,
}

impl Answer {
    pub(crate) fn new(operation: String, encoding: Encoding, body: Bytes) -> Self {
        let object = Object::new(encoding, body);
        Self { operation, object }
    }

    /// The Status that it is, if it is one; an error if it is one of failure, whatever the code of
    /// HTTP before it.
    pub(crate) fn status(&self) -> Result<Option<Status>> {
        // A Status is short, a list may be long: it is not read twice.
        if self.object.len() > limits::REFUSAL || !self.object.is_status() {
            return Ok(None);
        }
        match self.object.status() {
            Ok(status) if !status.is_success() => {
                Err(Box::new(ApiError::new(&*self.operation, status)).into())
            }
            status => Ok(status.ok()),
        }
    }

    pub(crate) fn object<T: Decode>(&self) -> Result<T> {
        self.status()?;
        let object = self.object.alone().and_then(|()| T::decode(&self.object));
        object.map_err(|error| self.unreadable(error))
    }

    pub(crate) fn unreadable(&self, error: EventError) -> Error {
        let problem = match error {
            EventError::Decode(problem) => problem,
            error => error.to_string(),
        };
        PeerError::answer(&self.operation, problem).into()
    }
}
