//! Quiet hours: when the owner does not want to be disturbed, in the owner's own time.

use std::collections::BTreeSet;

use jiff::civil::{DateTime, Time, Weekday};
use serde::{Deserialize, Serialize};

/// A stretch of each day, which may go over midnight, and whole days.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quiet {
    /// When it begins.
    pub from: Time,
    /// When it ends; the same as `from` for no hours at all.
    pub to: Time,
    /// Days that are quiet from midnight to midnight: `mon` to `sun`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub days: BTreeSet<Day>,
}

/// A day of the week.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say all")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// The day of a moment.
    #[must_use]
    pub fn of(local: DateTime) -> Self {
        match local.weekday() {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }

    /// `mon` to `sun`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }
}

impl Quiet {
    /// Whether it is quiet at that moment of the owner's.
    #[must_use]
    pub fn at(&self, local: DateTime) -> bool {
        let time = local.time();
        let hours = match self.from <= self.to {
            true => self.from <= time && time < self.to,
            false => self.from <= time || time < self.to,
        };
        hours || self.days.contains(&Day::of(local))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn quiet_hours_go_over_midnight_and_days_are_quiet_as_a_whole() {
        let quiet = Quiet {
            from: Time::constant(21, 0, 0, 0),
            to: Time::constant(7, 30, 0, 0),
            days: BTreeSet::from([Day::Sun]),
        };
        let monday = |hour, minute| quiet.at(date(2026, 11, 30).at(hour, minute, 0, 0));
        assert!(monday(21, 0) && monday(23, 59) && monday(0, 0) && monday(7, 29));
        assert!(!monday(7, 30) && !monday(12, 0) && !monday(20, 59));
        assert!(quiet.at(date(2026, 11, 29).at(12, 0, 0, 0)));
        let none = Quiet { from: Time::midnight(), to: Time::midnight(), days: BTreeSet::new() };
        assert!(!none.at(date(2026, 11, 29).at(0, 0, 0, 0)));
    }
}
