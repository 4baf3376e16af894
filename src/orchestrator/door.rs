//! The door to the orchestrator: triggers and handlers open runs and wake them through here, and
//! never hold a run's actor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor::{Actor, ActorRef, SpawnErr};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::event::{Event, Opened as Input};
use crate::domain::ids::{RunId, WorkflowName};
use crate::domain::label::Label;
use crate::domain::plan::Entry;
use crate::domain::run::Run;
use crate::domain::template::Scope;
use crate::domain::workflow::Stage;
use crate::models::schema;
use crate::orchestrator::clock::{self, Clock};
use crate::orchestrator::engine::Engine;
use crate::orchestrator::failpoint;
use crate::orchestrator::run::Begin;
use crate::orchestrator::supervisor::{self, DRAIN, Supervisor};
use crate::store::StoreError;
use crate::store::journal::read::Loaded;
use crate::store::journal::seal::{genesis, seal};
use crate::store::journal::{Open, Opened};

/// The longest title that is kept, characters: it has to fit one line of a list.
const MAX_TITLE: usize = 200;

/// The way to the orchestrator; cheap to clone.
#[derive(Clone)]
pub struct Door {
    engine: Arc<Engine>,
    supervisor: ActorRef<supervisor::Msg>,
    clock: ActorRef<clock::Msg>,
    open: Arc<AtomicBool>,
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
    /// The door it came through: `email`, `webhook`, `api`, `cli`.
    pub trigger: &'static str,
    /// The same key again opens nothing; a fresh key when absent.
    pub key: Option<String>,
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
    /// This node is stopping.
    #[error("this node is stopping; try again in a moment")]
    Stopping,
    /// The database refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Door {
    /// Starts the supervisor and the clock.
    ///
    /// # Errors
    /// When an actor cannot be spawned.
    pub async fn start(engine: Arc<Engine>) -> Result<Self, SpawnErr> {
        let (supervisor, _) = Actor::spawn(None, Supervisor { engine: engine.clone() }, ()).await?;
        let clock = Clock { engine: engine.clone(), supervisor: supervisor.clone() };
        let (clock, _) = Actor::spawn(None, clock, ()).await?;
        Ok(Self { engine, supervisor, clock, open: Arc::new(AtomicBool::new(true)) })
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
        if !self.open.load(Ordering::Acquire) {
            return Err(OpenError::Stopping);
        }
        let engine = &self.engine;
        let unknown = || OpenError::UnknownWorkflow {
            workflow: request.workflow.clone(),
            known: engine.workflows().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        let row = engine.current(&request.workflow).ok_or_else(unknown)?;
        if row.stage == Stage::Retired {
            return Err(OpenError::Retired(request.workflow));
        }
        schema::validate(&row.version.input, &request.input)
            .map_err(|why| OpenError::BadInput { workflow: request.workflow.clone(), why })?;
        let run = RunId(Uuid::now_v7());
        let title = title(engine, &row.version.title, &request.input, run);
        let key = request.key.unwrap_or_else(|| run.to_string());
        let input = Input {
            workflow: request.workflow.clone(),
            version: row.digest,
            title: title.clone(),
            input: request.input,
            label: request.label,
            trigger: request.trigger.to_owned(),
        };
        let at = engine.now();
        let entry = Entry {
            event: Event::RunOpened(input.clone()),
            actor: format!("trigger:{}", request.trigger),
            label: request.label,
        };
        let Some(entry) = seal(genesis(run), 0, at, vec![entry]).pop() else {
            return Err(OpenError::Stopping);
        };
        let head = entry.hash;
        let node = (self.in_motion() < supervisor::MAX_IN_MOTION).then_some(engine.node);
        let open = Open {
            run,
            workflow: request.workflow,
            version: row.digest,
            title,
            trigger: request.trigger.to_owned(),
            key,
            node,
            entry,
        };
        let loaded = Loaded { run: Run::open(run, input, at), head };
        let begin = Begin { engine: engine.clone(), loaded, version: row, fresh: true };
        // In a task of its own: an asker who hangs up must not leave a durable run that nobody begins.
        let committed = tokio::spawn(self.clone().commit(open, begin));
        committed.await.map_err(|_| OpenError::Stopping)?
    }

    async fn commit(self, open: Open, begin: Begin) -> Result<Opened, OpenError> {
        let (run, is_ours) = (open.run, open.node.is_some());
        let opened = self.engine.journal.open(open).await?;
        failpoint::hit(failpoint::RUN_OPENED);
        if opened == Opened::New(run) && is_ours {
            let _ = self.supervisor.cast(supervisor::Msg::Opened(Box::new(begin)));
        }
        Ok(opened)
    }

    /// Hints that something may be due for a run. Losing a hint only costs time.
    pub fn wake(&self, run: RunId) {
        let _ = self.supervisor.cast(supervisor::Msg::Wake(Some(run)));
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
            () = self.engine.journal.ended() => "journal",
        }
    }

    /// Stops in order: no new runs, no new claims, a bounded wait for what is in motion, then the lease.
    /// What is not done by then is in the journal, and in doubt only where an effect was under way.
    pub async fn stop(&self) {
        self.open.store(false, Ordering::Release);
        let _ = self.supervisor.cast(supervisor::Msg::Close);
        self.clock.stop(None);
        let drained = tokio::time::timeout(DRAIN, async {
            let mut pause = tokio::time::interval(Duration::from_millis(20));
            while self.in_motion() > 0 {
                pause.tick().await;
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                "runs were still in motion when the node stopped; the next start goes on with them"
            );
        }
        self.supervisor.stop(None);
        self.engine.journal.stop(DRAIN).await;
        if let Err(error) = self.engine.store.retire_node(self.engine.node).await {
            tracing::warn!(%error, "the lease could not be given back; it runs out by itself");
        }
    }
}

/// A title that cannot be filled in must not keep a lead out: the run is then called by its id.
fn title(engine: &Engine, template: &str, input: &Value, run: RunId) -> String {
    let context = json!({"input": input, "workspace": engine.workspace, "run": {"id": run}});
    let title = match Scope::new(&context, |_| Label::Untrusted).text(template) {
        Ok(title) => title,
        Err(error) => {
            tracing::warn!(%run, %error, "the run's title cannot be filled in");
            format!("run {run}")
        }
    };
    title.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_TITLE).collect()
}
