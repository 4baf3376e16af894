//! The ladder of a review: when the owner is told of it, over which channels, and when it expires. Pure:
//! the same moments give the same rungs, however often and wherever they are asked for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::duration::Span;
use crate::domain::risk::RiskClass;

/// What holds for every workflow that says nothing of its own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Terms {
    /// When a question of this class expires. Never, for a class that is not here.
    pub expire: BTreeMap<RiskClass, Span>,
    /// How long an action waits after it was decided that it may happen, by its name.
    pub delay: BTreeMap<String, Span>,
}

/// A way to the owner that is sent to. The web inbox is not one of them: whatever is open is always there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelName {
    /// A Slack message.
    Slack,
    /// A mail.
    Email,
}

impl ChannelName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Slack, Self::Email];

    /// The name used in tables, files and screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Email => "email",
        }
    }
}

/// One rung: so long after the review opened the owner is told over these channels.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// How long after the review opened.
    #[schemars(with = "String", extend("format" = "span"))]
    pub after: Span,
    /// Where the owner is told.
    pub channels: BTreeSet<ChannelName>,
}

/// What happens while nobody decides.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ladder {
    /// From the first.
    #[serde(default)]
    pub rungs: Vec<Rung>,
    /// When the question expires, unless the workflow says. Never, when absent. A time-out never means yes.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub expire: Option<Span>,
    /// Whether the owner is told in quiet hours too.
    #[serde(default)]
    pub wakes: bool,
}

/// Hours in which the owner is not disturbed, on his clock. They may go past midnight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quiet {
    /// The first minute, such as `21:00`.
    #[schemars(with = "String")]
    pub from: Time,
    /// The first minute after, such as `07:30`.
    #[schemars(with = "String")]
    pub to: Time,
}

impl Quiet {
    /// Whether `at` lies in them.
    #[must_use]
    pub fn holds(&self, at: &Zoned) -> bool {
        let time = at.time();
        match self.from <= self.to {
            true => self.from <= time && time < self.to,
            false => self.from <= time || time < self.to,
        }
    }

    /// The first moment from `at` on that is not quiet.
    #[must_use]
    pub fn end(&self, at: Timestamp, zone: &TimeZone) -> Timestamp {
        let here = at.to_zoned(zone.clone());
        if !self.holds(&here) {
            return at;
        }
        let ends = |day: jiff::civil::Date| day.to_datetime(self.to).to_zoned(zone.clone());
        let today = ends(here.date());
        let end = match today {
            Ok(end) if end.timestamp() > at => Ok(end),
            _ => here.date().tomorrow().and_then(ends),
        };
        end.map_or(at, |end| end.timestamp())
    }
}

/// What is to be done about a review at some moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Climb {
    /// Where the owner is told now; nowhere when the moment has not come.
    pub channels: BTreeSet<ChannelName>,
    /// How many rungs are climbed then.
    pub rung: usize,
    /// When to look again; never, when the ladder is climbed.
    pub next: Option<Timestamp>,
}

impl Ladder {
    /// Where a review that opened at `opened` stands at `now`, when `climbed` rungs are climbed. Rungs that
    /// were missed are climbed at once, as one.
    #[must_use]
    pub fn climb(
        &self,
        opened: Timestamp,
        climbed: usize,
        now: Timestamp,
        quiet: Option<&Quiet>,
        zone: &TimeZone,
    ) -> Climb {
        let due = |rung: &Rung| {
            let at = rung.after.after(opened);
            quiet.filter(|_| !self.wakes).map_or(at, |quiet| quiet.end(at, zone))
        };
        let left = self.rungs.get(climbed..).unwrap_or_default();
        let quiet_now = quiet.is_some_and(|quiet| !self.wakes && quiet.holds(&now.to_zoned(zone.clone())));
        let over = match quiet_now {
            true => 0,
            false => left.iter().take_while(|rung| due(rung) <= now).count(),
        };
        let channels = left[..over].iter().flat_map(|rung| rung.channels.iter().copied()).collect();
        let next = left.get(over).map(|rung| {
            let at = due(rung);
            quiet.filter(|_| quiet_now).map_or(at, |quiet| at.max(quiet.end(now, zone)))
        });
        Climb { channels, rung: climbed + over, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn quiet(from: &str, to: &str) -> Quiet {
        Quiet { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn rung(secs: u64, channels: &[ChannelName]) -> Rung {
        Rung { after: Span::secs(secs), channels: channels.iter().copied().collect() }
    }

    fn ladder() -> Ladder {
        let rungs = vec![
            rung(0, &[ChannelName::Slack]),
            rung(3600, &[ChannelName::Slack]),
            rung(86_400, &[ChannelName::Email]),
        ];
        Ladder { rungs, ..Ladder::default() }
    }

    #[test]
    fn the_first_rung_is_climbed_at_once_and_the_next_one_named() {
        let opened = at("2026-03-02T10:00:00Z");
        let climb = ladder().climb(opened, 0, opened, None, &TimeZone::UTC);
        let next = Some(at("2026-03-02T11:00:00Z"));
        assert_eq!(climb, Climb { channels: [ChannelName::Slack].into(), rung: 1, next });
    }

    #[test]
    fn rungs_that_were_missed_are_one_message_per_channel() {
        let climb =
            ladder().climb(at("2026-03-02T10:00:00Z"), 1, at("2026-03-09T10:00:00Z"), None, &TimeZone::UTC);
        assert_eq!(climb, Climb { channels: ChannelName::ALL.into(), rung: 3, next: None });
    }

    #[test]
    fn quiet_hours_put_a_rung_off_to_their_end_unless_the_class_wakes() {
        let zone = TimeZone::get("Europe/Oslo").unwrap();
        let night = quiet("21:00", "07:00");
        let opened = at("2026-03-02T22:30:00Z"); // half past eleven at night in Oslo
        let climb = ladder().climb(opened, 0, opened, Some(&night), &zone);
        let morning = Some(at("2026-03-03T06:00:00Z"));
        assert_eq!(climb, Climb { channels: BTreeSet::new(), rung: 0, next: morning });
        let loud = Ladder { wakes: true, ..ladder() };
        assert_eq!(loud.climb(opened, 0, opened, Some(&night), &zone).rung, 1);
    }

    #[test]
    fn quiet_hours_of_no_length_hold_nothing() {
        let zoned = at("2026-03-02T09:00:00Z").to_zoned(TimeZone::UTC);
        assert!(!quiet("09:00", "09:00").holds(&zoned));
    }

    proptest! {
        #[test]
        fn whoever_looks_when_told_to_climbs_every_rung_once_and_never_in_quiet_hours(
            start in 1_700_000_000i64..1_800_000_000, from in 0u32..1440, to in 0u32..1440,
            gaps in proptest::collection::vec(0u64..200_000, 0..6), late in 0u64..60,
        ) {
            let zone = TimeZone::get("Europe/Oslo").unwrap();
            let time = |minutes: u32| Time::new((minutes / 60) as i8, (minutes % 60) as i8, 0, 0).unwrap();
            let quiet = Quiet { from: time(from), to: time(to) };
            let opened = Timestamp::from_second(start).unwrap();
            let mut after = 0;
            let rungs: Vec<Rung> =
                gaps.iter().map(|gap| { after += gap; rung(after, &[ChannelName::Slack]) }).collect();
            let ladder = Ladder { rungs, ..Ladder::default() };
            let (mut climbed, mut now, mut looks) = (0, opened, 0);
            loop {
                let climb = ladder.climb(opened, climbed, now, Some(&quiet), &zone);
                prop_assert!(climb.rung >= climbed);
                if climb.rung > climbed {
                    prop_assert!(!quiet.holds(&now.to_zoned(zone.clone())));
                }
                climbed = climb.rung;
                let Some(next) = climb.next else { break };
                prop_assert!(next > now, "{next} is not after {now}");
                now = Span::secs(late).after(next);
                looks += 1;
                prop_assert!(looks < 40);
            }
            prop_assert_eq!(climbed, ladder.rungs.len());
        }
    }
}
