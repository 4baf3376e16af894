//! When runs open by themselves: patterns, intervals and single moments, and what is due.
//!
//! The row of a schedule holds its next occurrence; [`Timetable::due`] says what follows from it at a
//! given moment. Everything else about a schedule can be derived again, so a bad tick costs nothing.
//!
//! **Local time.** A zone's clock skips an hour in spring and repeats one in autumn.
//! - A pattern that names its times of day (`0 9 * * mon-fri`, `30 2,14 * * *`) runs once for each of
//!   them on each day: a time that is skipped runs at the moment the gap ends, one that is repeated runs
//!   the first time only. A single moment does the same.
//! - A pattern with `*` or a step in its seconds, minutes or hours (`*/15 * * * *`) is a rhythm: it runs
//!   whenever the local clock shows a matching time, so twice in a repeated hour and never in a skipped one.
//! - An interval is elapsed time, counted from a fixed moment: it knows no zone and does not drift.
//!
//! The same rule as Vixie cron's; `croner` reads and matches the patterns on civil times, `jiff` has the zones.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{DateTime, date};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::duration::Span;

/// The shortest interval: a run costs a few transactions, and nothing an owner does by the clock is faster.
pub const SHORTEST_INTERVAL: Span = Span::secs(1);

/// Occurrences that are made up for at once under [`Missed::All`], the latest ones: three months of a
/// daily schedule, and few enough that a machine back from a long sleep does not drown in its own past.
pub const MAX_CATCH_UP: usize = 100;

/// Lost occurrences are counted up to here; beyond, "at least as many" says the same.
const MAX_COUNTED: u64 = 1_000;

/// How late an occurrence may be opened and still count as on time: longer than a restart or a busy
/// database, shorter than anything an owner plans by.
pub const ON_TIME: SignedDuration = SignedDuration::from_secs(60);

/// The last year in which anything is looked for.
const LAST_YEAR: i16 = 2200;

/// A schedule as the owner wrote it, resolved; its row keeps this.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Schedule {
    /// When.
    pub when: When,
    /// The time zone of `when`, by its IANA name.
    pub zone: String,
    /// What becomes of occurrences that nobody was there for.
    pub missed: Missed,
    /// What becomes of an occurrence whose predecessor is still running.
    pub overlap: Overlap,
    /// The run's input: templates over `workspace` and `schedule`.
    pub input: Value,
}

/// When runs open.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// A cron pattern of five fields, or six with seconds first.
    Cron(String),
    /// Again and again after the same time.
    Every {
        /// How long.
        span: Span,
        /// The first occurrence; without it, counted from the start of 1970 in UTC, so that quarters
        /// of an hour fall on the quarters.
        from: Option<DateTime>,
    },
    /// Once.
    At(DateTime),
}

/// What becomes of occurrences that nobody was there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// Nothing: only what is on time opens a run.
    Skip,
    /// The latest opens a run in the name of all.
    #[default]
    Once,
    /// Each opens a run of its own, the latest hundred at most.
    All,
}

/// What becomes of an occurrence whose predecessor is still running or waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It opens a run beside it.
    #[default]
    Allow,
    /// It opens nothing, and that is counted.
    Skip,
}

/// Why a [`When`] can never be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadWhen {
    /// The pattern does not read.
    #[error("the pattern does not read: {0}")]
    Pattern(String),
    /// No day fits, such as 30 February.
    #[error("there is never a moment that fits `{0}`")]
    Never(String),
    /// Too often.
    #[error("an interval of {0} is too short")]
    TooShort(Span),
}

/// What follows from a schedule's row at a given moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Due {
    /// The occurrences to open, the earliest first.
    pub open: Vec<Timestamp>,
    /// Occurrences that open nothing by themselves, at most [`MAX_COUNTED`] of them counted.
    pub missed: u64,
    /// The next occurrence after now; nothing when there is none.
    pub next: Option<Timestamp>,
}

impl When {
    /// How the owner would say it; the name of a schedule that has none.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Cron(pattern) => pattern.split_whitespace().collect::<Vec<_>>().join(" "),
            Self::Every { span, .. } => format!("every {span}"),
            Self::At(at) => {
                let text = at.strftime("%Y-%m-%dT%H:%M:%S").to_string();
                text.strip_suffix(":00").map_or_else(|| text.clone(), str::to_owned)
            }
        }
    }
}

/// A [`When`] in its zone, ready to be asked.
#[derive(Clone, Debug)]
pub struct Timetable {
    rule: Rule,
    zone: TimeZone,
}

#[derive(Clone, Debug)]
enum Rule {
    /// Each matching civil time happens once.
    Times(Cron),
    /// Whenever the local clock matches.
    Rhythm(Cron),
    Every {
        millis: i64,
        from: Option<Timestamp>,
    },
    At(Timestamp),
}

impl Timetable {
    /// Reads `when` in `zone`.
    ///
    /// # Errors
    /// See [`BadWhen`].
    pub fn new(when: &When, zone: TimeZone) -> Result<Self, BadWhen> {
        let rule = match when {
            When::Cron(pattern) => {
                let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
                let cron =
                    parser.parse(pattern).map_err(|error| BadWhen::Pattern(told(&error.to_string())))?;
                // Every date falls on every weekday within these years.
                let from = date(2000, 1, 1).at(0, 0, 0, 0);
                match cron.find_next_occurrence(&from, true) {
                    Ok(found) if found.year() <= 2028 => {}
                    _ => return Err(BadWhen::Never(pattern.clone())),
                }
                let fields = [&cron.pattern.seconds, &cron.pattern.minutes, &cron.pattern.hours];
                let rhythm = fields.iter().any(|field| field.from_wildcard || field.step != 1);
                if rhythm { Rule::Rhythm(cron) } else { Rule::Times(cron) }
            }
            When::Every { span, .. } if *span < SHORTEST_INTERVAL => return Err(BadWhen::TooShort(*span)),
            When::Every { span, from } => Rule::Every {
                millis: i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX),
                from: from.and_then(|from| instant(&zone, from)),
            },
            When::At(at) => Rule::At(instant(&zone, *at).ok_or_else(|| BadWhen::Never(when.in_words()))?),
        };
        Ok(Self { rule, zone })
    }

    /// The first occurrence after a moment; nothing when there is none, or none before the year 2200.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Times(cron) => self.next_time(cron, after),
            Rule::Rhythm(cron) => self.next_beat(cron, after),
            Rule::Every { from: Some(from), .. } if *from > after => Some(*from),
            Rule::Every { millis, from } => {
                let anchor = from.map_or(0, Timestamp::as_millisecond);
                // Rounded down, so that a moment within a millisecond of an occurrence does not repeat it.
                let beats = after.as_millisecond().checked_sub(anchor)?.div_euclid(*millis);
                let next = beats.checked_add(1)?.checked_mul(*millis)?.checked_add(anchor)?;
                Timestamp::from_millisecond(next).ok()
            }
            Rule::At(at) => Some(*at).filter(|at| *at > after),
        }
    }

    /// The instants of matching civil times never go back: what is repeated counts the first time, what
    /// is skipped counts at the end of the gap. So the first civil match with a later instant is the answer.
    fn next_time(&self, cron: &Cron, after: Timestamp) -> Option<Timestamp> {
        let mut civil = self.zone.to_datetime(after);
        loop {
            civil = match_after(cron, civil, false)?;
            let found = instant(&self.zone, civil)?;
            if found > after {
                return Some(found);
            }
        }
    }

    /// Between two changes of the clock, local time runs evenly: a match is looked for in one such
    /// stretch after the other.
    fn next_beat(&self, cron: &Cron, after: Timestamp) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (after, false);
        loop {
            let offset = self.zone.to_offset(from);
            let change = self.zone.following(from).next().map(|change| change.timestamp());
            let civil = match_after(cron, offset.to_datetime(from), inclusive)?;
            let found = offset.to_timestamp(civil).ok()?;
            match change {
                Some(change) if found >= change => (from, inclusive) = (change, true),
                _ => return Some(found),
            }
        }
    }

    /// What follows at `now` for a schedule whose row names `next_at`.
    #[must_use]
    pub fn due(&self, next_at: Timestamp, now: Timestamp, missed: Missed) -> Due {
        if next_at > now {
            return Due { open: Vec::new(), missed: 0, next: Some(next_at) };
        }
        let next = self.next(now);
        let (most, oldest) = match missed {
            Missed::Skip => (MAX_CATCH_UP, now.checked_sub(ON_TIME).unwrap_or(Timestamp::MIN)),
            Missed::Once => (1, Timestamp::MIN),
            Missed::All => (MAX_CATCH_UP, Timestamp::MIN),
        };
        let mut open = Vec::new();
        let mut until = now;
        while open.len() < most {
            let found = self.latest(next_at, until);
            if found < oldest {
                break;
            }
            open.push(found);
            if found == next_at {
                break;
            }
            until = before(found);
        }
        open.reverse();
        let lost = |at: &Timestamp| open.first().map_or(*at <= now, |first| at < first);
        let from_row = std::iter::successors(Some(next_at), |at| self.next(*at));
        let missed = from_row.take_while(lost).zip(0..MAX_COUNTED).count() as u64;
        Due { open, missed, next }
    }

    /// The last occurrence up to `until`, which is not before `first`, an occurrence. [`Self::next`] never
    /// goes back, so the last moment whose next occurrence is not too late is found by halving.
    fn latest(&self, first: Timestamp, until: Timestamp) -> Timestamp {
        let follows = |at: Timestamp| self.next(at).filter(|next| *next <= until);
        let Some(mut found) = follows(first) else { return first };
        let (mut low, mut high) = (found.as_millisecond(), until.as_millisecond());
        while low < high {
            let middle = low + (high - low) / 2;
            let next = Timestamp::from_millisecond(middle).ok().and_then(follows);
            match next {
                // What follows the middle is an occurrence too: go on from there.
                Some(next) => (found, low) = (next, next.as_millisecond().max(middle + 1)),
                None => high = middle,
            }
        }
        found
    }
}

fn before(at: Timestamp) -> Timestamp {
    at.checked_sub(SignedDuration::from_millis(1)).unwrap_or(Timestamp::MIN)
}

fn match_after(cron: &Cron, civil: DateTime, inclusive: bool) -> Option<DateTime> {
    // A whole second that has begun is over; croner looks at whole seconds only.
    let inclusive = inclusive && civil.subsec_nanosecond() == 0;
    let found = cron.find_next_occurrence(&civil, inclusive).ok()?;
    Some(found).filter(|found| found.year() <= LAST_YEAR)
}

/// The moment of a civil time: the first of two, or the end of the gap that it falls into.
fn instant(zone: &TimeZone, civil: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
        AmbiguousOffset::Gap { .. } => {
            // By the offset before the gap: a moment after the change that made it.
            let later = ambiguous.later().ok()?;
            let just_after = later.checked_add(SignedDuration::from_secs(1)).ok()?;
            zone.preceding(just_after).next().map(|change| change.timestamp())
        }
    }
}

/// croner's messages begin with what kind of error they are, which says nothing to an owner.
fn told(error: &str) -> String {
    let rest = ["Invalid pattern: ", "Component error: ", "Pattern contains illegal characters: "];
    let text = rest.iter().find_map(|kind| error.strip_prefix(kind)).unwrap_or(error);
    text.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
