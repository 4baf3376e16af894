//! The journal's partitions: one per month, made ahead of time, dropped when retention has emptied them.
//!
//! A run's id is a UUIDv7, so the first six bytes of `journal.run_id` are the moment the run was opened,
//! and a month is a range of ids. All entries of a run lie in the month it was opened in. By month: a
//! partition is opened by few statements and a decade makes 120 of them; by week it would be 520, and a
//! cached plan that reads the journal locks each of them.
//!
//! The default partition takes what no month does: entries older than the first month, of installations
//! from before there were months, and whatever is opened when no month could be made. Nothing is ever
//! refused for want of a partition.
//!
//! Locks: a month is attached under a lock that lets everybody read and write the other partitions, but
//! the default partition is locked wholly for that moment, and dropping a partition locks the journal
//! wholly for a moment. Hence every wait for a lock ends after [`LOCK_WAIT`], for whoever comes behind
//! waits too; what could not be done now is done at the next look.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use crate::store::StoreError;

/// Months made ahead, besides the present one: a node may be off for a quarter of a year and still find
/// its months made, and a failure has as long to be noticed.
const AHEAD: usize = 3;

/// The longest wait for a lock: the hot path may have to wait behind it for as long.
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// How often a lock is asked for in one look, and the pause in between, during which all that had to wait
/// goes on.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// The largest default partition, bytes, that is read through while it is locked: some ten milliseconds.
const READ_UNDER_LOCK: i64 = 8 * 1024 * 1024;

/// How far clocks may be apart: a month counts as begun this long before it does, and as over this long after.
const SKEW: SignedDuration = SignedDuration::from_hours(24);

/// Several nodes look at the same time: whoever holds this advisory lock makes and drops months, the
/// others leave it to them. The number is arbitrary, only Steward uses it.
const LOCK: i64 = 0x5354_4550_4152_5453;

/// A month of the journal, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Month(Date);

impl Month {
    /// The month of a moment.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self(at.to_zoned(TimeZone::UTC).date().first_of_month())
    }

    /// The month after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1.month()).first_of_month())
    }

    /// Its first moment.
    #[must_use]
    pub fn begins(self) -> Timestamp {
        self.0.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp())
    }

    /// The ids of the runs that are opened in it: from the first, to before the second.
    #[must_use]
    pub fn bounds(self) -> (Uuid, Uuid) {
        (first_id(self.begins()), first_id(self.next().begins()))
    }

    /// The name of its partition.
    #[must_use]
    pub fn partition(self) -> String {
        format!("journal_{:04}_{:02}", self.0.year(), self.0.month())
    }

    /// The month whose partition has this name.
    #[must_use]
    pub fn parse(partition: &str) -> Option<Self> {
        let (year, month) = partition.strip_prefix("journal_")?.split_once('_')?;
        let month = Self(Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()?);
        (month.partition() == partition).then_some(month)
    }

    /// Whether runs may be opened in it, by whatever clock.
    fn has_begun(self, now: Timestamp) -> bool {
        self.begins().saturating_sub(SKEW).is_ok_and(|begins| begins <= now)
    }

    /// Whether no run is opened in it any more, by whatever clock.
    fn is_over(self, now: Timestamp) -> bool {
        self.next().begins().saturating_add(SKEW).is_ok_and(|ends| ends <= now)
    }
}

/// The smallest id of a run that is opened at `at` or later.
#[must_use]
pub fn first_id(at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
    Uuid::from_u128(u128::from(millis) << 80)
}

/// The months that have a partition, the oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn months(client: &Client) -> Result<Vec<Month>, StoreError> {
    let statement = "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
                     where i.inhparent = 'journal'::regclass";
    let rows = client.query(statement, &[]).await?;
    let mut months: Vec<Month> = rows.iter().filter_map(|row| Month::parse(row.get(0))).collect();
    months.sort();
    Ok(months)
}

/// Makes the present month's partition and those of the months ahead, and drops those that are over and
/// in which no run is left. Gives what it made and what it dropped. Repeating it is harmless; of several
/// that do it at once, one does it.
///
/// # Errors
/// When the database does not answer.
pub async fn look_after(config: &Config, now: Timestamp) -> Result<(Vec<Month>, Vec<Month>), StoreError> {
    // A session of its own: what is set here, and the lock, end with it.
    let (client, connection) = config.connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    let done = look_after_with(&client, now).await;
    drop(client);
    let _ = connection.await;
    done
}

/// [`look_after`] in a session that somebody else ends.
pub(super) async fn look_after_with(
    client: &Client,
    now: Timestamp,
) -> Result<(Vec<Month>, Vec<Month>), StoreError> {
    let there = months(client).await?;
    let wanted: Vec<Month> =
        std::iter::successors(Some(Month::of(now)), |month| Some(month.next())).take(1 + AHEAD).collect();
    let over: Vec<Month> = there.iter().copied().filter(|month| month.is_over(now)).collect();
    if over.is_empty() && wanted.iter().all(|month| there.contains(month)) {
        return Ok((Vec::new(), Vec::new()));
    }
    let locked = client.query_one("select pg_try_advisory_lock($1)", &[&LOCK]).await?;
    if !locked.get::<_, bool>(0) {
        return Ok((Vec::new(), Vec::new()));
    }
    client.batch_execute(&format!("set lock_timeout = {}", LOCK_WAIT.as_millis())).await?;
    let done = make_and_drop(client, &wanted, &over, now).await;
    // The session may go on to something else.
    client.batch_execute("reset lock_timeout").await?;
    client.execute("select pg_advisory_unlock($1)", &[&LOCK]).await?;
    done
}

async fn make_and_drop(
    client: &Client,
    wanted: &[Month],
    over: &[Month],
    now: Timestamp,
) -> Result<(Vec<Month>, Vec<Month>), StoreError> {
    let (mut made, mut dropped) = (Vec::new(), Vec::new());
    let there = months(client).await?; // again, now that nobody else makes any
    for month in wanted.iter().filter(|month| !there.contains(month)) {
        if make(client, *month, now).await? {
            made.push(*month);
        }
    }
    for month in over.iter().filter(|month| there.contains(month)) {
        if drop_if_empty(client, *month).await? {
            dropped.push(*month);
        }
    }
    Ok((made, dropped))
}

/// Makes a month's partition; false when it has to wait, or will never be.
async fn make(client: &Client, month: Month, now: Timestamp) -> Result<bool, StoreError> {
    let (from, to) = month.bounds();
    let mut way = Way::of(client, month, now).await?;
    if way == Way::Proven {
        // From here on the default partition refuses the month, which nobody writes yet. That is checked
        // while all go on, and saves attaching from reading the default partition under lock.
        let name = promise(month);
        let promised = format!(
            "alter table journal_rest drop constraint if exists {name};
             alter table journal_rest add constraint {name} check (run_id < '{from}' or run_id >= '{to}') not valid"
        );
        let prove = format!("alter table journal_rest validate constraint {name}");
        let proven = patiently(client, &promised).await? && patiently(client, &prove).await?;
        way = if proven { Way::Proven } else { Way::None };
    }
    // The constraint has done its work once the month is attached, and must not outlive an attempt that
    // failed: the default partition is there to refuse nothing.
    let forget = format!("alter table journal_rest drop constraint if exists {}", promise(month));
    let attached = way != Way::None && patiently(client, &attach(month, &forget)).await?;
    if !attached {
        tracing::info!(month = %month.partition(), "the journal's month has no partition of its own for now");
        patiently(client, &forget).await?;
    }
    Ok(attached)
}

/// How a month can be attached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Reading the default partition under lock: it is small.
    Read,
    /// After proving to PostgreSQL that the default partition holds nothing of it.
    Proven,
    /// Not at all: entries of the month are in the default partition, and may go on coming.
    None,
}

impl Way {
    async fn of(client: &Client, month: Month, now: Timestamp) -> Result<Self, StoreError> {
        let (from, to) = month.bounds();
        let statement = "select exists (select from journal_rest where run_id >= $1 and run_id < $2),
                                pg_relation_size('journal_rest')";
        let row = client.query_one(statement, &[&from, &to]).await?;
        let (strays, size): (bool, i64) = (row.get(0), row.get(1));
        Ok(match (strays, size <= READ_UNDER_LOCK, month.has_begun(now)) {
            (true, ..) | (false, false, true) => Self::None,
            (false, true, _) => Self::Read,
            (false, false, false) => Self::Proven,
        })
    }
}

/// The constraint by which the default partition promises to hold nothing of a month.
fn promise(month: Month) -> String {
    format!("{}_is_elsewhere", month.partition())
}

/// Row triggers come with attaching, the one against `truncate` does not. The journal never changes: what
/// vacuum visits it freezes at once.
fn attach(month: Month, forget: &str) -> String {
    let ((from, to), partition) = (month.bounds(), month.partition());
    format!(
        "create table {partition} (like journal including all) with (autovacuum_freeze_min_age = 0);
         create trigger journal_no_truncate before truncate on {partition}
             for each statement execute function journal_is_append_only();
         alter table journal attach partition {partition} for values from ('{from}') to ('{to}');
         {forget}"
    )
}

/// Drops a month that is over when no run is left in it; false when one is, or the lock was not to be had.
async fn drop_if_empty(client: &Client, month: Month) -> Result<bool, StoreError> {
    let ((from, to), partition) = (month.bounds(), month.partition());
    // Reading past what retention has just left dead takes its time, and therefore no lock.
    let statement = format!(
        "select not exists (select from runs where id >= $1 and id < $2)
            and not exists (select from {partition})"
    );
    if !client.query_one(&statement, &[&from, &to]).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    // No entry without its run: whoever opened one meanwhile is seen here, or finds the month gone and
    // has its entry in the default partition.
    let statement = format!(
        "lock table only journal in access exclusive mode;
         do $$ begin
             if not exists (select from runs where id >= '{from}' and id < '{to}') then
                 drop table {partition};
             end if;
         end $$"
    );
    Ok(patiently(client, &statement).await? && !months(client).await?.contains(&month))
}

/// Carries statements out as one transaction, asking again for locks that are not to be had; false when
/// they were not to be had at all.
async fn patiently(client: &Client, statements: &str) -> Result<bool, StoreError> {
    for tried in 0..TRIES {
        if tried > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        // Several statements in one message are one transaction.
        match client.batch_execute(statements).await {
            Ok(()) => return Ok(true),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_month_is_a_range_of_ids_and_the_next_begins_where_it_ends() {
        let month = Month::of(at("2026-12-31T23:59:59.999Z"));
        assert_eq!(month.partition(), "journal_2026_12");
        assert_eq!(month.begins(), at("2026-12-01T00:00:00Z"));
        assert_eq!(month.next().partition(), "journal_2027_01");
        assert_eq!(month.bounds().1, month.next().bounds().0);
    }

    #[test]
    fn only_a_partition_made_here_is_taken_for_a_month() {
        assert_eq!(Month::parse("journal_2026_12"), Some(Month::of(at("2026-12-09T00:00:00Z"))));
        for name in ["journal_rest", "journal_2026_13", "journal_2026_1", "journal_2026_12_old", "runs"] {
            assert_eq!(Month::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_clock_that_is_a_day_off_neither_misses_a_month_nor_loses_one() {
        let month = Month::of(at("2026-06-15T00:00:00Z"));
        assert!(month.has_begun(at("2026-05-31T01:00:00Z")) && !month.has_begun(at("2026-05-30T00:00:00Z")));
        assert!(!month.is_over(at("2026-07-01T23:00:00Z")) && month.is_over(at("2026-07-02T00:00:00Z")));
    }

    proptest! {
        #[test]
        fn the_id_of_a_run_lies_in_the_month_it_is_opened_in(
            millis in 0u64..4_102_444_800_000, rest in any::<[u8; 10]>(),
        ) {
            let id = uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid();
            let (from, to) = Month::of(Timestamp::from_millisecond(millis as i64).unwrap()).bounds();
            prop_assert!(from <= id && id < to);
        }
    }
}
