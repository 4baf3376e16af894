//! A circuit breaker: after enough failures in a row nobody calls for a while, then one probe decides.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// When a breaker opens and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open before one call may probe.
    pub pause: Duration,
}

/// The state of one breaker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Breaker {
    /// Calls pass; so many failed in a row.
    Closed {
        /// Failures since the last success.
        failures: u32,
    },
    /// Nobody calls until then.
    Open {
        /// When a probe may be made.
        until: Timestamp,
        /// What opened it, for the owner.
        why: String,
    },
    /// One probe is under way; the rest wait for its verdict.
    Probing,
}

impl Breaker {
    /// A breaker that has seen nothing yet.
    #[must_use]
    pub fn closed() -> Self {
        Self::Closed { failures: 0 }
    }

    /// Asks for leave to call. An open breaker whose pause is over lets exactly one caller through.
    ///
    /// # Errors
    /// Why not, when the breaker is open or its probe is under way.
    pub fn admit(&mut self, now: Timestamp) -> Result<(), String> {
        match self {
            Self::Closed { .. } => Ok(()),
            Self::Open { until, .. } if now >= *until => {
                *self = Self::Probing;
                Ok(())
            }
            Self::Open { until, why } => Err(format!("paused until {until:.0}: {why}")),
            Self::Probing => Err("paused: one call is probing whether it works again".into()),
        }
    }

    /// Learns that a call succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::closed();
    }

    /// Learns that a call failed because of the other party.
    pub fn failed(&mut self, now: Timestamp, thresholds: Thresholds, why: &str) {
        let failures = match self {
            Self::Closed { failures } => failures.saturating_add(1),
            Self::Open { .. } => return,
            Self::Probing => thresholds.failures,
        };
        if failures >= thresholds.failures {
            self.open(now, thresholds.pause, why);
        } else {
            *self = Self::Closed { failures };
        }
    }

    /// Opens at once: the failure is known to last (a rejected key, an exhausted account).
    pub fn open(&mut self, now: Timestamp, pause: Duration, why: &str) {
        let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
        let until = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        *self = Self::Open { until, why: why.to_owned() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THRESHOLDS: Thresholds = Thresholds { failures: 3, pause: Duration::from_secs(30) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_a_successful_probe_closes_it() {
        let mut breaker = Breaker::closed();
        for second in 0..3 {
            assert!(breaker.admit(at(second)).is_ok());
            breaker.failed(at(second), THRESHOLDS, "refused");
        }
        assert!(breaker.admit(at(31)).unwrap_err().contains("refused"));
        assert!(breaker.admit(at(32)).is_ok(), "the pause is over: one probe");
        assert!(breaker.admit(at(32)).is_err(), "but only one");
        breaker.succeeded();
        assert!(breaker.admit(at(33)).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Against a naive model: the list of outcomes since the last success, and the time of opening.
        #[test]
        fn it_agrees_with_a_naive_model(calls in proptest::collection::vec((0i64..40, any::<bool>()), 1..60)) {
            let (mut breaker, mut now, mut row, mut open_since) = (Breaker::closed(), 0, 0u32, None::<i64>);
            for (pause, ok) in calls {
                now += pause;
                let may = open_since.is_none_or(|since| now >= since + 30);
                prop_assert_eq!(breaker.admit(at(now)).is_ok(), may);
                if !may { continue; }
                if ok { breaker.succeeded(); row = 0; open_since = None; }
                else {
                    breaker.failed(at(now), THRESHOLDS, "x");
                    row += 1;
                    if row >= 3 { open_since = Some(now); }
                }
            }
        }
    }
}
