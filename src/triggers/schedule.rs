//! The clock as a trigger: opens the runs of schedules that are due, and of inputs that have gathered.
//!
//! A schedule's row names its next occurrence. A run is opened under the key `schedule:NAME:OCCURRENCE`,
//! and the row moves on only when the run is durable: a crash in between, or another node at the same
//! moment, meets the key. What fails for one schedule is told by its row and stops no other.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::json;
use tokio::time::Instant;

use crate::config::workspace::{Definitions, Trigger};
use crate::domain::label::Label;
use crate::domain::schedule::{Overlap, Schedule, Timetable};
use crate::domain::template::{Scope, TemplateError};
use crate::orchestrator::door::{Door, OpenError, Request};
use crate::store::StoreError;
use crate::store::journal::Opened;
use crate::store::schedules::{Advance, ScheduleRow, Scheduled};
use crate::triggers::gather;

/// The longest sleep: another node, or a trigger, may have written something that is due sooner than what
/// was known when it began.
const POLL: Duration = Duration::from_secs(1);

/// How often the keys of long-gathered inputs are swept: there are at most as many as deliveries.
const SWEEP: Duration = Duration::from_secs(60);

/// Watches the clock for one node.
pub struct Schedules {
    /// The way to the orchestrator.
    pub door: Door,
}

/// What it is told.
pub enum Msg {
    /// It is time to look.
    Tick,
    /// The last look is over, and this is the next moment something is due.
    Done(Option<Timestamp>),
}

/// When the keys of gathered inputs were swept.
#[derive(Default)]
pub struct State {
    swept: Option<Instant>,
}

impl Actor for Schedules {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        let _ = myself.cast(Msg::Tick);
        Ok(State::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Tick => {
                let sweep = state.swept.is_none_or(|at| at.elapsed() >= SWEEP);
                state.swept = if sweep { Some(Instant::now()) } else { state.swept };
                look(self.door.clone(), sweep, myself);
            }
            Msg::Done(next) => {
                myself.send_after(pause(self.door.engine().now(), next), || Msg::Tick);
            }
        }
        Ok(())
    }
}

/// Looks in a task of its own: neither a slow database nor a crash may keep the next look from coming.
fn look(door: Door, sweep: bool, back: ActorRef<Msg>) {
    tokio::spawn(async move {
        let work = tokio::spawn(async move {
            if sweep {
                door.engine().store.forget_gathered(door.engine().now()).await?;
            }
            tick(&door).await
        });
        let next = match work.await {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the schedules could not be looked at; the next look comes in a second");
                None
            }
            Err(crash) => {
                tracing::error!(%crash, "looking at the schedules crashed; the next look comes in a second");
                None
            }
        };
        let _ = back.cast(Msg::Done(next));
    });
}

fn pause(now: Timestamp, next: Option<Timestamp>) -> Duration {
    let until = next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default());
    until.map_or(POLL, |until| until.min(POLL))
}

/// Makes the schedules of the database those of the definitions. Nothing happens after the fact: a
/// schedule that is new, or whose times have changed, begins now.
///
/// # Errors
/// When the database does not answer.
pub async fn register(door: &Door, definitions: &Definitions) -> Result<(), StoreError> {
    let now = door.engine().now();
    let mut all = Vec::new();
    for (workflow, definition) in &definitions.workflows {
        for trigger in &definition.triggers {
            let Trigger::Schedule { name, schedule } = trigger else { continue };
            let next_at = timetable(schedule).map(|table| table.next(now)).unwrap_or_else(|error| {
                tracing::error!(%workflow, schedule = name, %error, "this schedule opens nothing");
                None
            });
            let (workflow, name, schedule) = (workflow.clone(), name.clone(), schedule.clone());
            all.push(Scheduled { workflow, name, schedule, next_at });
        }
    }
    door.engine().store.keep_schedules(&all).await
}

/// Opens what is due now; gives the next moment at which something will be.
///
/// # Errors
/// When the database does not say what is due. What goes wrong with one schedule or group is logged.
pub async fn tick(door: &Door) -> Result<Option<Timestamp>, StoreError> {
    let now = door.engine().now();
    for row in door.engine().store.due_schedules(now).await? {
        let (workflow, name) = (row.workflow.clone(), row.name.clone());
        let door = door.clone();
        // In a task of its own: what crashes here crashes alone.
        match tokio::spawn(async move { fire(&door, &row, now).await }).await {
            Ok(Ok(())) => {}
            Ok(Err(Unfired::Later(error))) => {
                tracing::warn!(%workflow, schedule = name, %error, "an occurrence has to wait");
            }
            Ok(Err(Unfired::Known)) => {}
            Ok(Err(Unfired::Bad(error))) => {
                tracing::error!(%workflow, schedule = name, %error, "this schedule opens nothing");
            }
            Err(crash) => tracing::error!(%workflow, schedule = name, %crash, "a schedule crashed"),
        }
    }
    gather::tick(door, now).await?;
    door.engine().store.next_occurrence(now).await
}

/// Why a schedule stays where it is.
enum Unfired {
    /// It passes by itself.
    Later(OpenError),
    /// The row cannot be read, or its zone is not known on this machine.
    Bad(String),
    /// The same, and its row says so already.
    Known,
}

impl From<StoreError> for Unfired {
    fn from(error: StoreError) -> Self {
        Self::Later(error.into())
    }
}

async fn fire(door: &Door, row: &ScheduleRow, now: Timestamp) -> Result<(), Unfired> {
    let Some(next_at) = row.next_at else { return Ok(()) };
    let read = serde_json::from_value::<Schedule>(row.spec.clone()).map_err(|error| error.to_string());
    let read = read.and_then(|schedule| timetable(&schedule).map(|table| (schedule, table)));
    let (schedule, table) = match read {
        Ok(read) => read,
        Err(error) => {
            let news = door.engine().store.note_schedule_problem(row, &error).await?;
            return Err(if news { Unfired::Bad(error) } else { Unfired::Known });
        }
    };
    let due = table.due(next_at, now, schedule.missed);
    let missed = i64::try_from(due.missed).unwrap_or(i64::MAX);
    let mut advance = Advance { next_at: due.next, missed, ..Advance::default() };
    let mut busy = row.last_run_open;
    for at in due.open {
        if busy && schedule.overlap == Overlap::Skip {
            advance.skipped = (advance.skipped.0 + 1, Some(at));
            tracing::info!(workflow = %row.workflow, schedule = row.name, %at, "the run before is not over");
            continue;
        }
        match open(door, row, &schedule, at, missed).await {
            Ok(opened) => {
                busy = is_open(door, opened).await?;
                advance.last = Some((at, opened.run()));
                advance.problem = None;
            }
            // The row stays: those that were opened meet their own keys.
            Err(error) if error.retryable() => return Err(Unfired::Later(error)),
            Err(error) => {
                tracing::error!(workflow = %row.workflow, schedule = row.name, %at, %error, "an occurrence opened nothing");
                advance.missed += 1;
                advance.problem = Some(error.to_string());
            }
        }
    }
    door.engine().store.advance_schedule(row, next_at, &advance).await?;
    Ok(())
}

async fn is_open(door: &Door, opened: Opened) -> Result<bool, StoreError> {
    match opened {
        Opened::New(_) => Ok(true),
        Opened::Existing(run) => {
            let row = door.engine().store.run_row(run).await?;
            Ok(row.is_some_and(|row| row.finished_at.is_none()))
        }
    }
}

async fn open(
    door: &Door,
    row: &ScheduleRow,
    schedule: &Schedule,
    at: Timestamp,
    missed: i64,
) -> Result<Opened, OpenError> {
    let bad = |error: TemplateError| OpenError::BadInput {
        workflow: row.workflow.clone(),
        why: format!("the schedule's input cannot be filled in: {error}"),
    };
    let zoned = at.to_zoned(TimeZone::get(&schedule.zone).unwrap_or(TimeZone::UTC));
    let context = json!({
        "workspace": door.engine().workspace,
        "schedule": {
            "name": row.name,
            "at": zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            "date": zoned.strftime("%Y-%m-%d").to_string(),
            "time": zoned.strftime("%H:%M:%S").to_string(),
            "zone": schedule.zone,
            "missed": missed,
        },
    });
    let label_of = |path: &str| if path.starts_with("schedule") { Label::System } else { Label::Owner };
    let scope = Scope::new(&context, label_of);
    let (input, label) =
        (scope.fill(&schedule.input).map_err(bad)?, scope.label(&schedule.input).map_err(bad)?);
    drop(scope);
    let key = Some(format!("schedule:{}:{at}", row.name));
    door.open(Request {
        workflow: row.workflow.clone(),
        input,
        label,
        trigger: "schedule",
        key,
        verified: None,
    })
    .await
}

/// The schedule in its zone, as this machine knows it.
fn timetable(schedule: &Schedule) -> Result<Timetable, String> {
    let zone = TimeZone::get(&schedule.zone).map_err(|error| error.to_string())?;
    Timetable::new(&schedule.when, zone).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn the_next_look_comes_when_something_is_due_and_within_a_second() {
        let now = Timestamp::from_second(1_000).unwrap();
        let after = |millis| Some(now + SignedDuration::from_millis(millis));
        assert_eq!(pause(now, None), POLL);
        assert_eq!(pause(now, after(5_000)), POLL);
        assert_eq!(pause(now, after(250)), Duration::from_millis(250));
        assert_eq!(pause(now, after(-250)), Duration::ZERO);
    }
}
