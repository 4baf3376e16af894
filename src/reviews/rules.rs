//! What the owner's rules make of an action: of one that is made up, and of those that were proposed, under
//! other rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::action::{self, Action, Labels};
use crate::domain::event::Verified;
use crate::domain::ids::{EffectId, RunId, StepId, WorkflowName};
use crate::domain::label::Label;
use crate::domain::plan::Lookup;
use crate::domain::plan::judging::local_time;
use crate::domain::policy::facts::{Facts, Sender};
use crate::domain::policy::suspect::Suspicion;
use crate::domain::policy::target::targets;
use crate::domain::policy::{Case, Policy, Ruling, Weighed};
use crate::domain::risk::Risk;
use crate::domain::workflow::{Stage, StepKind};
use crate::orchestrator::back;
use crate::orchestrator::engine::Engine;
use crate::store::StoreError;
use crate::store::proposals::Proposed;

/// An action that is made up, for the rules to judge. Only `action` and `params` have to be there.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imagined {
    /// The action, such as `email.send`.
    pub action: String,
    /// Its parameters.
    pub params: Value,
    /// Where each parameter came from; `untrusted`, the harshest, where it is not said.
    #[serde(default)]
    pub labels: Labels,
    /// The workflow; none of yours when absent.
    #[serde(default = "nobodys")]
    pub workflow: WorkflowName,
    /// How far its version is trusted; `live` when absent, where the rules alone decide.
    #[serde(default = "live")]
    pub stage: Stage,
    /// What opened the run.
    #[serde(default)]
    pub trigger: String,
    /// How sure the makers were.
    #[serde(default)]
    pub confidence: Option<f64>,
    /// Whether the step has `review:`.
    #[serde(default)]
    pub review_asked: bool,
    /// Whether the step has `undo:`.
    #[serde(default)]
    pub undoable: bool,
    /// The address of whoever wrote the mail that is answered.
    #[serde(default)]
    pub from: Option<String>,
    /// Their domain, if DMARC vouches for it.
    #[serde(default)]
    pub authenticated: Option<String>,
    /// Whether the workflow trusts answers to the sender.
    #[serde(default)]
    pub answers_to_sender: bool,
}

fn nobodys() -> WorkflowName {
    "none".into()
}

fn live() -> Stage {
    Stage::Live
}

/// A ruling with all that led to it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Explained {
    /// The ruling, the risk, every finding and every name.
    #[serde(flatten)]
    pub weighed: Weighed,
    /// Where each parameter was taken to come from.
    pub labels: Labels,
    /// What it rests on besides the action.
    pub facts: Facts,
}

/// Why nothing is explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no such action; there are others.
    #[error("there is no action `{0}`; there are {1}")]
    UnknownAction(String, String),
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Judges an action that is made up, at this moment, by what was done before. Nothing comes of it.
///
/// # Errors
/// See [`ExplainError`].
pub async fn explain(engine: &Engine, imagined: Imagined) -> Result<Explained, ExplainError> {
    let action = Action { action: imagined.action, params: imagined.params };
    let unknown = || {
        let known: Vec<&str> = action::ACTIONS.iter().map(|spec| spec.name).collect();
        ExplainError::UnknownAction(action.action.clone(), known.join(", "))
    };
    let spec = action::spec(&action.action).ok_or_else(unknown)?;
    let mut labels = imagined.labels;
    for name in action.params.as_object().into_iter().flat_map(|params| params.keys()) {
        labels.entry(name.clone()).or_insert(Label::Untrusted);
    }
    let local = local_time(engine.now(), back::zone(engine));
    let mut facts = Facts::bare(imagined.workflow.clone(), imagined.stage, local);
    facts.trigger = imagined.trigger;
    facts.confidence = imagined.confidence;
    facts.review_asked = imagined.review_asked;
    facts.undoable = imagined.undoable;
    // The mail that is answered is made up as well: the action answers it, if it answers anything.
    let id = action.text("in_reply_to").unwrap_or("none").trim_matches(['<', '>']).to_owned();
    facts.sender = imagined.from.map(|address| Sender {
        address,
        message_id: id.clone(),
        thread: id,
        verified: imagined.authenticated.map(|domain| Verified { by: Verified::DMARC.into(), domain }),
        granted: imagined.answers_to_sender,
        private: Vec::new(),
    });
    let reached = targets(&action, spec, &labels);
    let known = engine.policy.known_domains();
    let mut suspicion = Suspicion::new(&known);
    for target in &reached {
        suspicion.look_at_domain(target.param, target.domain.as_deref().unwrap_or_default());
    }
    for (name, value) in action.params.as_object().into_iter().flatten() {
        suspicion.look_at_value(name, value);
    }
    facts.suspicious = suspicion.told();
    if engine.policy.asks_history(spec) {
        let lookup = Lookup {
            step: StepId::from(""),
            attempt: 0,
            action: action.action.clone(),
            workflow: imagined.workflow,
            targets: reached,
        };
        facts.history = Some(back::history(engine, RunId(uuid::Uuid::nil()), &lookup, false).await?);
    }
    let weighed = engine.policy.weigh(&Case { action: &action, spec, labels: &labels, facts: &facts });
    Ok(Explained { weighed, labels, facts })
}

/// What other rules would have made of what was proposed.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Tried {
    /// How many proposals were judged.
    pub judged: usize,
    /// How many of them have no facts recorded, so that they were made up from what is known.
    pub recomputed: usize,
    /// How often a ruling becomes another, as in `allow → review`.
    pub changes: BTreeMap<String, usize>,
    /// Each proposal whose ruling or risk becomes another.
    pub differences: Vec<Difference>,
}

/// A proposal that other rules judge otherwise.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Difference {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The effect.
    pub effect: EffectId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// What was proposed.
    pub action: Action,
    /// When.
    pub at: jiff::Timestamp,
    /// What was ruled then.
    pub ruled: Ruling,
    /// What the rules in force say of it.
    pub now: Judged,
    /// What the other rules say.
    pub then: Judged,
    /// Whether the facts are those recorded.
    pub recorded: bool,
}

/// What rules say.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Judged {
    /// The ruling.
    pub ruling: Ruling,
    /// The risk.
    pub risk: Risk,
    /// Every reason, the strictest first.
    pub reasons: Vec<String>,
}

/// Judges the last proposals by the rules in force and by others, each by the facts of its own moment.
///
/// # Errors
/// When the database does not answer.
pub async fn try_on(engine: &Engine, other: &Policy, last: i64) -> Result<Tried, StoreError> {
    let mut tried = Tried::default();
    for proposed in engine.store.last_proposals(last).await? {
        let Some(spec) = action::spec(&proposed.proposal.action.action) else { continue };
        let recorded = proposed.proposal.decision.facts.is_some();
        let facts = match &proposed.proposal.decision.facts {
            Some(facts) => (**facts).clone(),
            None => as_of_then(engine, &proposed).await?,
        };
        let Proposed { run, workflow, at, proposal, .. } = proposed;
        let judged = |policy: &Policy| {
            let case = Case { action: &proposal.action, spec, labels: &proposal.labels, facts: &facts };
            let decision = policy.judge(&case);
            Judged { ruling: decision.ruling, risk: decision.stakes.risk, reasons: decision.reasons }
        };
        let (now, then) = (judged(&engine.policy), judged(other));
        tried.judged += 1;
        tried.recomputed += usize::from(!recorded);
        if (now.ruling, now.risk) == (then.ruling, then.risk) {
            continue;
        }
        if now.ruling != then.ruling {
            let change = format!("{} → {}", now.ruling.as_str(), then.ruling.as_str());
            *tried.changes.entry(change).or_default() += 1;
        }
        let (step, effect, ruled) = (proposal.step, proposal.effect, proposal.decision.ruling);
        let action = proposal.action;
        tried.differences.push(Difference {
            run,
            step,
            effect,
            workflow,
            action,
            at,
            ruled,
            now,
            then,
            recorded,
        });
    }
    Ok(tried)
}

/// The facts of a proposal from before they were recorded, as far as rows and version tell. What was done
/// before it is not known any more: a rule that asks for it asks the owner.
async fn as_of_then(engine: &Engine, proposed: &Proposed) -> Result<Facts, StoreError> {
    let row = engine.version(proposed.version).await?;
    let local = local_time(proposed.at, back::zone(engine));
    let mut facts = Facts::bare(proposed.workflow.clone(), row.stage, local);
    facts.trigger.clone_from(&proposed.trigger);
    let step = row.version.step(&proposed.proposal.step);
    facts.review_asked =
        step.is_some_and(|step| matches!(&step.kind, StepKind::Action(action) if action.review.is_some()));
    facts.undoable = row.version.step(&proposed.proposal.step.undo()).is_some();
    Ok(facts)
}
