//! What time it is. Three clocks, each for what it is good at:
//!
//! - [`DatabaseTime`]: the database's clock as this process knows it. All nodes share it, so it alone
//!   dates what is written and says what is due;
//! - [`uptime`]: never jumps, and goes on while the machine sleeps; it measures how long ago something was;
//! - [`wall`]: what this machine takes for the time; only for what stays on this machine.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// For tests: how many seconds this machine's wall clock is ahead; negative when it is behind.
static SKEW: LazyLock<SignedDuration> = LazyLock::new(|| {
    let seconds = std::env::var("STEWARD_CLOCK_SKEW").ok().and_then(|seconds| seconds.parse().ok());
    seconds.and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok()).unwrap_or_default()
});

/// What this machine takes for the time.
#[must_use]
pub fn wall() -> Timestamp {
    let now = Timestamp::now();
    now.saturating_add(*SKEW).unwrap_or(now)
}

/// How long the machine has been up, suspended or not: a laptop that slept must not believe that no
/// time has passed.
#[must_use]
pub fn uptime() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic; // there it counts sleep
    let now = rustix::time::clock_gettime(clock);
    let whole = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(whole, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The database's clock: what it said last, carried on by [`uptime`]. Never runs backwards.
#[derive(Debug)]
pub struct DatabaseTime {
    /// The clock as last corrected.
    base: Mutex<Base>,
    /// The latest moment that was ever told, microseconds since 1970.
    floor: AtomicI64,
}

#[derive(Clone, Copy, Debug)]
struct Base {
    /// Microseconds since 1970.
    told: i64,
    /// The uptime at that moment.
    at: Duration,
}

impl Base {
    fn carried_on(self, uptime: Duration) -> i64 {
        self.told.saturating_add(micros(uptime)).saturating_sub(micros(self.at))
    }
}

impl DatabaseTime {
    /// The clock of a database that said `told` between two moments of [`uptime`].
    #[must_use]
    pub fn new(told: Timestamp, sent: Duration, received: Duration) -> Self {
        let half = micros(received.saturating_sub(sent)) / 2;
        let base = Base { told: told.as_microsecond().saturating_add(half), at: received };
        Self { base: Mutex::new(base), floor: AtomicI64::new(i64::MIN) }
    }

    /// Corrects the clock by what the database said, as far as that is known for sure: at `received` it
    /// was at least `told`, and later by the whole journey at most. A slow answer corrects nothing.
    pub fn correct(&self, told: Timestamp, sent: Duration, received: Duration) {
        let earliest = told.as_microsecond();
        let latest = earliest.saturating_add(micros(received.saturating_sub(sent)));
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner); // two numbers: always whole
        *base = Base { told: base.carried_on(received).clamp(earliest, latest), at: received };
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.at(uptime())
    }

    fn at(&self, uptime: Duration) -> Timestamp {
        let base = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let now = base.carried_on(uptime);
        let now = self.floor.fetch_max(now, Ordering::Relaxed).max(now);
        Timestamp::from_microsecond(now).unwrap_or(Timestamp::MAX)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn the_databases_clock_is_carried_on_between_two_answers() {
        let clock = DatabaseTime::new(at(0), ms(100), ms(104));
        assert_eq!(clock.at(ms(104)), at(2), "half of the journey was the way back");
        assert_eq!(clock.at(ms(1104)), at(1002));
    }

    #[test]
    fn a_slow_answer_corrects_only_what_it_proves() {
        let clock = DatabaseTime::new(at(0), ms(0), ms(0));
        clock.correct(at(1000), ms(990), ms(5000));
        assert_eq!(clock.at(ms(5000)), at(5000), "the answer took four seconds: both fit it");
        clock.correct(at(7000), ms(6000), ms(6002));
        assert_eq!(clock.at(ms(6002)), at(7000), "the database is a second ahead of what was thought");
    }

    #[test]
    fn time_stands_still_rather_than_run_backwards() {
        let clock = DatabaseTime::new(at(0), ms(0), ms(0));
        assert_eq!(clock.at(ms(2000)), at(2000));
        clock.correct(at(1500), ms(2000), ms(2000));
        assert_eq!(clock.at(ms(2100)), at(2000));
        assert_eq!(clock.at(ms(2600)), at(2100), "half a second later it has caught up");
    }

    #[test]
    fn uptime_never_goes_back() {
        let before = uptime();
        assert!(uptime() >= before && before > Duration::ZERO);
    }
}
