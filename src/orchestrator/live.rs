//! What is being written right now, for those who watch a run on this node. Hints alone: nothing here is
//! durable, a watcher that is slow misses some, and what was heard of a call that failed was never said.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::{RunId, StepId};

/// How far a watcher may fall behind before it misses something: some seconds of a fast model.
const BACKLOG: usize = 1024;

/// A piece of a draft.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Draft {
    /// The step that it is for.
    pub step: StepId,
    /// The model that writes it.
    pub model: String,
    /// What it is for, as in [`ModelCall::part`](crate::domain::event::ModelCall).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Which call of the attempt: another one begins anew, and what the one before had written is void.
    pub call: u64,
    /// Where in the text of its call the piece begins, in bytes: a gap means that some were missed.
    pub at: usize,
    /// The piece.
    pub text: String,
}

/// Who watches which run.
#[derive(Default)]
pub struct Live {
    watched: Mutex<HashMap<RunId, broadcast::Sender<Draft>>>,
    over: CancellationToken,
}

impl Live {
    /// Watches a run from now on.
    pub fn watch(&self, run: RunId) -> broadcast::Receiver<Draft> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, sender| sender.receiver_count() > 0);
        watched.entry(run).or_insert_with(|| broadcast::Sender::new(BACKLOG)).subscribe()
    }

    /// The way to those who watch a run, if anybody does.
    pub(super) fn watchers(&self, run: RunId) -> Option<broadcast::Sender<Draft>> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.get(&run).filter(|sender| sender.receiver_count() > 0).cloned()
    }

    /// Sends everybody who watches away: the service stops.
    pub fn stop(&self) {
        self.over.cancel();
    }

    /// Cancelled once [`Live::stop`] was called.
    #[must_use]
    pub fn over(&self) -> CancellationToken {
        self.over.clone()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn nobody_writes_for_a_run_that_nobody_watches() {
        let (live, run) = (Live::default(), RunId(Uuid::from_u128(7)));
        assert!(live.watchers(run).is_none());
        let mut watcher = live.watch(run);
        assert!(live.watchers(RunId(Uuid::from_u128(8))).is_none());
        let draft =
            Draft { step: "a".into(), model: "m".into(), part: None, call: 1, at: 0, text: "Hello".into() };
        live.watchers(run).unwrap().send(draft.clone()).unwrap();
        assert_eq!(watcher.recv().await.unwrap(), draft);
        drop(watcher);
        assert!(live.watchers(run).is_none());
    }
}
