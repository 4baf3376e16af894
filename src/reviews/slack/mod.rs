//! Slack: one message per review, decided there by whom the owner named, and locked with the outcome
//! wherever it was decided.
//!
//! - [`blocks`] is a review as a message, [`day`] what asks nothing, [`modal`] what is asked back; made of
//!   [`kit`] and [`mod@text`], within [`limits`]; [`form`] says which answers a question takes in Slack;
//! - [`api`] calls Slack's methods;
//! - [`interact`] takes what comes back, [`beside`] what of it decides nothing: over HTTP, where [`mod@signature`] proves it, or over [`socket`], where the
//!   connection does. [`payload`] is its form.

pub mod api;
mod beside;
pub mod blocks;
pub mod day;
pub mod form;
pub mod interact;
pub mod kit;
pub mod limits;
pub mod modal;
pub mod payload;
pub mod signature;
pub mod socket;
pub mod text;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use url::Url;

use crate::config::channels;
use crate::config::secret::Secret;
use crate::domain::ladder::ChannelName;
use crate::domain::notice::{NoticeKind, Severity};
use crate::domain::text::visible;
use crate::orchestrator::door::Door;
use crate::reviews::channel::{Channel, Letter, Says, Trouble};
use crate::reviews::digest::gather;
use crate::reviews::slack::api::{Api, Fault, Place};
use crate::reviews::slack::blocks::{Fit, Look, Message};
use crate::reviews::slack::kit::{link, rich, section, words};
use crate::reviews::slack::text::escape;
use crate::store::notices::News;
use crate::store::reviews::ReviewRow;

/// Where Slack's methods are.
const METHODS: &str = "https://slack.com/api/";

/// Slack's words for a message that is too long, or that it cannot show.
const TOO_LONG: [&str; 4] =
    ["msg_blocks_too_long", "msg_too_long", "invalid_blocks", "invalid_blocks_format"];

/// Slack's words for a thread that is gone.
const NO_THREAD: [&str; 4] =
    ["thread_not_found", "message_not_found", "invalid_thread_ts", "cannot_reply_to_message"];

/// The owner's Slack.
pub struct Slack {
    door: Door,
    api: Api,
    look: Look,
    currency: String,
    target: String,
    owner: String,
    approvers: BTreeSet<String>,
    signing_secret: Option<Secret>,
    /// The channel that `target` stands for.
    channel: OnceCell<String>,
}

/// What Slack does by itself while Steward runs.
pub struct Running(Vec<JoinHandle<()>>);

impl Running {
    /// Ends it. What was not answered is delivered again, to whoever is connected then.
    pub async fn stop(self) {
        for work in self.0 {
            work.abort();
            let _ = work.await; // it was cancelled
        }
    }
}

impl Slack {
    /// The Slack of these settings. Money in the digest is in `currency`.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(
        door: Door,
        config: &channels::Slack,
        look: Look,
        currency: String,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let usual = || METHODS.parse::<Url>().ok();
        // A base without a slash at its end would lose its last word.
        let own = |url: &Url| format!("{}/", url.as_str().trim_end_matches('/')).parse().ok();
        let base = config.api.as_ref().map_or_else(usual, own);
        let base = base.unwrap_or_else(|| look.web.clone()); // neither fails: both were URLs before
        let api = Api::new(base, config.token.clone(), config.app_token.clone())?;
        Ok(Arc::new(Self {
            door,
            api,
            look,
            currency,
            target: config.channel.clone(),
            owner: config.owner.clone(),
            approvers: config.approvers.clone(),
            signing_secret: config.signing_secret.as_ref().and_then(|secret| secret.resolve()),
            channel: OnceCell::new(),
        }))
    }

    /// Begins what Slack does by itself: looks whether the key is good, and listens where `config` has an
    /// app token.
    #[must_use]
    pub fn start(self: &Arc<Self>, config: &channels::Slack) -> Running {
        let mut work = vec![tokio::spawn(self.clone().greet())];
        work.extend(config.app_token.as_ref().map(|_| tokio::spawn(socket::listen(self.clone()))));
        Running(work)
    }

    /// The key of signatures on `/hooks/slack`; without it nothing is taken there.
    #[must_use]
    pub fn signing_secret(&self) -> Option<&Secret> {
        self.signing_secret.as_ref()
    }

    async fn greet(self: Arc<Self>) {
        match self.api.whoami().await {
            Ok(bot) => {
                tracing::info!(bot, "Slack knows this Steward");
                self.key_works("slack").await;
            }
            Err(Fault::Passing(error)) => {
                tracing::warn!(error, "Slack could not be asked whether its key is good")
            }
            Err(fault) => self.key_fails("slack", "Slack does not take Steward's key", &fault).await,
        }
    }

    /// Tells the owner, over whatever works, that a key of Slack's does not.
    async fn key_fails(&self, subject: &str, title: &str, fault: &Fault) {
        tracing::error!(error = %fault, "{title}");
        let detail = format!("{fault}. Make a new one at api.slack.com/apps, as docs/channels.md says.");
        let kind = NoticeKind::ConnectorKey;
        let news = News { kind, subject, severity: Severity::Critical, title, detail: &detail, run: None };
        self.door.engine().tell_owner(&news).await;
    }

    async fn key_works(&self, subject: &str) {
        if let Err(error) = self.door.engine().store.notice_over(NoticeKind::ConnectorKey, subject).await {
            tracing::warn!(%error, subject, "it could not be noted that a key works");
        }
    }

    /// Whether this person may decide: the owner, and whom he named.
    fn may_decide(&self, user: &str) -> bool {
        user == self.owner || self.approvers.contains(user)
    }

    /// Who decides, for the journal.
    fn by(&self, user: &str) -> String {
        match user == self.owner {
            true => "owner via slack".into(),
            false => format!("{user} via slack"),
        }
    }

    /// The channel that messages go to: a person's is looked up once.
    async fn channel(&self) -> Result<&str, Fault> {
        let known = self.channel.get_or_try_init(|| async {
            match self.target.starts_with(['U', 'W']) {
                true => self.api.direct(&self.target).await,
                false => Ok(self.target.clone()),
            }
        });
        known.await.map(String::as_str)
    }

    async fn send(&self, letter: Letter<'_>) -> Result<Value, Trouble> {
        let (channel, id) = (self.channel().await?, letter.id.to_string());
        if letter.again
            && let Some(place) = self.sent_before(channel, &id).await?
        {
            return Ok(serde_json::json!(place));
        }
        let (mut message, mut under) = self.say(letter.says).await?;
        // Each is tried at most once: three calls, then whatever Slack says stands.
        let mut sent = self.api.post_message(channel, &message, &id, under.as_ref()).await;
        if under.is_some() && refused(&sent, &NO_THREAD) {
            under = None;
            sent = self.api.post_message(channel, &message, &id, None).await;
        }
        if refused(&sent, &TOO_LONG) {
            message = self.say_less(letter.says, message);
            sent = self.api.post_message(channel, &message, &id, under.as_ref()).await;
        }
        Ok(serde_json::json!(sent?))
    }

    /// Where the message stands if an earlier try got through. Who may not look assumes that it did not: a
    /// question twice is a nuisance, a question never asked is a fault.
    async fn sent_before(&self, channel: &str, id: &str) -> Result<Option<Place>, Fault> {
        match self.api.find(channel, id).await {
            Err(fault @ Fault::Refused { .. }) => {
                tracing::warn!(error = %fault, "Slack cannot be asked what was sent; a message may be there twice");
                Ok(None)
            }
            found => found,
        }
    }

    async fn say(&self, says: Says<'_>) -> Result<(Message, Option<Place>), Trouble> {
        let look = &self.look;
        Ok(match says {
            Says::Ask(review) => (blocks::ask(review, look, Fit::Whole), None),
            Says::Remind { review, first } => {
                match first.and_then(|first| serde_json::from_value::<Place>(first.clone()).ok()) {
                    Some(first) => (blocks::remind(review, look), Some(first)),
                    None => (blocks::ask(review, look, Fit::Whole), None),
                }
            }
            Says::Notice(notice) => (day::notice(notice, look), None),
            Says::Digest(date) => {
                let store = &self.door.engine().store;
                let day = gather(store, date, &look.zone, &self.currency).await;
                let day = day.map_err(|error| Trouble::Passing(error.to_string()))?;
                (day::digest(&day, look), None)
            }
        })
    }

    /// The same in so few words that Slack takes them.
    fn say_less(&self, says: Says<'_>, message: Message) -> Message {
        match says {
            Says::Ask(review) | Says::Remind { review, .. } => blocks::ask(review, &self.look, Fit::Short),
            Says::Notice(_) | Says::Digest(_) => {
                let page = link(&self.look.page("/"), "Open Steward");
                Message {
                    blocks: vec![rich(vec![section(vec![words("It stands on the web page: "), page])])],
                    ..message
                }
            }
        }
    }

    /// A sentence as a message.
    fn sentence(text: &str) -> Message {
        let text: String = visible(text).chars().take(limits::SHOWN).collect();
        Message { blocks: vec![rich(vec![section(vec![words(&text)])])], text: escape(&text) }
    }
}

fn refused(sent: &Result<Place, Fault>, words: &[&str]) -> bool {
    sent.as_ref().err().is_some_and(|fault| words.iter().any(|word| fault.is(word)))
}

impl Channel for Slack {
    fn name(&self) -> ChannelName {
        ChannelName::Slack
    }

    fn deliver<'a>(&'a self, letter: Letter<'a>) -> BoxFuture<'a, Result<Value, Trouble>> {
        Box::pin(self.send(letter))
    }

    fn close<'a>(&'a self, place: &'a Value, review: &'a ReviewRow) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async move {
            let place: Place = serde_json::from_value(place.clone())
                .map_err(|_| Trouble::Lasting("it is not known where the message stands".into()))?;
            Ok(self.api.update(&place, &blocks::closed(review, &self.look)).await?)
        })
    }
}
