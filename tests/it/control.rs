//! What the owner does to runs: hold, let go, go on, do anew, one by one, many at once, or everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::json;
use steward::connectors::Connector;
use steward::connectors::records::Records;
use steward::domain::action::Repeat;
use steward::domain::duration::Span;
use steward::domain::event::{ErrorKind, StepError};
use steward::domain::plan::EffectResult;
use steward::domain::workflow::{Step, StepKind, WaitStep};
use steward::orchestrator::control::{self, Control};
use steward::store::journal::Opened;
use steward::store::pauses::Scope;

use crate::support::rig::{Rig, Scripted, call_out, step};
use crate::support::{app, database, eventually, example_email};

fn pause_then_pay() -> Vec<Step> {
    let wait = WaitStep { span: Some(Span(std::time::Duration::from_millis(200))), ..WaitStep::default() };
    let pause = Step { kind: StepKind::Wait(wait), ..step("pause", None, "noop", json!({})) };
    vec![pause, call_out("pay", Some("pause"))]
}

fn paying() -> Arc<Scripted> {
    Scripted::new(Repeat::None, |_, _| EffectResult::Succeeded(json!({})))
}

#[tokio::test]
async fn the_kill_switch_lets_no_effect_begin_and_loses_nothing() {
    let paid = paying();
    let rig = Rig::new(pause_then_pay(), vec![paid.clone()]).await.live().await;
    let under_way = rig.open(None).await.run();
    control::hold(rig.door.engine(), &Scope::All, true, "owner").await.unwrap();
    let opened_meanwhile = rig.open(None).await.run();
    eventually("the run coming to rest", || async { (rig.door.in_motion() == 0).then_some(()) }).await;
    // Its moment passes: the clock would have claimed it, were it not held.
    eventually("a moment after it was due", || async {
        let row = rig.store.run_row(under_way).await.unwrap().unwrap();
        let due = row.wake_at.expect("it is due when it is let go");
        (rig.door.engine().now() > due + jiff::SignedDuration::from_millis(1500)).then_some(())
    })
    .await;
    assert_eq!(paid.calls(), 0, "nothing began");
    control::hold(rig.door.engine(), &Scope::All, false, "owner").await.unwrap();
    rig.becomes(under_way, "succeeded").await;
    rig.becomes(opened_meanwhile, "succeeded").await;
    assert_eq!(paid.calls(), 2);
    rig.door.stop().await;
}

#[tokio::test]
async fn one_workflow_is_held_by_itself_and_another_node_hears_of_it() {
    let store = database().await;
    let paid = paying();
    let held = Rig::over(store.clone(), pause_then_pay(), vec![paid.clone()]).await.live().await;
    // Another node's word: only the table says so.
    store.pause(&Scope::Workflow("test".into()), "owner").await.unwrap();
    eventually("hearing of it", || async { held.door.engine().holds(&"test".into()).then_some(()) }).await;
    assert!(!held.door.engine().holds(&"other".into()));
    let run = held.open(None).await.run();
    store.resume(&Scope::Workflow("test".into())).await.unwrap();
    held.becomes(run, "succeeded").await;
    held.door.stop().await;
}

#[tokio::test]
async fn a_held_run_waits_for_the_owner_and_then_goes_on() {
    let paid = paying();
    let rig = Rig::new(pause_then_pay(), vec![paid.clone()]).await.live().await;
    let run = rig.open(None).await.run();
    control::control(rig.door.engine(), run, &Control::Pause, "owner").await.unwrap();
    rig.becomes(run, "paused").await;
    assert_eq!(paid.calls(), 0);
    control::control(rig.door.engine(), run, &Control::Resume, "owner").await.unwrap();
    rig.becomes(run, "succeeded").await;
    // Two words in a row are heard in their order.
    let run = rig.open(None).await.run();
    for hold in [true, false, true] {
        let word = if hold { Control::Pause } else { Control::Resume };
        control::control(rig.door.engine(), run, &word, "owner").await.unwrap();
    }
    rig.becomes(run, "paused").await;
    control::control(rig.door.engine(), run, &Control::Cancel, "owner").await.unwrap();
    rig.becomes(run, "cancelled").await;
    rig.door.stop().await;
}

#[tokio::test]
async fn a_failed_run_goes_on_from_its_failure_and_repeats_no_effect_that_happened() {
    let store = database().await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let flaky = Scripted::new(Repeat::None, move |_, _| match counted.fetch_add(1, Ordering::SeqCst) {
        0 => EffectResult::Failed(StepError::new(ErrorKind::Refused, "not today")),
        _ => EffectResult::Succeeded(json!({})),
    });
    let save = step("save", None, "records.put", json!({"kind": "k", "key": "x", "data": 1}));
    let connectors: Vec<Arc<dyn Connector>> = vec![Arc::new(Records::new(store.clone())), flaky.clone()];
    let rig =
        Rig::over(store.clone(), vec![save, call_out("pay", Some("save"))], connectors).await.live().await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "failed").await;
    let engine = rig.door.engine();
    let retry = |from: Option<&str>, repeat| Control::Retry { from: from.map(Into::into), repeat };
    let outlook = control::outlook(engine, run, &retry(None, false)).await.unwrap();
    assert_eq!((outlook.steps, outlook.again.len()), (vec!["pay".into()], 0));
    control::control(engine, run, &retry(None, false), "owner").await.unwrap();
    rig.becomes(run, "succeeded").await;
    assert_eq!((flaky.calls(), store.records_get("k", "x").await.unwrap().unwrap().version), (2, 1));

    let told = control::outlook(engine, run, &retry(Some("save"), true)).await.unwrap();
    assert_eq!(told.again.len(), 2, "both have happened and would happen again");
    control::control(engine, run, &retry(Some("save"), false), "owner").await.unwrap();
    rig.becomes(run, "succeeded").await;
    assert_eq!((flaky.calls(), store.records_get("k", "x").await.unwrap().unwrap().version), (2, 1));
    control::control(engine, run, &retry(Some("save"), true), "owner").await.unwrap();
    eventually("both happening again", || async {
        (flaky.calls() == 3 && store.records_get("k", "x").await.unwrap().unwrap().version == 2).then_some(())
    })
    .await;
    rig.becomes(run, "succeeded").await;
    assert!(control::outlook(engine, run, &retry(Some("nowhere"), false)).await.is_err());
    rig.door.stop().await;
}

#[tokio::test]
async fn a_run_done_anew_with_an_edited_input_repeats_no_effect_unless_it_is_told_to() {
    let paid = paying();
    let mut pay = call_out("pay", None);
    if let StepKind::Action(action) = &mut pay.kind {
        action.with["body"] = json!("{{ input.what }}");
    }
    let rig = Rig::new(vec![pay], vec![paid.clone()]).await.live().await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "succeeded").await;
    let told = control::rerun_outlook(rig.door.engine(), run, false).await.unwrap();
    assert_eq!((told.kept.len(), told.again.len()), (1, 0));
    let edited = Some(json!({"what": "edited"}));
    let anew = control::rerun(&rig.door, run, edited.clone(), false, None).await.unwrap();
    let Opened::New(anew) = anew else { panic!("it is a new run") };
    rig.becomes(anew, "succeeded").await;
    assert_eq!(paid.calls(), 1);
    let third = control::rerun(&rig.door, anew, edited, true, None).await.unwrap().run();
    rig.becomes(third, "succeeded").await;
    assert_eq!(paid.calls(), 2);
    rig.door.stop().await;
}

#[tokio::test]
async fn over_http_everything_can_be_held_let_go_and_cancelled_at_once() {
    let app = app().await;
    app.post("/api/v1/pause", json!({})).await;
    let held = app.deliver(example_email("01-lead-bakery.eml")).await;
    assert_eq!(app.get("/api/v1/pauses").await["pauses"][0]["scope"], "all");
    let steps = app.get(&format!("/api/v1/runs/{held}")).await["steps"].clone();
    assert!(steps.as_array().unwrap().iter().all(|step| step["status"] == "pending"));
    app.post("/api/v1/resume", json!({})).await;
    app.open_review(&held).await;
    let wanted = json!({"do": "cancel", "workflow": "lead-intake", "dry_run": true});
    let told = app.post("/api/v1/runs/bulk", wanted).await;
    assert_eq!(told["done"][0]["run"], held);
    app.post("/api/v1/runs/bulk", json!({"do": "cancel", "workflow": "lead-intake"})).await;
    app.run_that_is(&held, &["cancelled"]).await;
    let retry = app.post(&format!("/api/v1/runs/{held}/retry"), json!({"dry_run": true})).await;
    assert!(retry["outlook"]["steps"].as_array().unwrap().iter().any(|step| step == "send"));
    app.post(&format!("/api/v1/runs/{held}/retry"), json!({})).await;
    app.open_review(&held).await;
    let (status, _) = app.call(Method::POST, &format!("/api/v1/runs/{held}/retry"), Some(json!({}))).await;
    assert_eq!(status, 409, "it has not ended");
    let (status, _) = app.call(Method::POST, "/api/v1/runs/bulk", Some(json!({"do": "cancel"}))).await;
    assert_eq!(status, 400, "not every run there ever was");
    let (status, _) = app.call(Method::POST, "/api/v1/pause", Some(json!({"workflow": "nothing"}))).await;
    assert_eq!(status, 404);
    let told = app.post("/api/v1/events", json!({"event": "x", "match": "y"})).await;
    assert_eq!(told["runs"], json!([]));
    app.assert_chains_hold().await;
    app.stop().await;
}
