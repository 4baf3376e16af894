//! The owner's rules: what they make of an action, and what a change of them would have made of the last ones.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::api::ApiState;
use crate::api::extract;
use crate::api::problem::{Kind, Problem};
use crate::config::workspace;
use crate::reviews::rules::{self, ExplainError, Explained, Imagined, Tried};

/// How many proposals are judged when nobody says how many.
const USUAL: u32 = 200;

/// The most: some seconds of judging.
const MOST: u32 = 5_000;

/// `POST /api/v1/policy/explain`: what the rules in force make of an action, with every reason, every name and
/// the facts used. Nothing comes of it.
pub(super) async fn explain(
    State(state): State<ApiState>,
    extract::Json(imagined): extract::Json<Imagined>,
) -> Result<Json<Explained>, Problem> {
    match rules::explain(state.door.engine(), imagined).await {
        Ok(explained) => Ok(Json(explained)),
        Err(error @ ExplainError::UnknownAction(..)) => {
            Err(Problem::new(Kind::BadRequest, error.to_string()))
        }
        Err(ExplainError::Store(error)) => Err(error.into()),
    }
}

/// The body of a trial.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The text of a policy file.
    policy: String,
    /// How many of the last proposals.
    #[serde(default = "usual")]
    last: u32,
}

fn usual() -> u32 {
    USUAL
}

/// `POST /api/v1/policy/try`: what another policy file would have made of the last proposals, as far as it
/// differs from the rules in force.
pub(super) async fn try_on(
    State(state): State<ApiState>,
    extract::Json(wanted): extract::Json<Wanted>,
) -> Result<Json<Tried>, Problem> {
    if !(1..=MOST).contains(&wanted.last) {
        return Err(Problem::new(Kind::BadRequest, format!("`last` is a number from 1 to {MOST}")));
    }
    let policy = workspace::policy(&wanted.policy).map_err(|problems| {
        let told: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        Problem::new(Kind::BadRequest, told.join("; ")).with("problems", told)
    })?;
    Ok(Json(rules::try_on(state.door.engine(), &policy, i64::from(wanted.last)).await?))
}
