//! Builders out of flags: in flow a builder and what a flag may have said, out comes the builder
//! with it.

use std::ffi::OsStr;

/// A builder that is told only what there is.
pub(crate) trait Set: Sized {
    fn set<V>(self, value: Option<V>, set: impl FnOnce(Self, V) -> Self) -> Self {
        match value {
            Some(value) => set(self, value),
            None => self,
        }
    }

    /// To kubectl, what is empty is not there.
    fn set_given<V: AsRef<OsStr>>(
        self,
        value: Option<V>,
        set: impl FnOnce(Self, V) -> Self,
    ) -> Self {
        self.set(value.filter(|value| !value.as_ref().is_empty()), set)
    }

    fn set_if(self, yes: bool, set: impl FnOnce(Self) -> Self) -> Self {
        if yes { set(self) } else { self }
    }
}

impl<T> Set for T {}
