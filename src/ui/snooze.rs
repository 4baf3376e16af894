//! For how long a review may be left alone at a touch.

use jiff::{SignedDuration, Timestamp};

use crate::ui::when::{Clock, When};

/// The hour at which a morning begins for who has snoozed something.
const MORNING: i8 = 8;

/// What is offered: the word of the form, and what the button says.
const OFFERS: [(&str, &str); 3] =
    [("hour", "1 hour"), ("morning", "Until tomorrow morning"), ("days", "3 days")];

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The word of the form.
    pub word: &'static str,
    /// What the button says.
    pub says: &'static str,
    /// Until when that is.
    pub until: When,
}

/// What fits before the deadline.
#[must_use]
pub fn offers(clock: &Clock, due: Option<Timestamp>) -> Vec<Offer> {
    let fits = |until: &Timestamp| due.is_none_or(|due| *until < due);
    OFFERS
        .into_iter()
        .filter_map(|(word, says)| {
            let until = until(word, clock).filter(fits)?;
            Some(Offer { word, says, until: clock.when(until) })
        })
        .collect()
}

/// The moment that a word of the form means; nothing for any other word.
#[must_use]
pub fn until(word: &str, clock: &Clock) -> Option<Timestamp> {
    let hours = |hours| clock.now.checked_add(SignedDuration::from_hours(hours)).ok();
    match word {
        "hour" => hours(1),
        "days" => hours(72),
        "morning" => {
            let tomorrow = clock.now.to_zoned(clock.zone.clone()).date().tomorrow().ok()?;
            Some(tomorrow.at(MORNING, 0, 0, 0).to_zoned(clock.zone.clone()).ok()?.timestamp())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    fn clock(now: &str) -> Clock {
        Clock { now: now.parse().unwrap(), zone: TimeZone::get("Europe/Oslo").unwrap() }
    }

    fn at(word: &str, now: &str) -> String {
        until(word, &clock(now)).unwrap().to_string()
    }

    #[test]
    fn the_morning_is_the_owners_also_when_the_clocks_change_in_between() {
        assert_eq!(at("morning", "2026-11-30T12:00:00Z"), "2026-12-01T07:00:00Z");
        assert_eq!(at("morning", "2026-11-30T23:30:00Z"), "2026-12-02T07:00:00Z");
        assert_eq!(at("morning", "2026-03-28T12:00:00Z"), "2026-03-29T06:00:00Z");
        assert_eq!(at("hour", "2026-11-30T12:00:00Z"), "2026-11-30T13:00:00Z");
        assert_eq!(at("days", "2026-11-30T12:00:00Z"), "2026-12-03T12:00:00Z");
        assert_eq!(until("year", &clock("2026-11-30T12:00:00Z")), None);
    }

    #[test]
    fn what_would_outlast_the_deadline_is_not_offered() {
        let clock = clock("2026-11-30T12:00:00Z");
        let words = |due: Option<&str>| -> Vec<&str> {
            let due = due.map(|due| due.parse().unwrap());
            offers(&clock, due).into_iter().map(|offer| offer.word).collect()
        };
        assert_eq!(words(None), ["hour", "morning", "days"]);
        assert_eq!(words(Some("2026-12-01T07:00:00Z")), ["hour"]);
        assert_eq!(words(Some("2026-11-30T12:30:00Z")), [""; 0]);
    }
}
