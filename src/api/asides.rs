//! What is done about reviews and effects beside deciding: comments, snoozes, several reviews at once, what
//! was changed in drafts, and calling an effect back.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::auth::Caller;
use crate::api::extract::{self, Query, id};
use crate::api::page;
use crate::api::problem::{Kind, Problem};
use crate::domain::digest::Digest;
use crate::domain::duration::Span;
use crate::domain::event::Verdict;
use crate::domain::ids::{EffectId, ReviewId};
use crate::reviews::batch::{Decided, decide_all};
use crate::reviews::call_back::{CalledBack, call_back};
use crate::reviews::{DecideRefusal, aside};

/// The body of a comment.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Comment {
    text: String,
}

/// `POST /api/v1/reviews/{id}/comments`.
pub(super) async fn comment(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(review): Path<String>,
    extract::Json(comment): extract::Json<Comment>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let review: ReviewId = id(&review, Kind::UnknownReview)?;
    let kept = aside::comment(state.door.engine(), review, &caller.by(), &comment.text).await?;
    Ok((StatusCode::CREATED, Json(json!(kept))))
}

/// The body of a snooze: a moment, or a length of time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Snooze {
    until: Option<Timestamp>,
    #[serde(rename = "for")]
    span: Option<Span>,
}

/// `POST /api/v1/reviews/{id}/snooze`: `until` a moment or `for` a while.
pub(super) async fn snooze(
    State(state): State<ApiState>,
    Path(review): Path<String>,
    extract::Json(snooze): extract::Json<Snooze>,
) -> Result<Json<Value>, Problem> {
    let review: ReviewId = id(&review, Kind::UnknownReview)?;
    let engine = state.door.engine();
    let until = match (snooze.until, snooze.span) {
        (Some(until), None) => until,
        (None, Some(span)) => span.after(engine.now()),
        _ => return Err(Problem::new(Kind::BadRequest, "give either `until` or `for`")),
    };
    aside::snooze(engine, review, until).await?;
    Ok(Json(json!({"review": review, "snoozed_until": until})))
}

/// The body of a decision about several reviews.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decisions {
    verdict: BatchWord,
    /// With `rejected`: why, for the journal.
    reason: Option<String>,
    reviews: Vec<Seen>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BatchWord {
    Approved,
    Rejected,
}

/// A review, and what of it the decider has seen.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    id: ReviewId,
    digest: Digest,
}

/// `POST /api/v1/reviews/decisions`: one word for several reviews that are alike and of low risk.
pub(super) async fn decide(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    extract::Json(decisions): extract::Json<Decisions>,
) -> Result<Json<Value>, Problem> {
    let verdict = match (decisions.verdict, decisions.reason) {
        (BatchWord::Approved, None) => Verdict::Approved,
        (BatchWord::Rejected, reason) => Verdict::Rejected { reason: reason.unwrap_or_default() },
        (BatchWord::Approved, Some(_)) => {
            return Err(Problem::new(Kind::BadRequest, "`approved` goes alone"));
        }
    };
    let reviews: Vec<(ReviewId, Digest)> =
        decisions.reviews.iter().map(|seen| (seen.id, seen.digest)).collect();
    let decided = decide_all(&state.door, &reviews, &verdict, &caller.by()).await?;
    let outcomes: Vec<Value> = decided.into_iter().map(|one| outcome(one, verdict.as_str())).collect();
    Ok(Json(json!({"reviews": outcomes})))
}

fn outcome(Decided { review, outcome }: Decided, status: &str) -> Value {
    match outcome {
        Ok(run) => json!({"review": review, "status": status, "run": run}),
        Err(refusal) => {
            let status = match &refusal {
                DecideRefusal::Over { status, .. } => status.clone(),
                _ => "open".to_owned(),
            };
            json!({"review": review, "status": status, "problem": Problem::from(refusal).body()})
        }
    }
}

/// The query of the list of edits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edits {
    workflow: Option<String>,
    limit: Option<u32>,
}

/// `GET /api/v1/reviews/edits`: how much drafts were changed, by version and action, and the newest of them.
pub(super) async fn edits(
    State(state): State<ApiState>,
    Query(query): Query<Edits>,
) -> Result<Json<Value>, Problem> {
    let size = page::size(query.limit)?;
    let store = state.store();
    store.keep_edits().await?;
    let workflow = query.workflow.as_deref();
    let (sums, edits) = (store.edit_sums(workflow).await?, store.edits(workflow, size as i64).await?);
    Ok(Json(json!({"by_version": sums, "edits": edits})))
}

/// `POST /api/v1/effects/{id}/call-back`: 202 when its run has still to hear of it, because it is held.
pub(super) async fn call_effect_back(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(effect): Path<String>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let effect: EffectId = id(&effect, Kind::UnknownEffect)?;
    Ok(match call_back(&state.door, effect, &caller.by()).await? {
        CalledBack::Back => (StatusCode::OK, Json(json!({"effect": effect, "status": "called_back"}))),
        CalledBack::Told => (StatusCode::ACCEPTED, Json(json!({"effect": effect, "status": "told"}))),
    })
}
