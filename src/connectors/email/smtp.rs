//! Mail over SMTP (RFC 5321), one connection a mail, one phase at a time: which phase failed decides
//! what is known.
//!
//! - until the server has asked for the message, nothing can have happened: [`Undelivered::Failed`];
//! - a reply to the message settles it either way;
//! - a message that was begun and got no reply may have arrived: [`Undelivered::Unknown`].

use std::fmt;
use std::time::Duration;

use lettre::address::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::{Response, Severity};
use tokio::time::timeout;

use crate::config::connectors::{self as config, Security};
use crate::config::secret::Secret;
use crate::connectors::email::message::Mail;
use crate::connectors::heard::{cause, heard, tls_fault};
use crate::domain::event::{ErrorKind, StepError};

/// How long a server may take to answer QUIT: the mail is settled by then, nobody should wait for it.
const GOODBYE: Duration = Duration::from_secs(2);

/// In the order they are tried; both send the password as it is, over the connection's TLS.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

/// A mail server and how to speak with it.
#[derive(Debug)]
pub struct Smtp {
    host: String,
    port: u16,
    security: Security,
    login: Option<(String, Secret)>,
    timeout: Duration,
}

/// Why a mail has no accepting reply.
#[derive(Debug)]
pub enum Undelivered {
    /// It was not sent.
    Failed(StepError),
    /// It may have been: the evidence, one sentence.
    Unknown(String),
}

/// How far a conversation got.
enum Phase {
    Connect,
    StartTls,
    SignIn,
    Sender,
    Recipient(Address),
    Data,
    Message,
}

impl Smtp {
    /// The server of `config`, signing in with `login` when there is one.
    #[must_use]
    pub fn new(config: &config::Smtp, login: Option<(String, Secret)>) -> Self {
        let usual = match config.security {
            Security::Tls => 465,
            Security::Starttls => 587,
            Security::None => 25,
        };
        Self {
            host: config.host.clone(),
            port: config.port.unwrap_or(usual),
            security: config.security,
            login,
            timeout: config.timeout.0,
        }
    }

    /// Hands `mail` over and gives the server's accepting reply, within the time-out of the settings.
    ///
    /// # Errors
    /// See [`Undelivered`].
    pub async fn deliver(&self, mail: &Mail) -> Result<String, Undelivered> {
        let mut phase = Phase::Connect;
        let mut open = None;
        let conversation = async {
            let connection = self.connect().await.map_err(|error| self.failed(&phase, &error))?;
            self.converse(open.insert(connection), mail, &mut phase).await
        };
        let outcome = timeout(self.timeout, conversation).await;
        match (outcome, open) {
            (Ok(outcome), Some(connection)) => {
                if !matches!(outcome, Err(Undelivered::Unknown(_))) {
                    goodbye(connection).await;
                }
                outcome
            }
            (Ok(outcome), None) => outcome,
            (Err(_), _) => Err(self.too_late(&phase)),
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let server = (self.host.as_str(), self.port);
        let tls = match self.security {
            Security::Tls => Some(TlsParameters::new(self.host.clone())?),
            Security::Starttls | Security::None => None,
        };
        let within = Some(self.timeout);
        AsyncSmtpConnection::connect_tokio1(server, within, &ClientId::default(), tls, None).await
    }

    async fn converse(
        &self,
        connection: &mut AsyncSmtpConnection,
        mail: &Mail,
        phase: &mut Phase,
    ) -> Result<String, Undelivered> {
        if self.security == Security::Starttls {
            *phase = Phase::StartTls;
            self.upgrade(connection).await?;
        }
        if let Some((user, password)) = &self.login {
            *phase = Phase::SignIn;
            let credentials = Credentials::new(user.clone(), password.expose().to_owned());
            let signed_in = connection.auth(&MECHANISMS, &credentials).await;
            signed_in.map_err(|error| self.failed(phase, &error))?;
        }
        *phase = Phase::Sender;
        let from = connection.command(MailFrom::new(Some(mail.from.clone()), Vec::new())).await;
        self.accepted(phase, from, Severity::PositiveCompletion)?;
        for recipient in &mail.recipients {
            *phase = Phase::Recipient(recipient.clone());
            let to = connection.command(Rcpt::new(recipient.clone(), Vec::new())).await;
            self.accepted(phase, to, Severity::PositiveCompletion)?;
        }
        *phase = Phase::Data;
        let data = connection.command(Data).await;
        self.accepted(phase, data, Severity::PositiveIntermediate)?;
        *phase = Phase::Message;
        // The client ends the message with CRLF dot CRLF, and that first CRLF is the last line's own.
        let message = mail.bytes.strip_suffix(b"\r\n").unwrap_or(&mail.bytes);
        let reply = connection.message(message).await;
        self.settle(reply)
    }

    async fn upgrade(&self, connection: &mut AsyncSmtpConnection) -> Result<(), Undelivered> {
        let phase = Phase::StartTls;
        if !connection.can_starttls() {
            let message = format!(
                "{self} does not offer STARTTLS, and the mail is not sent without it; \
                 if the server speaks TLS from the start, set `security: tls`"
            );
            return Err(Undelivered::Failed(StepError::new(ErrorKind::Refused, message)));
        }
        let tls = TlsParameters::new(self.host.clone()).map_err(|error| self.failed(&phase, &error))?;
        let upgraded = connection.starttls(tls, &ClientId::default()).await;
        upgraded.map_err(|error| self.failed(&phase, &error))
    }

    /// A reply before the message: anything but the wanted one ends the conversation with nothing done.
    fn accepted(
        &self,
        phase: &Phase,
        reply: Result<Response, Error>,
        wanted: Severity,
    ) -> Result<(), Undelivered> {
        let reply = reply.map_err(|error| self.failed(phase, &error))?;
        if reply.code().severity == wanted {
            return Ok(());
        }
        let message = format!("{self} gave an answer that makes no sense {phase}: {}", said(&reply));
        Err(Undelivered::Failed(StepError::new(ErrorKind::Unavailable, message)))
    }

    /// The reply to the message, or its absence.
    fn settle(&self, reply: Result<Response, Error>) -> Result<String, Undelivered> {
        match reply {
            Ok(reply) if reply.code().severity == Severity::PositiveCompletion => Ok(said(&reply)),
            Ok(reply) => Err(self.in_doubt(&format!("it answered {}", said(&reply)))),
            Err(error) if error.status().is_some() => Err(self.failed(&Phase::Message, &error)),
            Err(error) => Err(self.in_doubt(&cause(&error))),
        }
    }

    fn failed(&self, phase: &Phase, error: &Error) -> Undelivered {
        let tls = tls_fault(error);
        let kind = if error.is_timeout() {
            ErrorKind::Timeout
        } else if error.is_permanent() || error.is_client() || tls.is_some() {
            ErrorKind::Refused
        } else {
            ErrorKind::Unavailable
        };
        // A server that says no for good when told name and password says no to them.
        let kind = match (phase, kind) {
            (Phase::SignIn, ErrorKind::Refused) if error.is_permanent() => ErrorKind::KeyRefused,
            (_, kind) => kind,
        };
        let why = match error.status() {
            Some(code) => format!("{code} {}", cause(error)),
            None => tls.unwrap_or_else(|| cause(error)),
        };
        let mend = match (phase, kind) {
            (Phase::SignIn, ErrorKind::Refused | ErrorKind::KeyRefused) => {
                "; check `smtp.username` and the variable that `smtp.password` names"
            }
            _ => "",
        };
        let message = match phase {
            Phase::Recipient(address) => format!("{self} refuses {address}: {why}; nobody got the mail"),
            _ => format!("{self} failed {phase}: {why}{mend}"),
        };
        Undelivered::Failed(StepError::new(kind, message))
    }

    fn too_late(&self, phase: &Phase) -> Undelivered {
        match phase {
            Phase::Message => self.in_doubt(&format!("no answer within {:?}", self.timeout)),
            _ => {
                let message = format!("{self} did not answer within {:?} {phase}", self.timeout);
                Undelivered::Failed(StepError::new(ErrorKind::Timeout, message))
            }
        }
    }

    fn in_doubt(&self, why: &str) -> Undelivered {
        Undelivered::Unknown(format!("{self} was given the message but did not say that it has it: {why}"))
    }
}

impl fmt::Display for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("when connecting"),
            Self::StartTls => f.write_str("when changing to TLS"),
            Self::SignIn => f.write_str("when signing in"),
            Self::Sender => f.write_str("when told the sender"),
            Self::Recipient(address) => write!(f, "when told the recipient {address}"),
            Self::Data => f.write_str("before it took the message"),
            Self::Message => f.write_str("when it had the message"),
        }
    }
}

fn said(reply: &Response) -> String {
    heard(&format!("{} {}", reply.code(), reply.message().collect::<Vec<_>>().join(" ")))
}

async fn goodbye(mut connection: AsyncSmtpConnection) {
    // A server that does not answer QUIT changes nothing.
    let _ = timeout(GOODBYE, connection.abort()).await;
}

#[cfg(test)]
#[path = "smtp_tests.rs"]
mod tests;
