//! Branches, lists, waits, child runs, undoing, holding and going on, each as a story.

use std::collections::BTreeSet;

use super::*;
use crate::domain::ids::HappeningId;
use crate::domain::plan::again::again;
use crate::domain::workflow::{ChildStep, Each, OnFailure, Undo, WaitStep};

/// An effect that policy allows by itself.
pub(super) fn put(id: &str, needs: &[&str]) -> Step {
    step(id, needs, action("records.put", json!({"kind": "lead", "key": id, "data": 1})))
}

pub(super) fn undoable(step: Step) -> Step {
    Step { undo: Some(Undo { action: "records.revert".into(), with: json!("{{ output }}") }), ..step }
}

fn waits(id: &str, needs: &[&str], wait: WaitStep) -> Step {
    step(id, needs, StepKind::Wait(wait))
}

pub(super) fn for_reply(id: &str, needs: &[&str]) -> Step {
    let wait = WaitStep {
        event: Some("email.reply".into()),
        matches: Some("{{ input.from }}".into()),
        span: Some(Span::secs(60)),
        until: None,
    };
    waits(id, needs, wait)
}

pub(super) fn child(id: &str, needs: &[&str]) -> Step {
    let with = json!({"who": "{{ input.from }}"});
    step(
        id,
        needs,
        StepKind::Workflow(ChildStep { workflow: "delivery".into(), with, budget_micros: Some(7) }),
    )
}

pub(super) fn each(step: Step, parallel: u32, on_failure: OnFailure) -> Step {
    Step { each: Some(Each { of: "{{ [10, 20, 30] }}".into(), parallel, on_failure }), ..step }
}

pub(super) fn done(step: &str) -> Stimulus {
    Stimulus::Effect(step.into(), EffectResult::Succeeded(json!({"kind": "lead", "key": step, "version": 3})))
}

pub(super) fn failed(step: &str) -> Stimulus {
    Stimulus::Effect(step.into(), EffectResult::Failed(failure(ErrorKind::Refused)))
}

fn performed(transition: &Transition) -> Vec<String> {
    let steps = transition.tasks.iter().filter_map(|task| match task {
        Task::Perform(proposal) => Some(proposal.step.0.clone()),
        _ => None,
    });
    steps.collect()
}

pub(super) fn live(steps: Vec<Step>) -> Story {
    Story { stage: Stage::Live, repeat: Repeat::Natural, ..Story::new(steps) }
}

#[test]
fn branches_go_side_by_side_and_meet_where_both_are_needed() {
    let mut story = live(vec![put("a", &[]), put("b", &["a"]), put("c", &["a"]), noop("d", &["b", "c"])]);
    assert_eq!(performed(&story.tick()), ["a"]);
    assert_eq!(performed(&story.learn(&[done("a")])), ["b", "c"]);
    assert!(story.learn(&[done("c")]).tasks.is_empty(), "b is still under way");
    assert_eq!(story.learn(&[done("b")]).tasks, [Task::Instant("d".into())]);
}

#[test]
fn while_one_branch_is_under_way_another_ones_moment_is_not_missed() {
    let pause = WaitStep { span: Some(Span::secs(5)), ..WaitStep::default() };
    let mut story = live(vec![put("slow", &[]), waits("pause", &[], pause), put("then", &["pause"])]);
    let begun = story.tick();
    assert_eq!((begun.rest, begun.due), (Rest::Busy, Some(Span::secs(5).after(story.now))));
    story.now = begun.due.unwrap();
    assert_eq!(performed(&story.tick()), ["then"]);
}

#[test]
fn an_event_ends_a_wait_once_and_a_wait_that_lasts_too_long_says_so() {
    let mut story = live(vec![for_reply("answer", &[]), noop("after", &["answer"])]);
    let begun = story.tick();
    let topic = Topic { event: "email.reply".into(), matches: "ann@client.example".into() };
    assert_eq!(begun.tasks, [Task::Listen { step: "answer".into(), topic }]);
    let quiet = story.learn(&[Stimulus::Quiet("answer".into())]);
    assert_eq!(quiet.rest, Rest::Asleep { wake_at: Some(Span::secs(60).after(story.now)) });
    let happened = |n| Stimulus::Happened {
        step: "answer".into(),
        happening: HappeningId(Uuid::from_u128(n)),
        data: json!({"body": "yes"}),
        label: Label::Untrusted,
    };
    assert_eq!(Story::kinds(&story.learn(&[happened(1), happened(2)])), ["wait.ended", "step.succeeded"]);
    assert_eq!(story.run.context(&json!({}))["steps"]["answer"]["output"]["data"]["body"], "yes");
    assert_eq!(story.run.label_of("steps.answer.output"), Label::Untrusted);
    assert_eq!(story.run.heard.len(), 1, "the first one counts");

    let mut story = live(vec![for_reply("answer", &[]), noop("after", &["answer"])]);
    story.tick();
    story.now += SignedDuration::from_secs(60);
    story.tick();
    assert_eq!(story.run.context(&json!({}))["steps"]["answer"]["output"]["timed_out"], true);
}

#[test]
fn a_list_keeps_its_order_whatever_order_its_items_end_in_and_its_limit() {
    let item = step(
        "remind",
        &[],
        action("records.put", json!({"kind": "k", "key": "{{ item }}", "data": "{{ index }}"})),
    );
    let mut story = live(vec![each(item, 2, OnFailure::Stop)]);
    let begun = story.tick();
    assert_eq!(performed(&begun), ["remind/0", "remind/1"], "no more than two at once");
    let Task::Perform(proposal) = &begun.tasks[1] else { panic!() };
    assert_eq!(proposal.action.params, json!({"kind": "k", "key": 20, "data": 1}));
    assert_eq!(proposal.key, format!("{}/remind/1", story.run.id));
    assert_eq!(performed(&story.learn(&[done("remind/1")])), ["remind/2"]);
    story.learn(&[done("remind/2")]);
    let over = story.learn(&[done("remind/0")]);
    assert_eq!(over.rest, Rest::Over(Outcome::Succeeded));
    let output = &story.run.context(&json!({}))["steps"]["remind"]["output"];
    let keys: Vec<_> = output["items"].as_array().unwrap().iter().map(|item| item["key"].clone()).collect();
    assert_eq!(keys, ["remind/0", "remind/1", "remind/2"]);
}

#[test]
fn a_failing_item_stops_the_list_or_is_left_out_as_the_owner_says() {
    let mut story = live(vec![each(put("remind", &[]), 1, OnFailure::Stop)]);
    story.tick();
    let over = story.learn(&[failed("remind/0")]);
    assert!(over.tasks.is_empty(), "no further item begins");
    assert_eq!(over.rest, Rest::Over(Outcome::Failed));

    let mut story = live(vec![each(put("remind", &[]), 1, OnFailure::Continue)]);
    story.tick();
    assert_eq!(performed(&story.learn(&[failed("remind/0")])), ["remind/1"]);
    story.learn(&[done("remind/1")]);
    assert_eq!(story.learn(&[done("remind/2")]).rest, Rest::Over(Outcome::Succeeded));
    let output = &story.run.context(&json!({}))["steps"]["remind"]["output"];
    assert_eq!((&output["items"][0], &output["failed"][0]["index"]), (&Value::Null, &json!(0)));
}

#[test]
fn a_child_run_gives_its_output_and_its_failure_is_the_steps() {
    let run = RunId(Uuid::from_u128(9));
    let end = |outcome: &str| ChildEnd {
        run,
        outcome: outcome.into(),
        reason: "because".into(),
        output: json!({"url": "x"}),
        label: Label::Untrusted,
    };
    let mut story = live(vec![child("deliver", &[]), noop("after", &["deliver"])]);
    let begun = story.tick();
    let Task::Open { budget_micros, input, label, .. } = &begun.tasks[0] else { panic!() };
    assert_eq!(
        (budget_micros, input, label),
        (&Some(7), &json!({"who": "ann@client.example"}), &Label::Untrusted)
    );
    let opened = story.learn(&[Stimulus::Opened("deliver".into(), Ok(run))]);
    assert_eq!(opened.tasks, [Task::Attend { step: "deliver".into(), run }]);
    story.learn(&[Stimulus::ChildEnded("deliver".into(), end("succeeded"))]);
    assert_eq!(story.run.context(&json!({}))["steps"]["deliver"]["output"]["output"]["url"], "x");

    let mut story = live(vec![child("deliver", &[])]);
    story.tick();
    story.learn(&[Stimulus::Opened("deliver".into(), Ok(run))]);
    let over = story.learn(&[Stimulus::ChildEnded("deliver".into(), end("failed"))]);
    assert_eq!(over.rest, Rest::Over(Outcome::Failed));
}

#[test]
fn a_cancelled_run_stops_its_child_and_waits_for_its_end() {
    let run = RunId(Uuid::from_u128(9));
    let mut story = live(vec![child("deliver", &[])]);
    story.tick();
    story.learn(&[Stimulus::Opened("deliver".into(), Ok(run)), Stimulus::Quiet("deliver".into())]);
    let stopping = story.learn(&[Stimulus::Cancel { by: "owner".into() }]);
    assert_eq!((stopping.tasks, stopping.rest), (vec![Task::Stop(run)], Rest::Asleep { wake_at: None }));
    let end = ChildEnd {
        run,
        outcome: "cancelled".into(),
        reason: "cancelled".into(),
        output: Value::Null,
        label: Label::System,
    };
    let over = story.learn(&[Stimulus::ChildEnded("deliver".into(), end)]);
    assert_eq!(over.rest, Rest::Over(Outcome::Cancelled));
}

#[test]
fn what_was_done_is_undone_the_last_thing_first_when_a_later_step_fails() {
    let mut story = live(vec![undoable(put("a", &[])), undoable(put("b", &["a"])), put("c", &["b"])]);
    story.tick();
    story.learn(&[done("a")]);
    story.learn(&[done("b")]);
    let undoing = story.learn(&[failed("c")]);
    assert_eq!(performed(&undoing), ["b/undo"]);
    let Task::Perform(proposal) = &undoing.tasks[0] else { panic!() };
    assert_eq!(proposal.action.params, json!({"kind": "lead", "key": "b", "version": 3}));
    assert_eq!(performed(&story.learn(&[done("b/undo")])), ["a/undo"]);
    let over = story.learn(&[done("a/undo")]);
    assert_eq!(over.rest, Rest::Over(Outcome::Failed));
    assert!(Story::kinds(&over).contains(&"effect.compensated".to_owned()));
}

#[test]
fn an_undo_that_fails_is_asked_about_and_never_forgotten() {
    let mut story = live(vec![undoable(put("a", &[])), put("b", &["a"])]);
    story.tick();
    story.learn(&[done("a")]);
    story.learn(&[failed("b")]);
    let asking = story.learn(&[failed("a/undo")]);
    assert_eq!(asking.rest, Rest::Asleep { wake_at: None });
    let again = story.decide(Verdict::Answered { answer: json!("again") });
    assert_eq!(performed(&again), ["a/undo"]);
    story.learn(&[failed("a/undo")]);
    let over = story.decide(Verdict::Answered { answer: json!("done") });
    assert_eq!(over.rest, Rest::Over(Outcome::Failed));
    assert!(story.run.record(&"a".into()).compensated);
}

#[test]
fn what_another_run_did_under_the_same_key_is_not_undone_with_this_one() {
    let mut story = live(vec![undoable(put("a", &[])), put("b", &["a"])]);
    let key = EffectKey { action: "records.put".into(), key: format!("{}/a", story.run.id) };
    let digest =
        Action { action: "records.put".into(), params: json!({"kind": "lead", "key": "a", "data": 1}) }
            .digest();
    let other = Existing {
        effect: EffectId(Uuid::from_u128(1)),
        run: RunId(Uuid::from_u128(2)),
        digest,
        response: Some(json!({})),
    };
    story.taken.insert(key, other);
    story.tick();
    let over = story.learn(&[failed("b")]);
    assert_eq!(over.rest, Rest::Over(Outcome::Failed), "there was nothing of its own to undo");
}

#[test]
fn a_held_run_learns_what_ends_but_begins_nothing() {
    let mut story = live(vec![put("a", &[]), put("b", &["a"])]);
    story.tick();
    story.learn(&[Stimulus::Pause { by: "owner".into() }]);
    let held = story.learn(&[done("a")]);
    assert!(held.tasks.is_empty());
    assert_eq!(held.rest, Rest::Paused);
    assert_eq!(performed(&story.learn(&[Stimulus::Resume { by: "owner".into() }])), ["b"]);
}

#[test]
fn everything_is_held_by_the_kill_switch_and_due_when_it_is_let_go() {
    let mut story = live(vec![put("a", &[]), put("b", &["a"])]);
    story.tick();
    story.paused = true;
    let held = story.learn(&[done("a")]);
    assert_eq!((held.tasks.len(), held.rest), (0, Rest::Asleep { wake_at: Some(story.now) }));
    let again = story.learn(&[Stimulus::Recovered]);
    assert_eq!((again.tasks.len(), again.entries.len()), (0, 0));
    story.paused = false;
    assert_eq!(performed(&story.learn(&[Stimulus::Recovered])), ["b"]);
}

#[test]
fn an_effect_in_flight_when_everything_is_held_is_repeated_only_afterwards() {
    let mut story = live(vec![put("a", &[])]);
    story.tick();
    story.paused = true;
    let unknown = Stimulus::Effect("a".into(), EffectResult::Unknown("?".into()));
    let held = story.learn(std::slice::from_ref(&unknown));
    assert!(held.tasks.is_empty());
    assert_eq!(held.deferred, [unknown]);
    assert_eq!(story.learn(&[Stimulus::Recovered]).rest, Rest::Asleep { wake_at: Some(story.now) });
    story.paused = false;
    assert_eq!(performed(&story.learn(&[Stimulus::Recovered])), ["a"]);
}

#[test]
fn the_total_time_of_a_step_and_of_a_run_ends_them() {
    let limited = Step { deadline: Some(Span::secs(10)), ..put("a", &[]) };
    let mut story = live(vec![limited]);
    story.tick();
    let waiting =
        story.learn(&[Stimulus::Effect("a".into(), EffectResult::Failed(failure(ErrorKind::Unavailable)))]);
    assert!(matches!(waiting.rest, Rest::Asleep { wake_at: Some(_) }));
    story.now += SignedDuration::from_secs(10);
    let over = story.tick();
    assert_eq!(over.rest, Rest::Over(Outcome::Failed));

    let mut story = live(vec![for_reply("answer", &[])]);
    story.version.deadline = Some(Span::secs(20));
    story.tick();
    let quiet = story.learn(&[Stimulus::Quiet("answer".into())]);
    assert_eq!(quiet.rest, Rest::Asleep { wake_at: Some(Span::secs(20).after(story.now)) });
    story.now += SignedDuration::from_secs(20);
    assert_eq!(story.tick().rest, Rest::Over(Outcome::Failed));
}

#[test]
fn going_on_from_a_failure_keeps_what_was_done_and_repeats_no_effect() {
    let mut story = live(vec![put("a", &[]), put("b", &["a"]), put("c", &["b"])]);
    story.tick();
    story.learn(&[done("a")]);
    story.learn(&[failed("b")]);
    let reopen = Stimulus::Reopen { by: "owner".into(), from: None, repeat: false };
    let on = story.learn(&[reopen]);
    assert_eq!(performed(&on), ["b"]);
    story.learn(&[done("b")]);
    assert_eq!(story.learn(&[done("c")]).rest, Rest::Over(Outcome::Succeeded));
}

#[test]
fn going_on_from_a_step_tells_which_effects_have_happened_and_repeats_them_only_when_told_to() {
    let mut story = live(vec![put("a", &[]), put("b", &["a"])]);
    story.tick();
    story.learn(&[done("a")]);
    story.learn(&[done("b")]);
    let told = again(&story.run, &story.version, Some(&"a".into())).unwrap();
    assert_eq!(told.completed, BTreeSet::from(["a".into(), "b".into()]));
    assert_eq!(again(&story.run, &story.version, Some(&"x".into())), None);
    let key = EffectKey { action: "records.put".into(), key: format!("{}/a", story.run.id) };
    let first = Existing {
        effect: story.run.record(&"a".into()).effect.unwrap(),
        run: story.run.id,
        digest: Digest::ZERO,
        response: Some(json!({"version": 3})),
    };
    story.taken.insert(key, first);
    let reopen = |repeat| Stimulus::Reopen { by: "owner".into(), from: Some("a".into()), repeat };
    let reused = story.learn(&[reopen(false)]);
    assert!(Story::kinds(&reused).contains(&"effect.reused".to_owned()));
    assert!(!performed(&reused).contains(&"a".to_owned()));

    let mut story = live(vec![put("a", &[])]);
    story.tick();
    story.learn(&[done("a")]);
    let repeated = story.learn(&[reopen(true)]);
    let [Task::Perform(proposal)] = &repeated.tasks[..] else { panic!() };
    assert_eq!(proposal.key, format!("{}/a#1", story.run.id));
}
