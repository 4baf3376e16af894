//! What a decision about a review goes by, made ready to be shown: what would be done, what is at stake with it, what
//! it rests on, what an edit changes, and what was said.

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::action::{self, Action, Labels};
use crate::domain::event::{Artifact, Question};
use crate::domain::label::Label;
use crate::domain::risk::RiskClass;
use crate::reviews::words::origin;
use crate::store::asides::CommentRow;
use crate::store::effects::EffectRow;
use crate::ui::diff;
use crate::ui::params;
use crate::ui::text::{Folded, Inert, Readable, words};
use crate::ui::when::{Clock, When};

/// Where a value came from, for a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// The label's name, for the style.
    pub class: &'static str,
    /// What it says.
    pub says: &'static str,
}

impl From<Label> for Tag {
    fn from(label: Label) -> Self {
        Self { class: label.as_str(), says: origin(label) }
    }
}

/// A parameter of the action, or a thing shown with the review.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is.
    pub name: Inert,
    /// Where it came from, if that is known.
    pub tag: Option<Tag>,
    /// The thing itself.
    pub value: Readable,
    /// Whether it decides who or what is reached.
    pub is_target: bool,
}

/// What an edit changes in one parameter.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its name.
    pub name: Inert,
    /// Word by word.
    pub pieces: Vec<diff::Marked>,
}

/// What is at stake.
#[derive(Clone, Debug)]
pub struct Stake {
    /// `low`, `medium`, `high`: for the style.
    pub class: &'static str,
    /// The same in words.
    pub says: &'static str,
    /// What it touches, in words.
    pub tags: Vec<Inert>,
}

impl Stake {
    /// That of a question, where somebody has judged it.
    #[must_use]
    pub fn of(question: &Question) -> Option<Self> {
        let risk = question.risk.as_ref()?;
        let says = match risk.class {
            RiskClass::Low => "low risk",
            RiskClass::Medium => "medium risk",
            RiskClass::High => "high risk",
        };
        let tags = risk.tags.iter().map(|tag| Inert::line(&tag.replace('_', " "))).collect();
        Some(Self { class: risk.class.as_str(), says, tags })
    }
}

/// What somebody said to a review.
#[derive(Clone, Debug)]
pub struct Said {
    /// Who.
    pub by: Inert,
    /// When.
    pub at: When,
    /// What.
    pub text: Folded,
}

impl Said {
    /// A comment.
    #[must_use]
    pub fn of(comment: &CommentRow, clock: &Clock) -> Self {
        Self { by: Inert::line(&comment.by), at: clock.when(comment.at), text: Folded::new(&comment.text) }
    }
}

/// An effect that may happen, and waits.
#[derive(Clone, Debug)]
pub struct Held {
    /// Which.
    pub effect: String,
    /// When it goes out.
    pub goes: When,
}

impl Held {
    /// Of an effect, if it waits.
    #[must_use]
    pub fn of(effect: &EffectRow, clock: &Clock) -> Option<Self> {
        let at = effect.goes_at.filter(|_| effect.status == "proposed")?;
        Some(Self::at(effect.id.to_string(), at, clock))
    }

    /// Of an effect that goes out at this moment.
    #[must_use]
    pub fn at(effect: String, at: Timestamp, clock: &Clock) -> Self {
        Self { effect, goes: clock.when(at) }
    }
}

/// What kind of thing happens.
pub(super) fn does(action: &Action) -> Inert {
    match action::spec(&action.action) {
        Some(spec) => Inert::line(&format!("{}: {}.", spec.name, spec.about)),
        None => Inert::line(&action.action),
    }
}

/// What it rests on.
pub(super) fn rests_on(artifacts: &[Artifact]) -> Vec<Part> {
    let part = |artifact: &Artifact| Part {
        name: Inert::line(&artifact_name(&artifact.title)),
        tag: Some(artifact.label.into()),
        value: Readable::of(&artifact.value),
        is_target: false,
    };
    artifacts.iter().map(part).collect()
}

/// The parameters in their order, each with where it came from.
pub(super) fn parts(action: &Action, labels: &Labels) -> Vec<Part> {
    let spec = action::spec(&action.action);
    let part = |(name, value): (&str, &Value)| Part {
        name: Inert::line(&name.replace('_', " ")),
        tag: labels.get(name).map(|label| Tag::from(*label)),
        value: Readable::of(value),
        is_target: spec.is_some_and(|spec| spec.targets.contains(&name)),
    };
    params::in_order(action).into_iter().map(part).collect()
}

/// `input.body` and `steps.qualify.output` as a person says it.
fn artifact_name(path: &str) -> String {
    let words: Vec<&str> = path.split('.').collect();
    match words[..] {
        ["input"] => "what came in".to_owned(),
        ["input", ref rest @ ..] => format!("what came in: {}", rest.join(" ").replace('_', " ")),
        ["steps", step, "output"] => format!("what {} gave", step.replace(['_', '-'], " ")),
        ["steps", step, "output", ref rest @ ..] => {
            format!("what {} gave: {}", step.replace(['_', '-'], " "), rest.join(" ").replace('_', " "))
        }
        _ => path.replace('_', " "),
    }
}

/// What an edit changes, parameter by parameter.
pub(super) fn changes(action: &Action, edited: &Value) -> Vec<Change> {
    let as_text = |value: Option<&Value>| match value {
        None => String::new(),
        Some(Value::Array(_) | Value::Object(_)) => {
            value.map(|value| format!("{value:#}")).unwrap_or_default()
        }
        Some(plain) => words(plain),
    };
    let edited_action = Action { action: action.action.clone(), params: edited.clone() };
    let mut names: Vec<&str> = params::in_order(action).into_iter().map(|(name, _)| name).collect();
    names.extend(
        params::in_order(&edited_action)
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| action.params.get(name).is_none()),
    );
    let differs = |name: &&str| action.params.get(name) != edited.get(name);
    names
        .into_iter()
        .filter(differs)
        .map(|name| Change {
            name: Inert::line(&name.replace('_', " ")),
            pieces: diff::shown(&as_text(action.params.get(name)), &as_text(edited.get(name))),
        })
        .collect()
}
