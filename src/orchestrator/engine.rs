//! What the actors share: the way to the database, to models, to connectors, and the definitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::config::workspace::Definitions;
use crate::connectors::registry::Connectors;
use crate::domain::digest::Digest;
use crate::domain::ids::{NodeId, RunId, WorkflowName};
use crate::domain::policy::Policy;
use crate::domain::run::RunStatus;
use crate::domain::workflow::Stage;
use crate::memory::Embedder;
use crate::models::Models;
use crate::orchestrator::journal::Journal;
use crate::store::journal::seal::whole_microseconds;
use crate::store::workflows::VersionRow;
use crate::store::{Store, StoreError};

/// Tells the time; tests bring their own.
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
    /// This start of the process.
    pub node: NodeId,
    /// The database.
    pub store: Store,
    /// The group commit.
    pub journal: Journal,
    /// The owner's rules.
    pub policy: Policy,
    /// What templates know as `workspace`.
    pub workspace: Value,
    /// What answers prompts.
    pub models: Models,
    /// What carries effects out.
    pub connectors: Connectors,
    /// What turns texts into vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Tells whoever listens that a run of this node has moved. A hint: slow listeners miss some.
    pub moved: broadcast::Sender<Moved>,
    /// How many runs are in motion on this node; the supervisor counts.
    pub in_motion: AtomicUsize,
    clock: Clock,
    versions: Mutex<Versions>,
}

/// The two lock-protected maps; nothing is awaited while they are held.
#[derive(Default)]
struct Versions {
    current: BTreeMap<WorkflowName, Arc<VersionRow>>,
    known: HashMap<Digest, Arc<VersionRow>>,
}

/// What an [`Engine`] is made of.
pub struct Parts {
    /// See [`Engine::node`].
    pub node: NodeId,
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
        let engine = Self {
            node: parts.node,
            store: parts.store,
            journal: parts.journal,
            policy: definitions.policy.clone(),
            workspace: serde_json::to_value(&definitions.settings.workspace).unwrap_or_default(),
            models: parts.models,
            connectors: parts.connectors,
            embedder: parts.embedder,
            moved: broadcast::Sender::new(MOVED_BACKLOG),
            in_motion: AtomicUsize::new(0),
            clock: parts.clock,
            versions: Mutex::default(),
        };
        for definition in definitions.workflows.values() {
            let row = Arc::new(engine.store.keep_version(&definition.version).await?);
            let mut versions = engine.lock();
            versions.current.insert(definition.version.workflow.clone(), row.clone());
            versions.known.insert(row.digest, row);
        }
        Ok(engine)
    }

    /// The present moment, exact to the microsecond.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        whole_microseconds((self.clock)())
    }

    /// The version that new runs of a workflow get.
    #[must_use]
    pub fn current(&self, workflow: &WorkflowName) -> Option<Arc<VersionRow>> {
        self.lock().current.get(workflow).cloned()
    }

    /// The workflows that can be run.
    #[must_use]
    pub fn workflows(&self) -> Vec<WorkflowName> {
        self.lock().current.keys().cloned().collect()
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

    /// Changes how far a version is trusted, from the next transition on.
    ///
    /// # Errors
    /// When the database does not answer or has no such version.
    pub async fn set_stage(&self, digest: Digest, stage: Stage) -> Result<(), StoreError> {
        if !self.store.set_stage(digest, stage).await? {
            return Err(StoreError::corrupt(format!("version {digest}"), "it is missing"));
        }
        let Some(row) = self.store.version(digest).await? else { return Ok(()) };
        let row = Arc::new(row);
        let mut versions = self.lock();
        versions.known.insert(digest, row.clone());
        if let Some(current) = versions.current.get_mut(&row.version.workflow)
            && current.digest == digest
        {
            *current = row;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner) // plain maps: never half-changed
    }
}
