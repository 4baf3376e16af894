//! Steps that wait, lists, runs of other workflows, undoing: on a real database, through the engine's door.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use steward::connectors::records::Records;
use steward::connectors::{Call, Connector};
use steward::domain::action::{Action, Repeat};
use steward::domain::duration::Span;
use steward::domain::event::{ErrorKind, StepError, Topic, Verdict};
use steward::domain::ids::{HappeningId, RunId};
use steward::domain::label::Label;
use steward::domain::plan::EffectResult;
use steward::domain::workflow::{ChildStep, Each, OnFailure, Step, StepKind, Undo, WaitStep};
use steward::store::Store;
use steward::store::events::Happening;

use crate::support::rig::{Rig, Scripted, call_out, step, version};
use crate::support::{database, eventually};

fn wait(id: &str, after: Option<&str>, wait: WaitStep) -> Step {
    Step { kind: StepKind::Wait(wait), ..step(id, after, "noop", json!({})) }
}

fn wait_for_go(id: &str, after: Option<&str>) -> Step {
    let about = WaitStep {
        event: Some("go".into()),
        matches: Some("{{ input.what }}".into()),
        span: Some(Span::secs(600)),
        until: None,
    };
    wait(id, after, about)
}

fn go(what: &str, key: Option<&str>) -> Happening {
    Happening {
        id: HappeningId(uuid::Uuid::now_v7()),
        topic: Topic { event: "go".into(), matches: what.into() },
        data: json!({"said": what}),
        label: Label::Untrusted,
        key: key.map(str::to_owned),
    }
}

async fn publish(rig: &Rig, happening: &Happening) -> Vec<RunId> {
    let told = rig.store.publish(happening).await.unwrap();
    told.runs.iter().for_each(|run| rig.door.wake(*run));
    told.runs
}

fn put(id: &str, after: Option<&str>, key: &str) -> Step {
    step(id, after, "records.put", json!({"kind": "k", "key": key, "data": {"by": id}}))
}

fn undoable(step: Step) -> Step {
    Step { undo: Some(Undo { action: "records.revert".into(), with: json!("{{ output }}") }), ..step }
}

fn refusing() -> Arc<Scripted> {
    Scripted::new(Repeat::None, |_, _| EffectResult::Failed(StepError::new(ErrorKind::Refused, "closed")))
}

fn connectors(store: &Store, scripted: Arc<Scripted>) -> Vec<Arc<dyn Connector>> {
    vec![Arc::new(Records::new(store.clone())), scripted]
}

async fn output(rig: &Rig, run: RunId, step: &str) -> Value {
    let run = rig.store.load_run(run).await.unwrap().unwrap().run;
    run.context(&json!({}))["steps"][step]["output"].clone()
}

#[tokio::test]
async fn an_event_is_heard_whether_it_comes_before_the_wait_or_after_it_or_at_the_same_moment() {
    let rig = Arc::new(Rig::new(vec![wait_for_go("answer", None)], Vec::new()).await.live().await);
    let early = rig.open_about("early", None).await.run();
    rig.becomes(early, "waiting").await;
    assert_eq!(publish(&rig, &go("early", None)).await, [early]);
    rig.becomes(early, "succeeded").await;
    assert_eq!(output(&rig, early, "answer").await["data"]["said"], "early");
    let races = (0..60).map(|n| {
        let rig = rig.clone();
        tokio::spawn(async move {
            let what = format!("race {n}");
            let (opened, event) = (rig.open_about(&what, None), go(&what, None));
            let run = if n % 2 == 0 {
                let (opened, _) = tokio::join!(opened, publish(&rig, &event));
                // What came before the run was opened is not meant for it.
                publish(&rig, &go(&what, None)).await;
                opened.run()
            } else {
                let run = opened.await.run();
                publish(&rig, &event).await;
                run
            };
            rig.becomes(run, "succeeded").await;
        })
    });
    for race in futures_util::future::join_all(races).await {
        race.unwrap();
    }
    rig.door.stop().await;
}

#[tokio::test]
async fn an_event_whose_bearer_died_before_anybody_was_told_is_told_all_the_same() {
    let rig = Rig::new(vec![wait_for_go("answer", None)], Vec::new()).await.live().await;
    let run = rig.open_about("it", None).await.run();
    rig.becomes(run, "waiting").await;
    let (client, connection) = rig.store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let statement =
        "insert into events (id, name, match, data, label) values ($1, 'go', 'it', '{}', 'owner')";
    client.execute(statement, &[&uuid::Uuid::now_v7()]).await.unwrap();
    rig.becomes(run, "succeeded").await;
    rig.door.stop().await;
}

#[tokio::test]
async fn the_same_event_twice_is_one_and_two_events_serve_two_waits_in_a_row() {
    let steps = vec![wait_for_go("first", None), wait_for_go("second", Some("first"))];
    let rig = Rig::new(steps, Vec::new()).await.live().await;
    let run = rig.open_about("it", None).await.run();
    rig.becomes(run, "waiting").await;
    publish(&rig, &go("it", Some("a"))).await;
    publish(&rig, &go("it", Some("a"))).await;
    eventually("the second wait", || async {
        let kinds = rig.kinds(run).await;
        (kinds.iter().filter(|kind| *kind == "wait.began").count() == 2).then_some(())
    })
    .await;
    rig.becomes(run, "waiting").await;
    publish(&rig, &go("it", Some("b"))).await;
    rig.becomes(run, "succeeded").await;
    let (client, connection) = rig.store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let left: i64 = client.query_one("select count(*) from waits", &[]).await.unwrap().get(0);
    assert_eq!(left, 0, "who waits no longer is not listed as waiting");
    rig.door.stop().await;
}

#[tokio::test]
async fn a_wait_ends_with_its_time_and_outlives_the_node_that_began_it() {
    let store = database().await;
    let pause =
        |ms| WaitStep { span: Some(Span(std::time::Duration::from_millis(ms))), ..WaitStep::default() };
    let steps = || vec![wait("short", None, pause(50)), wait("long", Some("short"), pause(3500))];
    let first = Rig::over(store.clone(), steps(), Vec::new()).await.live().await;
    let run = first.open(None).await.run();
    first.becomes(run, "waiting").await;
    first.door.stop().await;
    let second = Rig::over(store, steps(), Vec::new()).await;
    second.becomes(run, "succeeded").await;
    second.door.stop().await;
}

#[tokio::test]
async fn each_item_of_a_list_is_done_once_and_in_its_place() {
    let store = database().await;
    let item = step(
        "save",
        None,
        "records.put",
        json!({"kind": "k", "key": "{{ item.name }}", "data": "{{ index }}"}),
    );
    let of = "{{ [{'name': 'a'}, {'name': 'b'}, {'name': 'c'}, {'name': 'd'}, {'name': 'e'}] }}".to_owned();
    let steps = vec![Step { each: Some(Each { of, parallel: 2, on_failure: OnFailure::Stop }), ..item }];
    let rig = Rig::over(store.clone(), steps, Vec::new()).await.live().await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "succeeded").await;
    let keys: Vec<_> = output(&rig, run, "save").await["items"].as_array().unwrap().clone();
    let keys: Vec<_> = keys.iter().map(|item| item["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, ["a", "b", "c", "d", "e"]);
    for (index, key) in keys.iter().enumerate() {
        let record = store.records_get("k", key).await.unwrap().unwrap();
        assert_eq!((record.version, record.data), (1, json!(index)));
    }
    rig.door.stop().await;
}

fn child_of(id: &str, workflow: &str) -> Step {
    let with = json!({"what": "{{ input.what }}"});
    let kind = StepKind::Workflow(ChildStep { workflow: workflow.into(), with, budget_micros: None });
    Step { kind, ..step(id, None, "noop", json!({})) }
}

#[tokio::test]
async fn a_workflow_runs_another_one_and_goes_on_with_what_it_gives() {
    let mut child = version("child", vec![put("save", None, "{{ input.what }}")]);
    child.output = Some(json!({"saved": "{{ steps.save.output.version }}"}));
    let then =
        step("then", Some("deliver"), "noop", json!({"value": "{{ steps.deliver.output.output.saved }}"}));
    let parent = version("test", vec![child_of("deliver", "child"), then]);
    let rig = Rig::with(database().await, vec![parent, child], Vec::new()).await.live().await;
    let runs: Vec<_> = futures_util::future::join_all((0..20).map(|n| {
        let rig = &rig;
        async move { rig.open_about(&format!("thing {n}"), None).await.run() }
    }))
    .await;
    for run in runs {
        rig.becomes(run, "succeeded").await;
        assert_eq!(output(&rig, run, "then").await, 1);
    }
    rig.door.stop().await;
}

#[tokio::test]
async fn a_failed_child_fails_its_step_and_a_cancelled_parent_cancels_its_child() {
    let store = database().await;
    let failing = version("child", vec![call_out("pay", None)]);
    let parent = version("test", vec![child_of("deliver", "child")]);
    let rig =
        Rig::with(store.clone(), vec![parent, failing], connectors(&store, refusing())).await.live().await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "failed").await;
    let reason = rig.store.load_run(run).await.unwrap().unwrap().run.finished.unwrap().1;
    assert!(reason.contains("closed"), "{reason}");
    rig.door.stop().await;

    let waiting = version("child", vec![wait_for_go("answer", None)]);
    let parent = version("test", vec![child_of("deliver", "child")]);
    let rig = Rig::with(database().await, vec![parent, waiting], Vec::new()).await.live().await;
    let run = rig.open(None).await.run();
    let child = eventually("the child waiting", || async {
        let runs = rig.store.runs(&Default::default(), None, 10).await.unwrap();
        runs.into_iter().find(|row| row.workflow.as_str() == "child" && row.status == "waiting")
    })
    .await;
    assert!(rig.store.request_cancel(run, "owner").await.unwrap());
    rig.door.wake(run);
    rig.becomes(run, "cancelled").await;
    rig.becomes(child.id, "cancelled").await;
    rig.door.stop().await;
}

#[tokio::test]
async fn what_a_failed_run_wrote_is_written_back_in_reverse_order() {
    let store = database().await;
    let steps = vec![
        undoable(put("a", None, "same")),
        undoable(put("b", Some("a"), "same")),
        call_out("pay", Some("b")),
    ];
    let rig = Rig::over(store.clone(), steps, connectors(&store, refusing())).await.live().await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "failed").await;
    let record = store.records_get("k", "same").await.unwrap().unwrap();
    assert_eq!(record.version, 4, "two versions written, two written back");
    assert_eq!(record.data, Value::Null, "the last undo took the first version back");
    let kinds = rig.kinds(run).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "effect.compensated").count(), 2);
    rig.door.stop().await;
}

#[tokio::test]
async fn an_undo_that_cannot_be_done_waits_for_the_owner() {
    let store = database().await;
    let steps = vec![
        undoable(put("a", None, "x")),
        wait_for_go("answer", Some("a")),
        call_out("pay", Some("answer")),
    ];
    let rig = Rig::over(store.clone(), steps, connectors(&store, refusing())).await.live().await;
    let run = rig.open_about("it", None).await.run();
    rig.becomes(run, "waiting").await;
    // Somebody else writes the record meanwhile: taking the first version back would lose their work.
    let data = json!({"by": "somebody"});
    let new = steward::store::records::NewVersion {
        effect: None,
        kind: "k",
        key: "x",
        data: &data,
        label: Label::Owner,
        if_version: None,
    };
    store.records_put(new).await.unwrap();
    publish(&rig, &go("it", None)).await;
    let review = eventually("the question", || async {
        store.reviews("open", Some(run), None, 1).await.unwrap().pop()
    })
    .await;
    assert_eq!(review.ask, "undo");
    rig.decide(run, Verdict::Answered { answer: json!("leave") }).await;
    rig.becomes(run, "failed").await;
    assert_eq!(store.records_get("k", "x").await.unwrap().unwrap().data, data);
    rig.door.stop().await;
}

/// A connector that can look up, and loses its first answer.
struct Probing {
    happened: bool,
    calls: std::sync::Mutex<Vec<&'static str>>,
}

impl Connector for Probing {
    fn actions(&self) -> &'static [&'static str] {
        &["http.request"]
    }

    fn repeat(&self, _: &Action) -> Repeat {
        Repeat::Probe
    }

    fn perform<'a>(&'a self, _: &'a Call) -> futures_util::future::BoxFuture<'a, EffectResult> {
        let mut calls = self.calls.lock().unwrap();
        let first = calls.is_empty();
        calls.push("perform");
        Box::pin(async move {
            if first {
                EffectResult::Unknown("the line went dead".into())
            } else {
                EffectResult::Succeeded(json!({}))
            }
        })
    }

    fn probe<'a>(&'a self, _: &'a Call) -> futures_util::future::BoxFuture<'a, EffectResult> {
        self.calls.lock().unwrap().push("probe");
        let found = if self.happened { EffectResult::Succeeded(json!({})) } else { EffectResult::Absent };
        Box::pin(async move { found })
    }
}

#[tokio::test]
async fn an_effect_that_can_be_looked_up_is_looked_up_before_anything_is_decided() {
    for (happened, expected) in
        [(true, vec!["perform", "probe"]), (false, vec!["perform", "probe", "perform"])]
    {
        let probing = Arc::new(Probing { happened, calls: std::sync::Mutex::default() });
        let rig = Rig::new(vec![call_out("pay", None)], vec![probing.clone()]).await.live().await;
        let run = rig.open(None).await.run();
        rig.becomes(run, "succeeded").await;
        assert_eq!(*probing.calls.lock().unwrap(), expected);
        assert!(rig.store.reviews("open", None, None, 1).await.unwrap().is_empty(), "nobody need be asked");
        rig.door.stop().await;
    }
}

#[tokio::test]
async fn the_owner_of_an_effect_in_doubt_is_told_what_is_known() {
    let lost = Scripted::new(Repeat::None, |_, _| EffectResult::Unknown("the line went dead".into()));
    let rig = Rig::new(vec![call_out("pay", None)], vec![lost]).await.live().await;
    let run = rig.open(None).await.run();
    let review = eventually("the question", || async {
        rig.store.reviews("open", Some(run), None, 1).await.unwrap().pop()
    })
    .await;
    assert!(review.question.reasons[0].contains("the line went dead"));
    let known: Vec<_> = review.question.artifacts.iter().map(|artifact| artifact.title.as_str()).collect();
    assert_eq!(known, ["started at", "key", "attempt", "repeating it"]);
    assert!(review.question.artifacts[0].value.is_string());
    rig.door.stop().await;
}

/// A connector whose declaration is a fault in Steward until it is mended.
struct Faulty(AtomicBool);

impl Connector for Faulty {
    fn actions(&self) -> &'static [&'static str] {
        &["http.request"]
    }

    fn repeat(&self, _: &Action) -> Repeat {
        assert!(self.0.load(Ordering::SeqCst), "a fault nobody has thought of");
        Repeat::Natural
    }

    fn perform<'a>(&'a self, call: &'a Call) -> futures_util::future::BoxFuture<'a, EffectResult> {
        let poisoned =
            call.action.text("body").is_some_and(|body| body == "poison") && !self.0.load(Ordering::SeqCst);
        Box::pin(async move {
            if poisoned { EffectResult::Unknown("?".into()) } else { EffectResult::Succeeded(json!({})) }
        })
    }

    fn probe<'a>(&'a self, _: &'a Call) -> futures_util::future::BoxFuture<'a, EffectResult> {
        Box::pin(async { EffectResult::Absent })
    }
}

#[tokio::test]
async fn a_run_that_crashes_its_actor_again_and_again_is_parked_with_the_stack_and_the_others_go_on() {
    steward::telemetry::remember_panics();
    let faulty = Arc::new(Faulty(AtomicBool::new(false)));
    let mut pay = call_out("pay", None);
    if let StepKind::Action(action) = &mut pay.kind {
        action.with["body"] = json!("{{ input.what }}");
    }
    let rig = Rig::new(vec![pay], vec![faulty.clone()]).await.live().await;
    let poisoned = rig.open_about("poison", None).await.run();
    let healthy = rig.open_about("bread", None).await.run();
    rig.becomes(healthy, "succeeded").await;
    rig.becomes(poisoned, "parked").await;
    let review = rig.store.reviews("open", Some(poisoned), None, 1).await.unwrap().pop().unwrap();
    assert_eq!(review.ask, "parked");
    let stack = review.question.artifacts.iter().find(|artifact| artifact.title == "stack").unwrap();
    assert!(stack.value.as_str().unwrap().contains("kinds.rs"), "it says where: {}", stack.value);
    faulty.0.store(true, Ordering::SeqCst); // mended
    let again = Verdict::Answered { answer: json!("again") };
    steward::reviews::decide(&rig.door, review.id, Some(review.digest), again, "owner").await.unwrap();
    rig.becomes(poisoned, "succeeded").await;
    rig.door.stop().await;
}

#[tokio::test]
async fn a_run_that_cannot_be_read_is_given_up_when_the_owner_says_so() {
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "waiting").await;
    let (client, connection) = rig.store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(&format!(
            "alter table journal disable trigger all; alter table journal_rest disable trigger all;
             update journal set data = '{{}}' where run_id = '{run}' and seq = 2;
             update runs set wake_at = now(), crashes = 3 where id = '{run}'"
        ))
        .await
        .unwrap();
    rig.door.wake(run);
    let parked = eventually("the question", || async {
        let open = rig.store.reviews("open", Some(run), None, 9).await.unwrap();
        open.into_iter().find(|review| review.ask == "parked")
    })
    .await;
    let give_up = Verdict::Answered { answer: json!("give_up") };
    steward::reviews::decide(&rig.door, parked.id, None, give_up, "owner").await.unwrap();
    eventually("its end", || async {
        let row = rig.store.run_row(run).await.unwrap().unwrap();
        (row.status == "parked" && row.finished_at.is_some()).then_some(())
    })
    .await;
    rig.door.stop().await;
}
