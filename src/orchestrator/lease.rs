//! A node's lease: its right to act for the runs that name it as their owner.
//!
//! Every lease has a node id of its own. A node that lost its lease comes back under a new id, so that
//! whatever it still has under way under the old one, in a queue, in a statement or in a paused
//! process, is refused by the fence of every commit: no run names the old id any more, and none ever
//! will again, not even when the same process claims the same run at the same sequence number.
//!
//! The database says how long a lease lasts. What this process knows of it is the moment until which it
//! lasts **for sure**: no effect begins after that until the lease is known to hold again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use crate::domain::ids::NodeId;
use crate::orchestrator::engine::Clock;
use crate::store::{Store, StoreError};
use crate::time::{DatabaseTime, uptime};

/// How long a lease lasts: a node that is silent for this long is taken for lost. Ten missed renewals,
/// so that a database that restarts in between costs nobody anything.
pub const LEASE: Duration = Duration::from_secs(10);

/// The part of a lease, one in this many, that is left to the way from looking at it to acting on it.
const MARGIN: u32 = 5;

/// One renewal may take one part of the lease in this many: a dead connection must leave time for another.
const PATIENCE: u32 = 3;

/// The lease of a node, and the database's clock as far as its renewals tell.
pub struct Lease {
    length: Duration,
    held: watch::Sender<Held>,
    time: DatabaseTime,
}

#[derive(Clone, Copy)]
struct Held {
    node: NodeId,
    /// The [`uptime`] until which it holds for sure.
    until: Duration,
    /// Gone for good: nothing begins under it any more.
    lost: bool,
}

impl Lease {
    /// Takes a first lease. `alone` as in [`Store::register_node`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn take(store: &Store, length: Duration, alone: bool) -> Result<Arc<Self>, StoreError> {
        let node = NodeId(Uuid::new_v4());
        let sent = uptime();
        let told = store.register_node(node, length, alone).await?;
        let time = DatabaseTime::new(told, sent, uptime());
        let held = Held { node, until: surely(sent, length), lost: false };
        Ok(Arc::new(Self { length, held: watch::Sender::new(held), time }))
    }

    /// How long a lease lasts.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Under which name this node acts. It stays its name when the lease may be over: whether the
    /// database agrees is found out by the fence.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.held.borrow().node
    }

    /// Under which name this node acts, if it may do so for sure at this moment.
    #[must_use]
    pub fn surely(&self) -> Option<NodeId> {
        let held = *self.held.borrow();
        (!held.lost && uptime() < held.until).then_some(held.node)
    }

    /// Whether `node` is the name of a lease that is not known to be lost.
    #[must_use]
    pub fn is(&self, node: NodeId) -> bool {
        let held = *self.held.borrow();
        held.node == node && !held.lost
    }

    /// Waits until `node`'s lease holds for sure; gives false once it never will again.
    pub async fn holds(&self, node: NodeId) -> bool {
        let mut changes = self.held.subscribe();
        loop {
            let held = *changes.borrow_and_update();
            if held.node != node || held.lost {
                return false;
            }
            if uptime() < held.until {
                return true;
            }
            if changes.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Renews the lease; gives false when it is lost.
    ///
    /// # Errors
    /// When the database does not answer in time: the lease may still hold.
    pub async fn renew(&self, store: &Store) -> Result<bool, StoreError> {
        let (node, sent) = (self.node(), uptime());
        let asked = tokio::time::timeout(self.length / PATIENCE, store.renew_node(node, self.length));
        let Some(told) = asked.await.map_err(|_| silent())?? else { return Ok(false) };
        self.time.correct(told, sent, uptime());
        self.held.send_modify(|held| held.until = surely(sent, self.length));
        Ok(true)
    }

    /// Takes note that the lease is gone: nothing begins under its name any more.
    pub fn lose(&self) {
        self.held.send_modify(|held| held.lost = true);
    }

    /// Whether the lease is gone and no new one is taken yet.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.held.borrow().lost
    }

    /// Takes a new lease, under a new name. Whatever acted under the old one must have ended before.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn take_anew(&self, store: &Store) -> Result<(), StoreError> {
        let (node, sent) = (NodeId(Uuid::new_v4()), uptime());
        let asked =
            tokio::time::timeout(self.length / PATIENCE, store.register_node(node, self.length, false));
        let told = asked.await.map_err(|_| silent())??;
        self.time.correct(told, sent, uptime());
        self.held.send_replace(Held { node, until: surely(sent, self.length), lost: false });
        Ok(())
    }

    /// The present moment by the database's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// [`Lease::now`] as the engine's clock.
    #[must_use]
    pub fn clock(self: &Arc<Self>) -> Clock {
        let lease = self.clone();
        Arc::new(move || lease.now())
    }
}

/// The database counts the lease from a moment after `sent`.
fn surely(sent: Duration, length: Duration) -> Duration {
    sent + length - length / MARGIN
}

fn silent() -> StoreError {
    StoreError::Unavailable("it did not renew the lease in time".into())
}
