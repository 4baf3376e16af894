//! The secrets of sign-in links and sessions bear a seal: part of an HMAC (RFC 2104) under a key that follows
//! from the workspace's token. Whether one was made here is told by looking at it alone, so that whoever makes
//! secrets up, from wherever and however many, costs no query and takes nobody's turn.
//!
//! What bears no seal is looked up too, but only so often in all: it may be of a Steward in another folder, or
//! of a time before the token was replaced.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::api::problem::{Kind, Problem};
use crate::config::secret::{Secret, fresh};
use crate::domain::digest::Digest;

/// Characters of what is drawn: 256 bits.
const DRAWN: usize = 64;

/// Bytes of the seal: 128 bits, for what lets nobody in by itself.
const SEAL: usize = 16;

/// Secrets without a seal that are looked up in a row, found or not.
const LOOKS: f64 = 20.0;

/// Seconds after which one more is looked up.
const LOOK_EVERY: f64 = 3.0;

/// Makes secrets, and bounds how often those of others are looked up.
pub struct Sealer {
    key: Digest,
    /// How many are left, as of when.
    left: Mutex<(f64, Instant)>,
}

impl Sealer {
    /// For the processes that share this token.
    #[must_use]
    pub fn new(token: &Secret) -> Self {
        let key = Digest::of_parts(&[b"steward sign-in", token.expose().as_bytes()]);
        Self { key, left: Mutex::new((LOOKS, Instant::now())) }
    }

    /// A fresh secret of 256 bits, as text, with its seal.
    #[must_use]
    pub fn fresh(&self) -> String {
        let drawn = fresh();
        let seal = self.over(&drawn).map(|mac| mac.finalize().into_bytes());
        let seal = seal.map_or_else(String::new, |seal| hex::encode(&seal[..SEAL]));
        format!("{drawn}{seal}")
    }

    /// Whether a secret bears our seal, in constant time. Whether it is good, the database knows.
    #[must_use]
    pub fn is_ours(&self, secret: &str) -> bool {
        let Some((drawn, seal)) = secret.split_at_checked(DRAWN) else { return false };
        let mut given = [0; SEAL];
        hex::decode_to_slice(seal, &mut given).is_ok()
            && self.over(drawn).is_some_and(|mac| mac.verify_truncated_left(&given).is_ok())
    }

    /// Lets a secret be looked up: one of ours always, others only so often.
    ///
    /// # Errors
    /// 429 when others came too often: this one is not looked up.
    pub fn may_look(&self, secret: &str) -> Result<(), Problem> {
        if self.is_ours(secret) {
            return Ok(());
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let many = (left.0 + now.duration_since(left.1).as_secs_f64() / LOOK_EVERY).min(LOOKS);
        let may = many >= 1.0;
        *left = (if may { many - 1.0 } else { many }, now);
        match may {
            true => Ok(()),
            false => Err(Problem::new(Kind::Busy, "too many sign-ins failed; try again in a moment")),
        }
    }

    /// A secret was good: that it was looked up does not count.
    pub fn was_good(&self, secret: &str) {
        if !self.is_ours(secret) {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.0 = (left.0 + 1.0).min(LOOKS);
        }
    }

    /// HMAC takes keys of any length.
    fn over(&self, drawn: &str) -> Option<Hmac<Sha256>> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.key.0).ok()?;
        mac.update(drawn.as_bytes());
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(token: &str) -> Sealer {
        Sealer::new(&Secret::new(token.into()))
    }

    #[test]
    fn a_secret_is_known_by_whoever_shares_the_token_and_any_change_of_it_is_not() {
        let ours = sealer("a");
        let secret = ours.fresh();
        assert!(ours.is_ours(&secret) && sealer("a").is_ours(&secret) && !sealer("b").is_ours(&secret));
        assert_ne!(secret, ours.fresh());
        for at in 0..secret.len() {
            let other = if &secret[at..=at] == "0" { "1" } else { "0" };
            let changed = format!("{}{other}{}", &secret[..at], &secret[at + 1..]);
            assert!(!ours.is_ours(&changed), "{changed}");
        }
        let longer = format!("{secret}00");
        for wrong in ["", "x", &secret[..DRAWN], &secret[..secret.len() - 2], &longer, &"é".repeat(48)] {
            assert!(!ours.is_ours(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_others_make_up_is_bounded_and_ours_is_looked_up_all_the_same() {
        let ours = sealer("a");
        let mine = ours.fresh();
        let looked = (0..100).filter(|_| ours.may_look("guess").is_ok()).count();
        assert!((LOOKS as usize..LOOKS as usize + 5).contains(&looked), "{looked}");
        assert!((0..100).all(|_| ours.may_look(&mine).is_ok()));
        // What turns out to be good was no guess, whoever made it.
        ours.was_good("another Steward's");
        assert!(ours.may_look("another Steward's").is_ok());
    }
}
