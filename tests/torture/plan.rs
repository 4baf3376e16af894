//! What is injected, drawn from a seed before anything starts: the same seed draws the same plan.
//! When a fault lands in what the system does is the machine's to say; the plan narrows it down by name.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use steward::orchestrator::failpoint;

/// A moment after a start, for faults at random times: a start takes a few hundred milliseconds.
const LIFETIME: (u64, u64) = (0, 700);

/// How long a process that is to stop or die at a failpoint may take to come by.
pub const PASSING: Duration = Duration::from_millis(2500);

/// One fault.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// The process dies at a named place, or after a while if it does not come by.
    KillAt { failpoint: String, at_last: Duration },
    /// The process is killed so long after it was started, if it has not even begun to serve.
    Kill { after: Duration },
    /// The database dies at once and stays down.
    Database { down: Duration, after: Duration },
    /// Connections break: all of them now, or each as soon as its next statement is on its way.
    Cut { mid_statement: bool, after: Duration },
    /// A node stands still, longer than its lease.
    Pause { node: usize, stopped: Duration, after: Duration },
    /// A node stands still at a named place, longer than its lease, and goes on as if nothing had been.
    PauseAt { node: usize, failpoint: String, stopped: Duration },
    /// No room is left where the database writes.
    DiskFull { full: Duration, after: Duration },
}

/// A generator of its own for each lane, so that one lane's plan does not hang on another's.
pub fn dice(seed: u64, lane: &str) -> StdRng {
    let name = lane
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    StdRng::seed_from_u64(seed ^ name)
}

pub fn millis(dice: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(dice.random_range(from..=to))
}

/// Half of the kills at a named place, half at a random time.
pub fn kill(dice: &mut StdRng) -> Fault {
    if dice.random_bool(0.5) {
        return Fault::Kill { after: millis(dice, LIFETIME.0, 2 * LIFETIME.1) };
    }
    Fault::KillAt { failpoint: place(dice), at_last: PASSING }
}

/// A failpoint; those of effects mostly for one action.
fn place(dice: &mut StdRng) -> String {
    let name = failpoint::ALL[dice.random_range(0..failpoint::ALL.len())];
    let actions = ["http.request", "email.send", "records.put"];
    match name.starts_with("effect.") && dice.random_bool(0.8) {
        true => format!("{name}@{}", actions[dice.random_range(0..actions.len())]),
        false => name.to_owned(),
    }
}

/// Most of the time the database is back at once; now and then it stays away for up to ten seconds.
pub fn database(dice: &mut StdRng) -> Fault {
    let down = match dice.random_range(0..10) {
        0 => millis(dice, 3000, 10_000),
        1..4 => Duration::ZERO,
        _ => millis(dice, 50, 800),
    };
    Fault::Database { down, after: millis(dice, 300, 1500) }
}

pub fn cut(dice: &mut StdRng) -> Fault {
    Fault::Cut { mid_statement: dice.random_bool(0.7), after: millis(dice, 20, 300) }
}

/// A third of the pauses at a named place: between knowing that one may and doing it.
pub fn pause(dice: &mut StdRng, nodes: usize, lease: Duration) -> Fault {
    let lease = u64::try_from(lease.as_millis()).unwrap_or(1000);
    let stopped = millis(dice, lease + 200, lease * 3);
    let node = dice.random_range(0..nodes);
    if dice.random_bool(0.35) {
        return Fault::PauseAt { node, failpoint: place(dice), stopped };
    }
    Fault::Pause { node, stopped, after: millis(dice, 100, 800) }
}

pub fn disk_full(dice: &mut StdRng) -> Fault {
    Fault::DiskFull { full: millis(dice, 300, 2000), after: millis(dice, 300, 1000) }
}
