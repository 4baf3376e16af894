//! Deciding a review: the verdict is held against the question before anything is written, so that
//! a run never wakes up to an answer it cannot use.

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::action::{self, Action, ActionSpec};
use crate::domain::digest::Digest;
use crate::domain::event::{Ask, Proposal, Verdict};
use crate::domain::ids::{ReviewId, RunId};
use crate::domain::notice::NoticeKind;
use crate::domain::plan::Lookup;
use crate::domain::plan::judging::{facts_again, judge_edit, local_time};
use crate::domain::plan::respond::{self, NoAuthor};
use crate::domain::policy::Ruling;
use crate::domain::policy::target::targets;
use crate::domain::step::StepStatus;
use crate::models::schema;
use crate::orchestrator::door::Door;
use crate::orchestrator::{back, failpoint};
use crate::store::StoreError;
use crate::store::reviews::{DecideError, ReviewRow};

/// The longest that the owner may say to a draft, characters: more is a draft of its own.
pub const MAX_WORDS: usize = 4_000;

/// Why a decision was not taken. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum DecideRefusal {
    /// There is no such review.
    #[error("there is no review {0}")]
    NotFound(ReviewId),
    /// Somebody was faster, or the question no longer matters.
    #[error("this review is {status} already{}", .by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default())]
    Over {
        /// How it ended.
        status: String,
        /// Who decided, if somebody did.
        by: Option<String>,
        /// When.
        at: Option<Timestamp>,
        /// How.
        verdict: Option<Verdict>,
    },
    /// The decision was made about something else than what is asked.
    #[error("the decision is about {given}, but this review is about {expected}: look at it again")]
    OtherDigest {
        /// What the decider had seen.
        given: Digest,
        /// What is asked.
        expected: Digest,
    },
    /// This kind of question takes other verdicts.
    #[error("a review that asks for `{}` can be {}, not {verdict}", .ask.as_str(), .fitting.join(" or "))]
    Unfit {
        /// What is asked.
        ask: Ask,
        /// What was said.
        verdict: &'static str,
        /// What may be said.
        fitting: &'static [&'static str],
    },
    /// The answer does not fit the form.
    #[error("the answer does not fit the form: {0}")]
    BadAnswer(String),
    /// The edited parameters are not those of the action.
    #[error("the edit does not fit `{action}`: {why}")]
    BadEdit {
        /// The action.
        action: String,
        /// What does not fit.
        why: String,
    },
    /// There is no agent that could make another draft.
    #[error("{0}")]
    NoAuthor(#[from] NoAuthor),
    /// The words say nothing, or too much.
    #[error("{0}")]
    BadWords(String),
    /// Policy denies the edited action.
    #[error("policy denies the edit: {}", .0.join("; "))]
    Denied(Vec<String>),
    /// The database refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DecideRefusal {
    /// The question does not matter any more, and its run cannot say since when.
    fn gone() -> Self {
        Self::Over { status: "superseded".into(), by: None, at: None, verdict: None }
    }
}

impl From<DecideError> for DecideRefusal {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::NotFound(review) => Self::NotFound(review),
            DecideError::Over { status, by, at, verdict } => Self::Over { status, by, at, verdict },
            DecideError::OtherDigest { given, expected } => Self::OtherDigest { given, expected },
            DecideError::Store(error) => Self::Store(error),
        }
    }
}

/// Decides a review about `digest`, or, without one, about what it asks at this moment; gives the run
/// that goes on with it. `by` is who decides, for the journal.
///
/// # Errors
/// See [`DecideRefusal`]; nothing is decided then.
pub async fn decide(
    door: &Door,
    review: ReviewId,
    digest: Option<Digest>,
    verdict: Verdict,
    by: &str,
) -> Result<RunId, DecideRefusal> {
    let store = &door.engine().store;
    schema::storable(&serde_json::json!(verdict)).map_err(DecideRefusal::BadAnswer)?;
    let plain = matches!(verdict, Verdict::Approved | Verdict::Rejected { .. });
    if let (true, Some(about)) = (plain, digest) {
        // The commonest verdicts fit or not by what is asked alone, and the statement itself can tell.
        let asks = questions(&verdict);
        let asks: Vec<&str> = asks.iter().map(String::as_str).collect();
        if let Some(run) = take(door, (review, about), (&verdict, by), Some(&asks)).await? {
            return Ok(run);
        }
    }
    let row = store.review(review).await?.ok_or(DecideRefusal::NotFound(review))?;
    if row.status != "open" {
        return Err(DecideRefusal::Over {
            status: row.status,
            by: row.decided_by,
            at: row.decided_at,
            verdict: row.verdict,
        });
    }
    let about = digest.unwrap_or(row.digest);
    if about != row.digest {
        return Err(DecideRefusal::OtherDigest { given: about, expected: row.digest });
    }
    fits(row.question.ask, row.question.form.is_some(), &verdict)?;
    match &verdict {
        Verdict::Answered { answer } => fits_form(row.question.form.as_ref(), answer)?,
        Verdict::Edited { params } => may_edit(door, &row, params).await?,
        Verdict::Responded { words } => may_respond(door, &row, words).await?,
        Verdict::Approved | Verdict::Rejected { .. } | Verdict::Expired => {}
    }
    if row.question.ask == Ask::Parked {
        store.forget_crashes(row.run).await?;
        store.notice_over(NoticeKind::RunParked, &row.run.to_string()).await?;
    }
    let edited = matches!(verdict, Verdict::Edited { .. });
    let run = match take(door, (review, about), (&verdict, by), None).await? {
        Some(run) => run,
        None => {
            let run = store.decide(review, about, &verdict, by).await?;
            failpoint::hit(failpoint::DECISION_TAKEN);
            door.wake(run);
            run
        }
    };
    if edited {
        note_edits(door);
    }
    Ok(run)
}

/// What follows from an edit is nothing that anybody waits for; what a crash leaves out, the housekeeper
/// brings in.
fn note_edits(door: &Door) {
    let store = door.engine().store.clone();
    tokio::spawn(async move {
        if let Err(error) = store.keep_edits().await {
            tracing::warn!(%error, "an edit is kept as feedback later");
        }
    });
}

/// Decides, and goes on with the run on this node if it sleeps; nothing when this node has no room, or when
/// there was nothing to decide.
async fn take(
    door: &Door,
    about: (ReviewId, Digest),
    verdict: (&Verdict, &str),
    asks: Option<&[&str]>,
) -> Result<Option<RunId>, DecideRefusal> {
    let Some(node) = door.taker() else { return Ok(None) };
    let go_on = |run, read| async move {
        match read {
            Some(read) => door.go_on(node, run, read).await,
            None => door.wake(run),
        }
    };
    let decided = door.engine().store.decide_and_take(about, verdict, node, asks, go_on).await?;
    if decided.is_some() {
        failpoint::hit(failpoint::DECISION_TAKEN);
    }
    Ok(decided)
}

/// The questions that take a verdict by what they ask alone, as [`Store::decide_and_take`] names them.
///
/// [`Store::decide_and_take`]: crate::store::Store::decide_and_take
fn questions(verdict: &Verdict) -> Vec<String> {
    let both = Ask::ALL.into_iter().flat_map(|ask| [(ask, false), (ask, true)]);
    let taking = both.filter(|(ask, form)| fits(*ask, *form, verdict).is_ok());
    taking.map(|(ask, form)| format!("{}{}", ask.as_str(), if form { "+form" } else { "" })).collect()
}

/// The verdicts that a question takes. A deadline's `expired` is the clock's alone.
#[must_use]
pub fn fitting(ask: Ask, has_form: bool) -> &'static [&'static str] {
    match (ask, has_form) {
        (Ask::Approval, _) => &["approved", "edited", "rejected", "responded"],
        (Ask::Answer, _) | (Ask::Question, true) => &["answered", "rejected"],
        (Ask::Question, false) => &["approved", "rejected"],
        (Ask::Budget, _) => &["approved", "answered", "rejected"],
        (Ask::InDoubt | Ask::Undo | Ask::Parked, _) => &["answered"],
    }
}

fn fits(ask: Ask, has_form: bool, verdict: &Verdict) -> Result<(), DecideRefusal> {
    let fitting = fitting(ask, has_form);
    match fitting.contains(&verdict.as_str()) {
        true => Ok(()),
        false => Err(DecideRefusal::Unfit { ask, verdict: verdict.as_str(), fitting }),
    }
}

/// The form of a review in doubt lists `IN_DOUBT_CHOICES`, so that this one check serves every question.
fn fits_form(form: Option<&Value>, answer: &Value) -> Result<(), DecideRefusal> {
    let form = form.ok_or_else(|| DecideRefusal::BadAnswer("this review has no form".into()))?;
    schema::validate(form, answer).map_err(DecideRefusal::BadAnswer)
}

/// An edit is a new action and passes policy again, now rather than when the run wakes up: the owner
/// is still there to hear why not.
async fn may_edit(door: &Door, row: &ReviewRow, params: &Value) -> Result<(), DecideRefusal> {
    let engine = door.engine();
    let gone = DecideRefusal::gone;
    let loaded = engine.store.load_run(row.run).await?.ok_or_else(gone)?;
    let proposal = match loaded.run.status(&row.step) {
        StepStatus::Asking { review, proposal: Some(proposal), .. } if *review == row.id => proposal,
        _ => return Err(gone()),
    };
    keeps_names(proposal, params)?;
    let stage = engine.version(loaded.run.opened.version).await?.stage;
    let workflow = &loaded.run.opened.workflow;
    let mut facts = facts_again(proposal, workflow, stage, local_time(engine.now(), back::zone(engine)));
    let lookup = |params: &Value| {
        let action = Action { action: proposal.action.action.clone(), params: params.clone() };
        let targets = targets(&action, action::spec(&action.action)?, &proposal.labels);
        let (step, attempt, workflow) = (row.step.clone(), proposal.attempt, workflow.clone());
        Some(Lookup { step, attempt, action: action.action, workflow, targets })
    };
    // Whom the edit reaches may be somebody else: what was done before with them is looked up, and that this
    // is about to be done too is written down.
    if let Some(lookup) = lookup(params) {
        facts.history = Some(back::history(engine, row.run, &lookup, true).await?);
    }
    let (_, decision) = judge_edit(&engine.policy, proposal, params.clone(), &facts);
    if decision.ruling < Ruling::Deny {
        return Ok(());
    }
    // What is about to be done is what was proposed, as before.
    if let Some(lookup) = lookup(&proposal.action.params) {
        back::history(engine, row.run, &lookup, true).await?;
    }
    Err(DecideRefusal::Denied(decision.reasons))
}

/// The owner's words need an agent that can heed them: said now, while the owner is there to choose
/// something else.
async fn may_respond(door: &Door, row: &ReviewRow, words: &str) -> Result<(), DecideRefusal> {
    sound_words(words, MAX_WORDS).map_err(DecideRefusal::BadWords)?;
    has_author(door, row).await
}

/// Whether there is an agent that words could go to.
///
/// # Errors
/// See [`DecideRefusal`].
pub(super) async fn has_author(door: &Door, row: &ReviewRow) -> Result<(), DecideRefusal> {
    let engine = door.engine();
    let gone = DecideRefusal::gone;
    let loaded = engine.store.load_run(row.run).await?.ok_or_else(gone)?;
    let version = engine.version(loaded.run.opened.version).await?;
    respond::author(&loaded.run, &version.version, &row.step)?;
    Ok(())
}

/// Words that say something, and not too much.
pub(super) fn sound_words(words: &str, most: usize) -> Result<(), String> {
    match words.chars().count() {
        _ if words.trim().is_empty() => Err("there are no words".into()),
        long if long > most => Err(format!("it has {long} characters; at most {most} are kept")),
        _ => Ok(()),
    }
}

fn keeps_names(proposal: &Proposal, params: &Value) -> Result<(), DecideRefusal> {
    let action = &proposal.action.action;
    let bad = |why: String| DecideRefusal::BadEdit { action: action.clone(), why };
    let spec = action::spec(action).ok_or_else(|| bad("there is no such action".into()))?;
    wrong_name(spec, params).map_or(Ok(()), |why| Err(bad(why)))
}

fn wrong_name(spec: &ActionSpec, params: &Value) -> Option<String> {
    let Some(map) = params.as_object() else { return Some("parameters are an object".into()) };
    let missing = spec.required.iter().find(|name| !map.contains_key(**name));
    let known = |name: &str| spec.required.contains(&name) || spec.optional.contains(&name);
    let unknown = map.keys().find(|name| !known(name));
    match (missing, unknown) {
        (Some(name), _) => Some(format!("`{name}` is missing")),
        (None, Some(name)) => {
            let names: Vec<&str> = spec.required.iter().chain(spec.optional).copied().collect();
            Some(format!("it has no parameter `{name}`; it has {}", names.join(", ")))
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::IN_DOUBT_CHOICES;
    use serde_json::json;

    fn verdicts() -> [Verdict; 6] {
        [
            Verdict::Approved,
            Verdict::Edited { params: json!({}) },
            Verdict::Rejected { reason: String::new() },
            Verdict::Answered { answer: json!(1) },
            Verdict::Responded { words: "shorter".into() },
            Verdict::Expired,
        ]
    }

    #[test]
    fn each_kind_of_question_takes_its_own_verdicts_and_nobody_may_say_expired() {
        let taken = |ask, form| -> Vec<&'static str> {
            let fitting = verdicts().into_iter().filter(|verdict| fits(ask, form, verdict).is_ok());
            fitting.map(|verdict| verdict.as_str()).collect()
        };
        assert_eq!(taken(Ask::Approval, false), ["approved", "edited", "rejected", "responded"]);
        assert_eq!(taken(Ask::Answer, true), ["rejected", "answered"]);
        assert_eq!(taken(Ask::Question, true), ["rejected", "answered"]);
        assert_eq!(taken(Ask::Question, false), ["approved", "rejected"]);
        assert_eq!(taken(Ask::InDoubt, true), ["answered"]);
    }

    #[test]
    fn a_verdict_that_does_not_fit_is_told_what_would() {
        let refusal = fits(Ask::InDoubt, true, &Verdict::Approved).unwrap_err();
        assert_eq!(refusal.to_string(), "a review that asks for `in_doubt` can be answered, not approved");
    }

    #[test]
    fn an_effect_in_doubt_takes_its_three_answers_alone() {
        let form = json!({"type": "string", "enum": IN_DOUBT_CHOICES});
        for choice in IN_DOUBT_CHOICES {
            assert!(fits_form(Some(&form), &json!(choice)).is_ok(), "{choice}");
        }
        assert!(fits_form(Some(&form), &json!("perhaps")).is_err());
        assert!(fits_form(None, &json!("happened")).is_err());
    }

    #[test]
    fn an_edit_keeps_the_names_of_its_action() {
        let spec = action::spec("email.send").unwrap();
        let whole = json!({"to": "a@b.example", "subject": "s", "body": "b", "cc": []});
        assert_eq!(wrong_name(spec, &whole), None);
        let without = json!({"to": "a@b.example", "subject": "s"});
        assert_eq!(wrong_name(spec, &without).unwrap(), "`body` is missing");
        let more = json!({"to": "a@b.example", "subject": "s", "body": "b", "bcc": "x@y.example"});
        assert!(wrong_name(spec, &more).unwrap().starts_with("it has no parameter `bcc`"));
        assert_eq!(wrong_name(spec, &json!("x")).unwrap(), "parameters are an object");
    }
}
