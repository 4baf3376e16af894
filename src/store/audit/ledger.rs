//! I9: the ledger equals the sum of calls, and no budget was overshot. In one snapshot: what the journals
//! say that calls cost, what the entries say, what the accounts hold.

use tokio_postgres::{IsolationLevel, Row};
use uuid::Uuid;

use crate::domain::ids::RunId;
use crate::store::audit::{Invariant, Report, Violation};
use crate::store::{Store, StoreError};

/// What does not add up, each with the run it is about.
const CHECKS: [(&str, &str); 6] = [
    (
        "a call in its journal and the ledger differ",
        "select c.run_id, format('reservation %s: %s in the journal, %s (%s) in the ledger', c.id, c.cost,
            e.settled_micros, coalesce(e.status, 'missing'))
         from (select run_id, (data -> 'call' ->> 'reservation')::uuid as id,
                   greatest((data -> 'call' ->> 'cost_micros')::int8, 0) as cost
               from journal where kind = 'model.called' and data -> 'call' ->> 'reservation' is not null) c
         left join spend_entries e on e.id = c.id
         where e.status is distinct from 'settled' or e.settled_micros <> c.cost or e.run_id is distinct from c.run_id",
    ),
    (
        "one reservation paid for two calls",
        "select (array_agg(run_id))[1], data -> 'call' ->> 'reservation'
         from journal where kind = 'model.called' and data -> 'call' ->> 'reservation' is not null
         group by 2 having count(*) > 1",
    ),
    (
        "a call cost something that nobody had set aside",
        "select run_id, format('entry %s: %s', seq, data -> 'call' ->> 'cost_micros')
         from journal where kind = 'model.called' and data -> 'call' ->> 'reservation' is null
           and (data -> 'call' ->> 'cost_micros')::int8 > 0
           and at > (select applied_on::timestamptz from refinery_schema_history where version = 11)",
    ),
    (
        "the ledger has settled a call that no journal tells of",
        "select e.run_id, format('reservation %s: %s', e.id, e.settled_micros)
         from spend_entries e
         where e.status = 'settled' and e.run_id is not null
           and exists (select from runs r where r.id = e.run_id)
           -- A call that came back from its batch when its run had gone its way says itself what it cost.
           and not exists (select from batch_calls c where c.reservation = e.id and c.unheard)
           and not exists (select from journal j where j.run_id = e.run_id and (j.data is null or j.kind =
               'model.called' and j.data -> 'call' ->> 'reservation' = e.id::text))",
    ),
    (
        "an account is not the sum of its calls",
        "select s.run_id, format('%s: %s reserved and %s settled, its calls add up to %s and %s', account,
            coalesce(s.reserved, 0), coalesce(s.settled, 0), coalesce(e.reserved, 0),
            coalesce(s.archived, 0) + coalesce(e.settled, 0))
         from spend s full join (
             select account, sum(case when held then reserved_micros else 0 end) as reserved,
                 sum(counted_micros) as settled
             from spend_entries, unnest(accounts) as account group by account) e using (account)
         where (coalesce(s.reserved, 0) <> coalesce(e.reserved, 0)
             or coalesce(s.settled, 0) <> coalesce(s.archived, 0) + coalesce(e.settled, 0))
           -- A run's account goes with the run; the run it worked for may have gone before.
           and not exists (select from removed_runs r where s.account is null and account = 'run/' || r.run_id)",
    ),
    (
        "a budget was overshot",
        "select run_id, format('%s: %s reserved and %s settled, never allowed more than %s', account, reserved,
            settled, ceiling)
         from spend where reserved + settled - overrun > ceiling",
    ),
];

impl Store {
    /// Holds journals, entries and accounts against each other.
    pub(super) async fn audit_ledger(&self, report: &mut Report) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
        let snapshot = snapshot.read_only(true).start().await?;
        for (what, statement) in CHECKS {
            for row in snapshot.query(statement, &[]).await? {
                report.add(violation(what, &row));
            }
        }
        let entries: i64 = snapshot.query_one("select count(*) from spend_entries", &[]).await?.get(0);
        report.checked.paid_calls = entries.unsigned_abs();
        snapshot.commit().await?;
        Ok(())
    }
}

fn violation(what: &str, row: &Row) -> Violation {
    let run: Option<Uuid> = row.get(0);
    let detail: Option<String> = row.get(1);
    let what = format!("{what}: {}", detail.unwrap_or_default());
    Violation { invariant: Invariant::I9, run: run.map(RunId), what }
}
