//! What providers say about their limits in the headers of an answer: how long to wait, how much is left.
//!
//! `Retry-After` is RFC 9110, 10.2.3; `retry-after-ms` and `x-ratelimit-*` are OpenAI's, and spoken by
//! many others, who write the time of the reset in ways of their own.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The longest wait a provider may ask for. Daily quotas may take longer, but an hourly look costs nothing,
/// and a wait of days is more often a mistake or a prank than a plan.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// A number above this is no length of time but a moment: seconds since 1970, in the year 2001.
const MOMENT_SECONDS: f64 = 1e9;

/// And above this it is milliseconds since 1970.
const MOMENT_MILLIS: f64 = 1e12;

/// What the headers of one answer say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Told {
    /// How long to wait before the next call.
    pub wait: Option<Duration>,
    /// How many calls are left.
    pub requests: Option<Left>,
    /// How many tokens are left.
    pub tokens: Option<Left>,
}

/// What is left of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Left {
    /// So many.
    pub left: u64,
    /// Until then.
    pub reset: Duration,
}

/// Reads the headers of an answer that came at `now`. What cannot be read says nothing.
pub(crate) fn told(headers: &HeaderMap, now: Timestamp) -> Told {
    let requests = left(headers, now, "requests").or_else(|| left(headers, now, ""));
    let tokens = left(headers, now, "tokens");
    let spent = [requests, tokens].into_iter().flatten().filter(|left| left.left == 0);
    let wait = after_ms(headers)
        .or_else(|| length(text(headers, RETRY_AFTER.as_str())?, now))
        .or_else(|| spent.map(|left| left.reset).max());
    Told { wait: wait.map(|wait| wait.min(LONGEST_WAIT)), requests, tokens }
}

fn after_ms(headers: &HeaderMap) -> Option<Duration> {
    let millis: f64 = text(headers, "retry-after-ms")?.parse().ok()?;
    Some(seconds(millis / 1e3))
}

fn left(headers: &HeaderMap, now: Timestamp, what: &str) -> Option<Left> {
    let name = |part: &str| match what {
        "" => format!("x-ratelimit-{part}"),
        what => format!("x-ratelimit-{part}-{what}"),
    };
    let left: f64 = text(headers, &name("remaining"))?.parse().ok()?;
    let reset = length(text(headers, &name("reset"))?, now)?.min(LONGEST_WAIT);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    Some(Left { left: left as u64, reset })
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

/// A time to come: seconds, `6m0s` or `20ms`, a date, or a moment as a number.
fn length(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(number) = text.parse::<f64>() {
        return Some(match number {
            _ if number >= MOMENT_MILLIS => until(number / 1e3, now),
            _ if number >= MOMENT_SECONDS => until(number, now),
            _ => seconds(number),
        });
    }
    if let Some(length) = compound(text) {
        return Some(length);
    }
    // The year 9999 is how some say "never", and its last day is beyond the last moment there is.
    let within = text.replace(" 9999 ", " 9998 ");
    let http = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(&within).ok();
    let at = http.or_else(|| text.parse::<Timestamp>().ok())?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// A moment as seconds since 1970. One that is farther away than any moment there is, is a number that
/// means nothing: as long as may be.
fn until(at: f64, now: Timestamp) -> Duration {
    let from = Duration::try_from(now.as_duration()).unwrap_or_default();
    Duration::try_from_secs_f64(at).map_or(LONGEST_WAIT, |at| at.saturating_sub(from))
}

fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number.max(0.0)).unwrap_or(LONGEST_WAIT)
}

/// As in `1h2m3.5s` or `20ms`.
fn compound(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let unit = match &rest[digits..unit_end] {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            _ => return None,
        };
        total = total.saturating_add(seconds(number * unit));
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reqwest::header::{HeaderName, HeaderValue};

    const NOW: &str = "2015-10-21T07:28:00Z";

    fn read(pairs: &[(&'static str, &str)]) -> Told {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        told(&pairs.iter().map(pair).collect(), NOW.parse().unwrap())
    }

    #[test]
    fn a_wait_is_read_as_seconds_or_as_a_date_and_is_bounded() {
        for (text, secs) in [
            ("7", Some(7)),
            ("1e99", Some(3_600)),
            ("-3", Some(0)),
            ("99999999999999999999", Some(3_600)),
            ("Wed, 21 Oct 2015 07:28:07 GMT", Some(7)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(3_600)),
            ("soon", None),
            ("", None),
            ("NaN", Some(0)),
            ("inf", Some(3_600)),
        ] {
            assert_eq!(read(&[("retry-after", text)]).wait, secs.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn milliseconds_come_before_seconds_and_both_before_a_reset() {
        let reset = [("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "6m0s")];
        assert_eq!(read(&reset).wait, Some(Duration::from_secs(360)));
        let after = [reset[0], reset[1], ("retry-after", "2")];
        assert_eq!(read(&after).wait, Some(Duration::from_secs(2)));
        let ms = [("retry-after-ms", "1500"), ("retry-after", "2")];
        assert_eq!(read(&ms).wait, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_reset_is_understood_in_every_way_that_providers_write_it() {
        for (text, millis) in [
            ("1", 1_000),
            ("20ms", 20),
            ("1m26.4s", 86_400),
            ("1h2m3s", 3_600_000), // bounded
            ("1445412487", 7_000),
            ("1445412487250", 7_250),
            ("2015-10-21T07:28:07Z", 7_000),
        ] {
            let headers = [("x-ratelimit-remaining-requests", "3"), ("x-ratelimit-reset-requests", text)];
            let expected = Left { left: 3, reset: Duration::from_millis(millis) };
            assert_eq!(read(&headers), Told { requests: Some(expected), ..Told::default() }, "{text}");
        }
        let plain = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1445412487250")];
        assert_eq!(read(&plain).wait, Some(Duration::from_millis(7_250)));
        let nonsense = [("x-ratelimit-remaining-requests", "many"), ("x-ratelimit-reset-requests", "1s")];
        assert_eq!(read(&nonsense), Told::default());
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_reading_or_its_bound(text in "[ -~]{0,30}", ms in "[0-9.e+-]{0,12}") {
            let told = read(&[("retry-after", &text), ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", &text), ("retry-after-ms", &ms)]);
            prop_assert!(told.wait.is_none_or(|wait| wait <= LONGEST_WAIT));
            prop_assert!(told.tokens.is_none_or(|left| left.reset <= LONGEST_WAIT));
        }
    }
}
