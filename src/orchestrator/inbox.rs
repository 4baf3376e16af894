//! What runs are told through their inbox, and what one tells the run that waits for it.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::event::{ErrorKind, Event, StepError, Topic, Verdict};
use crate::domain::ids::{HappeningId, ReviewId, StepId};
use crate::domain::plan::{Answer, ChildEnd, EffectResult, Entry, Stimulus};
use crate::domain::run::{Run, RunStatus};
use crate::domain::step::StepStatus;
use crate::orchestrator::engine::Engine;
use crate::store::events::{Happening, RUN_FINISHED};
use crate::store::runs::CALL_BACK;

/// A message of the inbox as something learnt; `None` when it cannot be read.
pub(super) fn stimulus(run: &Run, topic: &str, data: &Value) -> Option<Stimulus> {
    let Some(step) = topic.strip_prefix("event:").map(StepId::from) else { return of_the_owner(topic, data) };
    let read = |name: &str| data.get(name).cloned();
    if matches!(run.status(&step), StepStatus::Child { .. }) {
        return Some(Stimulus::ChildEnded(step, serde_json::from_value(read("data")?).ok()?));
    }
    Some(Stimulus::Happened {
        step,
        happening: serde_json::from_value(read("id")?).ok()?,
        data: read("data")?,
        label: serde_json::from_value(read("label")?).ok()?,
    })
}

/// What the owner, or another run, tells a run.
fn of_the_owner(topic: &str, data: &Value) -> Option<Stimulus> {
    let by = data.get("by")?.as_str()?.to_owned();
    if topic == "cancel" {
        return Some(Stimulus::Cancel { by });
    }
    if let Some(effect) = topic.strip_prefix(CALL_BACK) {
        return Some(Stimulus::CallBack { effect: effect.parse().ok()?, by });
    }
    if topic.starts_with("hold:") {
        let hold = data.get("hold")?.as_bool()?;
        return Some(if hold { Stimulus::Pause { by } } else { Stimulus::Resume { by } });
    }
    if topic == "reopen" {
        let from = serde_json::from_value(data.get("from")?.clone()).ok()?;
        return Some(Stimulus::Reopen { by, from, repeat: data.get("repeat")?.as_bool()? });
    }
    let review: ReviewId = topic.strip_prefix("review:")?.parse().ok()?;
    let verdict: Verdict = serde_json::from_value(data.get("verdict")?.clone()).ok()?;
    Some(Stimulus::Decided { review, verdict, by })
}

/// The end of a run that another one waits for is told in the commit that ends it.
pub(super) fn end_for_parent(run: &Run, entries: &[Entry]) -> Option<Happening> {
    run.opened.parent.as_ref()?;
    let Some(Entry { event: Event::RunFinished { outcome, reason, output }, label, .. }) = entries.last()
    else {
        return None;
    };
    let end = ChildEnd {
        run: run.id,
        outcome: RunStatus::Over(*outcome).as_str().to_owned(),
        reason: reason.clone(),
        output: output.clone().unwrap_or_default(),
        label: *label,
    };
    Some(Happening {
        id: HappeningId(Uuid::now_v7()),
        topic: Topic { event: RUN_FINISHED.to_owned(), matches: run.id.to_string() },
        data: json!(end),
        label: *label,
        key: None,
    })
}

/// Tells whoever waits for the end of a run. What fails here is told by the clock.
pub(super) fn tell_parent(engine: &Arc<Engine>, published: Option<HappeningId>) {
    let Some(happening) = published else { return };
    let engine = engine.clone();
    tokio::spawn(async move {
        match engine.store.tell(happening).await {
            Ok(told) => told.runs.into_iter().for_each(|run| engine.wake(run)),
            Err(error) => tracing::warn!(%error, "the end of a run is told later"),
        }
    });
}

/// What a run learns when the work of one of its steps crashed.
pub(super) fn crashed(run: &Run, step: StepId, error: &str) -> Stimulus {
    let message = format!("the work crashed: {error}");
    match run.status(&step) {
        StepStatus::Effecting { .. } => Stimulus::Effect(step, EffectResult::Unknown(message)),
        _ => Stimulus::Answered(step, None, Answer::Failed(StepError::new(ErrorKind::Internal, message))),
    }
}
