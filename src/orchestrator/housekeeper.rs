//! The housekeeper: what a database of years needs now and then and nobody waits for. It keeps the
//! journal's months ahead of time, removes runs whose retention is over, events that nobody will wait
//! for and what else is cleared by its age, and drops the months that are left empty. Nothing depends on its being
//! on time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::AbortHandle;

use crate::domain::duration::Span;
use crate::domain::retention::Keep;
use crate::orchestrator::engine::Engine;
use crate::store::calls::CACHE_SIZE;
use crate::store::leftovers::{Leftover, PORTION};
use crate::store::memory::cache;
use crate::store::{StoreError, partitions};

/// How often it looks: months are made a quarter of a year ahead, and retention counts in days.
const EVERY: Duration = Duration::from_secs(600);

/// For each moment of removing it rests this many: a fifth of one connection, whatever there is to remove.
const REST: u32 = 4;

/// How long an event from outside can be older than the wait for it.
const EVENTS_KEPT: Keep = days(30);

/// How long it is remembered that a reply was dealt with, once its question is over: mail servers repeat for up
/// to five days (RFC 5321, 4.5.4.1), and what is about a question that is over does nothing anyway.
const REPLIES_KEPT: Keep = days(30);

/// How long a link to a review is known when it is no longer good: whoever follows an old one is told so, rather
/// than that it is none.
const LINKS_KEPT: Keep = days(30);

/// How long a link to sign in with, or a session, is known after it was over: nothing is told of either.
const SESSIONS_KEPT: Keep = days(1);

/// How long it is known that the digest of a day was sent: nobody asks about any day but today's.
const DIGESTS_KEPT: Keep = days(30);

/// How long a batch is kept that is over: as long as its provider has its files, for whoever asks there about one.
const BATCHES_KEPT: Keep = days(30);

/// How long it is known that a share of a budget was told: longer than any day or month that has a budget.
const THRESHOLDS_KEPT: Keep = days(90);

/// How long it is counted what was decided and edited in runs that have gone: a year can be held against the one
/// before. What the newest version of a workflow is judged by stays.
const TALLIES_KEPT: Keep = days(2 * 366);

/// The shortest rest between two steps, so that a walk past many runs that stay is no busy loop.
const SHORTEST_REST: Duration = Duration::from_millis(20);

/// The housekeeper of one node.
pub struct Housekeeper {
    /// What the actors share.
    pub engine: Arc<Engine>,
}

/// What the housekeeper is told.
pub enum Msg {
    /// Time to look.
    Look,
    /// The last look is over.
    Done,
}

impl Actor for Housekeeper {
    type Msg = Msg;
    /// The look that is under way: it may take hours when a retention is new and must not be doubled.
    type State = Option<AbortHandle>;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        let _ = myself.cast(Msg::Look);
        myself.send_interval(EVERY, || Msg::Look);
        Ok(None)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        under_way: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Look if under_way.is_some() => {}
            Msg::Look => {
                let engine = self.engine.clone();
                let work = tokio::spawn(async move { look(&engine).await });
                *under_way = Some(work.abort_handle());
                tokio::spawn(async move {
                    match work.await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(%error, "housekeeping failed; the next look goes on with it")
                        }
                        Err(stop) if stop.is_cancelled() => {}
                        Err(crash) => {
                            tracing::error!(%crash, "housekeeping crashed; the next look goes on with it")
                        }
                    }
                    let _ = myself.cast(Msg::Done);
                });
            }
            Msg::Done => *under_way = None,
        }
        Ok(())
    }

    /// A look that is stopped in the middle has lost nothing: each of its transactions is whole.
    async fn post_stop(
        &self,
        _: ActorRef<Msg>,
        under_way: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(work) = under_way.take() {
            work.abort();
        }
        Ok(())
    }
}

async fn look(engine: &Engine) -> Result<(), StoreError> {
    let store = &engine.store;
    // The database's clock: a node whose own is wrong must not remove what is still to be kept.
    if store.claim_sweep(store.database_time().await?).await? {
        sweep(engine).await?;
        clear(engine).await?;
    }
    forget_calls(engine).await?;
    let (made, dropped) = partitions::look_after(store.config(), store.database_time().await?).await?;
    for month in made {
        tracing::info!(month = %month.partition(), "made a partition for a month of the journal");
    }
    for month in dropped {
        tracing::info!(month = %month.partition(), "dropped an empty month of the journal");
    }
    while store.keep_edits().await? > 0 {}
    Ok(())
}

/// What was said to models goes when its time is up, at the same pace; every node may do it, for none waits.
async fn forget_calls(engine: &Engine) -> Result<(), StoreError> {
    let store = &engine.store;
    store.trim_cache(CACHE_SIZE).await?;
    store.trim_embeddings(cache::CACHE_SIZE).await?;
    let Some(before) = engine.calls_kept.horizon(store.database_time().await?) else { return Ok(()) };
    let mut erased = 0;
    loop {
        let begun = Instant::now();
        match store.erase_calls_before(before).await? {
            0 => break,
            some => erased += some,
        }
        tokio::time::sleep((begun.elapsed() * REST).max(SHORTEST_REST)).await;
    }
    if erased > 0 {
        tracing::info!(erased, "what was said to models in calls whose time is up was removed");
    }
    Ok(())
}

/// A whole pass, at a pace that leaves the database to those who are in a hurry.
async fn sweep(engine: &Engine) -> Result<(), StoreError> {
    let (mut removed, mut stayed) = (0, 0);
    loop {
        let now = engine.store.database_time().await?;
        let begun = Instant::now();
        let swept = engine.store.sweep(&engine.retention, now).await?;
        removed += swept.removed;
        stayed += swept.stayed;
        if swept.done {
            break;
        }
        tokio::time::sleep((begun.elapsed() * REST).max(SHORTEST_REST)).await;
    }
    let before = engine.retention.default.horizon(engine.store.database_time().await?);
    while engine.store.archive_spend(before).await? {}
    if removed > 0 || stayed > 0 {
        tracing::info!(removed, stayed, "runs whose retention is over were removed");
    }
    Ok(())
}

/// What does not go with a run, at the same pace. What fails is no reason to leave the rest.
async fn clear(engine: &Engine) -> Result<(), StoreError> {
    let mut first = Ok(());
    for leftover in Leftover::ALL {
        let cleared = clear_one(engine, leftover).await;
        if let Err(error) = &cleared {
            tracing::warn!(%error, ?leftover, "what is past its time could not be cleared");
        }
        first = first.and(cleared);
    }
    first
}

async fn clear_one(engine: &Engine, leftover: Leftover) -> Result<(), StoreError> {
    let store = &engine.store;
    let keep = match leftover {
        Leftover::Events => EVENTS_KEPT,
        Leftover::Notices => engine.notices_kept,
        Leftover::Digests => DIGESTS_KEPT,
        Leftover::Replies => REPLIES_KEPT,
        Leftover::Links => LINKS_KEPT,
        Leftover::SignIns | Leftover::Sessions => SESSIONS_KEPT,
        Leftover::BatchCalls | Leftover::Batches => BATCHES_KEPT,
        Leftover::Thresholds => THRESHOLDS_KEPT,
        Leftover::Edits | Leftover::Decisions => TALLIES_KEPT,
    };
    let Some(before) = keep.horizon(store.database_time().await?) else { return Ok(()) };
    let mut cleared = 0;
    loop {
        let begun = Instant::now();
        let some = store.clear(leftover, before).await?;
        cleared += some;
        if some < PORTION {
            break;
        }
        tokio::time::sleep((begun.elapsed() * REST).max(SHORTEST_REST)).await;
    }
    if cleared > 0 {
        tracing::info!(?leftover, cleared, "what is past its time was cleared");
    }
    Ok(())
}

const fn days(days: u64) -> Keep {
    Keep::For(Span::secs(days * 24 * 60 * 60))
}
