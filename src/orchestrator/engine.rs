//! What the actors share: the way to the database, to models, to connectors, and the definitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use ractor::ActorRef;
use serde_json::Value;
use tokio::sync::{Notify, broadcast};
use uuid::{ContextV7, Uuid};

use crate::config::workspace::Definitions;
use crate::connectors::http::Getter;
use crate::connectors::registry::Connectors;
use crate::domain::autonomy::own;
use crate::domain::digest::Digest;
use crate::domain::ids::{NodeId, RunId, WorkflowName};
use crate::domain::ladder::Terms;
use crate::domain::policy::Policy;
use crate::domain::retention::{Keep, Retention};
use crate::domain::run::RunStatus;
use crate::domain::workflow::Stage;
use crate::memory::Embedder;
use crate::models::Models;
use crate::models::record::Calls;
use crate::models::tools::Tools;
use crate::orchestrator::flow::Gate;
use crate::orchestrator::journal::Journal;
use crate::orchestrator::keys::Refused;
use crate::orchestrator::lease::Lease;
use crate::orchestrator::live::Live;
use crate::orchestrator::supervisor;
use crate::orchestrator::tools::Reading;
use crate::orchestrator::wakeup::Wakeups;
use crate::store::journal::seal::whole_microseconds;
use crate::store::notices::News;
use crate::store::pauses::Pauses;
use crate::store::stages::{Restage, Restaged, StageRow};
use crate::store::workflows::VersionRow;
use crate::store::{Store, StoreError};

/// Tells the time: the lease's, which is the database's; tests may bring their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How far a listener may fall behind before it misses something: it then looks into the database.
const MOVED_BACKLOG: usize = 4096;

/// A transition of a run that has just become durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// Which run.
    pub run: RunId,
    /// The number of its last journal entry.
    pub seq: i64,
    /// What it does now.
    pub status: RunStatus,
}

/// What the actors of one node share.
pub struct Engine {
    /// The right to act for the runs of this node.
    pub lease: Arc<Lease>,
    /// The database.
    pub store: Store,
    /// The group commit.
    pub journal: Journal,
    /// The owner's rules.
    pub policy: Policy,
    /// What the owner has set for the reviews and effects of all workflows.
    pub terms: Terms,
    /// How long finished runs are kept.
    pub retention: Retention,
    /// How long it is kept what was said to models.
    pub calls_kept: Keep,
    /// How long notices are kept that are settled.
    pub notices_kept: Keep,
    /// Where it is kept.
    pub calls: Calls,
    /// What templates know as `workspace`.
    pub workspace: Value,
    /// What answers prompts.
    pub models: Models,
    /// What carries effects out.
    pub connectors: Connectors,
    /// What agents look things up with.
    pub tools: Arc<dyn Tools>,
    /// Who watches which run.
    pub live: Live,
    /// What turns texts into vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Tells whoever listens that a run of this node has moved. A hint: slow listeners miss some.
    pub moved: broadcast::Sender<Moved>,
    /// Whose keys are refused.
    pub refused: Refused,
    /// There is something to tell the owner. A hint: the courier looks every second anyway.
    pub news: Notify,
    /// How many runs are in motion on this node; the supervisor counts.
    pub in_motion: AtomicUsize,
    /// How many transitions of this node were refused because another one owned the run by then. Where
    /// no node is lost and none is paused it stays zero.
    pub fenced: AtomicU64,
    /// What the other nodes are to be told.
    pub wakeups: Wakeups,
    /// Who comes in.
    pub gate: Gate,
    clock: Clock,
    versions: Mutex<Versions>,
    pauses: Mutex<Pauses>,
    ids: Mutex<ContextV7>,
    supervisor: OnceLock<ActorRef<supervisor::Msg>>,
}

/// The two lock-protected maps; nothing is awaited while they are held.
#[derive(Default)]
struct Versions {
    current: BTreeMap<WorkflowName, Arc<VersionRow>>,
    known: HashMap<Digest, Arc<VersionRow>>,
}

/// What an [`Engine`] is made of.
pub struct Parts {
    /// See [`Engine::lease`].
    pub lease: Arc<Lease>,
    /// See [`Engine::store`].
    pub store: Store,
    /// See [`Engine::journal`].
    pub journal: Journal,
    /// See [`Engine::models`].
    pub models: Models,
    /// See [`Engine::connectors`].
    pub connectors: Connectors,
    /// See [`Engine::embedder`].
    pub embedder: Arc<dyn Embedder>,
    /// Tells the time.
    pub clock: Clock,
}

impl Engine {
    /// Puts the parts together and keeps the versions of the workspace's workflows.
    ///
    /// # Errors
    /// When the database does not take a version.
    pub async fn new(parts: Parts, definitions: &Definitions) -> Result<Self, StoreError> {
        let pauses = parts.store.pauses().await?;
        let refused = Refused::load(&parts.store).await?;
        parts.models.attend(&parts.store).await?;
        let web = Getter::new(&definitions.connectors.http);
        let zone = &definitions.settings.workspace.time_zone;
        let tools = Reading::new(&parts.store, parts.embedder.clone(), web, parts.clock.clone(), zone)?;
        let secrets = definitions.secrets().into_iter().map(|(_, secret)| secret);
        let calls = Calls::new(parts.store.clone(), secrets);
        let engine = Self {
            lease: parts.lease,
            store: parts.store,
            journal: parts.journal,
            policy: definitions.policy.clone(),
            terms: definitions.channels.terms(),
            retention: definitions.retention(),
            calls_kept: definitions.settings.calls,
            notices_kept: definitions.settings.notices,
            calls,
            workspace: serde_json::to_value(&definitions.settings.workspace).unwrap_or_default(),
            models: parts.models,
            connectors: parts.connectors,
            tools: Arc::new(tools),
            live: Live::default(),
            embedder: parts.embedder,
            moved: broadcast::Sender::new(MOVED_BACKLOG),
            refused,
            news: Notify::new(),
            in_motion: AtomicUsize::new(0),
            fenced: AtomicU64::new(0),
            wakeups: Wakeups::default(),
            gate: Gate::new(definitions.settings.limits.clone()),
            clock: parts.clock,
            versions: Mutex::default(),
            pauses: Mutex::new(pauses),
            ids: Mutex::new(ContextV7::new()),
            supervisor: OnceLock::new(),
        };
        let own = own::version();
        for version in definitions.workflows.values().map(|definition| &definition.version).chain([&own]) {
            let row = Arc::new(engine.store.keep_version(version).await?);
            let mut versions = engine.lock();
            versions.current.insert(version.workflow.clone(), row.clone());
            versions.known.insert(row.digest, row);
        }
        Ok(engine)
    }

    /// The present moment, exact to the microsecond.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        whole_microseconds((self.clock)())
    }

    /// Tells the owner something, in time: it is durable when this returns.
    pub async fn tell_owner(&self, news: &News<'_>) {
        match self.store.notice(news).await {
            Ok(true) => self.news.notify_one(),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, subject = news.subject, "the owner cannot be told: {}", news.title)
            }
        }
    }

    /// Hints that something may be due for a run. Losing a hint only costs time.
    pub fn wake(&self, run: RunId) {
        self.tell(supervisor::Msg::Wake(Some(run)));
    }

    /// Tells that a run waits in the queue.
    pub(super) fn queued(&self) {
        self.tell(supervisor::Msg::Queued);
    }

    /// Who hears the hints.
    pub(super) fn listen(&self, supervisor: ActorRef<supervisor::Msg>) {
        let _ = self.supervisor.set(supervisor); // there is one for the life of an engine
    }

    pub(super) fn tell(&self, msg: supervisor::Msg) {
        if let Some(supervisor) = self.supervisor.get() {
            let _ = supervisor.cast(msg);
        }
    }

    /// Whether the owner holds runs of this workflow: nothing may begin in them.
    #[must_use]
    pub fn holds(&self, workflow: &WorkflowName) -> bool {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).hold(workflow)
    }

    /// Looks what the owner holds; runs in motion hear of a change at once.
    ///
    /// # Errors
    /// When the database does not answer; what was known before holds on.
    pub async fn look_at_pauses(&self) -> Result<(), StoreError> {
        let found = self.store.pauses().await?;
        let before = {
            let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *pauses, found.clone())
        };
        if before != found {
            self.tell(supervisor::Msg::PausesChanged);
        }
        Ok(())
    }

    /// Under which name this node acts at present; see [`Lease::node`].
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.lease.node()
    }

    /// A new run's id. It carries the engine's time, not this machine's: partitions of the journal
    /// follow it, and nodes whose clocks differ must not scatter runs over them.
    #[must_use]
    pub fn new_run(&self) -> RunId {
        let now = self.now();
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
        // Of two runs opened in one moment the later one has the later id.
        let context = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        RunId(Uuid::new_v7(uuid::Timestamp::from_unix(&*context, seconds, nanoseconds)))
    }

    /// The version that new runs of a workflow get.
    #[must_use]
    pub fn current(&self, workflow: &WorkflowName) -> Option<Arc<VersionRow>> {
        self.lock().current.get(workflow).cloned()
    }

    /// The owner's workflows that can be run.
    #[must_use]
    pub fn workflows(&self) -> Vec<WorkflowName> {
        self.lock().current.keys().filter(|name| !own::is_own(name)).cloned().collect()
    }

    /// The version of that digest, wherever it is.
    ///
    /// # Errors
    /// When the database does not have it.
    pub async fn version(&self, digest: Digest) -> Result<Arc<VersionRow>, StoreError> {
        if let Some(row) = self.lock().known.get(&digest) {
            return Ok(row.clone());
        }
        let row = self.store.version(digest).await?;
        let row =
            Arc::new(row.ok_or_else(|| StoreError::corrupt(format!("version {digest}"), "it is missing"))?);
        self.lock().known.insert(digest, row.clone());
        Ok(row)
    }

    /// How far a version is trusted now: whoever holds its row may hold it for long.
    #[must_use]
    pub fn stage_of(&self, row: &VersionRow) -> Stage {
        self.lock().known.get(&row.digest).map_or(row.stage, |known| known.stage)
    }

    /// Changes how far a version is trusted, from the next transition on; nothing when there is no such version.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn restage(&self, change: &Restage<'_>) -> Result<Option<Restaged>, StoreError> {
        let restaged = self.store.restage(change).await?;
        self.look_at_stages().await?;
        Ok(restaged)
    }

    /// Looks how far the known versions are trusted now: another node, or an effect, may have changed it.
    ///
    /// # Errors
    /// When the database does not answer; what was known before holds on.
    pub async fn look_at_stages(&self) -> Result<(), StoreError> {
        let known: Vec<Digest> = self.lock().known.keys().copied().collect();
        let found = self.store.stages_of(&known).await?;
        let mut versions = self.lock();
        for StageRow { digest, stage, .. } in found {
            let Some(row) = versions.known.get(&digest).filter(|row| row.stage != stage) else { continue };
            let row = Arc::new(VersionRow { stage, ..VersionRow::clone(row) });
            versions.known.insert(digest, row.clone());
            if let Some(current) = versions.current.get_mut(&row.version.workflow)
                && current.digest == digest
            {
                *current = row;
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner) // plain maps: never half-changed
    }
}
