//! One actor per run in motion: it learns, plans, commits, and only then begins what was planned.
//!
//! At most one transition is on its way to the journal at a time; what is learnt meanwhile waits for
//! the next one. The actor's copy of the run is planned upon and so ahead of the journal by that one
//! transition; nothing is begun before the journal says that it is durable. When the journal refuses it,
//! the run stops, or is folded anew.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::domain::budget;
use crate::domain::digest::Digest;
use crate::domain::event::Parent;
use crate::domain::ids::{HappeningId, NodeId, StepId};
use crate::domain::plan::{EffectKey, Env, Existing, Rest, Stimulus, Task, Transition, advance};
use crate::domain::run::Run;
use crate::domain::workflow::{Step, Version};
use crate::orchestrator::engine::{Engine, Moved};
use crate::orchestrator::wait::Child;
use crate::orchestrator::worker::Work;
use crate::orchestrator::{action, agent, back, inbox, wait, worker};
use crate::store::StoreError;
use crate::store::journal::read::Loaded;
use crate::store::journal::seal::seal;
use crate::store::journal::{Commit, CommitError};
use crate::store::runs::Inbox;
use crate::store::workflows::VersionRow;

/// A run that is due within this time stays in memory; a longer sleep gives it back to the database.
pub(super) const NAP: SignedDuration = SignedDuration::from_secs(3);

/// The pause before a question to a database that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What a run actor is told.
pub enum Msg {
    /// Something happened to it.
    Learn(Box<Stimulus>),
    /// There may be something in its inbox.
    Listen,
    /// What was in its inbox.
    Heard(Result<Inbox, StoreError>),
    /// The transition on its way is durable, or refused.
    Committed(Result<(), CommitError>),
    /// A transition was refused because of this key: find out who holds it, and where the run stands.
    AskHolder(EffectKey),
    /// Who holds the key, and the run without the refused transition.
    KeyHolder(EffectKey, Result<Box<(Option<Existing>, Loaded)>, StoreError>),
    /// The node is stopping: begin nothing that another node can begin as well, and end once nothing
    /// is under way.
    Rest,
}

/// How a run actor begins.
pub struct Begin {
    /// What the actors share.
    pub engine: Arc<Engine>,
    /// The run as far as its journal tells.
    pub loaded: Loaded,
    /// The version it is pinned to.
    pub version: Arc<VersionRow>,
    /// The lease under which its node took it; all it does is fenced by this one.
    pub node: NodeId,
    /// What it was told; `None` when it was opened just now, so that nothing can have been under way.
    pub inbox: Option<Inbox>,
}

/// One run in motion.
pub struct RunActor;

/// What a run actor knows.
pub struct State {
    engine: Arc<Engine>,
    row: Arc<VersionRow>,
    /// Shared with agents, which outlive a message.
    version: Arc<Version>,
    /// As it will be once the transition on its way is durable.
    run: Run,
    head: Digest,
    /// Learnt and not planned with yet.
    learnt: Vec<Stimulus>,
    /// Topics of the inbox that `learnt` came from.
    heard: Vec<String>,
    signals: i32,
    /// Keys that this run has found taken.
    taken: BTreeMap<EffectKey, Existing>,
    /// The transition on its way to the journal.
    on_its_way: Option<OnItsWay>,
    /// The step that each worker works for.
    workers: HashMap<ActorId, StepId>,
    /// Steps for which is looked whether what they wait for has come: until that is known the run stays.
    looking: HashSet<StepId>,
    /// Learnt while the owner held everything; to be acted on when that is over.
    deferred: Vec<Stimulus>,
    /// The moment for which a tick is under way.
    armed: Option<Timestamp>,
    node: NodeId,
    /// The run's row is known to say that it is running.
    running: bool,
    /// The node is stopping.
    resting: bool,
}

/// Everything needed to go on when the journal accepts a transition, and to plan again when it does not.
struct OnItsWay {
    head: Digest,
    tasks: Vec<Task>,
    rest: Rest,
    nap: bool,
    learnt: Vec<Stimulus>,
    heard: Vec<String>,
    deferred: Vec<Stimulus>,
    due: Option<Timestamp>,
    published: Option<HappeningId>,
}

impl Actor for RunActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Begin;

    async fn pre_start(&self, myself: ActorRef<Msg>, begin: Begin) -> Result<State, ActorProcessingErr> {
        let mut state = State {
            engine: begin.engine,
            version: begin.version.version.clone(),
            row: begin.version,
            run: begin.loaded.run,
            head: begin.loaded.head,
            learnt: Vec::new(),
            heard: Vec::new(),
            signals: 0,
            taken: BTreeMap::new(),
            on_its_way: None,
            workers: HashMap::new(),
            looking: HashSet::new(),
            deferred: Vec::new(),
            armed: None,
            node: begin.node,
            running: begin.inbox.is_none(),
            resting: false,
        };
        if let Some(inbox) = begin.inbox {
            state.learnt.push(Stimulus::Recovered);
            state.hear(inbox);
        }
        let _ = myself.cast(Msg::Learn(Box::new(Stimulus::Tick)));
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Learn(stimulus) => state.learn(*stimulus),
            Msg::Listen => {
                state.listen(&myself);
                return Ok(());
            }
            Msg::Heard(Ok(inbox)) => state.hear(inbox),
            Msg::Heard(Err(error)) => return state.ask_again(&myself, error, || Msg::Listen),
            Msg::Committed(Ok(())) => state.accepted(&myself).await?,
            Msg::Committed(Err(refusal)) => return state.refused(&myself, refusal),
            Msg::KeyHolder(key, Ok(found)) => state.plan_again(key, found.0, found.1),
            Msg::KeyHolder(key, Err(error)) => {
                return state.ask_again(&myself, error, move || Msg::AskHolder(key.clone()));
            }
            Msg::AskHolder(key) => {
                state.ask_holder(&myself, key);
                return Ok(());
            }
            Msg::Rest => {
                state.resting = true;
                state.rest(&myself);
                return Ok(());
            }
        }
        state.advance(&myself).await?;
        state.rest(&myself);
        Ok(())
    }

    /// A worker that ends in order has told its result; one that does not leaves its step without.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, _, _) => {
                state.workers.remove(&who.get_id());
            }
            SupervisionEvent::ActorFailed(who, error) => {
                if let Some(step) = state.workers.remove(&who.get_id()) {
                    tracing::error!(run = %state.run.id, %step, %error, "the work of a step crashed");
                    let crashed = inbox::crashed(&state.run, step, &error.to_string());
                    state.learnt.push(crashed);
                    state.advance(&myself).await?;
                }
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        state.rest(&myself);
        Ok(())
    }
}

impl State {
    /// Ends, if the node is stopping and nothing is under way: the supervisor then gives the run back.
    fn rest(&self, myself: &ActorRef<Msg>) {
        if self.resting && self.on_its_way.is_none() && self.workers.is_empty() {
            myself.stop(None);
        }
    }

    fn listen(&self, myself: &ActorRef<Msg>) {
        let (engine, run, myself) = (self.engine.clone(), self.run.id, myself.clone());
        tokio::spawn(async move {
            let _ = myself.cast(Msg::Heard(engine.store.inbox(run).await));
        });
    }

    fn hear(&mut self, inbox: Inbox) {
        self.signals = inbox.signals;
        for (topic, data) in inbox.messages {
            let on_its_way = self.on_its_way.iter().flat_map(|way| &way.heard);
            if self.heard.iter().chain(on_its_way).any(|heard| *heard == topic) {
                continue;
            }
            match inbox::stimulus(&self.run, &topic, &data) {
                Some(stimulus) => self.learnt.push(stimulus),
                None => tracing::error!(run = %self.run.id, topic, "a message in the inbox cannot be read"),
            }
            self.heard.push(topic);
        }
        self.learnt.push(Stimulus::Tick);
    }

    fn learn(&mut self, stimulus: Stimulus) {
        if let Stimulus::Happened { step, .. } | Stimulus::Quiet(step) | Stimulus::ChildEnded(step, _) =
            &stimulus
        {
            self.looking.remove(step);
        }
        self.learnt.push(stimulus);
    }

    fn ask_holder(&self, myself: &ActorRef<Msg>, key: EffectKey) {
        let (engine, myself) = (self.engine.clone(), myself.clone());
        let run = self.run.id;
        tokio::spawn(async move {
            let found = async {
                let holder = engine.store.key_holder(&key).await?;
                let loaded = engine.store.load_run(run).await?;
                let missing = || StoreError::corrupt(format!("run {run}"), "its journal is empty");
                Ok(Box::new((holder, loaded.ok_or_else(missing)?)))
            };
            let found = found.await;
            let _ = myself.cast(Msg::KeyHolder(key, found));
        });
    }

    /// A database that does not answer for a while is no fault of the run: ask again in a moment.
    fn ask_again(
        &self,
        myself: &ActorRef<Msg>,
        error: StoreError,
        question: impl Fn() -> Msg + Send + 'static,
    ) -> Result<(), ActorProcessingErr> {
        if !error.retryable() {
            return Err(error.into());
        }
        tracing::warn!(run = %self.run.id, %error, "a run cannot ask the database; it asks again");
        myself.send_after(ASK_AGAIN, question);
        Ok(())
    }

    /// Nothing of the refused transition has happened: what it was made from is learnt anew.
    fn plan_again(&mut self, key: EffectKey, holder: Option<Existing>, loaded: Loaded) {
        let Some(way) = self.on_its_way.take() else { return };
        self.run = loaded.run;
        self.head = loaded.head;
        self.learnt.splice(0..0, way.learnt);
        self.heard.splice(0..0, way.heard);
        if let Some(holder) = holder {
            self.taken.insert(key, holder);
        }
    }

    /// Plans with what was learnt until a transition is on its way, or nothing is left to plan with.
    async fn advance(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        while self.on_its_way.is_none() && !(self.learnt.is_empty() && self.heard.is_empty()) {
            self.plan(myself).await?;
        }
        Ok(())
    }

    async fn plan(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        let now = self.engine.now();
        let paused = self.engine.holds(&self.run.opened.workflow);
        if !paused {
            self.learnt.splice(0..0, std::mem::take(&mut self.deferred));
        }
        let expected_seq = self.run.seq;
        let connectors = &self.engine.connectors;
        let transition = advance(
            &mut self.run,
            &self.learnt,
            &Env {
                version: &self.version,
                stage: self.row.stage,
                policy: &self.engine.policy,
                workspace: &self.engine.workspace,
                repeat: &|action| connectors.repeat(action),
                paused,
                taken: &self.taken,
                now,
                jitter: rand::random(),
            },
        )?;
        let Transition { entries, tasks, rest, due, deferred } = transition;
        // What is being looked for may have come: then there is no rest.
        let rest = match rest {
            Rest::Asleep { .. } | Rest::Paused | Rest::Parked if !self.looking.is_empty() => Rest::Busy,
            rest => rest,
        };
        let learnt = std::mem::take(&mut self.learnt);
        let heard = std::mem::take(&mut self.heard);
        if entries.is_empty() && heard.is_empty() && rest == Rest::Busy {
            self.deferred.extend(deferred);
            self.arm(myself, due);
            return self.begin(myself, tasks).await;
        }
        let publish = inbox::end_for_parent(&self.run, &entries);
        let nap =
            !paused && matches!(rest, Rest::Asleep { wake_at: Some(at) } if now.duration_until(at) <= NAP);
        let entries = seal(self.head, expected_seq, now, entries);
        let head = entries.last().map_or(self.head, |last| last.hash);
        let commit = Commit {
            run: self.run.id,
            node: self.node,
            expected_seq,
            entries,
            running: self.running,
            rest,
            nap,
            signals: self.signals,
            heard: heard.clone(),
            at: now,
            publish,
            slot: self.version.flow.concurrency.is_some(),
        };
        let published = commit.publish.as_ref().map(|happening| happening.id);
        self.on_its_way = Some(OnItsWay { head, tasks, rest, nap, learnt, heard, deferred, due, published });
        let myself = myself.clone();
        let done = move |result| {
            let _ = myself.cast(Msg::Committed(result));
        };
        self.engine.journal.commit(commit, Box::new(done));
        Ok(())
    }

    async fn accepted(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        let Some(way) = self.on_its_way.take() else { return Ok(()) };
        self.head = way.head;
        self.running = way.rest == Rest::Busy;
        self.taken.clear();
        let moved = Moved { run: self.run.id, seq: self.run.seq, status: way.rest.status() };
        let _ = self.engine.moved.send(moved); // nobody may be listening
        self.deferred.extend(way.deferred);
        match way.rest {
            Rest::Busy => {
                self.arm(myself, way.due);
                self.begin(myself, way.tasks).await
            }
            Rest::Asleep { wake_at: Some(at) } if way.nap => {
                let pause = Duration::try_from(self.engine.now().duration_until(at)).unwrap_or_default();
                myself.send_after(pause, || Msg::Learn(Box::new(Stimulus::Tick)));
                Ok(())
            }
            Rest::Asleep { .. } | Rest::Paused | Rest::Parked | Rest::Over(_) => {
                self.begin(myself, way.tasks).await?; // only runs to be asked to stop: they need no run of ours
                inbox::tell_parent(&self.engine, way.published);
                // The row has no owner any more. Hints that came meanwhile are in the row as signals.
                self.learnt.clear();
                self.heard.clear();
                myself.stop(None);
                Ok(())
            }
        }
    }

    /// While something is under way, something else may become due.
    fn arm(&mut self, myself: &ActorRef<Msg>, due: Option<Timestamp>) {
        let now = self.engine.now();
        let Some(due) = due.filter(|due| self.armed.is_none_or(|armed| armed <= now || *due < armed)) else {
            return;
        };
        self.armed = Some(due);
        let pause = Duration::try_from(now.duration_until(due)).unwrap_or_default();
        myself.send_after(pause, || Msg::Learn(Box::new(Stimulus::Tick)));
    }

    fn refused(&mut self, myself: &ActorRef<Msg>, refusal: CommitError) -> Result<(), ActorProcessingErr> {
        match refusal {
            CommitError::Fenced => {
                self.engine.fenced.fetch_add(1, Ordering::Relaxed);
                tracing::info!(run = %self.run.id, "another node owns this run now");
                myself.stop(None);
                Ok(())
            }
            // Until the holder is known the transition stays on its way, so that nothing is planned upon it.
            CommitError::KeyTaken(key) => {
                self.ask_holder(myself, key);
                Ok(())
            }
            CommitError::Store(error) => Err(error.into()),
        }
    }

    async fn begin(&mut self, myself: &ActorRef<Msg>, tasks: Vec<Task>) -> Result<(), ActorProcessingErr> {
        for task in tasks {
            // What is durable as started must be carried out here, or nobody would know whether it was.
            if self.resting && !matches!(task, Task::Perform(_)) {
                continue;
            }
            let engine = self.engine.clone();
            let (step, work): (StepId, Work) = match task {
                // Whoever begins tasks advances after that: no need for a message.
                Task::Instant(step) => {
                    self.learnt.push(Stimulus::Instant(step));
                    continue;
                }
                Task::Agent { step, with, label } => {
                    let definition = self.step(&step)?;
                    let version = self.version.clone();
                    let due = agent::Due::of(myself.clone(), &self.run, version, definition, with, label);
                    (step, Box::pin(agent::ask(engine, due)))
                }
                Task::Read { step, action, label } => {
                    let timeout = self.step(&step)?.timeout;
                    (step.clone(), Box::pin(action::read(engine, step, action, label, timeout)))
                }
                Task::LookBack(lookup) => {
                    let (step, timeout) = (lookup.step.clone(), self.step(&lookup.step)?.timeout);
                    (step, Box::pin(back::look(engine, self.run.id, *lookup, timeout)))
                }
                Task::Perform(proposal) => {
                    let (step, timeout) = (proposal.step.clone(), self.step(&proposal.step)?.timeout);
                    (step, Box::pin(action::perform(engine, self.node, *proposal, timeout)))
                }
                Task::Probe(proposal) => {
                    let (step, timeout) = (proposal.step.clone(), self.step(&proposal.step)?.timeout);
                    (step, Box::pin(action::probe(engine, *proposal, timeout)))
                }
                Task::Listen { step, topic } => {
                    self.looking.insert(step.clone());
                    let (since, heard) = (self.run.opened_at, self.run.heard.iter().copied().collect());
                    (step.clone(), Box::pin(wait::listen(engine, step, topic, since, heard)))
                }
                Task::Attend { step, run } => {
                    self.looking.insert(step.clone());
                    (step.clone(), Box::pin(wait::attend(engine, step, run)))
                }
                Task::Open { step, attempt, workflow, input, label, budget_micros } => {
                    let pays = budget::paying_for_child(&self.run, &self.version);
                    let parent = Parent { run: self.run.id, step: step.clone(), pays };
                    let child = Child { parent, attempt, workflow, input, label, budget_micros };
                    (step, Box::pin(wait::open(engine, child)))
                }
                Task::Stop(run) => {
                    tokio::spawn(wait::stop(engine, run, self.run.id));
                    continue;
                }
            };
            self.workers.insert(worker::begin(myself, work).await?, step);
        }
        Ok(())
    }

    fn step(&self, id: &StepId) -> Result<Step, ActorProcessingErr> {
        Ok(self
            .version
            .step(id)
            .map(Cow::into_owned)
            .ok_or_else(|| format!("step `{id}` is not part of the version"))?)
    }
}
