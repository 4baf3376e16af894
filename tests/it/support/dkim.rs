//! Mail signed as the sender's own server signs it, and what its records say.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;

/// A mail server's key.
pub struct Signer {
    pkcs8: Vec<u8>,
}

impl Signer {
    pub fn new() -> Self {
        Self { pkcs8: Ed25519Key::generate_pkcs8().unwrap() }
    }

    /// The TXT record in which it is published.
    pub fn record(&self) -> String {
        let public = Ed25519Key::from_pkcs8_der(&self.pkcs8).unwrap().public_key();
        format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(public))
    }

    /// The mail with a signature of `domain` above it, over these headers and the whole body.
    pub fn sign(&self, domain: &str, headers: &[&str], mail: &str) -> String {
        let key = Ed25519Key::from_pkcs8_der(&self.pkcs8).unwrap();
        let signer = DkimSigner::from_key(key).domain(domain).selector("s").headers(headers.to_vec());
        signer.sign(mail.as_bytes()).unwrap().to_header() + mail
    }
}
