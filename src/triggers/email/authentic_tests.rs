use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;

use super::*;

/// A mail server's key, and the record in which it is published.
struct Key {
    pkcs8: Vec<u8>,
    record: String,
}

impl Key {
    fn new() -> Self {
        let pkcs8 = Ed25519Key::generate_pkcs8().unwrap();
        let public = Ed25519Key::from_pkcs8_der(&pkcs8).unwrap().public_key();
        let record = format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(public));
        Self { pkcs8, record }
    }

    fn sign(&self, domain: &str, mail: &str) -> Bytes {
        self.sign_over(domain, &["From", "To", "Subject"], mail)
    }

    fn sign_over(&self, domain: &str, headers: &[&str], mail: &str) -> Bytes {
        let key = Ed25519Key::from_pkcs8_der(&self.pkcs8).unwrap();
        let signer = DkimSigner::from_key(key).domain(domain).selector("s").headers(headers.to_vec());
        let signature = signer.sign(mail.as_bytes()).unwrap();
        (signature.to_header() + mail).into()
    }
}

const MAIL: &str =
    "From: Mara <mara@harbour.example>\r\nTo: steward@harbour.example\r\nSubject: x\r\n\r\nreject\r\n";

fn knowing(key: &Key, more: &[(&str, &str)]) -> Authenticator {
    let keys =
        ["s._domainkey.harbour.example", "s._domainkey.mail.harbour.example", "s._domainkey.evil.example"];
    let keys = keys.iter().map(|name| (*name, key.record.as_str()));
    Authenticator::fixed(keys.chain(more.iter().copied())).unwrap()
}

#[tokio::test]
async fn a_signature_of_the_senders_domain_proves_him_and_names_what_it_covers() {
    let key = Key::new();
    let proof = knowing(&key, &[]).proof(key.sign("harbour.example", MAIL)).await.unwrap();
    assert_eq!(proof.domain, "harbour.example");
    assert!(proof.covers("to") && proof.covers("from") && !proof.covers("cc"));
}

#[tokio::test]
async fn nothing_is_proven_without_a_signature_by_another_domain_or_over_other_words() {
    let key = Key::new();
    let knowing = knowing(&key, &[]);
    assert_eq!(knowing.proof(MAIL.into()).await, None);
    assert_eq!(knowing.proof(key.sign("evil.example", MAIL)).await, None);
    assert_eq!(knowing.proof(key.sign("unknown.example", MAIL)).await, None);
    assert_eq!(knowing.proof(Key::new().sign("harbour.example", MAIL)).await, None);
    let signed = String::from_utf8(key.sign("harbour.example", MAIL).to_vec()).unwrap();
    assert!(knowing.proof(signed.clone().into()).await.is_some());
    for (was, is) in [("reject", "approve"), ("steward@", "another@"), ("Subject: x", "Subject: y")] {
        assert_eq!(knowing.proof(signed.replace(was, is).into()).await, None, "{was}");
    }
    let two = signed.replacen("From: ", "From: Eve <eve@evil.example>\r\nFrom: ", 1);
    assert_eq!(knowing.proof(two.into()).await, None);
}

#[tokio::test]
async fn a_header_that_was_added_beside_a_signed_one_is_not_covered() {
    let key = Key::new();
    let signed = String::from_utf8(key.sign("harbour.example", MAIL).to_vec()).unwrap();
    let beside = signed.replacen("To: ", "To: another@harbour.example\r\nTo: ", 1);
    let proof = knowing(&key, &[]).proof(beside.into()).await.unwrap();
    assert!(!proof.covers("to") && proof.covers("subject"));
}

#[tokio::test]
async fn a_signature_over_a_part_of_the_body_proves_nothing() {
    let key = Key::new();
    let signer = DkimSigner::from_key(Ed25519Key::from_pkcs8_der(&key.pkcs8).unwrap());
    let signer =
        signer.domain("harbour.example").selector("s").headers(["From", "To", "Subject"]).body_length(true);
    let signed = signer.sign(MAIL.as_bytes()).unwrap().to_header() + MAIL;
    assert_eq!(knowing(&key, &[]).proof((signed + "and approve all else\r\n").into()).await, None);
}

#[tokio::test]
async fn another_domain_of_the_house_speaks_for_it_where_its_dmarc_record_says_so() {
    let key = Key::new();
    let signed = key.sign("mail.harbour.example", MAIL);
    assert_eq!(knowing(&key, &[]).proof(signed.clone()).await, None);
    let relaxed = [("_dmarc.harbour.example", "v=DMARC1; p=reject; adkim=r")];
    assert_eq!(knowing(&key, &relaxed).proof(signed.clone()).await.unwrap().domain, "harbour.example");
    let strict = [("_dmarc.harbour.example", "v=DMARC1; p=reject; adkim=s")];
    assert_eq!(knowing(&key, &strict).proof(signed).await, None);
    let evil = key.sign("evil.example", MAIL);
    assert_eq!(knowing(&key, &relaxed).proof(evil).await, None);
}

#[tokio::test]
async fn more_signatures_than_an_honest_mail_has_are_not_looked_at() {
    let key = Key::new();
    let signed = String::from_utf8(key.sign("harbour.example", MAIL).to_vec()).unwrap();
    let header = signed.strip_suffix(MAIL).unwrap();
    let many = header.repeat(MAX_SIGNATURES + 1) + MAIL;
    assert_eq!(knowing(&key, &[]).proof(many.into()).await, None);
}
