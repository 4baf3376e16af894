//! Anything may be told to a run, in any order: what holds all the same.

use proptest::prelude::*;

use super::*;
use crate::domain::ids::{CallId, HappeningId};

/// Anything that can be told to a run, in any order, sensible or not.
fn any_stimulus() -> impl Strategy<Value = u8> {
    0u8..24
}

fn concrete(story: &Story, choice: u8) -> Stimulus {
    let review = story.run.steps.values().find_map(|record| match record.status {
        StepStatus::Asking { review, .. } => Some(review),
        _ => None,
    });
    let review = review.unwrap_or(ReviewId(Uuid::nil()));
    let decided = |verdict| Stimulus::Decided { review, verdict, by: "owner".into() };
    let params = json!({"to": "bob@client.example", "subject": "s", "body": "b"});
    match choice {
        0 => Stimulus::Tick,
        1 => Stimulus::Recovered,
        2 => Stimulus::Instant("pure".into()),
        3 => answered("draft", output(json!({"body": "Hi"}))),
        4 => answered("draft", Answer::Owner { reasons: Vec::new(), draft: None }),
        5 => answered("draft", Answer::Failed(failure(ErrorKind::Timeout))),
        6 => answered("draft", Answer::Failed(failure(ErrorKind::Internal))),
        7 => Stimulus::Effect("reply".into(), EffectResult::Succeeded(json!({"ok": true}))),
        8 => Stimulus::Effect("reply".into(), EffectResult::Failed(failure(ErrorKind::Unavailable))),
        9 => Stimulus::Effect("reply".into(), EffectResult::Unknown("?".into())),
        10 => Stimulus::Effect("reply".into(), EffectResult::Absent),
        11 => decided(Verdict::Approved),
        12 => decided(Verdict::Edited { params }),
        13 => decided(Verdict::Rejected { reason: "no".into() }),
        14 => decided(Verdict::Answered { answer: json!("again") }),
        15 => decided(Verdict::Answered { answer: json!({"body": "Hi"}) }),
        16 => decided(Verdict::Expired),
        18 => decided(Verdict::Responded { words: "shorter".into() }),
        19 | 20 => Stimulus::CallBack { effect: held(story), by: "owner".into() },
        17 => Stimulus::LookedUp("draft".into(), super::agents::lookup(Label::Untrusted)),
        21 => answered("draft", Answer::Batched(CallId(Uuid::from_u128(3)))),
        22 => Stimulus::Happened {
            step: "draft".into(),
            happening: HappeningId(Uuid::from_u128(4)),
            data: json!({}),
            label: Label::System,
        },
        _ => Stimulus::Cancel { by: "owner".into() },
    }
}

fn held(story: &Story) -> EffectId {
    let held = story.run.steps.values().find_map(|record| match &record.status {
        StepStatus::Held { proposal, .. } => Some(proposal.effect),
        _ => None,
    });
    held.unwrap_or(EffectId(Uuid::nil()))
}

/// A reply made of the draft, so that there is somebody to ask for another one.
fn written(delay: u64) -> Step {
    let with = json!({"to": "{{ input.from }}", "subject": "Re", "body": "{{ steps.draft.output.body }}"});
    let mut reply = step("reply", &["pure"], action("email.send", with));
    if let StepKind::Action(action) = &mut reply.kind {
        action.delay = Some(Span::secs(delay));
    }
    reply
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_happens_the_journal_folds_to_the_same_run_and_nothing_goes_out_unapproved(
        choices in proptest::collection::vec((any_stimulus(), 0i64..40), 1..40),
        repeat in prop_oneof![Just(Repeat::Natural), Just(Repeat::Probe), Just(Repeat::None)],
        delay in prop_oneof![Just(0u64), Just(30)],
    ) {
        let mut story = Story::new(vec![draft("draft", &[]), noop("pure", &["draft"]), written(delay)]);
        story.repeat = repeat;
        story.tick();
        for (choice, seconds) in choices {
            story.now += SignedDuration::from_secs(seconds);
            let stimulus = concrete(&story, choice);
            let transition = story.learn(&[stimulus]);
            // A run that is neither over nor busy waits for something that has a name.
            if let Rest::Asleep { wake_at } = transition.rest {
                let asking = story.run.steps.values().any(|r| matches!(r.status, StepStatus::Asking { .. }));
                prop_assert!(asking || wake_at.is_some());
            }
        }
        prop_assert!(story.folds());
        check_approvals(&story.journal)?;
    }
}

/// Every start that is not a repetition is of a digest the owner has decided on, and each decision
/// makes it happen at most once.
fn check_approvals(journal: &[Entry]) -> Result<(), TestCaseError> {
    let mut asked: BTreeMap<ReviewId, Digest> = BTreeMap::new();
    let mut approved: Option<Digest> = None;
    for entry in journal {
        match &entry.event {
            Event::ReviewOpened(question) => {
                asked.insert(question.review, question.digest);
            }
            Event::ReviewDecided { verdict: Verdict::Approved, review, .. } => {
                approved = asked.get(review).copied()
            }
            Event::ReviewDecided { verdict: Verdict::Edited { params }, .. } => {
                approved = Some(Action { action: "email.send".into(), params: params.clone() }.digest());
            }
            Event::EffectStarted { digest, action, again: false, .. } => {
                prop_assert_eq!(approved, Some(*digest));
                prop_assert_eq!(action.digest(), *digest);
            }
            // Whoever calls something back takes his word for it back; whoever wants another draft gives none.
            Event::EffectSucceeded { .. } | Event::EffectCalledBack { .. } | Event::DraftReturned(_) => {
                approved = None;
            }
            _ => {}
        }
    }
    Ok(())
}
