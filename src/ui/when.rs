//! Moments and stretches of time, as pages show them: how long ago, and exactly when in the owner's zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;

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
            ..=-2_000 => format!("in {}", span(-millis)),
            _ => format!("{} ago", span(millis)),
        };
        When {
            iso: at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            exact: zoned.strftime("%a %-d %b %Y, %H:%M:%S %Z").to_string(),
            near,
        }
    }
}

/// A stretch of time in its two largest units at most; milliseconds in.
#[must_use]
pub fn span(millis: i64) -> String {
    let secs = millis / 1000;
    match secs {
        ..1 => format!("{millis} ms"),
        1..10 => format!("{}.{} s", secs, millis % 1000 / 100),
        10..60 => format!("{secs} s"),
        60..600 => two(secs, 60, "min", 1, "s"),
        600..3_600 => format!("{} min", secs / 60),
        3_600..86_400 => two(secs, 3_600, "h", 60, "min"),
        86_400..864_000 => two(secs, 86_400, "d", 3_600, "h"),
        _ => format!("{} d", secs / 86_400),
    }
}

fn two(secs: i64, large: i64, name: &str, small: i64, small_name: &str) -> String {
    match secs % large / small {
        0 => format!("{} {name}", secs / large),
        rest => format!("{} {name} {rest} {small_name}", secs / large),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_of_time_is_told_as_people_tell_it() {
        let told = [5, 1_250, 59_000, 90_000, 3_000_000, 3_600_000, 9_000_000, 90_000_000, 9_000_000_000];
        let expected =
            ["5 ms", "1.2 s", "59 s", "1 min 30 s", "50 min", "1 h", "2 h 30 min", "1 d 1 h", "104 d"];
        assert_eq!(told.map(span), expected);
    }

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
