//! One piece of work under supervision: the work runs in a task of its own, so that a slow model
//! call never blocks a mailbox, and dies with its actor, so that a cancelled run leaves nothing behind.

use std::pin::Pin;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::task::{AbortHandle, JoinError};

use crate::domain::plan::Stimulus;
use crate::orchestrator::run;

/// What a worker does. It is boxed before anybody waits: unboxed, its state would be part of the state of whoever
/// begins it, and be copied with it at every message of a run.
pub(super) type Work = Pin<Box<dyn Future<Output = Stimulus> + Send>>;

/// Begins `work` for a run; what it gives is told to the run.
///
/// # Errors
/// When the actor cannot be spawned.
pub(super) async fn begin(run: &ActorRef<run::Msg>, work: Work) -> Result<ActorId, SpawnErr> {
    let supervisor: ActorCell = run.get_cell();
    let args = Args { run: run.clone(), work };
    Actor::spawn_linked(None, Worker, args, supervisor).await.map(|(worker, _)| worker.get_id())
}

struct Worker;

struct Args {
    run: ActorRef<run::Msg>,
    work: Work,
}

struct State {
    run: ActorRef<run::Msg>,
    /// Ends the work when the actor ends before it.
    _task: AbortOnDrop,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Msg {
    Done(Result<Box<Stimulus>, JoinError>),
}

impl Actor for Worker {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let work = tokio::spawn(args.work);
        let task = AbortOnDrop(work.abort_handle());
        tokio::spawn(async move {
            let _ = myself.cast(Msg::Done(work.await.map(Box::new)));
        });
        Ok(State { run: args.run, _task: task })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let Msg::Done(result) = msg;
        let stimulus = result?; // a panic in the work fails the actor, and its run hears of it
        let _ = state.run.cast(run::Msg::Learn(stimulus));
        myself.stop(None);
        Ok(())
    }
}
