//! What the owner wrote, resolved and immutable. A [`Version`] holds a workflow *and* the agents it
//! uses, so its digest pins everything a run depends on that lives in the owner's files.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::admission::Flow;
use crate::domain::budget::Budget;
use crate::domain::digest::{Digest, canonical};
use crate::domain::duration::Span;
use crate::domain::ids::{AgentName, StepId, WorkflowName};
use crate::domain::retry::Retry;
use crate::domain::tool::Tool;

/// One immutable definition of a workflow, identified by its digest.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The workflow this is a version of.
    pub workflow: WorkflowName,
    /// A template for the title of each run, written for the owner to read.
    pub title: String,
    /// JSON Schema of a run's input.
    pub input: Value,
    /// The steps, in the order of the file.
    pub steps: Vec<Step>,
    /// The agents that the steps use, as they were when this version was made.
    pub agents: BTreeMap<AgentName, Agent>,
    /// How long a run may take in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// What a run gives to whoever waits for it: templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// How many of its runs may be under way, and who goes first when there is not room for all.
    #[serde(default, skip_serializing_if = "Flow::is_default")]
    pub flow: Flow,
    /// The share, 0 to 1, of allowed effects of paid models that the owner is shown all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<f64>,
    /// What its runs may cost.
    #[serde(default, skip_serializing_if = "Budget::is_default")]
    pub budget: Budget,
    /// What the owner trusts more than it deserves by itself.
    #[serde(default, skip_serializing_if = "Trust::is_default")]
    pub trust: Trust,
}

/// The only ways in which something counts for more than where it came from: each is the owner's own word,
/// in the workflow's file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Trust {
    /// An answer to the sender alone, inside their own thread, authenticated by DMARC and carrying nothing
    /// of the owner's own, needs no review for its recipient.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answers: bool,
    /// Beginnings of the paths of documents that such an answer may carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub public: Vec<String>,
    /// Paths whose values count as the owner's word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

impl Trust {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the value at a path counts as the owner's word: the path, or one above it, is named. What
    /// holds a trusted value among others is not trusted.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let above = |trusted: &String| {
            path.strip_prefix(trusted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.paths.iter().any(above)
    }
}

impl Version {
    /// The content digest that names this version.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_json(&serde_json::to_value(self).unwrap_or_default())
    }

    /// The step of that name: one of the file's, an item of one (`remind/3`), or the undoing of
    /// either (`save/undo`, `remind/3/undo`).
    #[must_use]
    pub fn step(&self, id: &StepId) -> Option<Cow<'_, Step>> {
        let place = id.place();
        let step = self.steps.iter().find(|step| step.id.as_str() == place.base)?;
        let item = match place.item {
            Some(index) => Cow::Owned(step.item(index)),
            None => Cow::Borrowed(step),
        };
        if place.undo { item.undoing().map(Cow::Owned) } else { Some(item) }
    }

    /// Every step that comes after one of these, and these themselves.
    #[must_use]
    pub fn descendants(&self, of: &BTreeSet<StepId>) -> BTreeSet<StepId> {
        let mut found = of.clone();
        loop {
            let more = self.steps.iter().filter(|step| step.needs.iter().any(|need| found.contains(need)));
            let more: Vec<_> = more.map(|step| step.id.clone()).filter(|id| !found.contains(id)).collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }
}

/// A node of a workflow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Unique in the workflow.
    pub id: StepId,
    /// What the owner calls it; the id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The steps that must be over before this one begins.
    pub needs: Vec<StepId>,
    /// A condition; the step is skipped when it is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What the step does.
    #[serde(flatten)]
    pub kind: StepKind,
    /// When failed attempts are repeated.
    pub retry: Retry,
    /// How long one attempt may take.
    pub timeout: Span,
    /// How long all attempts may take together, the waiting between them included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// Set when the step does the same for each item of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<Each>,
    /// What undoes it when its run fails or is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Undo>,
}

/// A list, and how its items are worked through.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Each {
    /// The list: a template.
    pub of: String,
    /// How many items may be under way at once, at least 1.
    pub parallel: u32,
    /// What follows when an item fails.
    pub on_failure: OnFailure,
}

/// What follows when an item of a list fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// No further item begins, and the step fails.
    Stop,
    /// The others go on; the step's output says which failed.
    Continue,
}

/// The action that takes back what a step did.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Undo {
    /// The action's name.
    pub action: String,
    /// Its parameters: a mapping of templates, or one template that gives the whole of them.
    pub with: Value,
}

impl Step {
    /// The name to show.
    #[must_use]
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(self.id.as_str())
    }

    /// Every template this step fills in when it begins: its parameters and its key, or its question.
    #[must_use]
    pub fn templates(&self) -> Vec<Cow<'_, Value>> {
        match &self.kind {
            StepKind::Agent(agent) => vec![Cow::Borrowed(&agent.with)],
            StepKind::Action(action) => {
                let key = action.dedupe.iter().map(|key| Cow::Owned(Value::String(key.clone())));
                std::iter::once(Cow::Borrowed(&action.with)).chain(key).collect()
            }
            StepKind::Review(review) => vec![Cow::Owned(Value::String(review.ask.clone()))],
            StepKind::Wait(wait) => {
                let texts = wait.matches.iter().chain(&wait.until);
                texts.map(|text| Cow::Owned(Value::String(text.clone()))).collect()
            }
            StepKind::Workflow(child) => vec![Cow::Borrowed(&child.with)],
        }
    }

    /// The step that does this for the item at `index`.
    fn item(&self, index: usize) -> Self {
        Self {
            id: self.id.item(index),
            name: Some(format!("{} ({})", self.title(), index + 1)),
            needs: Vec::new(),
            when: None,
            each: None,
            ..self.clone()
        }
    }

    /// The step that undoes this one.
    fn undoing(&self) -> Option<Self> {
        let undo = self.undo.as_ref()?;
        let kind = StepKind::Action(ActionStep {
            action: undo.action.clone(),
            with: undo.with.clone(),
            dedupe: None,
            review: None,
        });
        Some(Self {
            id: self.id.undo(),
            name: Some(format!("Undo: {}", self.title())),
            needs: Vec::new(),
            when: None,
            kind,
            deadline: None,
            each: None,
            undo: None,
            ..self.clone()
        })
    }
}

/// What a step does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// Ask an agent.
    Agent(AgentStep),
    /// Propose an action.
    Action(ActionStep),
    /// Ask the owner.
    Review(ReviewStep),
    /// Wait for an event or a moment.
    Wait(WaitStep),
    /// Open a run of another workflow and wait for its end.
    Workflow(ChildStep),
}

/// A step that waits: for an event at most so long, for a length of time, or until a moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct WaitStep {
    /// The event's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// What the event must be about: a template.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// How long to wait, or the longest time to wait for the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// The moment, or the last moment for the event: a template that gives a date or a date with a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// A step that opens a run of another workflow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ChildStep {
    /// Which workflow.
    pub workflow: WorkflowName,
    /// That run's input: a mapping of templates.
    pub with: Value,
    /// The most that its model calls may cost, millionths of the currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_micros: Option<i64>,
}

/// A step that asks an agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AgentStep {
    /// Which agent.
    pub agent: AgentName,
    /// What it is given: a mapping of templates.
    pub with: Value,
}

/// A step that proposes an action.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ActionStep {
    /// The action's name, such as `email.send`.
    pub action: String,
    /// Its parameters: a mapping of templates.
    pub with: Value,
    /// A template for the key under which the effect happens at most once; `run/step` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<String>,
    /// Set when the owner wants to see every such effect, and what to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<ReviewSpec>,
}

/// What a review of an action shows.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ReviewSpec {
    /// Paths of values to show beside the action, such as `input.body`.
    #[serde(default)]
    pub artifacts: Vec<String>,
    /// How long the owner has; without it the review stays open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Span>,
}

/// A step that asks the owner a question.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReviewStep {
    /// The question: a template.
    pub ask: String,
    /// JSON Schema of the answer; without it the owner approves or rejects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Value>,
    /// What to show with the question.
    #[serde(flatten)]
    pub shows: ReviewSpec,
}

/// A prompt, an output schema and a model tier.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Agent {
    /// Unique in the workspace.
    pub agent: AgentName,
    /// The tier whose models answer, in their order.
    pub tier: String,
    /// The instructions: a template over `workspace` alone. Untrusted text never enters it.
    pub prompt: String,
    /// JSON Schema of the output.
    pub output: Value,
    /// What the encoder may choose between.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<Class>,
    /// The output without any model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canned: Option<Canned>,
    /// The most tokens a model may answer with.
    pub max_tokens: u32,
    /// What it may look things up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// The most turns of one conversation with a model; in the last one it must answer.
    #[serde(default = "usual_turns", skip_serializing_if = "is_usual_turns")]
    pub max_turns: u32,
    /// The most tokens, read and written, that all models together may use in one attempt of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_limit: Option<u64>,
    /// The tier that goes over the draft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalize: Option<String>,
    /// How many independent answers are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<Votes>,
    /// How long an answer of a provider's model may serve again for the very same question; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Span>,
}

impl Agent {
    /// The digest of the definition.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_bytes(canonical(self).as_bytes())
    }
}

/// Turns of a conversation unless the agent says otherwise: enough to search, read and read on.
pub const TURNS: u32 = 6;

fn usual_turns() -> u32 {
    TURNS
}

fn is_usual_turns(turns: &u32) -> bool {
    *turns == TURNS
}

/// Answers that are compared: how far they agree is how sure the agent is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Votes {
    /// How many, at least 2.
    pub of: u32,
    /// The field of the output that they are compared by; the whole output, but for what it says of its
    /// own confidence, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// One class the encoder may choose, with texts that belong to it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Class {
    /// The name that appears in the output.
    pub class: String,
    /// Phrases as they occur in texts of this class; at least one.
    pub examples: Vec<String>,
}

/// An output written by the owner as expressions over the agent's input (`with`) and the
/// encoder's verdict (`class`): a reply template, a rule of thumb.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Canned {
    /// Whether it applies; always when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The output: templates.
    pub output: Value,
    /// How sure the owner is of it: a number in 0..=1, or an expression that gives one.
    pub confidence: Value,
}

/// How far a version is trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Every external effect is reviewed.
    Supervised,
    /// Policy alone decides.
    Live,
    /// Opens no new runs.
    Retired,
}

impl Stage {
    /// The name used in tables and screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Supervised => "supervised",
            Self::Live => "live",
            Self::Retired => "retired",
        }
    }

    /// The stage of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Supervised, Self::Live, Self::Retired].into_iter().find(|stage| stage.as_str() == text)
    }
}
