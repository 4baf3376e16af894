//! Mail to the owner, and what comes back.
//!
//! - [`mod@write`]: what each letter says, pure; [`show`]: text of others made inert;
//! - [`keys`]: what opens a page and what an address for replies is made of;
//! - [`link`]: who holds a link to a review, and what he may do with it;
//! - [`command`]: what a reply says, pure; [`reply`]: whether it is the owner's, and doing it.
//!
//! A mailbox cannot be changed: how a review ended is told by the page behind the link.

pub mod command;
pub mod keys;
pub mod link;
pub mod reply;
pub mod show;
pub mod write;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use lettre::message::Mailbox;
use serde_json::{Value, json};
use url::Url;

use crate::config::channels as config;
use crate::connectors::email::letter::Letter as Mail;
use crate::connectors::email::{Email as Post, Unposted};
use crate::domain::ladder::ChannelName;
use crate::reviews::channel::{Channel, Letter, Says, Trouble};
use crate::reviews::digest;
use crate::store::reviews::ReviewRow;
use crate::store::{Store, StoreError};
use keys::{MailKey, ReplyAddress};
use write::{Ways, Written};

/// What all of it shares.
#[derive(Clone)]
pub struct Desk {
    pub(super) store: Store,
    pub(super) post: Arc<Post>,
    pub(super) key: MailKey,
    /// The owner: whom mail goes to, and whose replies count.
    pub(super) to: Mailbox,
    pub(super) reply_to: Option<ReplyAddress>,
    pub(super) url: Url,
    pub(super) zone: TimeZone,
    link: std::time::Duration,
    currency: String,
}

/// What a desk is made of, besides the settings of the channel.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// What sends.
    pub post: Post,
    /// The owner's address, where the settings of the channel name none.
    pub owner: String,
    /// Where the owner's browser finds Steward.
    pub url: Url,
    /// The owner's time zone.
    pub zone: TimeZone,
    /// The owner's currency.
    pub currency: String,
}

/// Why there can be no mail to the owner.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// An address that cannot be written to.
    #[error("mail to you cannot be addressed: `{0}` is not an address")]
    Address(String),
    /// A name that leaves no room.
    #[error(
        "`email.reply_to: {address}` leaves no room for what is put behind its name; \
         write one of at most {most} characters before the @, without a plus",
        most = keys::NAME
    )]
    ReplyTo {
        /// The address.
        address: String,
    },
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Desk {
    /// The desk that `config` describes.
    ///
    /// # Errors
    /// See [`DeskError`].
    pub async fn new(parts: Parts, config: &config::Email) -> Result<Self, DeskError> {
        let address = config.to.clone().unwrap_or(parts.owner);
        let to = address.parse().map_err(|_| DeskError::Address(address.clone()))?;
        let reply_to = match &config.reply_to {
            Some(text) => {
                Some(ReplyAddress::parse(text).ok_or_else(|| DeskError::ReplyTo { address: text.clone() })?)
            }
            None => None,
        };
        let key = MailKey::new(parts.store.mail_key(rand::random()).await?);
        Ok(Self {
            store: parts.store,
            post: Arc::new(parts.post),
            key,
            to,
            reply_to,
            url: parts.url,
            zone: parts.zone,
            link: config.link.0,
            currency: parts.currency,
        })
    }

    /// Whom mail goes to, and who decides through it.
    #[must_use]
    pub fn approver(&self) -> String {
        self.to.email.to_string().to_lowercase()
    }

    /// Whether `token` is what ends the digest.
    #[must_use]
    pub fn ends_digest(&self, token: &str) -> bool {
        self.key.ends_digest(token, &self.approver())
    }

    fn page(&self, path: &str) -> String {
        config::page(&self.url, path)
    }

    async fn deliver(&self, letter: Letter<'_>) -> Result<Value, Trouble> {
        match letter.says {
            Says::Ask(review) => self.ask(&letter, review, None).await,
            Says::Remind { review, first } => {
                let first = first.and_then(|place| place["message_id"].as_str());
                self.ask(&letter, review, Some(first)).await
            }
            Says::Notice(notice) => {
                let written = write::notice(notice, &self.page("/"), &self.zone);
                self.send(&letter, &written, notice.first_at, Sent::default()).await
            }
            Says::Digest(day) => self.digest(&letter, day).await,
        }
    }

    /// `reminds` is where the first word stands, for a reminder.
    async fn ask(
        &self,
        letter: &Letter<'_>,
        review: &ReviewRow,
        reminds: Option<Option<&str>>,
    ) -> Result<Value, Trouble> {
        let (secret, until) = link::make(self, review).await.map_err(passing)?;
        let approver = self.approver();
        let reply_to = self
            .reply_to
            .as_ref()
            .and_then(|address| address.of(&self.key, review.id, review.digest, &approver));
        let link = self.page(&format!("/r/{secret}"));
        let ways = Ways { link: &link, until, reply: reply_to.is_some(), zone: &self.zone };
        let written = write::review(review, &ways, reminds.is_some());
        let sent = Sent { reply_to: reply_to.as_deref(), follows: reminds.flatten(), unsubscribe: None };
        self.send(letter, &written, review.opened_at, sent).await
    }

    async fn digest(&self, letter: &Letter<'_>, day: Date) -> Result<Value, Trouble> {
        let approver = self.approver();
        if !self.store.digest_wanted(&approver).await.map_err(passing)? {
            return Ok(json!({"unwanted": true}));
        }
        let gathered = digest::gather(&self.store, day, &self.zone, &self.currency).await.map_err(passing)?;
        let token = self.key.unsubscribe(&approver);
        let stop = token.map(|token| self.page(&format!("/u/{token}"))).unwrap_or_else(|| self.page("/"));
        let written = write::digest(&gathered, &self.page("/"), &stop, &self.zone);
        let at = day.to_zoned(self.zone.clone()).map_or(Timestamp::UNIX_EPOCH, |day| day.timestamp());
        self.send(letter, &written, at, Sent { unsubscribe: Some(&stop), ..Sent::default() }).await
    }

    async fn send(
        &self,
        letter: &Letter<'_>,
        written: &Written,
        at: Timestamp,
        sent: Sent<'_>,
    ) -> Result<Value, Trouble> {
        let key = format!("message {}", letter.id);
        let mail = self.addressed(&key, written, at, sent);
        match self.post.post(&mail).await {
            Ok(message_id) => Ok(json!({"message_id": message_id})),
            Err(Unposted { kind, why }) if kind.retryable() => Err(Trouble::Passing(why)),
            Err(Unposted { why, .. }) => Err(Trouble::Lasting(why)),
        }
    }

    fn addressed<'a>(
        &'a self,
        key: &'a str,
        written: &'a Written,
        at: Timestamp,
        sent: Sent<'a>,
    ) -> Mail<'a> {
        Mail {
            key,
            to: &self.to,
            reply_to: sent.reply_to,
            subject: &written.subject,
            text: &written.text,
            html: &written.html,
            in_reply_to: sent.follows,
            unsubscribe: sent.unsubscribe,
            at,
            date: Timestamp::now(),
        }
    }
}

/// How a letter is sent.
#[derive(Clone, Copy, Default)]
struct Sent<'a> {
    reply_to: Option<&'a str>,
    follows: Option<&'a str>,
    unsubscribe: Option<&'a str>,
}

fn passing(error: StoreError) -> Trouble {
    Trouble::Passing(error.to_string())
}

/// The channel.
pub struct ByEmail(pub Arc<Desk>);

impl Channel for ByEmail {
    fn name(&self) -> ChannelName {
        ChannelName::Email
    }

    fn deliver<'a>(&'a self, letter: Letter<'a>) -> BoxFuture<'a, Result<Value, Trouble>> {
        Box::pin(self.0.deliver(letter))
    }

    fn close<'a>(&'a self, _: &'a Value, _: &'a ReviewRow) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }
}
