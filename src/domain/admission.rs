//! Who begins next when not everybody can: classes of priority with ageing, fair turns between
//! workflows and between the keys of a workflow, limits per key. Pure: [`choose`] decides over
//! candidates that the store has looked up.
//!
//! The order, turn by turn:
//! 1. Every fourth turn ([`AGED_TURN`]) goes to the run with the smallest [`rank`]: the one that has
//!    waited the longest, a lower class having to wait one ageing interval longer than the one above.
//! 2. Any other turn goes to the highest class there is; in it to the workflow whose last turn is the
//!    longest ago; in that to the next key after the one that was served last, round and round; in
//!    that to the smallest rank.
//!
//! A rank never changes, and whoever comes later by more than two intervals has a larger one whatever
//! its class: so only finitely many runs are ever ahead, one of them goes at every fourth turn, and
//! nobody waits for ever. A flood gets its own turns and the aged ones, never those of others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::duration::Span;
use crate::domain::ids::{RunId, WorkflowName};

#[cfg(test)]
mod tests;

/// Every how many turns the one that has waited the longest goes first, whatever its class. Four
/// leaves three quarters of the room to what the owner put first, and lets nobody wait for long.
pub const AGED_TURN: u64 = 4;

/// How long a run of one class has to wait longer than one of the class above it to overtake it,
/// unless the settings say otherwise: short beside a working day, long beside a burst.
pub const AGEING: Span = Span::secs(300);

/// How the runs of a version begin.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Flow {
    /// How many may be under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Who goes first when there is not room for all.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
}

impl Flow {
    /// Whether nothing is said: then it is left out of a version, and of its digest.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How many runs may be under way at once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Concurrency {
    /// A template over `input` and `workspace`: the limit is for each of its values. Without it, for
    /// the workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many, at least 1.
    pub limit: u32,
}

/// The class of a run, the most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before the others.
    High,
    /// The usual one.
    #[default]
    Normal,
    /// When nothing else is to be done, or after it has waited long enough.
    Low,
}

impl Priority {
    /// Every class, the most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// Its place among the classes, from 0; as it is stored.
    #[must_use]
    pub fn level(self) -> u8 {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low => 2,
        }
    }

    /// The class of that place.
    #[must_use]
    pub fn of_level(level: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.level() == level)
    }

    /// How much longer than one of the highest class a run of this one has to wait.
    #[must_use]
    pub fn handicap(self, ageing: Span) -> Span {
        Span(ageing.0.saturating_mul(u32::from(self.level())))
    }

    fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}

/// The aged priority of a run that came at `at`: the smaller one has waited longer for its class.
/// It does not change while the run waits, so an index can be in its order.
#[must_use]
pub fn rank(priority: Priority, at: Timestamp, ageing: Span) -> Timestamp {
    priority.handicap(ageing).after(at)
}

/// What shares a limit: a workflow, or one key of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lane {
    /// The workflow.
    pub workflow: WorkflowName,
    /// The value of its concurrency key; empty without one.
    pub key: String,
}

/// A run that may begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Which run.
    pub run: RunId,
    /// Whose turn it takes.
    pub lane: Lane,
    /// How many of its lane may be under way; any number when absent.
    pub slots: Option<u32>,
    /// Its class.
    pub priority: Priority,
    /// See [`rank`].
    pub rank: Timestamp,
}

/// Who had a turn when: what fairness has to remember. Losing it costs one unfair round.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Turns {
    count: u64,
    served: BTreeMap<WorkflowName, Served>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Served {
    /// The number of its last turn.
    last: u64,
    /// The key that had its last fair turn.
    key: Option<String>,
}

impl Turns {
    /// Behind which key the search for a workflow's next one begins.
    pub fn keys(&self) -> impl Iterator<Item = (&WorkflowName, &str)> {
        self.served.iter().filter_map(|(workflow, served)| Some((workflow, served.key.as_deref()?)))
    }

    fn last(&self, workflow: &WorkflowName) -> u64 {
        self.served.get(workflow).map_or(0, |served| served.last)
    }

    fn serve(&mut self, lane: &Lane, fair: bool) {
        self.count += 1;
        let served = self.served.entry(lane.workflow.clone()).or_default();
        served.last = self.count;
        if fair {
            served.key = Some(lane.key.clone());
        }
    }
}

/// What was decided.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Choice {
    /// The runs to begin, in this order.
    pub admit: Vec<RunId>,
    /// Lanes with candidates that are left because their slots are taken, and how many of them are.
    pub full: BTreeMap<Lane, u32>,
    /// Whether there is somebody left who lacks nothing but room.
    pub crowded: bool,
}

/// Chooses up to `room` runs. `held` says how many slots of each lane are taken; a lane that is not in
/// it has all of them free.
pub fn choose(
    turns: &mut Turns,
    mut candidates: Vec<Candidate>,
    mut held: BTreeMap<Lane, u32>,
    room: usize,
) -> Choice {
    let mut choice = Choice::default();
    while choice.admit.len() < room {
        let Some(index) = next(turns, &candidates, &held) else { break };
        let chosen = candidates.swap_remove(index);
        if chosen.slots.is_some() {
            *held.entry(chosen.lane.clone()).or_default() += 1;
        }
        choice.admit.push(chosen.run);
    }
    choice.crowded = candidates.iter().any(|candidate| has_slot(candidate, &held));
    let left = candidates.into_iter().filter(|candidate| !has_slot(candidate, &held));
    let lanes: BTreeSet<Lane> = left.map(|candidate| candidate.lane).collect();
    choice.full =
        lanes.into_iter().map(|lane| (lane.clone(), held.get(&lane).copied().unwrap_or(0))).collect();
    choice
}

fn has_slot(candidate: &Candidate, held: &BTreeMap<Lane, u32>) -> bool {
    candidate.slots.is_none_or(|slots| held.get(&candidate.lane).copied().unwrap_or(0) < slots)
}

/// The place of the one whose turn it is, and notes that it had it.
fn next(turns: &mut Turns, candidates: &[Candidate], held: &BTreeMap<Lane, u32>) -> Option<usize> {
    let able = || candidates.iter().enumerate().filter(|(_, candidate)| has_slot(candidate, held));
    let oldest = |(_, c): &(usize, &Candidate)| (c.rank, c.run);
    if (turns.count + 1).is_multiple_of(AGED_TURN) {
        let (index, chosen) = able().min_by_key(oldest)?;
        turns.serve(&chosen.lane, false);
        return Some(index);
    }
    let class = able().map(|(_, c)| c.priority).min()?;
    let in_class = || able().filter(|(_, c)| c.priority == class);
    let (_, first) = in_class().min_by_key(|(_, c)| (turns.last(&c.lane.workflow), c.rank, c.run))?;
    let workflow = &first.lane.workflow;
    let after = turns.served.get(workflow).and_then(|served| served.key.as_deref());
    // Keys behind the one served last come first; then the others, in the same order.
    let (index, chosen) = in_class().filter(|(_, c)| c.lane.workflow == *workflow).min_by_key(|(_, c)| {
        let key = c.lane.key.as_str();
        (after.is_some_and(|after| key <= after), key, c.rank, c.run)
    })?;
    turns.serve(&chosen.lane, true);
    Some(index)
}
