//! One actor per run in motion: it learns, plans, commits, and only then begins what was planned.
//!
//! At most one transition is on its way to the journal at a time; what is learnt meanwhile waits for
//! the next one. The actor's copy of the run changes only when the journal says that it has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use serde_json::Value;

use crate::domain::digest::Digest;
use crate::domain::event::{ErrorKind, StepError, Verdict};
use crate::domain::ids::{ReviewId, StepId};
use crate::domain::plan::{
    Answer, EffectKey, EffectResult, Env, Existing, Rest, Stimulus, Task, Transition, advance,
};
use crate::domain::run::Run;
use crate::domain::step::StepStatus;
use crate::domain::workflow::{Step, Version};
use crate::orchestrator::engine::{Engine, Moved};
use crate::orchestrator::{action, agent, worker};
use crate::store::StoreError;
use crate::store::journal::read::Loaded;
use crate::store::journal::seal::seal;
use crate::store::journal::{Commit, CommitError};
use crate::store::runs::Inbox;
use crate::store::workflows::VersionRow;

/// A run that is due within this time stays in memory; a longer sleep gives it back to the database.
const NAP: SignedDuration = SignedDuration::from_secs(3);

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
    /// A transition was refused because of this key: find out who holds it.
    AskHolder(EffectKey),
    /// Who holds the key.
    KeyHolder(EffectKey, Result<Option<Existing>, StoreError>),
}

/// How a run actor begins.
pub struct Begin {
    /// What the actors share.
    pub engine: Arc<Engine>,
    /// The run as far as its journal tells.
    pub loaded: Loaded,
    /// The version it is pinned to.
    pub version: Arc<VersionRow>,
    /// Whether it was opened just now: then nothing can have been under way.
    pub fresh: bool,
}

/// One run in motion.
pub struct RunActor;

/// What a run actor knows.
pub struct State {
    engine: Arc<Engine>,
    row: Arc<VersionRow>,
    /// Shared with agents, which outlive a message.
    version: Arc<Version>,
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
}

/// Everything needed to go on when the journal accepts a transition, and to plan again when it does not.
struct OnItsWay {
    run: Run,
    head: Digest,
    tasks: Vec<Task>,
    rest: Rest,
    nap: bool,
    learnt: Vec<Stimulus>,
    heard: Vec<String>,
}

impl Actor for RunActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Begin;

    async fn pre_start(&self, myself: ActorRef<Msg>, begin: Begin) -> Result<State, ActorProcessingErr> {
        let mut state = State {
            engine: begin.engine,
            version: Arc::new(begin.version.version.clone()),
            row: begin.version,
            run: begin.loaded.run,
            head: begin.loaded.head,
            learnt: Vec::new(),
            heard: Vec::new(),
            signals: 0,
            taken: BTreeMap::new(),
            on_its_way: None,
            workers: HashMap::new(),
        };
        if begin.fresh {
            let _ = myself.cast(Msg::Learn(Box::new(Stimulus::Tick)));
        } else {
            state.learnt.push(Stimulus::Recovered);
            state.listen(&myself);
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Learn(stimulus) => state.learnt.push(*stimulus),
            Msg::Listen => {
                state.listen(&myself);
                return Ok(());
            }
            Msg::Heard(Ok(inbox)) => state.hear(inbox),
            Msg::Heard(Err(error)) => return state.ask_again(&myself, error, || Msg::Listen),
            Msg::Committed(Ok(())) => state.accepted(&myself).await?,
            Msg::Committed(Err(refusal)) => return state.refused(&myself, refusal),
            Msg::KeyHolder(key, Ok(holder)) => state.learn_holder(key, holder),
            Msg::KeyHolder(key, Err(error)) => {
                return state.ask_again(&myself, error, move || Msg::AskHolder(key.clone()));
            }
            Msg::AskHolder(key) => {
                state.ask_holder(&myself, key);
                return Ok(());
            }
        }
        state.advance(&myself).await
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
                    state.learn_crash(step, &error.to_string());
                    state.advance(&myself).await?;
                }
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl State {
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
            match stimulus(&topic, &data) {
                Some(stimulus) => self.learnt.push(stimulus),
                None => tracing::error!(run = %self.run.id, topic, "a message in the inbox cannot be read"),
            }
            self.heard.push(topic);
        }
        self.learnt.push(Stimulus::Tick);
    }

    fn learn_crash(&mut self, step: StepId, error: &str) {
        let message = format!("the work crashed: {error}");
        self.learnt.push(match self.run.status(&step) {
            StepStatus::Effecting { .. } => Stimulus::Effect(step, EffectResult::Unknown(message)),
            _ => Stimulus::Answered(step, None, Answer::Failed(StepError::new(ErrorKind::Internal, message))),
        });
    }

    fn ask_holder(&self, myself: &ActorRef<Msg>, key: EffectKey) {
        let (engine, myself) = (self.engine.clone(), myself.clone());
        tokio::spawn(async move {
            let holder = engine.store.key_holder(&key).await;
            let _ = myself.cast(Msg::KeyHolder(key, holder));
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

    fn learn_holder(&mut self, key: EffectKey, holder: Option<Existing>) {
        if let Some(holder) = holder {
            self.taken.insert(key, holder);
        }
    }

    /// Plans with what was learnt and sends the transition on its way, unless one is already.
    async fn advance(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        if self.on_its_way.is_some() || (self.learnt.is_empty() && self.heard.is_empty()) {
            return Ok(());
        }
        let now = self.engine.now();
        let mut run = self.run.clone();
        let connectors = &self.engine.connectors;
        let transition = advance(
            &mut run,
            &self.learnt,
            &Env {
                version: &self.version,
                stage: self.row.stage,
                policy: &self.engine.policy,
                workspace: &self.engine.workspace,
                repeat: &|action| connectors.repeat(action),
                taken: &self.taken,
                now,
                jitter: rand::random(),
            },
        )?;
        let Transition { entries, tasks, rest } = transition;
        let learnt = std::mem::take(&mut self.learnt);
        let heard = std::mem::take(&mut self.heard);
        if entries.is_empty() && heard.is_empty() && rest == Rest::Busy {
            return self.begin(myself, tasks).await;
        }
        let nap = matches!(rest, Rest::Asleep { wake_at: Some(at) } if now.duration_until(at) <= NAP);
        let entries = seal(self.head, self.run.seq, now, entries);
        let head = entries.last().map_or(self.head, |last| last.hash);
        let commit = Commit {
            run: self.run.id,
            node: self.engine.node,
            expected_seq: self.run.seq,
            entries,
            rest,
            nap,
            signals: self.signals,
            heard: heard.clone(),
            at: now,
        };
        self.on_its_way = Some(OnItsWay { run, head, tasks, rest, nap, learnt, heard });
        let myself = myself.clone();
        let done = move |result| {
            let _ = myself.cast(Msg::Committed(result));
        };
        self.engine.journal.commit(commit, Box::new(done));
        Ok(())
    }

    async fn accepted(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        let Some(way) = self.on_its_way.take() else { return Ok(()) };
        self.run = way.run;
        self.head = way.head;
        self.taken.clear();
        let moved = Moved { run: self.run.id, seq: self.run.seq, status: way.rest.status() };
        let _ = self.engine.moved.send(moved); // nobody may be listening
        match way.rest {
            Rest::Busy => self.begin(myself, way.tasks).await,
            Rest::Asleep { wake_at: Some(at) } if way.nap => {
                let pause = Duration::try_from(self.engine.now().duration_until(at)).unwrap_or_default();
                myself.send_after(pause, || Msg::Learn(Box::new(Stimulus::Tick)));
                Ok(())
            }
            Rest::Asleep { .. } | Rest::Over(_) => {
                // The row has no owner any more. Hints that came meanwhile are in the row as signals.
                self.learnt.clear();
                self.heard.clear();
                myself.stop(None);
                Ok(())
            }
        }
    }

    fn refused(&mut self, myself: &ActorRef<Msg>, refusal: CommitError) -> Result<(), ActorProcessingErr> {
        let Some(way) = self.on_its_way.take() else { return Ok(()) };
        match refusal {
            CommitError::Fenced => {
                tracing::info!(run = %self.run.id, "another node owns this run now");
                myself.stop(None);
                Ok(())
            }
            CommitError::KeyTaken(key) => {
                self.plan_again(way);
                self.ask_holder(myself, key);
                Ok(())
            }
            CommitError::Store(error) => Err(error.into()),
        }
    }

    /// Nothing of the refused transition has happened: what it was made from is learnt anew.
    fn plan_again(&mut self, way: OnItsWay) {
        self.learnt.splice(0..0, way.learnt);
        self.heard.splice(0..0, way.heard);
    }

    async fn begin(&mut self, myself: &ActorRef<Msg>, tasks: Vec<Task>) -> Result<(), ActorProcessingErr> {
        for task in tasks {
            let engine = self.engine.clone();
            let (step, worker) = match task {
                Task::Instant(step) => {
                    let _ = myself.cast(Msg::Learn(Box::new(Stimulus::Instant(step))));
                    continue;
                }
                Task::Agent { step, with, label } => {
                    let definition = self.step(&step)?;
                    let work =
                        agent::ask(engine, myself.clone(), self.version.clone(), definition, with, label);
                    (step, worker::begin(myself, work).await?)
                }
                Task::Read { step, action, label } => {
                    let timeout = self.step(&step)?.timeout;
                    let work = action::read(engine, step.clone(), action, label, timeout);
                    (step, worker::begin(myself, work).await?)
                }
                Task::Perform(proposal) => {
                    let (step, timeout) = (proposal.step.clone(), self.step(&proposal.step)?.timeout);
                    (step, worker::begin(myself, action::perform(engine, *proposal, timeout)).await?)
                }
                Task::Probe(proposal) => {
                    let (step, timeout) = (proposal.step.clone(), self.step(&proposal.step)?.timeout);
                    (step, worker::begin(myself, action::probe(engine, *proposal, timeout)).await?)
                }
            };
            self.workers.insert(worker, step);
        }
        Ok(())
    }

    fn step(&self, id: &StepId) -> Result<Step, ActorProcessingErr> {
        Ok(self.version.step(id).cloned().ok_or_else(|| format!("step `{id}` is not part of the version"))?)
    }
}

/// A message of the inbox as something learnt; `None` when it cannot be read.
fn stimulus(topic: &str, data: &Value) -> Option<Stimulus> {
    let by = data.get("by")?.as_str()?.to_owned();
    if topic == "cancel" {
        return Some(Stimulus::Cancel { by });
    }
    let review: ReviewId = topic.strip_prefix("review:")?.parse().ok()?;
    let verdict: Verdict = serde_json::from_value(data.get("verdict")?.clone()).ok()?;
    Some(Stimulus::Decided { review, verdict, by })
}
