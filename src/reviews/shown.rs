//! A review as it is shown, the same for every surface: what is asked, the few things needed to decide, what
//! is known of whoever it reaches, whether it can be taken back, what was said to it, and what may be
//! answered. What must be looked up for that is looked up when it is shown, so that it is of that moment.

use serde::Serialize;
use serde_json::{Value, json};

use crate::domain::action::{self, Action, Reach};
use crate::domain::duration::Span;
use crate::domain::event::{Artifact, Ask};
use crate::domain::label::Label;
use crate::domain::plan::begin::{CAME_IN, MAX_ARTIFACTS};
use crate::domain::plan::respond;
use crate::domain::policy::amount::TYPED;
use crate::domain::policy::target::named;
use crate::domain::run::Run;
use crate::domain::workflow::{Step, StepKind, Version};
use crate::orchestrator::engine::Engine;
use crate::reviews::decide::fitting;
use crate::store::StoreError;
use crate::store::asides::CommentRow;
use crate::store::reviews::ReviewRow;

/// Comments that are shown.
const COMMENTS: i64 = 50;

/// Recipients of whom it is told what is known: of more than a few, nobody reads it.
const KNOWN: usize = 3;

/// Mails of a thread that are counted.
const MAILS: u32 = 20;

/// A review as it is shown.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Shown {
    /// Its row.
    #[serde(flatten)]
    pub review: ReviewRow,
    /// Three to five things: those that the workflow chose, or else what came in, who gets it, for how much,
    /// and what is known of them. What would be done, exactly, is the question's `action`.
    pub artifacts: Vec<Artifact>,
    /// Whether it can be taken back.
    pub reversibility: Reversibility,
    /// The same in one sentence.
    pub reversible: String,
    /// The verdicts that it takes now: none once it is over.
    pub verdicts: Vec<&'static str>,
    /// What was said to it.
    pub comments: Vec<CommentRow>,
}

/// Whether what is decided can be taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reversibility {
    /// Nothing happens outside the run.
    Nothing,
    /// It stays in Steward's own memory, where every version is kept.
    Internal,
    /// The workflow says what undoes it.
    Undoable,
    /// It waits before it goes out, and can be called back until then.
    Delayed {
        /// For how long.
        wait: Span,
    },
    /// What is done is done.
    Irreversible,
}

impl Reversibility {
    /// One sentence for the owner.
    #[must_use]
    pub fn told(self) -> String {
        match self {
            Self::Nothing => "Nothing leaves the run.".into(),
            Self::Internal => "It stays in Steward's own memory and can be reverted there.".into(),
            Self::Undoable => "The workflow undoes it when the run fails or is cancelled.".into(),
            Self::Delayed { wait } => {
                format!("It goes out {wait} after it is approved; until then you can call it back.")
            }
            Self::Irreversible => "It cannot be taken back.".into(),
        }
    }
}

/// A review, with everything that is needed to decide it.
///
/// # Errors
/// When the database does not answer or the run cannot be read.
pub async fn shown(engine: &Engine, review: ReviewRow) -> Result<Shown, StoreError> {
    let store = &engine.store;
    let comments = store.comments(review.id, COMMENTS).await?;
    // A parked run may be what cannot be read.
    let loaded = match review.question.ask {
        Ask::Parked => None,
        _ => store.load_run(review.run).await?,
    };
    let (run, version) = match loaded {
        Some(loaded) => {
            let version = engine.version(loaded.run.opened.version).await?.version.clone();
            (Some(loaded.run), Some(version))
        }
        None => (None, None),
    };
    let step = version.as_ref().and_then(|version| version.step(&review.step));
    let wait = step.as_deref().and_then(|step| wait(engine, step));
    let reversibility = reversibility(review.question.action.as_ref(), step.as_deref(), wait);
    let artifacts = artifacts(engine, &review, run.as_ref()).await?;
    let verdicts = verdicts(&review, run.as_ref(), version.as_deref());
    Ok(Shown { reversible: reversibility.told(), review, artifacts, reversibility, verdicts, comments })
}

fn wait(engine: &Engine, step: &Step) -> Option<Span> {
    let StepKind::Action(wanted) = &step.kind else { return None };
    let wait = wanted.delay.or_else(|| engine.terms.delay.get(&wanted.action).copied());
    wait.filter(|wait| !wait.0.is_zero() && !step.id.place().undo)
}

fn reversibility(action: Option<&Action>, step: Option<&Step>, wait: Option<Span>) -> Reversibility {
    let Some(spec) = action.and_then(|action| action::spec(&action.action)) else {
        return Reversibility::Nothing;
    };
    match (spec.reach, wait) {
        (Reach::Pure | Reach::Read, _) => Reversibility::Nothing,
        (Reach::Internal, _) => Reversibility::Internal,
        (Reach::External, _) if step.is_some_and(|step| step.undo.is_some()) => Reversibility::Undoable,
        (Reach::External, Some(wait)) => Reversibility::Delayed { wait },
        (Reach::External, None) => Reversibility::Irreversible,
    }
}

/// Only an open review takes a verdict, and words to its agent only where there is one.
fn verdicts(review: &ReviewRow, run: Option<&Run>, version: Option<&Version>) -> Vec<&'static str> {
    if review.status != "open" {
        return Vec::new();
    }
    let has_author = || match (run, version) {
        (Some(run), Some(version)) => respond::author(run, version, &review.step).is_ok(),
        _ => false,
    };
    let fitting = fitting(review.question.ask, review.question.form.is_some());
    fitting.iter().copied().filter(|verdict| *verdict != "responded" || has_author()).collect()
}

async fn artifacts(
    engine: &Engine,
    review: &ReviewRow,
    run: Option<&Run>,
) -> Result<Vec<Artifact>, StoreError> {
    let mut artifacts = review.question.artifacts.clone();
    let usual = |artifact: &Artifact| {
        CAME_IN.contains(&artifact.title.as_str()) || matches!(artifact.title.as_str(), "input" | "you said")
    };
    let Some(action) = &review.question.action else { return Ok(artifacts) };
    let Some(spec) = action::spec(&action.action) else { return Ok(artifacts) };
    if review.question.ask != Ask::Approval || !artifacts.iter().all(usual) {
        return Ok(artifacts); // they were chosen
    }
    let recipients = named(spec, &action.params);
    let mut more = Vec::new();
    if !recipients.is_empty() {
        more.push(artifact("who gets it", Label::System, json!(recipients)));
    }
    more.extend(amount(action).map(|amount| artifact("amount", Label::System, amount)));
    let known = known(engine, &recipients, run).await?;
    if !known.is_empty() {
        // A record may hold what came from outside.
        more.push(artifact("what is known of them", Label::Untrusted, json!(known)));
    }
    artifacts.extend(more);
    fit(&mut artifacts);
    Ok(artifacts)
}

/// Who wrote and what about gives way before what was written does: it mostly says so itself.
fn fit(artifacts: &mut Vec<Artifact>) {
    for least in CAME_IN.iter().take(CAME_IN.len() - 1) {
        if artifacts.len() > MAX_ARTIFACTS {
            artifacts.retain(|artifact| artifact.title != *least);
        }
    }
    artifacts.truncate(MAX_ARTIFACTS);
}

fn artifact(title: &str, label: Label, value: Value) -> Artifact {
    Artifact { title: title.to_owned(), label, value }
}

/// What it is about in money, where its parameters say so, at the top or in the body of a request.
fn amount(action: &Action) -> Option<Value> {
    let body = action.params.get("body").filter(|body| body.is_object());
    let found = [Some(&action.params), body].into_iter().flatten().find_map(|params| {
        let amount = TYPED.iter().find_map(|name| params.get(*name))?;
        Some((amount.clone(), params.get("currency").cloned()))
    });
    found.map(|(amount, currency)| match currency {
        Some(currency) => json!({"amount": amount, "currency": currency}),
        None => amount,
    })
}

/// What is known of the recipients, one mapping each; nothing of those who are strangers but that they are.
async fn known(engine: &Engine, recipients: &[String], run: Option<&Run>) -> Result<Vec<Value>, StoreError> {
    let store = &engine.store;
    let thread = run.and_then(|run| run.opened.input.get("thread")).and_then(Value::as_str);
    let mails = match thread {
        Some(thread) => store.thread_length(thread, MAILS).await?,
        None => 0,
    };
    let mut told = Vec::new();
    for who in recipients.iter().take(KNOWN) {
        let sent = store.sent_to(who).await?;
        let records = store.records_under(who).await?;
        let mut known = json!({
            "who": who,
            "in_policy": engine.policy.known.contains(&who.to_lowercase()),
            "mails_sent": sent.mails,
        });
        if let Some(at) = sent.last_at {
            known["last"] = json!({"at": at, "subject": sent.last_subject, "run": sent.last_run});
        }
        if !records.is_empty() {
            let record = |record: &crate::store::records::Record| {
                json!({"kind": record.kind, "version": record.version, "data": record.data,
                    "updated_at": record.updated_at})
            };
            known["records"] = records.iter().map(record).collect();
        }
        if mails > 1 {
            known["mails_in_thread"] = json!(mails);
        }
        told.push(known);
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(name: &str, params: Value) -> Action {
        Action { action: name.into(), params }
    }

    #[test]
    fn what_was_written_is_shown_before_who_wrote_it() {
        let titles =
            ["you said", "input.from", "input.subject", "input.body", "who gets it", "amount", "known"];
        let mut artifacts: Vec<Artifact> =
            titles.iter().map(|title| artifact(title, Label::System, json!(1))).collect();
        fit(&mut artifacts);
        let left: Vec<&str> = artifacts.iter().map(|artifact| artifact.title.as_str()).collect();
        assert_eq!(left, ["you said", "input.body", "who gets it", "amount", "known"]);
    }

    #[test]
    fn an_amount_is_found_where_it_is_named() {
        let call = |body| {
            action("http.request", json!({"method": "POST", "url": "https://x.example", "body": body}))
        };
        assert_eq!(
            amount(&call(json!({"amount": 40, "currency": "EUR"}))),
            Some(json!({"amount": 40, "currency": "EUR"}))
        );
        assert_eq!(amount(&call(json!({"total": "40.00"}))), Some(json!("40.00")));
        assert_eq!(amount(&call(json!("amount"))), None);
    }

    #[test]
    fn what_leaves_the_house_can_be_taken_back_only_if_something_says_how() {
        let mail = action("email.send", json!({}));
        let of = |action: &Action, wait| reversibility(Some(action), None, wait);
        assert_eq!(of(&mail, None), Reversibility::Irreversible);
        let wait = Span::secs(120);
        assert_eq!(of(&mail, Some(wait)), Reversibility::Delayed { wait });
        assert_eq!(of(&action("records.put", json!({})), Some(wait)), Reversibility::Internal);
        assert_eq!(reversibility(None, None, None), Reversibility::Nothing);
    }
}
