//! What Steward itself verified of whoever sent something. A mail's own headers claim anything: where nobody
//! has checked, there is nothing here.

use serde::{Deserialize, Serialize};

/// What Steward verified of the sender of a mail, from the mail's own bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// How: `dmarc` says that the domain of the `From` address vouches for the mail (RFC 7489: an aligned
    /// DKIM signature or SPF result).
    pub by: String,
    /// That domain.
    pub domain: String,
}

impl Verified {
    /// The only way of verifying that counts.
    pub const DMARC: &str = "dmarc";

    /// Whether it is a sender's of this domain.
    #[must_use]
    pub fn is_of(&self, domain: &str) -> bool {
        self.by == Self::DMARC && self.domain.trim_end_matches('.').eq_ignore_ascii_case(domain)
    }
}
