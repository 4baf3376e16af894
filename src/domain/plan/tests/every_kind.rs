//! A run with every kind of step, told anything in any order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::kinds::{child, done, each, failed, for_reply, live, put, undoable};
use super::*;
use crate::domain::ids::HappeningId;
use crate::domain::workflow::OnFailure;

fn everything() -> Vec<Step> {
    let review = StepKind::Review(ReviewStep { ask: "Well?".into(), form: None, shows: Default::default() });
    vec![
        undoable(put("save", &[])),
        for_reply("answer", &["save"]),
        undoable(reply("send", &["save"])),
        undoable(each(put("list", &["send"]), 2, OnFailure::Continue)),
        child("deliver", &["answer"]),
        step("ask", &["list", "deliver"], review),
        Step { deadline: Some(Span::secs(100)), ..put("last", &["ask"]) },
    ]
}

const NAMES: [&str; 12] = [
    "save",
    "answer",
    "send",
    "list/0",
    "list/1",
    "list/2",
    "deliver",
    "ask",
    "last",
    "save/undo",
    "send/undo",
    "list/1/undo",
];

fn any_word(story: &Story, choice: u8, which: usize) -> Stimulus {
    let step = StepId::from(NAMES[which % NAMES.len()]);
    let asking = story.run.steps.values().filter_map(|record| match record.status {
        StepStatus::Asking { review, .. } => Some(review),
        _ => None,
    });
    let asking: Vec<_> = asking.collect();
    let review = asking.get(which % asking.len().max(1)).copied().unwrap_or(ReviewId(Uuid::nil()));
    let decided = |verdict| Stimulus::Decided { review, verdict, by: "owner".into() };
    let by = || "owner".to_owned();
    let run = RunId(Uuid::from_u128(9));
    match choice {
        0..=2 => Stimulus::Tick,
        3 => Stimulus::Recovered,
        4..=9 => done(&step.0),
        10 => failed(&step.0),
        11 => Stimulus::Effect(step, EffectResult::Unknown("?".into())),
        12 => Stimulus::Probed(
            step,
            [EffectResult::Absent, EffectResult::Unknown("?".into())][which % 2].clone(),
        ),
        13..=15 => decided(Verdict::Approved),
        16 => decided(Verdict::Rejected { reason: "no".into() }),
        17 => decided(Verdict::Answered { answer: json!("again") }),
        18 => decided(Verdict::Answered { answer: json!("done") }),
        19 => decided(Verdict::Expired),
        20 => Stimulus::Happened {
            step: "answer".into(),
            happening: HappeningId(Uuid::from_u128(which as u128)),
            data: json!({}),
            label: Label::Untrusted,
        },
        21 => Stimulus::Quiet("answer".into()),
        22..=23 => Stimulus::Opened("deliver".into(), Ok(run)),
        24..=25 => Stimulus::ChildEnded(
            "deliver".into(),
            ChildEnd {
                run,
                outcome: ["succeeded", "failed", "cancelled", "declined"][which % 4].into(),
                reason: "so".into(),
                output: Value::Null,
                label: Label::System,
            },
        ),
        26 => Stimulus::Cancel { by: by() },
        27 => Stimulus::Pause { by: by() },
        28..=29 => Stimulus::Resume { by: by() },
        30 => Stimulus::Reopen { by: by(), from: None, repeat: false },
        31 => Stimulus::Reopen { by: by(), from: Some(step), repeat: which.is_multiple_of(2) },
        _ => Stimulus::Tick,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_happens_to_every_kind_of_step_no_promise_is_broken(
        words in proptest::collection::vec((0u8..34, 0usize..24, 0i64..30, 0u8..12), 1..70),
        repeat in prop_oneof![Just(Repeat::Natural), Just(Repeat::Probe), Just(Repeat::None)],
    ) {
        let mut story = live(everything());
        story.stage = Stage::Supervised;
        story.repeat = repeat;
        story.tick();
        for (choice, which, seconds, switch) in words {
            story.now += SignedDuration::from_secs(seconds);
            story.paused = switch == 0;
            let word = any_word(&story, choice, which);
            let held = story.paused || (story.run.paused.is_some() && !matches!(word, Stimulus::Resume { .. }));
            let before = story.run.cancelling.is_some();
            let transition = story.learn(&[word]);
            if held && story.run.paused.is_some() | story.paused && !before && story.run.cancelling.is_none() {
                let began = |task: &Task| matches!(task, Task::Perform(_) | Task::Agent { .. } | Task::Open { .. });
                prop_assert!(!transition.tasks.iter().any(began), "nothing begins while it is held");
            }
            prop_assert!(has_a_wake_source(&story, &transition), "{:?}", story.run);
        }
        prop_assert!(story.folds());
        check(&story)?;
    }
}

/// A run that is neither finished nor waiting on something named cannot exist.
fn has_a_wake_source(story: &Story, transition: &Transition) -> bool {
    match transition.rest {
        Rest::Over(_) | Rest::Paused | Rest::Parked | Rest::Asleep { wake_at: Some(_) } => true,
        Rest::Asleep { wake_at: None } => story.run.steps.values().any(|record| {
            matches!(
                record.status,
                StepStatus::Asking { .. } | StepStatus::Waiting { .. } | StepStatus::Child { .. }
            )
        }),
        Rest::Busy => {
            story
                .run
                .steps
                .values()
                .any(|record| matches!(record.status, StepStatus::Running | StepStatus::Effecting { .. }))
                || !transition.tasks.is_empty()
                || !transition.deferred.is_empty()
        }
    }
}

/// No effect without leave for exactly that; no key twice unless it was undone; undone in reverse order.
fn check(story: &Story) -> Result<(), TestCaseError> {
    let mut allowed: BTreeMap<StepId, Digest> = BTreeMap::new();
    let mut asked: BTreeMap<ReviewId, (StepId, Digest)> = BTreeMap::new();
    let mut keys: BTreeMap<StepId, String> = BTreeMap::new();
    let mut happened: BTreeSet<String> = BTreeSet::new();
    let mut done: Vec<StepId> = Vec::new();
    for entry in &story.journal {
        match &entry.event {
            Event::EffectProposed(proposal) => {
                keys.insert(proposal.step.clone(), proposal.key.clone());
                if proposal.decision.ruling == crate::domain::policy::Ruling::Allow {
                    allowed.insert(proposal.step.clone(), proposal.digest);
                }
            }
            Event::ReviewOpened(question) => {
                asked.insert(question.review, (question.step.clone(), question.digest));
            }
            Event::ReviewDecided { review, verdict: Verdict::Approved, .. } => {
                let (step, digest) = asked[review].clone();
                allowed.insert(step, digest);
            }
            Event::EffectStarted { step, digest, action, again: false, .. } => {
                prop_assert_eq!(allowed.get(step), Some(digest));
                prop_assert_eq!(action.digest(), *digest);
            }
            Event::EffectSucceeded { step, .. } => {
                prop_assert!(happened.insert(keys[step].clone()), "{} happened twice", keys[step]);
                done.push(step.clone());
            }
            Event::EffectCompensated { step, .. } => {
                prop_assert!(!step.place().undo, "undoing is not undone");
                let at = done.iter().rposition(|id| id == step);
                let later = done[at.map_or(done.len(), |at| at + 1)..].iter();
                for id in later.filter(|id| !id.place().undo) {
                    let record = story.run.record(id);
                    let spared = record.compensated
                        || record.generation > 0
                        || story.version.step(&id.undo()).is_none()
                        || matches!(story.run.status(&id.undo()), StepStatus::Declined { .. })
                        || !matches!(record.status, StepStatus::Succeeded { .. });
                    prop_assert!(spared, "{id} was done after {step} and must be undone before it");
                }
            }
            _ => {}
        }
    }
    Ok(())
}
