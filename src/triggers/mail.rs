//! A raw message opens a run: which mailbox it belongs to, which workflow listens there, and the key
//! under which the same message opens nothing a second time. Mail that is for nobody's workflow but for
//! Steward itself is put [`Aside`] and never opens one.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

use crate::config::settings::Settings;
use crate::config::workspace::{Definitions, Trigger};
use crate::domain::digest::Digest;
use crate::domain::event::Topic;
use crate::domain::gather::Gather;
use crate::domain::ids::{HappeningId, RunId, WorkflowName};
use crate::domain::label::Label;
use crate::domain::proof::Proof;
use crate::domain::verified::Verified;
use crate::orchestrator::door::{Door, OpenError, Request};
use crate::store::StoreError;
use crate::store::events::Happening;
use crate::store::journal::Opened;
use crate::triggers::email::authentic::Authenticator;
use crate::triggers::email::{self, Email, EmailError};
use crate::triggers::gather::{self, Taken};

/// The most header bytes in which an envelope's recipient is looked for: mail servers refuse more.
const MAX_HEADERS: usize = 128 * 1024;

/// Headers that the receiving mail server writes: they name the mailbox itself, where `To` and `Cc`
/// are the sender's words.
const ENVELOPE: [&str; 2] = ["delivered-to", "x-original-to"];

/// Where mail comes in, whatever the door.
pub struct Mailroom {
    /// The way to the orchestrator.
    pub door: Door,
    /// Which mailbox belongs to which workflow.
    pub definitions: Arc<Definitions>,
    /// Tells who mail is from.
    pub authenticator: Authenticator,
    /// Takes mail that is for no workflow.
    pub aside: Option<Arc<dyn Aside>>,
}

/// Takes mail to addresses that no workflow listens to, such as replies to Steward's own.
pub trait Aside: Send + Sync {
    /// Whether mail to one of these addresses is its own.
    fn wants(&self, recipients: &[String]) -> bool;

    /// Takes it.
    fn take<'a>(&'a self, arrived: Arrived<'a>) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// Mail that is put aside.
pub struct Arrived<'a> {
    /// Its content: the sender's claims.
    pub email: &'a Email,
    /// Whom it was sent to, those its own mail server wrote first.
    pub recipients: &'a [String],
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// What proves the sender.
    pub proof: Option<Proof>,
}

/// Why a message opened no run.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// It cannot be read; sending it again never helps.
    #[error(transparent)]
    Unreadable(#[from] EmailError),
    /// Nobody listens to the addresses it was sent to.
    #[error("no workflow takes mail for {recipients}; the mailboxes are {known}")]
    NoWorkflow {
        /// Whom it was sent to.
        recipients: String,
        /// The addresses that are known.
        known: String,
    },
    /// The run was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is for Steward itself, which could not take it.
    #[error(transparent)]
    Aside(StoreError),
    /// A fault in Steward.
    #[error("reading the email broke off: {0}")]
    Internal(String),
}

impl MailError {
    /// Whether the same message may open a run later without anybody changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreadable(_) | Self::NoWorkflow { .. } | Self::Internal(_) => false,
            Self::Open(error) => error.retryable(),
            Self::Aside(_) => true,
        }
    }
}

/// Opens a run for a raw message: of `workflow` if one is named, else of the one that listens to the
/// mailbox the message was sent to. Gives back once the run is durable, or the message where it waits for one.
///
/// # Errors
/// See [`MailError`]; nothing was opened then.
pub async fn open(room: &Mailroom, raw: Bytes, workflow: Option<WorkflowName>) -> Result<Taken, MailError> {
    let (door, definitions, bytes) = (&room.door, &*room.definitions, raw.clone());
    // Up to 25 MiB of someone else's MIME: too long for the thread that serves everybody.
    let read = tokio::task::spawn_blocking(move || {
        email::parse(&bytes).map(|email| (recipients(&bytes, &email), Digest::of_bytes(&bytes), email))
    });
    let (recipients, digest, email) =
        read.await.map_err(|error| MailError::Internal(error.to_string()))??;
    let proof = room.authenticator.proof(raw).await;
    if let Some(aside) = room.aside.as_ref().filter(|aside| aside.wants(&unlisted(definitions, &recipients)))
    {
        let arrived = Arrived { email: &email, recipients: &recipients, digest, proof };
        aside.take(arrived).await.map_err(MailError::Aside)?;
        return Ok(Taken::Aside);
    }
    // Whoever names the workflow wants a run now.
    let (workflow, trigger, gather) = match workflow {
        Some(workflow) => (workflow, String::new(), None),
        None => listener(definitions, &recipients)?,
    };
    let key = key(&email);
    let mut input = Value::from(&email);
    // Steward's own word, whatever the mail says: which domain vouches for the sender.
    let verified = proof.map(|proof| Verified { by: Verified::DMARC.into(), domain: proof.domain });
    input["authenticated"] = verified.as_ref().map_or(Value::Null, |verified| verified.domain.clone().into());
    if let Some(run) = answered(door, &email, &key, &input).await? {
        return Ok(Taken::Run(Opened::Existing(run)));
    }
    let key = Some(key);
    let request = Request { workflow, input, label: Label::Untrusted, trigger: "email", key, verified };
    Ok(gather::take(door, request, &trigger, gather).await?)
}

/// The addresses that are no mailbox of the owner's: one that he has listed goes where he has listed it.
fn unlisted(definitions: &Definitions, recipients: &[String]) -> Vec<String> {
    let listed = |address: &String| {
        let mut all = definitions.settings.mailboxes.values().flatten();
        all.any(|known| known.eq_ignore_ascii_case(address))
    };
    recipients.iter().filter(|address| !listed(address)).cloned().collect()
}

/// The event that an answer came in a thread; it is about the thread.
const REPLY: &str = "email.reply";

/// A reply that a run waits for goes to that run and opens none. A machine's answer is nobody's.
async fn answered(door: &Door, email: &Email, key: &str, input: &Value) -> Result<Option<RunId>, OpenError> {
    if email.thread == email.message_id || email.auto || email.list {
        return Ok(None);
    }
    let happening = Happening {
        id: HappeningId(Uuid::now_v7()),
        topic: Topic { event: REPLY.to_owned(), matches: email.thread.clone() },
        data: input.clone(),
        label: Label::Untrusted,
        key: Some(key.to_owned()),
    };
    let told = door.engine().store.publish(&happening).await?;
    told.runs.iter().for_each(|run| door.wake(*run));
    Ok(told.runs.first().copied())
}

/// The message id is the sender's claim. Joined with the sender's address it can only collide with
/// mail of the same sender: nobody can block another's message by guessing its id.
fn key(email: &Email) -> String {
    format!("email:{} {}", email.message_id, email.from)
}

/// The addresses a message was sent to, those its own mail server wrote first.
fn recipients(raw: &[u8], email: &Email) -> Vec<String> {
    let mut all = envelope(raw);
    all.extend(email.to.iter().chain(&email.cc).cloned());
    all
}

fn envelope(raw: &[u8]) -> Vec<String> {
    let head = &raw[..raw.len().min(MAX_HEADERS)];
    let lines = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let lines = lines.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty());
    let recipient = |line: &[u8]| {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        let written = ENVELOPE.iter().any(|header| name.trim_end().eq_ignore_ascii_case(header));
        let address = value.trim().trim_start_matches('<').trim_end_matches('>');
        (written && address.contains('@')).then(|| address.to_owned())
    };
    lines.filter_map(recipient).collect()
}

/// The workflow, the trigger's name, and what it waits for.
type Listener<'a> = (WorkflowName, String, Option<&'a Gather>);

fn listener<'a>(definitions: &'a Definitions, recipients: &[String]) -> Result<Listener<'a>, MailError> {
    let settings = &definitions.settings;
    let wanted = settings.mailbox_of(recipients.iter().map(String::as_str));
    let all = definitions.workflows.iter();
    let mut all = all.flat_map(|(name, definition)| definition.triggers.iter().map(move |one| (name, one)));
    let found = all.find_map(|(name, trigger)| match trigger {
        Trigger::Email { mailbox, gather } if Some(mailbox.as_str()) == wanted => {
            Some((name.clone(), format!("email:{mailbox}"), gather.as_ref()))
        }
        Trigger::Email { .. } | Trigger::Webhook { .. } | Trigger::Schedule { .. } => None,
    });
    found.ok_or_else(|| nobody(settings, recipients))
}

fn nobody(settings: &Settings, recipients: &[String]) -> MailError {
    let known: Vec<&str> = settings.mailboxes.values().flatten().map(String::as_str).collect();
    let or_nobody = |list: String| if list.is_empty() { "nobody".to_owned() } else { list };
    MailError::NoWorkflow { recipients: or_nobody(recipients.join(", ")), known: or_nobody(known.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn email(raw: &str) -> Email {
        email::parse(raw.as_bytes()).unwrap()
    }

    #[test]
    fn the_mailbox_a_server_delivered_to_comes_before_the_senders_words() {
        let raw = "Delivered-To: <hello@us.example>\r\nFrom: a@b.example\r\nTo: Us <help@us.example>\r\n\
                   Cc: c@d.example\r\n\r\nDelivered-To: forged@us.example\r\n";
        assert_eq!(
            recipients(raw.as_bytes(), &email(raw)),
            ["hello@us.example", "help@us.example", "c@d.example"]
        );
    }

    #[test]
    fn a_guessed_message_id_does_not_block_the_mail_of_another_sender() {
        let one = email("From: a@b.example\r\nMessage-ID: <1@b.example>\r\n\r\nx");
        let other = email("From: evil@e.example\r\nMessage-ID: <1@b.example>\r\n\r\nx");
        assert_ne!(key(&one), key(&other));
        assert_eq!(key(&one), "email:1@b.example a@b.example");
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        let name = WorkflowName::from("w");
        assert!(MailError::Open(OpenError::Stopping).retryable());
        let retry_after = std::time::Duration::from_secs(5);
        assert!(MailError::Open(OpenError::Full { workflow: name.clone(), retry_after }).retryable());
        assert!(!MailError::Open(OpenError::Retired(name)).retryable());
        assert!(!MailError::Unreadable(EmailError::Empty).retryable());
    }
}
