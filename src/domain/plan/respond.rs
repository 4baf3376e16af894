//! Asking back: the owner's words go to the agent that made a draft, which answers anew; whatever was made
//! of the draft is made anew from that, and proposed again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::domain::action::{self, Reach};
use crate::domain::event::{Artifact, Event, Proposal, Returned};
use crate::domain::ids::StepId;
use crate::domain::label::Label;
use crate::domain::plan::Planner;
use crate::domain::run::{IllegalEvent, Run};
use crate::domain::step::StepStatus;
use crate::domain::template;
use crate::domain::workflow::{Step, StepKind, Version};

/// How often a draft can be given back: what is not right by then, the owner writes faster himself.
pub const MAX_ROUNDS: usize = 5;

/// Whom the owner's words go to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Author {
    /// The agent's step.
    pub step: StepId,
    /// Every step that is done anew, the agent's and the proposing one among them.
    pub anew: Vec<StepId>,
}

/// Why nobody can be asked for another draft.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoAuthor {
    /// No agent's output is in it.
    #[error("no agent made this: edit it, or reject it")]
    Nobody,
    /// It is one of several that one draft led to.
    #[error("it is one of a list, and another draft would change the others: edit it, or reject it")]
    OneOfMany,
    /// It takes something back.
    #[error("it undoes what was done: there is nothing to write anew")]
    Undoing,
    /// What was made of the draft did something already.
    #[error("what `{0}` made of the draft has been done already: edit it, or reject it")]
    Done(StepId),
    /// It went back and forth often enough.
    #[error("it was given back {MAX_ROUNDS} times already: edit it, or reject it")]
    Enough,
}

/// Who made what `step` proposes: of the agents whose output its parameters are made from, the nearest, of
/// several the one that answered last.
///
/// # Errors
/// See [`NoAuthor`].
pub fn author(run: &Run, version: &Version, step: &StepId) -> Result<Author, NoAuthor> {
    let place = step.place();
    if place.undo {
        return Err(NoAuthor::Undoing);
    }
    if place.item.is_some() {
        return Err(NoAuthor::OneOfMany);
    }
    let made_of = sources(version, step);
    let agent = nearest_agent(run, version, step, &made_of).ok_or(NoAuthor::Nobody)?;
    if run.record(&agent).rounds.len() >= MAX_ROUNDS {
        return Err(NoAuthor::Enough);
    }
    let between = made_of.keys().filter(|id| **id != agent && **id != *step && reaches(&made_of, id, &agent));
    for id in between.clone() {
        if !can_be_done_anew(version, id) {
            return Err(NoAuthor::Done(id.clone()));
        }
    }
    let anew = between.chain([&agent, step]).cloned().collect();
    Ok(Author { step: agent, anew })
}

/// What each step that `step` is made of names in turn, itself included.
fn sources(version: &Version, step: &StepId) -> BTreeMap<StepId, BTreeSet<StepId>> {
    let mut found: BTreeMap<StepId, BTreeSet<StepId>> = BTreeMap::new();
    let mut ahead = vec![step.clone()];
    while let Some(id) = ahead.pop() {
        let Some(step) = version.step(&id).filter(|_| !found.contains_key(&id)) else { continue };
        let mut named = BTreeSet::new();
        let each = step.each.iter().map(|each| std::borrow::Cow::Owned(each.of.clone().into()));
        for text in step.templates().into_iter().chain(each) {
            let _ = template::paths(&text, &mut named); // what does not parse has failed the step
        }
        let named: BTreeSet<StepId> =
            named.iter().filter_map(|path| template::step_of(path).map(StepId::from)).collect();
        ahead.extend(named.iter().cloned());
        found.insert(id, named);
    }
    found
}

fn nearest_agent(
    run: &Run,
    version: &Version,
    step: &StepId,
    made_of: &BTreeMap<StepId, BTreeSet<StepId>>,
) -> Option<StepId> {
    let mut seen = BTreeSet::from([step.clone()]);
    let mut level: BTreeSet<StepId> = made_of.get(step)?.clone();
    while !level.is_empty() {
        let agents = level.iter().filter(|id| is_agent(version, id) && has_answered(run, id));
        if let Some(last) = agents.max_by_key(|id| run.record(id).succeeded_seq) {
            return Some(last.clone());
        }
        seen.extend(level.iter().cloned());
        let next = level.iter().filter_map(|id| made_of.get(id)).flatten();
        level = next.filter(|id| !seen.contains(*id)).cloned().collect();
    }
    None
}

fn is_agent(version: &Version, id: &StepId) -> bool {
    version.step(id).is_some_and(|step| matches!(step.kind, StepKind::Agent(_)) && step.each.is_none())
}

fn has_answered(run: &Run, id: &StepId) -> bool {
    matches!(run.status(id), StepStatus::Succeeded { .. })
}

/// Whether `from` is made of `to`, directly or through others.
fn reaches(made_of: &BTreeMap<StepId, BTreeSet<StepId>>, from: &StepId, to: &StepId) -> bool {
    let mut seen = BTreeSet::new();
    let mut ahead = vec![from];
    while let Some(id) = ahead.pop() {
        if id == to {
            return true;
        }
        if seen.insert(id) {
            ahead.extend(made_of.get(id).into_iter().flatten());
        }
    }
    false
}

/// Thinking and reading leave no trace; everything else has happened.
fn can_be_done_anew(version: &Version, id: &StepId) -> bool {
    version.step(id).is_some_and(|step: std::borrow::Cow<'_, Step>| match &step.kind {
        StepKind::Agent(_) => step.each.is_none(),
        StepKind::Action(wanted) => {
            step.each.is_none() && action::spec(&wanted.action).is_some_and(|spec| spec.reach <= Reach::Read)
        }
        StepKind::Review(_) | StepKind::Wait(_) | StepKind::Workflow(_) => false,
    })
}

impl Planner<'_, '_> {
    /// The owner's words go to whoever made the draft. Where there is nobody any more, the owner is asked as
    /// before, and told why.
    pub(super) fn give_back_draft(
        &mut self,
        step: &Step,
        proposal: Proposal,
        words: String,
    ) -> Result<(), IllegalEvent> {
        let author = match author(self.run, self.env.version, &step.id) {
            Ok(author) => author,
            Err(why) => return self.ask_anew(step, proposal, &why.to_string()),
        };
        self.withdraw(&proposal, "the owner asked for another draft")?;
        let returned = Returned {
            step: author.step,
            proposes: step.id.clone(),
            anew: author.anew,
            review: self.last_review(&step.id),
            words,
        };
        self.emit("owner", Label::Owner, Event::DraftReturned(returned))
    }

    /// What the owner has said to earlier drafts of this proposal, the last first.
    pub(super) fn said_before(&self, step: &Step) -> Vec<Artifact> {
        let made_of = sources(self.env.version, &step.id);
        let rounds = made_of.keys().flat_map(|id| &self.run.record(id).rounds);
        let said: Vec<&str> = rounds.map(|round| round.words.as_str()).collect();
        match said[..] {
            [] => Vec::new(),
            _ => vec![Artifact { title: "you said".into(), label: Label::Owner, value: json!(said) }],
        }
    }
}
