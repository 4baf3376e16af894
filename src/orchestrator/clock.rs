//! The clock: renews the node's lease, and goes the rounds: frees the runs of lost nodes, counts the queue, lets overdue
//! reviews expire, and asks the supervisor to look for runs that are due. A missed tick is made up for
//! by the next one. The rounds never hold the renewal up: a slow question must not cost the lease.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, call_t};

use crate::domain::event::Verdict;
use crate::orchestrator::engine::Engine;
use crate::orchestrator::supervisor;
use crate::store::StoreError;

/// How often the clock ticks at least: the longest a hint that was lost delays a run.
const TICK: Duration = Duration::from_secs(1);

/// How often a node looks whether the owner holds something: no new effect begins a second later.
const LOOK: Duration = Duration::from_millis(400);

/// A lease is renewed this often while it lasts, or more often.
const RENEWALS: u32 = 5;

/// How much a tick may come early, as a share of it: nodes that were started together go apart.
const JITTER: f64 = 0.2;

/// How long ending everything may take once the lease is lost, milliseconds. What has not ended by
/// then is refused by the fence; it is only not waited for.
const ABANDON_MS: u64 = 5_000;

/// The clock of one node.
pub struct Clock {
    /// What the actors share.
    pub engine: Arc<Engine>,
    /// Whom to wake.
    pub supervisor: ActorRef<supervisor::Msg>,
}

/// What the clock is told.
pub enum Msg {
    /// Some time has passed.
    Tick,
    /// Look what the owner holds.
    Look,
    /// What was to be done at an earlier tick is done.
    Done(Duty),
}

/// What the clock does at a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duty {
    /// Keep the lease.
    Lease,
    /// Look after what is nobody's in particular.
    Rounds,
}

/// What is still under way from an earlier tick: a slow database must not pile ticks up.
#[derive(Default)]
pub struct State {
    lease: bool,
    rounds: bool,
}

impl State {
    fn busy(&mut self, duty: Duty) -> &mut bool {
        match duty {
            Duty::Lease => &mut self.lease,
            Duty::Rounds => &mut self.rounds,
        }
    }
}

impl Actor for Clock {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        let _ = myself.cast(Msg::Tick);
        myself.send_interval(LOOK, || Msg::Look);
        Ok(State::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Tick => {
                myself.send_after(self.pause(), || Msg::Tick);
                self.begin(&myself, state, Duty::Lease);
                self.begin(&myself, state, Duty::Rounds);
            }
            Msg::Done(duty) => *state.busy(duty) = false,
            Msg::Look => {
                let engine = self.engine.clone();
                tokio::spawn(async move {
                    if let Err(error) = engine.look_at_pauses().await {
                        tracing::warn!(%error, "what the owner holds cannot be read; what was held is held on");
                    }
                    if let Err(error) = engine.look_at_stages().await {
                        tracing::warn!(%error, "how far versions are trusted cannot be read; what was known counts");
                    }
                });
            }
        }
        Ok(())
    }
}

impl Clock {
    fn pause(&self) -> Duration {
        let tick = TICK.min(self.engine.lease.length() / RENEWALS);
        tick.mul_f64(1.0 - JITTER * rand::random::<f64>())
    }

    fn begin(&self, myself: &ActorRef<Msg>, state: &mut State, duty: Duty) {
        if std::mem::replace(state.busy(duty), true) {
            return;
        }
        let (engine, supervisor, myself) = (self.engine.clone(), self.supervisor.clone(), myself.clone());
        tokio::spawn(async move {
            let work = tokio::spawn(async move {
                match duty {
                    Duty::Lease => keep_lease(&engine, &supervisor).await,
                    Duty::Rounds => {
                        let done = tick(&engine, &supervisor).await;
                        let _ = supervisor.cast(supervisor::Msg::Wake(None));
                        done
                    }
                }
            });
            match work.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(?duty, %error, "the clock's work failed; the next tick tries again");
                }
                Err(crash) => {
                    tracing::error!(?duty, %crash, "the clock's work crashed; the next tick tries again");
                }
            }
            let _ = myself.cast(Msg::Done(duty));
        });
    }
}

/// Renews the lease. Where it is lost, everything this node has in motion ends before it comes back.
async fn keep_lease(engine: &Engine, supervisor: &ActorRef<supervisor::Msg>) -> Result<(), StoreError> {
    let lease = &engine.lease;
    if !lease.is_lost() {
        if lease.renew(&engine.store).await? {
            return Ok(());
        }
        lease.lose();
        tracing::error!(node = %lease.node(), "this node's lease was lost; its runs go on elsewhere");
    }
    if call_t!(supervisor, supervisor::Msg::Abandon, ABANDON_MS).is_err() {
        tracing::warn!("not everything had ended when the node came back; the fence refuses the rest");
    }
    lease.take_anew(&engine.store).await?;
    tracing::info!(node = %lease.node(), "this node is back under a new lease");
    Ok(())
}

async fn tick(engine: &Engine, supervisor: &ActorRef<supervisor::Msg>) -> Result<(), StoreError> {
    if engine.lease.surely().is_none() {
        return Ok(()); // the others go the rounds meanwhile
    }
    if engine.store.free_runs_of_lost_nodes().await? > 0 {
        engine.wakeups.due();
    }
    for run in engine.store.tell_untold().await? {
        let _ = supervisor.cast(supervisor::Msg::Wake(Some(run)));
    }
    engine.gate.count_begins();
    engine.gate.learn(engine.store.backlog().await?);
    for (review, digest) in engine.store.overdue_reviews().await? {
        // Losing the race against a person is fine: one decision, ever.
        if let Ok(run) = engine.store.decide(review, digest, &Verdict::Expired, "deadline").await {
            let _ = supervisor.cast(supervisor::Msg::Wake(Some(run)));
        }
    }
    Ok(())
}
