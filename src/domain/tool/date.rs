//! The tool `date`: what day it is, and how days lie to each other. Pure: the present moment and the
//! owner's time zone are given.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit, Zoned};
use serde_json::{Value, json};

/// What it is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// A date or moment; the present one when absent.
    pub of: Option<&'a str>,
    /// A span to move it by, such as `3 days`.
    pub plus: Option<&'a str>,
    /// Another date or moment: how many days lie between them is told too.
    pub until: Option<&'a str>,
    /// A time zone of the IANA database; the owner's when absent.
    pub zone: Option<&'a str>,
}

/// Answers.
///
/// # Errors
/// What cannot be read, for the model to mend.
pub fn date(asked: Asked<'_>, now: Timestamp, zone: &TimeZone) -> Result<Value, String> {
    let zone = match asked.zone {
        Some(name) => {
            TimeZone::get(name).map_err(|_| format!("there is no time zone `{}`", name.escape_debug()))?
        }
        None => zone.clone(),
    };
    let moment = |text: &str| read(text, &zone).ok_or_else(|| unreadable(text));
    let mut at = match asked.of {
        Some(text) => moment(text)?,
        None => now.to_zoned(zone.clone()),
    };
    if let Some(text) = asked.plus {
        let span: jiff::Span =
            text.parse().map_err(|_| format!("`{}` is no span such as `3 days`", text.escape_debug()))?;
        at = at.checked_add(span).map_err(|_| "that is beyond the calendar".to_owned())?;
    }
    let mut answer = json!({
        "date": at.date().to_string(),
        "time": at.strftime("%H:%M").to_string(),
        "weekday": at.strftime("%A").to_string(),
        "zone": zone.iana_name().unwrap_or("UTC"),
        "moment": at.timestamp().to_string(),
    });
    if let Some(text) = asked.until {
        let other = moment(text)?;
        let between = at.date().until((Unit::Day, other.date()));
        let between = between.map_err(|_| "that is beyond the calendar".to_owned())?;
        answer["days_until"] = json!(between.get_days());
    }
    Ok(answer)
}

/// A moment, or a date or time of day in the zone.
fn read(text: &str, zone: &TimeZone) -> Option<Zoned> {
    let text = text.trim();
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment.to_zoned(zone.clone()));
    }
    let civil = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(|date| date.at(0, 0, 0, 0)));
    civil.ok()?.to_zoned(zone.clone()).ok()
}

fn unreadable(text: &str) -> String {
    format!("`{}` is no date such as `2026-03-01` or `2026-03-01T09:30`", text.escape_debug())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-25T22:30:00Z".parse().unwrap()
    }

    #[test]
    fn days_are_the_owners_days() {
        let oslo = TimeZone::get("Europe/Oslo").unwrap();
        let answer = date(Asked::default(), now(), &oslo).unwrap();
        assert_eq!((&answer["date"], &answer["time"]), (&json!("2026-11-25"), &json!("23:30")));
        let asked = Asked { plus: Some("3 days"), until: Some("2026-12-24"), ..Asked::default() };
        let answer = date(asked, now(), &oslo).unwrap();
        assert_eq!((&answer["date"], &answer["weekday"]), (&json!("2026-11-28"), &json!("Saturday")));
        assert_eq!(answer["days_until"], json!(26));
        let asked =
            Asked { of: Some("2026-03-01"), plus: Some("-1 day"), zone: Some("UTC"), ..Asked::default() };
        assert_eq!(date(asked, now(), &oslo).unwrap()["date"], json!("2026-02-28"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let wrong = |asked| date(asked, now(), &TimeZone::UTC).unwrap_err();
        assert!(wrong(Asked { of: Some("soon"), ..Asked::default() }).contains("soon"));
        assert!(wrong(Asked { plus: Some("a bit"), ..Asked::default() }).contains("a bit"));
        assert!(wrong(Asked { zone: Some("Mars/Base"), ..Asked::default() }).contains("Mars/Base"));
        assert!(wrong(Asked { plus: Some("9000 years"), ..Asked::default() }).contains("calendar"));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_there_is_an_answer_or_a_reason(of in "\\PC{0,20}", plus in "[0-9a-z -]{0,16}") {
            let asked = Asked { of: Some(&of), plus: Some(&plus), ..Asked::default() };
            let _ = date(asked, now(), &TimeZone::UTC);
        }
    }
}
