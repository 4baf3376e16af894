//! What stands in links and addresses instead of an acting secret in the database: fresh secrets, kept as
//! digests; and keys that follow from the mail key, so that nothing needs to be kept for them.
//!
//! The address for replies to a review is `NAME+KEY@DOMAIN`. The key names the review (an opaque id) and has
//! 80 bits of an HMAC-SHA-256 over the review, what it is about and whom it was sent to: with any of these
//! changed it is no good. It is written in base32, so that servers which change the case of letters do no harm.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::config::channels::REPLY_NAME;
use crate::config::secret;
use crate::domain::digest::Digest;
use crate::domain::ids::ReviewId;

/// Bytes of the HMAC in an address: 80 bits, for what is tried by sending a mail each time.
const TAG: usize = 10;

/// Characters of a key: 16 bytes and 10 bytes, each in base32.
const KEY: usize = 26 + 16;

/// The longest name that a key fits behind.
pub const NAME: usize = REPLY_NAME;

/// RFC 4648, section 6, in small letters.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What is kept of a link's secret; none for what cannot be one.
#[must_use]
pub fn kept(text: &str) -> Option<Digest> {
    let sound = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    sound.then(|| secret::kept(text))
}

/// The key of what follows from it.
#[derive(Clone)]
pub struct MailKey([u8; 32]);

impl MailKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn over(&self, parts: &[&[u8]]) -> Option<[u8; 32]> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).ok()?;
        mac.update(&Digest::of_parts(parts).0);
        Some(mac.finalize().into_bytes().into())
    }

    fn tag(&self, review: ReviewId, about: Digest, approver: &str) -> Option<[u8; TAG]> {
        let whole = self.over(&[b"reply", review.0.as_bytes(), &about.0, approver.as_bytes()])?;
        let mut tag = [0; TAG];
        tag.copy_from_slice(&whole[..TAG]);
        Some(tag)
    }

    /// What ends the digest for `address`, as text.
    #[must_use]
    pub fn unsubscribe(&self, address: &str) -> Option<String> {
        self.over(&[b"digest", address.as_bytes()]).map(hex::encode)
    }

    /// Whether `token` is what ends the digest for `address`, in constant time.
    #[must_use]
    pub fn ends_digest(&self, token: &str, address: &str) -> bool {
        self.unsubscribe(address).is_some_and(|right| bool::from(right.as_bytes().ct_eq(token.as_bytes())))
    }
}

/// The address that replies come to, before a key is put in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplyAddress {
    name: String,
    domain: String,
}

/// What an address for replies claims to be about; [`Claim::holds`] tells whether it is true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The review.
    pub review: ReviewId,
    tag: [u8; TAG],
}

impl ReplyAddress {
    /// From the address of the settings; none when no key fits behind its name.
    #[must_use]
    pub fn parse(address: &str) -> Option<Self> {
        let (name, domain) = address.rsplit_once('@')?;
        let fits = !name.is_empty() && name.len() <= NAME && !name.contains('+') && !name.contains('"');
        fits.then(|| Self { name: name.to_owned(), domain: domain.to_lowercase() })
    }

    /// The address for replies of `approver` about a review.
    #[must_use]
    pub fn of(&self, key: &MailKey, review: ReviewId, about: Digest, approver: &str) -> Option<String> {
        let tag = key.tag(review, about, approver)?;
        let key = base32(review.0.as_bytes()) + &base32(&tag);
        Some(format!("{}+{key}@{}", self.name, self.domain))
    }

    /// What stands behind the plus, if the address is one for replies.
    #[must_use]
    pub fn key_in<'a>(&self, address: &'a str) -> Option<&'a str> {
        let (local, domain) = address.rsplit_once('@')?;
        let (name, key) = local.split_once('+')?;
        let ours = name.eq_ignore_ascii_case(&self.name) && domain.eq_ignore_ascii_case(&self.domain);
        ours.then_some(key)
    }
}

impl Claim {
    /// Reads a key; none for what cannot be one.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let key = key.to_ascii_lowercase();
        if key.len() != KEY || !key.is_ascii() {
            return None;
        }
        let (review, tag) = key.split_at(26);
        let review = Uuid::from_bytes(unbase32(review)?.try_into().ok()?);
        Some(Self { review: ReviewId(review), tag: unbase32(tag)?.try_into().ok()? })
    }

    /// Whether Steward wrote it to `approver` about just this, in constant time.
    #[must_use]
    pub fn holds(&self, key: &MailKey, about: Digest, approver: &str) -> bool {
        key.tag(self.review, about, approver).is_some_and(|right| bool::from(right.ct_eq(&self.tag)))
    }
}

fn base32(bytes: &[u8]) -> String {
    let (mut out, mut held, mut bits) = (String::new(), 0u32, 0);
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xffff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(ALPHABET[(held >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        out.push(char::from(ALPHABET[(held << (5 - bits) & 31) as usize]));
    }
    out
}

/// The bytes of a base32 text; none when it has another spelling than [`base32`] gives.
fn unbase32(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for byte in text.bytes() {
        let five = ALPHABET.iter().position(|letter| *letter == byte)?;
        held = (held << 5 | u32::try_from(five).ok()?) & 0xffff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    (base32(&out) == text).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> MailKey {
        MailKey::new([7; 32])
    }

    fn address() -> ReplyAddress {
        ReplyAddress::parse("steward@harbour.example").unwrap()
    }

    #[test]
    fn an_address_for_replies_fits_into_64_characters_whatever_the_name() {
        let longest = ReplyAddress::parse(&format!("{}@x.example", "n".repeat(NAME))).unwrap();
        let full = longest.of(&key(), ReviewId(Uuid::now_v7()), Digest::ZERO, "o@x.example").unwrap();
        assert_eq!(full.split('@').next().unwrap().len(), 64);
        assert_eq!(ReplyAddress::parse(&format!("{}@x.example", "n".repeat(NAME + 1))), None);
    }

    #[test]
    fn a_key_holds_for_its_review_its_draft_and_its_approver_alone() {
        let review = ReviewId(Uuid::now_v7());
        let (about, other) = (Digest::of_bytes(b"a"), Digest::of_bytes(b"b"));
        let full = address().of(&key(), review, about, "o@x.example").unwrap();
        let claim = |text: &str| Claim::parse(address().key_in(text)?);
        let read = claim(&full.to_uppercase()).unwrap(); // servers may change the case
        assert_eq!(read.review, review);
        assert!(read.holds(&key(), about, "o@x.example"));
        assert!(!read.holds(&key(), other, "o@x.example"));
        assert!(!read.holds(&key(), about, "p@x.example"));
        assert!(!read.holds(&MailKey::new([8; 32]), about, "o@x.example"));
        // The key of one review with the name of another.
        let another = address().of(&key(), ReviewId(Uuid::now_v7()), about, "o@x.example").unwrap();
        let mixed = another[..8 + 26].to_owned() + &full[8 + 26..];
        assert!(!claim(&mixed).unwrap().holds(&key(), about, "o@x.example"));
        for other in ["steward@harbour.example", "x+a@harbour.example", "steward+a@else.example"] {
            assert_eq!(address().key_in(other), None, "{other}");
        }
    }

    #[test]
    fn a_link_is_64_hexadecimal_digits_and_what_is_kept_is_not_it() {
        let secret = secret::fresh();
        assert_ne!(kept(&secret).unwrap().to_string(), secret);
        assert_ne!(secret::fresh(), secret);
        for bad in ["", "x", &secret[1..], &format!("{secret}0"), &secret.to_uppercase().replace('0', "A")] {
            assert!(kept(bad).is_none() || bad.len() == 64 && bad.bytes().all(|b| b.is_ascii_digit()));
        }
    }

    #[test]
    fn the_digest_ends_for_the_address_it_was_sent_to() {
        let token = key().unsubscribe("o@x.example").unwrap();
        assert!(key().ends_digest(&token, "o@x.example"));
        assert!(!key().ends_digest(&token, "p@x.example") && !key().ends_digest("", "o@x.example"));
    }

    proptest! {
        #[test]
        fn base32_goes_there_and_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unbase32(&base32(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_behind_the_plus_is_taken_for_a_key_by_accident(text in ".{0,80}") {
            if let Some(claim) = Claim::parse(&text) {
                prop_assert!(!claim.holds(&key(), Digest::ZERO, "o@x.example"));
            }
        }
    }
}
