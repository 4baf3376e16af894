//! What the owner wrote, resolved and immutable. A [`Version`] holds a workflow *and* the agents it
//! uses, so its digest pins everything a run depends on that lives in the owner's files.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::digest::Digest;
use crate::domain::duration::Span;
use crate::domain::ids::{AgentName, StepId, WorkflowName};
use crate::domain::retry::Retry;

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
}

impl Version {
    /// The content digest that names this version.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_json(&serde_json::to_value(self).unwrap_or_default())
    }

    /// The step of that name.
    #[must_use]
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == *id)
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
    /// The steps that must be over before this one begins: the one before it in the file.
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
        }
    }
}

/// What a step does. Waits, loops and child workflows will be further kinds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// Ask an agent.
    Agent(AgentStep),
    /// Propose an action.
    Action(ActionStep),
    /// Ask the owner.
    Review(ReviewStep),
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
