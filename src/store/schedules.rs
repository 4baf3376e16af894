//! Schedules: one row each, whose `next_at` is the next occurrence. The row moves on by compare-and-set,
//! and only after the runs of the occurrence are durable.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::domain::ids::{RunId, WorkflowName};
use crate::domain::schedule::Schedule;
use crate::store::{Store, StoreError};

/// A schedule of the owner's files.
#[derive(Clone, PartialEq, Debug)]
pub struct Scheduled {
    /// The workflow.
    pub workflow: WorkflowName,
    /// Unique in the workflow.
    pub name: String,
    /// What the owner wrote.
    pub schedule: Schedule,
    /// Its first occurrence from now on.
    pub next_at: Option<Timestamp>,
}

/// A schedule as its row shows it.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct ScheduleRow {
    /// The workflow.
    pub workflow: WorkflowName,
    /// Unique in the workflow.
    pub name: String,
    /// A [`Schedule`] as JSON; it is read where one that cannot be read stops only itself.
    pub spec: Value,
    /// The next occurrence; nothing when it is over.
    pub next_at: Option<Timestamp>,
    /// The last occurrence that opened a run.
    pub last_at: Option<Timestamp>,
    /// That run.
    pub last_run: Option<RunId>,
    /// Whether that run is not over yet.
    pub last_run_open: bool,
    /// Occurrences that opened nothing because the run before was not over.
    pub skipped: i64,
    /// The last of them.
    pub skipped_at: Option<Timestamp>,
    /// Occurrences that nobody was there for, or whose run could not be opened.
    pub missed: i64,
    /// Why the last occurrence opened nothing, if it did not.
    pub problem: Option<String>,
}

/// What an occurrence has come to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Advance {
    /// The occurrence that follows.
    pub next_at: Option<Timestamp>,
    /// The last occurrence that opened a run, with that run.
    pub last: Option<(Timestamp, RunId)>,
    /// How many were skipped, and the last of them.
    pub skipped: (i64, Option<Timestamp>),
    /// How many were missed.
    pub missed: i64,
    /// Why the last one opened nothing, if it did not.
    pub problem: Option<String>,
}

const COLUMNS: &str = "s.workflow, s.name, s.spec, s.next_at, s.last_at, s.last_run, \
    exists (select from runs r where r.id = s.last_run and r.finished_at is null), \
    s.skipped, s.skipped_at, s.missed, s.problem";

impl Store {
    /// Makes the rows those of the owner's files. A schedule whose times have changed goes on from its
    /// new `next_at`, so that nothing happens after the fact; the others keep theirs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_schedules(&self, schedules: &[Scheduled]) -> Result<(), StoreError> {
        let workflows: Vec<&str> = schedules.iter().map(|one| one.workflow.as_str()).collect();
        let names: Vec<&str> = schedules.iter().map(|one| one.name.as_str()).collect();
        let specs = schedules.iter().map(|one| serde_json::to_value(&one.schedule));
        let specs: Vec<Value> =
            specs.collect::<Result<_, _>>().map_err(|e| StoreError::corrupt("a schedule", e))?;
        let next: Vec<Option<Timestamp>> = schedules.iter().map(|one| one.next_at).collect();
        let statement = "
            with wanted as (
                select * from unnest($1::text[], $2::text[], $3::jsonb[], $4::timestamptz[])
                    as w (workflow, name, spec, next_at)),
            gone as (
                delete from schedules s
                where not exists (select from wanted w where w.workflow = s.workflow and w.name = s.name))
            insert into schedules as s (workflow, name, spec, next_at)
            select workflow, name, spec, next_at from wanted order by workflow, name
            on conflict on constraint schedules_pk do update set
                spec = excluded.spec,
                problem = null,
                next_at = case
                    when s.spec -> 'when' = excluded.spec -> 'when' and s.spec -> 'zone' = excluded.spec -> 'zone'
                    then s.next_at else excluded.next_at end";
        self.client().await?.execute(statement, &[&workflows, &names, &specs, &next]).await?;
        Ok(())
    }

    /// The schedules with an occurrence up to `now`, the earliest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn due_schedules(&self, now: Timestamp) -> Result<Vec<ScheduleRow>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(&format!(
                "select {COLUMNS} from schedules s where s.next_at <= $1 order by s.next_at, s.workflow, s.name"
            ))
            .await?;
        Ok(client.query(&statement, &[&now]).await?.iter().map(schedule_row).collect())
    }

    /// All schedules, those of a workflow together.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        let statement = format!("select {COLUMNS} from schedules s order by s.workflow, s.name");
        Ok(self.client().await?.query(&statement, &[]).await?.iter().map(schedule_row).collect())
    }

    /// Moves a schedule on from the occurrence `from`. False when somebody else has done so: then only
    /// the run is noted, if it is the younger one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn advance_schedule(
        &self,
        row: &ScheduleRow,
        from: Timestamp,
        to: &Advance,
    ) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "
            update schedules set
                next_at = $4, last_at = coalesce($5, last_at), last_run = greatest(last_run, $6),
                skipped = skipped + $7, skipped_at = coalesce($8, skipped_at), missed = missed + $9, problem = $10
            where workflow = $1 and name = $2 and next_at = $3";
        let (last_at, last_run): (Option<Timestamp>, Option<Uuid>) =
            (to.last.map(|(at, _)| at), to.last.map(|(_, run)| run.0));
        let (workflow, name) = (row.workflow.as_str(), &row.name);
        let (skipped, skipped_at) = to.skipped;
        let moved = client
            .execute(
                statement,
                &[
                    &workflow,
                    name,
                    &from,
                    &to.next_at,
                    &last_at,
                    &last_run,
                    &skipped,
                    &skipped_at,
                    &to.missed,
                    &to.problem,
                ],
            )
            .await?;
        if let (0, Some(run)) = (moved, last_run) {
            // Run ids carry the time: the greatest is the youngest.
            let statement =
                "update schedules set last_run = greatest(last_run, $3) where workflow = $1 and name = $2";
            client.execute(statement, &[&workflow, name, &run]).await?;
        }
        Ok(moved == 1)
    }

    /// Notes why a schedule's occurrence cannot be dealt with; false when that is known already.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_schedule_problem(&self, row: &ScheduleRow, problem: &str) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "update schedules set problem = $3
            where workflow = $1 and name = $2 and problem is distinct from $3";
        Ok(client.execute(statement, &[&row.workflow.as_str(), &row.name, &problem]).await? == 1)
    }

    /// The first moment after `now` at which a schedule or a group of gathered inputs is due.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next_occurrence(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select least((select min(next_at) from schedules where next_at > $1),
                              (select min(due_at) from gathered where due_at > $1))",
            )
            .await?;
        Ok(client.query_one(&statement, &[&now]).await?.get(0))
    }
}

fn schedule_row(row: &tokio_postgres::Row) -> ScheduleRow {
    ScheduleRow {
        workflow: WorkflowName(row.get(0)),
        name: row.get(1),
        spec: row.get(2),
        next_at: row.get(3),
        last_at: row.get(4),
        last_run: row.get::<_, Option<Uuid>>(5).map(RunId),
        last_run_open: row.get(6),
        skipped: row.get(7),
        skipped_at: row.get(8),
        missed: row.get(9),
        problem: row.get(10),
    }
}
