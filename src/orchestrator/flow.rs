//! Who comes in: a run that finds room begins at once; any other waits in the queue for its turn; and
//! beyond what the queue takes the sender is told to come back. The numbers here are estimates of
//! what the database holds, exact but for what other nodes did within the last tick of the clock: the queue may
//! grow past its limit by that much, and nothing that was acknowledged is ever dropped.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::settings::Limits;
use crate::domain::admission::{Flow, Lane, Turns};
use crate::domain::ids::{NodeId, RunId};
use crate::orchestrator::engine::Engine;
use crate::store::StoreError;
use crate::store::admission::Backlog;

/// When a sender who was turned away should come back: five ticks of the clock, so that the queue has
/// moved if anything moves, and a thousand senders in wait cost little.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How the runs of one node come in.
pub struct Gate {
    limits: Limits,
    /// Room that is taken by runs on their way: being opened, or being claimed.
    promised: Arc<AtomicUsize>,
    /// Somebody in the queue lacks nothing but room: who comes now stands behind.
    crowded: AtomicBool,
    /// See [`Backlog::total`]; beside it, so that the way past an empty queue takes no lock.
    waiting: AtomicUsize,
    counted: Mutex<Counted>,
}

/// The last count with what has changed since.
#[derive(Default)]
struct Counted {
    backlog: Backlog,
    /// Who joined since the present count began, and may be missing in it.
    joined: Vec<Lane>,
}

impl Counted {
    fn add(&mut self, lane: &Lane) {
        self.backlog.total += 1;
        *self.backlog.workflows.entry(lane.workflow.clone()).or_default() += 1;
        *self.backlog.lanes.entry(lane.clone()).or_default() += 1;
    }
}

/// Room on this node for one run or more, given back when dropped.
pub struct Seats(Arc<AtomicUsize>, usize);

impl Drop for Seats {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}

/// The queue takes no more of this kind for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl Gate {
    /// A gate with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            promised: Arc::default(),
            crowded: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            counted: Mutex::default(),
        }
    }

    /// What the owner set.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many runs are queued in the whole workspace.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// A seat for a new run that need not wait, beside the `in_motion` ones; nothing when it has to.
    #[must_use]
    pub fn seat(&self, flow: &Flow, in_motion: usize) -> Option<Seats> {
        if flow.concurrency.is_some() || self.crowded.load(Ordering::Acquire) {
            return None;
        }
        let seats = self.promise(1);
        let taken = self.promised.load(Ordering::Acquire);
        if in_motion + taken > self.limits.in_motion {
            return None;
        }
        Some(seats)
    }

    /// Room for runs that are being taken; the caller knows that it is there.
    #[must_use]
    pub fn promise(&self, seats: usize) -> Seats {
        self.promised.fetch_add(seats, Ordering::AcqRel);
        Seats(self.promised.clone(), seats)
    }

    /// The room beside the `in_motion` runs.
    #[must_use]
    pub fn room(&self, in_motion: usize) -> usize {
        self.limits.in_motion.saturating_sub(in_motion + self.promised.load(Ordering::Acquire))
    }

    /// Counts a run into the queue.
    ///
    /// # Errors
    /// When the queue is full, or this workflow or key has its share of it: three quarters for one
    /// workflow, half of that for one key, so that a flood leaves the door open to the others.
    pub fn join(&self, lane: &Lane, flow: &Flow) -> Result<(), Full> {
        let mut counted = self.lock();
        let backlog = &counted.backlog;
        let limit = self.limits.queued;
        let share = (limit - limit / 4).max(1);
        let of_workflow = backlog.workflows.get(&lane.workflow).copied().unwrap_or(0);
        let keyed = flow.concurrency.as_ref().is_some_and(|limited| limited.key.is_some());
        let of_key = if keyed { backlog.lanes.get(lane).copied().unwrap_or(0) } else { 0 };
        if backlog.total >= limit || of_workflow >= share || of_key >= share.div_ceil(2) {
            return Err(Full);
        }
        counted.add(lane);
        counted.joined.push(lane.clone());
        if flow.concurrency.is_none() {
            self.crowded.store(true, Ordering::Release);
        }
        self.waiting.store(counted.backlog.total, Ordering::Release);
        Ok(())
    }

    /// Somebody is in the queue for certain, whatever the last count said.
    pub fn somebody_waits(&self) {
        self.waiting.fetch_max(1, Ordering::AcqRel);
    }

    /// Counts a run out of the queue.
    pub fn leave(&self, lane: &Lane) {
        let mut counted = self.lock();
        let backlog = &mut counted.backlog;
        backlog.total = backlog.total.saturating_sub(1);
        if let Some(count) = backlog.workflows.get_mut(&lane.workflow) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = backlog.lanes.get_mut(lane) {
            *count = count.saturating_sub(1);
        }
        self.waiting.store(backlog.total, Ordering::Release);
    }

    /// A count of the queue begins.
    pub fn count_begins(&self) {
        self.lock().joined.clear();
    }

    /// Takes over what the database has counted. Who joined meanwhile counts once more: better one too many
    /// until the next count than a queue that grows past its limit.
    pub fn learn(&self, found: Backlog) {
        let mut counted = self.lock();
        counted.backlog = found;
        for lane in std::mem::take(&mut counted.joined) {
            counted.add(&lane);
        }
        self.waiting.store(counted.backlog.total, Ordering::Release);
        if counted.backlog.total == 0 {
            self.crowded.store(false, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner) // plain numbers: never half-changed
    }
}

/// What a node has to remember to be fair when it takes runs.
#[derive(Clone, Debug, Default)]
pub struct Fairness {
    turns: Turns,
    /// The workflow whose due run was taken last.
    due_after: String,
    /// Whether the queue chooses first the next time, or the runs that are due.
    queue_first: bool,
}

/// What a node has taken.
pub struct Taken {
    /// Under which lease they were taken.
    pub node: NodeId,
    /// The runs, in the order in which they should begin.
    pub runs: Vec<RunId>,
    /// Whether there may be more to take.
    pub more: bool,
    /// What went wrong; the runs above were taken all the same.
    pub error: Option<StoreError>,
    /// To be handed in the next time.
    pub fairness: Fairness,
    /// The room that was set aside for the runs.
    pub seats: Seats,
}

/// The most runs taken at once: enough to keep a node busy until the next look.
pub const TAKE: usize = 256;

/// Takes runs for the room that is promised: those that are due, and from the queue. While both wait,
/// each gets half of the room, and they take turns at going first.
pub async fn take(engine: &Engine, node: NodeId, room: usize, seats: Seats, mut fairness: Fairness) -> Taken {
    let queue_waits = engine.gate.waiting() > 0;
    fairness.queue_first = queue_waits && !fairness.queue_first;
    let first = if queue_waits { room.div_ceil(2) } else { room };
    let mut taken = Taken { node, runs: Vec::new(), more: false, error: None, fairness, seats };
    if taken.fairness.queue_first {
        taken.queued(engine, first).await;
        taken.due(engine, room).await;
    } else {
        taken.due(engine, first).await;
        if queue_waits {
            taken.queued(engine, room).await;
        }
    }
    taken
}

impl Taken {
    /// Fills the room up to `limit` runs with those that are due.
    async fn due(&mut self, engine: &Engine, limit: usize) {
        let room = limit.saturating_sub(self.runs.len());
        if room == 0 {
            self.more = true;
            return;
        }
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let claimed = match room < TAKE {
            false => engine.store.claim_due(self.node, limit).await,
            true => {
                let after = &self.fairness.due_after;
                let claimed = engine.store.claim_due_in_turns(self.node, limit, after).await;
                claimed.map(|(runs, last)| {
                    self.fairness.due_after = last.unwrap_or_default();
                    runs
                })
            }
        };
        match claimed {
            Ok(runs) => {
                self.more |= runs.len() == room;
                self.runs.extend(runs);
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// Fills the room up to `limit` runs from the queue.
    async fn queued(&mut self, engine: &Engine, limit: usize) {
        let room = limit.saturating_sub(self.runs.len());
        if room == 0 {
            self.more = true;
            return;
        }
        match engine.store.admit(self.node, room, &mut self.fairness.turns).await {
            Ok(admitted) => {
                self.more |= admitted.more;
                engine.gate.crowded.store(admitted.crowded, Ordering::Release);
                for (run, lane) in admitted.runs {
                    engine.gate.leave(&lane);
                    self.runs.push(run);
                }
            }
            Err(error) => self.error = Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::admission::Concurrency;

    fn gate(in_motion: usize, queued: usize) -> Gate {
        Gate::new(Limits { in_motion, queued, ..Limits::default() })
    }

    fn lane(workflow: &str, key: &str) -> Lane {
        Lane { workflow: workflow.into(), key: key.into() }
    }

    #[test]
    fn no_more_seats_are_given_than_there_is_room_for() {
        let gate = gate(3, 10);
        let seats: Vec<Seats> = std::iter::from_fn(|| gate.seat(&Flow::default(), 1)).collect();
        assert_eq!(seats.len(), 2);
        drop(seats);
        assert!(gate.seat(&Flow::default(), 2).is_some());
        assert_eq!((gate.room(2), gate.room(3), gate.room(9)), (1, 0, 0));
    }

    #[test]
    fn whoever_comes_while_others_wait_for_room_stands_behind_them() {
        let gate = gate(3, 10);
        gate.join(&lane("a", ""), &Flow::default()).unwrap();
        assert!(gate.seat(&Flow::default(), 0).is_none());
        gate.learn(Backlog::default());
        assert_eq!(gate.waiting(), 1, "the count may have begun before it joined");
        gate.count_begins();
        gate.learn(Backlog::default());
        assert!(gate.seat(&Flow::default(), 0).is_some());
    }

    #[test]
    fn a_run_before_a_full_key_keeps_nobody_else_from_the_room() {
        let gate = gate(3, 10);
        let limited = Concurrency { key: Some("{{ input.from }}".into()), limit: 1 };
        let flow = Flow { concurrency: Some(limited), ..Flow::default() };
        assert!(gate.seat(&flow, 0).is_none(), "a slot is the database's to give");
        gate.join(&lane("a", "x"), &flow).unwrap();
        assert!(gate.seat(&Flow::default(), 0).is_some());
    }

    #[test]
    fn a_flood_fills_its_share_of_the_queue_and_leaves_the_rest_to_others() {
        let gate = gate(1, 16);
        let fill = |workflow: &str, key: &str, flow: &Flow| {
            (0..100).take_while(|_| gate.join(&lane(workflow, key), flow).is_ok()).count()
        };
        let limited = Concurrency { key: Some("{{ input.from }}".into()), limit: 1 };
        let keyed = Flow { concurrency: Some(limited), ..Flow::default() };
        assert_eq!(fill("flood", "one", &keyed), 6, "half of what the workflow may have");
        assert_eq!(fill("flood", "two", &keyed), 6);
        assert_eq!(fill("flood", "three", &keyed), 0);
        assert_eq!(fill("other", "", &Flow::default()), 4);
        assert_eq!(fill("third", "", &Flow::default()), 0, "the queue is full");
        gate.leave(&lane("flood", "one"));
        assert_eq!(fill("third", "", &Flow::default()), 1);
    }
}
