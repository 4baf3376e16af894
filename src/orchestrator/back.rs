//! The look back: what was done before with those whom a step is about to reach, for policy to judge by.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::Value;

use crate::domain::budget::Day;
use crate::domain::duration::Span;
use crate::domain::event::{ErrorKind, StepError};
use crate::domain::ids::RunId;
use crate::domain::plan::{Lookup, Stimulus};
use crate::domain::policy::facts::History;
use crate::orchestrator::engine::Engine;
use crate::store::StoreError;

/// The pause before a database that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Looks back, and writes down whom the step is about to reach. Without an answer within the step's time the
/// attempt fails: nothing is judged by half of what is known.
pub(super) async fn look(engine: Arc<Engine>, run: RunId, lookup: Lookup, timeout: Span) -> Stimulus {
    let looked = match tokio::time::timeout(timeout.0, until_answered(&engine, run, &lookup)).await {
        Ok(Ok(history)) => Ok(history),
        Ok(Err(error)) => Err(StepError::new(ErrorKind::Internal, error.to_string())),
        Err(_) => {
            Err(StepError::new(ErrorKind::Timeout, format!("the database did not answer within {timeout}")))
        }
    };
    Stimulus::LookedBack(lookup.step, lookup.attempt, Box::new(looked))
}

async fn until_answered(engine: &Engine, run: RunId, lookup: &Lookup) -> Result<History, StoreError> {
    loop {
        match history(engine, run, lookup, true).await {
            Err(error) if error.retryable() => tokio::time::sleep(ASK_AGAIN).await,
            answered => return answered,
        }
    }
}

/// What was done before; with `claims`, others see from now on that the step is about to do it too.
///
/// # Errors
/// When the database does not answer.
pub async fn history(
    engine: &Engine,
    run: RunId,
    lookup: &Lookup,
    claims: bool,
) -> Result<History, StoreError> {
    let now = engine.now();
    engine.store.look_back(run, lookup, now, Day::at(now, &zone(engine)), claims).await
}

/// The owner's time zone.
#[must_use]
pub fn zone(engine: &Engine) -> TimeZone {
    let name = engine.workspace.get("time_zone").and_then(Value::as_str).unwrap_or("UTC");
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}
