//! What the owner decided, counted: one narrow row for each decision, without its content, kept for years after
//! retention removed the run ([`super::leftovers`]), and one row of totals for each workflow. Counting is done behind the decision, which it never holds up: it only reads
//! what is decided.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::autonomy::own;
use crate::domain::autonomy::{Hasty, Tally};
use crate::domain::digest::Digest;
use crate::domain::ids::{ReviewId, RunId};
use crate::store::journal::read::digest;
use crate::store::notices::{News, note};
use crate::store::{Store, StoreError};

/// Decisions that one statement counts: a second's worth of a busy owner, a moment of the database.
pub const AT_ONCE: usize = 1_000;

/// Approvals of one person, of high risk and too fast to have been read, that nobody has weighed yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unweighed {
    /// Who decided.
    pub by: String,
    /// What.
    pub reviews: Vec<ReviewId>,
}

/// A version of which it is asked what it has to show for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Looked {
    /// Which.
    pub version: Digest,
    /// Since when it is at its stage.
    pub since: Timestamp,
    /// How many of the latest decisions are wanted.
    pub latest: u32,
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
/// is counted is counted too, and everything later is looked at again. What is counted goes into the totals in
/// the same statement, workflow by workflow in one order.
const COUNT: &str = "
    with found as (
        select r.id, r.run_id, r.step, u.workflow, u.version, r.ask, r.question -> 'action' ->> 'action' as action,
            coalesce(r.question -> 'risk' ->> 'class', 'medium') as risk,
            coalesce((r.question ->> 'sampled')::boolean, false) as sampled, r.status, r.opened_at, r.decided_at,
            coalesce(r.decided_by, '') as decided_by,
            greatest(0, extract(epoch from r.decided_at - greatest(r.opened_at,
                (select min(m.sent_at) from messages_out m where m.review_id = r.id),
                (select max(p.decided_at) from reviews p
                 where p.decided_at > r.decided_at - interval '1 hour' and p.decided_at < r.decided_at
                   and p.decided_by = r.decided_by))) * 1000)::bigint as looked_ms
        from reviews r join runs u on u.id = r.run_id
        where r.decided_at is not null
          and r.decided_at > least(coalesce((select max(decided_at) from decisions), '-infinity'), now())
              - interval '1 hour'
          and r.status in ('approved', 'edited', 'rejected', 'answered', 'expired')
          and not exists (select from decisions d where d.review_id = r.id)
        order by r.decided_at limit $1
    ),
    counted as (
        insert into decisions (review_id, run_id, step, workflow, version, ask, action, risk, sampled, outcome,
            opened_at, decided_at, decided_by, looked_ms, unweighed)
        select *, status = 'approved' and risk = 'high' and looked_ms < $2 from found order by decided_at
        on conflict on constraint decisions_pk do nothing
        returning workflow, outcome, unweighed, extract(epoch from decided_at - opened_at)::float8 as took
    ),
    summed as (
        insert into decision_totals as t (workflow, approved, edited, rejected, answered, expired, hasty, seconds)
        select workflow, count(*) filter (where outcome = 'approved'), count(*) filter (where outcome = 'edited'),
            count(*) filter (where outcome = 'rejected'), count(*) filter (where outcome = 'answered'),
            count(*) filter (where outcome = 'expired'), count(*) filter (where unweighed),
            coalesce(sum(took) filter (where outcome <> 'expired'), 0)
        from counted group by workflow order by workflow
        on conflict on constraint decision_totals_pk do update set approved = t.approved + excluded.approved,
            edited = t.edited + excluded.edited, rejected = t.rejected + excluded.rejected,
            answered = t.answered + excluded.answered, expired = t.expired + excluded.expired,
            hasty = t.hasty + excluded.hasty, seconds = t.seconds + excluded.seconds
    )
    select count(*) from counted";

/// What each of the versions asked about (`a`) has shown since it came to its stage, by action.
const TALLIES: &str = "
    select a.version, d.action, count(*) filter (where outcome = 'approved'),
        count(*) filter (where outcome = 'edited'), count(*) filter (where outcome = 'rejected'),
        count(*) filter (where outcome = 'expired'),
        count(*) filter (where outcome = 'approved' and risk = 'high' and looked_ms < $3),
        count(*) filter (where outcome = 'rejected' and sampled)
    from unnest($1::bytea[], $2::timestamptz[]) as a (version, since)
    join decisions d on d.version = a.version and d.opened_at >= a.since
    where d.ask = 'approval' and d.action is not null
    group by a.version, d.action";

const UNDOS: &str = "
    select a.version, count(*)
    from unnest($1::bytea[], $2::timestamptz[]) as a (version, since)
    join runs u on u.version = a.version
    join reviews r on r.run_id = u.id and r.opened_at >= a.since
    where r.ask = 'undo' and r.opened_at >= (select min(since) from unnest($2::timestamptz[]) as s (since))
    group by a.version";

const NEWEST: &str = "
    select a.version, d.unchanged
    from unnest($1::bytea[], $2::timestamptz[], $3::int8[]) as a (version, since, latest)
    cross join lateral (
        select outcome = 'approved' as unchanged, decided_at, review_id from decisions
        where version = a.version and opened_at >= a.since and ask = 'approval'
          and outcome in ('approved', 'edited', 'rejected')
        order by decided_at desc, review_id limit a.latest) d
    order by a.version, d.decided_at desc, d.review_id";

impl Store {
    /// Counts what was decided lately; gives how much this call counted, at most a thousand at once: fewer means
    /// that nothing is left. Whoever counts at the same time counts nothing twice. An approval of high risk is too
    /// fast by the rule of this moment.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count_decisions(&self, hasty: Hasty) -> Result<usize, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(COUNT).await?;
        let counted: i64 = client.query_one(&statement, &[&(AT_ONCE as i64), &hasty.within_ms]).await?.get(0);
        Ok(usize::try_from(counted).unwrap_or(0))
    }

    /// Approvals that were too fast and that nobody has weighed, person by person.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unweighed(&self) -> Result<Vec<Unweighed>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select decided_by, array_agg(review_id) from (
                    select decided_by, review_id from decisions where unweighed limit $1) as found
                 group by decided_by order by decided_by",
            )
            .await?;
        let unweighed = |row: &Row| Unweighed {
            by: row.get(0),
            reviews: row.get::<_, Vec<Uuid>>(1).into_iter().map(ReviewId).collect(),
        };
        Ok(client.query(&statement, &[&(AT_ONCE as i64)]).await?.iter().map(unweighed).collect())
    }

    /// These were weighed, and `news` is what there is to tell of them: both, or neither. What somebody else has
    /// weighed is told by nobody else. Gives whether it is new to the owner.
    ///
    /// # Errors
    /// When the database does not answer: they are still to be weighed then.
    pub async fn weighed(&self, reviews: &[ReviewId], news: Option<&News<'_>>) -> Result<bool, StoreError> {
        let ids: Vec<Uuid> = reviews.iter().map(|review| review.0).collect();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let statement = "update decisions set unweighed = false where review_id in (
                            select review_id from decisions where review_id = any ($1) and unweighed
                            order by review_id for update)";
        let ours = tx.execute(statement, &[&ids]).await? > 0;
        let new = match news {
            Some(news) if ours => note(&*tx, news).await?,
            _ => false,
        };
        tx.commit().await?;
        Ok(new)
    }

    /// When the latest undoing failed: a change of it is a reason to look.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn latest_failed_undo(&self) -> Result<Option<Timestamp>, StoreError> {
        let client = self.client().await?;
        let statement =
            client.prepare_cached("select max(opened_at) from reviews where ask = 'undo'").await?;
        Ok(client.query_one(&statement, &[]).await?.get(0))
    }

    /// What versions have shown; one that has shown nothing is missing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn merits(&self, of: &[Looked], hasty: Hasty) -> Result<BTreeMap<Digest, Merits>, StoreError> {
        let versions: Vec<&[u8]> = of.iter().map(|of| &of.version.0[..]).collect();
        let since: Vec<Timestamp> = of.iter().map(|of| of.since).collect();
        let latest: Vec<i64> = of.iter().map(|of| i64::from(of.latest)).collect();
        let client = self.client().await?;
        let mut merits: BTreeMap<Digest, Merits> = BTreeMap::new();
        let tallies = client.prepare_cached(TALLIES).await?;
        for row in client.query(&tallies, &[&versions, &since, &hasty.within_ms]).await? {
            let one = merits.entry(digest(&row, 0)?).or_default();
            one.rejected_samples += number(&row, 7);
            one.actions.insert(row.get(1), tally(&row, 2));
        }
        let undos = client.prepare_cached(UNDOS).await?;
        for row in client.query(&undos, &[&versions, &since]).await? {
            merits.entry(digest(&row, 0)?).or_default().failed_undos = number(&row, 1);
        }
        let newest = client.prepare_cached(NEWEST).await?;
        for row in client.query(&newest, &[&versions, &since, &latest]).await? {
            merits.entry(digest(&row, 0)?).or_default().latest.push(row.get(1));
        }
        Ok(merits)
    }

    /// The runs that ask about the stages of these versions, or are about to change one: the version, the run, and
    /// that stage.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_proposals(
        &self,
        versions: &[Digest],
    ) -> Result<Vec<(Digest, RunId, String)>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select id, split_part(idempotency_key, '/', 1), split_part(idempotency_key, '/', 2) from runs
                 where workflow = $1 and split_part(idempotency_key, '/', 1) = any ($2) and finished_at is null
                   and status <> 'succeeded'",
            )
            .await?;
        let names: Vec<String> = versions.iter().map(Digest::to_string).collect();
        let rows = client.query(&statement, &[&own::WORKFLOW, &names]).await?;
        let found = rows.iter().filter_map(|row| {
            let name: &str = row.get(1);
            let place = names.iter().position(|known| known == name)?;
            Some((*versions.get(place)?, RunId(row.get(0)), row.get(2)))
        });
        Ok(found.collect())
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
