//! The courier: tells the owner what waits for him and what he should know. All it knows is in the
//! database: a review that is due to be told becomes messages (`messages_out`), a message is taken by
//! one node, sent over its channel, and later made to say how its review ended.
//!
//! Here: what makes messages due. [`lane`] carries them, one task for each channel.
//!
//! It looks when something has moved, and every second: a hint that was lost costs a second.

mod lane;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use self::lane::Lane;
use crate::config::channels::Channels;
use crate::domain::ladder::ChannelName;
use crate::domain::notice::Severity;
use crate::domain::run::RunStatus;
use crate::orchestrator::engine::Engine;
use crate::reviews::channel::Channel;
use crate::reviews::escalate;
use crate::store::StoreError;
use crate::store::messages::Standing;

/// The longest sleep: other nodes write too.
const POLL: Duration = Duration::from_secs(1);

/// The shortest time between two rounds: thousands of runs a second that end must not become thousands of rounds.
/// The first hint after a pause is followed at once.
const PACE: Duration = Duration::from_millis(100);

/// Ladders climbed in one statement.
const LADDERS: i64 = 100;

/// Tells the owner, for one node.
pub struct Courier {
    tasks: JoinSet<()>,
}

struct Desk {
    engine: Arc<Engine>,
    config: Channels,
    zone: TimeZone,
    /// Tells the lanes that something may be due.
    due: Vec<Arc<Notify>>,
    /// The day whose digest is on its way.
    digested: Mutex<Option<Date>>,
}

impl Courier {
    /// Begins, with the channels there are: each has a lane of its own, so that one that hangs delays no other.
    #[must_use]
    pub fn start(
        engine: Arc<Engine>,
        config: Channels,
        zone: TimeZone,
        channels: Vec<Arc<dyn Channel>>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let mut due = Vec::new();
        for channel in channels {
            let lane = Arc::new(Lane::new(engine.clone(), channel));
            due.push(lane.due.clone());
            tasks.spawn(lane.work());
        }
        let desk = Desk { engine, config, zone, due, digested: Mutex::default() };
        tasks.spawn(Arc::new(desk).work());
        Self { tasks }
    }

    /// Ends. What was on its way may have got through: the next start sends it again, under its id.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
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
            let round = self.clone();
            seen_through(async move { round.round(escalates).await }).await;
            self.due.iter().for_each(|lane| lane.notify_one());
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
        let told = store.reviews_to_tell(LADDERS).await?;
        let climb = |standing: &Standing| {
            let ladder = self.config.ladder(standing.review.question.class());
            standing.climb(&ladder, self.engine.now(), self.config.quiet.as_ref(), &self.zone)
        };
        let climbs: Vec<_> = told.iter().map(|standing| (standing, climb(standing))).collect();
        store.climb(&climbs).await?;
        if escalates {
            escalate::look(&self.engine).await?;
            self.digest(self.engine.now()).await?;
        }
        store.tell_notices(&self.by_severity()).await
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
}

/// One round, in a task of its own: a crash must not end the courier. It ends with whoever waits for it.
async fn seen_through(round: impl Future<Output = Result<(), StoreError>> + Send + 'static) {
    let mut task = JoinSet::new();
    task.spawn(round);
    let ended: Option<Result<Result<(), StoreError>, JoinError>> = task.join_next().await;
    match ended {
        Some(Ok(Err(error))) => {
            tracing::warn!(%error, "the owner could not be told; the next look comes in a second");
        }
        Some(Err(crash)) => tracing::error!(%crash, "the courier crashed; the next look comes in a second"),
        Some(Ok(Ok(()))) | None => {}
    }
}
