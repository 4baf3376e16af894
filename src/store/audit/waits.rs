//! I2: every run has ended, is owned by a node that lives, or names what will wake it. I10: it ends
//! only when what it did is undone, or the owner leaves it.

use crate::domain::event::Outcome;
use crate::domain::run::{Run, RunStatus};
use crate::domain::step::StepStatus;
use crate::domain::workflow::Version;
use crate::store::audit::page::Facts;
use crate::store::audit::{Findings, Invariant};

/// What wakes a run that nobody owns: a name, and how its row `r` shows it. A new reason to sleep is
/// one more line here. A message in the inbox is none: whoever writes one also sets `wake_at`.
pub(super) const WAKE_SOURCES: &[(&str, &str)] = &[
    ("a moment", "r.wake_at is not null"),
    ("a review", "exists (select from reviews v where v.run_id = r.id and v.status = 'open')"),
    ("an event, or the end of another run", "exists (select from waits w where w.run_id = r.id)"),
    ("room", "exists (select from queue q where q.run_id = r.id)"),
    ("the owner", "r.status = 'paused'"),
];

/// The statuses of a run that has ended; one that the owner gave up stays parked.
const OVER: [&str; 5] = ["succeeded", "declined", "failed", "cancelled", PARKED];

/// A run that Steward cannot go on with: the owner is asked.
const PARKED: &str = "parked";

/// Held back on purpose: what such a run is told waits with it.
const HELD_BACK: [&str; 3] = [QUEUED, "paused", PARKED];

/// A run that waits for its turn.
const QUEUED: &str = "queued";

/// What a run is told when it is to go on although it was over.
const REOPEN: &str = "reopen";

pub(super) fn check(facts: &Facts, findings: &mut Findings<'_>) {
    let over = OVER.contains(&facts.status.as_str());
    if over != facts.finished && (facts.finished || facts.status != PARKED) {
        let ended = if facts.finished { "has a moment at which it ended" } else { "has not ended" };
        findings.add(Invariant::I2, format!("it is {} and {ended}", facts.status));
    } else if facts.finished {
        ended(facts, findings);
    } else if facts.node.is_none() {
        sleeping(facts, findings);
    }
    if facts.queued && facts.status != QUEUED {
        findings.add(Invariant::I2, format!("it is {} and stands in the queue", facts.status));
    }
}

fn ended(facts: &Facts, findings: &mut Findings<'_>) {
    if let Some(node) = facts.node {
        findings.add(Invariant::I2, format!("it has ended and is owned by node {node}"));
    }
    if facts.due {
        findings.add(Invariant::I2, "it has ended and is due to go on");
    }
    if facts.holds_slot {
        findings.add(Invariant::I2, "it has ended and keeps others of its key waiting");
    }
}

fn sleeping(facts: &Facts, findings: &mut Findings<'_>) {
    if facts.wake_sources.is_empty() {
        findings
            .add(Invariant::I2, format!("it is {}, nobody owns it and nothing will wake it", facts.status));
    } else if let Some((topic, _)) = facts.inbox.first()
        && !facts.due
        && !HELD_BACK.contains(&facts.status.as_str())
    {
        findings.add(
            Invariant::I2,
            format!("it was told `{topic}` while it slept, and nothing wakes it to hear"),
        );
    }
}

/// Why a run that has not ended belongs to nobody who lives, if it does. May pass by itself: nodes are swept.
pub(super) fn abandoned(facts: &Facts) -> Option<String> {
    let node = facts.node.filter(|_| !facts.finished && !facts.alive)?;
    Some(format!("it is owned by node {node}, which holds no lease, and nobody takes it over"))
}

/// The row's status, and what it waits for, follow from the journal.
pub(super) fn check_fold(facts: &Facts, run: &Run, findings: &mut Findings<'_>) {
    if run.seq != facts.entries.len() as i64 {
        let what = format!("its fold stands at {} of {} entries", run.seq, facts.entries.len());
        findings.add(Invariant::I7, what);
    }
    let told = run.finished.as_ref().map(|(outcome, _)| outcome_name(*outcome));
    let shown = facts.finished.then_some(facts.status.as_str());
    // The owner wants it to go on, and it has not heard of that yet.
    let reopened = shown.is_none() && facts.inbox.iter().any(|(topic, _)| topic == REOPEN);
    if told.as_deref() != shown && !reopened {
        let (told, shown) = (told.as_deref().unwrap_or("not over"), shown.unwrap_or("not over"));
        return findings.add(Invariant::I2, format!("its journal says {told}, its row says {shown}"));
    }
    if !facts.finished && told.is_none() {
        going_on(facts, run, findings);
    }
}

/// What a run that has not ended waits for is where it will be found.
fn going_on(facts: &Facts, run: &Run, findings: &mut Findings<'_>) {
    let nobodys = facts.node.is_none() && !facts.due && !HELD_BACK.contains(&facts.status.as_str());
    for (step, record) in &run.steps {
        let registered = facts.waits.contains(step);
        match &record.status {
            StepStatus::Waiting { topic: Some(_), .. } | StepStatus::Child { .. } if !registered => {
                findings
                    .add(Invariant::I2, format!("step `{step}` waits for what nobody knows it waits for"));
            }
            StepStatus::Waiting { due_at: Some(_), .. }
            | StepStatus::Backoff { .. }
            | StepStatus::Held { .. }
                if nobodys =>
            {
                findings.add(
                    Invariant::I2,
                    format!("step `{step}` waits for a moment, and the run is never due"),
                );
            }
            StepStatus::Running | StepStatus::Effecting { .. } if nobodys => {
                let what = format!("step `{step}` is {}, and nobody moves the run", record.status.name());
                findings.add(Invariant::I2, what);
            }
            StepStatus::Waiting { .. } | StepStatus::Child { .. } => {}
            _ if registered => {
                findings.add(Invariant::I2, format!("step `{step}` waits no longer, and would be woken"));
            }
            _ => {}
        }
    }
}

/// I10: what was done by a run that failed or was cancelled, and can be undone, is undone or left on
/// the owner's word.
pub(super) fn check_undone(facts: &Facts, run: &Run, version: &Version, findings: &mut Findings<'_>) {
    let undoes = matches!(&run.finished, Some((Outcome::Failed | Outcome::Cancelled, _)));
    if !facts.finished || !undoes {
        return;
    }
    for (step, record) in &run.steps {
        let done = matches!(record.status, StepStatus::Succeeded { .. })
            && (record.effect.is_some() || record.child.is_some());
        let left = matches!(run.status(&step.undo()), StepStatus::Declined { .. });
        if done && !record.compensated && !left && version.step(&step.undo()).is_some() {
            let what = format!("it ended with step `{step}` neither undone nor left as it is by the owner");
            findings.add(Invariant::I10, what);
        }
    }
}

fn outcome_name(outcome: Outcome) -> String {
    RunStatus::Over(outcome).as_str().to_owned()
}
