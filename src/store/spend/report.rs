//! What the owner sees of his money: sums by workflow, model or day, and what is left of each budget.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use tokio_postgres::Row;

use crate::store::{Store, StoreError};

/// Groups that a report shows, those that cost most first: more than a person reads.
const GROUPS: i64 = 500;

/// What spending is summed up by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// The workflow; what was asked outside of runs has none.
    Workflow,
    /// The model.
    Model,
    /// The owner's day.
    Day,
}

impl By {
    /// The name used in the API and on screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Model => "model",
            Self::Day => "day",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Workflow, Self::Model, Self::Day].into_iter().find(|by| by.as_str() == text)
    }

    fn column(self) -> &'static str {
        match self {
            Self::Workflow => "coalesce(workflow, '')",
            Self::Model => "model",
            Self::Day => "day::text",
        }
    }

    /// What comes first: the dearest, or the oldest day.
    fn order(self) -> &'static str {
        match self {
            Self::Workflow | Self::Model => "3 desc, 1",
            Self::Day => "1",
        }
    }
}

/// A line of a report. Calls whose run retention has removed are not in it, nor are those of no run once they are
/// as old.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Line {
    /// The workflow, model or day.
    pub name: String,
    /// Calls that were made, and that may have been.
    pub calls: i64,
    /// Spent, micro-units; what is taken for spent included.
    pub spent_micros: i64,
    /// The part of it of which nobody knows what the calls truly cost, micro-units.
    pub assumed_micros: i64,
    /// Set aside for calls under way, micro-units.
    pub reserved_micros: i64,
}

/// What an account holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Balance {
    /// Spent, micro-units.
    pub spent_micros: i64,
    /// Set aside for calls under way, micro-units.
    pub reserved_micros: i64,
    /// Calls that ended.
    pub calls: i64,
}

/// A share of a limit that was passed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Threshold {
    /// The key of the account.
    pub account: String,
    /// The share, percent.
    pub percent: i32,
    /// The limit it is a share of, micro-units.
    pub limit_micros: i64,
    /// When.
    pub passed_at: Timestamp,
    /// When the owner was told, if he was.
    pub told_at: Option<Timestamp>,
}

impl Store {
    /// What calls of these days cost, the last day included.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn spent(&self, by: By, from: Date, to: Date) -> Result<Vec<Line>, StoreError> {
        let statement = format!(
            "select {} as name, count(*) filter (where status <> 'released'),
                coalesce(sum(case status when 'settled' then settled_micros when 'assumed' then reserved_micros end),
                    0)::int8,
                coalesce(sum(reserved_micros) filter (where status = 'assumed'), 0)::int8,
                coalesce(sum(reserved_micros) filter (where status = 'reserved'), 0)::int8
             from spend_entries where day between $1 and $2 group by 1 order by {} limit $3",
            by.column(),
            by.order()
        );
        let client = self.client().await?;
        let line = |row: &Row| Line {
            name: row.get(0),
            calls: row.get(1),
            spent_micros: row.get(2),
            assumed_micros: row.get(3),
            reserved_micros: row.get(4),
        };
        Ok(client.query(&statement, &[&from, &to, &GROUPS]).await?.iter().map(line).collect())
    }

    /// What accounts hold, in the order asked for, entries included that are not brought in yet.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn balances(&self, accounts: &[String]) -> Result<Vec<Balance>, StoreError> {
        let client = self.client().await?;
        let statement = "
            select coalesce(s.settled, 0) + coalesce(d.more, 0), coalesce(s.reserved, 0) - coalesce(d.freed, 0),
                coalesce(s.calls, 0) + coalesce(d.calls, 0)
            from unnest($1::text[]) with ordinality as a (account, place)
            left join spend s on s.account = a.account
            left join (
                select account, sum(case when held then reserved_micros else 0 end)::int8 as freed,
                    sum(case status when 'settled' then settled_micros when 'assumed' then reserved_micros else 0
                        end - counted_micros)::int8 as more,
                    count(*) filter (where held and status <> 'released') as calls
                from spend_entries, unnest(accounts) as account where not rolled group by account) d
                on d.account = a.account
            order by a.place";
        let balance =
            |row: &Row| Balance { spent_micros: row.get(0), reserved_micros: row.get(1), calls: row.get(2) };
        Ok(client.query(statement, &[&accounts]).await?.iter().map(balance).collect())
    }

    /// The shares of limits that were passed and that the owner was not told of, at most a hundred.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn untold_thresholds(&self) -> Result<Vec<Threshold>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select account, percent, limit_micros, passed_at, told_at from spend_thresholds
                 where told_at is null order by passed_at limit 100",
            )
            .await?;
        Ok(client.query(&statement, &[]).await?.iter().map(threshold).collect())
    }

    /// The owner was told of this one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn threshold_told(&self, account: &str, percent: i32) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = "update spend_thresholds set told_at = now() where account = $1 and percent = $2";
        let statement = client.prepare_cached(statement).await?;
        client.execute(&statement, &[&account, &percent]).await?;
        Ok(())
    }

    /// The shares of their limits that these accounts have passed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn thresholds(&self, accounts: &[String]) -> Result<Vec<Threshold>, StoreError> {
        let client = self.client().await?;
        let statement = "
            select account, percent, limit_micros, passed_at, told_at from spend_thresholds
            where account = any($1::text[]) order by account, percent";
        Ok(client.query(statement, &[&accounts]).await?.iter().map(threshold).collect())
    }
}

fn threshold(row: &Row) -> Threshold {
    Threshold {
        account: row.get(0),
        percent: row.get(1),
        limit_micros: row.get(2),
        passed_at: row.get(3),
        told_at: row.get(4),
    }
}
