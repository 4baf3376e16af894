//! What the group commit does for flow control: arms that a statement has only when there is
//! something for them to do.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::plan::Rest;
use crate::store::journal::{Commit, Open};

/// Only in the statement of a batch that ends runs with a slot. The next admission takes the rows away:
/// it alone counts slots, so nothing here waits for it.
pub(super) const FREED_ARM: &str = ",
    freed as (
        update slots s set freed = true
        from unnest($73::uuid[]) as f (run_id)
        where s.run_id = f.run_id and (f.run_id in (select id from accepted)) is true
    )";

/// Only in the statement of a batch with runs that have to wait. The database's clock alone ranks them.
pub(super) const QUEUED_ARM: &str = ",
    queued as (
        insert into queue (run_id, workflow, flow_key, slots, priority, rank)
        select q.run_id, q.workflow, q.key, q.slots, q.priority, now() + make_interval(secs => q.handicap)
        from unnest($19::uuid[], $20::text[], $21::text[], $22::int4[], $23::int2[], $24::float8[])
            as q (run_id, workflow, key, slots, priority, handicap)
        where (q.run_id in (select id from opened)) is true
    )";

/// The runs that end and may hold a slot.
pub(super) fn freed(commits: &[&Commit]) -> Vec<Uuid> {
    commits.iter().filter(|c| c.slot && matches!(c.rest, Rest::Over(_))).map(|c| c.run.0).collect()
}

/// The rows of the queue that a batch of opened runs adds.
#[derive(Default)]
pub(super) struct QueueRows<'o> {
    run_id: Vec<Uuid>,
    workflow: Vec<&'o str>,
    key: Vec<&'o str>,
    slots: Vec<Option<i32>>,
    priority: Vec<i16>,
    handicap: Vec<f64>,
}

impl<'o> QueueRows<'o> {
    pub(super) fn of(opens: &[&'o Open]) -> Self {
        let mut rows = Self::default();
        for (open, queued) in opens.iter().filter_map(|open| Some((open, open.queued.as_ref()?))) {
            rows.run_id.push(open.run.0);
            rows.workflow.push(open.workflow.as_str());
            rows.key.push(&queued.key);
            rows.slots.push(queued.slots.map(|slots| i32::try_from(slots).unwrap_or(i32::MAX)));
            rows.priority.push(queued.priority.level().into());
            rows.handicap.push(queued.priority.handicap(queued.ageing).0.as_secs_f64());
        }
        rows
    }

    pub(super) fn is_empty(&self) -> bool {
        self.run_id.is_empty()
    }

    pub(super) fn push<'a>(&'a self, params: &mut Vec<&'a (dyn ToSql + Sync)>) {
        params.extend::<[&(dyn ToSql + Sync); 6]>([
            &self.run_id,
            &self.workflow,
            &self.key,
            &self.slots,
            &self.priority,
            &self.handicap,
        ]);
    }
}
