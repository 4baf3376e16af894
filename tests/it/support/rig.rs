//! An engine driven through its own door, over a database of its own, with connectors that answer as the test says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use steward::config::template;
use steward::config::workspace::{Definition, Definitions};
use steward::connectors::email::Email;
use steward::connectors::http::Http;
use steward::connectors::records::Records;
use steward::connectors::registry::Connectors;
use steward::connectors::{Call, Connector};
use steward::domain::action::{Action, Repeat};
use steward::domain::admission::Flow;
use steward::domain::budget::Budget;
use steward::domain::digest::Digest;
use steward::domain::duration::Span;
use steward::domain::event::Verdict;
use steward::domain::ids::{ReviewId, RunId, StepId};
use steward::domain::label::Label;
use steward::domain::plan::EffectResult;
use steward::domain::policy::Policy;
use steward::domain::retry::Retry;
use steward::domain::workflow::{ActionStep, Stage, Step, StepKind, Version};
use steward::models::ledger::{Ledger, Terms};
use steward::models::{Encoder, Models};
use steward::orchestrator::door::{Door, OpenError, Request};
use steward::orchestrator::engine::{Clock, Engine, Parts};
use steward::orchestrator::journal::Journal;
use steward::orchestrator::lease::{LEASE, Lease};
use steward::store::Store;
use steward::store::journal::Opened;
use steward::store::stages::Restage;

use super::{database, eventually};

/// Answers the n-th call.
type Answer = Box<dyn Fn(&Call, usize) -> EffectResult + Send + Sync>;

/// A connector that answers as the test says and keeps what it was asked.
pub struct Scripted {
    repeat: Repeat,
    answer: Answer,
    calls: std::sync::Mutex<Vec<Call>>,
}

impl Scripted {
    pub fn new(
        repeat: Repeat,
        answer: impl Fn(&Call, usize) -> EffectResult + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { repeat, answer: Box::new(answer), calls: std::sync::Mutex::default() })
    }

    pub fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }
}

impl Connector for Scripted {
    fn actions(&self) -> &'static [&'static str] {
        &["http.request"]
    }

    fn repeat(&self, _: &Action) -> Repeat {
        self.repeat
    }

    fn perform<'a>(&'a self, call: &'a Call) -> futures_util::future::BoxFuture<'a, EffectResult> {
        let mut calls = self.calls.lock().unwrap();
        calls.push(call.clone());
        let result = (self.answer)(call, calls.len());
        Box::pin(async move { result })
    }

    fn probe<'a>(&'a self, _: &'a Call) -> futures_util::future::BoxFuture<'a, EffectResult> {
        Box::pin(async { EffectResult::Unknown("nothing to look up".into()) })
    }
}

/// An engine over a database of its own, with one workflow.
pub struct Rig {
    pub door: Door,
    pub store: Store,
    _folder: tempfile::TempDir,
}

/// What a rig is made of.
pub struct Setup<'a> {
    pub store: Store,
    pub definitions: &'a Definitions,
    /// The connectors; the real ones when empty.
    pub extra: Vec<Arc<dyn Connector>>,
    pub clock: Clock,
    /// Whether every other node of this database is gone.
    pub alone: bool,
}

impl Rig {
    pub async fn new(steps: Vec<Step>, extra: Vec<Arc<dyn Connector>>) -> Self {
        Self::over(database().await, steps, extra).await
    }

    pub async fn over(store: Store, steps: Vec<Step>, extra: Vec<Arc<dyn Connector>>) -> Self {
        Self::with(store, vec![version("test", steps)], extra).await
    }

    /// Over several workflows.
    pub async fn with(store: Store, versions: Vec<Version>, extra: Vec<Arc<dyn Connector>>) -> Self {
        let lease = Lease::take(&store, LEASE, true).await.unwrap();
        Self::holding(lease, store, versions, extra).await
    }

    /// With whatever definitions; unless it is `alone`, beside the other engines over the same database.
    pub async fn defining(
        store: Store,
        extra: Vec<Arc<dyn Connector>>,
        alone: bool,
        change: impl FnOnce(&mut Definitions),
    ) -> Self {
        let (folder, path) = database::folder();
        template::write(&path).unwrap();
        let (mut definitions, _) =
            Definitions::load(&path).map_err(|problems| problems.render(false)).unwrap();
        definitions.policy = Policy::default(); // nothing but what is structure
        definitions.workflows.clear();
        change(&mut definitions);
        let lease = Lease::take(&store, LEASE, alone).await.unwrap();
        let clock = lease.clock();
        let setup = Setup { store, definitions: &definitions, extra, clock, alone };
        Self::led(lease, setup, folder).await
    }

    /// One of several engines over one database.
    pub async fn beside(
        store: &Store,
        lease: Duration,
        steps: Vec<Step>,
        extra: Vec<Arc<dyn Connector>>,
    ) -> Self {
        let lease = Lease::take(store, lease, false).await.unwrap();
        Self::holding(lease, store.clone(), vec![version("test", steps)], extra).await
    }

    async fn holding(
        lease: Arc<Lease>,
        store: Store,
        versions: Vec<Version>,
        extra: Vec<Arc<dyn Connector>>,
    ) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (folder, path) = database::folder();
        template::write(&path).unwrap();
        let (mut definitions, _) =
            Definitions::load(&path).map_err(|problems| problems.render(false)).unwrap();
        let mut definition = definitions.workflows.values().next().unwrap().clone();
        definition.triggers.clear();
        definitions.policy = Policy::default(); // nothing but what is structure
        let defined = versions
            .into_iter()
            .map(|version| (version.workflow.clone(), Definition { version, ..definition.clone() }));
        definitions.workflows = defined.collect();
        let clock = lease.clock();
        let setup = Setup { store, definitions: &definitions, extra, clock, alone: true };
        Self::led(lease, setup, folder).await
    }

    /// A rig over definitions and a clock of the test's own.
    pub async fn start(setup: Setup<'_>, folder: tempfile::TempDir) -> Self {
        let lease = Lease::take(&setup.store, LEASE, setup.alone).await.unwrap();
        Self::led(lease, setup, folder).await
    }

    async fn led(lease: Arc<Lease>, setup: Setup<'_>, folder: tempfile::TempDir) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Setup { store, definitions, extra, clock, alone: _ } = setup;
        let path = folder.path();
        let terms = Terms::of(&definitions.settings, clock.clone());
        let ledger = Ledger::start(store.config(), terms).await.unwrap();
        let encoder = Encoder::lazy();
        let models = Models::start(&definitions.models, json!({}), None, encoder, ledger).await.unwrap();
        let connectors: Vec<Arc<dyn Connector>> = match extra.is_empty() {
            true => vec![
                Arc::new(Email::new(&definitions.connectors.email, path.join("outbox")).unwrap()),
                Arc::new(Http::new(&definitions.connectors.http).unwrap()),
                Arc::new(Records::new(store.clone())),
            ],
            false => extra,
        };
        let parts = Parts {
            lease,
            journal: Journal::start(store.config()).await.unwrap(),
            connectors: Connectors::of(connectors),
            embedder: Arc::new(models.encoder().clone()),
            models,
            store: store.clone(),
            clock,
        };
        let door = Door::start(Arc::new(Engine::new(parts, definitions).await.unwrap())).await.unwrap();
        Self { door, store, _folder: folder }
    }

    /// Lets policy alone decide.
    pub async fn live(self) -> Self {
        for workflow in self.door.engine().workflows() {
            let version = self.door.engine().current(&workflow).unwrap();
            set_stage(self.door.engine(), version.digest, Stage::Live).await;
        }
        self
    }

    /// Opens a run of any workflow for `{"what": what}`.
    pub async fn open_for(&self, workflow: &str, what: &str) -> Result<Opened, OpenError> {
        let request = Request {
            workflow: workflow.into(),
            input: json!({"what": what}),
            label: Label::Owner,
            trigger: "api",
            key: None,
            verified: None,
        };
        self.door.open(request).await
    }

    pub async fn open(&self, key: Option<&str>) -> Opened {
        self.open_about("everything", key).await
    }

    pub async fn open_about(&self, what: &str, key: Option<&str>) -> Opened {
        let request = Request {
            workflow: "test".into(),
            input: json!({"what": what}),
            label: Label::Owner,
            trigger: "api",
            key: key.map(str::to_owned),
            verified: None,
        };
        self.door.open(request).await.unwrap()
    }

    pub async fn status(&self, run: RunId) -> String {
        self.store.run_row(run).await.unwrap().unwrap().status
    }

    pub async fn becomes(&self, run: RunId, status: &str) {
        eventually(&format!("{run} becoming {status}"), || async {
            let found = self.status(run).await;
            assert!(
                !(found == "failed" && status != "failed"),
                "{:?}",
                self.store.journal(run, 0, 100).await
            );
            (found == status).then_some(())
        })
        .await;
        assert_eq!(self.store.verify_run(run).await.unwrap(), None);
    }

    pub async fn kinds(&self, run: RunId) -> Vec<String> {
        let journal = self.store.journal(run, 0, 1000).await.unwrap();
        journal.into_iter().map(|entry| entry.kind).collect()
    }

    pub async fn decide(&self, run: RunId, verdict: Verdict) -> ReviewId {
        let review = eventually("a review", || async {
            self.store.reviews("open", Some(run), None, 1).await.unwrap().pop()
        })
        .await;
        self.store.decide(review.id, review.digest, &verdict, "owner").await.unwrap();
        self.door.wake(run);
        review.id
    }
}

/// Says how far a version is trusted, as the owner says it.
pub async fn set_stage(engine: &Engine, version: Digest, stage: Stage) {
    let change = Restage { version, was: None, stage, by: "owner", reason: "", effect: None };
    assert!(engine.restage(&change).await.unwrap().is_some(), "there is no version {version}");
}

/// Adds a workflow that nothing opens by itself.
pub fn define(definitions: &mut Definitions, version: Version) {
    let definition = Definition {
        triggers: Vec::new(),
        version: version.clone(),
        retention: None,
        autonomy: Default::default(),
    };
    definitions.workflows.insert(version.workflow.clone(), definition);
}

/// A workflow over `{"what": …}` with flow control.
pub fn flowing(workflow: &str, flow: Flow, steps: Vec<Step>) -> Version {
    Version { flow, ..version(workflow, steps) }
}

pub fn version(workflow: &str, steps: Vec<Step>) -> Version {
    Version {
        workflow: workflow.into(),
        title: "A test of {{ input.what }}".into(),
        input: json!({"type": "object", "required": ["what"]}),
        steps,
        agents: BTreeMap::new(),
        deadline: None,
        output: None,
        flow: Flow::default(),
        sample: None,
        budget: Budget::default(),
        trust: Default::default(),
    }
}

pub fn step(id: &str, after: Option<&str>, action: &str, with: Value) -> Step {
    Step {
        id: id.into(),
        name: None,
        needs: after.map(StepId::from).into_iter().collect(),
        when: None,
        kind: StepKind::Action(ActionStep {
            action: action.into(),
            with,
            dedupe: None,
            review: None,
            delay: None,
        }),
        retry: Retry { attempts: 3, base: Span("50ms".parse::<Span>().unwrap().0), ..Retry::default() },
        timeout: Span::secs(10),
        deadline: None,
        each: None,
        undo: None,
    }
}

pub fn call_out(id: &str, after: Option<&str>) -> Step {
    step(id, after, "http.request", json!({"method": "POST", "url": "https://api.example/pay"}))
}

pub fn ten_steps() -> Vec<Step> {
    let id = |n: usize| format!("s{n}");
    let one = |n: usize| {
        let before = (n > 0).then(|| id(n - 1));
        step(&id(n), before.as_deref(), "noop", json!({"value": "{{ input.what }}"}))
    };
    (0..10).map(one).collect()
}
