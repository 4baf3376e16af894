//! Second thoughts: an effect that may happen waits for a moment in which the owner can call it back.

use crate::domain::action::{self, Reach};
use crate::domain::duration::Span;
use crate::domain::event::{Event, Proposal};
use crate::domain::ids::EffectId;
use crate::domain::label::Label;
use crate::domain::plan::Planner;
use crate::domain::run::IllegalEvent;
use crate::domain::step::StepStatus;
use crate::domain::workflow::{ActionStep, Step, StepKind};

impl Planner<'_, '_> {
    /// An effect that may happen: at once, or once the time is over in which it can be called back.
    pub(super) fn let_go(&mut self, step: &Step, proposal: Box<Proposal>) -> Result<(), IllegalEvent> {
        let Some(delay) = self.delay(step, &proposal) else { return self.start(proposal) };
        self.system(Event::EffectHeld {
            step: proposal.step.clone(),
            effect: proposal.effect,
            digest: proposal.digest,
            action: proposal.action.clone(),
            until: delay.after(self.env.now),
        })
    }

    /// Undoing is never held up: whoever undoes wants it done.
    fn delay(&self, step: &Step, proposal: &Proposal) -> Option<Span> {
        let StepKind::Action(ActionStep { action, delay, .. }) = &step.kind else { return None };
        let external = action::spec(action).is_some_and(|spec| spec.reach == Reach::External);
        let delay = delay.or_else(|| self.env.terms.delay.get(action).copied());
        delay.filter(|delay| external && !delay.0.is_zero() && !proposal.step.place().undo)
    }

    /// A held effect does not go out: the owner is asked anew. One that was started, or is not held any
    /// more, cannot be called back.
    pub(super) fn call_back(&mut self, effect: EffectId, by: &str) -> Result<(), IllegalEvent> {
        let held = self.run.steps.iter().find_map(|(id, record)| match &record.status {
            StepStatus::Held { proposal, .. } if proposal.effect == effect => {
                Some((id.clone(), proposal.clone()))
            }
            _ => None,
        });
        let Some((id, proposal)) = held else { return Ok(()) };
        let Some(step) = self.env.version.step(&id) else { return Ok(()) };
        let event = Event::EffectCalledBack { step: id.clone(), effect, by: by.to_owned() };
        self.emit("owner", Label::Owner, event)?;
        self.ask_anew(&step, *proposal, &format!("{by} called it back before it went out"))
    }

    /// Asks about a proposal once more, for this reason before all others.
    pub(super) fn ask_anew(
        &mut self,
        step: &Step,
        mut proposal: Proposal,
        why: &str,
    ) -> Result<(), IllegalEvent> {
        let StepKind::Action(wanted) = &step.kind else { return Ok(()) };
        proposal.decision.reasons.insert(0, why.to_owned());
        self.ask_for_approval(step, wanted, &proposal, false)
    }
}
