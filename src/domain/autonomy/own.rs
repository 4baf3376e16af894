//! Steward's own workflow: it asks the owner whether a version's stage is to change, and carries that out.
//! Being a run like any other, the question, the answer and the change are journaled, told over the
//! channels, and end by themselves. No file can define a workflow of this name, for it has a dot.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::domain::action::STAGE_ACTION;
use crate::domain::admission::Flow;
use crate::domain::budget::Budget;
use crate::domain::duration::Span;
use crate::domain::ids::{StepId, WorkflowName};
use crate::domain::retry::Retry;
use crate::domain::workflow::{ActionStep, ReviewSpec, Stage, Step, StepKind, Version};

/// Its name.
pub const WORKFLOW: &str = "steward.autonomy";

/// How long one try of changing a stage may take: a statement.
const TIMEOUT: Span = Span::secs(30);

/// Whether a workflow is Steward's own rather than the owner's.
#[must_use]
pub fn is_own(workflow: &WorkflowName) -> bool {
    workflow.as_str() == WORKFLOW
}

/// What a run of it is about.
#[derive(Clone, PartialEq, Debug)]
pub struct StageProposal {
    /// The workflow.
    pub workflow: WorkflowName,
    /// The number of its version.
    pub number: i32,
    /// The digest of that version, as hexadecimal digits.
    pub version: String,
    /// Its stage.
    pub was: Stage,
    /// The stage it would come to.
    pub stage: Stage,
    /// Whether that is done at once: only downwards.
    pub automatic: bool,
    /// Why, one sentence each.
    pub why: Vec<String>,
    /// What was decided so far, by action.
    pub decided: Value,
}

impl StageProposal {
    /// The input of its run.
    #[must_use]
    pub fn input(&self) -> Value {
        let said = match (self.stage, self.automatic) {
            (Stage::Live, _) => "may it act without being asked first?",
            (_, true) => "is supervised again",
            (_, false) => "is it to be supervised again?",
        };
        json!({
            "says": format!("{}, version {}: {said}", self.workflow, self.number),
            "workflow": self.workflow,
            "number": self.number,
            "version": self.version,
            "was": self.was,
            "stage": self.stage,
            "automatic": self.automatic,
            "why": self.why,
            "decided": self.decided,
        })
    }
}

/// The workflow. Its steps exclude each other: one asks, the other does at once what only takes trust away.
#[must_use]
pub fn version() -> Version {
    let text = json!({"type": "string"});
    let input = json!({
        "type": "object",
        "required": ["says", "workflow", "number", "version", "was", "stage", "automatic", "why", "decided"],
        "properties": {
            "says": text, "workflow": text, "version": text, "number": {"type": "integer"},
            "was": {"enum": ["supervised", "live"]}, "stage": {"enum": ["supervised", "live"]},
            "automatic": {"type": "boolean"}, "why": {"type": "array", "items": text},
            "decided": {"type": "object"},
        },
        // Trust is never given without being asked for.
        "if": {"properties": {"automatic": {"const": true}}},
        "then": {"properties": {"stage": {"const": "supervised"}}},
    });
    Version {
        workflow: WORKFLOW.into(),
        title: "{{ input.says }}".into(),
        input,
        steps: vec![
            step("ask", "Change its stage", "not input.automatic", true),
            step("at-once", "Change its stage at once", "input.automatic", false),
        ],
        agents: BTreeMap::new(),
        deadline: None,
        output: None,
        flow: Flow::default(),
        sample: None,
        trust: Default::default(),
        budget: Budget::default(),
    }
}

fn step(id: &str, name: &str, when: &str, asks: bool) -> Step {
    let shows = ["input.why", "input.decided"].map(str::to_owned).to_vec();
    Step {
        id: StepId::from(id),
        name: Some(name.into()),
        needs: Vec::new(),
        when: Some(when.into()),
        kind: StepKind::Action(ActionStep {
            action: STAGE_ACTION.into(),
            with: json!({
                "workflow": "{{ input.workflow }}",
                "version": "{{ input.version }}",
                "was": "{{ input.was }}",
                "stage": "{{ input.stage }}",
                "reason": "{{ input.why | join('; ') }}",
            }),
            dedupe: None,
            delay: None,
            review: asks.then_some(ReviewSpec { artifacts: shows, due: None }),
        }),
        retry: Retry::default(),
        timeout: TIMEOUT,
        deadline: None,
        each: None,
        undo: None,
    }
}
