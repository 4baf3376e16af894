//! The clock: renews the node's lease, frees the runs of lost nodes, lets overdue reviews expire, and
//! asks the supervisor to look for runs that are due. A missed tick is made up for by the next one.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::domain::event::Verdict;
use crate::orchestrator::engine::Engine;
use crate::orchestrator::supervisor;
use crate::store::StoreError;

/// How often the clock ticks: the longest a hint that was lost delays a run.
const TICK: Duration = Duration::from_secs(1);

/// How long a lease lasts: a node that is silent for this long is taken for lost. Ten missed ticks.
pub const LEASE_SECS: f64 = 10.0;

/// The clock of one node.
pub struct Clock {
    /// What the actors share.
    pub engine: Arc<Engine>,
    /// Whom to wake.
    pub supervisor: ActorRef<supervisor::Msg>,
}

/// What the clock is told.
pub enum Msg {
    /// A second has passed.
    Tick,
    /// What was to be done at the last tick is done.
    Done,
}

impl Actor for Clock {
    type Msg = Msg;
    /// Whether the work of the last tick is still under way: a slow database must not pile ticks up.
    type State = bool;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<bool, ActorProcessingErr> {
        let _ = myself.cast(Msg::Tick);
        myself.send_interval(TICK, || Msg::Tick);
        Ok(false)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        busy: &mut bool,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Tick if *busy => {}
            Msg::Tick => {
                *busy = true;
                let (engine, supervisor) = (self.engine.clone(), self.supervisor.clone());
                tokio::spawn(async move {
                    let work = tokio::spawn(async move { tick(&engine).await });
                    match work.await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(%error, "the clock's work failed; the next tick tries again")
                        }
                        Err(crash) => {
                            tracing::error!(%crash, "the clock's work crashed; the next tick tries again")
                        }
                    }
                    let _ = supervisor.cast(supervisor::Msg::Wake(None));
                    let _ = myself.cast(Msg::Done);
                });
            }
            Msg::Done => *busy = false,
        }
        Ok(())
    }
}

async fn tick(engine: &Engine) -> Result<(), StoreError> {
    if !engine.store.renew_node(engine.node, LEASE_SECS).await? {
        tracing::error!("this node's lease was lost; its runs go on elsewhere");
        engine.store.register_node(engine.node, LEASE_SECS, false).await?;
    }
    engine.store.free_runs_of_lost_nodes().await?;
    for (review, digest) in engine.store.overdue_reviews().await? {
        // Losing the race against a person is fine: one decision, ever.
        let _ = engine.store.decide(review, digest, &Verdict::Expired, "deadline").await;
    }
    Ok(())
}
