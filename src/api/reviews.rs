//! Reviews: what waits for the owner, and the one decision on each.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{ETAG, IF_MATCH};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::auth::Caller;
use crate::api::extract::{self, Query, header, id};
use crate::api::page::{self, Place};
use crate::api::problem::{Kind, Problem};
use crate::domain::digest::Digest;
use crate::domain::event::Verdict;
use crate::domain::ids::{ReviewId, RunId};
use crate::reviews;

/// What a list of reviews may be narrowed to.
const STATUSES: [&str; 7] = ["open", "approved", "edited", "rejected", "answered", "expired", "superseded"];

/// The query of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    status: Option<String>,
    run: Option<RunId>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/reviews`: of one status, `open` when none is given, the oldest first.
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<Listed>,
) -> Result<Json<Value>, Problem> {
    let status = query.status.as_deref().unwrap_or("open");
    if !STATUSES.contains(&status) {
        return Err(Problem::new(Kind::BadRequest, format!("`status` is one of {}", STATUSES.join(", "))));
    }
    let size = page::size(query.limit)?;
    let after = query.cursor.as_deref().map(Place::parse).transpose()?;
    let after = after.map(|place| (place.at, ReviewId(place.id)));
    let mut rows = state.store().reviews(status, query.run, after, size as i64 + 1).await?;
    let next = page::cut(&mut rows, size, |row| Place { at: row.opened_at, id: row.id.0 });
    Ok(Json(json!({"reviews": rows, "next": next})))
}

/// `GET /api/v1/reviews/{id}`, with the digest that a decision is bound to as its `ETag`.
pub(super) async fn show(
    State(state): State<ApiState>,
    Path(review): Path<String>,
) -> Result<Response, Problem> {
    let review: ReviewId = id(&review, Kind::UnknownReview)?;
    let row = state.store().review(review).await?;
    let row = row.ok_or_else(|| Problem::new(Kind::UnknownReview, format!("there is no review {review}")))?;
    let tag = format!("\"{}\"", row.digest);
    let shown = reviews::shown(state.door.engine(), row).await?;
    Ok(([(ETAG, tag)], Json(shown)).into_response())
}

/// The body of a decision.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decision {
    /// What is decided.
    verdict: Word,
    /// With `edited`: the parameters to use.
    params: Option<Value>,
    /// With `answered`: the answer.
    #[serde(default, deserialize_with = "given")]
    answer: Option<Value>,
    /// With `rejected`: why, for the journal.
    reason: Option<String>,
    /// With `responded`: what the agent is to heed.
    words: Option<String>,
    /// What the decider has seen.
    digest: Option<Digest>,
}

/// `null` is an answer; only a missing one is none.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Approved,
    Edited,
    Rejected,
    Answered,
    Responded,
}

impl Decision {
    fn verdict(self) -> Result<Verdict, Problem> {
        let wrong = |why| Err(Problem::new(Kind::BadRequest, why));
        match (self.verdict, self.params, self.answer, self.reason, self.words) {
            (Word::Approved, None, None, None, None) => Ok(Verdict::Approved),
            (Word::Edited, Some(params), None, None, None) => Ok(Verdict::Edited { params }),
            (Word::Rejected, None, None, reason, None) => {
                Ok(Verdict::Rejected { reason: reason.unwrap_or_default() })
            }
            (Word::Answered, None, Some(answer), None, None) => Ok(Verdict::Answered { answer }),
            (Word::Responded, None, None, None, Some(words)) => Ok(Verdict::Responded { words }),
            (Word::Approved, ..) => wrong("`approved` goes alone"),
            (Word::Edited, ..) => wrong("`edited` goes with `params` alone"),
            (Word::Rejected, ..) => wrong("`rejected` goes with `reason` or alone"),
            (Word::Answered, ..) => wrong("`answered` goes with `answer` alone"),
            (Word::Responded, ..) => wrong("`responded` goes with `words` alone"),
        }
    }
}

/// `POST /api/v1/reviews/{id}/decision`, about the digest in `If-Match` or in the body.
pub(super) async fn decide(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(review): Path<String>,
    headers: HeaderMap,
    extract::Json(decision): extract::Json<Decision>,
) -> Result<Json<Value>, Problem> {
    let review: ReviewId = id(&review, Kind::UnknownReview)?;
    let digest = agreed(if_match(&headers)?, decision.digest)?;
    let verdict = decision.verdict()?;
    let status = verdict.as_str();
    let run = reviews::decide(&state.door, review, digest, verdict, &caller.by()).await?;
    Ok(Json(json!({"review": review, "status": status, "run": run})))
}

/// The digest in `If-Match`; `*` is any (RFC 9110, section 13.1.1).
fn if_match(headers: &HeaderMap) -> Result<Option<Digest>, Problem> {
    let bad = || Problem::new(Kind::BadRequest, "If-Match is the ETag of the review as you have seen it");
    match header(headers, IF_MATCH.as_str())? {
        None | Some("*") => Ok(None),
        Some(tag) => {
            let digest =
                tag.trim().strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).ok_or_else(bad)?;
            digest.parse().map(Some).map_err(|_| bad())
        }
    }
}

fn agreed(header: Option<Digest>, body: Option<Digest>) -> Result<Option<Digest>, Problem> {
    match (header, body) {
        (Some(header), Some(body)) if header != body => {
            Err(Problem::new(Kind::BadRequest, "If-Match and `digest` name different things"))
        }
        (header, body) => Ok(header.or(body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(body: Value) -> Result<Verdict, String> {
        let decision: Decision = serde_json::from_value(body).map_err(|error| error.to_string())?;
        decision.verdict().map_err(|problem| problem.body()["detail"].to_string())
    }

    #[test]
    fn each_verdict_goes_with_its_own_field_and_no_other() {
        assert_eq!(verdict(json!({"verdict": "approved"})), Ok(Verdict::Approved));
        assert_eq!(
            verdict(json!({"verdict": "answered", "answer": null})),
            Ok(Verdict::Answered { answer: Value::Null })
        );
        assert_eq!(
            verdict(json!({"verdict": "responded", "words": "shorter"})),
            Ok(Verdict::Responded { words: "shorter".into() })
        );
        assert_eq!(verdict(json!({"verdict": "rejected"})), Ok(Verdict::Rejected { reason: String::new() }));
        for bad in [
            json!({"verdict": "approved", "params": {}}),
            json!({"verdict": "edited"}),
            json!({"verdict": "answered"}),
            json!({"verdict": "answered", "answer": 1, "reason": "x"}),
            json!({"verdict": "responded"}),
            json!({"verdict": "approved", "words": "but shorter"}),
            json!({"verdict": "expired"}),
            json!({"verdict": "approved", "force": true}),
        ] {
            assert!(verdict(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_etag_is_the_digest_in_quotes_and_nothing_else() {
        let digest = Digest::of_bytes(b"x");
        let seen = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, value.parse().unwrap());
            if_match(&headers)
        };
        assert_eq!(seen(&format!("\"{digest}\"")).unwrap(), Some(digest));
        assert_eq!(seen("*").unwrap(), None);
        for bad in [digest.to_string(), format!("W/\"{digest}\""), "\"x\"".into()] {
            assert!(seen(&bad).is_err(), "{bad}");
        }
        assert!(agreed(Some(digest), Some(Digest::ZERO)).is_err());
    }
}
