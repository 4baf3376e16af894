//! Reviews: one decision, ever. The decision and the run's resumption are one statement.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::digest::Digest;
use crate::domain::event::{Question, Verdict};
use crate::domain::ids::{NodeId, ReviewId, RunId, StepId};
use crate::store::journal::read::{Loaded, STORY, digest, folded};
use crate::store::runs::Inbox;
use crate::store::{Store, StoreError};

/// A review as its row shows it.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct ReviewRow {
    /// Its id.
    pub id: ReviewId,
    /// The run that waits.
    pub run: RunId,
    /// The step that waits.
    pub step: StepId,
    /// `approval`, `answer`, `question`, `in_doubt`.
    pub ask: String,
    /// What a decision is bound to.
    pub digest: Digest,
    /// One line.
    pub title: String,
    /// `open`, or how it ended.
    pub status: String,
    /// Reasons, artifacts, action, form.
    pub question: Question,
    /// How it was decided.
    pub verdict: Option<Verdict>,
    /// By whom.
    pub decided_by: Option<String>,
    /// When it was asked.
    pub opened_at: Timestamp,
    /// When it expires.
    pub due_at: Option<Timestamp>,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// Until when the owner is left alone with it, if he wanted that.
    pub snoozed_until: Option<Timestamp>,
}

pub(super) const COLUMNS: &str = "id, run_id, step, ask, digest, title, status, question, verdict, decided_by, opened_at, \
                       due_at, decided_at, snoozed_until";

/// The run's row is locked first, and as it is then, not as it was when the statement began, decides who
/// goes on with it: a run that sleeps is due at once, or the node's that is named. With a node it is not flushed:
/// see [`Store::decide_and_take`].
const DECIDE: &str = "
    with locked as (
        select id, node, workflow from runs where id = (select run_id from reviews where id = $1) for update),
    decided as (
        update reviews set status = $3, verdict = $4, decided_by = $5, decided_at = now()
        where id = $1 and digest = $2 and status = 'open' and run_id in (select id from locked)
            and ($8::text[] is null or ask || case when question ? 'form' then '+form' else '' end = any ($8))
            and ($7::uuid is null or set_config('synchronous_commit', 'off', true) is not null)
        returning run_id),
    told as (
        insert into inbox (run_id, topic, data)
        select run_id, 'review:' || $1::uuid, $6 from decided),
    taker as (
        select l.id from locked l
        where l.node is null and $7::uuid is not null and exists (select from nodes where id = $7)
            and not exists (select from pauses p where p.scope in ('all', 'workflow:' || l.workflow))),
    woken as (
        update runs r
        set signals = r.signals + 1,
            node = case when taker.id is null then r.node else $7 end,
            wake_at = case when taker.id is null and r.node is null then now()
                           when taker.id is null then r.wake_at end
        from decided d left join taker on taker.id = d.run_id
        where r.id = d.run_id and r.finished_at is null
        returning taker.id is not null as taken)
    select run_id, coalesce((select taken from woken), false) from decided";

/// As for a run, for the run of a review: what reads it need not wait for its id.
static STORY_BEHIND: LazyLock<String> =
    LazyLock::new(|| STORY.replace("run_id = $1", "run_id = (select run_id from reviews where id = $1)"));
const INBOX_BEHIND: &str = "
    select r.signals, i.topic, i.data from runs r left join inbox i on i.run_id = r.id
    where r.id = (select run_id from reviews where id = $1) order by i.at";

/// A transaction that changes nothing, but is flushed, and with it whatever was written before it.
const FLUSH: &str = "select pg_logical_emit_message(true, 'steward', '')";

/// Why a decision was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// There is no such review.
    #[error("there is no review {0}")]
    NotFound(ReviewId),
    /// Somebody was faster.
    #[error("this review is {status} already{}", .by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default())]
    Over {
        /// How it ended.
        status: String,
        /// Who decided, if somebody did.
        by: Option<String>,
        /// When.
        at: Option<Timestamp>,
        /// How.
        verdict: Option<Verdict>,
    },
    /// The decision was made about something else than what is asked.
    #[error("the decision is about {given}, but this review is about {expected}: look at it again")]
    OtherDigest {
        /// What the decider had seen.
        given: Digest,
        /// What is asked.
        expected: Digest,
    },
    /// The database refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Decides a review about exactly `about` and wakes its run, in one statement. The run's row is locked
    /// first, as in the group commit: two that lock in the same order cannot wait for each other.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn decide(
        &self,
        review: ReviewId,
        about: Digest,
        verdict: &Verdict,
        by: &str,
    ) -> Result<RunId, DecideError> {
        let client = self.keyed().await?;
        let decide = client.prepare_cached(DECIDE).await.map_err(StoreError::from)?;
        let told = json!({"review": review, "verdict": verdict, "by": by});
        let (nobody, any): (Option<Uuid>, Option<&[&str]>) = (None, None);
        let params: [&(dyn ToSql + Sync); 8] =
            [&review.0, &&about.0[..], &verdict.status(), &json!(verdict), &by, &told, &nobody, &any];
        let decided = client.query_opt(&decide, &params).await.map_err(StoreError::from)?;
        match decided {
            Some(row) => Ok(RunId(row.get(0))),
            None => Err(self.why_not(review, about).await?),
        }
    }

    /// As [`Store::decide`]; where the run sleeps, `node` takes it in the same statement and reads it in the same
    /// round trip. `asks` narrows it to these questions, so that nothing need have been read before: what it
    /// asks, with `+form` where it has a form. Gives `None` when it is not one of them, or not open, or about
    /// something else.
    ///
    /// `go_on` is called before the decision is flushed, with the run and, if it was taken, what was read: what it
    /// commits is flushed behind the decision, never without it. The decision is durable when this returns.
    ///
    /// # Errors
    /// When the database does not answer: the decision may then have been taken.
    pub async fn decide_and_take<F: Future<Output = ()>>(
        &self,
        (review, about): (ReviewId, Digest),
        (verdict, by): (&Verdict, &str),
        node: NodeId,
        asks: Option<&[&str]>,
        go_on: impl FnOnce(RunId, Option<Result<(Loaded, Inbox), StoreError>>) -> F,
    ) -> Result<Option<RunId>, StoreError> {
        let client = self.keyed().await?;
        let (decide, flush) = (client.prepare_cached(DECIDE).await?, client.prepare_cached(FLUSH).await?);
        let (story, inbox) =
            (client.prepare_cached(&STORY_BEHIND).await?, client.prepare_cached(INBOX_BEHIND).await?);
        let told = json!({"review": review, "verdict": verdict, "by": by});
        let (status, verdict) = (verdict.status(), json!(verdict));
        let params: [&(dyn ToSql + Sync); 8] =
            [&review.0, &&about.0[..], &status, &verdict, &by, &told, &node.0, &asks];
        let id: [&(dyn ToSql + Sync); 1] = [&review.0];
        // Statements of one connection go out in the order in which they are polled first.
        let going = async {
            let (decided, story, told) = tokio::try_join!(
                client.query_opt(&decide, &params),
                client.query(&story, &id),
                client.query(&inbox, &id)
            )?;
            let Some(decided) = decided else { return Ok(None) };
            let run = RunId(decided.get(0));
            let read = folded(run, &story).map(|loaded| loaded.map(|loaded| (loaded, Inbox::of(&told))));
            go_on(run, if decided.get(1) { read.transpose() } else { None }).await;
            Ok::<_, StoreError>(Some(run))
        };
        let (decided, flushed) = tokio::join!(going, client.query_one(&flush, &[]));
        flushed?;
        decided
    }

    /// Why there was nothing to decide.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn why_not(&self, review: ReviewId, given: Digest) -> Result<DecideError, StoreError> {
        Ok(match self.review(review).await? {
            None => DecideError::NotFound(review),
            Some(row) if row.status == "open" => DecideError::OtherDigest { given, expected: row.digest },
            Some(row) => DecideError::Over {
                status: row.status,
                by: row.decided_by,
                at: row.decided_at,
                verdict: row.verdict,
            },
        })
    }

    /// One review.
    ///
    /// # Errors
    /// When the database does not answer or the row cannot be read.
    pub async fn review(&self, review: ReviewId) -> Result<Option<ReviewRow>, StoreError> {
        let client = self.client().await?;
        let statement =
            client.prepare_cached(&format!("select {COLUMNS} from reviews where id = $1")).await?;
        client.query_opt(&statement, &[&review.0]).await?.as_ref().map(review_row).transpose()
    }

    /// Several reviews at once, each with the version its run is pinned to; those that are gone are missing, as are
    /// those that cannot be read, of which the log tells.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reviews_by_id(
        &self,
        reviews: &[ReviewId],
    ) -> Result<BTreeMap<ReviewId, (ReviewRow, Digest)>, StoreError> {
        if reviews.is_empty() {
            return Ok(BTreeMap::new());
        }
        let client = self.client().await?;
        let statement = client
            .prepare_cached(&format!(
                "select {COLUMNS}, (select version from runs where id = run_id) from reviews where id = any ($1)"
            ))
            .await?;
        let ids: Vec<Uuid> = reviews.iter().map(|review| review.0).collect();
        let mut found = BTreeMap::new();
        for row in client.query(&statement, &[&ids]).await? {
            match (review_row(&row), digest(&row, 14)) {
                (Ok(review), Ok(version)) => drop(found.insert(review.id, (review, version))),
                (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "a review cannot be read"),
            }
        }
        Ok(found)
    }

    /// How many reviews are open.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_reviews(&self) -> Result<i64, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached("select count(*) from reviews where status = 'open'").await?;
        Ok(client.query_one(&statement, &[]).await?.get(0))
    }

    /// Reviews of a status, the oldest first, at most `limit` behind `after`.
    ///
    /// # Errors
    /// When the database does not answer or a row cannot be read.
    pub async fn reviews(
        &self,
        status: &str,
        run: Option<RunId>,
        after: Option<(Timestamp, ReviewId)>,
        limit: i64,
    ) -> Result<Vec<ReviewRow>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(&format!(
                "select {COLUMNS} from reviews
                 where status = $1 and ($2::uuid is null or run_id = $2)
                   and ($3::timestamptz is null or (opened_at, id) > ($3, $4::uuid))
                 order by opened_at, id limit $5"
            ))
            .await?;
        let (at, id) = (after.map(|a| a.0), after.map(|a| a.1.0));
        let rows = client.query(&statement, &[&status, &run.map(|r| r.0), &at, &id, &limit]).await?;
        // One row that cannot be read must not hide all the others from the owner.
        let readable = |row: &Row| match review_row(row) {
            Ok(review) => Some(review),
            Err(error) => {
                tracing::error!(%error, "a review cannot be shown");
                None
            }
        };
        Ok(rows.iter().filter_map(readable).collect())
    }

    /// Open reviews whose time is over, with what each is about.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn overdue_reviews(&self) -> Result<Vec<(ReviewId, Digest)>, StoreError> {
        let client = self.client().await?;
        let statement = "select id, digest from reviews where status = 'open' and due_at <= now() limit 100";
        client
            .query(statement, &[])
            .await?
            .iter()
            .map(|row| Ok((ReviewId(row.get(0)), digest(row, 1)?)))
            .collect()
    }
}

pub(super) fn review_row(row: &Row) -> Result<ReviewRow, StoreError> {
    let id = ReviewId(row.get(0));
    let corrupt = |error: serde_json::Error| StoreError::corrupt(format!("review {id}"), error);
    let verdict: Option<Value> = row.get(8);
    Ok(ReviewRow {
        id,
        run: RunId(row.get(1)),
        step: StepId(row.get(2)),
        ask: row.get(3),
        digest: digest(row, 4)?,
        title: row.get(5),
        status: row.get(6),
        question: serde_json::from_value(row.get(7)).map_err(corrupt)?,
        verdict: verdict.map(serde_json::from_value).transpose().map_err(corrupt)?,
        decided_by: row.get(9),
        opened_at: row.get(10),
        due_at: row.get(11),
        decided_at: row.get(12),
        snoozed_until: row.get(13),
    })
}
