//! The work of an agent step: ask the models of its tier, in their order, within the step's time.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use serde_json::Value;

use crate::domain::budget::Payer;
use crate::domain::event::{ErrorKind, StepError};
use crate::domain::label::Label;
use crate::domain::plan::{Answer, Stimulus};
use crate::domain::workflow::{Step, StepKind, Version};
use crate::orchestrator::engine::Engine;
use crate::orchestrator::failpoint;
use crate::orchestrator::run;

/// What the models that need no provider get when the providers have used the step's time up.
pub(super) const GRACE: Duration = Duration::from_secs(15);

/// Asks the agent of `step`, at the cost of `payer`; each model that fails is told to the run as it happens.
pub(super) async fn ask(
    engine: Arc<Engine>,
    run: ActorRef<run::Msg>,
    version: Arc<Version>,
    step: Step,
    with: Value,
    label: Label,
    payer: Payer,
) -> Stimulus {
    let agent = match &step.kind {
        StepKind::Agent(wanted) => version.agents.get(&wanted.agent),
        StepKind::Action(_) | StepKind::Review(_) | StepKind::Wait(_) | StepKind::Workflow(_) => None,
    };
    let Some(agent) = agent else {
        let error = StepError::new(ErrorKind::Invalid, "the step's agent is not part of its version");
        return Stimulus::Answered(step.id, None, Answer::Failed(error));
    };
    let tried = |call| {
        let _ = run.cast(run::Msg::Learn(Box::new(Stimulus::Tried(step.id.clone(), call))));
    };
    let asked = engine.models.answer(agent, &with, label, step.timeout.0, &payer, &tried);
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
