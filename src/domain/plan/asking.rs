//! Questions about an agent's step: what is its output, when no model could say; may it cost more.

use serde_json::{Value, json};

use crate::domain::action::Labels;
use crate::domain::digest::Digest;
use crate::domain::event::{Artifact, Ask, ErrorKind, Question};
use crate::domain::label::Label;
use crate::domain::plan::Planner;
use crate::domain::plan::begin::MAX_ARTIFACTS;
use crate::domain::risk::Risk;
use crate::domain::run::IllegalEvent;
use crate::domain::workflow::{Step, StepKind};

impl Planner<'_, '_> {
    /// The owner is the last model of every chain: the form is the output schema.
    pub(super) fn ask_for_answer(
        &mut self,
        step: &Step,
        reasons: &[String],
        draft: Option<&(Value, Label)>,
    ) -> Result<(), IllegalEvent> {
        let why = |tier: &str| format!("no model of the tier `{tier}` could answer");
        let reasons = |tier: &str| std::iter::once(why(tier)).chain(reasons.iter().cloned()).collect();
        self.ask_about_agent(step, Ask::Answer, None, draft, &reasons)
    }

    /// A question about an agent's step, with what the agent is given; the form is its output schema.
    pub(super) fn ask_about_agent(
        &mut self,
        step: &Step,
        ask: Ask,
        allows_micros: Option<i64>,
        draft: Option<&(Value, Label)>,
        reasons: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<(), IllegalEvent> {
        let StepKind::Agent(wanted) = &step.kind else { return Ok(()) };
        let Some(agent) = self.env.version.agents.get(&wanted.agent) else {
            return self.fail(step, ErrorKind::Invalid, format!("there is no agent `{}`", wanted.agent));
        };
        let scope = self.scope(&step.id);
        let (with, label) = match (scope.fill(&wanted.with), scope.label(&wanted.with)) {
            (Ok(with), Ok(label)) => (with, label),
            (Err(error), _) | (_, Err(error)) => {
                drop(scope);
                return self.fail(step, ErrorKind::Invalid, error.to_string());
            }
        };
        drop(scope);
        let title = format!("{} · {}", self.run.opened.title, step.title());
        let artifacts = match &with {
            Value::Object(map) => map.iter().take(MAX_ARTIFACTS).map(|(name, value)| Artifact {
                title: name.clone(),
                label,
                value: value.clone(),
            }),
            _ => return self.fail(step, ErrorKind::Invalid, "an agent is given an object"),
        };
        let question = Question {
            step: step.id.clone(),
            review: self.next_review(&step.id),
            ask,
            digest: match allows_micros {
                None => Digest::of_json(&json!({"agent": agent.agent, "with": with})),
                Some(more) => {
                    Digest::of_json(&json!({"agent": agent.agent, "with": with, "allows_micros": more}))
                }
            },
            title,
            reasons: reasons(&agent.tier),
            artifacts: draft.map(drafted).into_iter().chain(artifacts).take(MAX_ARTIFACTS).collect(),
            action: None,
            labels: Labels::new(),
            stakes: None,
            form: Some(agent.output.clone()),
            due_at: None,
            risk: Risk::default(),
            allows_micros,
        };
        self.open(question)
    }
}

fn drafted((value, label): &(Value, Label)) -> Artifact {
    Artifact { title: "draft".into(), label: *label, value: value.clone() }
}
