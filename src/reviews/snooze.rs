//! For how long a review may be left alone at a touch, the same on every surface.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// When a morning begins for who has snoozed something, on the owner's clock.
const MORNING: Time = Time::constant(8, 0, 0, 0);

/// What is offered: the word of the form, and what the button says.
const OFFERS: [(&str, &str); 3] =
    [("hour", "1 hour"), ("morning", "Until tomorrow morning"), ("days", "3 days")];

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The word of the form.
    pub word: &'static str,
    /// What the button says.
    pub says: &'static str,
    /// Until when that is.
    pub until: Timestamp,
}

/// What is offered at the moment `now`, as far as it fits before the deadline.
#[must_use]
pub fn offers(now: Timestamp, zone: &TimeZone, due: Option<Timestamp>) -> Vec<Offer> {
    let fits = |until: &Timestamp| due.is_none_or(|due| *until < due);
    OFFERS
        .into_iter()
        .filter_map(|(word, says)| Some(Offer { word, says, until: until(word, now, zone).filter(fits)? }))
        .collect()
}

/// The moment that a word of the form means; nothing for any other word.
#[must_use]
pub fn until(word: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let hours = |hours| now.checked_add(SignedDuration::from_hours(hours)).ok();
    match word {
        "hour" => hours(1),
        "days" => hours(72),
        "morning" => tomorrow(now, zone),
        _ => None,
    }
}

/// The next day's morning, there.
#[must_use]
pub fn tomorrow(now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let day = now.to_zoned(zone.clone()).date().tomorrow().ok()?;
    Some(day.to_datetime(MORNING).to_zoned(zone.clone()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oslo() -> TimeZone {
        TimeZone::get("Europe/Oslo").unwrap()
    }

    fn at(word: &str, now: &str) -> String {
        until(word, now.parse().unwrap(), &oslo()).unwrap().to_string()
    }

    #[test]
    fn the_morning_is_the_owners_also_when_the_clocks_change_in_between() {
        assert_eq!(at("morning", "2026-11-30T12:00:00Z"), "2026-12-01T07:00:00Z");
        assert_eq!(at("morning", "2026-11-30T23:30:00Z"), "2026-12-02T07:00:00Z");
        assert_eq!(at("morning", "2026-03-28T12:00:00Z"), "2026-03-29T06:00:00Z");
        assert_eq!(at("hour", "2026-11-30T12:00:00Z"), "2026-11-30T13:00:00Z");
        assert_eq!(at("days", "2026-11-30T12:00:00Z"), "2026-12-03T12:00:00Z");
        assert_eq!(until("year", "2026-11-30T12:00:00Z".parse().unwrap(), &oslo()), None);
    }

    #[test]
    fn what_would_outlast_the_deadline_is_not_offered() {
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        let words = |due: Option<&str>| -> Vec<&str> {
            let due = due.map(|due| due.parse().unwrap());
            offers(now, &oslo(), due).into_iter().map(|offer| offer.word).collect()
        };
        assert_eq!(words(None), ["hour", "morning", "days"]);
        assert_eq!(words(Some("2026-12-01T07:00:00Z")), ["hour"]);
        assert_eq!(words(Some("2026-11-30T12:30:00Z")), [""; 0]);
    }
}
