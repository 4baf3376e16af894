//! I3, I4, I5, I11 and the numbers of I7, as one run's journal tells them. Effects and reviews are
//! followed one by one, apart from the fold: what the fold accepts is not taken for granted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::action::{Action, Repeat};
use crate::domain::digest::Digest;
use crate::domain::event::{Ask, Event, ModelCall, Outcome, Proposal, Question, Verdict};
use crate::domain::ids::{EffectId, ReviewId, StepId};
use crate::domain::policy::Ruling;
use crate::store::audit::{Findings, Invariant};

/// What a journal tells.
#[derive(Default)]
pub(super) struct Told {
    pub(super) effects: BTreeMap<EffectId, Effect>,
    pub(super) reviews: BTreeMap<ReviewId, Review>,
    pub(super) outcome: Option<Outcome>,
    pub(super) attempts: u64,
    pub(super) model_calls: u64,
    pub(super) cost_micros: i64,
    /// The attempt under way or the last one, by step.
    attempt: BTreeMap<StepId, u32>,
}

/// One effect.
pub(super) struct Effect {
    pub(super) step: StepId,
    pub(super) attempt: u32,
    pub(super) key: String,
    pub(super) action: Action,
    /// Of what was started, or proposed.
    pub(super) digest: Digest,
    pub(super) stands: Stands,
    pub(super) response: Option<Value>,
    /// It may happen, and waits for its moment.
    pub(super) held: bool,
    ruling: Ruling,
}

/// Where an effect stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stands {
    Proposed,
    Started,
    Succeeded,
    Failed,
    Unknown,
    Withdrawn,
    Compensated,
}

/// One review.
pub(super) struct Review {
    pub(super) step: StepId,
    pub(super) ask: Ask,
    pub(super) digest: Digest,
    pub(super) verdict: Option<Verdict>,
    pub(super) superseded: bool,
    action: Option<Action>,
    /// The effect that it let start, or start again.
    used_by: Option<EffectId>,
    /// The owner has called back what it let go: it lets nothing start any more.
    void: bool,
}

impl Review {
    /// The digest of what may be done.
    fn allows(&self) -> Option<Digest> {
        match (&self.verdict, self.ask) {
            _ if self.void => None,
            (Some(Verdict::Approved), Ask::Approval) => Some(self.digest),
            (Some(Verdict::Edited { params }), Ask::Approval) => {
                let action = self.action.as_ref()?.action.clone();
                Some(Action { action, params: params.clone() }.digest())
            }
            _ => None,
        }
    }

    /// Whether the owner, asked what became of an effect, gave this answer.
    fn answers(&self, choice: &str) -> bool {
        self.ask == Ask::InDoubt
            && matches!(&self.verdict, Some(Verdict::Answered { answer }) if answer.as_str() == Some(choice))
    }
}

/// Follows the events of a run.
pub(super) fn tell(
    events: &[(Event, Timestamp)],
    repeat: &(dyn Fn(&Action) -> Repeat + Send + Sync),
    findings: &mut Findings<'_>,
) -> Told {
    let mut told = Told::default();
    for (seq, (event, _)) in (1i64..).zip(events) {
        let mut breach = |invariant, what: String| findings.add(invariant, format!("entry {seq}: {what}"));
        told.follow(event, repeat, &mut breach);
    }
    told
}

type Breach<'a> = &'a mut dyn FnMut(Invariant, String);

impl Told {
    fn follow(&mut self, event: &Event, repeat: &dyn Fn(&Action) -> Repeat, breach: Breach<'_>) {
        match event {
            Event::StepStarted { step, attempt } => self.attempt_begins(step, *attempt, breach),
            Event::ModelCalled { step, attempt, call } => self.model_called(step, *attempt, call, breach),
            Event::ToolCalled { step, attempt, .. }
            | Event::AttemptFailed { step, attempt, .. }
            | Event::StepSucceeded { step, attempt, .. } => {
                self.in_attempt(step, *attempt, breach);
            }
            Event::EffectProposed(proposal) => self.proposed(proposal, breach),
            Event::EffectStarted { effect, digest, action, again, .. } => {
                if action.digest() != *digest {
                    breach(Invariant::I4, format!("effect {effect} was started under a digest not its own"));
                }
                match again {
                    false => self.started(*effect, *digest, action, breach),
                    true => self.started_again(*effect, *digest, repeat(action), breach),
                }
            }
            Event::EffectHeld { effect, digest, action, until: _, .. } => {
                self.held(*effect, *digest, action, breach);
            }
            Event::EffectCalledBack { effect, .. } => self.called_back(*effect, breach),
            Event::EffectSucceeded { effect, response, .. } => self.succeeded(*effect, response, breach),
            Event::EffectFailed { effect, .. } => self.ended(*effect, Stands::Failed, breach),
            Event::EffectUnknown { effect, .. } => self.ended(*effect, Stands::Unknown, breach),
            Event::EffectWithdrawn { effect, .. } => self.withdrawn(*effect, breach),
            Event::EffectCompensated { effect: Some(effect), .. } => self.compensated(*effect, breach),
            Event::ReviewOpened(question) => self.asked(question, breach),
            Event::RunParked(parked) => self.asked(&parked.question, breach),
            // The decision itself is the table's: the run hears what follows from it.
            Event::RunUnparked { review, .. } => self.superseded(*review, breach),
            Event::RunReopened { .. } => self.outcome = None,
            Event::ReviewDecided { review, verdict, .. } => self.decided(*review, verdict, breach),
            Event::ReviewSuperseded { review, .. } => self.superseded(*review, breach),
            Event::RunFinished { outcome, .. } => self.finished(*outcome, breach),
            _ => {} // the fold alone has a say in the rest
        }
    }

    fn attempt_begins(&mut self, step: &StepId, attempt: u32, breach: Breach<'_>) {
        self.attempts += 1;
        let before = self.attempt.insert(step.clone(), attempt).unwrap_or(0);
        if attempt != before + 1 {
            breach(Invariant::I7, format!("step `{step}` began attempt {attempt} after attempt {before}"));
        }
    }

    /// A step without attempts, as pure ones are, is in its first.
    fn in_attempt(&mut self, step: &StepId, attempt: u32, breach: Breach<'_>) {
        let under_way = self.attempt.get(step).copied().unwrap_or(1);
        if attempt != under_way {
            let what = format!("attempt {attempt} of step `{step}` speaks while {under_way} is under way");
            breach(Invariant::I7, what);
        }
    }

    fn model_called(&mut self, step: &StepId, attempt: u32, call: &ModelCall, breach: Breach<'_>) {
        self.model_calls += 1;
        self.cost_micros = self.cost_micros.saturating_add(call.cost_micros);
        if call.cost_micros < 0 {
            breach(Invariant::I9, format!("a call of {} cost less than nothing", call.model));
        }
        self.in_attempt(step, attempt, breach);
    }

    fn proposed(&mut self, proposal: &Proposal, breach: Breach<'_>) {
        if proposal.action.digest() != proposal.digest {
            let what = format!("effect {} was proposed under a digest not its own", proposal.effect);
            breach(Invariant::I4, what);
        }
        self.in_attempt(&proposal.step, proposal.attempt, breach);
        let effect = Effect {
            step: proposal.step.clone(),
            attempt: proposal.attempt,
            key: proposal.key.clone(),
            action: proposal.action.clone(),
            digest: proposal.digest,
            stands: Stands::Proposed,
            response: None,
            held: false,
            ruling: proposal.decision.ruling,
        };
        if self.effects.insert(proposal.effect, effect).is_some() {
            breach(Invariant::I3, format!("effect {} was proposed twice", proposal.effect));
        }
    }

    fn started(&mut self, id: EffectId, digest: Digest, action: &Action, breach: Breach<'_>) {
        let Some(effect) = self.effects.get(&id) else {
            return breach(Invariant::I4, format!("effect {id} was started without a proposal"));
        };
        if effect.stands != Stands::Proposed {
            let what = format!("effect {id} was started for the first time when it was {:?}", effect.stands);
            breach(Invariant::I3, what);
        }
        self.shares_no_key(id, effect, breach);
        match effect.ruling {
            Ruling::Allow if effect.digest != digest => {
                breach(Invariant::I4, format!("effect {id} is not what policy allowed"));
            }
            Ruling::Allow => {}
            Ruling::Deny => breach(Invariant::I4, format!("effect {id} was started though policy denied it")),
            Ruling::Review => self.uses_approval(id, digest, breach),
        }
        if let Some(effect) = self.effects.get_mut(&id) {
            effect.stands = Stands::Started;
            effect.held = false;
            effect.digest = digest;
            effect.action = action.clone();
        }
    }

    /// What waits for its moment is what will be started: whether it may be is asked then.
    fn held(&mut self, id: EffectId, digest: Digest, action: &Action, breach: Breach<'_>) {
        let Some(effect) = self.effects.get_mut(&id) else {
            return breach(Invariant::I4, format!("effect {id} was held without a proposal"));
        };
        if effect.stands != Stands::Proposed || effect.held {
            breach(Invariant::I3, format!("effect {id} was held when it was {:?}", effect.stands));
        }
        if action.digest() != digest {
            breach(Invariant::I4, format!("effect {id} was held under a digest not its own"));
        }
        if effect.ruling == Ruling::Allow && effect.digest != digest {
            breach(Invariant::I4, format!("effect {id} is held as something else than policy allowed"));
        }
        effect.held = true;
        effect.digest = digest;
        effect.action = action.clone();
    }

    /// Whoever calls something back takes back his word for it: it takes a new one.
    fn called_back(&mut self, id: EffectId, breach: Breach<'_>) {
        let Some(effect) = self.effects.get_mut(&id).filter(|effect| effect.held) else {
            return breach(Invariant::I4, format!("effect {id} was called back and not held"));
        };
        effect.held = false;
        effect.ruling = Ruling::Review;
        for review in self.reviews.values_mut().filter(|review| review.step == effect.step) {
            review.void |= review.verdict.is_some();
        }
    }

    fn shares_no_key(&self, id: EffectId, effect: &Effect, breach: Breach<'_>) {
        let same_key = |(other, known): &(&EffectId, &Effect)| {
            **other != id && known.action.action == effect.action.action && known.key == effect.key
        };
        for (other, known) in self.effects.iter().filter(same_key) {
            match known.stands {
                Stands::Succeeded | Stands::Compensated => breach(
                    Invariant::I11,
                    format!("effect {id} does again what effect {other} has done under `{}`", effect.key),
                ),
                Stands::Started | Stands::Unknown => breach(
                    Invariant::I3,
                    format!("effect {id} was started while effect {other} holds the key `{}`", effect.key),
                ),
                Stands::Proposed | Stands::Failed | Stands::Withdrawn => {}
            }
        }
    }

    /// An approval serves one effect, and another of the same digest only if the first surely did not happen.
    fn uses_approval(&mut self, id: EffectId, digest: Digest, breach: Breach<'_>) {
        let Some(step) = self.effects.get(&id).map(|effect| effect.step.clone()) else { return };
        let failed = |used: &EffectId| self.effects.get(used).is_some_and(|e| e.stands == Stands::Failed);
        let approvals =
            self.reviews.iter().filter(|(_, review)| review.step == step && review.allows() == Some(digest));
        let (mut found, mut free) = (false, None);
        for (review, approval) in approvals {
            found = true;
            if approval.used_by.as_ref().is_none_or(failed) {
                free = Some(*review);
            }
        }
        match free.and_then(|review| self.reviews.get_mut(&review)) {
            Some(review) => review.used_by = Some(id),
            None if found => breach(Invariant::I4, format!("effect {id} uses an approval that was used up")),
            None => breach(Invariant::I4, format!("effect {id} has no approval of its digest {digest}")),
        }
    }

    fn started_again(&mut self, id: EffectId, digest: Digest, repeat: Repeat, breach: Breach<'_>) {
        let Some(effect) = self.effects.get(&id) else {
            return breach(Invariant::I4, format!("effect {id} was repeated without a proposal"));
        };
        if effect.digest != digest {
            breach(Invariant::I4, format!("effect {id} was repeated as something else"));
        }
        match (effect.stands, repeat) {
            // What a probe saw is not in the journal; that it may be repeated is.
            (Stands::Started, Repeat::Natural | Repeat::Token | Repeat::Probe) => {}
            (Stands::Started | Stands::Unknown, _) => {
                let step = effect.step.clone();
                self.uses_answer(id, &step, breach);
            }
            (stands, _) => {
                breach(Invariant::I3, format!("effect {id} was repeated when it was {stands:?}"));
            }
        }
        if let Some(effect) = self.effects.get_mut(&id) {
            effect.stands = Stands::Started;
        }
    }

    /// Only the owner may have something done again that may have happened.
    fn uses_answer(&mut self, id: EffectId, step: &StepId, breach: Breach<'_>) {
        let answer = self
            .reviews
            .values_mut()
            .find(|review| review.step == *step && review.answers("again") && review.used_by.is_none());
        match answer {
            Some(review) => review.used_by = Some(id),
            None => breach(Invariant::I3, format!("effect {id} was repeated without the owner's word")),
        }
    }

    fn succeeded(&mut self, id: EffectId, response: &Value, breach: Breach<'_>) {
        let Some(effect) = self.effects.get_mut(&id) else {
            return breach(Invariant::I3, format!("effect {id} succeeded without a proposal"));
        };
        let confirmed = |review: &Review| review.step == effect.step && review.answers("happened");
        match effect.stands {
            Stands::Started => {}
            Stands::Unknown if self.reviews.values().any(confirmed) => {}
            stands => breach(Invariant::I3, format!("effect {id} succeeded when it was {stands:?}")),
        }
        effect.stands = Stands::Succeeded;
        effect.response = Some(response.clone());
    }

    fn ended(&mut self, id: EffectId, stands: Stands, breach: Breach<'_>) {
        let Some(effect) = self.effects.get_mut(&id) else {
            return breach(Invariant::I3, format!("effect {id} ended without a proposal"));
        };
        if effect.stands != Stands::Started {
            breach(Invariant::I3, format!("effect {id} ended as {stands:?} when it was {:?}", effect.stands));
        }
        effect.stands = stands;
    }

    fn withdrawn(&mut self, id: EffectId, breach: Breach<'_>) {
        let Some(effect) = self.effects.get_mut(&id) else {
            return breach(Invariant::I3, format!("effect {id} was withdrawn without a proposal"));
        };
        if effect.stands != Stands::Proposed {
            // Its key would be free for another one although it may have happened.
            breach(Invariant::I3, format!("effect {id} was withdrawn when it was {:?}", effect.stands));
        }
        effect.stands = Stands::Withdrawn;
        effect.held = false;
    }

    fn compensated(&mut self, id: EffectId, breach: Breach<'_>) {
        match self.effects.get_mut(&id) {
            Some(effect) if effect.stands == Stands::Succeeded => effect.stands = Stands::Compensated,
            Some(effect) => {
                breach(Invariant::I10, format!("effect {id} was undone when it was {:?}", effect.stands));
            }
            None => breach(Invariant::I10, format!("effect {id} was undone and never proposed")),
        }
    }

    fn asked(&mut self, question: &Question, breach: Breach<'_>) {
        let review = Review {
            step: question.step.clone(),
            ask: question.ask,
            digest: question.digest,
            verdict: None,
            superseded: false,
            action: question.action.clone(),
            used_by: None,
            void: false,
        };
        if self.reviews.insert(question.review, review).is_some() {
            breach(Invariant::I5, format!("review {} was opened twice", question.review));
        }
    }

    fn decided(&mut self, id: ReviewId, verdict: &Verdict, breach: Breach<'_>) {
        match self.reviews.get_mut(&id) {
            None => breach(Invariant::I5, format!("review {id} was decided and never opened")),
            Some(review) if review.superseded => {
                breach(Invariant::I5, format!("review {id} was decided after it was withdrawn"));
            }
            Some(review) => {
                if let Some(before) = review.verdict.replace(verdict.clone()) {
                    let (before, now) = (before.status(), verdict.status());
                    breach(Invariant::I5, format!("review {id} was decided twice: {before}, then {now}"));
                }
            }
        }
    }

    fn superseded(&mut self, id: ReviewId, breach: Breach<'_>) {
        match self.reviews.get_mut(&id) {
            Some(review) if review.verdict.is_none() => review.superseded = true,
            Some(_) => breach(Invariant::I5, format!("review {id} was withdrawn after it was decided")),
            None => breach(Invariant::I5, format!("review {id} was withdrawn and never opened")),
        }
    }

    /// A parked run ends wherever it stood: whoever looks at it finds what was under way.
    fn finished(&mut self, outcome: Outcome, breach: Breach<'_>) {
        self.outcome = Some(outcome);
        if outcome == Outcome::Parked {
            return;
        }
        for (id, effect) in &self.effects {
            match effect.stands {
                Stands::Started => breach(Invariant::I2, format!("it ended with effect {id} under way")),
                Stands::Proposed => {
                    breach(Invariant::I2, format!("it ended with effect {id} neither started nor withdrawn"));
                }
                Stands::Succeeded
                | Stands::Failed
                | Stands::Unknown
                | Stands::Withdrawn
                | Stands::Compensated => {}
            }
        }
    }
}
