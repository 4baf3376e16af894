//! Things worked out once per digest: compiled schemas, the vectors of an agent's examples.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::digest::Digest;

/// Entries kept at most. A workspace has tens of agents; when editing them has left this many
/// behind, starting over costs a few milliseconds each.
const KEPT: usize = 256;

/// A bounded map from a digest to something immutable.
pub(crate) struct Memo<T>(Mutex<HashMap<Digest, Arc<T>>>);

impl<T> Memo<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    pub(crate) fn keep(&self, digest: Digest, value: T) -> Arc<T> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= KEPT {
            map.clear();
        }
        let value = Arc::new(value);
        map.insert(digest, Arc::clone(&value));
        value
    }
}
