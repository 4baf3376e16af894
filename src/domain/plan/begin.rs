//! Beginning a step: is it needed, what is it given, what does it propose, what does policy say.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::domain::action::{self, Action, Labels, Reach};
use crate::domain::digest::Digest;
use crate::domain::duration::Span;
use crate::domain::event::{Artifact, Ask, ErrorKind, Event, Proposal, Question, StepError};
use crate::domain::ids::{EffectId, ReviewId, StepId};
use crate::domain::label::Label;
use crate::domain::plan::judging::judge_edit;
use crate::domain::plan::{EffectKey, IN_DOUBT_CHOICES, Planner, Task};
use crate::domain::policy::facts::History;
use crate::domain::policy::{Case, Ruling};
use crate::domain::risk::Risk;
use crate::domain::run::IllegalEvent;
use crate::domain::step::StepStatus;
use crate::domain::template::{self, Scope, TemplateError, lookup};
use crate::domain::workflow::{ActionStep, AgentStep, ReviewSpec, ReviewStep, Step, StepKind};

/// How long to wait before looking again at an effect of another run that holds the same key:
/// it is often a review that the owner has yet to decide.
const KEY_TAKEN_PAUSE: Span = Span::secs(30);

/// How often that pause doubles: at most every half hour, as long as it takes.
const KEY_TAKEN_DOUBLINGS: u32 = 6;

/// The longest key, bytes: it has to fit an index.
const MAX_KEY: usize = 500;

/// The most artifacts shown with a review: what a person takes in at a glance.
pub(super) const MAX_ARTIFACTS: usize = 5;

impl Planner<'_, '_> {
    /// Begins a step whose turn it is, or skips it.
    pub(super) fn begin(&mut self, step: &Step) -> Result<(), IllegalEvent> {
        match self.not_needed(step) {
            Ok(Some(reason)) => self.system(Event::StepSkipped { step: step.id.clone(), reason }),
            Ok(None) => match &step.kind {
                StepKind::Action(action) if reach(action) == Reach::Pure && step.each.is_none() => {
                    self.tasks.push(Task::Instant(step.id.clone()));
                    Ok(())
                }
                _ => self.begin_attempt(step),
            },
            Err(error) => self.fail(step, ErrorKind::Invalid, error.to_string()),
        }
    }

    /// A step is not needed when its condition is false, or when it reads from a step that was skipped.
    fn not_needed(&self, step: &Step) -> Result<Option<String>, TemplateError> {
        let mut named = BTreeSet::new();
        if let Some(condition) = &step.when {
            template::expression_paths(condition, &mut named)?;
        }
        if let Some(each) = &step.each {
            template::paths(&Value::String(each.of.clone()), &mut named)?;
        }
        for text in step.templates() {
            template::paths(&text, &mut named)?;
        }
        for path in &named {
            let Some(source) = template::step_of(path).map(StepId::from) else { continue };
            if matches!(self.run.status(&source), StepStatus::Skipped { .. }) {
                return Ok(Some(format!("it builds on `{source}`, which was skipped")));
            }
        }
        match &step.when {
            Some(condition) if !self.scope(&step.id).holds(condition)? => {
                Ok(Some(format!("not the case: {condition}")))
            }
            _ => Ok(None),
        }
    }

    /// Begins the next attempt of a step.
    pub(super) fn begin_attempt(&mut self, step: &Step) -> Result<(), IllegalEvent> {
        let attempt = self.run.record(&step.id).attempt + 1;
        let approved = match self.run.status(&step.id) {
            StepStatus::Backoff { approved, .. } => approved.clone(),
            _ => None,
        };
        self.system(Event::StepStarted { step: step.id.clone(), attempt })?;
        if let Some(approved) = approved {
            return self.start_approved(step, *approved);
        }
        if let Some(each) = &step.each {
            return self.begin_each(step, each);
        }
        let begun = match &step.kind {
            StepKind::Agent(agent) => self.begin_agent(step, agent),
            StepKind::Action(action) => self.begin_action(step, action),
            StepKind::Review(review) => self.begin_review(step, review),
            StepKind::Wait(wait) => self.begin_wait(step, wait),
            StepKind::Workflow(child) => self.begin_child(step, child),
        };
        match begun {
            Ok(done) => done,
            Err(error) => self.fail(step, ErrorKind::Invalid, error.to_string()),
        }
    }

    fn begin_agent(&mut self, step: &Step, agent: &AgentStep) -> Begun {
        let scope = self.scope(&step.id);
        let (with, label) = (scope.fill(&agent.with)?, scope.label(&agent.with)?);
        drop(scope);
        self.tasks.push(Task::Agent { step: step.id.clone(), with, label });
        Ok(Ok(()))
    }

    fn begin_action(&mut self, step: &Step, wanted: &ActionStep) -> Begun {
        let (action, labels) = self.filled(step, wanted)?;
        if reach(wanted) == Reach::Read {
            let label = Label::join_all(labels.values().copied());
            self.tasks.push(Task::Read { step: step.id.clone(), action, label });
            return Ok(Ok(()));
        }
        let key = self.key(step, wanted)?;
        Ok(self.propose(step, wanted, (action, labels), key, None))
    }

    /// Proposes what the step says, now that it is known what was done before.
    pub(super) fn go_on_with(
        &mut self,
        step: &Step,
        wanted: &ActionStep,
        history: History,
    ) -> Result<(), IllegalEvent> {
        match self.filled(step, wanted).and_then(|filled| Ok((filled, self.key(step, wanted)?))) {
            Ok((filled, key)) => self.propose(step, wanted, filled, key, Some(history)),
            Err(error) => self.fail(step, ErrorKind::Invalid, error.to_string()),
        }
    }

    /// The action with its parameters filled in, and where each came from.
    fn filled(&self, step: &Step, wanted: &ActionStep) -> Result<(Action, Labels), TemplateError> {
        let params = self.scope(&step.id).fill(&wanted.with)?;
        let labels = self.labels(step, &wanted.with, &params)?;
        Ok((Action { action: wanted.action.clone(), params }, labels))
    }

    /// Under one key an action is carried out once. A run made from another one shares its keys, and so
    /// repeats nothing, unless the owner wants it to.
    fn key(&self, step: &Step, wanted: &ActionStep) -> Result<String, TemplateError> {
        let run = match &self.run.opened.rerun {
            Some(rerun) if !rerun.repeat => rerun.root,
            _ => self.run.id,
        };
        let key = match &wanted.dedupe {
            Some(template) => self.scope(&step.id).text(template)?,
            None => format!("{run}/{}", step.id),
        };
        let repeated =
            matches!(&self.run.opened.rerun, Some(rerun) if rerun.repeat && wanted.dedupe.is_some());
        Ok(match self.run.record(&step.id).generation {
            _ if repeated => format!("{key}#{run}"),
            0 => key,
            generation => format!("{key}#{generation}"),
        })
    }

    fn propose(
        &mut self,
        step: &Step,
        wanted: &ActionStep,
        (action, labels): (Action, Labels),
        key: String,
        history: Option<History>,
    ) -> Result<(), IllegalEvent> {
        let Some(spec) = action::spec(&action.action) else {
            return self.fail(step, ErrorKind::Invalid, format!("there is no action `{}`", action.action));
        };
        let taken = EffectKey { action: action.action.clone(), key };
        if taken.key.len() > MAX_KEY {
            let message = format!("its key has {} bytes; at most {MAX_KEY} fit", taken.key.len());
            return self.fail(step, ErrorKind::Invalid, message);
        }
        if let Some(existing) = self.env.taken.get(&taken).cloned() {
            return self.reuse(step, &action, &existing);
        }
        if history.is_none() && self.look_back(step, &action, &labels) {
            return Ok(());
        }
        let facts = self.facts(step, wanted, &action, &labels, history);
        let case = Case { action: &action, spec, labels: &labels, facts: &facts };
        let decision = self.env.policy.judge(&case);
        let decision = self.sampled(step, spec, decision);
        let attempt = self.run.record(&step.id).attempt;
        let proposal = Proposal {
            step: step.id.clone(),
            attempt,
            effect: EffectId::derive(self.run.id, &step.id, attempt),
            digest: action.digest(),
            action,
            labels,
            key: taken.key,
            decision,
        };
        let label = Label::join_all(proposal.labels.values().copied());
        self.emit("system", label, Event::EffectProposed(proposal.clone()))?;
        match proposal.decision.ruling {
            Ruling::Allow => self.start(Box::new(proposal)),
            Ruling::Review => self.ask_for_approval(step, wanted, &proposal),
            Ruling::Deny => {
                let reasons = proposal.decision.reasons.join("; ");
                self.withdraw(&proposal, "policy denies it")?;
                self.fail(
                    step,
                    ErrorKind::Denied,
                    format!("policy denies `{}`: {reasons}", proposal.action.action),
                )
            }
        }
    }

    /// The same key again: the first result counts, or is waited for. The same key for something else
    /// is nobody's result.
    fn reuse(
        &mut self,
        step: &Step,
        action: &Action,
        existing: &super::Existing,
    ) -> Result<(), IllegalEvent> {
        let same_work = existing.run == self.run.id || self.run.opened.rerun.is_some();
        if existing.digest != action.digest() && !same_work {
            let message = format!("its key was used by run {} for another action", existing.run);
            return self.fail(step, ErrorKind::Invalid, message);
        }
        let Some(response) = &existing.response else {
            let message = format!("run {} is still busy with an effect of the same key", existing.run);
            let error = StepError::new(ErrorKind::KeyTaken, message);
            let doublings = self.run.record(&step.id).waits.min(KEY_TAKEN_DOUBLINGS);
            let pause = Span(KEY_TAKEN_PAUSE.0.saturating_mul(1 << doublings));
            return self.back_off(step, error, pause.after(self.env.now));
        };
        self.system(Event::EffectReused {
            step: step.id.clone(),
            effect: existing.effect,
            of_run: existing.run,
            response: response.clone(),
        })?;
        self.succeed(step, response.clone(), Label::Untrusted)
    }

    /// What was approved and then did not happen is done again, exactly so, without asking again.
    /// Policy may still say no.
    fn start_approved(&mut self, step: &Step, mut proposal: Proposal) -> Result<(), IllegalEvent> {
        let key = EffectKey { action: proposal.action.action.clone(), key: proposal.key.clone() };
        if let Some(existing) = self.env.taken.get(&key).cloned() {
            return self.reuse(step, &proposal.action.clone(), &existing);
        }
        let (params, facts) = (proposal.action.params.clone(), self.facts_again(&proposal));
        let (_, decision) = judge_edit(self.env.policy, &proposal, params, &facts);
        if decision.ruling == Ruling::Deny {
            return self.fail(step, ErrorKind::Denied, decision.reasons.join("; "));
        }
        proposal.attempt = self.run.record(&step.id).attempt;
        proposal.effect = EffectId::derive(self.run.id, &step.id, proposal.attempt);
        let label = Label::join_all(proposal.labels.values().copied());
        self.emit("system", label, Event::EffectProposed(proposal.clone()))?;
        self.start(Box::new(proposal))
    }

    /// From the moment this is durable the effect may have happened.
    pub(super) fn start(&mut self, proposal: Box<Proposal>) -> Result<(), IllegalEvent> {
        self.system(Event::EffectStarted {
            step: proposal.step.clone(),
            effect: proposal.effect,
            digest: proposal.digest,
            action: proposal.action.clone(),
            again: false,
        })?;
        self.tasks.push(Task::Perform(proposal));
        Ok(())
    }

    fn ask_for_approval(
        &mut self,
        step: &Step,
        wanted: &ActionStep,
        proposal: &Proposal,
    ) -> Result<(), IllegalEvent> {
        let shows = wanted.review.clone().unwrap_or_default();
        let question = Question {
            step: step.id.clone(),
            review: self.next_review(&step.id),
            ask: Ask::Approval,
            title: format!("{} · {}", self.run.opened.title, step.title()),
            reasons: proposal.decision.reasons.clone(),
            artifacts: self.artifacts(&shows),
            digest: proposal.digest,
            action: Some(proposal.action.clone()),
            labels: proposal.labels.clone(),
            stakes: Some(proposal.decision.stakes.clone()),
            form: None,
            due_at: shows.due.map(|due| due.after(self.env.now)),
            risk: proposal.decision.stakes.risk,
            allows_micros: None,
        };
        self.open(question)
    }

    fn begin_review(&mut self, step: &Step, wanted: &ReviewStep) -> Begun {
        let title = self.scope(&step.id).text(&wanted.ask)?;
        let artifacts = self.artifacts(&wanted.shows);
        let question = Question {
            step: step.id.clone(),
            review: self.next_review(&step.id),
            ask: Ask::Question,
            digest: Digest::of_json(&json!({"ask": title, "form": wanted.form})),
            title,
            reasons: vec!["the workflow asks".into()],
            artifacts,
            action: None,
            labels: Labels::new(),
            stakes: None,
            form: wanted.form.clone(),
            due_at: wanted.shows.due.map(|due| due.after(self.env.now)),
            risk: Risk::default(),
            allows_micros: None,
        };
        Ok(self.open(question))
    }

    /// Nobody can tell whether the effect happened: only the owner can.
    pub(super) fn doubt(
        &mut self,
        id: &StepId,
        proposal: &Proposal,
        evidence: &str,
    ) -> Result<(), IllegalEvent> {
        self.system(Event::EffectUnknown {
            step: id.clone(),
            effect: proposal.effect,
            evidence: evidence.to_owned(),
        })?;
        let question = Question {
            step: id.clone(),
            review: self.next_review(id),
            ask: Ask::InDoubt,
            title: format!("{} · did `{}` happen?", self.run.opened.title, proposal.action.action),
            reasons: vec![
                evidence.to_owned(),
                "`happened`: go on as if it succeeded; `again`: do it (perhaps a second time); `give_up`: stop".into(),
            ],
            artifacts: self.known_of(proposal),
            digest: proposal.digest,
            action: Some(proposal.action.clone()),
            labels: proposal.labels.clone(),
            stakes: Some(proposal.decision.stakes.clone()),
            form: Some(json!({"type": "string", "enum": IN_DOUBT_CHOICES})),
            due_at: None,
            risk: proposal.decision.stakes.risk,
            allows_micros: None,
        };
        self.open(question)
    }

    /// What is known of an effect in doubt.
    fn known_of(&self, proposal: &Proposal) -> Vec<Artifact> {
        let record = self.run.record(&proposal.step);
        let repeat = (self.env.repeat)(&proposal.action);
        let known = [
            ("started at", json!(record.started_at)),
            ("key", json!(proposal.key)),
            ("attempt", json!(record.attempt)),
            ("repeating it", json!(repeat)),
        ];
        let artifact =
            |(title, value): (&str, Value)| Artifact { title: title.to_owned(), label: Label::System, value };
        known.into_iter().map(artifact).collect()
    }

    pub(super) fn open(&mut self, question: Question) -> Result<(), IllegalEvent> {
        let label = Label::join_all(question.artifacts.iter().map(|artifact| artifact.label));
        self.emit("system", label, Event::ReviewOpened(question))
    }

    pub(super) fn next_review(&self, step: &StepId) -> ReviewId {
        ReviewId::derive(self.run.id, step, self.run.record(step).reviews + 1)
    }

    /// What a workflow names, or else what came in.
    fn artifacts(&self, shows: &ReviewSpec) -> Vec<Artifact> {
        let context = self.run.context(self.env.workspace);
        let default = ["input.from", "input.subject", "input.body"].map(str::to_owned);
        let paths = if shows.artifacts.is_empty() { &default[..] } else { &shows.artifacts[..] };
        let artifact = |path: &String| {
            let value = lookup(&context, path)?.clone();
            Some(Artifact { title: path.clone(), label: self.run.label_of(path), value })
        };
        paths.iter().filter_map(artifact).take(MAX_ARTIFACTS).collect()
    }

    /// The label of each parameter. One template that gives all of them labels each of them.
    fn labels(&self, step: &Step, with: &Value, filled: &Value) -> Result<Labels, TemplateError> {
        let scope = self.scope(&step.id);
        let empty = Map::new();
        let Some(params) = with.as_object() else {
            let label = scope.label(with)?;
            let names = filled.as_object().unwrap_or(&empty).keys();
            return Ok(names.map(|name| (name.clone(), label)).collect());
        };
        params.iter().map(|(name, template)| Ok((name.clone(), scope.label(template)?))).collect()
    }

    /// The lowest confidence among the steps that `with` builds on.
    pub(super) fn confidence(&self, with: &Value) -> Option<f64> {
        let mut named = BTreeSet::new();
        template::paths(with, &mut named).ok()?;
        let confidences =
            named.iter().filter_map(|path| match self.run.status(&StepId::from(template::step_of(path)?)) {
                StepStatus::Succeeded { confidence, .. } => *confidence,
                _ => None,
            });
        confidences.reduce(f64::min)
    }

    /// A response may carry what it was asked with.
    pub(super) fn response_label(proposal: &Proposal) -> Label {
        let answers = action::spec(&proposal.action.action).map_or(Label::Untrusted, |spec| spec.answers);
        answers.join(Label::join_all(proposal.labels.values().copied()))
    }

    /// What the templates of a step may name: an item also `item` and `index`, an undoing also `output`.
    pub(super) fn scope(&self, step: &StepId) -> Scope<'_> {
        let (here, there) = (step.clone(), step.clone());
        Scope::lazy(
            move || self.run.context_of(&here, self.env.workspace),
            move |path| match self.env.version.trust.covers(path) {
                true => Label::Owner,
                false => self.run.label_in(&there, path),
            },
        )
    }

    /// A pure step's output is its value.
    pub(super) fn instant(&mut self, id: &StepId) -> Result<(), IllegalEvent> {
        let Some(step) = self.env.version.step(id) else { return Ok(()) };
        let step = &*step;
        let (StepKind::Action(wanted), StepStatus::Pending) = (&step.kind, self.run.status(id)) else {
            return Ok(());
        };
        if !self.is_ready(step) {
            return Ok(());
        }
        let filled = {
            let scope = self.scope(&step.id);
            scope.fill(&wanted.with).and_then(|filled| Ok((filled, scope.label(&wanted.with)?)))
        };
        match filled {
            Ok((filled, label)) => {
                let value = filled.get("value").cloned().unwrap_or_default();
                self.succeed(step, value, label)
            }
            Err(error) => self.fail(step, ErrorKind::Invalid, error.to_string()),
        }
    }
}

/// A step begun, or the template that could not be filled in.
pub(super) type Begun = Result<Result<(), IllegalEvent>, TemplateError>;

fn reach(wanted: &ActionStep) -> Reach {
    action::spec(&wanted.action).map_or(Reach::External, |spec| spec.reach)
}
