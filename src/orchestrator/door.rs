//! The door to the orchestrator: triggers and handlers open runs and wake them through here, and
//! never hold a run's actor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor::{Actor, ActorRef, SpawnErr, call_t};
use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::domain::admission::Flow;
use crate::domain::event::{Parent, Rerun, Verified};
use crate::domain::ids::{NodeId, RunId, WorkflowName};
use crate::domain::label::Label;
use crate::domain::workflow::Stage;
use crate::models::schema;
use crate::orchestrator::clock::{self, Clock};
use crate::orchestrator::engine::Engine;
use crate::orchestrator::entrance::{Entrance, Place, lane, prepare};
use crate::orchestrator::flow::RETRY_AFTER;
use crate::orchestrator::housekeeper::{self, Housekeeper};
use crate::orchestrator::run::Begin;
use crate::orchestrator::supervisor::{self, Supervisor};
use crate::orchestrator::{failpoint, wakeup};
use crate::store::StoreError;
use crate::store::journal::read::Loaded;
use crate::store::journal::{Open, Opened};
use crate::store::runs::Inbox;
use crate::store::workflows::VersionRow;

/// How long a node that is stopping waits for what is under way, where nothing else is said.
pub const GRACE: Duration = Duration::from_secs(10);

/// The end of the grace that is kept back for writing down and giving back, at most.
const LAST_ORDERS: Duration = Duration::from_secs(2);

/// What that takes at least, even where the grace is over: a lease that is given back is worth more to
/// the other nodes than a moment.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The way to the orchestrator; cheap to clone.
#[derive(Clone)]
pub struct Door {
    engine: Arc<Engine>,
    supervisor: ActorRef<supervisor::Msg>,
    clock: ActorRef<clock::Msg>,
    housekeeper: ActorRef<housekeeper::Msg>,
    wakeups: AbortHandle,
    /// Whether runs may be opened.
    open: Arc<AtomicBool>,
    /// Whether this node begins with the runs that are opened here.
    taking: Arc<AtomicBool>,
}

/// What a trigger asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The workflow to run.
    pub workflow: WorkflowName,
    /// Its input.
    pub input: Value,
    /// Where the input came from.
    pub label: Label,
    /// The door it came through: `email`, `webhook`, `schedule`, `api`, `cli`.
    pub trigger: &'static str,
    /// The same key again opens nothing; a fresh key when absent.
    pub key: Option<String>,
    /// What Steward itself verified of whoever sent the input; nothing else may stand here.
    pub verified: Option<Verified>,
}

/// What a run comes from that another run opens.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The run that waits for it.
    pub parent: Option<Parent>,
    /// The run that it does anew.
    pub rerun: Option<Rerun>,
    /// The most its model calls may cost, millionths of the currency.
    pub budget_micros: Option<i64>,
}

/// Why no run was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such workflow.
    #[error("there is no workflow `{workflow}`; there is {known}")]
    UnknownWorkflow {
        /// What was asked for.
        workflow: WorkflowName,
        /// What there is.
        known: String,
    },
    /// The workflow takes no new runs.
    #[error("the workflow `{0}` is retired")]
    Retired(WorkflowName),
    /// The input does not fit the workflow.
    #[error("the input does not fit the workflow `{workflow}`: {why}")]
    BadInput {
        /// The workflow.
        workflow: WorkflowName,
        /// What does not fit.
        why: String,
    },
    /// As many runs wait for their turn as the workspace, or this workflow or key of it, may have.
    #[error("as many runs of `{workflow}` are waiting as there may be; try again in {} s", retry_after.as_secs())]
    Full {
        /// The workflow.
        workflow: WorkflowName,
        /// When to try again.
        retry_after: Duration,
    },
    /// This node is stopping.
    #[error("this node is stopping; try again in a moment")]
    Stopping,
    /// The database refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whether the same request may open a run later without anybody changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            // A fault in a statement or a row is Steward's: whoever asks must not pay for it.
            Self::Stopping | Self::Full { .. } | Self::Store(_) => true,
            Self::UnknownWorkflow { .. } | Self::Retired(_) | Self::BadInput { .. } => false,
        }
    }
}

impl Door {
    /// Starts the supervisor, the clock, the housekeeper and the wake-ups.
    ///
    /// # Errors
    /// When an actor cannot be spawned.
    pub async fn start(engine: Arc<Engine>) -> Result<Self, SpawnErr> {
        let (supervisor, _) = Actor::spawn(None, Supervisor { engine: engine.clone() }, ()).await?;
        engine.listen(supervisor.clone());
        let clock = Clock { engine: engine.clone(), supervisor: supervisor.clone() };
        let (clock, _) = Actor::spawn(None, clock, ()).await?;
        let (housekeeper, _) = Actor::spawn(None, Housekeeper { engine: engine.clone() }, ()).await?;
        let wakeups = wakeup::start(engine.clone(), supervisor.clone());
        let (open, taking) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        Ok(Self { engine, supervisor, clock, housekeeper, wakeups, open, taking })
    }

    /// What the actors share.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Opens a run; gives back once it is durable. The same key again gives the run that has it.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was opened then.
    pub async fn open(&self, request: Request) -> Result<Opened, OpenError> {
        self.open_from(request, Origin::default()).await
    }

    /// Opens a run that comes from another one.
    ///
    /// # Errors
    /// As [`Door::open`].
    pub async fn open_from(&self, request: Request, origin: Origin) -> Result<Opened, OpenError> {
        if !self.open.load(Ordering::Acquire) {
            return Err(OpenError::Stopping);
        }
        let row = fits(&self.engine, &request.workflow, &request.input)?;
        let run = self.engine.new_run();
        let entrance = match self.entrance(&row.version.flow, &request, run).await? {
            Ok(entrance) => entrance,
            Err(existing) => return Ok(existing),
        };
        let (open, loaded) = prepare(&self.engine, &row, run, request, origin, &entrance)?;
        // In a task of its own: an asker who hangs up must not leave a durable run that nobody begins.
        let committed = tokio::spawn(self.clone().commit(open, loaded, row, entrance));
        committed.await.map_err(|_| OpenError::Stopping)?
    }

    /// How a run comes in; or the run that the request's key opened already, when the queue is full.
    async fn entrance(
        &self,
        flow: &Flow,
        request: &Request,
        run: RunId,
    ) -> Result<Result<Entrance, Opened>, OpenError> {
        let engine = &self.engine;
        // A run that is held is opened all the same, and begins when it is let go.
        let may_begin = self.taking.load(Ordering::Acquire) && !engine.holds(&request.workflow);
        let node = engine.lease.surely().filter(|_| may_begin);
        match node {
            None if flow.concurrency.is_none() => return Ok(Ok(Entrance::Due)),
            Some(node) if let Some(seat) = engine.gate.seat(flow, self.in_motion()) => {
                return Ok(Ok(Entrance::Begins(node, seat)));
            }
            Some(_) | None => {}
        }
        let lane = lane(engine, flow, request, run);
        if engine.gate.join(&lane, flow).is_ok() {
            return Ok(Ok(Entrance::Waits(Place { engine: engine.clone(), lane, kept: false })));
        }
        // Whoever repeats a request hears what became of it, however full it is.
        if let Some(key) = &request.key
            && let Some(existing) = engine.store.run_of_key(&request.workflow, key).await?
        {
            return Ok(Err(Opened::Existing(existing)));
        }
        Err(OpenError::Full { workflow: request.workflow.clone(), retry_after: RETRY_AFTER })
    }

    /// Whether a workflow would open a run with this input; gives the version it would run.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn fits(&self, workflow: &WorkflowName, input: &Value) -> Result<Arc<VersionRow>, OpenError> {
        if !self.open.load(Ordering::Acquire) {
            return Err(OpenError::Stopping);
        }
        fits(&self.engine, workflow, input)
    }

    async fn commit(
        self,
        open: Open,
        loaded: Loaded,
        version: Arc<VersionRow>,
        entrance: Entrance,
    ) -> Result<Opened, OpenError> {
        let run = open.run;
        let opened = self.engine.journal.open(open).await?;
        failpoint::hit(failpoint::RUN_OPENED);
        if opened == Opened::New(run) {
            match entrance {
                Entrance::Begins(node, seat) => {
                    let begin = Begin { engine: self.engine.clone(), loaded, version, node, inbox: None };
                    let _ = self.supervisor.cast(supervisor::Msg::Opened(Box::new(begin), seat));
                }
                Entrance::Due => self.engine.wakeups.due(),
                Entrance::Waits(mut place) => {
                    place.kept = true;
                    let _ = self.supervisor.cast(supervisor::Msg::Queued);
                }
            }
        }
        Ok(opened)
    }

    /// Hints that something may be due for a run. Losing a hint only costs time.
    pub fn wake(&self, run: RunId) {
        self.engine.wake(run);
    }

    /// This node, if it has room for a run that somebody takes for it.
    #[must_use]
    pub fn taker(&self) -> Option<NodeId> {
        self.engine.lease.surely().filter(|_| self.engine.gate.room(self.in_motion()) > 0)
    }

    /// Goes on with a run that was taken for `node`, and read.
    pub async fn go_on(&self, node: NodeId, run: RunId, read: Result<(Loaded, Inbox), StoreError>) {
        let found = match read {
            Ok(read) => supervisor::found(&self.engine, read).await,
            Err(error) => Err(error),
        };
        self.engine.tell(supervisor::Msg::Loaded(run, node, found));
    }

    /// How many runs are in motion on this node.
    #[must_use]
    pub fn in_motion(&self) -> usize {
        self.engine.in_motion.load(Ordering::Relaxed)
    }

    /// Waits until a part that the node cannot do without has ended by itself; says which.
    pub async fn ended(&self) -> &'static str {
        tokio::select! {
            _ = self.supervisor.wait(None) => "supervisor",
            _ = self.clock.wait(None) => "clock",
            _ = self.housekeeper.wait(None) => "housekeeper",
            () = self.engine.journal.ended() => "journal",
        }
    }

    /// Begins to stop: takes no more runs, and gives back what nothing is under way for, so that other
    /// nodes go on with it at once. Runs can still be opened: they are the other nodes' to begin.
    pub fn retreat(&self) {
        self.taking.store(false, Ordering::Release);
        let _ = self.supervisor.cast(supervisor::Msg::Close);
    }

    /// Stops within [`GRACE`]; see [`Door::stop_by`].
    pub async fn stop(&self) {
        self.stop_by(Instant::now() + GRACE).await;
    }

    /// Stops in order and in time: no new runs, no new claims, a wait for what is under way, then the
    /// lease. What is not done by then is in the journal, and in doubt only where an effect was under way.
    pub async fn stop_by(&self, deadline: Instant) {
        self.retreat();
        self.housekeeper.stop(None);
        self.open.store(false, Ordering::Release);
        let left = deadline.saturating_duration_since(Instant::now());
        let last_orders = (left / 4).clamp(LAST_WORDS, LAST_ORDERS);
        let drained = tokio::time::timeout(left.saturating_sub(last_orders), async {
            let mut pause = tokio::time::interval(Duration::from_millis(20));
            while self.in_motion() > 0 {
                pause.tick().await;
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                "runs were still in motion when the node stopped; others go on with them, or the next start"
            );
        }
        // The lease is renewed until here: nobody may take over what is still being written.
        self.clock.stop(None);
        self.wakeups.abort();
        let killed = call_t!(self.supervisor, supervisor::Msg::Abandon, last_orders.as_millis() as u64 / 2);
        if killed.is_err() {
            tracing::warn!(
                "work was still under way when the lease was given back; the fence refuses its result"
            );
        }
        self.supervisor.stop(None);
        self.engine.journal.stop(last_orders).await;
        match tokio::time::timeout(last_orders, self.give_back_lease()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease could not be given back; it runs out by itself")
            }
            Err(_) => tracing::warn!("the lease could not be given back in time; it runs out by itself"),
        }
    }

    async fn give_back_lease(&self) -> Result<(), StoreError> {
        let engine = &self.engine;
        engine.store.retire_node(engine.node()).await?;
        engine.lease.lose();
        engine.store.tell_due().await
    }
}

/// Whether a workflow would open a run with this input; gives the version it would run.
fn fits(engine: &Engine, workflow: &WorkflowName, input: &Value) -> Result<Arc<VersionRow>, OpenError> {
    let unknown = || OpenError::UnknownWorkflow {
        workflow: workflow.clone(),
        known: engine.workflows().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    };
    let row = engine.current(workflow).ok_or_else(unknown)?;
    if row.stage == Stage::Retired {
        return Err(OpenError::Retired(workflow.clone()));
    }
    schema::validate(&row.version.input, input)
        .map_err(|why| OpenError::BadInput { workflow: workflow.clone(), why })?;
    Ok(row)
}

/// Opens the run that a step of another run waits for, and leaves it to whoever claims it first. It waits
/// for its turn like any other, but is never turned away: its parent holds its own place already.
///
/// # Errors
/// As [`Door::open`].
pub(super) async fn open_child(
    engine: &Arc<Engine>,
    request: Request,
    origin: Origin,
) -> Result<RunId, OpenError> {
    let row = fits(engine, &request.workflow, &request.input)?;
    let run = engine.new_run();
    let flow = &row.version.flow;
    let entrance = match flow.concurrency {
        None => Entrance::Due,
        Some(_) => {
            let lane = lane(engine, flow, &request, run);
            let counted = engine.gate.join(&lane, flow).is_ok();
            Entrance::Waits(Place { engine: engine.clone(), lane, kept: !counted })
        }
    };
    let (open, _) = prepare(engine, &row, run, request, origin, &entrance)?;
    let opened = engine.journal.open(open).await?;
    if let (Entrance::Waits(mut place), Opened::New(_)) = (entrance, opened) {
        place.kept = true;
        engine.queued();
    }
    engine.wake(opened.run());
    Ok(opened.run())
}
