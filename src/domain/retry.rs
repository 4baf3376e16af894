//! When a failed attempt is tried again.

use serde::{Deserialize, Serialize};

use crate::domain::duration::Span;

/// How often and how soon a step's failed attempts are repeated.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retry {
    /// The most attempts that may fail before the step fails, at least 1.
    pub attempts: u32,
    /// How the delay grows.
    pub backoff: Backoff,
    /// The first delay.
    pub base: Span,
    /// The longest delay.
    pub max: Span,
}

/// How the delay between attempts grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backoff {
    /// Always the first delay.
    Fixed,
    /// Twice the delay before.
    Exponential,
}

impl Default for Retry {
    /// Three attempts over a few seconds: enough for a passing fault, too little to hide a lasting one.
    fn default() -> Self {
        Self { attempts: 3, backoff: Backoff::Exponential, base: Span::secs(1), max: Span::secs(60) }
    }
}

impl Retry {
    /// The delay before the next attempt after `failures` of them failed, or `None` when they are used up.
    /// `jitter` in 0..=1 takes up to half of the delay away, so that many runs that failed
    /// together do not come back together. `asked` is what the other party asked for
    /// (`Retry-After`): the delay is never shorter than that, nor than the schedule's.
    #[must_use]
    pub fn delay(&self, failures: u32, asked: Option<Span>, jitter: f64) -> Option<Span> {
        if failures >= self.attempts {
            return None;
        }
        let full = match self.backoff {
            Backoff::Fixed => self.base.0,
            Backoff::Exponential => {
                self.base.0.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(31)))
            }
        };
        let full = full.min(self.max.0);
        let delay = full.mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0));
        Some(Span(asked.map_or(delay, |asked| delay.max(asked.0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_delay_doubles_up_to_its_limit_and_then_attempts_run_out() {
        let retry = Retry { attempts: 5, base: Span::secs(1), max: Span::secs(3), ..Retry::default() };
        let delays: Vec<_> = (1..=5).map(|failures| retry.delay(failures, None, 0.0)).collect();
        let secs = |s| Some(Span::secs(s));
        assert_eq!(delays, [secs(1), secs(2), secs(3), secs(3), None]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_delay_stays_between_half_and_the_whole_and_never_undercuts_what_was_asked(
            failures in 1u32..50, attempts in 1u32..60, base in 1u64..100, max in 1u64..1000,
            asked in proptest::option::of(0u64..5000), jitter in 0.0f64..=1.0,
        ) {
            let retry = Retry { attempts, backoff: Backoff::Exponential, base: Span::secs(base), max: Span::secs(max) };
            match retry.delay(failures, asked.map(Span::secs), jitter) {
                None => prop_assert!(failures >= attempts),
                Some(delay) => {
                    let full = (base as f64 * 2f64.powi(failures as i32 - 1)).min(max as f64);
                    let floor = (full / 2.0).max(asked.unwrap_or(0) as f64);
                    let ceiling = full.max(asked.unwrap_or(0) as f64);
                    prop_assert!(delay.0.as_secs_f64() >= floor - 0.001);
                    prop_assert!(delay.0.as_secs_f64() <= ceiling + 0.001);
                }
            }
        }
    }
}
