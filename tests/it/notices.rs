//! What the owner is told unasked: each source once, grouped, over when it is over, acknowledged once.

use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use steward::domain::action::Repeat;
use steward::domain::budget::Budget;
use steward::domain::event::{ErrorKind, StepError};
use steward::domain::notice::{NoticeKind, Severity};
use steward::domain::plan::EffectResult;
use steward::domain::workflow::{Agent, AgentStep, Step, StepKind, Version};
use steward::reviews::escalate;
use steward::store::Store;
use steward::store::notices::{News, NoticeRow};

use crate::support::bench::Bench;
use crate::support::model_server::{ModelServer, fails, says};
use crate::support::rig::{Rig, Scripted, call_out, define, step, version};
use crate::support::{app, database, eventually};

async fn standing(store: &Store, kind: NoticeKind) -> Vec<NoticeRow> {
    let mut notices = store.notices(true, 100).await.unwrap();
    notices.retain(|notice| notice.kind == kind.as_str());
    notices.sort_by(|a, b| a.subject.cmp(&b.subject));
    notices
}

/// An agent's step, paid for by a model server that answers as the test says.
fn writing(budget: Budget) -> Version {
    let agent: Agent = serde_json::from_value(json!({"agent": "writer", "tier": "draft", "prompt": "Write.",
        "output": {"type": "object", "required": ["text"]}, "max_tokens": 50}))
    .unwrap();
    let kind = StepKind::Agent(AgentStep {
        agent: "writer".into(),
        mode: Default::default(),
        with: json!({"about": "{{ input.what }}"}),
    });
    let mut version =
        Version { budget, ..version("test", vec![Step { kind, ..step("write", None, "noop", json!({})) }]) };
    version.agents.insert("writer".into(), agent);
    version
}

async fn rig(model: &ModelServer, budget: Budget) -> Rig {
    let url = format!("http://{}/v1", model.address);
    let models = json!({
        "providers": {"test": {"base_url": url, "timeout": "5s"}},
        "models": {"test-model": {"provider": "test", "id": "test-1", "price": {"input": "1.00 USD", "output": "2.00 USD"}}},
        "tiers": {"draft": ["test-model", "owner"]}});
    Rig::defining(database().await, Vec::new(), true, |definitions| {
        definitions.models = serde_json::from_value(models).unwrap();
        define(definitions, writing(budget));
    })
    .await
}

#[tokio::test]
async fn a_provider_that_nobody_calls_is_told_once_per_opening_and_over_when_it_is_called_again() {
    let refuses = std::sync::Arc::new(AtomicBool::new(true));
    let refusing = refuses.clone();
    let model = ModelServer::start(Box::new(move |_| match refusing.load(Ordering::SeqCst) {
        true => fails(401, "invalid_api_key"),
        false => says(r#"{"text": "Dear Ann"}"#),
    }))
    .await;
    let rig = rig(&model, Budget::default()).await;
    let engine = rig.door.engine();
    let run = rig.open(None).await.run();
    rig.becomes(run, "waiting").await;
    engine.models.compare_breakers().await.unwrap();
    for _ in 0..3 {
        escalate::look(engine).await.unwrap();
    }
    let notice = standing(&rig.store, NoticeKind::BreakerOpened).await.pop().unwrap();
    assert_eq!((notice.subject.as_str(), notice.severity.as_str(), notice.times), ("test", "critical", 1));
    assert!(notice.detail.contains("invalid_api_key"), "{}", notice.detail);
    // Acknowledged, and still open: nothing new to tell.
    assert!(rig.store.acknowledge(notice.id, "owner").await.unwrap());
    escalate::look(engine).await.unwrap();
    assert!(standing(&rig.store, NoticeKind::BreakerOpened).await.is_empty());

    rig.store.close_breaker("test").await.unwrap();
    escalate::look(engine).await.unwrap();
    rig.store.open_breaker("test", "again", false, std::time::Duration::from_secs(60)).await.unwrap();
    escalate::look(engine).await.unwrap();
    let again = standing(&rig.store, NoticeKind::BreakerOpened).await.pop().unwrap();
    assert_eq!((again.severity.as_str(), again.times), ("warning", 1), "another opening is other news");
    rig.store.close_breaker("test").await.unwrap();
    escalate::look(engine).await.unwrap();
    assert!(standing(&rig.store, NoticeKind::BreakerOpened).await.is_empty());
    let over = rig.store.one_notice(again.id).await.unwrap().unwrap();
    assert!(over.over_at.is_some() && over.acknowledged_at.is_none());
    rig.door.stop().await;
}

#[tokio::test]
async fn each_share_of_a_budget_is_told_once_and_the_last_one_loudest() {
    let model = ModelServer::start(Box::new(|_| says(r#"{"text": "Dear Ann"}"#))).await;
    // A call costs 140 millionths, so that half is spent before one has to be refused.
    let rig = rig(&model, Budget { per_day: Some(3_000), ..Budget::default() }).await;
    let engine = rig.door.engine();
    for _ in 0..25 {
        let run = rig.open(None).await.run();
        eventually("its end, or a question", || async {
            ["succeeded", "waiting"].contains(&rig.status(run).await.as_str()).then_some(())
        })
        .await;
    }
    let seen = eventually("the shares that were passed", || async {
        escalate::look(engine).await.unwrap();
        escalate::look(engine).await.unwrap();
        let seen: Vec<_> = standing(&rig.store, NoticeKind::BudgetThreshold)
            .await
            .into_iter()
            .map(|notice| {
                (notice.subject.rsplit(':').next().unwrap().to_owned(), notice.severity, notice.times)
            })
            .collect();
        seen.iter().any(|(share, ..)| share == "100").then_some(seen)
    })
    .await;
    let told = |share: &str, severity: &str| (share.to_owned(), severity.to_owned(), 1);
    assert!(seen.contains(&told("100", "critical")) && seen.contains(&told("50", "info")), "{seen:?}");
    assert!(seen.iter().all(|(.., times)| *times == 1), "{seen:?}");
    let notices = standing(&rig.store, NoticeKind::BudgetThreshold).await;
    assert!(
        notices[0].title.contains("the workflow `test`") && notices[0].detail.contains("0.003 USD"),
        "{notices:?}"
    );

    // What was told of another day is over with that day.
    let other = News {
        kind: NoticeKind::BudgetThreshold,
        subject: "workspace/day/2026-02-28:80",
        severity: Severity::Warning,
        title: "80 % of a budget is spent",
        detail: "The limit is 1 USD.",
        run: None,
    };
    assert!(rig.store.notice(&other).await.unwrap());
    escalate::look(engine).await.unwrap();
    let left = standing(&rig.store, NoticeKind::BudgetThreshold).await;
    let subjects = |notices: &[NoticeRow]| {
        notices.iter().map(|notice| notice.subject.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(subjects(&left), subjects(&notices), "today's stand");
    rig.door.stop().await;
}

#[tokio::test]
async fn a_schedule_that_missed_its_time_is_told_of_and_one_that_opens_nothing_until_it_does() {
    let workflow = |name: &str, missed: &str| {
        format!(
            "workflow: {name}\ntitle: x\non:\n  - schedule:\n      cron: 0 9 * * *\n      zone: Europe/Oslo\n      \
             missed: {missed}\n      input: {{ date: \"{{{{ schedule.date }}}}\" }}\ninput: {{ type: object, required: [date] }}\n\
             steps:\n  - id: note\n    action: noop\n    with: {{ value: x }}\n"
        )
    };
    let bench = Bench::new(
        database().await,
        "2026-05-01T05:00:00Z",
        &[workflow("late", "once"), workflow("never", "skip")],
    )
    .await;
    bench.tick().await;
    assert!(standing(&bench.store, NoticeKind::ScheduleMissed).await.is_empty());
    bench.at("2026-05-04T12:00:00Z");
    bench.tick().await;
    bench.tick().await;
    let told = standing(&bench.store, NoticeKind::ScheduleMissed).await;
    let facts: Vec<_> = told.iter().map(|notice| (notice.subject.as_str(), notice.times)).collect();
    assert_eq!(facts, [("late/0 9 * * *", 1), ("never/0 9 * * *", 1)]);
    assert!(told[0].title.contains("missed its 3 times") && told[0].run.is_some(), "{:?}", told[0]);
    bench.at("2026-05-05T07:00:00.05Z");
    bench.tick().await;
    assert_eq!(standing(&bench.store, NoticeKind::ScheduleMissed).await.len(), 2, "on time is no news");
}

#[tokio::test]
async fn a_key_that_is_refused_is_told_until_it_is_taken_again_and_a_restart_forgets_nothing() {
    let store = database().await;
    let refuses = std::sync::Arc::new(AtomicBool::new(true));
    let refusing = refuses.clone();
    let other = Scripted::new(Repeat::None, move |_, _| match refusing.load(Ordering::SeqCst) {
        true => EffectResult::Failed(StepError::new(
            ErrorKind::KeyRefused,
            "api.example does not accept the key: 401",
        )),
        false => EffectResult::Succeeded(json!({})),
    });
    let first = Rig::over(store.clone(), vec![call_out("pay", None)], vec![other.clone()]).await.live().await;
    for _ in 0..2 {
        let run = first.open(None).await.run();
        eventually("its failure", || async { (first.status(run).await == "failed").then_some(()) }).await;
    }
    let notice = standing(&store, NoticeKind::ConnectorKey).await.pop().unwrap();
    assert_eq!(
        (notice.subject.as_str(), notice.severity.as_str(), notice.times),
        ("http api.example", "critical", 2)
    );
    first.door.stop().await;
    refuses.store(false, Ordering::SeqCst);
    let second = Rig::over(store.clone(), vec![call_out("pay", None)], vec![other]).await.live().await;
    let run = second.open(None).await.run();
    second.becomes(run, "succeeded").await;
    assert!(standing(&store, NoticeKind::ConnectorKey).await.is_empty());
    assert!(store.one_notice(notice.id).await.unwrap().unwrap().over_at.is_some());
    second.door.stop().await;
}

#[tokio::test]
async fn a_parked_run_is_told_once_and_no_longer_once_the_owner_has_looked_at_it() {
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "waiting").await;
    crate::support::forge::by_hand(
        &rig.store,
        &format!(
            "update journal set data = '{{}}' where run_id = '{run}' and seq = 2;
             update runs set wake_at = now(), crashes = 3 where id = '{run}'"
        ),
    )
    .await;
    rig.door.wake(run);
    let notice =
        eventually("the notice", || async { standing(&rig.store, NoticeKind::RunParked).await.pop() }).await;
    assert_eq!((notice.run, notice.times), (Some(run), 1));
    let parked = eventually("the question", || async {
        let open = rig.store.reviews("open", Some(run), None, 9).await.unwrap();
        open.into_iter().find(|review| review.ask == "parked")
    })
    .await;
    let give_up = steward::domain::event::Verdict::Answered { answer: json!("give_up") };
    steward::reviews::decide(&rig.door, parked.id, None, give_up, "owner").await.unwrap();
    assert!(standing(&rig.store, NoticeKind::RunParked).await.is_empty());
    rig.door.stop().await;
}

#[tokio::test]
async fn a_notice_is_listed_and_acknowledged_once() {
    let app = app().await;
    let news = News {
        kind: NoticeKind::ChannelFailed,
        subject: "slack",
        severity: Severity::Critical,
        title: "Messages over slack do not get through",
        detail: "invalid_auth",
        run: None,
    };
    app.store.notice(&news).await.unwrap();
    let listed = app.get("/api/v1/notices").await;
    let notice = &listed["notices"][0];
    assert_eq!((&notice["kind"], &notice["times"]), (&json!("channel_failed"), &json!(1)));
    let path = format!("/api/v1/notices/{}/acknowledge", notice["id"].as_str().unwrap());
    let acknowledged = app.post(&path, json!({})).await;
    assert_eq!(acknowledged["acknowledged_by"], "owner via api");
    let (status, again) = app.call(Method::POST, &path, Some(json!({}))).await;
    assert_eq!((status, &again["by"]), (StatusCode::CONFLICT, &json!("owner via api")), "{again}");
    assert!(again["at"].is_string());
    assert_eq!(app.get("/api/v1/notices").await["notices"], json!([]));
    let all: Value = app.get("/api/v1/notices?all=true").await;
    assert_eq!(all["notices"].as_array().unwrap().len(), 1);
    let (status, _) = app.call(Method::POST, "/api/v1/notices/nonsense/acknowledge", Some(json!({}))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    app.stop().await;
}
