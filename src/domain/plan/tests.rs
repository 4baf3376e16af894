//! What planning promises: told as stories here, held against any sequence of happenings in [`any_order`].

mod agents;
mod any_order;
mod every_kind;
mod kinds;
mod labels;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::domain::digest::Digest;
use crate::domain::duration::Span;
use crate::domain::event::{Ask, ErrorKind, Opened};
use crate::domain::ids::WorkflowName;
use crate::domain::policy::facts::Seen;
use crate::domain::retry::Retry;
use crate::domain::step::StepStatus;
use crate::domain::workflow::{ActionStep, Agent, AgentStep, ReviewStep, Step, StepKind};

/// A run with everything planning rests on; `learn` is what the run actor does, without the actor.
struct Story {
    version: Version,
    stage: Stage,
    repeat: Repeat,
    policy: Policy,
    taken: BTreeMap<EffectKey, Existing>,
    paused: bool,
    now: Timestamp,
    run: Run,
    journal: Vec<Entry>,
    times: Vec<Timestamp>,
}

impl Story {
    fn new(steps: Vec<Step>) -> Self {
        let agent = Agent {
            agent: "writer".into(),
            tier: "draft".into(),
            prompt: "Write.".into(),
            output: json!({"type": "object"}),
            classes: Vec::new(),
            canned: None,
            max_tokens: 100,
            tools: Vec::new(),
            max_turns: 6,
            token_limit: None,
            finalize: None,
            votes: None,
            cache: None,
        };
        let version = Version {
            workflow: "test".into(),
            title: "A test".into(),
            input: json!({"type": "object"}),
            steps,
            agents: BTreeMap::from([("writer".into(), agent)]),
            deadline: None,
            output: None,
            flow: Default::default(),
            sample: None,
            budget: Default::default(),
            trust: Default::default(),
        };
        let opened = Opened {
            workflow: WorkflowName::from("test"),
            version: version.digest(),
            title: "A test".into(),
            input: json!({"from": "ann@client.example", "body": "Hello"}),
            label: Label::Untrusted,
            trigger: "email".into(),
            verified: None,
            parent: None,
            rerun: None,
            budget_micros: None,
        };
        let now = Timestamp::from_second(1_000_000).unwrap();
        Self {
            version,
            stage: Stage::Supervised,
            repeat: Repeat::None,
            policy: Policy::default(),
            taken: BTreeMap::new(),
            paused: false,
            now,
            run: Run::open(RunId(Uuid::from_u128(7)), opened.clone(), now),
            journal: vec![Entry {
                event: Event::RunOpened(opened),
                actor: "trigger:email".into(),
                label: Label::Untrusted,
            }],
            times: vec![now],
        }
    }

    fn learn(&mut self, stimuli: &[Stimulus]) -> Transition {
        let workspace = json!({"name": "Harbour & Pine"});
        let repeat = self.repeat;
        let env = Env {
            version: &self.version,
            stage: self.stage,
            policy: &self.policy,
            workspace: &workspace,
            repeat: &|_| repeat,
            paused: self.paused,
            taken: &self.taken,
            now: self.now,
            jitter: 0.0,
        };
        let mut transition = advance(&mut self.run, stimuli, &env).unwrap();
        // Nothing was done before, and that is known at once.
        while let Some(at) = transition.tasks.iter().position(|task| matches!(task, Task::LookBack(_))) {
            let Task::LookBack(lookup) = transition.tasks.remove(at) else { unreachable!() };
            let history = Box::new(Ok(history(&lookup)));
            let looked_back = Stimulus::LookedBack(lookup.step, lookup.attempt, history);
            let next = advance(&mut self.run, &[looked_back], &env).unwrap();
            transition.entries.extend(next.entries);
            transition.tasks.extend(next.tasks);
            (transition.rest, transition.due) = (next.rest, next.due);
        }
        self.journal.extend(transition.entries.iter().cloned());
        self.times.resize(self.journal.len(), self.now);
        transition
    }

    /// The journal folds to the very run that planning left behind.
    fn folds(&self) -> bool {
        let journal = self.journal.iter().map(|entry| entry.event.clone()).zip(self.times.iter().copied());
        Run::fold(self.run.id, journal).unwrap() == self.run
    }

    fn tick(&mut self) -> Transition {
        self.learn(&[Stimulus::Tick])
    }

    fn decide(&mut self, verdict: Verdict) -> Transition {
        let review = self.open_review();
        self.learn(&[Stimulus::Decided { review, verdict, by: "owner".into() }])
    }

    fn open_review(&self) -> ReviewId {
        let open = self.run.steps.values().find_map(|record| match record.status {
            StepStatus::Asking { review, .. } => Some(review),
            _ => None,
        });
        open.expect("a review is open")
    }

    fn kinds(transition: &Transition) -> Vec<String> {
        let kind =
            |entry: &Entry| serde_json::to_value(&entry.event).unwrap()["kind"].as_str().unwrap().to_owned();
        transition.entries.iter().map(kind).collect()
    }
}

/// Nobody of them was reached before.
fn history(lookup: &Lookup) -> History {
    let seen = lookup.targets.iter().map(|target| (target.key.clone(), Seen::default()));
    History { targets: seen.collect(), ..History::default() }
}

fn step(id: &str, needs: &[&str], kind: StepKind) -> Step {
    Step {
        id: id.into(),
        name: None,
        needs: needs.iter().map(|need| StepId::from(*need)).collect(),
        when: None,
        kind,
        retry: Retry { attempts: 3, ..Retry::default() },
        timeout: Span::secs(60),
        deadline: None,
        each: None,
        undo: None,
    }
}

fn action(name: &str, with: Value) -> StepKind {
    StepKind::Action(ActionStep { action: name.into(), with, dedupe: None, review: None })
}

fn noop(id: &str, needs: &[&str]) -> Step {
    step(id, needs, action("noop", json!({"value": id})))
}

fn reply(id: &str, needs: &[&str]) -> Step {
    let with = json!({"to": "{{ input.from }}", "subject": "Re", "body": "You wrote: {{ input.body }}"});
    step(id, needs, action("email.send", with))
}

fn draft(id: &str, needs: &[&str]) -> Step {
    let with = json!({"text": "{{ input.body }}"});
    step(id, needs, StepKind::Agent(AgentStep { agent: "writer".into(), with }))
}

fn failure(kind: ErrorKind) -> StepError {
    StepError::new(kind, "no")
}

fn answered(step: &str, answer: Answer) -> Stimulus {
    Stimulus::Answered(step.into(), None, answer)
}

fn output(value: Value) -> Answer {
    Answer::Output { output: value, label: Label::Untrusted, confidence: Some(0.9) }
}

#[test]
fn a_pure_step_begins_only_after_the_one_before_it_is_durable() {
    let mut story = Story::new(vec![noop("a", &[]), noop("b", &["a"])]);
    let first = story.tick();
    assert_eq!((first.tasks, first.entries.len()), (vec![Task::Instant("a".into())], 0));
    let second = story.learn(&[Stimulus::Instant("a".into())]);
    assert_eq!(Story::kinds(&second), ["step.succeeded"]);
    assert_eq!(second.tasks, [Task::Instant("b".into())]);
    let last = story.learn(&[Stimulus::Instant("b".into())]);
    assert_eq!(Story::kinds(&last), ["step.succeeded", "run.finished"]);
    assert_eq!(last.rest, Rest::Over(Outcome::Succeeded));
}

#[test]
fn an_external_effect_of_a_supervised_version_waits_for_the_owner_and_then_is_exactly_what_was_approved() {
    let mut story = Story::new(vec![reply("reply", &[])]);
    let asked = story.tick();
    assert_eq!(Story::kinds(&asked), ["step.started", "effect.proposed", "review.opened"]);
    assert_eq!((asked.tasks.len(), asked.rest), (0, Rest::Asleep { wake_at: None }));
    let Event::ReviewOpened(question) = &asked.entries[2].event else { panic!() };
    assert_eq!(question.digest, question.action.as_ref().unwrap().digest());
    assert!(question.reasons.iter().any(|reason| reason.contains("supervised")));
    assert!(question.reasons.iter().any(|reason| reason.contains("ann@client.example")));
    let approved = story.decide(Verdict::Approved);
    assert_eq!(Story::kinds(&approved), ["review.decided", "effect.started"]);
    let [Task::Perform(proposal)] = &approved.tasks[..] else { panic!() };
    assert_eq!(proposal.action.digest(), question.digest);
    let done = story.learn(&[Stimulus::Effect("reply".into(), EffectResult::Succeeded(json!({})))]);
    assert_eq!(Story::kinds(&done), ["effect.succeeded", "step.succeeded", "run.finished"]);
}

#[test]
fn an_edit_is_a_new_digest_and_is_what_gets_sent() {
    let mut story = Story::new(vec![reply("reply", &[])]);
    story.tick();
    let params = json!({"to": "ann@client.example", "subject": "Re", "body": "Better."});
    let started = story.decide(Verdict::Edited { params: params.clone() });
    let [Task::Perform(proposal)] = &started.tasks[..] else { panic!() };
    assert_eq!(proposal.action.params, params);
    assert_eq!(proposal.digest, proposal.action.digest());
    let Event::EffectStarted { digest, .. } = &started.entries[1].event else { panic!() };
    assert_eq!(*digest, proposal.digest);
}

#[test]
fn a_rejected_effect_gives_its_key_back_and_the_run_ends_as_declined() {
    let mut story = Story::new(vec![reply("reply", &[]), noop("after", &["reply"])]);
    story.tick();
    let over = story.decide(Verdict::Rejected { reason: "not this one".into() });
    assert_eq!(Story::kinds(&over), ["review.decided", "effect.withdrawn", "step.declined", "run.finished"]);
    assert_eq!(over.rest, Rest::Over(Outcome::Declined));
    assert_eq!(*story.run.status(&"after".into()), StepStatus::Pending, "nothing after it was done");
}

#[test]
fn a_time_out_never_means_yes() {
    let mut story = Story::new(vec![reply("reply", &[])]);
    story.tick();
    let over = story.decide(Verdict::Expired);
    assert!(over.tasks.is_empty());
    assert_eq!(over.rest, Rest::Over(Outcome::Failed));
}

#[test]
fn a_decision_about_another_review_changes_nothing() {
    let mut story = Story::new(vec![reply("reply", &[])]);
    story.tick();
    let stranger =
        Stimulus::Decided { review: ReviewId(Uuid::nil()), verdict: Verdict::Approved, by: "x".into() };
    assert!(story.learn(&[stranger]).entries.is_empty());
}

#[test]
fn after_a_crash_a_harmless_effect_is_repeated_and_one_that_cannot_be_known_is_asked_about() {
    for (repeat, kinds) in [
        (Repeat::Natural, vec!["effect.started"]),
        (Repeat::Token, vec!["effect.started"]),
        (Repeat::Probe, vec![]),
        (Repeat::None, vec!["effect.unknown", "review.opened"]),
    ] {
        let mut story = Story::new(vec![reply("reply", &[])]);
        story.repeat = repeat;
        story.tick();
        story.decide(Verdict::Approved);
        let recovered = story.learn(&[Stimulus::Recovered, Stimulus::Tick]);
        assert_eq!(Story::kinds(&recovered), kinds, "{repeat:?}");
        assert_eq!(matches!(recovered.tasks[..], [Task::Probe(_)]), repeat == Repeat::Probe);
    }
}

#[test]
fn an_effect_in_doubt_is_resolved_by_the_owner_alone() {
    for (choice, kinds) in [
        ("happened", vec!["review.decided", "effect.succeeded", "step.succeeded", "run.finished"]),
        ("again", vec!["review.decided", "effect.started"]),
        ("give_up", vec!["review.decided", "step.declined", "run.finished"]),
    ] {
        let mut story = Story::new(vec![reply("reply", &[])]);
        story.tick();
        story.decide(Verdict::Approved);
        let doubt = Stimulus::Effect("reply".into(), EffectResult::Unknown("the line went dead".into()));
        assert_eq!(Story::kinds(&story.learn(&[doubt])), ["effect.unknown", "review.opened"]);
        assert_eq!(Story::kinds(&story.decide(Verdict::Answered { answer: json!(choice) })), kinds);
    }
}

#[test]
fn a_passing_failure_is_tried_again_later_and_a_lasting_one_is_not() {
    let mut story = Story::new(vec![draft("draft", &[])]);
    story.tick();
    for second in [1, 2] {
        let failed = story.learn(&[answered("draft", Answer::Failed(failure(ErrorKind::Unavailable)))]);
        let wake_at = story.now + SignedDuration::from_secs(second);
        assert_eq!(failed.rest, Rest::Asleep { wake_at: Some(wake_at) });
        assert!(story.tick().entries.is_empty(), "not before its time");
        story.now = wake_at;
        assert_eq!(Story::kinds(&story.tick()), ["step.started"]);
    }
    let last = story.learn(&[answered("draft", Answer::Failed(failure(ErrorKind::Unavailable)))]);
    assert_eq!(last.rest, Rest::Over(Outcome::Failed), "three attempts are all there are");

    let mut story = Story::new(vec![draft("draft", &[])]);
    story.tick();
    let refused = story.learn(&[answered("draft", Answer::Failed(failure(ErrorKind::Refused)))]);
    assert_eq!(refused.rest, Rest::Over(Outcome::Failed));
}

#[test]
fn the_owner_is_the_last_model_and_the_answer_is_the_owners_word() {
    let mut story = Story::new(vec![draft("draft", &[])]);
    story.tick();
    let asked = story
        .learn(&[answered("draft", Answer::Owner { reasons: vec!["no key is set".into()], draft: None })]);
    let Event::ReviewOpened(question) = &asked.entries[0].event else { panic!() };
    assert_eq!((question.ask, question.form.clone()), (Ask::Answer, Some(json!({"type": "object"}))));
    story.decide(Verdict::Answered { answer: json!({"body": "Hi"}) });
    assert_eq!(story.run.label_of("steps.draft.output"), Label::Owner);
    assert_eq!(story.run.finished.as_ref().unwrap().0, Outcome::Succeeded);
}

#[test]
fn a_step_that_builds_on_a_skipped_one_is_skipped_too_and_says_why() {
    let mut skipped = draft("draft", &[]);
    skipped.when = Some("input.body == 'Bye'".into());
    let with = json!({"kind": "lead", "key": "k", "data": "{{ steps.draft.output }}"});
    let save = step("save", &["draft"], action("records.put", with));
    let mut story = Story::new(vec![skipped, save, noop("end", &["save"])]);
    let transition = story.tick();
    assert_eq!(Story::kinds(&transition), ["step.skipped", "step.skipped"]);
    let Event::StepSkipped { reason, .. } = &transition.entries[1].event else { panic!() };
    assert!(reason.contains("`draft`"));
    assert_eq!(transition.tasks, [Task::Instant("end".into())]);
}

#[test]
fn a_template_that_cannot_be_filled_in_fails_its_step_with_the_name_that_is_missing() {
    let mut story =
        Story::new(vec![step("save", &[], action("email.send", json!({"to": "{{ input.nobody }}"})))]);
    let transition = story.tick();
    let Event::StepFailed { error, .. } = &transition.entries[1].event else { panic!() };
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("input.nobody"), "{error}");
}

#[test]
fn cancelling_withdraws_the_question_but_waits_for_an_effect_in_flight() {
    let mut story = Story::new(vec![reply("reply", &[])]);
    story.tick();
    let cancelled = story.learn(&[Stimulus::Cancel { by: "owner".into() }]);
    assert_eq!(
        Story::kinds(&cancelled),
        ["run.cancelling", "effect.withdrawn", "review.superseded", "run.finished"]
    );

    let mut story = Story::new(vec![reply("reply", &[])]);
    story.tick();
    story.decide(Verdict::Approved);
    let cancelling = story.learn(&[Stimulus::Cancel { by: "owner".into() }]);
    assert_eq!(cancelling.rest, Rest::Busy);
    let over = story.learn(&[Stimulus::Effect("reply".into(), EffectResult::Succeeded(json!({})))]);
    assert_eq!(over.rest, Rest::Over(Outcome::Cancelled));
}

#[test]
fn the_same_key_gives_the_first_result_or_waits_for_it() {
    let mut story = Story::new(vec![reply("reply", &[])]);
    let key = EffectKey { action: "email.send".into(), key: format!("{}/reply", story.run.id) };
    let params = json!({"to": "ann@client.example", "subject": "Re", "body": "You wrote: Hello"});
    let digest = Action { action: "email.send".into(), params }.digest();
    let holder = Existing { effect: EffectId(Uuid::nil()), run: RunId(Uuid::nil()), digest, response: None };
    story.taken.insert(key.clone(), holder.clone());
    assert_eq!(Story::kinds(&story.tick()), ["step.started", "attempt.failed"]);
    story.now += SignedDuration::from_secs(31);
    assert_eq!(story.run.record(&"reply".into()).failures, 0, "waiting is no failure");
    story
        .taken
        .insert(key.clone(), Existing { response: Some(json!({"message_id": "x"})), ..holder.clone() });
    let reused = story.tick();
    assert_eq!(Story::kinds(&reused), ["step.started", "effect.reused", "step.succeeded", "run.finished"]);

    let mut story = Story::new(vec![reply("reply", &[])]);
    story.taken.insert(key, Existing { digest: Digest::ZERO, response: Some(json!({})), ..holder });
    let refused = story.tick();
    assert_eq!(
        Story::kinds(&refused),
        ["step.started", "step.failed", "run.finished"],
        "another action's result is not ours"
    );
}

#[test]
fn what_was_approved_and_did_not_happen_is_done_again_without_asking_again() {
    let mut story = Story::new(vec![reply("reply", &[])]);
    story.tick();
    let params = json!({"to": "ann@client.example", "subject": "Re", "body": "In the owner's words."});
    story.decide(Verdict::Edited { params: params.clone() });
    let failed = Stimulus::Effect("reply".into(), EffectResult::Failed(failure(ErrorKind::Unavailable)));
    let waiting = story.learn(&[failed]);
    let Rest::Asleep { wake_at: Some(wake_at) } = waiting.rest else { panic!() };
    story.now = wake_at;
    let again = story.tick();
    assert_eq!(Story::kinds(&again), ["step.started", "effect.proposed", "effect.started"]);
    let [Task::Perform(proposal)] = &again.tasks[..] else { panic!() };
    assert_eq!(proposal.action.params, params, "the owner's edit is kept");
}

#[test]
fn a_key_too_long_for_the_index_fails_its_step_and_says_so() {
    let mut long = reply("reply", &[]);
    if let StepKind::Action(action) = &mut long.kind {
        action.dedupe = Some("{{ input.body * 200 }}".into());
    }
    let mut story = Story::new(vec![long]);
    assert_eq!(story.tick().rest, Rest::Over(Outcome::Failed));
}

#[test]
fn what_an_effect_answers_carries_the_labels_it_was_asked_with() {
    let with = json!({"kind": "lead", "key": "{{ input.from }}", "data": {}});
    let mut story =
        Story::new(vec![step("save", &[], action("records.put", with)), reply("reply", &["save"])]);
    story.tick();
    story.learn(&[Stimulus::Effect("save".into(), EffectResult::Succeeded(json!({"key": "x"})))]);
    assert_eq!(story.run.label_of("steps.save.output.key"), Label::Untrusted);
}

#[test]
fn cancelling_while_an_effect_is_in_doubt_still_asks_whether_it_happened() {
    let mut story = Story::new(vec![reply("reply", &[])]);
    story.tick();
    story.decide(Verdict::Approved);
    story.learn(&[Stimulus::Cancel { by: "owner".into() }]);
    let unknown = Stimulus::Effect("reply".into(), EffectResult::Unknown("the line went dead".into()));
    assert_eq!(Story::kinds(&story.learn(&[unknown])), ["effect.unknown", "review.opened"]);
    let over = story.decide(Verdict::Answered { answer: json!("happened") });
    assert_eq!(over.rest, Rest::Over(Outcome::Cancelled));
}

#[test]
fn a_question_goes_on_with_whatever_the_owner_says() {
    let ask = ReviewStep { ask: "Ship to {{ input.from }}?".into(), form: None, shows: Default::default() };
    let mut story = Story::new(vec![step("ask", &[], StepKind::Review(ask))]);
    story.tick();
    story.decide(Verdict::Rejected { reason: "no".into() });
    let StepStatus::Succeeded { output, .. } = story.run.status(&"ask".into()) else { panic!() };
    assert_eq!(output["decision"], "rejected");
}
