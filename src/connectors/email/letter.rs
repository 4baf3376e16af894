//! A mail of Steward's own to the owner, as exact bytes: plain text and the same in HTML beside it. Machines
//! that answer mail are told not to (RFC 3834).

use jiff::Timestamp;
use lettre::address::Address;
use lettre::message::header::{self, ContentType, HeaderName, HeaderValue, InReplyTo, MessageId, References};
use lettre::message::{Mailbox, Mailboxes, Message, MultiPart, SinglePart};

use super::message::{Ids, Mail, body, check_lines, date, message_id, subject};
use crate::connectors::params::invalid;
use crate::domain::event::StepError;

/// What a letter says and where it goes.
#[derive(Clone, Debug)]
pub struct Letter<'a> {
    /// The same key gives the same Message-ID: a letter that is sent twice is known by it.
    pub key: &'a str,
    /// To whom.
    pub to: &'a Mailbox,
    /// Where answers go, if not to the sender.
    pub reply_to: Option<&'a str>,
    /// One line.
    pub subject: &'a str,
    /// The plain text.
    pub text: &'a str,
    /// The same as HTML, a whole document.
    pub html: &'a str,
    /// The Message-ID of what it follows, with its brackets.
    pub in_reply_to: Option<&'a str>,
    /// Where the reader ends a series of letters by one request (RFC 8058).
    pub unsubscribe: Option<&'a str>,
    /// When what it tells of began; the same for every try.
    pub at: Timestamp,
    /// When it is sent.
    pub date: Timestamp,
}

/// The bytes of a letter from `sender`.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::domain::event::ErrorKind::Invalid) with what does not fit.
pub fn build(letter: &Letter<'_>, sender: &Mailbox) -> Result<Mail, StepError> {
    let message_id = message_id(letter.key, &sender.email);
    let mut builder = Message::builder()
        .mailbox(header::From::from(Mailboxes::from(sender.clone())))
        .header(header::To::from(Mailboxes::from(letter.to.clone())))
        .subject(subject(letter.subject)?)
        .raw_header(plain("Auto-Submitted", "auto-generated"))
        .raw_header(plain("X-Auto-Response-Suppress", "All"));
    if let Some(address) = letter.reply_to {
        let address: Address =
            address.parse().map_err(|_| invalid("the address for replies is not an address"))?;
        let mailbox = Mailbox::new(sender.name.clone(), address);
        builder = builder.mailbox(header::ReplyTo::from(Mailboxes::from(mailbox)));
    }
    if let Some(parent) = letter.in_reply_to {
        let parent = [parent.to_owned()];
        builder = builder.raw_header(InReplyTo::name_and(&parent)).raw_header(References::name_and(&parent));
    }
    if let Some(url) = letter.unsubscribe {
        builder = builder
            .raw_header(plain("List-Unsubscribe", &format!("<{url}>")))
            .raw_header(plain("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"));
    }
    let part = |kind, text: &str| Ok(SinglePart::builder().header(kind).body(body(text)?));
    let parts = MultiPart::alternative()
        .singlepart(part(ContentType::TEXT_PLAIN, letter.text)?)
        .singlepart(part(ContentType::TEXT_HTML, letter.html)?);
    let message = builder
        .raw_header(MessageId::name_and(std::slice::from_ref(&message_id)))
        .date(date(letter.date))
        .multipart(parts)
        .map_err(|error| invalid(format!("the mail cannot be written: {error}")))?;
    let bytes = message.formatted();
    check_lines(&bytes)?;
    let recipients = vec![letter.to.email.clone()];
    Ok(Mail { from: sender.email.clone(), recipients, message_id, at: letter.at, bytes })
}

/// A header of plain ASCII, to be kept in one line as it is.
fn plain(name: &'static str, value: &str) -> HeaderValue {
    let name = HeaderName::new_from_ascii_str(name);
    HeaderValue::dangerous_new_pre_encoded(name, value.to_owned(), value.to_owned())
}
