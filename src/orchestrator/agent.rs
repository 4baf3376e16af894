//! The work of an agent step: ask the models of its tiers, in their order, within the step's time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ractor::ActorRef;
use serde_json::Value;

use crate::domain::budget::Payer;
use crate::domain::event::{ErrorKind, ModelCall, StepError, ToolCall};
use crate::domain::ids::{CallId, RunId, StepId};
use crate::domain::label::Label;
use crate::domain::plan::{Answer, Stimulus};
use crate::domain::run::{Round, Run};
use crate::domain::workflow::{Mode, Step, StepKind, Version};
use crate::models::Asked;
use crate::models::record::Keeping;
use crate::models::witness::{Hear, Witness};
use crate::orchestrator::engine::Engine;
use crate::orchestrator::failpoint;
use crate::orchestrator::live::Draft;
use crate::orchestrator::{run, wait};
use crate::store::StoreError;
use crate::store::batches::BatchCall;

/// What the models that need no provider get when the providers have used the step's time up.
const GRACE: Duration = Duration::from_secs(15);

/// One agent step that is due.
pub(super) struct Due {
    /// The run's actor, which is told what happens.
    pub(super) actor: ActorRef<run::Msg>,
    /// The run.
    pub(super) run: RunId,
    /// Its version.
    pub(super) version: Arc<Version>,
    /// The step.
    pub(super) step: Step,
    /// What the agent is given.
    pub(super) with: Value,
    /// Where that came from.
    pub(super) label: Label,
    /// Its earlier drafts, and what the owner said to each.
    pub(super) rounds: Vec<Round>,
    /// Who pays.
    pub(super) payer: Payer,
    /// Which attempt of the step it is.
    pub(super) attempt: u32,
    /// Whether a call may go into a batch.
    pub(super) may_wait: bool,
    /// The call that went into one.
    pub(super) batched: Option<CallId>,
}

/// What an agent is given.
pub(super) struct Given {
    /// Its input.
    pub(super) with: Value,
    /// Where that came from.
    pub(super) label: Label,
    /// The call that went into a batch, and is to be gone on with.
    pub(super) batched: Option<CallId>,
}

impl Due {
    /// The present attempt of this step.
    pub(super) fn of(
        actor: ActorRef<run::Msg>,
        run: &Run,
        version: Arc<Version>,
        step: Step,
        given: Given,
    ) -> Self {
        let Given { with, label, batched } = given;
        let payer = Payer::of(run, &version, &step.id, step.timeout.0 + GRACE);
        let record = run.record(&step.id);
        let (attempt, rounds) = (record.attempt, record.rounds.clone());
        // What follows a failure does not wait for another batch.
        let may_wait = record.failures == 0
            && matches!(&step.kind, StepKind::Agent(wanted) if wanted.mode == Mode::Batch);
        Self { actor, run: run.id, version, step, with, label, rounds, payer, attempt, may_wait, batched }
    }
}

/// Asks the agent of the step; every call but the last, and every use of a tool, is told to the run as it
/// happens.
pub(super) async fn ask(engine: Arc<Engine>, due: Due) -> Stimulus {
    let Due { actor, run, version, step, with, label, rounds, payer, attempt, may_wait, batched } = due;
    let agent = match &step.kind {
        StepKind::Agent(wanted) => version.agents.get(&wanted.agent),
        StepKind::Action(_) | StepKind::Review(_) | StepKind::Wait(_) | StepKind::Workflow(_) => None,
    };
    let Some(agent) = agent else {
        let error = StepError::new(ErrorKind::Invalid, "the step's agent is not part of its version");
        return Stimulus::Answered(step.id, None, Answer::Failed(error));
    };
    let batched = match came_back(&engine, batched).await {
        Ok(batched) => batched,
        Err(error) => {
            let error = StepError::new(ErrorKind::Unavailable, format!("the answer of a batch: {error}"));
            return Stimulus::Answered(step.id, None, Answer::Failed(error));
        }
    };
    let telling =
        Telling { engine: engine.clone(), actor, run, step: step.id.clone(), calls: AtomicU64::new(0) };
    let asked = Asked {
        agent,
        with: &with,
        label,
        rounds: &rounds,
        limit: step.timeout.0,
        payer: &payer,
        tools: engine.tools.as_ref(),
        witness: &telling,
        keeping: Some(Keeping {
            calls: &engine.calls,
            run,
            step: &step.id,
            attempt,
            may_wait,
            batched: batched.as_ref(),
        }),
    };
    let asked = engine.models.answer(asked);
    let (call, answer) = match tokio::time::timeout(step.timeout.0 + GRACE, asked).await {
        Ok(answered) => answered,
        Err(_) => {
            let message = format!("no answer within {}", step.timeout);
            (None, Answer::Failed(StepError::new(ErrorKind::Timeout, message)))
        }
    };
    failpoint::hit(failpoint::AGENT_ANSWERED);
    Stimulus::Answered(step.id, call, answer)
}

/// What came back from a batch, or that it will not.
async fn came_back(engine: &Engine, call: Option<CallId>) -> Result<Option<BatchCall>, StoreError> {
    match call {
        Some(call) => wait::until_answered(|| engine.store.take_batch_call(call)).await,
        None => Ok(None),
    }
}

/// Tells the run what is to be durable, and those who watch it what is being written.
struct Telling {
    engine: Arc<Engine>,
    actor: ActorRef<run::Msg>,
    run: RunId,
    step: StepId,
    calls: AtomicU64,
}

impl Telling {
    fn learn(&self, stimulus: Stimulus) {
        let _ = self.actor.cast(run::Msg::Learn(Box::new(stimulus))); // a run that has ended learns no more
    }
}

impl Witness for Telling {
    fn called(&self, call: ModelCall) {
        self.learn(Stimulus::Tried(self.step.clone(), call));
    }

    fn looked_up(&self, call: ToolCall) {
        self.learn(Stimulus::LookedUp(self.step.clone(), call));
    }

    fn hear(&self, model: &str, part: Option<&str>) -> Option<Hear> {
        let watchers = self.engine.live.watchers(self.run)?;
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let (step, model, part) = (self.step.clone(), model.to_owned(), part.map(str::to_owned));
        let written = AtomicUsize::new(0);
        Some(Hear::new(move |piece| {
            let at = written.fetch_add(piece.len(), Ordering::Relaxed);
            let (step, model, part) = (step.clone(), model.clone(), part.clone());
            let _ = watchers.send(Draft { step, model, part, call, at, text: piece.to_owned() }); // or nobody is left
        }))
    }
}
