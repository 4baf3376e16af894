//! The owner's day in one message: what waits for him, what went out yesterday, what it cost and what he
//! should know. Plain data: each channel says it in its own way.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::domain::action::{self, ACTIONS, Reach};
use crate::domain::ids::RunId;
use crate::domain::money::Money;
use crate::domain::policy::target::named;
use crate::store::digest::{Count, DoneRow, WaitingRow};
use crate::store::notices::NoticeRow;
use crate::store::spend::report::By;
use crate::store::{Store, StoreError};

/// Questions, effects and notices that are told one by one: more than a person reads in one message.
const LISTED: i64 = 20;

/// The owner's day. What is behind a number but not listed is in the web inbox.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct DayDigest {
    /// The day on which it is sent, on the owner's clock.
    pub day: Date,
    /// The day it tells of: the one before.
    pub of: Date,
    /// What waits for a decision, those of the highest risk first; at most twenty.
    pub waiting: Vec<WaitingRow>,
    /// How many there are.
    pub waiting_total: i64,
    /// What left the house yesterday, the earliest first; at most twenty.
    pub went_out: Vec<WentOut>,
    /// How many there were, by action.
    pub went_out_total: Vec<Count>,
    /// Runs opened yesterday, by what became of them so far.
    pub runs: Vec<Count>,
    /// What models cost.
    pub spend: Spend,
    /// What he should know, the gravest first; at most twenty.
    pub notices: Vec<NoticeRow>,
}

/// One effect outside.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct WentOut {
    /// The run it belongs to.
    pub run: RunId,
    /// That run's title.
    pub title: String,
    /// The action, such as `email.send`.
    pub action: String,
    /// Whom or what it reached, as its parameters say. From outside, like the title: to be shown, never
    /// to be interpreted.
    pub target: String,
    /// When.
    pub at: Timestamp,
}

/// What models cost.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Spend {
    /// Yesterday.
    pub yesterday: Money,
    /// From the first of yesterday's month on, yesterday included.
    pub month: Money,
    /// How many calls there were yesterday.
    pub calls: i64,
}

/// Gathers the digest of a day: about the day before it, in the owner's time zone and currency.
///
/// # Errors
/// When the database does not answer.
pub async fn gather(
    store: &Store,
    day: Date,
    zone: &TimeZone,
    currency: &str,
) -> Result<DayDigest, StoreError> {
    let of = day.saturating_sub(1.day());
    let (from, to) = (begin(of, zone), begin(day, zone));
    let (waiting, waiting_total) = store.digest_waiting(LISTED).await?;
    let outside: Vec<&str> =
        ACTIONS.iter().filter(|spec| spec.reach == Reach::External).map(|spec| spec.name).collect();
    let (done, went_out_total) = store.digest_done(&outside, (from, to), LISTED).await?;
    let month = store.spent(By::Day, of.first_of_month(), of).await?;
    let yesterday = month.iter().find(|line| line.name == of.to_string());
    let money = |micros| Money { micros, currency: currency.to_owned() };
    let spend = Spend {
        yesterday: money(yesterday.map_or(0, |line| line.spent_micros)),
        month: money(month.iter().map(|line| line.spent_micros).sum()),
        calls: yesterday.map_or(0, |line| line.calls),
    };
    Ok(DayDigest {
        day,
        of,
        waiting,
        waiting_total,
        went_out: done.into_iter().map(WentOut::from).collect(),
        went_out_total,
        runs: store.digest_runs(from, to).await?,
        spend,
        notices: store.digest_notices(from, LISTED).await?,
    })
}

/// The first moment of a day there.
fn begin(day: Date, zone: &TimeZone) -> Timestamp {
    match day.to_zoned(zone.clone()) {
        Ok(begin) => begin.timestamp(),
        Err(_) => Timestamp::MAX, // a day beyond all calendars
    }
}

impl From<DoneRow> for WentOut {
    fn from(done: DoneRow) -> Self {
        let named = action::spec(&done.action).map_or_else(Vec::new, |spec| named(spec, &done.params));
        let target = named.join(", ");
        Self { run: done.run, title: done.title, action: done.action, target, at: done.ended_at }
    }
}
