//! The supervisor: admits runs, claims those that are due, and deals with crashes, so that one
//! poisonous run never takes others down. It owns no I/O: every question to the database runs in a
//! task and comes back as a message.

mod handover;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::domain::ids::{NodeId, RunId};
use crate::domain::plan::Stimulus;
use crate::orchestrator::engine::Engine;
use crate::orchestrator::flow::{self, Fairness, Seats, TAKE, Taken};
use crate::orchestrator::park;
use crate::orchestrator::run::{self, Begin, RunActor};
use crate::store::StoreError;
use crate::store::journal::read::Loaded;
use crate::store::runs::Inbox;
use crate::store::wakeup::Hint;
use crate::store::workflows::VersionRow;

/// Every how many polls the node looks for runs it owns but does not move: a rare fault, a cheap look.
const SWEEP_EVERY: u32 = 5;

/// For how long a run must have been owned without being in motion before it is given back: what is on
/// its way from a claim to its actor is spared.
const SUSPICION: Duration = Duration::from_secs(5);

/// How far ahead a claim looks for the next run that is due: beyond the next tick of the clock, which
/// looks again, and no further than [`run::NAP`], within which runs do not fall asleep at all.
const HORIZON: Duration = Duration::from_secs(2);

/// Runs that are taken by name at once: one alone gains a millisecond, many would cost a statement each.
const NAMED: usize = 4;

/// What the supervisor is told.
pub enum Msg {
    /// A run was opened on this node; it has a seat until it is in motion.
    Opened(Box<Begin>, Seats),
    /// A run was opened that has to wait for its turn, which may be at once.
    Queued,
    /// Something may be due; about this run, if one is named.
    Wake(Option<RunId>),
    /// What another node tells.
    Heard(Hint),
    /// Runs this node has taken, under that lease.
    Claimed(Box<Taken>),
    /// How long until the next sleeping run is due, if that is soon.
    NextDue(Option<Duration>),
    /// Runs that name this node as their owner, and whether their inbox holds something.
    Owned(NodeId, Result<Vec<(RunId, bool)>, StoreError>),
    /// A run that was named, taken and read; `None` when it is not to be taken.
    Taken(RunId, NodeId, Result<Option<Box<Found>>, StoreError>),
    /// A taken run, read.
    Loaded(RunId, NodeId, Result<Box<Found>, StoreError>),
    /// The owner holds something, or lets it go.
    PausesChanged,
    /// Runs were given back.
    Released,
    /// Take nothing more, and give back what nothing is under way for.
    Close,
    /// Kill whatever is in motion, and say when it is dead.
    Abandon(RpcReplyPort<()>),
}

/// A run as it was read from the database.
pub struct Found {
    loaded: Loaded,
    version: Arc<VersionRow>,
    inbox: Inbox,
}

/// The supervisor of all runs of a node.
pub struct Supervisor {
    /// What the actors share.
    pub engine: Arc<Engine>,
}

/// What the supervisor keeps in mind; all of it can be found in the database again.
#[derive(Default)]
pub struct State {
    runs: HashMap<RunId, ActorRef<run::Msg>>,
    /// The run of each actor, and whether its end gives a slot back.
    by_actor: HashMap<ActorId, (RunId, bool)>,
    /// Runs that are taken and not in motion yet.
    loading: HashSet<RunId>,
    /// Runs that are being taken by name.
    named: HashSet<RunId>,
    /// Runs that got a hint while they were read, or while their actor may have been on its way out.
    hinted: HashSet<RunId>,
    /// Runs that this node owns without having them in motion, and since when that is known.
    suspects: HashMap<RunId, Instant>,
    /// Hints since the last sweep.
    polls: u32,
    /// A claim is under way.
    claiming: bool,
    /// Another claim is wanted once it is done.
    claim_again: bool,
    /// More was there to be claimed than there was room for.
    more: bool,
    fairness: Fairness,
    /// Wakes this node when the next sleeping run is due: one timer, however many sleep.
    timer: Option<AbortHandle>,
    closed: bool,
    /// Runs to give back, once this node is closed.
    resting: Vec<RunId>,
    /// Giving back is under way for that many.
    releasing: usize,
}

impl State {
    fn in_motion(&self) -> usize {
        self.runs.len() + self.loading.len() + self.named.len() + self.resting.len() + self.releasing
    }
}

impl Actor for Supervisor {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        Ok(State::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Opened(begin, seat) => {
                self.begin(&myself, state, *begin).await;
                self.engine.in_motion.store(state.in_motion(), Ordering::Relaxed);
                drop(seat); // only now, so that the room is never counted as free in between
            }
            Msg::Queued => {
                self.engine.gate.somebody_waits();
                self.claim(&myself, state);
            }
            Msg::Wake(run) => self.wake(&myself, state, run),
            Msg::Heard(hint) => self.heard(&myself, state, hint),
            Msg::Owned(node, owned) => self.sweep(&myself, state, node, owned),
            Msg::Claimed(taken) => self.claimed(&myself, state, *taken),
            Msg::NextDue(pause) => self.set_timer(&myself, state, pause),
            Msg::Taken(run, node, taken) => self.taken(&myself, state, run, node, taken).await,
            Msg::Loaded(run, node, loaded) => self.loaded(&myself, state, run, node, loaded).await,
            Msg::Released => self.released(&myself, state),
            Msg::Close => self.close(state),
            Msg::Abandon(done) => self.abandon(state, done),
            Msg::PausesChanged => self.look_again(&myself, state),
        }
        self.engine.in_motion.store(state.in_motion(), Ordering::Relaxed);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, _, _) => self.ended(&myself, state, who.get_id(), None),
            SupervisionEvent::ActorFailed(who, error) => {
                self.ended(&myself, state, who.get_id(), Some(error.to_string()));
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        self.engine.in_motion.store(state.in_motion(), Ordering::Relaxed);
        Ok(())
    }
}

impl Supervisor {
    async fn begin(&self, myself: &ActorRef<Msg>, state: &mut State, begin: Begin) {
        let (run, node) = (begin.loaded.run.id, begin.node);
        let slot = begin.version.version.flow.concurrency.is_some();
        if !self.engine.lease.is(node) {
            return; // taken under a lease that was lost meanwhile: it is free again
        }
        if state.closed {
            return self.give_back_at_rest(myself, state, run);
        }
        match Actor::spawn_linked(None, RunActor, begin, myself.get_cell()).await {
            Ok((actor, _)) => {
                if state.hinted.contains(&run) {
                    let _ = actor.cast(run::Msg::Listen);
                }
                state.by_actor.insert(actor.get_id(), (run, slot));
                state.runs.insert(run, actor);
            }
            Err(error) => self.crashed(myself, node, run, error.to_string()),
        }
    }

    fn wake(&self, myself: &ActorRef<Msg>, state: &mut State, run: Option<RunId>) {
        match run {
            Some(run) if self.listen(state, run) => {}
            Some(run) if self.take(myself, state, run) => return,
            Some(run) => self.engine.wakeups.told(run), // it may be in motion elsewhere
            None => {
                state.polls += 1;
                if state.polls >= SWEEP_EVERY {
                    self.look_after_own(myself, state);
                }
            }
        }
        self.claim(myself, state);
    }

    /// Every run looks anew whether it is held.
    fn look_again(&self, myself: &ActorRef<Msg>, state: &mut State) {
        for actor in state.runs.values() {
            let _ = actor.cast(run::Msg::Learn(Box::new(Stimulus::Tick)));
        }
        self.claim(myself, state);
    }

    fn heard(&self, myself: &ActorRef<Msg>, state: &mut State, hint: Hint) {
        for run in hint.runs {
            self.listen(state, run);
        }
        if hint.others {
            self.look_after_own(myself, state);
        }
        self.claim(myself, state);
    }

    /// Lets a run hear what it was told, if it is in motion here or about to be.
    fn listen(&self, state: &mut State, run: RunId) -> bool {
        let Some(actor) = state.runs.get(&run) else {
            let comes = state.loading.contains(&run) || state.named.contains(&run);
            if comes {
                state.hinted.insert(run);
            }
            return comes;
        };
        state.hinted.insert(run);
        actor.cast(run::Msg::Listen).is_ok()
    }

    fn look_after_own(&self, myself: &ActorRef<Msg>, state: &mut State) {
        state.polls = 0;
        let (engine, myself) = (self.engine.clone(), myself.clone());
        tokio::spawn(async move {
            let node = engine.node();
            let _ = myself.cast(Msg::Owned(node, engine.store.runs_of(node).await));
        });
    }

    /// Gives back what this node owns but has not moved for a while: its answer was lost, or loading it
    /// failed. Those in motion hear what they were told while the hint was lost.
    fn sweep(
        &self,
        myself: &ActorRef<Msg>,
        state: &mut State,
        node: NodeId,
        owned: Result<Vec<(RunId, bool)>, StoreError>,
    ) {
        let Ok(owned) = owned else { return };
        if !self.engine.lease.is(node) {
            return;
        }
        let before = std::mem::take(&mut state.suspects);
        for (run, was_told) in owned {
            match state.runs.contains_key(&run) {
                true if was_told => drop(self.listen(state, run)),
                true => {}
                false => {
                    let since = before.get(&run).copied().unwrap_or_else(Instant::now);
                    state.suspects.insert(run, since);
                }
            }
        }
        let lost: Vec<RunId> =
            state.suspects.extract_if(|_, since| since.elapsed() >= SUSPICION).map(|(run, _)| run).collect();
        if lost.is_empty() {
            return;
        }
        tracing::warn!(runs = lost.len(), "runs of this node were not in motion; they are due again");
        let (engine, myself) = (self.engine.clone(), myself.clone());
        tokio::spawn(async move {
            // What fails now is found again by the next sweep.
            let _ = engine.store.release_all(node, &lost).await;
            let _ = myself.cast(Msg::Wake(None));
        });
    }

    /// Takes the run that was named and reads it, in one round trip, if there is room and few are; many are
    /// taken faster together. Gives whether that is on its way.
    fn take(&self, myself: &ActorRef<Msg>, state: &mut State, run: RunId) -> bool {
        let Some(node) = self.engine.lease.surely() else { return false };
        if state.closed || state.named.len() >= NAMED || self.engine.gate.room(state.in_motion()) == 0 {
            return false;
        }
        state.named.insert(run);
        let (engine, myself) = (self.engine.clone(), myself.clone());
        tokio::spawn(async move {
            let taken = taken(&engine, node, run).await;
            let _ = myself.cast(Msg::Taken(run, node, taken));
        });
        true
    }

    async fn taken(
        &self,
        myself: &ActorRef<Msg>,
        state: &mut State,
        run: RunId,
        node: NodeId,
        taken: Result<Option<Box<Found>>, StoreError>,
    ) {
        state.named.remove(&run);
        if let Some(found) = taken.transpose() {
            return self.loaded(myself, state, run, node, found).await;
        }
        // It may be on its way by another claim, and what it was told since would be missed.
        if !state.loading.contains(&run) && !state.runs.contains_key(&run) {
            state.hinted.remove(&run);
        }
        self.engine.wakeups.told(run); // it may be in motion elsewhere
        self.claim(myself, state); // or wait for its turn, or be due in a moment
    }

    /// Takes runs that are due and runs whose turn it is, as many as there is room for.
    fn claim(&self, myself: &ActorRef<Msg>, state: &mut State) {
        let Some(node) = self.engine.lease.surely() else { return }; // the tick after the renewal looks again
        let room = self.engine.gate.room(state.in_motion()).min(TAKE);
        if state.claiming {
            state.claim_again = true;
            return;
        }
        if state.closed {
            return;
        }
        if room == 0 {
            state.more = true; // the next run that ends makes room
            return;
        }
        state.claiming = true;
        let (engine, myself) = (self.engine.clone(), myself.clone());
        let (seats, fairness) = (engine.gate.promise(room), std::mem::take(&mut state.fairness));
        tokio::spawn(async move {
            let taken = flow::take(&engine, node, room, seats, fairness).await;
            let is_answered = taken.error.is_none();
            let _ = myself.cast(Msg::Claimed(Box::new(taken)));
            if is_answered && let Ok(pause) = engine.store.next_due(HORIZON).await {
                let _ = myself.cast(Msg::NextDue(pause));
            }
        });
    }

    /// Wakes this node when the next run is due. A run that fell asleep meanwhile sleeps for longer than
    /// the horizon, so the next claim sees it in time.
    fn set_timer(&self, myself: &ActorRef<Msg>, state: &mut State, pause: Option<Duration>) {
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        let Some(pause) = pause else { return };
        let myself = myself.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = myself.cast(Msg::Heard(Hint::default()));
        });
        state.timer = Some(timer.abort_handle());
    }

    fn claimed(&self, myself: &ActorRef<Msg>, state: &mut State, taken: Taken) {
        let Taken { node, runs, more, error, fairness, seats } = taken;
        state.claiming = false;
        state.fairness = fairness;
        state.more = more;
        state.loading.extend(&runs);
        self.engine.in_motion.store(state.in_motion(), Ordering::Relaxed);
        drop(seats); // only now, so that no room is counted as free in between
        runs.into_iter().for_each(|run| self.load(myself, node, run));
        if let Some(error) = &error {
            tracing::warn!(%error, "runs cannot be claimed now; the next poll tries again");
        }
        let again = std::mem::take(&mut state.claim_again);
        if error.is_none() && (again || more) {
            self.claim(myself, state);
        }
    }

    fn load(&self, myself: &ActorRef<Msg>, node: NodeId, run: RunId) {
        let (engine, myself) = (self.engine.clone(), myself.clone());
        tokio::spawn(async move {
            let loaded = read(&engine, run).await;
            let _ = myself.cast(Msg::Loaded(run, node, loaded));
        });
    }

    async fn loaded(
        &self,
        myself: &ActorRef<Msg>,
        state: &mut State,
        run: RunId,
        node: NodeId,
        loaded: Result<Box<Found>, StoreError>,
    ) {
        state.loading.remove(&run);
        match loaded {
            Ok(found) => {
                let Found { loaded, version, inbox } = *found;
                let begin = Begin { engine: self.engine.clone(), loaded, version, node, inbox: Some(inbox) };
                self.begin(myself, state, begin).await;
            }
            Err(error) => {
                state.hinted.remove(&run);
                match error.retryable() {
                    // No fault of the run: the sweep gives it back.
                    true => tracing::warn!(%run, %error, "a run that is due cannot be loaded now"),
                    false => self.crashed(myself, node, run, error.to_string()),
                }
            }
        }
    }

    fn ended(&self, myself: &ActorRef<Msg>, state: &mut State, actor: ActorId, crash: Option<String>) {
        let Some((run, slot)) = state.by_actor.remove(&actor) else { return };
        // The run may have been taken again already, by an actor that is not the one that ended.
        if state.runs.get(&run).is_some_and(|current| current.get_id() == actor) {
            state.runs.remove(&run);
        }
        if let Some(error) = crash {
            self.crashed(myself, self.engine.node(), run, error);
        } else if state.closed {
            self.give_back_at_rest(myself, state, run);
        }
        // A slot, or the room that others lacked. The database knows of a slot already: a run's actor
        // ends after its last commit.
        let slot_is_wanted = slot && self.engine.gate.waiting() > 0;
        if state.hinted.remove(&run) || state.more || slot_is_wanted {
            self.claim(myself, state);
        }
    }

    /// Gives a crashed run back for another try after a pause, or parks it.
    fn crashed(&self, myself: &ActorRef<Msg>, node: NodeId, run: RunId, error: String) {
        tracing::error!(%run, error, "a run crashed its actor");
        let (engine, myself) = (self.engine.clone(), myself.clone());
        tokio::spawn(async move {
            match park::give_back(&engine, node, run, &error).await {
                Ok(()) => drop(myself.cast(Msg::Heard(Hint::default()))), // sets the timer for its next try
                Err(failure) => {
                    tracing::error!(%run, error = %failure, "a crashed run could not be given back; the sweep will find it");
                }
            }
        });
    }
}

/// The named run, if it could be taken.
async fn taken(engine: &Engine, node: NodeId, run: RunId) -> Result<Option<Box<Found>>, StoreError> {
    match engine.store.take_run(node, run).await? {
        Some(read) => found(engine, read).await.map(Some),
        None => Ok(None),
    }
}

async fn read(engine: &Engine, run: RunId) -> Result<Box<Found>, StoreError> {
    let read = engine.store.read_run(run).await?;
    found(engine, read.ok_or_else(|| StoreError::corrupt(format!("run {run}"), "its journal is empty"))?)
        .await
}

/// With the version that the run is pinned to.
pub(super) async fn found(
    engine: &Engine,
    (loaded, inbox): (Loaded, Inbox),
) -> Result<Box<Found>, StoreError> {
    let version = engine.version(loaded.run.opened.version).await?;
    Ok(Box::new(Found { loaded, version, inbox }))
}
