//! `email.send`: one plain-text mail, over SMTP, or into an outbox folder where no server is set.
//!
//! - [`message`]: the exact bytes, pure; [`letter`]: those of Steward's own mail to the owner;
//! - [`smtp`]: handing them over, and what is known when that fails;
//! - [`outbox`]: the folder.

pub mod letter;
pub mod message;
pub mod outbox;
pub mod smtp;

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use lettre::address::Address;
use lettre::message::Mailbox;
use serde_json::json;

use crate::config::connectors as config;
use crate::connectors::{Call, Connector};
use crate::domain::action::{Action, Repeat};
use crate::domain::digest::Digest;
use crate::domain::event::{ErrorKind, StepError};
use crate::domain::plan::EffectResult;
use letter::Letter;
use message::Mail;
use outbox::{Filed, Outbox};
use smtp::{Smtp, Undelivered};

/// Sends mail.
#[derive(Debug)]
pub struct Email {
    sender: Mailbox,
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    Smtp(Smtp),
    Outbox(Outbox),
}

/// Settings under which no mail can be sent.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    /// The sender is not an address.
    #[error("{0}; write `Name <address>` or an address")]
    Sender(StepError),
    /// A user without a password.
    #[error("`email.smtp.username` is set but `email.smtp.password` is not; write `password: env:NAME`")]
    NoPassword,
    /// The password is not where it should be.
    #[error("`email.smtp.password`: {missing}")]
    Unset {
        /// What is missing.
        missing: String,
    },
}

/// A letter that was not surely sent. Sending it again is right: whoever gets both sees one Message-ID.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub struct Unposted {
    /// What kind of trouble it is.
    pub kind: ErrorKind,
    /// What happened, one sentence.
    pub why: String,
}

impl From<StepError> for Unposted {
    fn from(error: StepError) -> Self {
        Self { kind: error.kind, why: error.message }
    }
}

impl Email {
    /// The connector that `config` describes; without a server, mail goes into the folder `outbox`.
    ///
    /// # Errors
    /// See [`EmailError`].
    pub fn new(config: &config::Email, outbox: impl Into<PathBuf>) -> Result<Self, EmailError> {
        let sender = message::sender(&config.from).map_err(EmailError::Sender)?;
        let transport = match &config.smtp {
            None => Transport::Outbox(Outbox::new(outbox.into())),
            Some(server) => {
                let login = match (&server.username, &server.password) {
                    (None, _) => None,
                    (Some(_), None) => return Err(EmailError::NoPassword),
                    (Some(user), Some(password)) => {
                        let unset = || EmailError::Unset { missing: password.missing() };
                        Some((user.clone(), password.resolve().ok_or_else(unset)?))
                    }
                };
                Transport::Smtp(Smtp::new(server, login))
            }
        };
        Ok(Self { sender, transport })
    }

    async fn send(&self, call: &Call) -> EffectResult {
        let mail = match message::build(call, &self.sender) {
            Ok(mail) => mail,
            Err(error) => return EffectResult::Failed(error),
        };
        match &self.transport {
            Transport::Smtp(smtp) => match smtp.deliver(&mail).await {
                Ok(reply) => EffectResult::Succeeded(json!({
                    "message_id": mail.message_id,
                    "transport": "smtp",
                    "accepted": reply,
                    "sha256": Digest::of_bytes(&mail.bytes),
                })),
                Err(Undelivered::Failed(error)) => EffectResult::Failed(error),
                Err(Undelivered::Unknown(evidence)) => EffectResult::Unknown(evidence),
            },
            Transport::Outbox(outbox) => match outbox.file(&mail).await {
                Ok(filed) => in_outbox(&mail, &filed),
                Err(error) => {
                    let message = format!("the mail could not be written into the outbox: {error}");
                    EffectResult::Failed(StepError::new(ErrorKind::Unavailable, message))
                }
            },
        }
    }

    /// Sends a letter of Steward's own; gives its Message-ID, with the brackets.
    ///
    /// # Errors
    /// When it does not fit into a mail, was refused, or nobody can tell whether it arrived.
    pub async fn post(&self, letter: &Letter<'_>) -> Result<String, Unposted> {
        let mail = letter::build(letter, &self.sender).map_err(Unposted::from)?;
        match &self.transport {
            Transport::Smtp(smtp) => smtp.deliver(&mail).await.map(drop).map_err(|error| match error {
                Undelivered::Failed(error) => Unposted::from(error),
                Undelivered::Unknown(evidence) => Unposted { kind: ErrorKind::Unavailable, why: evidence },
            })?,
            Transport::Outbox(outbox) => {
                outbox.file(&mail).await.map_err(|error| {
                    let why = format!("the mail could not be written into the outbox: {error}");
                    Unposted { kind: ErrorKind::Unavailable, why }
                })?;
            }
        }
        Ok(mail.message_id)
    }

    /// The address that mail comes from.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.sender.email
    }

    async fn look_up(&self, call: &Call) -> EffectResult {
        let Transport::Outbox(outbox) = &self.transport else {
            return EffectResult::Unknown("SMTP cannot be asked whether a mail was sent".into());
        };
        let mail = match message::build(call, &self.sender) {
            Ok(mail) => mail,
            Err(error) => return EffectResult::Failed(error),
        };
        match outbox.find(&mail).await {
            Ok(Some(filed)) => in_outbox(&mail, &filed),
            Ok(None) => EffectResult::Absent,
            Err(error) => EffectResult::Unknown(format!("the outbox cannot be read: {error}")),
        }
    }
}

fn in_outbox(mail: &Mail, filed: &Filed) -> EffectResult {
    EffectResult::Succeeded(json!({
        "message_id": mail.message_id,
        "transport": "outbox",
        "file": filed.file,
        "sha256": filed.digest,
    }))
}

impl Connector for Email {
    fn actions(&self) -> &'static [&'static str] {
        &["email.send"]
    }

    fn repeat(&self, _: &Action) -> Repeat {
        match self.transport {
            Transport::Smtp(_) => Repeat::None,
            Transport::Outbox(_) => Repeat::Natural,
        }
    }

    fn perform<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, EffectResult> {
        Box::pin(self.send(call))
    }

    fn probe<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, EffectResult> {
        Box::pin(self.look_up(call))
    }
}

#[cfg(test)]
mod tests;
