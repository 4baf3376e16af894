//! A review made ready to be shown: everything a decision needs, and nothing that is not inert. Pure, from the
//! review's row; the same page for the owner who is signed in and for whoever holds a link to this one review.

use askama::Template;
use serde_json::Value;

use crate::api::session::{Form, Session};
use crate::domain::action::{self, Action, Labels, Reach};
use crate::domain::event::{Ask, Verdict};
use crate::domain::label::Label;
use crate::domain::risk::RiskClass;
use crate::reviews::fitting;
use crate::store::reviews::ReviewRow;
use crate::ui::answer;
use crate::ui::diff;
use crate::ui::params::{self, Errors};
use crate::ui::text::{Folded, Inert, Shown, words};
use crate::ui::when::{Clock, When};

/// Who looks at a review and may decide it, and what else he may see.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// For the journal: `owner via web`.
    pub by: String,
    /// The token that his forms prove themselves by.
    pub csrf: String,
    /// Where the page is, and where its forms go.
    pub here: String,
    /// Whether he is signed in and may see the rest: the run, the other reviews.
    pub sees_all: bool,
}

impl Viewer {
    /// The owner, signed in.
    #[must_use]
    pub fn owner(session: &Session, review: impl std::fmt::Display) -> Self {
        Self {
            by: "owner via web".into(),
            csrf: session.form_token(),
            here: format!("/reviews/{review}"),
            sees_all: true,
        }
    }
}

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
        let says = match label {
            Label::Owner => "from you",
            Label::System => "from Steward",
            Label::Model => "from a model",
            Label::Untrusted => "from outside",
        };
        Self { class: label.as_str(), says }
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
    pub value: Shown,
    /// Whether it decides who or what is reached.
    pub is_target: bool,
}

/// What an edit changes in one parameter.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its name.
    pub name: Inert,
    /// Word by word.
    pub pieces: Vec<diff::Shown>,
}

/// How a review ended.
#[derive(Clone, Debug)]
pub struct Decided {
    /// `approved`, `edited`, …: the status.
    pub status: Inert,
    /// The same in a sentence.
    pub sentence: &'static str,
    /// By whom.
    pub by: Option<Inert>,
    /// When.
    pub at: Option<When>,
    /// The owner's words: the reason of a rejection.
    pub reason: Option<Folded>,
    /// The answer to a question.
    pub answer: Option<Shown>,
}

/// Something to tell before anything else.
#[derive(Clone, Debug)]
pub struct Notice {
    /// `changed`, `late`, `wrong`: for the style.
    pub class: &'static str,
    /// What it says.
    pub says: Inert,
}

impl Notice {
    /// What is asked is not what was seen.
    #[must_use]
    pub fn changed() -> Self {
        let says = "This changed while you were looking at it. Nothing was decided: look at it as it is now.";
        Self { class: "changed", says: Inert::line(says) }
    }

    /// Somebody was faster.
    #[must_use]
    pub fn late() -> Self {
        let says = "It was decided before you did. What you said changed nothing.";
        Self { class: "late", says: Inert::line(says) }
    }

    /// What was typed does not do.
    #[must_use]
    pub fn wrong(why: &str) -> Self {
        Self { class: "wrong", says: Inert::line(why) }
    }
}

/// What was typed before the page is shown again.
#[derive(Clone, Debug, Default)]
pub struct Typed {
    /// The form, as it was sent.
    pub form: Option<Form>,
    /// What is wrong with it, by field.
    pub errors: Errors,
    /// The edit that it makes, to be looked at before it is approved.
    pub edit: Option<Value>,
}

/// What may be decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the verdicts")]
pub struct May {
    pub approve: bool,
    pub edit: bool,
    pub reject: bool,
    pub answer: bool,
}

/// The next thing that waits.
#[derive(Clone, Debug)]
pub struct Next {
    /// Where it is.
    pub href: String,
    /// What it is.
    pub title: Inert,
}

/// One review, ready to be shown.
#[derive(Template, Clone, Debug)]
#[template(path = "review.html", config = "src/ui/askama.toml")]
#[expect(missing_docs, reason = "each is named for what the page shows there")]
pub struct ReviewPage {
    pub csrf: Option<String>,
    pub here: String,
    pub run: Option<String>,
    pub next: Option<Next>,
    pub notice: Option<Notice>,
    pub title: Inert,
    /// What is wanted of the owner, in a few words.
    pub wants: &'static str,
    pub digest: String,
    /// Set when much hangs on it.
    pub high_risk: bool,
    pub opened: When,
    pub due: Option<When>,
    pub reasons: Vec<Inert>,
    /// What the action does, and whether it can be taken back.
    pub does: Option<Inert>,
    pub params: Vec<Part>,
    pub artifacts: Vec<Part>,
    pub may: May,
    pub approve: &'static str,
    pub reject: &'static str,
    pub edit_fields: Vec<params::Field>,
    pub edit_open: bool,
    pub changes: Vec<Change>,
    pub answer_fields: Vec<answer::Field>,
    pub reason_typed: String,
    pub decided: Option<Decided>,
}

impl ReviewPage {
    /// The page of a review, for `viewer`.
    #[must_use]
    pub fn of(
        row: &ReviewRow,
        labels: &Labels,
        viewer: &Viewer,
        clock: &Clock,
        notice: Option<Notice>,
        typed: &Typed,
    ) -> Self {
        let question = &row.question;
        let action = question.action.as_ref();
        let is_open = row.status == "open";
        let may = may(row);
        let form = typed.form.as_ref();
        let errors = &typed.errors;
        let changes = match (action, &typed.edit, &row.verdict) {
            (Some(action), Some(params), _) | (Some(action), None, Some(Verdict::Edited { params })) => {
                changes(action, params)
            }
            _ => Vec::new(),
        };
        let edited = form.is_some_and(|form| matches!(form.get("do"), Some("preview" | "edit")));
        Self {
            csrf: Some(viewer.csrf.clone()),
            here: viewer.here.clone(),
            run: viewer.sees_all.then(|| format!("/runs/{}", row.run)),
            next: None,
            notice,
            title: Inert::line(&row.title),
            wants: wants(question.ask, may),
            digest: row.digest.to_string(),
            high_risk: question.class() == RiskClass::High,
            opened: clock.when(row.opened_at),
            due: row.due_at.map(|at| clock.when(at)),
            reasons: question.reasons.iter().map(|reason| Inert::line(reason)).collect(),
            does: action.map(does),
            params: action.map(|action| parts(action, labels)).unwrap_or_default(),
            artifacts: question
                .artifacts
                .iter()
                .map(|artifact| Part {
                    name: Inert::line(&artifact_name(&artifact.title)),
                    tag: Some(artifact.label.into()),
                    value: Shown::of(&artifact.value),
                    is_target: false,
                })
                .collect(),
            may,
            approve: if question.ask == Ask::Budget { "Allow it" } else { "Approve" },
            reject: if question.ask == Ask::Question { "Decline" } else { "Reject" },
            edit_fields: match action {
                Some(action) if may.edit => params::fields(action, form.filter(|_| edited), errors),
                _ => Vec::new(),
            },
            edit_open: edited,
            changes,
            answer_fields: match &question.form {
                Some(schema) if may.answer => answer::fields(schema, form, errors),
                _ => Vec::new(),
            },
            reason_typed: form.and_then(|form| form.get("reason")).unwrap_or_default().to_owned(),
            decided: (!is_open).then(|| decided(row, clock)),
        }
    }

    /// Whether anything can be decided here.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.decided.is_none()
    }
}

fn may(row: &ReviewRow) -> May {
    let fitting = match row.status.as_str() {
        "open" => fitting(row.question.ask, row.question.form.is_some()),
        _ => &[],
    };
    May {
        approve: fitting.contains(&"approved"),
        edit: fitting.contains(&"edited") && row.question.action.is_some(),
        reject: fitting.contains(&"rejected"),
        answer: fitting.contains(&"answered") && row.question.form.is_some(),
    }
}

fn wants(ask: Ask, may: May) -> &'static str {
    match ask {
        Ask::Approval => "May this happen?",
        Ask::Answer => "No model could answer. What is your answer?",
        Ask::Question if may.answer => "Your answer is needed.",
        Ask::Question => "Shall it go on?",
        Ask::InDoubt => "Nobody can tell whether this happened. What do you know?",
        Ask::Undo => "Undoing this failed. What now?",
        Ask::Parked => "Steward cannot go on with this run. What now?",
        Ask::Budget => "The budget is spent. May this cost more, once?",
    }
}

/// What kind of thing happens, and whether it can be taken back.
fn does(action: &Action) -> Inert {
    let Some(spec) = action::spec(&action.action) else { return Inert::line(&action.action) };
    let back = match spec.reach {
        Reach::External => "It leaves the house and cannot be taken back.",
        Reach::Internal => "It stays in the house and can be undone.",
        Reach::Pure | Reach::Read => "It changes nothing.",
    };
    Inert::line(&format!("{}: {}. {back}", spec.name, spec.about))
}

/// The parameters in their order, each with where it came from.
fn parts(action: &Action, labels: &Labels) -> Vec<Part> {
    let spec = action::spec(&action.action);
    let part = |(name, value): (&str, &Value)| Part {
        name: Inert::line(&name.replace('_', " ")),
        tag: labels.get(name).map(|label| Tag::from(*label)),
        value: Shown::of(value),
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
fn changes(action: &Action, edited: &Value) -> Vec<Change> {
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

fn decided(row: &ReviewRow, clock: &Clock) -> Decided {
    let sentence = match row.status.as_str() {
        "approved" => "Approved",
        "edited" => "Approved with changes",
        "rejected" => "Rejected",
        "answered" => "Answered",
        "expired" => "Expired: nobody decided in time, and that is never a yes",
        _ => "No longer asked",
    };
    let (reason, answer) = match &row.verdict {
        Some(Verdict::Rejected { reason }) if !reason.is_empty() => (Some(Folded::new(reason)), None),
        Some(Verdict::Answered { answer }) => (None, Some(Shown::of(answer))),
        _ => (None, None),
    };
    Decided {
        status: Inert::line(&row.status),
        sentence,
        by: row.decided_by.as_deref().map(Inert::line),
        at: row.decided_at.map(|at| clock.when(at)),
        reason,
        answer,
    }
}
