//! Whom effects reached: how often lately, and whether ever before.
//!
//! What is counted is what is allowed, under review, or may have happened; what failed or was withdrawn is
//! not. **Of two runs that look back at the same moment, at least one sees the other**: each first writes down
//! whom it is about to reach, and counts in a second statement, after that is there for everybody to see.
//! So no two slip together under a limit; both may be asked about where one would have done.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::types::ToSql;

use crate::domain::budget::{Account, Day};
use crate::domain::ids::RunId;
use crate::domain::plan::Lookup;
use crate::domain::policy::facts::{History, Seen};
use crate::store::{Store, StoreError};

/// How long a step that was about to propose counts although it has not: far longer than it takes.
const ABOUT_TO: SignedDuration = SignedDuration::from_mins(2);

/// Effects that are counted at most: beyond that no rule cares, and nobody pays for looking.
const MOST: i64 = 1_000;

/// What a step is about to do now stands for it, and nobody else it was about to reach before: an edit may have
/// changed that. Not flushed: see the migration.
const CLAIM: &str = "
    with others as (
        delete from reached where run_id = $1 and step = $2 and target <> all ($4))
    insert into reached (run_id, step, action, target, domain, at)
    select distinct on (t.target) $1::uuid, $2::text, $3::text, t.target, t.domain, $6::timestamptz
    from unnest($4::text[], $5::text[]) as t (target, domain)
    where set_config('synchronous_commit', 'off', true) is not null
    on conflict on constraint reached_pk do update set action = excluded.action, at = excluded.at";

/// `$7` is the end of the last two minutes: younger rows count although nothing was proposed yet.
const COUNT: &str = "
    select t.target,
        (select count(*) from (
            select from reached r
            where r.target = t.target and r.action = $3 and r.at > $6 and (r.run_id, r.step) <> ($1, $2)
              and (exists (select from effects e where e.run_id = r.run_id and e.step = r.step and e.holds)
                   or (r.at > $7 and not exists (select from effects e
                                                 where e.run_id = r.run_id and e.step = r.step)))
            limit $8) as lately),
        (select count(*) from (
            select from reached r
            where r.target = t.target and r.action = $3 and r.at > $5 and (r.run_id, r.step) <> ($1, $2)
              and (exists (select from effects e where e.run_id = r.run_id and e.step = r.step and e.holds)
                   or (r.at > $7 and not exists (select from effects e
                                                 where e.run_id = r.run_id and e.step = r.step)))
            limit $8) as today),
        exists (select from reached r join effects e on e.run_id = r.run_id and e.step = r.step
                where r.target = t.target
                  and e.status in ('started', 'succeeded', 'unknown', 'compensated')),
        exists (select from reached r join effects e on e.run_id = r.run_id and e.step = r.step
                where r.domain = t.domain
                  and e.status in ('started', 'succeeded', 'unknown', 'compensated')),
        exists (select from records c
                where c.kind = 'contact' and c.key = any (string_to_array(t.known_as, E'\\n')) and c.label = 'owner'
                  and c.data <> 'null'::jsonb)
    from unnest($4::text[], $9::text[], $10::text[]) as t (target, domain, known_as)";

const WHOLE: &str = "
    select
        (select count(*) from (
            select distinct r.run_id, r.step from reached r
            where r.action = $1 and r.at > $2 and (r.run_id, r.step) <> ($3, $4)
              and (exists (select from effects e where e.run_id = r.run_id and e.step = r.step and e.holds)
                   or (r.at > $5 and not exists (select from effects e
                                                 where e.run_id = r.run_id and e.step = r.step)))
            limit $6) as today),
        (select coalesce(sum(settled + reserved), 0)::int8 from spend where account = $7),
        (select coalesce(sum(settled + reserved), 0)::int8 from spend where account = $8)";

impl Store {
    /// What was done before with those whom a step is about to reach. With `claims`, that it is about to is
    /// written down first, so that others see it; without, nothing is written.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn look_back(
        &self,
        run: RunId,
        lookup: &Lookup,
        now: Timestamp,
        day: Day,
        claims: bool,
    ) -> Result<History, StoreError> {
        let client = self.client().await?;
        let targets: Vec<&str> = lookup.targets.iter().map(|target| target.key.as_str()).collect();
        let domains: Vec<Option<&str>> =
            lookup.targets.iter().map(|target| target.domain.as_deref()).collect();
        let known_as: Vec<String> =
            lookup.targets.iter().map(|target| target.known_as().join("\n")).collect();
        let step = lookup.step.as_str();
        let ago = |span: SignedDuration| now.saturating_sub(span).unwrap_or(now);
        let (hour, today, about_to) =
            (ago(SignedDuration::from_hours(1)), ago(SignedDuration::from_hours(24)), ago(ABOUT_TO));
        if claims && !targets.is_empty() {
            let claim = client.prepare_cached(CLAIM).await?;
            let params: [&(dyn ToSql + Sync); 6] = [&run.0, &step, &lookup.action, &targets, &domains, &now];
            client.execute(&claim, &params).await?;
        }
        let (count, whole) = (client.prepare_cached(COUNT).await?, client.prepare_cached(WHOLE).await?);
        let workspace = Account::WorkspaceDay(day.day()).to_string();
        let workflow = Account::WorkflowDay(lookup.workflow.clone(), day.day()).to_string();
        let counted: [&(dyn ToSql + Sync); 10] =
            [&run.0, &step, &lookup.action, &targets, &today, &hour, &about_to, &MOST, &domains, &known_as];
        let summed: [&(dyn ToSql + Sync); 8] =
            [&lookup.action, &today, &run.0, &step, &about_to, &MOST, &workspace, &workflow];
        // Both on their way at once: one round trip.
        let (counted, summed) =
            futures_util::future::try_join(client.query(&count, &counted), client.query_one(&whole, &summed))
                .await?;
        let many = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        let seen = counted.iter().map(|row| {
            let seen = Seen {
                hour: many(row.get(1)),
                day: many(row.get(2)),
                before: row.get(3),
                domain_before: row.get(4),
                contact: row.get(5),
            };
            (row.get(0), seen)
        });
        Ok(History {
            targets: seen.collect::<BTreeMap<String, Seen>>(),
            action_day: many(summed.get(0)),
            spent_today: summed.get(1),
            spent_workflow_today: summed.get(2),
        })
    }
}
