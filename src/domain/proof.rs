//! Who a mail verifiably comes from.

use crate::domain::digest::Digest;

/// A signature (DKIM, RFC 6376) over a mail, of the domain in its `From` or of one that the domain's owner lets
/// speak for it (DMARC). It says that the domain's mail server sent just these words; not that they are true.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    /// The domain in `From`, in lower case.
    pub domain: String,
    /// The headers that the signature covers, in lower case. Others may have been changed on the way.
    pub covers: Vec<String>,
    /// SHA-256 of the signature: the same mail again has the same.
    pub fingerprint: Digest,
}

impl Proof {
    /// Whether it covers the header of that name (in lower case).
    #[must_use]
    pub fn covers(&self, header: &str) -> bool {
        self.covers.iter().any(|covered| covered == header)
    }
}
