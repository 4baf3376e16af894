//! What the owner decided, counted: one narrow row for each decision, without its content, kept when
//! retention removes the run. Counting is done behind the decision, which it never holds up: it only reads
//! what is decided.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;

use crate::domain::autonomy::own;
use crate::domain::autonomy::{Hasty, Tally};
use crate::domain::digest::Digest;
use crate::domain::ids::RunId;
use crate::store::journal::read::digest;
use crate::store::{Store, StoreError};

/// Decisions that one statement counts: a second's worth of a busy owner, a moment of the database.
pub const AT_ONCE: usize = 1_000;

/// A decision that was just counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counted {
    /// Who decided.
    pub by: String,
    /// An approval as it was, of high risk, with so little time to look, milliseconds.
    pub high_approval: Option<i64>,
}

/// What a version has to show for itself since it came to its stage.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merits {
    /// How the owner decided, by action.
    pub actions: BTreeMap<String, Tally>,
    /// Samples that were rejected.
    pub rejected_samples: u32,
    /// Undoings that failed.
    pub failed_undos: u32,
    /// Whether the latest decisions about actions changed nothing, the newest first.
    pub latest: Vec<bool>,
}

/// How the owner decided about one action of a version, in all.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ActionCount {
    /// The version.
    pub version: Digest,
    /// The action.
    pub action: String,
    /// How.
    #[serde(flatten)]
    pub tally: Tally,
    /// The share that changed nothing, of what is evidence.
    pub unchanged: Option<f64>,
    /// Half of them took at most so long to decide, seconds.
    pub median_seconds: Option<f64>,
    /// Nine in ten of them did.
    pub p90_seconds: Option<f64>,
}

/// A statement commits within seconds of its `now()`, so whatever is decided an hour before the last that
/// is counted is counted too, and everything later is looked at again.
const COUNT: &str = "
    insert into decisions (review_id, run_id, step, workflow, version, ask, action, risk, sampled, outcome,
        opened_at, decided_at, decided_by, looked_ms)
    select r.id, r.run_id, r.step, u.workflow, u.version, r.ask, r.question -> 'action' ->> 'action',
        coalesce(r.question -> 'risk' ->> 'class', 'medium'),
        coalesce((r.question ->> 'sampled')::boolean, false), r.status, r.opened_at, r.decided_at,
        coalesce(r.decided_by, ''),
        greatest(0, extract(epoch from r.decided_at - greatest(r.opened_at,
            (select min(m.sent_at) from messages_out m where m.review_id = r.id),
            (select max(p.decided_at) from reviews p
             where p.decided_at > r.decided_at - interval '1 hour' and p.decided_at < r.decided_at
               and p.decided_by = r.decided_by))) * 1000)::bigint
    from reviews r join runs u on u.id = r.run_id
    where r.decided_at is not null
      and r.decided_at > least(coalesce((select max(decided_at) from decisions), '-infinity'), now()) - interval '1 hour'
      and r.status in ('approved', 'edited', 'rejected', 'answered', 'expired')
      and not exists (select from decisions d where d.review_id = r.id)
    order by r.decided_at limit $1
    on conflict on constraint decisions_pk do nothing
    returning decided_by, outcome = 'approved' and risk = 'high', looked_ms";

impl Store {
    /// Counts what was decided lately; gives what this call counted, at most a thousand at once: fewer means
    /// that nothing is left. Whoever counts at the same time counts nothing twice.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count_decisions(&self) -> Result<Vec<Counted>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(COUNT).await?;
        let counted =
            |row: &Row| Counted { by: row.get(0), high_approval: row.get::<_, bool>(1).then(|| row.get(2)) };
        Ok(client.query(&statement, &[&(AT_ONCE as i64)]).await?.iter().map(counted).collect())
    }

    /// How many undoings have failed so far: a change of it is a reason to look.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn failed_undos(&self) -> Result<i64, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached("select count(*) from reviews where ask = 'undo'").await?;
        Ok(client.query_one(&statement, &[]).await?.get(0))
    }

    /// What a version has to show for itself since `since`; of the latest decisions at most `latest`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn merits(
        &self,
        version: Digest,
        since: Timestamp,
        hasty: Hasty,
        latest: u32,
    ) -> Result<Merits, StoreError> {
        let client = self.client().await?;
        let (key, since_, within) = (&version.0[..], &since, &hasty.within_ms);
        let tallies = client
            .prepare_cached(
                "select action, count(*) filter (where outcome = 'approved'),
                    count(*) filter (where outcome = 'edited'), count(*) filter (where outcome = 'rejected'),
                    count(*) filter (where outcome = 'expired'),
                    count(*) filter (where outcome = 'approved' and risk = 'high' and looked_ms < $3),
                    count(*) filter (where outcome = 'rejected' and sampled)
                 from decisions
                 where version = $1 and opened_at >= $2 and ask = 'approval' and action is not null
                 group by action",
            )
            .await?;
        let undos = client
            .prepare_cached(
                "select count(*) from reviews r join runs u on u.id = r.run_id
                 where r.ask = 'undo' and r.opened_at >= $2 and u.version = $1",
            )
            .await?;
        let newest = client
            .prepare_cached(
                "select outcome = 'approved' from decisions
                 where version = $1 and opened_at >= $2 and ask = 'approval'
                   and outcome in ('approved', 'edited', 'rejected')
                 order by decided_at desc, review_id limit $3",
            )
            .await?;
        let mut merits = Merits::default();
        for row in client.query(&tallies, &[&key, since_, within]).await? {
            merits.rejected_samples += number(&row, 6);
            merits.actions.insert(row.get(0), tally(&row, 1));
        }
        merits.failed_undos = number(&client.query_one(&undos, &[&key, since_]).await?, 0);
        let rows = client.query(&newest, &[&key, since_, &i64::from(latest)]).await?;
        merits.latest = rows.iter().map(|row| row.get(0)).collect();
        Ok(merits)
    }

    /// The runs that ask about the stage of a version, or are about to change it, each with that stage.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_proposals(&self, version: Digest) -> Result<Vec<(RunId, String)>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select id, split_part(idempotency_key, '/', 2) from runs
                 where workflow = $1 and starts_with(idempotency_key, $2) and finished_at is null",
            )
            .await?;
        let rows = client.query(&statement, &[&own::WORKFLOW, &format!("{version}/")]).await?;
        Ok(rows.iter().map(|row| (RunId(row.get(0)), row.get(1))).collect())
    }

    /// How the owner decided about each action of these versions, from the first day on.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn action_counts(
        &self,
        versions: &[Digest],
        hasty: Hasty,
    ) -> Result<Vec<ActionCount>, StoreError> {
        let client = self.client().await?;
        let keys: Vec<&[u8]> = versions.iter().map(|digest| &digest.0[..]).collect();
        let statement = "
            select version, action, count(*) filter (where outcome = 'approved'),
                count(*) filter (where outcome = 'edited'), count(*) filter (where outcome = 'rejected'),
                count(*) filter (where outcome = 'expired'),
                count(*) filter (where outcome = 'approved' and risk = 'high' and looked_ms < $2),
                percentile_cont(0.5) within group (order by extract(epoch from decided_at - opened_at)::float8)
                    filter (where outcome <> 'expired'),
                percentile_cont(0.9) within group (order by extract(epoch from decided_at - opened_at)::float8)
                    filter (where outcome <> 'expired')
            from decisions where version = any ($1) and ask = 'approval' and action is not null
            group by version, action order by version, action";
        let count = |row: &Row| {
            let tally = tally(row, 2);
            Ok(ActionCount {
                version: digest(row, 0)?,
                action: row.get(1),
                tally,
                unchanged: tally.unchanged_share(),
                median_seconds: row.get(7),
                p90_seconds: row.get(8),
            })
        };
        client.query(statement, &[&keys, &hasty.within_ms]).await?.iter().map(count).collect()
    }

    /// The latest decisions about actions of high risk that somebody took, the newest first, as
    /// [`crate::domain::autonomy::too_fast`] takes them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn latest_high(&self, by: &str, limit: u32) -> Result<Vec<Option<i64>>, StoreError> {
        let client = self.client().await?;
        let statement = "select case when outcome = 'approved' then looked_ms end from decisions
                         where decided_by = $1 and risk = 'high' and ask = 'approval'
                         order by decided_at desc, review_id limit $2";
        let rows = client.query(statement, &[&by, &i64::from(limit)]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

fn tally(row: &Row, from: usize) -> Tally {
    Tally {
        approved: number(row, from),
        edited: number(row, from + 1),
        rejected: number(row, from + 2),
        expired: number(row, from + 3),
        hasty: number(row, from + 4),
    }
}

fn number(row: &Row, column: usize) -> u32 {
    u32::try_from(row.get::<_, i64>(column)).unwrap_or(u32::MAX)
}
