//! What handlers share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::metrics::Scrapes;
use crate::api::problem::{Kind, Problem};
use crate::api::session::Web;
use crate::config::secret::Secret;
use crate::config::workspace::Definitions;
use crate::domain::digest::Digest;
use crate::orchestrator::door::Door;
use crate::reviews::email::Desk;
use crate::reviews::slack::Slack;
use crate::store::Store;
use crate::triggers::mail::Mailroom;

/// Requests served at once: more than any screen asks for, few enough to fit in memory.
const IN_FLIGHT: usize = 256;

/// The same for those who have not shown anything yet: whoever keeps all of these places busy, and sends a body
/// a byte at a time, takes none of the owner's.
const STRANGERS: usize = 128;

/// Emails taken at once: each is up to 25 MiB, held twice while it is read.
const EMAILS: usize = 4;

/// Watchers served at once: each holds a connection and asks the database once a second.
const WATCHERS: usize = 64;

/// What handlers share; cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The way to the orchestrator.
    pub door: Door,
    /// Where mail comes in.
    pub mail: Arc<Mailroom>,
    /// Mail to the owner, where there is any.
    pub desk: Option<Arc<Desk>>,
    /// What the owner wrote.
    pub definitions: Arc<Definitions>,
    /// SHA-256 of the bearer token; the token itself is not kept.
    pub token_digest: Digest,
    /// The key of signatures on `/hooks/email` (`STEWARD_EMAIL_HOOK_SECRET`); without it only the token opens it.
    pub email_secret: Option<Arc<Secret>>,
    /// How the pages are served.
    pub web: Arc<Web>,
    /// The owner's Slack, if he has one.
    pub slack: Option<Arc<Slack>>,
    /// SHA-256 of a token that reads `/metrics` and nothing else (`STEWARD_METRICS_TOKEN`).
    pub metrics_digest: Option<Digest>,
    pub(super) scrapes: Scrapes,
    pub(super) in_flight: Arc<Semaphore>,
    pub(super) strangers: Arc<Semaphore>,
    pub(super) emails: Arc<Semaphore>,
    pub(super) watchers: Arc<Semaphore>,
}

impl ApiState {
    /// The state of one service.
    #[must_use]
    pub fn new(
        door: Door,
        definitions: Arc<Definitions>,
        (mail, desk): (Arc<Mailroom>, Option<Arc<Desk>>),
        token: &Secret,
        email_secret: Option<Secret>,
        web: Web,
    ) -> Self {
        Self {
            door,
            mail,
            desk,
            definitions,
            token_digest: Digest::of_bytes(token.expose().as_bytes()),
            email_secret: email_secret.map(Arc::new),
            web: Arc::new(web),
            slack: None,
            metrics_digest: None,
            scrapes: Scrapes::default(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            emails: Arc::new(Semaphore::new(EMAILS)),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
        }
    }

    /// Lets a scraper in with a token of its own.
    #[must_use]
    pub fn with_metrics_token(self, token: Option<&Secret>) -> Self {
        let digest = token.map(|token| Digest::of_bytes(token.expose().as_bytes()));
        Self { metrics_digest: digest, ..self }
    }

    /// The same with the owner's Slack.
    #[must_use]
    pub fn with_slack(self, slack: Option<Arc<Slack>>) -> Self {
        Self { slack, ..self }
    }

    /// A place among those who watch.
    ///
    /// # Errors
    /// 429 when all of them are taken.
    pub fn watcher(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy = |_| Problem::new(Kind::Busy, "as many as can be served are watching");
        self.watchers.clone().try_acquire_owned().map_err(busy)
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.door.engine().store
    }
}
