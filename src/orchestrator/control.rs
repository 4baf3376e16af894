//! What the owner does to runs from outside: stop, hold, let go, go on, do anew. Before any of these,
//! [`outlook`] tells which effects would happen again, or be undone.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::domain::event::Rerun;
use crate::domain::ids::{RunId, StepId};
use crate::domain::plan::again::again;
use crate::domain::run::Run;
use crate::domain::step::StepStatus;
use crate::domain::workflow::Version;
use crate::orchestrator::door::{Door, OpenError, Origin, Request};
use crate::orchestrator::engine::Engine;
use crate::store::StoreError;
use crate::store::effects::EffectRow;
use crate::store::journal::Opened;
use crate::store::pauses::Scope;
use crate::store::runs::RunRow;

/// What the owner may do to a run.
#[derive(Clone, PartialEq, Debug)]
pub enum Control {
    /// Stop it; what it did is undone where its steps say how.
    Cancel,
    /// Hold it: nothing begins.
    Pause,
    /// Let it go on.
    Resume,
    /// Go on although it has ended: from a step, or from where it failed.
    Retry {
        /// The step.
        from: Option<StepId>,
        /// Let completed effects happen again.
        repeat: bool,
    },
}

/// What a control would mean for effects that have happened.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Outlook {
    /// Steps that are done anew.
    pub steps: Vec<StepId>,
    /// Completed effects that would happen again: of `retry` and `rerun` with `repeat`, and those that have
    /// been undone.
    pub again: Vec<EffectRow>,
    /// Completed effects of these steps that would not: their first result is used.
    pub kept: Vec<EffectRow>,
    /// Completed effects that would be undone.
    pub undone: Vec<EffectRow>,
}

/// Why a control was not taken. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such run.
    #[error("there is no run {0}")]
    NotFound(RunId),
    /// It has ended, or has not ended yet.
    #[error("run {run} is {status}")]
    Unfit {
        /// The run.
        run: RunId,
        /// Its status.
        status: String,
    },
    /// Its workflow has no such step.
    #[error("run {run} has no step `{step}`")]
    UnknownStep {
        /// The run.
        run: RunId,
        /// The step.
        step: StepId,
    },
    /// The new run was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What `control` would mean for the effects of a run.
///
/// # Errors
/// See [`ControlError`].
pub async fn outlook(engine: &Engine, run: RunId, control: &Control) -> Result<Outlook, ControlError> {
    let (row, folded, version) = load(engine, run).await?;
    let effects = engine.store.effects(run).await?;
    let of = |ids: &BTreeSet<StepId>| -> Vec<EffectRow> {
        let own = ids.iter().filter_map(|id| folded.record(id).effect);
        let own: BTreeSet<_> = own.collect();
        effects.iter().filter(|effect| own.contains(&effect.id)).cloned().collect()
    };
    match control {
        Control::Retry { from, repeat } => {
            fit(&row, row.finished_at.is_some())?;
            let unknown =
                || ControlError::UnknownStep { run, step: from.clone().unwrap_or_else(|| "".into()) };
            let told = again(&folded, &version, from.as_ref()).ok_or_else(unknown)?;
            let mut outlook = Outlook {
                again: of(&told.undone),
                steps: told.steps.into_iter().filter(|id| !id.place().undo).collect(),
                ..Outlook::default()
            };
            let completed = of(&told.completed);
            if *repeat {
                outlook.again.extend(completed)
            } else {
                outlook.kept = completed
            }
            Ok(outlook)
        }
        Control::Cancel => {
            fit(&row, row.finished_at.is_none())?;
            let undoable: BTreeSet<StepId> =
                completed(&folded).filter(|id| version.step(&id.undo()).is_some()).collect();
            Ok(Outlook { undone: of(&undoable), ..Outlook::default() })
        }
        Control::Pause | Control::Resume => {
            fit(&row, row.finished_at.is_none())?;
            Ok(Outlook::default())
        }
    }
}

/// Does it. The run acts on it as soon as it can; the kill switch delays that, too.
///
/// # Errors
/// See [`ControlError`].
pub async fn control(engine: &Engine, run: RunId, control: &Control, by: &str) -> Result<(), ControlError> {
    let store = &engine.store;
    let taken = match control {
        Control::Cancel => store.request_cancel(run, by).await?,
        Control::Pause => store.request_hold(run, true, by).await?,
        Control::Resume => store.request_hold(run, false, by).await?,
        Control::Retry { from, repeat } => {
            outlook(engine, run, control).await?; // the run must be fit for it before it is told
            store.request_reopen(run, from.as_ref(), *repeat, by).await?
        }
    };
    if taken {
        engine.wake(run);
        return Ok(());
    }
    let row = store.run_row(run).await?.ok_or(ControlError::NotFound(run))?;
    Err(ControlError::Unfit { run, status: row.status })
}

/// What doing a run anew would mean: the effects it has completed.
///
/// # Errors
/// See [`ControlError`].
pub async fn rerun_outlook(engine: &Engine, run: RunId, repeat: bool) -> Result<Outlook, ControlError> {
    let (_, folded, version) = load(engine, run).await?;
    let own: BTreeSet<_> = completed(&folded).filter_map(|id| folded.record(&id).effect).collect();
    let mut effects = engine.store.effects(run).await?;
    effects.retain(|effect| own.contains(&effect.id));
    let steps = version.steps.iter().map(|step| step.id.clone()).collect();
    Ok(match repeat {
        true => Outlook { steps, again: effects, ..Outlook::default() },
        false => Outlook { steps, kept: effects, ..Outlook::default() },
    })
}

/// Opens a new run of the same workflow with the input of another one, or an edited one. Completed
/// effects are not repeated unless the owner wants them to be.
///
/// # Errors
/// See [`ControlError`].
pub async fn rerun(
    door: &Door,
    run: RunId,
    input: Option<Value>,
    repeat: bool,
    key: Option<String>,
) -> Result<Opened, ControlError> {
    let (_, folded, _) = load(door.engine(), run).await?;
    let root = folded.opened.rerun.as_ref().map_or(run, |rerun| rerun.root);
    // An edit is the owner's word; what stays as it was stays as trusted as it was.
    let request = Request {
        workflow: folded.opened.workflow.clone(),
        input: input.unwrap_or_else(|| folded.opened.input.clone()),
        label: folded.opened.label,
        trigger: "rerun",
        key,
        verified: None,
    };
    let rerun = Some(Rerun { of: run, root, repeat });
    let origin = Origin { rerun, budget_micros: folded.opened.budget_micros, ..Origin::default() };
    Ok(door.open_from(request, origin).await?)
}

/// Holds a scope, or lets it go. On this node it holds at once, on others within a second.
///
/// # Errors
/// When the database does not answer.
pub async fn hold(engine: &Engine, scope: &Scope, hold: bool, by: &str) -> Result<(), StoreError> {
    match hold {
        true => engine.store.pause(scope, by).await?,
        false => {
            engine.store.resume(scope).await?;
        }
    }
    engine.look_at_pauses().await
}

fn fit(row: &RunRow, fits: bool) -> Result<(), ControlError> {
    match fits {
        true => Ok(()),
        false => Err(ControlError::Unfit { run: row.id, status: row.status.clone() }),
    }
}

fn completed(run: &Run) -> impl Iterator<Item = StepId> + '_ {
    let done = run.steps.iter().filter(|(id, record)| {
        !id.place().undo
            && record.effect.is_some()
            && !record.compensated
            && matches!(record.status, StepStatus::Succeeded { .. })
    });
    done.map(|(id, _)| id.clone())
}

async fn load(engine: &Engine, run: RunId) -> Result<(RunRow, Run, Version), ControlError> {
    let row = engine.store.run_row(run).await?.ok_or(ControlError::NotFound(run))?;
    let loaded = engine.store.load_run(run).await?.ok_or(ControlError::NotFound(run))?;
    let version = engine.version(loaded.run.opened.version).await?;
    Ok((row, loaded.run, version.version.as_ref().clone()))
}
