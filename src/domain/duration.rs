//! Durations: as the owner writes them, `500ms`, `30s`, `5m`, `2h`, `3d`, and as he is told of them, `1 min 30 s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time, exact to the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span(pub Duration);

/// Why a text is not a length of time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a duration as `500ms`, `30s`, `5m`, `2h` or `3d`")]
pub struct NotASpan;

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Span {
    /// This many seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The moment this long after `at`; the end of time if that is later.
    #[must_use]
    pub fn after(self, at: Timestamp) -> Timestamp {
        let span = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        at.saturating_add(span).unwrap_or(Timestamp::MAX)
    }
}

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Self, NotASpan> {
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or(NotASpan)?;
        let (number, unit) = text.split_at(split);
        let number: u64 = number.parse().map_err(|_| NotASpan)?;
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(NotASpan)?;
        number.checked_mul(*millis).map(|ms| Self(Duration::from_millis(ms))).ok_or(NotASpan)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (unit, size) =
            UNITS.iter().find(|(_, size)| millis >= *size && millis % size == 0).unwrap_or(&("ms", 1));
        write!(f, "{}{unit}", millis / size)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A length of time as people say it, in its two largest units at most; milliseconds in.
#[must_use]
pub fn told(millis: i64) -> String {
    let millis = millis.max(0); // clocks of two nodes may differ
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
    use proptest::prelude::*;

    #[test]
    fn a_duration_needs_a_number_and_a_known_unit() {
        assert_eq!("90s".parse::<Span>(), Ok(Span::secs(90)));
        for text in ["", "5", "s", "5 s", "5w", "1.5s", "-1s", "99999999999999999999d"] {
            assert_eq!(text.parse::<Span>(), Err(NotASpan), "{text}");
        }
    }

    #[test]
    fn a_stretch_of_time_is_told_as_people_tell_it() {
        let said = [5, 1_250, 59_000, 90_000, 3_000_000, 3_600_000, 9_000_000, 90_000_000, 9_000_000_000];
        let expected =
            ["5 ms", "1.2 s", "59 s", "1 min 30 s", "50 min", "1 h", "2 h 30 min", "1 d 1 h", "104 d"];
        assert_eq!(said.map(told), expected);
    }

    proptest! {
        #[test]
        fn writing_and_reading_a_duration_gives_it_back(millis in 0u64..1 << 50) {
            let span = Span(Duration::from_millis(millis));
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
    }
}
