//! What comes back, and what it says about the effect.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};
use serde_json::{Map, Value, json};

use crate::connectors::http::Trouble;
use crate::domain::duration::Span;
use crate::domain::event::{ErrorKind, StepError};
use crate::time::wall;

/// The headers that a workflow gets to see.
const SHOWN: [HeaderName; 4] = [CONTENT_TYPE, LOCATION, ETAG, RETRY_AFTER];

/// The longest wait a server may ask for: after that we look ourselves.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// An answer, its body read.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body, or its beginning.
    pub body: Vec<u8>,
    /// Whether the body was longer.
    pub truncated: bool,
}

impl Answer {
    /// A header as text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<String> {
        let value = self.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// What it says about the effect of a request to `place`.
    pub(super) fn judge(&self, place: &str) -> Result<Value, Trouble> {
        let status = self.status.as_u16();
        let error = |kind, does: &str| {
            let wait = match kind {
                ErrorKind::RateLimited | ErrorKind::Unavailable => self.wait(wall()),
                _ => None,
            };
            StepError {
                retry_after: wait,
                ..StepError::new(kind, format!("{place} {does}: {}", self.status))
            }
        };
        match status {
            200..=299 => Ok(self.response()),
            429 => Err(Trouble::Untouched(error(ErrorKind::RateLimited, "asks to come back later"))),
            401 | 403 => Err(Trouble::Untouched(error(ErrorKind::KeyRefused, "does not accept the key"))),
            425 => Err(Trouble::Untouched(error(ErrorKind::Unavailable, "cannot answer now"))),
            // A proxy answers 503 and 408 too, after the request has gone through.
            408 => Err(Trouble::Lost(error(ErrorKind::Unavailable, "gave up waiting"))),
            500..=599 => Err(Trouble::Lost(error(ErrorKind::Unavailable, "failed"))),
            _ => Err(Trouble::Untouched(error(ErrorKind::Refused, "refuses"))),
        }
    }

    /// The answer as a step's output; free of NUL, which PostgreSQL cannot keep.
    fn response(&self) -> Value {
        let shown = SHOWN.iter().filter_map(|name| Some((name.to_string(), json!(self.header(name)?))));
        json!({
            "status": self.status.as_u16(),
            "headers": shown.collect::<Map<_, _>>(),
            "body": self.content(),
            "truncated": self.truncated,
        })
    }

    fn content(&self) -> Value {
        let kind = self.header(&CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let is_json = kind == "application/json" || kind.ends_with("+json");
        if is_json && !self.truncated {
            if self.body.is_empty() {
                return Value::Null;
            }
            if let Ok(value) = serde_json::from_slice(&self.body) {
                return without_nul(value);
            }
        }
        json!(text_without_nul(&String::from_utf8_lossy(&self.body)))
    }

    /// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.
    fn wait(&self, now: Timestamp) -> Option<Span> {
        let text = self.header(&RETRY_AFTER)?;
        let wait = match text.trim().parse::<u64>() {
            Ok(secs) => Duration::from_secs(secs),
            Err(_) => {
                let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
                Duration::try_from(date.duration_since(now)).unwrap_or_default()
            }
        };
        Some(Span(wait.min(LONGEST_WAIT)))
    }
}

fn text_without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text_without_nul(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nul).collect()),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (text_without_nul(&name), without_nul(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse::<reqwest::header::HeaderValue>().unwrap())
        };
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.iter().map(pair).collect(),
            body: body.to_vec(),
            truncated: false,
        }
    }

    #[test]
    fn a_body_is_json_only_where_it_says_so_and_is_so_and_never_holds_nul() {
        let content = |kind: &str, body: &[u8]| answer(200, &[("content-type", kind)], body).content();
        assert_eq!(
            content("application/json; charset=utf-8", b"{\"a\\u0000\":[\"b\\u0000\"]}"),
            json!({"a\u{fffd}": ["b\u{fffd}"]})
        );
        assert_eq!(content("application/problem+json", b"1"), json!(1));
        assert_eq!(content("application/json", b""), Value::Null);
        assert_eq!(content("application/json", b"{half"), json!("{half"));
        assert_eq!(content("application/json", b"1e999"), json!("1e999"));
        assert_eq!(content("text/plain", b"{}\0\xff"), json!("{}\u{fffd}\u{fffd}"));
    }

    #[test]
    fn a_server_may_ask_for_a_wait_in_seconds_or_by_date_but_not_for_ever() {
        let now: Timestamp = "2026-03-01T09:30:00Z".parse().unwrap();
        let wait = |text: &str| answer(429, &[("retry-after", text)], b"").wait(now);
        assert_eq!(wait("7"), Some(Span::secs(7)));
        assert_eq!(wait("Sun, 01 Mar 2026 09:31:00 GMT"), Some(Span::secs(60)));
        assert_eq!(wait("Sun, 01 Mar 2026 09:00:00 GMT"), Some(Span::secs(0)));
        assert_eq!(wait("99999999"), Some(Span(LONGEST_WAIT)));
        assert_eq!(wait("soon"), None);
    }
}
