//! Which operations the owner sees although policy allows them: a share, chosen by the run and the step
//! alone. The same run chooses the same, at whatever attempt and on whatever node, and nobody who writes
//! an input can choose for it.

use crate::domain::digest::Digest;
use crate::domain::ids::{RunId, StepId};

/// Whether `step` of `run` is one of the `share` (0 to 1) that is shown. What a smaller share shows, a
/// larger one shows too.
#[must_use]
pub fn chosen(run: RunId, step: &StepId, share: f64) -> bool {
    let digest = Digest::of_parts(&[b"sample", run.0.as_bytes(), step.0.as_bytes()]);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.0[..8]);
    // The upper 53 bits are what a float holds exactly: a number in 0..1, evenly spread.
    let place = (u64::from_be_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64;
    place < share
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn run(n: u128) -> RunId {
        RunId(Uuid::from_u128(n))
    }

    proptest! {
        #[test]
        fn the_same_run_and_step_are_always_judged_alike_and_larger_shares_hold_smaller_ones(
            n in any::<u128>(), step in "[a-z]{1,8}(/[0-9]{1,2})?", share in 0.0f64..=1.0, more in 0.0f64..=1.0,
        ) {
            let step = StepId(step);
            let once = chosen(run(n), &step, share);
            prop_assert_eq!(once, chosen(run(n), &step, share));
            prop_assert!(!once || chosen(run(n), &step, share.max(more)));
            prop_assert!(!chosen(run(n), &step, 0.0));
            prop_assert!(chosen(run(n), &step, 1.0));
        }

        #[test]
        fn of_many_runs_about_the_share_is_chosen(seed in any::<u64>(), share in 0.01f64..=0.5) {
            let runs = 4_000u32;
            let found = (0..runs).filter(|n| chosen(run(u128::from(seed) << 40 | u128::from(*n)), &"reply".into(), share));
            let rate = found.count() as f64 / f64::from(runs);
            // Six standard deviations: one case in some hundred million would be further off.
            let far = 6.0 * (share * (1.0 - share) / f64::from(runs)).sqrt();
            prop_assert!((rate - share).abs() < far, "{rate} instead of {share}");
        }
    }
}
