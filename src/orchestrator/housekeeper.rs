//! The housekeeper: what a database of years needs now and then and nobody waits for. It keeps the
//! journal's months ahead of time, removes runs whose retention is over and events that nobody will wait
//! for, and drops the months that are left empty. Nothing depends on its being on time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::AbortHandle;

use crate::domain::retention::Keep;
use crate::orchestrator::engine::Engine;
use crate::store::calls::CACHE_SIZE;
use crate::store::memory::cache;
use crate::store::{StoreError, partitions};

/// How often it looks: months are made a quarter of a year ahead, and retention counts in days.
const EVERY: Duration = Duration::from_secs(600);

/// For each moment of removing it rests this many: a fifth of one connection, whatever there is to remove.
const REST: u32 = 4;

/// How long an event from outside can be older than the wait for it.
const EVENTS_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

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
    let kept_since = store.database_time().await?.saturating_sub(EVENTS_KEPT).unwrap_or(Timestamp::MIN);
    store.forget_events(kept_since).await?;
    // The database's clock: a node whose own is wrong must not remove what is still to be kept.
    if store.claim_sweep(store.database_time().await?).await? {
        sweep(engine).await?;
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
    let Keep::For(span) = engine.calls_kept else { return Ok(()) };
    let kept = SignedDuration::try_from(span.0).unwrap_or(SignedDuration::MAX);
    let before = store.database_time().await?.saturating_sub(kept).unwrap_or(Timestamp::MIN);
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
    while engine.store.archive_spend().await? {}
    if removed > 0 || stayed > 0 {
        tracing::info!(removed, stayed, "runs whose retention is over were removed");
    }
    Ok(())
}
