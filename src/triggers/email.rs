//! A raw email into the input of a run: pure, no I/O, never a panic, bounded work.
//!
//! | where | what |
//! |---|---|
//! | [`parse`] | raw bytes in, [`Email`] or a precise [`EmailError`] out |
//! | [`authentic`] | whether a message comes from the domain that it names; asks the name service |
//! | `headers` | one entity split into headers and content; typed header access |
//! | `mime` | the walk over the parts: which text is the body, what is attached |
//! | `html` | an HTML part as the text a reader sees |
//! | `text` | characters that never enter Steward, and cuts at a limit |
//!
//! `mail-parser` reads headers, transfer encodings and charsets. The part tree is walked here,
//! because its own tree is as deep and as wide as the sender likes: nesting a message in itself a
//! few hundred thousand times fits into a mail of ordinary size and overflows the stack when such
//! a tree is dropped.

pub mod authentic;
mod headers;
mod html;
mod mime;
mod text;

#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;

use headers::Headers;

/// The largest raw message accepted, bytes: 25 MiB is what large mail providers accept.
pub const MAX_EMAIL: usize = 25 * 1024 * 1024;
/// The longest body kept, characters: some thirty pages, more than a model should read of one email.
pub const MAX_BODY: usize = 100_000;
/// The longest subject kept, characters: the longest line RFC 5322 allows.
pub const MAX_SUBJECT: usize = 998;
/// The longest name of a person or file kept, characters.
pub const MAX_NAME: usize = 200;
/// The most addresses kept of each header.
pub const MAX_ADDRESSES: usize = 100;
/// The most attachments listed.
pub const MAX_ATTACHMENTS: usize = 100;
/// The longest address accepted, bytes: 64 before the sign and 255 after it (RFC 5321).
const MAX_ADDRESS: usize = 320;
/// The longest message id taken as it is, bytes: several times the usual ones, and short enough for every key made from it.
const MAX_ID: usize = 250;

/// One email, decoded, as a workflow sees it. Everything in it is the sender's claim: untrusted.
///
/// No string holds U+0000, a control character (the body keeps newline and tab) or a character
/// that has no width or turns the reading direction; see `text`.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub struct Email {
    /// The `Message-ID` without brackets. Missing or unusable, `sha256-<hex>@missing.invalid` over
    /// the raw bytes, so that the same bytes are still the same email.
    pub message_id: String,
    /// The first of `References`, else of `In-Reply-To`, else the message id.
    pub thread: String,
    /// The first sender's bare address, its domain in lower case.
    pub from: String,
    /// The sender's display name.
    pub from_name: Option<String>,
    /// The address answers are to go to, when the sender names one.
    pub reply_to: Option<String>,
    /// Bare addresses, at most [`MAX_ADDRESSES`].
    pub to: Vec<String>,
    /// Bare addresses, at most [`MAX_ADDRESSES`].
    pub cc: Vec<String>,
    /// One line, at most [`MAX_SUBJECT`] characters; empty when missing.
    pub subject: String,
    /// The sender's date in RFC 3339 with the sender's offset; none when missing or impossible.
    pub date: Option<String>,
    /// The text parts, or where there are none the HTML parts as text; lines end with LF.
    pub body: String,
    /// True when text was left out: beyond [`MAX_BODY`] characters or too many parts.
    pub body_truncated: bool,
    /// At most [`MAX_ATTACHMENTS`], in the order they stand.
    pub attachments: Vec<Attachment>,
    /// A machine wrote it (RFC 3834, bulk precedence, bounces): never answer it by itself.
    pub auto: bool,
    /// It came through a mailing list or is a newsletter.
    pub list: bool,
}

/// What is known of an attachment; its bytes are not kept here.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub struct Attachment {
    /// The file name without folders, `unnamed` when missing.
    pub name: String,
    /// `type/subtype` in lower case, as the sender declares it.
    pub media_type: String,
    /// The decoded size, bytes.
    pub bytes: usize,
    /// SHA-256 of the decoded bytes, hex.
    pub sha256: String,
}

/// Why bytes are not an email that can open a run. Sending the same bytes again never helps.
#[derive(Error, Clone, Debug, PartialEq, Eq)]
pub enum EmailError {
    /// Refused before anything is parsed.
    #[error("the email has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// The size of the raw message, bytes.
        bytes: usize,
        /// [`MAX_EMAIL`].
        limit: usize,
    },
    /// No bytes, or only white space.
    #[error("the email is empty")]
    Empty,
    /// The bytes are something else.
    #[error("this is not an email: {why}")]
    NotAnEmail {
        /// What is missing.
        why: &'static str,
    },
    /// There is a `From` header, but no address in it to answer to.
    #[error("the email's From header has no usable address")]
    NoSender,
}

/// Reads a raw RFC 5322 message, with or without CRLF, also with an mbox `From ` line above it.
///
/// # Errors
/// [`EmailError`] when the bytes are too many or are no email with a sender. A missing body,
/// subject, date or recipient is no error, nor is broken MIME: what can be read is read.
pub fn parse(raw: &[u8]) -> Result<Email, EmailError> {
    if raw.len() > MAX_EMAIL {
        return Err(EmailError::TooLarge { bytes: raw.len(), limit: MAX_EMAIL });
    }
    let message = without_envelope(raw);
    if message.is_empty() {
        return Err(EmailError::Empty);
    }
    let (headers, _) = headers::split(message);
    if headers.is_empty() {
        return Err(EmailError::NotAnEmail { why: "it has no header" });
    }
    if !headers.has("From") {
        return Err(EmailError::NotAnEmail { why: "it has no From header" });
    }
    let (from, from_name) = headers.mailboxes("From").next().ok_or(EmailError::NoSender)?;

    let message_id = headers.ids("Message-ID").next().unwrap_or_else(|| digest_id(raw));
    let thread = headers.ids("References").chain(headers.ids("In-Reply-To")).next();
    let content = mime::read(message);
    let (body, cut) = text::body(&content.text);

    Ok(Email {
        thread: thread.unwrap_or_else(|| message_id.clone()),
        message_id,
        from,
        from_name,
        reply_to: addresses(&headers, "Reply-To").into_iter().next(),
        to: addresses(&headers, "To"),
        cc: addresses(&headers, "Cc"),
        subject: text::line(&headers.text("Subject").unwrap_or_default(), MAX_SUBJECT),
        date: headers.date("Date"),
        body,
        body_truncated: cut || content.truncated,
        attachments: content.attachments,
        auto: is_auto(&headers),
        list: headers.has("List-Id") || headers.has("List-Unsubscribe"),
    })
}

/// Drops what stands before the headers in files that people save: a byte order mark, blank
/// lines, an mbox separator.
fn without_envelope(raw: &[u8]) -> &[u8] {
    let raw = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw).trim_ascii_start();
    if !raw.starts_with(b"From ") {
        return raw;
    }
    raw.iter().position(|&byte| byte == b'\n').map_or(&[], |end| &raw[end + 1..])
}

fn digest_id(raw: &[u8]) -> String {
    format!("sha256-{}@missing.invalid", hex::encode(Sha256::digest(raw)))
}

fn addresses(headers: &Headers, name: &str) -> Vec<String> {
    headers.mailboxes(name).map(|(address, _)| address).take(MAX_ADDRESSES).collect()
}

/// RFC 3834 section 2, and the older habits it names: answering these makes mail loops.
fn is_auto(headers: &Headers) -> bool {
    let says = |name: &str| headers.text(name).map(|value| value.trim().to_ascii_lowercase());
    let submitted = says("Auto-Submitted").is_some_and(|value| !value.is_empty() && !value.starts_with("no"));
    let bulk = says("Precedence")
        .is_some_and(|value| ["bulk", "junk", "list", "auto_reply"].contains(&value.as_str()));
    let suppressed = says("X-Auto-Response-Suppress").is_some_and(|value| value != "none");
    let answered = ["X-Autoreply", "X-Autorespond"].iter().any(|name| headers.has(name));
    let bounced = says("Return-Path").is_some_and(|value| value == "<>")
        || headers.media_type().is_some_and(|found| found == "multipart/report");
    submitted || bulk || suppressed || answered || bounced
}

impl From<&Email> for Value {
    /// The run's input: an object with the fields of [`Email`].
    fn from(email: &Email) -> Self {
        json!({
            "message_id": email.message_id,
            "thread": email.thread,
            "from": email.from,
            "from_name": email.from_name,
            "reply_to": email.reply_to,
            "to": email.to,
            "cc": email.cc,
            "subject": email.subject,
            "date": email.date,
            "body": email.body,
            "body_truncated": email.body_truncated,
            "attachments": email.attachments,
            "auto": email.auto,
            "list": email.list,
        })
    }
}
