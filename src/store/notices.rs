//! Notices: what the owner should know. What happens again while a notice stands is counted on it, and
//! told no second time.

use jiff::Timestamp;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use crate::domain::ids::{NoticeId, RunId};
use crate::domain::notice::{NoticeKind, Severity};
use crate::store::{Store, StoreError};

/// Something to be told.
#[derive(Clone, Debug)]
pub struct News<'a> {
    /// What it is about.
    pub kind: NoticeKind,
    /// Which one: news of the same kind and subject are the same notice.
    pub subject: &'a str,
    /// How much it matters.
    pub severity: Severity,
    /// One line.
    pub title: &'a str,
    /// What happened and what to do, a few sentences.
    pub detail: &'a str,
    /// The run it is about.
    pub run: Option<RunId>,
}

/// A notice as its row shows it.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct NoticeRow {
    /// Its id.
    pub id: NoticeId,
    /// What it is about.
    pub kind: String,
    /// Which one.
    pub subject: String,
    /// `info`, `warning`, `critical`.
    pub severity: String,
    /// One line.
    pub title: String,
    /// What happened last.
    pub detail: String,
    /// The run it is about.
    pub run: Option<RunId>,
    /// How often it happened.
    pub times: i32,
    /// When first.
    pub first_at: Timestamp,
    /// When last.
    pub last_at: Timestamp,
    /// When the owner acknowledged it.
    pub acknowledged_at: Option<Timestamp>,
    /// Who did.
    pub acknowledged_by: Option<String>,
    /// When it was over by itself.
    pub over_at: Option<Timestamp>,
}

pub(super) const COLUMNS: &str = "id, kind, subject, severity, title, detail, run_id, times, first_at, last_at, \
                       acknowledged_at, acknowledged_by, over_at";

impl Store {
    /// Notes something for the owner; whether it is new, rather than happened again.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn notice(&self, news: &News<'_>) -> Result<bool, StoreError> {
        note(&**self.client().await?, news).await
    }

    /// Several notices at once; those that are gone are missing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn notices_by_id(&self, notices: &[NoticeId]) -> Result<Vec<NoticeRow>, StoreError> {
        if notices.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.client().await?;
        let statement =
            client.prepare_cached(&format!("select {COLUMNS} from notices where id = any ($1)")).await?;
        let ids: Vec<Uuid> = notices.iter().map(|notice| notice.0).collect();
        Ok(client.query(&statement, &[&ids]).await?.iter().map(notice_row).collect())
    }

    /// What a notice tells of is over; whether there was one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn notice_over(&self, kind: NoticeKind, subject: &str) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "update notices set over_at = now()
                         where kind = $1 and subject = $2 and acknowledged_at is null and over_at is null";
        let statement = client.prepare_cached(statement).await?;
        Ok(client.execute(&statement, &[&kind.as_str(), &subject]).await? > 0)
    }

    /// What budgets of days and months tell of is over with them: all but those of `periods`, as in `2026-11-25` and
    /// `2026-11`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn budget_notices_over(&self, periods: &[&str]) -> Result<(), StoreError> {
        let client = self.client().await?;
        // A subject is an account, `workspace/day/2026-11-25` or `workflow/day/2026-11-25/NAME`, and a share, `:50`.
        let statement = "
            update notices set over_at = now()
            where kind = $1 and acknowledged_at is null and over_at is null
              and split_part(subject, '/', 2) in ('day', 'month')
              and split_part(split_part(subject, '/', 3), ':', 1) <> all ($2)";
        let statement = client.prepare_cached(statement).await?;
        client.execute(&statement, &[&NoticeKind::BudgetThreshold.as_str(), &periods]).await?;
        Ok(())
    }

    /// The owner has seen it; false when it was acknowledged before, or there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn acknowledge(&self, notice: NoticeId, by: &str) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "update notices set acknowledged_at = now(), acknowledged_by = $2
                         where id = $1 and acknowledged_at is null";
        let statement = client.prepare_cached(statement).await?;
        Ok(client.execute(&statement, &[&notice.0, &by]).await? == 1)
    }

    /// One notice.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn one_notice(&self, notice: NoticeId) -> Result<Option<NoticeRow>, StoreError> {
        let client = self.client().await?;
        let statement =
            client.prepare_cached(&format!("select {COLUMNS} from notices where id = $1")).await?;
        Ok(client.query_opt(&statement, &[&notice.0]).await?.as_ref().map(notice_row))
    }

    /// Those that stand, or the latest of all, the newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn notices(&self, standing: bool, limit: i64) -> Result<Vec<NoticeRow>, StoreError> {
        let client = self.client().await?;
        // Two statements: few stand, and an index has just these.
        let which = if standing { "where acknowledged_at is null and over_at is null" } else { "" };
        let statement =
            format!("select {COLUMNS} from notices {which} order by last_at desc, id desc limit $1");
        let statement = client.prepare_cached(&statement).await?;
        Ok(client.query(&statement, &[&limit]).await?.iter().map(notice_row).collect())
    }
}

/// Notes it, within a transaction of the caller's or by itself; whether it is new.
pub(super) async fn note(client: &impl GenericClient, news: &News<'_>) -> Result<bool, StoreError> {
    let statement = "
        insert into notices as n (id, kind, subject, severity, title, detail, run_id)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (kind, subject) where acknowledged_at is null and over_at is null
        do update set times = n.times + 1, last_at = now(), detail = excluded.detail
        returning times = 1";
    let (id, run) = (Uuid::now_v7(), news.run.map(|run| run.0));
    let (kind, severity) = (news.kind.as_str(), news.severity.as_str());
    let row = client
        .query_one(statement, &[&id, &kind, &news.subject, &severity, &news.title, &news.detail, &run])
        .await?;
    Ok(row.get(0))
}

pub(super) fn notice_row(row: &Row) -> NoticeRow {
    NoticeRow {
        id: NoticeId(row.get(0)),
        kind: row.get(1),
        subject: row.get(2),
        severity: row.get(3),
        title: row.get(4),
        detail: row.get(5),
        run: row.get::<_, Option<Uuid>>(6).map(RunId),
        times: row.get(7),
        first_at: row.get(8),
        last_at: row.get(9),
        acknowledged_at: row.get(10),
        acknowledged_by: row.get(11),
        over_at: row.get(12),
    }
}
