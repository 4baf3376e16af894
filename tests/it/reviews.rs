//! Reviews in full: asking back, second thoughts, putting off, saying something, deciding several at once.

use std::sync::Arc;

use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use steward::domain::action::Repeat;
use steward::domain::duration::Span;
use steward::domain::event::{ErrorKind, StepError, Verdict};
use steward::domain::ids::{EffectId, RunId};
use steward::domain::plan::EffectResult;
use steward::domain::workflow::{Step, StepKind};
use steward::reviews::aside::{self, AsideRefusal};
use steward::reviews::batch::{BatchRefusal, decide_all};
use steward::reviews::call_back::{CallBackRefusal, CalledBack, call_back};
use steward::reviews::{DecideRefusal, decide, shown};
use steward::store::reviews::ReviewRow;

use crate::agents::{open, write};
use crate::invariants::broken;
use crate::support::forge::by_hand;
use crate::support::model_server::{ModelServer, says};
use crate::support::rig::{Rig, Scripted, call_out, step};
use crate::support::{App, app_with, database, eventually};

pub const AGENT: &str = "\
---
agent: helper
tier: draft
output: { type: object, required: [answer], properties: { answer: { type: string } } }
---
You write letters for {{ workspace.owner }}.
";

pub const LETTER: &str = "\
workflow: ask
title: A letter
input: { type: object, required: [text], properties: { text: { type: string } } }
steps:
  - id: think
    agent: helper
    with: { text: \"{{ input.text }}\" }
  - id: send
    action: email.send
    with: { to: ann@client.example, subject: Hello, body: \"{{ steps.think.output.answer }}\" }
";

/// A model that numbers its letters.
pub async fn writer() -> ModelServer {
    let count = std::sync::atomic::AtomicUsize::new(0);
    ModelServer::start(Box::new(move |_| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        says(&json!({"answer": format!("Dear Ann, this is letter {n}.")}).to_string())
    }))
    .await
}

async fn letters() -> (App, ModelServer) {
    let model = writer().await;
    let app = app_with(|workspace| write(workspace, &model, LETTER, AGENT)).await;
    (app, model)
}

async fn say(app: &App, review: &Value, body: Value) -> (StatusCode, Value) {
    let path = format!("/api/v1/reviews/{}/decision", review["id"].as_str().unwrap());
    app.call(Method::POST, &path, Some(body)).await
}

async fn review_after(app: &App, run: &str, before: &Value) -> Value {
    eventually("another review", || async {
        let reviews = app.get(&format!("/api/v1/reviews?run={run}")).await;
        reviews["reviews"].as_array()?.iter().find(|review| review["id"] != before["id"]).cloned()
    })
    .await
}

#[tokio::test]
async fn the_owners_words_reach_the_model_with_its_draft_and_the_new_draft_is_what_goes_out() {
    let (app, model) = letters().await;
    let run = open(&app, "Write to Ann.").await;
    let first = app.open_review(&run).await;
    assert!(first["question"]["action"]["params"]["body"].as_str().unwrap().contains("letter 1"));
    let (status, said) =
        say(&app, &first, json!({"verdict": "responded", "words": "Mention {{ the }} \"tea\"."})).await;
    assert_eq!((status, said["status"].as_str()), (StatusCode::OK, Some("responded")), "{said}");
    let second = review_after(&app, &run, &first).await;
    assert!(second["question"]["action"]["params"]["body"].as_str().unwrap().contains("letter 2"));
    let said: Vec<&Value> = second["question"]["artifacts"].as_array().unwrap().iter().collect();
    assert_eq!((&said[0]["title"], &said[0]["label"]), (&json!("you said"), &json!("owner")));

    let asked = model.requests().pop().unwrap();
    let (system, user) =
        (asked["messages"][0]["content"].to_string(), asked["messages"][1]["content"].as_str().unwrap());
    assert!(!system.contains("tea"), "the owner's words are no part of the instructions");
    assert!(user.contains("letter 1") && user.contains(r#""Mention {{ the }} \"tea\".""#), "{user}");

    let old = app.get(&format!("/api/v1/reviews/{}", first["id"].as_str().unwrap())).await;
    assert_eq!((&old["status"], &old["verdict"]["verdict"]), (&json!("superseded"), &json!("responded")));
    assert_eq!(old["verdicts"], json!([]), "it takes no more");
    let (status, late) = say(&app, &first, json!({"verdict": "approved"})).await;
    assert_eq!(
        (status, &late["verdict"]["words"]),
        (StatusCode::CONFLICT, &json!("Mention {{ the }} \"tea\"."))
    );
    assert!(late["at"].is_string() && late["by"].is_string(), "{late}");

    say(&app, &second, json!({"verdict": "approved"})).await;
    app.run_that_is(&run, &["succeeded"]).await;
    let journal = app.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await;
    let kinds: Vec<&str> =
        journal["entries"].as_array().unwrap().iter().filter_map(|e| e["kind"].as_str()).collect();
    assert!(kinds.contains(&"draft.returned"), "{kinds:?}");
    assert_eq!(broken(&app.store).await, []);
    app.stop().await;
}

#[tokio::test]
async fn a_model_that_fails_leaves_the_words_unheeded_and_the_owner_writes_himself() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let model = ModelServer::start(Box::new(move |_| {
        match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => says(r#"{"answer": "Dear Ann"}"#),
            _ => crate::support::model_server::fails(401, "invalid_api_key"),
        }
    }))
    .await;
    let agent = AGENT
        .replace("\n---\nYou", "\ncanned: { output: { answer: the same again }, confidence: 0.9 }\n---\nYou");
    let app = app_with(|workspace| {
        write(workspace, &model, LETTER, &agent);
        let models =
            model.models_yaml().replace("draft: [test-model, owner]", "draft: [test-model, canned, owner]");
        std::fs::write(workspace.join("config/models.yaml"), models).unwrap();
    })
    .await;
    let run = open(&app, "Write to Ann.").await;
    let first = app.open_review(&run).await;
    say(&app, &first, json!({"verdict": "responded", "words": "warmer"})).await;
    let asked = review_after(&app, &run, &first).await;
    assert_eq!(asked["ask"], "answer", "what is canned cannot heed anybody: {asked}");
    assert_eq!(asked["question"]["artifacts"][0]["value"]["answer"], "Dear Ann", "his draft is shown again");
    app.stop().await;
}

#[tokio::test]
async fn where_no_agent_wrote_it_the_owner_hears_that_nobody_can_be_asked() {
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let run = rig.open(None).await.run();
    let review = review(&rig, run).await;
    let words = Verdict::Responded { words: "cheaper".into() };
    let refused = decide(&rig.door, review.id, Some(review.digest), words, "owner").await.unwrap_err();
    assert!(matches!(refused, DecideRefusal::NoAuthor(_)), "{refused}");
    let empty = Verdict::Responded { words: " \n".into() };
    let refused = decide(&rig.door, review.id, Some(review.digest), empty, "owner").await.unwrap_err();
    assert!(matches!(refused, DecideRefusal::BadWords(_)), "{refused}");
    let shown = shown(rig.door.engine(), review).await.unwrap();
    assert_eq!(shown.verdicts, ["approved", "edited", "rejected"], "it is not offered either");
    rig.door.stop().await;
}

async fn review(rig: &Rig, run: RunId) -> ReviewRow {
    eventually("a review", || async { rig.store.reviews("open", Some(run), None, 1).await.unwrap().pop() })
        .await
}

fn paying_after(delay: Span) -> Vec<Step> {
    let mut pay = call_out("pay", None);
    if let StepKind::Action(action) = &mut pay.kind {
        action.delay = Some(delay);
    }
    vec![pay]
}

fn paying() -> Arc<Scripted> {
    Scripted::new(Repeat::None, |_, _| EffectResult::Succeeded(json!({})))
}

async fn held(rig: &Rig, run: RunId) -> EffectId {
    eventually("an effect that waits", || async {
        let effects = rig.store.effects(run).await.unwrap();
        effects.into_iter().find(|effect| effect.goes_at.is_some()).map(|effect| effect.id)
    })
    .await
}

#[tokio::test]
async fn what_was_approved_is_called_back_after_a_restart_and_needs_a_new_word() {
    let store = database().await;
    let paid = paying();
    let hour = Span::secs(3600);
    let rig = Rig::over(store.clone(), paying_after(hour), vec![paid.clone()]).await;
    let run = rig.open(None).await.run();
    rig.decide(run, Verdict::Approved).await;
    let effect = held(&rig, run).await;
    rig.becomes(run, "waiting").await;
    assert_eq!(broken(&store).await, []);
    rig.door.stop().await;

    let rig = Rig::over(store.clone(), paying_after(hour), vec![paid.clone()]).await;
    assert_eq!(call_back(&rig.door, effect, "owner").await.unwrap(), CalledBack::Back);
    let anew = review(&rig, run).await;
    assert!(anew.question.reasons[0].contains("called it back"), "{:?}", anew.question.reasons);
    assert!(matches!(
        call_back(&rig.door, effect, "owner").await.unwrap_err(),
        CallBackRefusal::TooLate { .. }
    ));
    assert_eq!(broken(&store).await, [], "the first approval counts no more, and nothing has used it");
    rig.decide(run, Verdict::Rejected { reason: "after all".into() }).await;
    rig.becomes(run, "declined").await;
    assert_eq!(paid.calls(), 0);
    assert_eq!(broken(&store).await, []);
    rig.door.stop().await;
}

#[tokio::test]
async fn what_nobody_calls_back_goes_out_by_itself_and_then_it_is_too_late() {
    let paid = paying();
    let rig = Rig::new(paying_after(Span(std::time::Duration::from_millis(300))), vec![paid.clone()]).await;
    let run = rig.open(None).await.run();
    rig.decide(run, Verdict::Approved).await;
    rig.becomes(run, "succeeded").await;
    assert_eq!(paid.calls(), 1);
    let effect = rig.store.effects(run).await.unwrap().remove(0);
    let (goes_at, started_at) = (effect.goes_at.unwrap(), effect.started_at.unwrap());
    assert!(started_at >= goes_at, "never before its moment: {goes_at} {started_at}");
    let late = call_back(&rig.door, effect.id, "owner").await.unwrap_err();
    assert!(matches!(late, CallBackRefusal::TooLate { ref status, .. } if status == "succeeded"), "{late}");
    assert_eq!(broken(&rig.store).await, []);
    rig.door.stop().await;
}

#[tokio::test]
async fn a_held_effect_that_is_called_back_is_not_started_by_a_journal_that_says_so() {
    use crate::support::forge::{place, rewrite};
    let paid = paying();
    let rig = Rig::new(paying_after(Span(std::time::Duration::from_millis(300))), vec![paid]).await;
    let run = rig.open(None).await.run();
    rig.decide(run, Verdict::Approved).await;
    rig.becomes(run, "succeeded").await;
    rig.door.stop().await;
    rewrite(&rig.store, run, |pages| {
        let at = place(pages, "effect.held");
        let mut back = pages[at].clone();
        let steward::domain::event::Event::EffectHeld { step, effect, .. } = pages[at].event.clone() else {
            panic!()
        };
        back.event = steward::domain::event::Event::EffectCalledBack { step, effect, by: "owner".into() };
        pages.insert(at + 1, back);
    })
    .await;
    let found = broken(&rig.store).await;
    assert!(
        found.contains(&steward::store::audit::Invariant::I4),
        "an approval that was taken back: {found:?}"
    );
}

#[tokio::test]
async fn a_snooze_lies_ahead_and_before_the_deadline() {
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let run = rig.open(None).await.run();
    let review = review(&rig, run).await;
    let engine = rig.door.engine();
    let hour = |n: i64| engine.now() + SignedDuration::from_hours(n);
    let refused = aside::snooze(engine, review.id, hour(-1)).await.unwrap_err();
    assert!(matches!(refused, AsideRefusal::BadMoment(_)), "{refused}");
    aside::snooze(engine, review.id, hour(2)).await.unwrap();
    by_hand(&rig.store, "update reviews set due_at = now() + interval '1 hour'").await;
    let refused = aside::snooze(engine, review.id, hour(2)).await.unwrap_err();
    assert!(refused.to_string().contains("expires at"), "{refused}");
    rig.decide(run, Verdict::Rejected { reason: "no".into() }).await;
    let refused = aside::snooze(engine, review.id, hour(1)).await.unwrap_err();
    assert!(matches!(refused, AsideRefusal::Over { .. }), "{refused}");
    rig.door.stop().await;
}

#[tokio::test]
async fn a_review_shows_what_is_known_and_what_was_said_and_its_digest_stays() {
    let (app, _model) = letters().await;
    let first = open(&app, "Write to Ann.").await;
    let review = app.open_review(&first).await;
    say(&app, &review, json!({"verdict": "approved"})).await;
    app.run_that_is(&first, &["succeeded"]).await;

    let run = open(&app, "Write to Ann again.").await;
    let review = app.open_review(&run).await;
    let path = format!("/api/v1/reviews/{}", review["id"].as_str().unwrap());
    app.post(&format!("{path}/comments"), json!({"text": "ask <b>Bea</b> first"})).await;
    let shown = app.get(&path).await;
    assert_eq!(shown["digest"], review["digest"], "words change nothing that a decision is bound to");
    assert_eq!(shown["comments"][0]["text"], "ask <b>Bea</b> first");
    assert_eq!(shown["reversibility"], json!("irreversible"));
    assert_eq!(shown["verdicts"], json!(["approved", "edited", "rejected", "responded"]));
    let artifacts = shown["artifacts"].as_array().unwrap();
    assert!((3..=5).contains(&artifacts.len()), "{artifacts:?}");
    let of =
        |title: &str| artifacts.iter().find(|artifact| artifact["title"] == title).unwrap()["value"].clone();
    assert_eq!(of("who gets it"), json!(["ann@client.example"]));
    assert_eq!(of("input")["text"], "Write to Ann again.");
    assert_eq!(of("what is known of them")[0]["mails_sent"], 1);
    for bad in [json!({"text": "  "}), json!({"text": "a\u{0}b"}), json!({"text": "x".repeat(10_001)})] {
        let (status, problem) = app.call(Method::POST, &format!("{path}/comments"), Some(bad)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    }
    app.stop().await;
}

#[tokio::test]
async fn an_edit_is_kept_with_what_changed_in_it() {
    let (app, _model) = letters().await;
    let run = open(&app, "Write to Ann.").await;
    let review = app.open_review(&run).await;
    let mut params = review["question"]["action"]["params"].clone();
    params["body"] = json!("Dear Ann, this is letter 7.");
    say(&app, &review, json!({"verdict": "edited", "params": params})).await;
    app.run_that_is(&run, &["succeeded"]).await;
    for _ in 0..2 {
        let edits = app.get("/api/v1/reviews/edits?workflow=ask").await;
        let sum = &edits["by_version"][0];
        assert_eq!(
            (&sum["edits"], &sum["kept"], &sum["gone"], &sum["added"]),
            (&json!(1), &json!(5), &json!(1), &json!(1))
        );
        assert_eq!(sum["action"], "email.send");
        let changes = &edits["edits"][0]["changes"]["body"];
        assert_eq!(changes[1], json!({"change": "gone", "text": "1."}), "{changes}");
    }
    assert_eq!(app.get("/api/v1/reviews/edits?workflow=other").await["edits"], json!([]));
    app.stop().await;
}

#[tokio::test]
async fn one_word_decides_several_reviews_only_if_they_are_alike_and_little_hangs_on_them() {
    let body = "{{ {'n': input.what} if input.what != 'odd' else input.what }}";
    let pay = step(
        "pay",
        None,
        "http.request",
        json!({"method": "POST", "url": "https://api.example/pay", "body": body}),
    );
    let paid = paying();
    let rig = Rig::new(vec![pay], vec![paid.clone()]).await;
    let mut seen = Vec::new();
    for what in ["1", "2", "3", "odd"] {
        let run = rig.open_about(what, None).await.run();
        let review = review(&rig, run).await;
        seen.push((review.id, review.digest));
    }
    let alike = &seen[..3];
    let grave = decide_all(&rig.door, alike, &Verdict::Approved, "owner").await.unwrap_err();
    let BatchRefusal::Unlike(why) = grave else { panic!("{grave}") };
    assert!(why.len() == 3 && why[0].why.contains("risk is medium"), "{why:?}");
    by_hand(
        &rig.store,
        "update reviews set question = jsonb_set(question, '{risk}', '{\"class\": \"low\"}')",
    )
    .await;
    let mixed = decide_all(&rig.door, &seen, &Verdict::Approved, "owner").await.unwrap_err();
    let BatchRefusal::Unlike(why) = mixed else { panic!("{mixed}") };
    assert_eq!(
        why.iter().map(|one| one.review).collect::<Vec<_>>(),
        [seen[3].0],
        "one of another kind: {why:?}"
    );
    let blind = [(seen[0].0, seen[1].1)];
    let refused = decide_all(&rig.door, &blind, &Verdict::Approved, "owner").await.unwrap_err();
    assert!(matches!(refused, BatchRefusal::Unlike(ref why) if why[0].why.contains("seen")), "{refused}");
    let edit = Verdict::Edited { params: json!({}) };
    assert!(matches!(decide_all(&rig.door, alike, &edit, "owner").await, Err(BatchRefusal::Bad(_))));
    assert_eq!(paid.calls(), 0, "all or nothing");

    let decided = decide_all(&rig.door, alike, &Verdict::Approved, "owner").await.unwrap();
    for one in decided {
        rig.becomes(one.outcome.unwrap(), "succeeded").await;
    }
    assert_eq!(paid.calls(), 3);
    let late = decide_all(&rig.door, alike, &Verdict::Approved, "owner").await.unwrap_err();
    assert!(
        matches!(late, BatchRefusal::Unlike(ref why) if why.len() == 3 && why[0].why.contains("approved already"))
    );
    assert_eq!(broken(&rig.store).await, []);
    rig.door.stop().await;
}

#[tokio::test]
async fn of_two_deciders_one_wins_and_the_other_is_told_how_it_ended() {
    let paid =
        Scripted::new(Repeat::None, |_, _| EffectResult::Failed(StepError::new(ErrorKind::Refused, "no")));
    let rig = Rig::new(vec![call_out("pay", None)], vec![paid]).await;
    let run = rig.open(None).await.run();
    let review = review(&rig, run).await;
    let rejected = Verdict::Rejected { reason: "too dear".into() };
    let (one, two) = tokio::join!(
        decide(&rig.door, review.id, Some(review.digest), Verdict::Approved, "ann"),
        decide(&rig.door, review.id, Some(review.digest), rejected.clone(), "bob"),
    );
    let (refused, winner, how) = match (one, two) {
        (Ok(_), Err(refused)) => (refused, "ann", Verdict::Approved),
        (Err(refused), Ok(_)) => (refused, "bob", rejected),
        both => panic!("{both:?}"),
    };
    let DecideRefusal::Over { status, by, at, verdict } = refused else { panic!("{refused}") };
    assert_eq!((status.as_str(), by.as_deref(), verdict), (how.status(), Some(winner), Some(how)));
    assert!(at.is_some());
    rig.door.stop().await;
}
