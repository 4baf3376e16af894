//! The courier: tells the owner what waits for him and what he should know. All it knows is in the
//! database: a review that is due to be told becomes messages (`messages_out`), a message is taken by
//! one node, sent over its channel, and later made to say how its review ended.
//!
//! It looks when something has moved, and every second: a hint that was lost costs a second.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::config::channels::Channels;
use crate::domain::ladder::ChannelName;
use crate::domain::notice::{NoticeKind, Severity};
use crate::domain::run::RunStatus;
use crate::orchestrator::engine::Engine;
use crate::reviews::channel::{Channel, Letter, Says, Trouble};
use crate::reviews::escalate;
use crate::store::StoreError;
use crate::store::messages::{About, MessageRow};
use crate::store::notices::News;

/// The longest sleep: other nodes write too.
const POLL: Duration = Duration::from_secs(1);

/// The shortest time between two rounds: thousands of runs a second that end must not become thousands of rounds.
/// The first hint after a pause is followed at once.
const PACE: Duration = Duration::from_millis(100);

/// How long one message may take on its way; a mail server thinks about it for a while.
const ON_ITS_WAY: Duration = Duration::from_secs(30);

/// How long a message that was taken is nobody else's: it has failed by then.
const HOLD: Duration = Duration::from_secs(60);

/// Messages on their way at once.
const AT_ONCE: i64 = 8;

/// How often a message is tried; with pauses that double from [`PAUSE`] on, more than a day.
const ATTEMPTS: i32 = 12;

/// The pause after the first failure.
const PAUSE: Duration = Duration::from_secs(30);

/// Tells the owner, for one node.
pub struct Courier {
    work: JoinHandle<()>,
}

struct Desk {
    engine: Arc<Engine>,
    config: Channels,
    zone: TimeZone,
    channels: Vec<Arc<dyn Channel>>,
    names: Vec<ChannelName>,
    /// Channels that are known to work: of these nothing need be noted. What was before this start is not
    /// known.
    works: Mutex<BTreeSet<String>>,
    /// The day whose digest is on its way.
    digested: Mutex<Option<Date>>,
}

impl Courier {
    /// Begins, with the channels there are.
    #[must_use]
    pub fn start(
        engine: Arc<Engine>,
        config: Channels,
        zone: TimeZone,
        channels: Vec<Arc<dyn Channel>>,
    ) -> Self {
        let names = channels.iter().map(|channel| channel.name()).collect();
        let desk = Arc::new(Desk {
            engine,
            config,
            zone,
            channels,
            names,
            works: Mutex::default(),
            digested: Mutex::default(),
        });
        Self { work: tokio::spawn(desk.work()) }
    }

    /// Ends. What was on its way may have got through: the next start sends it again, under its id.
    pub async fn stop(self) {
        self.work.abort();
        let _ = self.work.await; // it was cancelled
    }
}

impl Desk {
    async fn work(self: Arc<Self>) {
        let mut moved = self.engine.moved.subscribe();
        let mut escalated: Option<Instant> = None;
        loop {
            let begun = Instant::now();
            let escalates = escalated.is_none_or(|at| at.elapsed() >= POLL);
            escalated = if escalates { Some(begun) } else { escalated };
            // A task of its own: a crash must not end the courier.
            let round = self.clone();
            match tokio::spawn(async move { round.round(escalates).await }).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the owner could not be told; the next look comes in a second");
                }
                Err(crash) => tracing::error!(%crash, "the courier crashed; the next look comes in a second"),
            }
            let waiting = async {
                loop {
                    match moved.recv().await {
                        Ok(moved) if matches!(moved.status, RunStatus::Waiting | RunStatus::Over(_)) => {
                            return;
                        }
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => return,
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            tokio::select! {
                () = waiting => {}
                () = self.engine.news.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
            tokio::time::sleep_until(begun + PACE).await;
        }
    }

    /// Does everything there is to do now; what is only found by looking for it, when it `escalates`.
    async fn round(&self, escalates: bool) -> Result<(), StoreError> {
        if self.engine.lease.surely().is_none() {
            return Ok(()); // the others do it meanwhile
        }
        let store = &self.engine.store;
        for standing in store.reviews_to_tell(100).await? {
            let ladder = self.config.ladder(standing.review.question.class());
            let climb = standing.climb(&ladder, self.engine.now(), self.config.quiet.as_ref(), &self.zone);
            store.climb(standing.review.id, standing.rung, &climb).await?;
        }
        if escalates {
            escalate::look(&self.engine).await?;
            self.digest(self.engine.now()).await?;
        }
        store.tell_notices(&self.by_severity()).await?;
        loop {
            let taken = store.take_messages(&self.names, HOLD, AT_ONCE).await?;
            let over = store.take_messages_to_close(&self.names, HOLD, AT_ONCE).await?;
            if taken.is_empty() && over.is_empty() {
                return Ok(());
            }
            // All of them are seen through, whatever becomes of one: what got through has to be noted.
            let sending: FuturesUnordered<_> = taken.iter().map(|message| self.send(message)).collect();
            let sent: Vec<_> = sending.collect().await;
            let closing: FuturesUnordered<_> = over.iter().map(|message| self.close(message)).collect();
            let closed: Vec<_> = closing.collect().await;
            sent.into_iter().chain(closed).collect::<Result<(), _>>()?;
        }
    }

    fn by_severity(&self) -> Vec<(&'static str, BTreeSet<ChannelName>)> {
        let all = [Severity::Info, Severity::Warning, Severity::Critical];
        all.map(|severity| (severity.as_str(), self.config.notices(severity))).into()
    }

    /// Once a day, from its time on. A day on which Steward did not run at that time gets it late.
    async fn digest(&self, now: Timestamp) -> Result<(), StoreError> {
        let Some(digest) = &self.config.digest else { return Ok(()) };
        let here = now.to_zoned(self.zone.clone());
        let is_sent = || *self.digested.lock().unwrap_or_else(PoisonError::into_inner) == Some(here.date());
        if here.time() < digest.at || is_sent() {
            return Ok(());
        }
        self.engine.store.send_digest(here.date(), &digest.channels).await?;
        *self.digested.lock().unwrap_or_else(PoisonError::into_inner) = Some(here.date());
        Ok(())
    }

    fn channel(&self, message: &MessageRow) -> Option<&dyn Channel> {
        self.channels.iter().find(|it| it.name().as_str() == message.channel).map(AsRef::as_ref)
    }

    async fn send(&self, message: &MessageRow) -> Result<(), StoreError> {
        let (store, Some(channel)) = (&self.engine.store, self.channel(message)) else { return Ok(()) };
        let letter = |says| Letter { id: message.id, again: message.attempts > 1, says };
        let sent = match message.about {
            About::Ask(id) | About::Remind(id) => {
                let Some(review) = store.review(id).await? else { return Ok(()) };
                let says = match message.about {
                    About::Remind(_) => Says::Remind { review: &review, first: message.place.as_ref() },
                    _ => Says::Ask(&review),
                };
                in_time(channel.deliver(letter(says))).await
            }
            About::Notice(id) => {
                let Some(notice) = store.one_notice(id).await? else { return Ok(()) };
                in_time(channel.deliver(letter(Says::Notice(&notice)))).await
            }
            About::Digest(day) => in_time(channel.deliver(letter(Says::Digest(day)))).await,
        };
        match sent {
            Ok(place) => {
                store.message_sent(message.id, &place).await?;
                self.gets_through(&message.channel).await
            }
            Err(trouble) => self.failed(message, &trouble).await,
        }
    }

    /// A channel that works again is told no longer as one that does not.
    async fn gets_through(&self, channel: &str) -> Result<(), StoreError> {
        let newly = self.works.lock().unwrap_or_else(PoisonError::into_inner).insert(channel.to_owned());
        if newly {
            self.engine.store.notice_over(NoticeKind::ChannelFailed, channel).await?;
        }
        Ok(())
    }

    /// A message that did not get through is tried again, later and later. The owner is told over the
    /// other channels once it is clear that this one does not work.
    async fn failed(&self, message: &MessageRow, trouble: &Trouble) -> Result<(), StoreError> {
        let store = &self.engine.store;
        let doublings = u32::try_from(message.attempts - 1).unwrap_or(0).min(10);
        let pause = (message.attempts < ATTEMPTS).then(|| PAUSE * 2u32.pow(doublings));
        tracing::warn!(channel = message.channel, message = %message.id, attempt = message.attempts,
            error = %trouble, "a message to the owner did not get through");
        store.message_failed(message.id, &trouble.to_string(), pause).await?;
        let about_trouble = matches!(message.about, About::Notice(_));
        if !about_trouble && (matches!(trouble, Trouble::Lasting(_)) || message.attempts == 3) {
            let news = News {
                kind: NoticeKind::ChannelFailed,
                subject: &message.channel,
                severity: Severity::Critical,
                title: &format!("Messages over {} do not get through", message.channel),
                detail: &trouble.to_string(),
                run: None,
            };
            self.works.lock().unwrap_or_else(PoisonError::into_inner).remove(&message.channel);
            store.notice(&news).await?;
        }
        Ok(())
    }

    async fn close(&self, message: &MessageRow) -> Result<(), StoreError> {
        let (store, Some(channel)) = (&self.engine.store, self.channel(message)) else { return Ok(()) };
        let (About::Ask(id) | About::Remind(id), Some(place)) = (message.about, &message.place) else {
            return store.message_closed(message.id).await;
        };
        let Some(review) = store.review(id).await? else { return store.message_closed(message.id).await };
        match in_time(channel.close(place, &review)).await {
            Ok(()) => store.message_closed(message.id).await,
            // It is taken again once it is nobody's.
            Err(Trouble::Passing(error)) => {
                tracing::warn!(%error, message = %message.id, "a message still asks what is decided");
                Ok(())
            }
            Err(Trouble::Lasting(error)) => {
                tracing::warn!(%error, message = %message.id, "a message cannot be made to say that it is decided");
                store.message_closed(message.id).await
            }
        }
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let late = || Trouble::Passing(format!("no answer within {} s", ON_ITS_WAY.as_secs()));
    timeout(ON_ITS_WAY, work).await.unwrap_or_else(|_| Err(late()))
}
