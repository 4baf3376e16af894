//! Giving runs up: in order, when the node stops, and all at once, when its lease is lost.

use std::time::Duration;

use futures_util::future::join_all;
use ractor::{ActorRef, RpcReplyPort};

use super::{Msg, State, Supervisor};
use crate::domain::ids::RunId;
use crate::orchestrator::run;

/// How long killing a run's actor may take: it dies at its next await.
const KILL: Duration = Duration::from_secs(4);

impl Supervisor {
    /// Stops taking runs; those in motion come to rest.
    pub(super) fn close(&self, state: &mut State) {
        state.closed = true;
        for actor in state.runs.values() {
            let _ = actor.cast(run::Msg::Rest);
        }
    }

    /// Gives a run back that came to rest while the node is stopping, so that another one goes on with it
    /// at once. Where the run has ended or sleeps, it has no owner any more and nothing happens.
    pub(super) fn give_back_at_rest(&self, myself: &ActorRef<Msg>, state: &mut State, run: RunId) {
        state.resting.push(run);
        self.release_resting(myself, state);
    }

    /// Those that come to rest while a statement is under way go together with the next.
    fn release_resting(&self, myself: &ActorRef<Msg>, state: &mut State) {
        if state.releasing > 0 || state.resting.is_empty() {
            return;
        }
        let runs = std::mem::take(&mut state.resting);
        state.releasing = runs.len();
        let (engine, myself) = (self.engine.clone(), myself.clone());
        tokio::spawn(async move {
            match engine.store.release_all(engine.node(), &runs).await {
                Ok(()) => engine.wakeups.due(),
                Err(error) => {
                    tracing::warn!(%error, "runs could not be given back; the end of the lease frees them")
                }
            }
            let _ = myself.cast(Msg::Released);
        });
    }

    pub(super) fn released(&self, myself: &ActorRef<Msg>, state: &mut State) {
        state.releasing = 0;
        self.release_resting(myself, state);
    }

    /// Kills every run in motion with its workers. What the supervisor knew of them is void: what asks
    /// from now on is told about runs of another lease.
    pub(super) fn abandon(&self, state: &mut State, done: RpcReplyPort<()>) {
        let closed = state.closed;
        let State { runs, timer, claiming, .. } = std::mem::take(state);
        *state = State { timer, claiming, closed, ..State::default() };
        tokio::spawn(async move {
            let kills = runs.values().map(|actor| actor.kill_and_wait(Some(KILL)));
            if join_all(kills).await.iter().any(Result::is_err) {
                tracing::warn!("a run's actor did not end in time");
            }
            let _ = done.send(()); // gone only when it did not want to wait that long
        });
    }
}
