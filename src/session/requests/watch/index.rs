//! Objects by a text that they have: in go keys under it, out come those of one text.

use std::collections::{HashMap, HashSet};

use super::ObjectKey;

#[derive(Debug, Default)]
pub(super) struct Index(HashMap<Box<str>, HashSet<ObjectKey>>);

impl Index {
    pub(super) fn insert(&mut self, text: &str, key: &ObjectKey) {
        match self.0.get_mut(text) {
            Some(keys) => drop(keys.insert(key.clone())),
            None => drop(self.0.insert(text.into(), HashSet::from([key.clone()]))),
        }
    }

    pub(super) fn remove(&mut self, text: &str, key: &ObjectKey) {
        if let Some(keys) = self.0.get_mut(text) {
            keys.remove(key);
            if keys.is_empty() {
                self.0.remove(text);
            }
        }
    }

    pub(super) fn get(&self, text: &str) -> impl Iterator<Item = &ObjectKey> {
        self.0.get(text).into_iter().flatten()
    }
}
