//! Agents' steps whose call goes into a batch: they wait like any other step, and go on with the answer as if
//! it had come at once.

use serde_json::Value;

use crate::domain::event::{ErrorKind, Event, Topic};
use crate::domain::ids::{CallId, HappeningId};
use crate::domain::label::Label;
use crate::domain::plan::{Planner, Stimulus, Task};
use crate::domain::run::IllegalEvent;
use crate::domain::workflow::{AgentStep, BATCH_WAIT, Step};

impl Topic {
    /// The event that a call of a model has its answer which went into a batch; it is about the call's id.
    /// Steward's own, as is the end of a run: nobody else may bring it.
    pub const CALL_ANSWERED: &str = "call.answered";

    /// The call whose answer is waited for, if it is one.
    #[must_use]
    pub fn call(&self) -> Option<CallId> {
        (self.event == Self::CALL_ANSWERED).then(|| self.matches.parse().ok())?
    }
}

impl Planner<'_, '_> {
    /// The step's call goes into a batch as soon as this is durable, and not before.
    pub(super) fn wait_for_batch(&mut self, step: &Step, call: CallId) -> Result<(), IllegalEvent> {
        let topic = Topic { event: Topic::CALL_ANSWERED.to_owned(), matches: call.to_string() };
        self.tasks.push(Task::Listen { step: step.id.clone(), topic: topic.clone() });
        let due_at = Some(BATCH_WAIT.after(self.env.now));
        self.system(Event::WaitBegan { step: step.id.clone(), topic: Some(topic), due_at })
    }

    /// The call has its answer. What follows may cost money: not while the owner holds everything.
    pub(super) fn batch_answered(
        &mut self,
        step: &Step,
        agent: &AgentStep,
        happening: HappeningId,
        data: &Value,
        label: Label,
    ) -> Result<(), IllegalEvent> {
        // Told twice, by the inbox and by a look at what has come: by now it may wait for another call.
        if self.run.heard.contains(&happening) {
            return Ok(());
        }
        if self.is_held() {
            let (step, data) = (step.id.clone(), data.clone());
            self.deferred.push(Stimulus::Happened { step, happening, data, label });
            return Ok(());
        }
        self.go_on_after_batch(step, agent, Some(happening))
    }

    /// The agent goes on with whatever came, were it nothing.
    pub(super) fn go_on_after_batch(
        &mut self,
        step: &Step,
        agent: &AgentStep,
        happening: Option<HappeningId>,
    ) -> Result<(), IllegalEvent> {
        self.system(Event::WaitEnded { step: step.id.clone(), happening })?;
        match self.begin_agent(step, agent) {
            Ok(begun) => begun,
            Err(error) => self.fail(step, ErrorKind::Invalid, error.to_string()),
        }
    }
}
