//! Signed JSON from other systems. The signature is checked over the raw bytes before anything in
//! them is read.
//!
//! A sender writes `X-Steward-Timestamp: <seconds since 1970>` and
//! `X-Steward-Signature: sha256=<hex>`, where the signature is HMAC-SHA256 (RFC 2104) with the
//! shared secret over `{timestamp}.{body}`, or over `{timestamp}.{key}.{body}` when it also sends
//! an `Idempotency-Key`: a key outside the signature would let a recorded request open a run
//! anew under another key.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde_json::Value;
use sha2::Sha256;

use crate::config::secret::{Secret, SecretRef};
use crate::config::workspace::{Definitions, Trigger};
use crate::domain::digest::Digest;
use crate::domain::gather::Gather;
use crate::domain::ids::WorkflowName;
use crate::domain::label::Label;
use crate::orchestrator::door::{Door, OpenError, Request};
use crate::triggers::gather::{self, Taken};

/// How far a sender's clock may be from ours, and for how long a recorded request is accepted, seconds.
/// Within it a repeated request meets its own key and opens nothing.
pub const WINDOW_SECS: i64 = 300;

/// The longest idempotency key, characters.
pub const MAX_KEY: usize = 200;

/// What a request carries beside its body.
#[derive(Clone, Copy, Default, Debug)]
pub struct Signature<'a> {
    /// `X-Steward-Timestamp`.
    pub timestamp: Option<&'a str>,
    /// `X-Steward-Signature`.
    pub signature: Option<&'a str>,
    /// `Idempotency-Key`.
    pub key: Option<&'a str>,
}

impl<'a> Signature<'a> {
    /// What can be told before the body is there: that it is in its form, and made around `now`. Gives the
    /// moment as it was written, and the bytes of the signature.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn timely(self, now: Timestamp) -> Result<(&'a str, [u8; 32]), SignatureError> {
        let (Some(timestamp), Some(signature)) = (self.timestamp, self.signature) else {
            return Err(SignatureError::Missing);
        };
        let made_at = seconds(timestamp).ok_or(SignatureError::Malformed)?;
        let mut given = [0; 32];
        let digits = signature.strip_prefix("sha256=").ok_or(SignatureError::Malformed)?;
        hex::decode_to_slice(digits, &mut given).map_err(|_| SignatureError::Malformed)?;
        match now.as_second().abs_diff(made_at) > WINDOW_SECS.unsigned_abs() {
            true => Err(SignatureError::Stale),
            false => Ok((timestamp, given)),
        }
    }
}

/// Why a signature does not hold. Deliberately vague about how near it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is none.
    #[error("the request has no X-Steward-Timestamp and X-Steward-Signature")]
    Missing,
    /// One of the headers is not in its form.
    #[error(
        "write X-Steward-Timestamp as seconds since 1970 and X-Steward-Signature as sha256=<64 hex digits>"
    )]
    Malformed,
    /// It was made too long ago, or in the future.
    #[error("the timestamp is more than {WINDOW_SECS} s away from now")]
    Stale,
    /// It was made with another secret or over other bytes.
    #[error("the signature does not belong to this request")]
    Wrong,
}

/// Why a webhook opened no run.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Nobody listens there.
    #[error("there is no hook `{0}`")]
    Unknown(String),
    /// The owner has not set the secret.
    #[error("this hook has no secret yet; its owner has to set one")]
    NoSecret,
    /// The sender did not prove who it is.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The key is not usable.
    #[error("an Idempotency-Key has 1 to {MAX_KEY} letters, digits, `-`, `_` or `:`")]
    BadKey,
    /// The body is not a JSON object.
    #[error("the body is not a JSON object: {0}")]
    BadBody(String),
    /// The run was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A request to `/hooks/PATH` of which nothing but the body is missing.
pub struct Hook<'a> {
    path: &'a str,
    listener: Listener<'a>,
    secret: Secret,
    proof: Signature<'a>,
    now: Timestamp,
}

impl<'a> Hook<'a> {
    /// Takes what stands in a request's headers at the moment `now`: what is refused for them needs no body.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub fn knock(
        definitions: &'a Definitions,
        path: &'a str,
        proof: Signature<'a>,
        now: Timestamp,
    ) -> Result<Self, WebhookError> {
        proof.timely(now)?;
        if proof.key.is_some_and(|key| !is_key(key)) {
            return Err(WebhookError::BadKey);
        }
        let listener = listener(definitions, path).ok_or_else(|| WebhookError::Unknown(path.to_owned()))?;
        let Some(secret) = listener.1.resolve() else {
            let place = listener.1.place();
            tracing::error!(path, place, "a webhook came in, but its secret is not set");
            return Err(WebhookError::NoSecret);
        };
        Ok(Self { path, listener, secret, proof, now })
    }

    /// Opens the run of the workflow that listens there, or gathers the request for one.
    ///
    /// # Errors
    /// See [`WebhookError`]; nothing was opened then.
    pub async fn open(self, door: &Door, body: &[u8]) -> Result<Taken, WebhookError> {
        let Self { path, listener: (workflow, _, gather), secret, proof, now } = self;
        verify(&secret, proof, body, now)?;
        let key = match proof.key {
            Some(key) => key.to_owned(),
            // The same event may come again next month; a repetition of this very request may not.
            None => format!("{}:{}", proof.timestamp.unwrap_or_default(), Digest::of_bytes(body)),
        };
        let input = object(body)?;
        let request = Request {
            workflow: workflow.clone(),
            input,
            label: Label::Untrusted,
            trigger: "webhook",
            key: Some(format!("hook:{path}:{key}")),
            verified: None,
        };
        Ok(gather::take(door, request, &format!("webhook:{path}"), gather).await?)
    }
}

/// The workflow, its secret, and what it waits for.
type Listener<'a> = (&'a WorkflowName, &'a SecretRef, Option<&'a Gather>);

fn listener<'a>(definitions: &'a Definitions, wanted: &str) -> Option<Listener<'a>> {
    definitions.workflows.iter().find_map(|(name, definition)| {
        definition.triggers.iter().find_map(|trigger| match trigger {
            Trigger::Webhook { path, secret, gather } if path == wanted => {
                Some((name, secret, gather.as_ref()))
            }
            Trigger::Webhook { .. } | Trigger::Email { .. } | Trigger::Schedule { .. } => None,
        })
    })
}

/// Only an object: its first character keeps a signed key and a signed body apart.
fn object(body: &[u8]) -> Result<Value, WebhookError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(Value::Object(map)),
        Ok(_) => Err(WebhookError::BadBody("it is another kind of value".into())),
        Err(error) => Err(WebhookError::BadBody(error.to_string())),
    }
}

fn is_key(key: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:".contains(&byte);
    (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(allowed)
}

/// Checks a signature over the raw body at the moment `now`, in constant time.
///
/// # Errors
/// See [`SignatureError`].
pub fn verify(
    secret: &Secret,
    proof: Signature<'_>,
    body: &[u8],
    now: Timestamp,
) -> Result<(), SignatureError> {
    let (timestamp, given) = proof.timely(now)?;
    let mac = mac(secret, timestamp, proof.key, body).ok_or(SignatureError::Wrong)?;
    mac.verify_slice(&given).map_err(|_| SignatureError::Wrong)
}

/// The `X-Steward-Signature` of a request, for senders written in Rust and for tests.
#[must_use]
pub fn sign(secret: &Secret, timestamp: i64, key: Option<&str>, body: &[u8]) -> String {
    let mac = mac(secret, &timestamp.to_string(), key, body);
    mac.map_or_else(String::new, |mac| format!("sha256={}", hex::encode(mac.finalize().into_bytes())))
}

/// HMAC takes keys of any length; an empty one proves nothing.
fn mac(secret: &Secret, timestamp: &str, key: Option<&str>, body: &[u8]) -> Option<Hmac<Sha256>> {
    let secret = Some(secret.expose().as_bytes()).filter(|secret| !secret.is_empty())?;
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).ok()?;
    for part in std::iter::once(timestamp).chain(key) {
        mac.update(part.as_bytes());
        mac.update(b".");
    }
    mac.update(body);
    Some(mac)
}

/// Digits alone: `+1` and ` 1` would be other bytes for the same moment.
fn seconds(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"order": 1}"#;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn secret() -> Secret {
        Secret::new("s3cret".into())
    }

    fn check(key: Option<&str>, signature: &str, body: &[u8], now: i64) -> Result<(), SignatureError> {
        let proof = Signature { timestamp: Some("1000000"), signature: Some(signature), key };
        verify(&secret(), proof, body, at(now))
    }

    #[test]
    fn a_signature_is_the_published_hmac_over_timestamp_and_body() {
        // printf '1000000.{"order": 1}' | openssl dgst -sha256 -hmac s3cret
        let known = "sha256=56a957e263c6258a0954f0112f283b2d7ff6469449faa14a3a4aec4980487552";
        assert_eq!(sign(&secret(), 1_000_000, None, BODY), known);
        assert_eq!(check(None, known, BODY, 1_000_000), Ok(()));
    }

    #[test]
    fn a_signature_holds_for_its_own_bytes_alone() {
        let signature = sign(&secret(), 1_000_000, None, BODY);
        assert_eq!(check(None, &signature, br#"{"order": 2}"#, 1_000_000), Err(SignatureError::Wrong));
        let other = sign(&Secret::new("other".into()), 1_000_000, None, BODY);
        assert_eq!(check(None, &other, BODY, 1_000_000), Err(SignatureError::Wrong));
    }

    #[test]
    fn a_recorded_request_cannot_be_sent_again_under_another_key_or_after_five_minutes() {
        let signature = sign(&secret(), 1_000_000, Some("k1"), BODY);
        assert_eq!(check(Some("k1"), &signature, BODY, 1_000_300), Ok(()));
        assert_eq!(check(Some("k2"), &signature, BODY, 1_000_000), Err(SignatureError::Wrong));
        assert_eq!(check(None, &signature, BODY, 1_000_000), Err(SignatureError::Wrong));
        assert_eq!(check(Some("k1"), &signature, BODY, 1_000_301), Err(SignatureError::Stale));
        assert_eq!(check(Some("k1"), &signature, BODY, 999_699), Err(SignatureError::Stale));
    }

    #[test]
    fn a_request_without_a_signature_is_refused_and_so_is_one_that_has_none_of_its_form() {
        assert_eq!(verify(&secret(), Signature::default(), BODY, at(0)), Err(SignatureError::Missing));
        for signature in ["", "sha256=", "sha1=00", "sha256=zz", &format!("sha256={}", "0".repeat(66))] {
            assert_eq!(
                check(None, signature, BODY, 1_000_000),
                Err(SignatureError::Malformed),
                "{signature}"
            );
        }
        let proof = Signature { timestamp: Some("+1000000"), signature: Some("sha256="), key: None };
        assert_eq!(verify(&secret(), proof, BODY, at(1_000_000)), Err(SignatureError::Malformed));
    }

    #[test]
    fn an_empty_secret_verifies_nothing() {
        let empty = Secret::new(String::new());
        let signature = format!("sha256={}", "0".repeat(64));
        let proof = Signature { timestamp: Some("1000000"), signature: Some(&signature), key: None };
        assert_eq!(verify(&empty, proof, BODY, at(1_000_000)), Err(SignatureError::Wrong));
    }

    #[test]
    fn a_key_has_no_dot_and_a_body_is_an_object_so_that_neither_passes_for_the_other() {
        assert!(is_key("order-17:a_B"));
        assert!(!is_key("a.b") && !is_key("") && !is_key(&"k".repeat(MAX_KEY + 1)));
        assert!(object(b"[1]").is_err() && object(b"1.5").is_err() && object(b"{").is_err());
        assert!(object(BODY).is_ok());
    }
}
