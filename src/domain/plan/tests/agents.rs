//! What agents look up, and the share of what they lead to that the owner is shown.

use super::*;
use crate::domain::event::{ModelCall, ToolCall};
use crate::domain::sampling::chosen;

pub(super) fn lookup(label: Label) -> ToolCall {
    ToolCall {
        tool: "memory.search".into(),
        model: "m".into(),
        turn: 1,
        arguments: json!({"query": "x"}),
        outcome: "ok".into(),
        label,
        result: None,
        excerpt: String::new(),
        millis: 1,
    }
}

fn called(cost_micros: i64) -> ModelCall {
    ModelCall { model: "m".into(), outcome: "ok".into(), cost_micros, ..ModelCall::default() }
}

#[test]
fn every_lookup_is_an_entry_of_the_agent_with_the_label_of_what_it_gave() {
    let mut story = Story::new(vec![draft("draft", &[])]);
    story.tick();
    let told = story.learn(&[
        Stimulus::Tried("draft".into(), called(1)),
        Stimulus::LookedUp("draft".into(), lookup(Label::Untrusted)),
        answered("draft", output(json!({"body": "x"}))),
        Stimulus::LookedUp("draft".into(), lookup(Label::Untrusted)),
    ]);
    assert_eq!(
        Story::kinds(&told),
        ["model.called", "tool.called", "step.succeeded", "run.finished"],
        "what comes after the answer says nothing any more"
    );
    assert_eq!((told.entries[1].actor.as_str(), told.entries[1].label), ("agent:writer", Label::Untrusted));
    assert!(story.folds());
}

/// A draft that cost `cost_micros`, through a pure step into a reply to a known address.
fn sampled(share: f64, cost_micros: i64) -> Vec<String> {
    let shout =
        step("shout", &["draft"], action("noop", json!({"value": "{{ steps.draft.output.body | upper }}"})));
    let with = json!({"to": "ada@studio.example", "subject": "Re", "body": "{{ steps.shout.output }}"});
    let mut story =
        Story::new(vec![draft("draft", &[]), shout, step("reply", &["shout"], action("email.send", with))]);
    story.stage = Stage::Live;
    story.version.sample = Some(share);
    story.tick();
    let answer = Stimulus::Answered("draft".into(), Some(called(cost_micros)), output(json!({"body": "x"})));
    story.learn(&[answer]);
    let proposed = story.learn(&[Stimulus::Instant("shout".into())]);
    let reasons = proposed.entries.iter().find_map(|entry| match &entry.event {
        Event::ReviewOpened(question) => Some(question.reasons.clone()),
        _ => None,
    });
    assert_eq!(reasons.is_none(), Story::kinds(&proposed).contains(&"effect.started".to_owned()));
    assert!(story.folds());
    reasons.unwrap_or_default()
}

#[test]
fn a_share_of_what_paid_models_lead_to_is_shown_with_the_reason() {
    let reasons = sampled(1.0, 5);
    assert_eq!(reasons, ["you asked to see 100 % of what paid models lead to, and this is one of them"]);
    assert!(sampled(1.0, 0).is_empty(), "what cost nothing is no part of it");
    assert!(sampled(0.0, 5).is_empty());
    let run = Story::new(Vec::new()).run.id;
    assert_eq!(!sampled(0.5, 5).is_empty(), chosen(run, &"reply".into(), 0.5), "the run chooses");
}

#[test]
fn the_owner_who_is_asked_instead_of_a_second_pass_sees_the_draft_first() {
    let mut story = Story::new(vec![draft("draft", &[])]);
    story.tick();
    let written = Some(Box::new((json!({"body": "Hi"}), Label::Untrusted)));
    let told = story.learn(&[answered("draft", Answer::Owner { reasons: Vec::new(), draft: written })]);
    let Event::ReviewOpened(question) = &told.entries[0].event else { panic!("{:?}", told.entries) };
    let shown = &question.artifacts[0];
    assert_eq!(
        (shown.title.as_str(), shown.label, &shown.value),
        ("draft", Label::Untrusted, &json!({"body": "Hi"}))
    );
    assert_eq!(question.artifacts.len(), 2, "and what it is about");
}

#[test]
fn sampling_never_softens_what_policy_says() {
    let with = json!({"to": "{{ input.from }}", "subject": "Re", "body": "{{ steps.draft.output.body }}"});
    let mut story =
        Story::new(vec![draft("draft", &[]), step("reply", &["draft"], action("email.send", with))]);
    story.stage = Stage::Live;
    story.version.sample = Some(1.0);
    story.tick();
    let told =
        story.learn(&[Stimulus::Answered("draft".into(), Some(called(5)), output(json!({"body": "x"})))]);
    let question = told.entries.iter().find_map(|entry| match &entry.event {
        Event::ReviewOpened(question) => Some(question.reasons.join("; ")),
        _ => None,
    });
    let reasons = question.expect("a stranger's address is reviewed anyway");
    assert!(reasons.contains("do not know") && !reasons.contains("you asked to see"), "{reasons}");
}
