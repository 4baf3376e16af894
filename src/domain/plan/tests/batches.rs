//! Agents' steps that wait for what went into a batch.

use super::*;
use crate::domain::event::ModelCall;
use crate::domain::ids::{CallId, HappeningId};
use crate::domain::plan::Rest;
use crate::domain::workflow::BATCH_WAIT;

fn call(n: u128) -> CallId {
    CallId(Uuid::from_u128(n))
}

fn came(n: u128) -> Stimulus {
    let happening = HappeningId(Uuid::from_u128(n));
    Stimulus::Happened { step: "draft".into(), happening, data: json!({}), label: Label::System }
}

fn told(batch: bool) -> Option<ModelCall> {
    Some(ModelCall { model: "m".into(), outcome: "ok".into(), batch, ..ModelCall::default() })
}

/// A run whose draft waits for a batch.
fn waiting() -> Story {
    let mut story = Story::new(vec![draft("draft", &[])]);
    story.tick();
    let put_off = story.learn(&[answered("draft", Answer::Batched(call(1)))]);
    assert_eq!(Story::kinds(&put_off), ["wait.began"]);
    assert!(matches!(&put_off.tasks[..], [Task::Listen { topic, .. }] if topic.call() == Some(call(1))));
    story
}

/// The batched call that the one task goes on with.
fn goes_on_with(transition: &Transition) -> Option<CallId> {
    match &transition.tasks[..] {
        [Task::Agent { batched, .. }] => *batched,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_step_sleeps_until_its_call_has_an_answer_and_goes_on_with_it() {
    let mut story = waiting();
    let quiet = story.learn(&[Stimulus::Quiet("draft".into())]);
    let due = BATCH_WAIT.after(story.now);
    assert_eq!(quiet.rest, Rest::Asleep { wake_at: Some(due) }, "rows only");
    let came_back = story.learn(&[came(5)]);
    assert_eq!(Story::kinds(&came_back), ["wait.ended"]);
    assert_eq!(goes_on_with(&came_back), Some(call(1)));
    let done = story.learn(&[Stimulus::Answered("draft".into(), told(true), output(json!({"body": "x"})))]);
    assert_eq!(Story::kinds(&done), ["model.called", "step.succeeded", "run.finished"]);
    assert!(story.folds());
}

#[test]
fn an_answer_is_not_lost_with_the_process_until_the_journal_tells_of_it() {
    let mut story = waiting();
    story.learn(&[came(5)]);
    let again = story.learn(&[Stimulus::Recovered]);
    assert_eq!(Story::kinds(&again), ["step.started"]);
    assert_eq!(goes_on_with(&again), Some(call(1)), "it is paid: the next attempt goes on with it");
    story.learn(&[Stimulus::Tried("draft".into(), told(true).unwrap())]);
    let after = story.learn(&[Stimulus::Recovered]);
    assert_eq!(goes_on_with(&after), None, "it is told: the next attempt is a new one");
    assert!(story.folds());
}

#[test]
fn a_step_that_has_waited_too_long_goes_on_and_sees_for_itself() {
    let mut story = waiting();
    story.now = BATCH_WAIT.after(story.now);
    let late = story.tick();
    assert_eq!(Story::kinds(&late), ["wait.ended"]);
    assert_eq!(goes_on_with(&late), Some(call(1)));
    assert!(story.folds());
}

#[test]
fn a_process_that_starts_anew_looks_whether_the_answer_has_come() {
    let mut story = waiting();
    let looks = story.learn(&[Stimulus::Recovered]);
    assert!(matches!(&looks.tasks[..], [Task::Listen { .. }]), "{looks:?}");
    assert!(looks.entries.is_empty());
}

#[test]
fn what_comes_while_the_owner_holds_everything_waits_for_him() {
    let mut story = waiting();
    story.paused = true;
    let held = story.learn(&[came(5)]);
    assert!(held.entries.is_empty() && held.tasks.is_empty(), "{held:?}");
    assert_eq!(held.deferred.len(), 1);
    story.paused = false;
    let deferred = held.deferred.clone();
    assert_eq!(goes_on_with(&story.learn(&deferred)), Some(call(1)));
    assert!(story.folds());
}

#[test]
fn a_second_batch_for_what_goes_over_the_draft_takes_the_place_of_the_first() {
    let mut story = waiting();
    story.learn(&[came(5)]);
    let second = story.learn(&[Stimulus::Answered("draft".into(), told(true), Answer::Batched(call(2)))]);
    assert_eq!(Story::kinds(&second), ["model.called", "wait.began"]);
    assert!(
        story.learn(&[came(5)]).entries.is_empty(),
        "the first answer, told once more, is not the second's"
    );
    assert_eq!(goes_on_with(&story.learn(&[came(6)])), Some(call(2)));
    assert!(story.folds());
}

#[test]
fn a_cancelled_run_waits_no_longer() {
    let mut story = waiting();
    let over = story.learn(&[Stimulus::Cancel { by: "owner".into() }]);
    assert_eq!(Story::kinds(&over), ["run.cancelling", "wait.ended", "step.skipped", "run.finished"]);
    assert!(story.learn(&[came(5)]).entries.is_empty());
    assert!(story.folds());
}
