//! What policy's ruling on a proposal rests on, as far as the run itself tells: who wrote, how sure the makers
//! were, what looks suspicious, what the workflow trusts. What only the database knows is asked for before.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::domain::action::{self, Action, Labels, Reach};
use crate::domain::event::{Event, Proposal, StepError};
use crate::domain::fold::quoted;
use crate::domain::ids::{StepId, WorkflowName};
use crate::domain::label::Label;
use crate::domain::plan::{Lookup, Planner, Task};
use crate::domain::policy::facts::{Facts, History, Sender};
use crate::domain::policy::suspect::Suspicion;
use crate::domain::policy::target::{address, targets};
use crate::domain::policy::{Case, Decision, Policy, Ruling};
use crate::domain::risk::Stakes;
use crate::domain::run::IllegalEvent;
use crate::domain::step::StepStatus;
use crate::domain::template;
use crate::domain::tool::Tool;
use crate::domain::workflow::{ActionStep, Stage, Step, StepKind};

impl Planner<'_, '_> {
    /// Asks what was done before, if the ruling rests on it and nobody has looked yet.
    pub(super) fn look_back(&mut self, step: &Step, action: &Action, labels: &Labels) -> bool {
        let Some(spec) = action::spec(&action.action) else { return false };
        if !self.env.policy.asks_history(spec) {
            return false;
        }
        let lookup = Lookup {
            step: step.id.clone(),
            attempt: self.run.record(&step.id).attempt,
            action: action.action.clone(),
            workflow: self.run.opened.workflow.clone(),
            targets: targets(action, spec, labels),
        };
        self.tasks.push(Task::LookBack(Box::new(lookup)));
        true
    }

    /// What was done before is known now: the step proposes.
    pub(super) fn looked_back(
        &mut self,
        id: &StepId,
        attempt: u32,
        history: &Result<History, StepError>,
    ) -> Result<(), IllegalEvent> {
        let (Some(step), StepStatus::Running) = (self.env.version.step(id), self.run.status(id)) else {
            return Ok(());
        };
        let StepKind::Action(wanted) = &step.kind else { return Ok(()) };
        if self.run.record(id).attempt != attempt {
            return Ok(()); // of an attempt that is over
        }
        // A proposal that would be withdrawn in the same breath is better not made.
        if self.run.compensating.is_none() && self.end_in_sight().is_some() {
            return self.system(Event::StepSkipped { step: id.clone(), reason: "the run ended".into() });
        }
        match history {
            Ok(history) => self.go_on_with(&step, wanted, history.clone()),
            Err(error) => self.failed_attempt(&step, error),
        }
    }

    /// The facts of a proposal of this step.
    pub(super) fn facts(
        &self,
        step: &Step,
        wanted: &ActionStep,
        action: &Action,
        labels: &Labels,
        history: Option<History>,
    ) -> Facts {
        let mut facts = Facts::bare(self.run.opened.workflow.clone(), self.env.stage, self.local_time());
        facts.trigger.clone_from(&self.run.opened.trigger);
        facts.confidence = self.confidence(&wanted.with);
        facts.review_asked = wanted.review.is_some();
        facts.undoable = self.env.version.step(&step.id.undo()).is_some();
        facts.trusted = self.trusted_paths(&wanted.with);
        if action::spec(&action.action).is_some_and(|spec| spec.reach == Reach::External) {
            facts.sender = self.sender(step);
            facts.suspicious = self.suspicious(step, action, labels);
        }
        facts.history = history;
        facts
    }

    /// The facts of a proposal that is judged again now.
    pub(super) fn facts_again(&self, proposal: &Proposal) -> Facts {
        facts_again(proposal, &self.run.opened.workflow, self.env.stage, self.local_time())
    }

    fn local_time(&self) -> DateTime {
        local_time(self.env.now, self.zone())
    }

    /// Who wrote the mail that opened the run.
    fn sender(&self, step: &Step) -> Option<Sender> {
        let opened = &self.run.opened;
        if opened.trigger != "email" {
            return None;
        }
        let text = |name: &str| opened.input.get(name)?.as_str();
        let granted = self.env.version.trust.answers;
        Some(Sender {
            address: text("from")?.to_owned(),
            message_id: text("message_id")?.to_owned(),
            thread: text("thread").unwrap_or_default().to_owned(),
            verified: opened.verified.clone(),
            granted,
            private: if granted { self.private(step) } else { Vec::new() },
        })
    }

    /// The steps through which something of the owner's own may have come into what this one proposes. What
    /// cannot be told apart counts: a relief is for what is plainly harmless.
    fn private(&self, step: &Step) -> Vec<String> {
        let public = &self.env.version.trust.public;
        let carries =
            |step: &Step| match &step.kind {
                StepKind::Agent(wanted) => self.env.version.agents.get(&wanted.agent).is_none_or(|agent| {
                    agent.tools.iter().any(|tool| !matches!(tool, Tool::Calc | Tool::Date))
                }),
                StepKind::Action(wanted) => match wanted.action.as_str() {
                    "noop" => false,
                    "memory.search" => match self.run.status(&step.id) {
                        StepStatus::Succeeded { output, .. } => !all_public(output, public),
                        _ => true,
                    },
                    _ => true,
                },
                StepKind::Review(_) | StepKind::Wait(_) | StepKind::Workflow(_) => true,
            };
        let sources = self.all_sources(step).into_iter();
        let sources = sources.filter_map(|id| self.env.version.step(&id));
        sources.filter(|source| carries(source)).map(|source| source.id.0.clone()).collect()
    }

    /// What looks like an attempt to steer or deceive: in the action, in what opened the run, and in what
    /// the action was made from.
    fn suspicious(&self, step: &Step, action: &Action, labels: &Labels) -> Vec<String> {
        let mut known = self.env.policy.known_domains();
        let own = self.env.workspace.get("email").and_then(Value::as_str).and_then(address);
        known.extend(own.map(|(_, domain)| domain));
        let mut suspicion = Suspicion::new(&known);
        if let Some(spec) = action::spec(&action.action) {
            for target in targets(action, spec, labels) {
                let domain = target.domain.as_deref().unwrap_or_default();
                suspicion.look_at_domain(target.param, domain);
            }
        }
        let outside = |label: Option<&Label>| label.is_some_and(|label| *label >= Label::Model);
        for (name, value) in action.params.as_object().into_iter().flatten() {
            if outside(labels.get(name)) {
                suspicion.look_at_value(name, value);
            }
        }
        if self.run.opened.label >= Label::Untrusted {
            self.look_at_input(&mut suspicion);
        }
        for id in self.all_sources(step) {
            if let StepStatus::Succeeded { output, label: Label::Untrusted, .. } = self.run.status(&id) {
                suspicion.look_at_value(&format!("steps.{id}.output"), output);
            }
        }
        suspicion.told()
    }

    fn look_at_input(&self, suspicion: &mut Suspicion<'_>) {
        let input = &self.run.opened.input;
        suspicion.look_at_value("input", input);
        let wrote = |name: &str| input.get(name).and_then(Value::as_str).and_then(address);
        let (Some((from, own)), Some((reply_to, other))) = (wrote("from"), wrote("reply_to")) else { return };
        if own != other {
            let (from, reply_to) = (quoted(&from, 80), quoted(&reply_to, 80));
            let sentence = format!("answers to {from} would go to {reply_to}, which is another domain");
            suspicion.add("reply_to", sentence);
        }
    }

    /// Every step that a step is made from, directly or through others, without itself.
    pub(super) fn all_sources(&self, step: &Step) -> BTreeSet<StepId> {
        let mut found = BTreeSet::new();
        let mut ahead = self.sources(step);
        while let Some(id) = ahead.pop() {
            if found.insert(id.clone())
                && let Some(source) = self.env.version.step(&id)
            {
                ahead.extend(self.sources(&source));
            }
        }
        found
    }

    /// The paths that a template names and the workflow trusts.
    fn trusted_paths(&self, with: &Value) -> Vec<String> {
        let mut named = BTreeSet::new();
        if self.env.version.trust.paths.is_empty() || template::paths(with, &mut named).is_err() {
            return Vec::new();
        }
        named.into_iter().filter(|path| self.env.version.trust.covers(path)).collect()
    }
}

/// A moment in the owner's time, to the second.
#[must_use]
pub fn local_time(now: Timestamp, zone: TimeZone) -> DateTime {
    let local = now.to_zoned(zone).datetime();
    local.with().subsec_nanosecond(0).build().unwrap_or(local)
}

/// The facts of a proposal that is judged again: what was recorded then, at the present stage and moment. The
/// owner looks at it, so that nobody need ask for that.
#[must_use]
pub fn facts_again(proposal: &Proposal, workflow: &WorkflowName, stage: Stage, local: DateTime) -> Facts {
    let recorded = proposal.decision.facts.as_deref().cloned();
    let recorded = recorded.unwrap_or_else(|| Facts::bare(workflow.clone(), stage, local));
    Facts { stage, local, review_asked: false, ..recorded }
}

/// Whether every hit of a search is of a document that may be carried outside.
fn all_public(output: &Value, public: &[String]) -> bool {
    let hits = output.get("hits").and_then(Value::as_array);
    hits.is_some_and(|hits| {
        hits.iter().all(|hit| {
            let path = hit.get("path").and_then(Value::as_str).unwrap_or_default();
            public.iter().any(|prefix| path.starts_with(prefix.as_str()))
        })
    })
}

/// An action with the owner's edits, and what policy says of it. Parameters that the owner changed
/// are the owner's word; the others keep their label.
#[must_use]
pub fn judge_edit(policy: &Policy, proposal: &Proposal, params: Value, facts: &Facts) -> (Action, Decision) {
    let mut labels = proposal.labels.clone();
    labels.retain(|name, _| params.get(name) == proposal.action.params.get(name));
    let edited = Action { action: proposal.action.action.clone(), params };
    let decision = match action::spec(&edited.action) {
        Some(spec) => policy.judge(&Case { action: &edited, spec, labels: &labels, facts }),
        None => Decision {
            ruling: Ruling::Deny,
            reasons: vec![format!("there is no action `{}`", edited.action)],
            stakes: Stakes::default(),
            facts: None,
        },
    };
    (edited, decision)
}
