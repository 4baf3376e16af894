//! The supervisor: admits runs, claims those that are due, and deals with crashes, so that one
//! poisonous run never takes others down. It owns no I/O: every question to the database runs in a
//! task and comes back as a message.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::SignedDuration;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::domain::event::{Event, Outcome};
use crate::domain::ids::RunId;
use crate::domain::label::Label;
use crate::domain::plan::{Entry, Rest};
use crate::orchestrator::engine::Engine;
use crate::orchestrator::run::{self, Begin, RunActor};
use crate::store::StoreError;
use crate::store::journal::Commit;
use crate::store::journal::read::Loaded;
use crate::store::journal::seal::seal;
use crate::store::workflows::VersionRow;

/// The most runs in motion on one node: each holds its input and outputs in memory, a few
/// kilobytes to a few hundred.
pub const MAX_IN_MOTION: usize = 4096;

/// The most runs taken by one claim: enough to keep a node busy until the next one.
const CLAIM: i64 = 256;

/// Every how many polls the node looks for runs it owns but does not move: a rare fault, a cheap look.
const SWEEP_EVERY: u32 = 5;

/// After this many crashes of its actor a run is parked: what crashed so often will crash again.
const MAX_CRASHES: i16 = 5;

/// The pause after a first crash; it doubles with each further one.
const CRASH_PAUSE: SignedDuration = SignedDuration::from_millis(200);

/// What the supervisor is told.
pub enum Msg {
    /// A run was opened on this node.
    Opened(Box<Begin>),
    /// Something may be due; about this run, if one is named.
    Wake(Option<RunId>),
    /// Runs this node has taken.
    Claimed(Result<Vec<RunId>, StoreError>),
    /// Runs that name this node as their owner.
    Owned(Result<Vec<RunId>, StoreError>),
    /// A taken run, loaded.
    Loaded(RunId, Result<Box<(Loaded, Arc<VersionRow>)>, StoreError>),
    /// Take nothing more.
    Close,
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
    by_actor: HashMap<ActorId, RunId>,
    /// Runs that got a hint while their actor may already have been on its way out.
    hinted: HashSet<RunId>,
    /// Runs that this node owned at the last sweep without having them in motion.
    suspects: HashSet<RunId>,
    /// Hints since the last sweep.
    polls: u32,
    /// A claim is under way.
    claiming: bool,
    /// Another claim is wanted once it is done.
    claim_again: bool,
    closed: bool,
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
            Msg::Opened(begin) => self.begin(&myself, state, *begin).await,
            Msg::Wake(run) => self.wake(&myself, state, run),
            Msg::Owned(owned) => self.sweep(state, owned),
            Msg::Claimed(claimed) => self.claimed(&myself, state, claimed),
            Msg::Loaded(run, loaded) => self.loaded(&myself, state, run, loaded).await,
            Msg::Close => state.closed = true,
        }
        self.engine.in_motion.store(state.runs.len(), Ordering::Relaxed);
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
        self.engine.in_motion.store(state.runs.len(), Ordering::Relaxed);
        Ok(())
    }
}

impl Supervisor {
    async fn begin(&self, myself: &ActorRef<Msg>, state: &mut State, begin: Begin) {
        let run = begin.loaded.run.id;
        if state.closed {
            return; // the node is stopping: the run stays in the database for whoever comes next
        }
        match Actor::spawn_linked(None, RunActor, begin, myself.get_cell()).await {
            Ok((actor, _)) => {
                state.by_actor.insert(actor.get_id(), run);
                state.runs.insert(run, actor);
            }
            Err(error) => self.crashed(run, error.to_string()),
        }
    }

    fn wake(&self, myself: &ActorRef<Msg>, state: &mut State, run: Option<RunId>) {
        if let Some(run) = run
            && let Some(actor) = state.runs.get(&run)
        {
            state.hinted.insert(run);
            let _ = actor.cast(run::Msg::Listen);
        }
        if run.is_none() {
            state.polls += 1;
            if state.polls >= SWEEP_EVERY {
                state.polls = 0;
                let (engine, myself) = (self.engine.clone(), myself.clone());
                tokio::spawn(async move {
                    let _ = myself.cast(Msg::Owned(engine.store.runs_of(engine.node).await));
                });
            }
        }
        self.claim(myself, state);
    }

    /// Gives back what this node owns but does not move: its answer was lost, or loading it failed. A run
    /// is suspect at one sweep and given back at the next, so that those on their way are spared.
    fn sweep(&self, state: &mut State, owned: Result<Vec<RunId>, StoreError>) {
        let Ok(owned) = owned else { return };
        let idle: HashSet<RunId> = owned.into_iter().filter(|run| !state.runs.contains_key(run)).collect();
        let (lost, suspects) = idle.into_iter().partition(|run| state.suspects.contains(run));
        state.suspects = suspects;
        let lost: Vec<RunId> = HashSet::into_iter(lost).collect();
        if lost.is_empty() {
            return;
        }
        tracing::warn!(runs = lost.len(), "runs of this node were not in motion; they are due again");
        let engine = self.engine.clone();
        tokio::spawn(async move {
            for run in lost {
                // What fails now is found again by the next sweep.
                let _ = engine.store.release(engine.node, run, engine.now()).await;
            }
        });
    }

    fn claim(&self, myself: &ActorRef<Msg>, state: &mut State) {
        let room = MAX_IN_MOTION.saturating_sub(state.runs.len());
        if state.closed || room == 0 {
            return;
        }
        if state.claiming {
            state.claim_again = true;
            return;
        }
        state.claiming = true;
        let (engine, myself) = (self.engine.clone(), myself.clone());
        let limit = CLAIM.min(i64::try_from(room).unwrap_or(CLAIM));
        tokio::spawn(async move {
            let claimed = engine.store.claim_due(engine.node, limit).await;
            let _ = myself.cast(Msg::Claimed(claimed));
        });
    }

    fn claimed(&self, myself: &ActorRef<Msg>, state: &mut State, claimed: Result<Vec<RunId>, StoreError>) {
        state.claiming = false;
        let again = std::mem::take(&mut state.claim_again);
        match claimed {
            Ok(runs) => {
                if again || runs.len() as i64 == CLAIM {
                    self.claim(myself, state);
                }
                runs.into_iter().for_each(|run| self.load(myself, run));
            }
            Err(error) => {
                tracing::warn!(%error, "runs that are due cannot be claimed; the next poll tries again")
            }
        }
    }

    fn load(&self, myself: &ActorRef<Msg>, run: RunId) {
        let (engine, myself) = (self.engine.clone(), myself.clone());
        tokio::spawn(async move {
            let loaded = load(&engine, run).await.map(Box::new);
            let _ = myself.cast(Msg::Loaded(run, loaded));
        });
    }

    async fn loaded(
        &self,
        myself: &ActorRef<Msg>,
        state: &mut State,
        run: RunId,
        loaded: Result<Box<(Loaded, Arc<VersionRow>)>, StoreError>,
    ) {
        match loaded {
            Ok(loaded) => {
                let (loaded, version) = *loaded;
                self.begin(
                    myself,
                    state,
                    Begin { engine: self.engine.clone(), loaded, version, fresh: false },
                )
                .await;
            }
            // No fault of the run: the sweep gives it back.
            Err(error) if error.retryable() => {
                tracing::warn!(%run, %error, "a run that is due cannot be loaded now");
            }
            Err(error) => self.crashed(run, error.to_string()),
        }
    }

    fn ended(&self, myself: &ActorRef<Msg>, state: &mut State, actor: ActorId, crash: Option<String>) {
        let Some(run) = state.by_actor.remove(&actor) else { return };
        // The run may have been taken again already, by an actor that is not the one that ended.
        if state.runs.get(&run).is_some_and(|current| current.get_id() == actor) {
            state.runs.remove(&run);
        }
        if let Some(error) = crash {
            self.crashed(run, error);
        }
        if state.hinted.remove(&run) || state.runs.len() + 1 == MAX_IN_MOTION {
            self.claim(myself, state);
        }
    }

    /// Gives a crashed run back for another try after a pause, or parks it.
    fn crashed(&self, run: RunId, error: String) {
        tracing::error!(%run, error, "a run crashed its actor");
        let engine = self.engine.clone();
        tokio::spawn(async move {
            if let Err(failure) = give_back(&engine, run, &error).await {
                tracing::error!(%run, error = %failure, "a crashed run could not be given back; the sweep will find it");
            }
        });
    }
}

async fn load(engine: &Engine, run: RunId) -> Result<(Loaded, Arc<VersionRow>), StoreError> {
    let loaded = engine.store.load_run(run).await?;
    let loaded = loaded.ok_or_else(|| StoreError::corrupt(format!("run {run}"), "its journal is empty"))?;
    let version = engine.version(loaded.run.opened.version).await?;
    Ok((loaded, version))
}

async fn give_back(engine: &Engine, run: RunId, error: &str) -> Result<(), StoreError> {
    let crashes = engine.store.count_crash(run).await?;
    if crashes >= MAX_CRASHES {
        return park(engine, run, &format!("its actor crashed {crashes} times, at last with: {error}")).await;
    }
    let pause = CRASH_PAUSE.saturating_mul(1 << (crashes - 1).clamp(0, 10));
    let wake_at = engine.now().saturating_add(pause).unwrap_or_else(|_| engine.now());
    engine.store.release(engine.node, run, wake_at).await
}

/// Ends a run that cannot go on, without folding it: its journal may be what cannot be read.
async fn park(engine: &Engine, run: RunId, reason: &str) -> Result<(), StoreError> {
    let Some((seq, head)) = engine.store.head(run).await? else { return Ok(()) };
    let entry = Entry {
        event: Event::RunFinished { outcome: Outcome::Parked, reason: reason.to_owned() },
        actor: "system".into(),
        label: Label::System,
    };
    let at = engine.now();
    let commit = Commit {
        run,
        node: engine.node,
        expected_seq: seq,
        entries: seal(head, seq, at, vec![entry]),
        rest: Rest::Over(Outcome::Parked),
        nap: false,
        signals: i32::MAX,
        heard: Vec::new(),
        at,
    };
    let store = engine.store.clone();
    let done = move |result| match result {
        Ok(()) => {
            tracing::error!(%run, "the run is parked: it needs a look");
            tokio::spawn(async move {
                if let Err(error) = store.withdraw_all(run).await {
                    tracing::error!(%run, %error, "a parked run's open questions could not be withdrawn");
                }
            });
        }
        Err(error) => tracing::error!(%run, %error, "the run could not be parked"),
    };
    engine.journal.commit(commit, Box::new(done));
    Ok(())
}

/// How long a node waits for its runs to come to rest before it stops without them.
pub const DRAIN: Duration = Duration::from_secs(10);
