//! Builders out of flags: in flow a builder and what a flag may have said, out comes the builder
//! with it.

/// A builder that is told only what there is.
pub(crate) trait Set: Sized {
    fn set<V>(self, value: Option<V>, set: impl FnOnce(Self, V) -> Self) -> Self {
        match value {
            Some(value) => set(self, value),
            None => self,
        }
    }

    fn set_if(self, yes: bool, set: impl FnOnce(Self) -> Self) -> Self {
        if yes { set(self) } else { self }
    }
}

impl<T> Set for T {}
