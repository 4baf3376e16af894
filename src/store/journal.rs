//! The journal and its group commit.
//!
//! A transition of a run is a value, [`Commit`]. [`Writer::write`] puts many of them into the
//! database as **one statement**: its first arms find the rows of the runs, guarded by owner and sequence
//! number, and update those that change; every other arm joins the runs that were accepted. One round trip, one implicit
//! transaction; a refused transition drops out by itself while the others land.
//!
//! - [`seal`] chains entries by hash; [`rows`] turns events into rows of effects and reviews;
//!   `queue` is what flow control adds;
//! - [`writer`] sends the `statements`; [`read`] loads, folds and verifies.

mod queue;
pub mod read;
mod rows;
pub mod seal;
mod statements;
pub mod writer;

use jiff::Timestamp;

use crate::domain::admission::Priority;
use crate::domain::digest::Digest;
use crate::domain::duration::Span;
use crate::domain::ids::{NodeId, RunId, WorkflowName};
use crate::domain::plan::{EffectKey, Rest};
use crate::store::StoreError;
use crate::store::events::Happening;
pub use seal::Sealed;
pub(super) use statements::PLANNING;
pub use writer::Writer;

/// One transition of one run.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Which run.
    pub run: RunId,
    /// Who claims to own it: the fence.
    pub node: NodeId,
    /// The last sequence number its owner knows: the other half of the fence.
    pub expected_seq: i64,
    /// What to append.
    pub entries: Vec<Sealed>,
    /// Whether its owner knows that the run's row says already that it is running.
    pub running: bool,
    /// What the run does next. A run that rests gives up its owner.
    pub rest: Rest,
    /// Stay the owner although nothing is under way: something is due within seconds.
    pub nap: bool,
    /// How many signals its owner has heard; if there are more, the run does not fall asleep.
    pub signals: i32,
    /// Topics of the inbox that this transition takes note of.
    pub heard: Vec<String>,
    /// The present moment.
    pub at: Timestamp,
    /// Told to the run that waits for this one's end.
    pub publish: Option<Happening>,
    /// Whether the run may hold a slot of its workflow's concurrency limit, to be given back when it ends.
    pub slot: bool,
}

impl Commit {
    /// Whether nothing of it changes the run's row, nor any other than the journal. What concerns effects and
    /// reviews always takes the row, and its lock: no two nodes may so much as begin an effect.
    fn keeps_row(&self) -> bool {
        self.running && self.rest == Rest::Busy && rows::Rows::of(&[self]).is_empty()
    }
}

/// A run to open.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its id.
    pub run: RunId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The version it is pinned to.
    pub version: Digest,
    /// Its title.
    pub title: String,
    /// The door it came through.
    pub trigger: String,
    /// The same key again opens nothing.
    pub key: String,
    /// Who begins with it at once; nobody when it has to wait for its turn.
    pub node: Option<NodeId>,
    /// How it waits, when nobody begins with it.
    pub queued: Option<Queued>,
    /// `run.opened`, sealed.
    pub entry: Sealed,
}

/// How a run waits for its turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queued {
    /// What it shares a limit and its turns with.
    pub key: String,
    /// How many of that key may be under way; any number when absent: it lacks only room.
    pub slots: Option<u32>,
    /// Its class.
    pub priority: Priority,
    /// How long it has to wait to overtake newer ones of the class above.
    pub ageing: Span,
}

/// What became of an [`Open`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// The run is new.
    New(RunId),
    /// This run had the key already.
    Existing(RunId),
}

impl Opened {
    /// The run that answers for the trigger.
    #[must_use]
    pub fn run(self) -> RunId {
        match self {
            Self::New(run) | Self::Existing(run) => run,
        }
    }
}

/// Why a [`Commit`] was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Somebody else owns the run now. Not a failure: the run goes on elsewhere.
    #[error("the run is owned by another node")]
    Fenced,
    /// Another effect holds the key.
    #[error("another effect holds the key `{}` of `{}`", .0.key, .0.action)]
    KeyTaken(EffectKey),
    /// The database refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
