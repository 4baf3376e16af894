//! What carries messages over one channel: takes those that are due, sends them, and makes those that were sent
//! say how their review ended. A channel that hangs holds up nothing but its own.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::{PACE, POLL, seen_through};
use crate::domain::digest::Digest;
use crate::domain::ids::{NoticeId, ReviewId};
use crate::domain::ladder::ChannelName;
use crate::domain::notice::{NoticeKind, Severity};
use crate::orchestrator::engine::Engine;
use crate::reviews::channel::{Channel, Letter, Says, Trouble};
use crate::store::StoreError;
use crate::store::messages::{About, MessageRow};
use crate::store::notices::{News, NoticeRow};
use crate::store::reviews::ReviewRow;

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

/// One channel.
pub(super) struct Lane {
    engine: Arc<Engine>,
    channel: Arc<dyn Channel>,
    name: ChannelName,
    /// Whether it is known to work: nothing need be noted then. What was before this start is not known.
    works: AtomicBool,
    /// Something may be due. A hint: it looks every second anyway.
    pub(super) due: Arc<Notify>,
}

/// What messages are about, looked up for all of them together.
struct Subjects {
    reviews: BTreeMap<ReviewId, (ReviewRow, Digest)>,
    notices: BTreeMap<NoticeId, NoticeRow>,
}

impl Lane {
    pub(super) fn new(engine: Arc<Engine>, channel: Arc<dyn Channel>) -> Self {
        let name = channel.name();
        Self { engine, channel, name, works: AtomicBool::new(false), due: Arc::default() }
    }

    pub(super) async fn work(self: Arc<Self>) {
        loop {
            let begun = Instant::now();
            let round = self.clone();
            seen_through(async move { round.round().await }).await;
            tokio::select! {
                () = self.due.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
            tokio::time::sleep_until(begun + PACE).await;
        }
    }

    /// Carries everything there is now.
    async fn round(&self) -> Result<(), StoreError> {
        if self.engine.lease.surely().is_none() {
            return Ok(()); // the others do it meanwhile
        }
        let store = &self.engine.store;
        loop {
            let taken = store.take_messages(slice::from_ref(&self.name), HOLD, AT_ONCE).await?;
            let over = store.take_messages_to_close(slice::from_ref(&self.name), HOLD, AT_ONCE).await?;
            if taken.is_empty() && over.is_empty() {
                return Ok(());
            }
            let subjects = self.subjects(taken.iter().chain(&over)).await?;
            // All of them are seen through, whatever becomes of one: what got through has to be noted.
            let sending: FuturesUnordered<_> =
                taken.iter().map(|message| self.send(message, &subjects)).collect();
            let closing: FuturesUnordered<_> =
                over.iter().map(|message| self.close(message, &subjects)).collect();
            let (sent, closed) = tokio::join!(sending.collect::<Vec<_>>(), closing.collect::<Vec<_>>());
            sent.into_iter().chain(closed).collect::<Result<(), _>>()?;
        }
    }

    async fn subjects(
        &self,
        messages: impl Iterator<Item = &MessageRow> + Clone,
    ) -> Result<Subjects, StoreError> {
        let reviews = messages.clone().filter_map(|message| match message.about {
            About::Ask(id) | About::Remind(id) => Some(id),
            About::Notice(_) | About::Digest(_) => None,
        });
        let notices = messages.filter_map(|message| match message.about {
            About::Notice(id) => Some(id),
            About::Ask(_) | About::Remind(_) | About::Digest(_) => None,
        });
        let store = &self.engine.store;
        let (reviews, notices): (Vec<_>, Vec<_>) = (reviews.collect(), notices.collect());
        let notices = store.notices_by_id(&notices).await?;
        Ok(Subjects {
            reviews: store.reviews_by_id(&reviews).await?,
            notices: notices.into_iter().map(|notice| (notice.id, notice)).collect(),
        })
    }

    async fn send(&self, message: &MessageRow, subjects: &Subjects) -> Result<(), StoreError> {
        let letter = |says| Letter { id: message.id, again: message.attempts > 1, says };
        let says = match message.about {
            About::Ask(id) | About::Remind(id) => {
                let Some((review, _)) = subjects.reviews.get(&id) else { return Ok(()) };
                match message.about {
                    About::Remind(_) => Says::Remind { review, first: message.place.as_ref() },
                    _ => Says::Ask(review),
                }
            }
            About::Notice(id) => {
                let Some(notice) = subjects.notices.get(&id) else { return Ok(()) };
                Says::Notice(notice)
            }
            About::Digest(day) => Says::Digest(day),
        };
        match in_time(self.channel.deliver(letter(says))).await {
            Ok(place) => {
                self.engine.store.message_sent(message.id, &place).await?;
                self.gets_through().await
            }
            Err(trouble) => self.failed(message, &trouble).await,
        }
    }

    /// A channel that works again is told no longer as one that does not.
    async fn gets_through(&self) -> Result<(), StoreError> {
        if !self.works.swap(true, Ordering::Relaxed) {
            self.engine.store.notice_over(NoticeKind::ChannelFailed, self.name.as_str()).await?;
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
            self.works.store(false, Ordering::Relaxed);
            store.notice(&news).await?;
        }
        Ok(())
    }

    async fn close(&self, message: &MessageRow, subjects: &Subjects) -> Result<(), StoreError> {
        let store = &self.engine.store;
        let (About::Ask(id) | About::Remind(id), Some(place)) = (message.about, &message.place) else {
            return store.message_closed(message.id).await;
        };
        let Some((review, _)) = subjects.reviews.get(&id) else {
            return store.message_closed(message.id).await;
        };
        match in_time(self.channel.close(place, review)).await {
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
