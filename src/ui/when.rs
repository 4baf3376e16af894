//! Moments, as pages show them: how long ago, and exactly when in the owner's zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::domain::duration::told;

/// What a page goes by: the database's clock, and the owner's zone.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The moment at which the page is made.
    pub now: Timestamp,
    /// The owner's time zone.
    pub zone: TimeZone,
}

/// A moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct When {
    /// For machines (RFC 3339).
    pub iso: String,
    /// Exactly, in the owner's zone.
    pub exact: String,
    /// Seen from now: `3 min ago`, `in 2 h`.
    pub near: String,
}

impl Clock {
    /// A moment.
    #[must_use]
    pub fn when(&self, at: Timestamp) -> When {
        let zoned = at.to_zoned(self.zone.clone());
        let millis = self.now.as_millisecond() - at.as_millisecond();
        let near = match millis {
            -1_999..=1_999 => "now".to_owned(),
            ..=-2_000 => format!("in {}", told(-millis)),
            _ => format!("{} ago", told(millis)),
        };
        When {
            iso: at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            exact: zoned.strftime("%a %-d %b %Y, %H:%M:%S %Z").to_string(),
            near,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_from_now_and_exactly_where_the_owner_is() {
        let zone = TimeZone::get("Europe/Oslo").unwrap();
        let clock = Clock { now: "2026-11-30T01:00:00Z".parse().unwrap(), zone };
        let when = clock.when("2026-11-30T00:57:00Z".parse().unwrap());
        assert_eq!((when.near.as_str(), when.exact.as_str()), ("3 min ago", "Mon 30 Nov 2026, 01:57:00 CET"));
        assert_eq!(clock.when("2026-11-30T03:00:00Z".parse().unwrap()).near, "in 2 h");
        assert_eq!(clock.when(clock.now).near, "now");
    }
}
