use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::autonomy::own::StageProposal;

fn tally(approved: u32, edited: u32, rejected: u32) -> Tally {
    Tally { approved, edited, rejected, ..Tally::default() }
}

fn supervised(actions: &[(&str, Tally)]) -> Evidence {
    Evidence {
        stage: Stage::Supervised,
        reaches_out: actions.iter().map(|(name, _)| (*name).to_owned()).collect(),
        actions: actions.iter().map(|(name, tally)| ((*name).to_owned(), *tally)).collect(),
        rejected_samples: 0,
        failed_undos: 0,
        latest: Vec::new(),
    }
}

fn rules(after: u32, unchanged: f64) -> Rules {
    Rules { promote: Some(Promote { after, unchanged }), demote: None }
}

fn demoting(on: &[Cause], automatic: bool) -> Rules {
    let demote = Demote { on: on.iter().copied().collect(), below: None, automatic };
    Rules { promote: None, demote: Some(demote) }
}

#[test]
fn twenty_unchanged_of_twenty_one_earn_it_and_one_less_does_not() {
    let due = judge(&rules(20, 0.95), &supervised(&[("email.send", tally(20, 1, 0))])).unwrap();
    assert_eq!((due.stage, due.automatic, due.occasion.as_str()), (Stage::Live, false, "0"));
    assert_eq!(due.why[0], "`email.send`: 20 approved unchanged, 1 edited, 0 rejected");
    assert_eq!(judge(&rules(20, 0.95), &supervised(&[("email.send", tally(19, 0, 0))])), None);
    assert_eq!(judge(&rules(20, 0.95), &supervised(&[("email.send", tally(20, 1, 1))])), None);
}

#[test]
fn an_action_that_was_never_seen_has_not_earned_it_for_the_others() {
    let mut evidence = supervised(&[("email.send", tally(100, 0, 0))]);
    evidence.reaches_out.insert("http.request".into());
    assert_eq!(judge(&rules(20, 0.9), &evidence), None);
}

#[test]
fn a_version_that_never_leaves_the_house_has_nothing_to_be_promoted_for() {
    assert_eq!(judge(&rules(1, 0.0), &supervised(&[])), None);
}

#[test]
fn a_no_is_not_asked_about_again_until_there_is_twice_as_much() {
    let occasion = |approved| {
        let evidence = supervised(&[("email.send", tally(approved, 0, 0))]);
        judge(&rules(20, 0.9), &evidence).unwrap().occasion
    };
    assert_eq!([20, 39, 40, 79, 80].map(occasion), ["0", "0", "1", "1", "2"]);
}

#[test]
fn approvals_that_nobody_can_have_read_earn_nothing() {
    let hasty = Tally { hasty: 10, ..tally(25, 0, 0) };
    assert_eq!(judge(&rules(20, 0.9), &supervised(&[("email.send", hasty)])), None);
}

#[test]
fn a_rejected_sample_or_a_failed_undo_takes_trust_away_where_the_owner_said_so() {
    let live = Evidence { stage: Stage::Live, rejected_samples: 1, ..supervised(&[]) };
    let due = judge(&demoting(&[Cause::RejectedSample], true), &live).unwrap();
    assert_eq!((due.stage, due.automatic), (Stage::Supervised, true));
    assert_eq!(judge(&demoting(&[Cause::FailedUndo], true), &live), None);
    let undone = Evidence { failed_undos: 2, rejected_samples: 0, ..live };
    let due = judge(&demoting(&[Cause::FailedUndo], false), &undone).unwrap();
    assert_eq!((due.automatic, due.occasion.as_str()), (false, "0.2.0"));
}

#[test]
fn a_poor_share_of_the_latest_decisions_takes_trust_away() {
    let below = Some(Below { unchanged: 0.8, of: 5 });
    let rules =
        Rules { demote: Some(Demote { on: BTreeSet::new(), below, automatic: false }), promote: None };
    let live = |latest: &[bool]| Evidence {
        stage: Stage::Live,
        latest: latest.to_vec(),
        ..supervised(&[("email.send", tally(3, 2, 0))])
    };
    assert!(judge(&rules, &live(&[true, true, true, false, false])).is_some());
    assert!(judge(&rules, &live(&[true, true, true, true, false])).is_none());
    assert!(judge(&rules, &live(&[false, false, false, false])).is_none(), "too few to say");
}

#[test]
fn three_fast_approvals_in_a_row_are_pointed_out_and_a_slow_one_or_an_edit_breaks_the_row() {
    let rule = Hasty { within_ms: 5_000, in_a_row: 3 };
    let fast = |looked: &[Option<i64>]| too_fast(rule, looked);
    assert!(fast(&[Some(0), Some(4_999), Some(10), Some(90_000)]));
    assert!(!fast(&[Some(0), Some(5_000), Some(10)]));
    assert!(!fast(&[Some(0), None, Some(10)]));
    assert!(!fast(&[Some(0), Some(1)]));
}

#[test]
fn the_workflow_of_ones_own_takes_its_input_and_never_gives_trust_without_asking() {
    let proposal = StageProposal {
        workflow: "lead-intake".into(),
        number: 3,
        version: "ab".into(),
        was: Stage::Supervised,
        stage: Stage::Live,
        automatic: false,
        why: vec!["it has earned it".into()],
        decided: json!({}),
    };
    let version = own::version();
    assert!(own::is_own(&version.workflow));
    let schema = jsonschema::validator_for(&version.input).unwrap();
    let fits = |proposal: &StageProposal| schema.is_valid(&proposal.input());
    assert!(fits(&proposal));
    let title = &proposal.input()["says"];
    assert_eq!(title, "lead-intake, version 3: may it act without being asked first?");
    assert!(!fits(&StageProposal { automatic: true, ..proposal.clone() }));
    let down = StageProposal { automatic: true, was: Stage::Live, stage: Stage::Supervised, ..proposal };
    assert!(fits(&down));
}

fn some_tally() -> impl Strategy<Value = Tally> {
    (0u32..60, 0u32..10, 0u32..10, 0u32..10, 0u32..10).prop_map(
        |(approved, edited, rejected, expired, hasty)| Tally {
            approved,
            edited,
            rejected,
            expired,
            hasty: hasty.min(approved),
        },
    )
}

fn some_evidence() -> impl Strategy<Value = Evidence> {
    let stage = prop_oneof![Just(Stage::Supervised), Just(Stage::Live), Just(Stage::Retired)];
    let actions = proptest::collection::btree_map("[a-c]", some_tally(), 0..3);
    let reaches = proptest::collection::btree_set("[a-c]", 0..3);
    let latest = proptest::collection::vec(any::<bool>(), 0..30);
    (stage, actions, reaches, 0u32..3, 0u32..3, latest).prop_map(
        |(stage, actions, reaches_out, rejected_samples, failed_undos, latest)| Evidence {
            stage,
            reaches_out,
            actions,
            rejected_samples,
            failed_undos,
            latest,
        },
    )
}

fn some_rules() -> impl Strategy<Value = Rules> {
    let promote = proptest::option::of((1u32..30, 0.0f64..=1.0));
    let below = proptest::option::of((0.0f64..=1.0, 1u32..20));
    let causes = proptest::collection::btree_set(
        prop_oneof![Just(Cause::RejectedSample), Just(Cause::FailedUndo)],
        0..3,
    );
    let demote = proptest::option::of((causes, below, any::<bool>()));
    (promote, demote).prop_map(|(promote, demote)| Rules {
        promote: promote.map(|(after, unchanged)| Promote { after, unchanged }),
        demote: demote.map(|(on, below, automatic)| Demote {
            on,
            below: below.map(|(unchanged, of)| Below { unchanged, of }),
            automatic,
        }),
    })
}

proptest! {
    #[test]
    fn trust_goes_one_step_at_a_time_and_up_only_by_asking(rules in some_rules(), evidence in some_evidence()) {
        match judge(&rules, &evidence) {
            None => {}
            Some(due) => {
                prop_assert!(!due.why.is_empty());
                match evidence.stage {
                    Stage::Supervised => prop_assert!(due.stage == Stage::Live && !due.automatic),
                    Stage::Live => prop_assert_eq!(due.stage, Stage::Supervised),
                    Stage::Retired => prop_assert!(false, "what is retired stays so"),
                }
            }
        }
    }

    #[test]
    fn what_is_earned_was_shown_by_every_action_that_leaves_the_house(
        after in 1u32..30, unchanged in 0.0f64..=1.0, evidence in some_evidence(),
    ) {
        let evidence = Evidence { stage: Stage::Supervised, ..evidence };
        let earned = judge(&rules(after, unchanged), &evidence).is_some();
        let shown = !evidence.reaches_out.is_empty() && evidence.reaches_out.iter().all(|action| {
            let tally = evidence.actions.get(action).copied().unwrap_or_default();
            let good = tally.approved - tally.hasty;
            let all = good + tally.edited + tally.rejected;
            good >= after && f64::from(good) / f64::from(all) >= unchanged
        });
        prop_assert_eq!(earned, shown);
    }

    #[test]
    fn an_approval_never_costs_trust_and_a_change_or_a_no_never_earns_it(
        after in 1u32..30, unchanged in 0.0f64..=1.0, evidence in some_evidence(), which in 0usize..3,
        no in any::<bool>(),
    ) {
        let evidence = Evidence { stage: Stage::Supervised, ..evidence };
        let rules = rules(after, unchanged);
        let earned = judge(&rules, &evidence).is_some();
        let Some(action) = evidence.reaches_out.iter().nth(which).cloned() else { return Ok(()) };
        let with = |change: &dyn Fn(&mut Tally)| {
            let mut more = evidence.clone();
            change(more.actions.entry(action.clone()).or_default());
            judge(&rules, &more).is_some()
        };
        let better = with(&|tally| tally.approved += 1);
        prop_assert!(better || !earned);
        let worse = with(&|tally| if no { tally.rejected += 1 } else { tally.edited += 1 });
        prop_assert!(earned || !worse);
        prop_assert_eq!(with(&|tally| tally.expired += 1), earned, "what expired says nothing");
    }

    #[test]
    fn the_same_evidence_is_the_same_occasion_and_more_of_a_cause_is_another(
        automatic in any::<bool>(), samples in 1u32..5, undos in 0u32..5, latest in proptest::collection::vec(any::<bool>(), 0..9),
    ) {
        let rules = demoting(&[Cause::RejectedSample, Cause::FailedUndo], automatic);
        let live = Evidence { stage: Stage::Live, rejected_samples: samples, failed_undos: undos, latest,
            actions: BTreeMap::new(), reaches_out: BTreeSet::new() };
        let due = judge(&rules, &live).unwrap();
        prop_assert_eq!(&due, &judge(&rules, &live).unwrap());
        prop_assert_eq!(due.automatic, automatic);
        let more = Evidence { rejected_samples: samples + 1, ..live };
        prop_assert_ne!(due.occasion, judge(&rules, &more).unwrap().occasion);
    }
}
