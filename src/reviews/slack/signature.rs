//! Slack's signature of a request, version 0: HMAC-SHA256 with the signing secret over
//! `v0:{timestamp}:{body}`, <https://docs.slack.dev/authentication/verifying-requests-from-slack>. It is
//! checked over the raw bytes before anything in them is read.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;

use crate::config::secret::Secret;

/// How far a request may be from now, and for how long a recorded one is accepted, seconds: Slack's advice.
/// Within it a repeated decision meets the first one and changes nothing.
pub const WINDOW_SECS: u64 = 300;

/// Why a signature does not hold. Deliberately vague about how near it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is none.
    #[error("the request has no X-Slack-Request-Timestamp and X-Slack-Signature")]
    Missing,
    /// One of the headers is not in its form.
    #[error("the headers of the signature cannot be read")]
    Malformed,
    /// It was made too long ago, or in the future.
    #[error("the timestamp is more than {WINDOW_SECS} s away from now")]
    Stale,
    /// It was made with another secret or over other bytes.
    #[error("the signature does not belong to this request")]
    Wrong,
}

/// What a request carries beside its body.
#[derive(Clone, Copy, Default, Debug)]
pub struct Proof<'a> {
    /// `X-Slack-Request-Timestamp`.
    pub timestamp: Option<&'a str>,
    /// `X-Slack-Signature`.
    pub signature: Option<&'a str>,
}

impl<'a> Proof<'a> {
    /// Whether it could be one, and is of now: what can be told before the body is read.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn timely(self, now: Timestamp) -> Result<(&'a str, [u8; 32]), SignatureError> {
        let (Some(timestamp), Some(signature)) = (self.timestamp, self.signature) else {
            return Err(SignatureError::Missing);
        };
        // Digits alone: `+1` and ` 1` would be other bytes for the same moment.
        let digits = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let made_at: i64 =
            digits.then(|| timestamp.parse().ok()).flatten().ok_or(SignatureError::Malformed)?;
        let mut given = [0; 32];
        let hexadecimal = signature.strip_prefix("v0=").ok_or(SignatureError::Malformed)?;
        hex::decode_to_slice(hexadecimal, &mut given).map_err(|_| SignatureError::Malformed)?;
        match now.as_second().abs_diff(made_at) > WINDOW_SECS {
            true => Err(SignatureError::Stale),
            false => Ok((timestamp, given)),
        }
    }

    /// Checks it over the raw body at the moment `now`, in constant time.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn verify(self, secret: &Secret, body: &[u8], now: Timestamp) -> Result<(), SignatureError> {
        let (timestamp, given) = self.timely(now)?;
        let mac = mac(secret, timestamp, body).ok_or(SignatureError::Wrong)?;
        mac.verify_slice(&given).map_err(|_| SignatureError::Wrong)
    }
}

/// The `X-Slack-Signature` of a request, for tests that play Slack.
#[must_use]
pub fn sign(secret: &Secret, timestamp: i64, body: &[u8]) -> String {
    let mac = mac(secret, &timestamp.to_string(), body);
    mac.map_or_else(String::new, |mac| format!("v0={}", hex::encode(mac.finalize().into_bytes())))
}

/// HMAC takes keys of any length; an empty one proves nothing.
fn mac(secret: &Secret, timestamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let secret = Some(secret.expose().as_bytes()).filter(|secret| !secret.is_empty())?;
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).ok()?;
    for part in [b"v0:", timestamp.as_bytes(), b":", body] {
        mac.update(part);
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Slack's own documentation.
    const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    const AT: i64 = 1_531_420_618;
    const BODY: &[u8] = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&\
channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&\
text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&\
trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

    fn check(signature: &str, body: &[u8], now: i64) -> Result<(), SignatureError> {
        let proof = Proof { timestamp: Some("1531420618"), signature: Some(signature) };
        proof.verify(&Secret::new(SECRET.into()), body, Timestamp::from_second(now).unwrap())
    }

    #[test]
    fn a_signature_is_the_one_that_slack_publishes() {
        assert_eq!(sign(&Secret::new(SECRET.into()), AT, BODY), SIGNATURE);
        assert_eq!(check(SIGNATURE, BODY, AT), Ok(()));
    }

    #[test]
    fn a_signature_holds_for_its_own_bytes_and_five_minutes() {
        assert_eq!(check(SIGNATURE, b"token=other", AT), Err(SignatureError::Wrong));
        assert_eq!(check(&SIGNATURE.replace("v0=a", "v0=b"), BODY, AT), Err(SignatureError::Wrong));
        assert_eq!(check(SIGNATURE, BODY, AT + 300), Ok(()));
        assert_eq!(check(SIGNATURE, BODY, AT + 301), Err(SignatureError::Stale));
        assert_eq!(check(SIGNATURE, BODY, AT - 301), Err(SignatureError::Stale));
    }

    #[test]
    fn what_is_no_signature_is_refused_before_the_body_is_looked_at() {
        let now = Timestamp::from_second(AT).unwrap();
        assert_eq!(Proof::default().timely(now), Err(SignatureError::Missing));
        for bad in ["", "v0=", "v1=00", "v0=zz", &format!("v0={}", "0".repeat(66))] {
            assert_eq!(check(bad, BODY, AT), Err(SignatureError::Malformed), "{bad}");
        }
        for bad in ["", "+1531420618", " 1531420618", "1531420618.0", "99999999999999999999"] {
            let proof = Proof { timestamp: Some(bad), signature: Some(SIGNATURE) };
            assert_eq!(proof.timely(now), Err(SignatureError::Malformed), "{bad}");
        }
        let empty = Proof { timestamp: Some("1531420618"), signature: Some(SIGNATURE) };
        assert_eq!(empty.verify(&Secret::new(String::new()), BODY, now), Err(SignatureError::Wrong));
    }
}
