//! Several reviews decided with one word: only those that are the same question over and over, of which
//! little hangs on each. Everything else deserves a look of its own.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::domain::digest::Digest;
use crate::domain::event::{Ask, Verdict};
use crate::domain::ids::{ReviewId, RunId, StepId};
use crate::domain::risk::RiskClass;
use crate::orchestrator::door::Door;
use crate::reviews::decide::{DecideRefusal, decide};
use crate::store::StoreError;
use crate::store::reviews::ReviewRow;

/// Reviews in one batch, at most: what a person can have looked at.
pub const MOST: usize = 100;

/// Why a review cannot be decided together with the others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unlike {
    /// Which.
    pub review: ReviewId,
    /// Why, one sentence.
    pub why: String,
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum BatchRefusal {
    /// These have to be looked at one by one.
    #[error("{} of these reviews cannot be decided together with the others", .0.len())]
    Unlike(Vec<Unlike>),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Bad(String),
    /// The database refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of one of them.
#[derive(Debug)]
pub struct Decided {
    /// Which.
    pub review: ReviewId,
    /// The run that goes on with it, or why it was not decided: somebody was faster.
    pub outcome: Result<RunId, DecideRefusal>,
}

/// Decides all of these alike, each about the digest that was seen, or none of them.
///
/// # Errors
/// See [`BatchRefusal`]; nothing is decided then. One that somebody else decides at that very moment is no
/// error of the batch.
pub async fn decide_all(
    door: &Door,
    reviews: &[(ReviewId, Digest)],
    verdict: &Verdict,
    by: &str,
) -> Result<Vec<Decided>, BatchRefusal> {
    if !matches!(verdict, Verdict::Approved | Verdict::Rejected { .. }) {
        return Err(BatchRefusal::Bad(
            "several reviews can be approved or rejected together, not more".into(),
        ));
    }
    let seen: BTreeMap<ReviewId, Digest> = reviews.iter().copied().collect();
    if seen.len() != reviews.len() {
        return Err(BatchRefusal::Bad("a review is named twice".into()));
    }
    if reviews.is_empty() || reviews.len() > MOST {
        return Err(BatchRefusal::Bad(format!("name 1 to {MOST} reviews")));
    }
    let store = &door.engine().store;
    let named: Vec<ReviewId> = reviews.iter().map(|(review, _)| *review).collect();
    let mut found = store.reviews_by_id(&named).await?;
    let mut rows = Vec::new();
    let mut unlike = Vec::new();
    for (review, digest) in reviews {
        match found.remove(review) {
            Some((row, version)) => match unfit(&row, *digest) {
                None => rows.push((Kin::of(&row, version), row)),
                Some(why) => unlike.push(Unlike { review: *review, why }),
            },
            None => unlike.push(Unlike { review: *review, why: "there is no such review".into() }),
        }
    }
    if let Some(((first, _), others)) = rows.split_first() {
        let strangers = others
            .iter()
            .filter_map(|(kin, row)| first.differs(kin).map(|why| Unlike { review: row.id, why }));
        unlike.extend(strangers);
    }
    if !unlike.is_empty() {
        return Err(BatchRefusal::Unlike(unlike));
    }
    let mut decided = Vec::new();
    for (review, digest) in reviews {
        let outcome = decide(door, *review, Some(*digest), verdict.clone(), by).await;
        decided.push(Decided { review: *review, outcome });
    }
    Ok(decided)
}

/// Why a review cannot be part of any batch.
fn unfit(row: &ReviewRow, seen: Digest) -> Option<String> {
    if row.status != "open" {
        let by = row.decided_by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
        return Some(format!("it is {} already{by}", row.status));
    }
    if row.digest != seen {
        return Some("it is not about what you have seen".into());
    }
    if row.question.ask != Ask::Approval {
        return Some("it asks for more than an approval".into());
    }
    if row.question.class() != RiskClass::Low {
        return Some(format!("its risk is {}: look at it by itself", row.question.class().as_str()));
    }
    None
}

/// What makes two questions the same.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kin {
    version: Digest,
    step: String,
    action: Option<String>,
    shape: Vec<(String, &'static str)>,
}

impl Kin {
    fn of(row: &ReviewRow, version: Digest) -> Self {
        let step = StepId::from(row.step.place().base);
        let action = row.question.action.as_ref();
        let params = action.and_then(|action| action.params.as_object());
        let shape = params.into_iter().flatten().map(|(name, value)| (name.clone(), kind(value)));
        Self {
            version,
            step: step.0,
            action: action.map(|action| action.action.clone()),
            shape: shape.collect(),
        }
    }

    fn differs(&self, other: &Self) -> Option<String> {
        let why = match () {
            () if self.version != other.version => {
                "it comes from another version of another workflow, or of this one"
            }
            () if self.step != other.step => "it is about another step",
            () if self.action != other.action => "it is another action",
            () if self.shape != other.shape => "its parameters are of another kind",
            () => return None,
        };
        Some(why.to_owned())
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "mapping",
    }
}
