//! The owner changes his mind: he gives a draft back to its agent, or calls back what he has approved.

use super::*;
use crate::domain::event::Question;
use crate::domain::plan::respond::{MAX_ROUNDS, NoAuthor, author};
use crate::domain::risk::RiskClass;

/// A draft, a pure step over it, and a reply that is made of both.
fn letters() -> Vec<Step> {
    let shout =
        step("shout", &["draft"], action("noop", json!({"value": "{{ steps.draft.output.body | upper }}"})));
    let with = json!({"to": "{{ input.from }}", "subject": "Re", "body": "{{ steps.shout.output }}"});
    vec![draft("draft", &[]), shout, step("reply", &["shout"], action("email.send", with))]
}

fn drafted(story: &mut Story, body: &str) -> Transition {
    story.learn(&[answered("draft", output(json!({"body": body})))]);
    story.learn(&[Stimulus::Instant("shout".into())])
}

fn asked(steps: Vec<Step>) -> Story {
    let mut story = Story::new(steps);
    story.tick();
    drafted(&mut story, "hello");
    story
}

fn responded(words: &str) -> Verdict {
    Verdict::Responded { words: words.into() }
}

fn question(transition: &Transition) -> &Question {
    let found = transition.entries.iter().find_map(|entry| match &entry.event {
        Event::ReviewOpened(question) => Some(question),
        _ => None,
    });
    found.expect("a review is opened")
}

#[test]
fn the_owners_words_go_to_the_agent_with_its_draft_and_a_new_draft_is_proposed() {
    let mut story = asked(letters());
    let first = story.open_review();
    let back = story.decide(responded("shorter"));
    assert_eq!(Story::kinds(&back), ["review.decided", "effect.withdrawn", "draft.returned", "step.started"]);
    let Event::DraftReturned(returned) = &back.entries[2].event else { panic!() };
    assert_eq!(
        (&returned.step, &returned.proposes, returned.review),
        (&"draft".into(), &"reply".into(), first)
    );
    assert_eq!(returned.anew.len(), 3, "the pure step in between is done anew too: {returned:?}");
    assert!(matches!(&back.tasks[..], [Task::Agent { step, .. }] if *step == "draft".into()));
    let round = &story.run.record(&"draft".into()).rounds[0];
    assert_eq!((round.draft["body"].as_str(), round.words.as_str()), (Some("hello"), "shorter"));

    let again = drafted(&mut story, "hi");
    let question = question(&again);
    assert_ne!(question.review, first, "a new review, for a new draft");
    assert_eq!(question.action.as_ref().unwrap().params["body"], "HI");
    assert_eq!(question.artifacts[0].title, "you said");
    assert_eq!(question.artifacts[0].label, Label::Owner);
    let sent = story.decide(Verdict::Approved);
    assert!(matches!(&sent.tasks[..], [Task::Perform(proposal)] if proposal.action.params["body"] == "HI"));
    assert!(story.folds());
}

#[test]
fn a_draft_carries_the_label_of_the_one_before_it() {
    let mut story = asked(letters());
    story.run.opened.label = Label::Owner; // what is given to the agent is trusted, what it looked up was not
    let back = story.decide(responded("shorter"));
    let [Task::Agent { label, .. }] = &back.tasks[..] else { panic!() };
    assert_eq!(*label, Label::Untrusted);
}

#[test]
fn a_draft_goes_back_so_often_and_then_the_owner_is_asked_as_before() {
    let mut story = asked(letters());
    for round in 0..MAX_ROUNDS {
        assert!(author(&story.run, &story.version, &"reply".into()).is_ok(), "round {round}");
        story.decide(responded("again"));
        drafted(&mut story, &format!("draft {round}"));
    }
    assert_eq!(author(&story.run, &story.version, &"reply".into()), Err(NoAuthor::Enough));
    let refused = story.decide(responded("again"));
    assert_eq!(Story::kinds(&refused), ["review.decided", "review.opened"]);
    assert!(question(&refused).reasons[0].contains("given back"), "{:?}", question(&refused).reasons);
    assert!(matches!(story.decide(Verdict::Approved).tasks[..], [Task::Perform(_)]));
    assert!(story.folds());
}

#[test]
fn where_no_agent_wrote_or_what_it_wrote_was_used_nobody_can_be_asked() {
    let mut story = Story::new(vec![reply("reply", &[])]);
    story.tick();
    assert_eq!(author(&story.run, &story.version, &"reply".into()), Err(NoAuthor::Nobody));

    let save = step(
        "save",
        &["draft"],
        action("records.put", json!({"kind": "k", "key": "k", "data": "{{ steps.draft.output }}"})),
    );
    let with = json!({"to": "{{ input.from }}", "subject": "v{{ steps.save.output.version }}", "body": "b"});
    let mut story =
        Story::new(vec![draft("draft", &[]), save, step("reply", &["save"], action("email.send", with))]);
    story.tick();
    story.learn(&[answered("draft", output(json!({"body": "x"})))]);
    story.learn(&[Stimulus::Effect("save".into(), EffectResult::Succeeded(json!({"version": 1})))]);
    assert_eq!(
        author(&story.run, &story.version, &"reply".into()),
        Err(NoAuthor::Done("save".into())),
        "the record would be written twice"
    );
    assert_eq!(author(&story.run, &story.version, &"reply/undo".into()), Err(NoAuthor::Undoing));
    assert_eq!(author(&story.run, &story.version, &"reply/0".into()), Err(NoAuthor::OneOfMany));
}

fn held() -> Story {
    let mut steps = letters();
    let StepKind::Action(reply) = &mut steps[2].kind else { panic!() };
    reply.delay = Some(Span::secs(120));
    asked(steps)
}

#[test]
fn what_was_approved_waits_for_its_moment_and_then_goes_out() {
    let mut story = held();
    let approved = story.decide(Verdict::Approved);
    let until = story.now + SignedDuration::from_secs(120);
    assert_eq!(Story::kinds(&approved), ["review.decided", "effect.held"]);
    assert_eq!((approved.tasks.len(), approved.rest), (0, Rest::Asleep { wake_at: Some(until) }));
    assert!(
        story.learn(&[Stimulus::Recovered, Stimulus::Tick]).entries.is_empty(),
        "a crash changes nothing"
    );
    story.now = until;
    let gone = story.tick();
    assert_eq!(Story::kinds(&gone), ["effect.started"]);
    let [Task::Perform(proposal)] = &gone.tasks[..] else { panic!() };
    let late = story.learn(&[Stimulus::CallBack { effect: proposal.effect, by: "owner".into() }]);
    assert!(late.entries.is_empty(), "what was started cannot be called back");
    assert!(story.folds());
}

#[test]
fn what_is_called_back_is_asked_about_anew_and_needs_a_new_word() {
    let mut story = held();
    let params = json!({"to": "ann@client.example", "subject": "Re", "body": "Better."});
    story.decide(Verdict::Edited { params: params.clone() });
    let StepStatus::Held { proposal, .. } = story.run.status(&"reply".into()).clone() else { panic!() };
    assert_eq!(proposal.action.params, params, "what waits is the edit");
    let back = story.learn(&[Stimulus::CallBack { effect: proposal.effect, by: "owner".into() }]);
    assert_eq!(Story::kinds(&back), ["effect.called_back", "review.opened"]);
    let asked = question(&back);
    assert_eq!((asked.digest, asked.reasons[0].contains("called it back")), (proposal.digest, true));
    story.now += SignedDuration::from_secs(500);
    assert!(story.tick().tasks.is_empty(), "its moment is over and it does not go out");
    assert_eq!(Story::kinds(&story.decide(Verdict::Approved)), ["review.decided", "effect.held"]);
    let over = story.learn(&[Stimulus::Cancel { by: "owner".into() }]);
    assert_eq!(Story::kinds(&over), ["run.cancelling", "effect.withdrawn", "step.declined", "run.finished"]);
    assert!(story.folds());
}

#[test]
fn what_policy_allows_waits_too_and_a_step_may_say_that_it_does_not() {
    let mut story = Story::new(letters());
    story.stage = Stage::Live;
    story.policy.known.insert("ann@client.example".into());
    story.terms.delay.insert("email.send".into(), Span::secs(30));
    story.tick();
    assert_eq!(Story::kinds(&drafted(&mut story, "x")).last().unwrap(), "effect.held");

    let mut steps = letters();
    let StepKind::Action(reply) = &mut steps[2].kind else { panic!() };
    reply.delay = Some(Span::secs(0));
    let mut story = Story::new(steps);
    story.stage = Stage::Live;
    story.policy.known.insert("ann@client.example".into());
    story.terms.delay.insert("email.send".into(), Span::secs(30));
    story.tick();
    assert_eq!(Story::kinds(&drafted(&mut story, "x")).last().unwrap(), "effect.started");
}

#[test]
fn a_question_expires_as_its_class_does_unless_its_workflow_says_otherwise() {
    let due = |own: Option<Span>| {
        let mut steps = vec![reply("reply", &[])];
        let StepKind::Action(reply) = &mut steps[0].kind else { panic!() };
        reply.review = Some(crate::domain::workflow::ReviewSpec { artifacts: Vec::new(), due: own });
        let mut story = Story::new(steps);
        for class in [RiskClass::Low, RiskClass::Medium, RiskClass::High] {
            story.terms.expire.insert(class, Span::secs(1000));
        }
        let told = story.tick();
        question(&told).due_at.unwrap().duration_since(story.now).as_secs()
    };
    assert_eq!((due(None), due(Some(Span::secs(7)))), (1000, 7));
}
