//! Calling a held effect back. Only its run can say whether it was in time, so whoever calls waits for that.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::ids::EffectId;
use crate::orchestrator::door::Door;
use crate::store::StoreError;
use crate::store::effects::EffectRow;

/// How long is waited for the run's word. A run that is held says it when it goes on.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// What became of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CalledBack {
    /// It does not go out; the owner is asked anew.
    Back,
    /// The run will hear of it before it lets anything go, but has not yet.
    Told,
}

/// Why an effect was not called back.
#[derive(Debug, thiserror::Error)]
pub enum CallBackRefusal {
    /// There is no such effect.
    #[error("there is no effect {0}")]
    NotFound(EffectId),
    /// It went out, or never waited.
    #[error("this effect is {status}{}: it cannot be called back", .started_at.map(|at| format!(" since {at:.0}")).unwrap_or_default())]
    TooLate {
        /// Its status.
        status: String,
        /// When it was started.
        started_at: Option<Timestamp>,
    },
    /// The database refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Calls a held effect back; gives once it is known whether that was in time, or after a few seconds.
///
/// # Errors
/// See [`CallBackRefusal`].
pub async fn call_back(door: &Door, effect: EffectId, by: &str) -> Result<CalledBack, CallBackRefusal> {
    let store = &door.engine().store;
    let row = store.effect(effect).await?.ok_or(CallBackRefusal::NotFound(effect))?;
    if !is_held(&row) || !store.request_call_back(row.run, effect, by).await? {
        return Err(too_late(row));
    }
    door.wake(row.run);
    let waiting = async {
        let mut pause = tokio::time::interval(LOOK);
        loop {
            pause.tick().await;
            let row = store.effect(effect).await?.ok_or(CallBackRefusal::NotFound(effect))?;
            match row.status.as_str() {
                "proposed" if row.goes_at.is_none() => return Ok(CalledBack::Back),
                "proposed" => {}
                // Its run ended meanwhile, and it with it.
                "withdrawn" => return Ok(CalledBack::Back),
                _ => return Err(too_late(row)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or(Ok(CalledBack::Told))
}

fn is_held(row: &EffectRow) -> bool {
    row.status == "proposed" && row.goes_at.is_some()
}

fn too_late(row: EffectRow) -> CallBackRefusal {
    CallBackRefusal::TooLate { status: row.status, started_at: row.started_at }
}
