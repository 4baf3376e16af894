//! A raw message opens a run: which mailbox it belongs to, which workflow listens there, and the key
//! under which the same message opens nothing a second time.

use bytes::Bytes;
use serde_json::Value;

use crate::config::settings::Settings;
use crate::config::workspace::{Definitions, Trigger};
use crate::domain::ids::WorkflowName;
use crate::domain::label::Label;
use crate::orchestrator::door::{Door, OpenError, Request};
use crate::store::journal::Opened;
use crate::triggers::email::{self, Email, EmailError};

/// The most header bytes in which an envelope's recipient is looked for: mail servers refuse more.
const MAX_HEADERS: usize = 128 * 1024;

/// Headers that the receiving mail server writes: they name the mailbox itself, where `To` and `Cc`
/// are the sender's words.
const ENVELOPE: [&str; 2] = ["delivered-to", "x-original-to"];

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
            Self::Open(error) => match error {
                OpenError::Stopping => true,
                // A fault in a statement or a row is Steward's: the message must not pay for it.
                OpenError::Store(_) => true,
                OpenError::UnknownWorkflow { .. } | OpenError::Retired(_) | OpenError::BadInput { .. } => {
                    false
                }
            },
        }
    }
}

/// Opens a run for a raw message: of `workflow` if one is named, else of the one that listens to the
/// mailbox the message was sent to. Gives back once the run is durable.
///
/// # Errors
/// See [`MailError`]; nothing was opened then.
pub async fn open(
    door: &Door,
    definitions: &Definitions,
    raw: Bytes,
    workflow: Option<WorkflowName>,
) -> Result<Opened, MailError> {
    // Up to 25 MiB of someone else's MIME: too long for the thread that serves everybody.
    let read = tokio::task::spawn_blocking(move || {
        email::parse(&raw).map(|email| (recipients(&raw, &email), email))
    });
    let (recipients, email) = read.await.map_err(|error| MailError::Internal(error.to_string()))??;
    let workflow = match workflow {
        Some(workflow) => workflow,
        None => listener(definitions, &recipients)?,
    };
    let key = Some(key(&email));
    let input = Value::from(&email);
    Ok(door.open(Request { workflow, input, label: Label::Untrusted, trigger: "email", key }).await?)
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

fn listener(definitions: &Definitions, recipients: &[String]) -> Result<WorkflowName, MailError> {
    let settings = &definitions.settings;
    let wanted = settings.mailbox_of(recipients.iter().map(String::as_str));
    let listens =
        |trigger: &Trigger| matches!(trigger, Trigger::Email { mailbox } if Some(mailbox.as_str()) == wanted);
    let mut workflows = definitions.workflows.iter();
    let found = workflows.find(|(_, definition)| definition.triggers.iter().any(listens));
    found.map(|(name, _)| name.clone()).ok_or_else(|| nobody(settings, recipients))
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
        assert!(!MailError::Open(OpenError::Retired(name)).retryable());
        assert!(!MailError::Unreadable(EmailError::Empty).retryable());
    }
}
