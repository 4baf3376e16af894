//! A mail as exact bytes (RFC 5322), made from a [`Call`] and nothing else: the same call is the
//! same bytes, so what is sent again is what was sent before.
//!
//! - [`sender`] reads the owner's address; [`build`] makes the mail;
//! - nothing that comes from outside can start a header: see `line`.

use std::time::SystemTime;

use jiff::Timestamp;
use lettre::address::Address;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Mailboxes, Message, SinglePart};

use crate::connectors::Call;
use crate::connectors::params::{Params, invalid};
use crate::domain::digest::Digest;
use crate::domain::event::StepError;

/// More than this is a mailing, which is not what `email.send` is for.
const MAX_RECIPIENTS: usize = 50;

/// The longest line of a mail, in bytes without CRLF (RFC 5322, 2.1.1).
const MAX_LINE: usize = 998;

/// The longest body, in bytes; a text of more than a megabyte is a mistake.
const MAX_BODY: usize = 1024 * 1024;

/// A thread longer than this names its first message and its latest ones (RFC 5537, 3.4.4).
const MAX_REFERENCES: usize = 30;

/// A mail ready to be handed over.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The envelope's sender.
    pub from: Address,
    /// The envelope's recipients, each once, in the order written.
    pub recipients: Vec<Address>,
    /// The Message-ID, with its angle brackets.
    pub message_id: String,
    /// When it was first started.
    pub at: Timestamp,
    /// The whole mail, every line ended by CRLF.
    pub bytes: Vec<u8>,
}

/// The owner's own address, as `Name <address>` or an address.
///
/// # Errors
/// One sentence saying what does not fit.
pub fn sender(text: &str) -> Result<Mailbox, StepError> {
    let mut found = mailboxes("email.from", &[text])?;
    match (found.pop(), found.is_empty()) {
        (Some(mailbox), true) => Ok(mailbox),
        _ => Err(invalid("`email.from` needs exactly one address")),
    }
}

/// The mail that `call` asks for.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::domain::event::ErrorKind::Invalid) with the parameter that does not fit.
pub fn build(call: &Call, sender: &Mailbox) -> Result<Mail, StepError> {
    let params = Params::of(&call.action)?;
    let to = mailboxes("to", &params.texts("to")?)?;
    let cc = mailboxes("cc", &params.texts("cc")?)?;
    if to.is_empty() {
        return Err(invalid("`to` needs at least one address"));
    }
    if to.len() + cc.len() > MAX_RECIPIENTS {
        return Err(invalid(format!("a mail goes to at most {MAX_RECIPIENTS} recipients")));
    }
    let message_id = message_id(&call.key, &sender.email);
    let mut builder = Message::builder()
        .mailbox(lettre::message::header::From::from(Mailboxes::from(sender.clone())))
        .header(lettre::message::header::To::from(to.iter().cloned().collect::<Mailboxes>()));
    if !cc.is_empty() {
        builder =
            builder.header(lettre::message::header::Cc::from(cc.iter().cloned().collect::<Mailboxes>()));
    }
    builder = builder.subject(subject(params.need("subject")?)?);
    if let Some(parent) = ids("in_reply_to", &params.texts("in_reply_to")?)?.first() {
        builder = builder.raw_header(InReplyTo::name_and(std::slice::from_ref(parent)));
    }
    let references = shorten(ids("references", &params.texts("references")?)?);
    if !references.is_empty() {
        builder = builder.raw_header(References::name_and(&references));
    }
    let message = builder
        .raw_header(MessageId::name_and(std::slice::from_ref(&message_id)))
        .date(date(call.at))
        .singlepart(SinglePart::plain(body(params.need("body")?)?))
        .map_err(|error| invalid(format!("the mail cannot be written: {error}")))?;
    let bytes = message.formatted();
    check_lines(&bytes)?;
    let recipients = recipients(to.into_iter().chain(cc));
    Ok(Mail { from: sender.email.clone(), recipients, message_id, at: call.at, bytes })
}

fn mailboxes(name: &str, texts: &[&str]) -> Result<Vec<Mailbox>, StepError> {
    let mut found = Vec::new();
    for text in texts {
        let text = line(name, text)?;
        if text.is_empty() {
            continue;
        }
        let wrong =
            |why: &dyn std::fmt::Display| invalid(format!("`{name}`: {text:?} is not an address: {why}"));
        let parsed: Mailboxes = text.parse().map_err(|error: lettre::address::AddressError| wrong(&error))?;
        for mailbox in parsed {
            found.push(Mailbox { email: plain(&mailbox.email).map_err(|why| wrong(&why))?, ..mailbox });
        }
    }
    Ok(found)
}

/// An address that every mail server understands: no quoted part, ASCII alone, its domain in punycode.
fn plain(address: &Address) -> Result<Address, &'static str> {
    let user = address.user();
    if user.contains('"') || !user.is_ascii() {
        return Err("the part before the @ must be plain ASCII, without quotes");
    }
    if address.domain().is_ascii() {
        return Ok(address.clone());
    }
    let url::Host::Domain(domain) =
        url::Host::parse(address.domain()).map_err(|_| "its domain is not one")?
    else {
        return Err("its domain is not one");
    };
    Address::new(user, domain).map_err(|_| "its domain is not one")
}

/// `text` as part of a header: a line break would begin a header of the writer's own.
fn line<'a>(name: &str, text: &'a str) -> Result<&'a str, StepError> {
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        Some(c) => {
            Err(invalid(format!("`{name}` holds {c:?}; line breaks and control characters are refused")))
        }
        None => Ok(text.trim()),
    }
}

pub(super) fn subject(text: &str) -> Result<String, StepError> {
    let text = line("subject", text)?;
    match text.len() > MAX_LINE {
        true => Err(invalid(format!("`subject` is longer than {MAX_LINE} bytes"))),
        false => Ok(text.replace('\t', " ")),
    }
}

/// The text with CRLF line ends; the last one is the mail's own.
pub(super) fn body(text: &str) -> Result<String, StepError> {
    if text.len() > MAX_BODY {
        return Err(invalid(format!("`body` is longer than {MAX_BODY} bytes")));
    }
    if text.contains('\0') {
        return Err(invalid("`body` holds a NUL character"));
    }
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    Ok(text.strip_suffix('\n').unwrap_or(&text).replace('\n', "\r\n"))
}

/// Message ids, each in angle brackets, from a text or texts with or without them.
fn ids(name: &str, texts: &[&str]) -> Result<Vec<String>, StepError> {
    let mut found = Vec::new();
    for text in texts {
        for id in line(name, text)?.split_whitespace() {
            let bare = id.strip_prefix('<').and_then(|id| id.strip_suffix('>')).unwrap_or(id);
            let fits = bare.bytes().all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>');
            if bare.is_empty() || !fits {
                return Err(invalid(format!("`{name}`: {id:?} is not a Message-ID")));
            }
            found.push(format!("<{bare}>"));
        }
    }
    Ok(found)
}

fn shorten(mut ids: Vec<String>) -> Vec<String> {
    if ids.len() > MAX_REFERENCES {
        ids.drain(1..=ids.len() - MAX_REFERENCES);
    }
    ids
}

/// The same key gives the same Message-ID: a receiver that sees both copies of a repeated mail
/// can tell that they are one.
pub(super) fn message_id(key: &str, from: &Address) -> String {
    let digest = Digest::of_bytes(key.as_bytes());
    format!("<{}@{}>", hex::encode(&digest.0[..16]), from.domain())
}

pub(super) fn date(at: Timestamp) -> SystemTime {
    SystemTime::from(at.max(Timestamp::UNIX_EPOCH)) // the mail format's clock begins there
}

fn recipients(mailboxes: impl Iterator<Item = Mailbox>) -> Vec<Address> {
    let mut recipients: Vec<Address> = Vec::new();
    for mailbox in mailboxes {
        if !recipients.contains(&mailbox.email) {
            recipients.push(mailbox.email);
        }
    }
    recipients
}

/// One word too long to fold would be a line that servers refuse or, worse, cut.
pub(super) fn check_lines(bytes: &[u8]) -> Result<(), StepError> {
    let long = |line: &[u8]| line.strip_suffix(b"\r").unwrap_or(line).len() > MAX_LINE;
    match bytes.split(|b| *b == b'\n').any(long) {
        true => {
            Err(invalid(format!("a header holds a word that does not fit into a line of {MAX_LINE} bytes")))
        }
        false => Ok(()),
    }
}

/// Headers that hold message ids. They are folded here, one id a line: an id must never be
/// re-encoded or broken, or threads fall apart.
pub(super) trait Ids: Header {
    fn name_and(ids: &[String]) -> HeaderValue {
        let name: HeaderName = Self::name();
        HeaderValue::dangerous_new_pre_encoded(name, ids.join(" "), ids.join("\r\n "))
    }
}

use lettre::message::header::{InReplyTo, MessageId, References};
impl Ids for InReplyTo {}
impl Ids for References {}
impl Ids for MessageId {}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
