//! Budgets of runs from outside: a call is settled by the commit that journals it, what is short follows
//! the workflow's word, and a process that dies in the middle of a call leaves a ledger that adds up.

use reqwest::Method;
use serde_json::{Value, json};
use steward::config::template;
use steward::domain::budget::{Budget, Exhausted};
use steward::domain::event::Verdict;
use steward::domain::ids::RunId;
use steward::domain::workflow::{Agent, AgentStep, ChildStep, Mode, Step, StepKind, Version};
use steward::failpoint;

use crate::support::forge::{by_hand, place, rewrite};
use crate::support::model_server::{ModelServer, says};
use crate::support::process::Process;
use crate::support::rig::{Rig, define, step, version};
use crate::support::{database, eventually, example_email};

/// What the model server's usage of 100 tokens read and 20 written costs at 1 and 2 USD a million.
const COST: i64 = 140;

/// A workflow of one agent's step; a call may cost 10,000 micro-units to write and at most 400 to read.
fn writing(workflow: &str, budget: Budget) -> Version {
    let agent: Agent = serde_json::from_value(json!({"agent": "writer", "tier": "draft", "prompt": "Write.",
        "output": {"type": "object", "required": ["text"]}, "max_tokens": 5000}))
    .unwrap();
    let kind = StepKind::Agent(AgentStep {
        agent: "writer".into(),
        with: json!({"about": "{{ input.what }}"}),
        mode: Mode::Now,
    });
    let write = Step { kind, ..step("write", None, "noop", json!({})) };
    let mut version = Version { budget, ..version(workflow, vec![write]) };
    version.agents.insert("writer".into(), agent);
    version
}

async fn rig(versions: Vec<Version>) -> (Rig, ModelServer) {
    let model = ModelServer::start(Box::new(|_| says(r#"{"text": "Dear Ann"}"#))).await;
    let url = format!("http://{}/v1", model.address);
    let models = json!({
        "providers": {"test": {"base_url": url, "timeout": "5s"}},
        "models": {"test-model": {"provider": "test", "id": "test-1", "price": {"input": "1.00 USD", "output": "2.00 USD"}}},
        "tiers": {"draft": ["test-model", "owner"]}});
    let rig = Rig::defining(database().await, Vec::new(), true, |definitions| {
        definitions.models = serde_json::from_value(models).unwrap();
        for version in versions {
            define(definitions, version);
        }
    })
    .await;
    (rig, model)
}

async fn spent(rig: &Rig, account: String) -> (i64, i64) {
    let balance = rig.store.balances(&[account]).await.unwrap().remove(0);
    (balance.spent_micros, balance.reserved_micros)
}

async fn asked(rig: &Rig, run: RunId) -> steward::store::reviews::ReviewRow {
    eventually("a review", || async { rig.store.reviews("open", Some(run), None, 1).await.unwrap().pop() })
        .await
}

#[tokio::test]
async fn a_call_costs_what_it_cost_once_its_run_has_said_so() {
    let (rig, _model) =
        rig(vec![writing("test", Budget { per_run: Some(20_000), ..Budget::default() })]).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "succeeded").await;
    assert_eq!(spent(&rig, format!("run/{run}")).await, (COST, 0));
    assert_eq!(crate::invariants::broken(&rig.store).await, []);
}

#[tokio::test]
async fn by_default_the_next_in_the_chain_is_asked() {
    let (rig, model) = rig(vec![writing("test", Budget { per_day: Some(1), ..Budget::default() })]).await;
    let run = rig.open(None).await.run();
    let review = asked(&rig, run).await;
    assert_eq!(review.ask, "answer", "the owner is the next");
    let reasons = review.question.reasons.join(" ");
    assert!(reasons.contains("this workflow's budget for today has 0.000001 USD left"), "{reasons}");
    assert!(model.requests().is_empty(), "nothing was asked that could not be paid");
}

#[tokio::test]
async fn fail_ends_the_step_for_good_without_another_attempt() {
    let budget = Budget { per_run: Some(1), exhausted: Exhausted::Fail, ..Budget::default() };
    let (rig, model) = rig(vec![writing("test", budget)]).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "failed").await;
    let kinds = rig.kinds(run).await;
    assert!(!kinds.contains(&"attempt.failed".to_owned()), "{kinds:?}");
    assert!(model.requests().is_empty());
}

#[tokio::test]
async fn review_asks_the_owner_who_allows_more_this_once_or_answers_himself() {
    let budget = Budget { per_run: Some(100), exhausted: Exhausted::Review, ..Budget::default() };
    let (rig, model) = rig(vec![writing("test", budget)]).await;
    let (allowed, answered, refused) =
        (rig.open(None).await.run(), rig.open(None).await.run(), rig.open(None).await.run());
    let review = asked(&rig, allowed).await;
    assert_eq!(review.ask, "budget");
    let reasons = review.question.reasons.join("\n");
    assert!(reasons.contains("the budget of this run has 0.0001 USD left of 0.0001 USD"), "{reasons}");
    assert!(review.question.allows_micros.unwrap() > 1_000);
    assert!(model.requests().is_empty());

    rig.decide(allowed, Verdict::Approved).await;
    rig.becomes(allowed, "succeeded").await;
    assert_eq!(spent(&rig, format!("run/{allowed}")).await, (COST, 0));
    rig.decide(answered, Verdict::Answered { answer: json!({"text": "mine"}) }).await;
    rig.becomes(answered, "succeeded").await;
    rig.decide(refused, Verdict::Rejected { reason: "too dear".into() }).await;
    rig.becomes(refused, "declined").await;
    assert_eq!(model.requests().len(), 1);
    assert_eq!(crate::invariants::broken(&rig.store).await, []);
}

/// What is set aside for one call of a child.
async fn worst_of_one() -> i64 {
    let (rig, _model) = rig(vec![writing("test", Budget::default())]).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "succeeded").await;
    let client = rig.store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(client.1);
    client.0.query_one("select max(reserved_micros) from spend_entries", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_a_child_costs_its_parent_pays_too_and_its_limit_holds_there() {
    let opens = StepKind::Workflow(ChildStep {
        workflow: "child".into(),
        with: json!({"what": "{{ input.what }}"}),
        budget_micros: None,
    });
    let opening =
        |id: &str, after: Option<&str>| Step { kind: opens.clone(), ..step(id, after, "noop", json!({})) };
    // Room for what one call may cost at most, and for the true cost of two more.
    let parent = Version {
        budget: Budget { per_run: Some(worst_of_one().await + 2 * COST + COST / 2), ..Budget::default() },
        ..version(
            "test",
            vec![
                opening("one", None),
                opening("two", Some("one")),
                opening("three", Some("two")),
                opening("four", Some("three")),
                opening("five", Some("four")),
            ],
        )
    };
    let fails = Budget { exhausted: Exhausted::Fail, ..Budget::default() };
    let (rig, model) = rig(vec![parent, writing("child", fails)]).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "failed").await;
    let calls = i64::try_from(model.requests().len()).unwrap();
    assert_eq!(calls, 3, "two, and a third beside what one may cost");
    assert_eq!(spent(&rig, format!("run/{run}")).await, (calls * COST, 0));
    assert_eq!(crate::invariants::broken(&rig.store).await, []);
}

#[tokio::test]
async fn i9_a_ledger_that_is_not_the_sum_of_its_calls_is_noticed() {
    use steward::store::audit::Invariant;
    for lie in [
        "update spend set settled = settled - 1 where scope = 'workspace/day'",
        "update spend set reserved = reserved + 1 where scope = 'run'",
        "update spend set ceiling = settled - 1 where scope = 'workflow/month'",
        "delete from spend_entries",
        "delete from spend where scope = 'workflow/day'",
        "update spend_entries set settled_micros = settled_micros - 1",
        "update spend_entries set status = 'released', settled_micros = null",
    ] {
        let (rig, _model) =
            rig(vec![writing("test", Budget { per_run: Some(20_000), ..Budget::default() })]).await;
        let run = rig.open(None).await.run();
        rig.becomes(run, "succeeded").await;
        rig.door.stop().await;
        rig.door.engine().models.stop().await; // everything is brought in
        assert_eq!(crate::invariants::broken(&rig.store).await, []);
        by_hand(&rig.store, lie).await;
        assert_eq!(crate::invariants::broken(&rig.store).await, [Invariant::I9], "{lie}");
    }
    let (rig, _model) = rig(vec![writing("test", Budget::default())]).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "succeeded").await;
    rig.door.stop().await;
    rig.door.engine().models.stop().await;
    rewrite(&rig.store, run, |pages| {
        let called = place(pages, "model.called");
        pages.remove(called);
    })
    .await;
    assert_eq!(
        crate::invariants::broken(&rig.store).await,
        [Invariant::I9],
        "a call that no journal tells of"
    );
}

/// Kills the real process at `name` in the middle of a paid call, starts it again, and adds up.
async fn adds_up_after(name: &str, sent: bool) {
    let answer = json!({"fit": 0.9, "confidence": 0.8, "why": "a shop", "wants": "a shop", "unknown": [],
        "body": "Hello,\n\nthank you for your mail about a new website.\n\nMara"});
    let model = ModelServer::start(Box::new(move |request| {
        let wanted = &request["response_format"]["json_schema"]["schema"]["properties"];
        let mut answer = answer.clone();
        if let (Some(fields), Some(wanted)) = (answer.as_object_mut(), wanted.as_object()) {
            fields.retain(|name, _| wanted.contains_key(name));
        }
        says(&answer.to_string())
    }))
    .await;
    let (_folder, workspace) = crate::support::database::folder();
    template::write(&workspace).unwrap();
    std::fs::write(workspace.join("config/models.yaml"), model.models_yaml()).unwrap();
    let raw = example_email("01-lead-bakery.eml");
    let doomed = Process::start(&workspace, Some(name)).await;
    let _ = doomed.deliver(&raw).await;
    doomed.died().await;
    assert_eq!(model.requests().len(), usize::from(sent), "killed at {name}");

    let process = Process::start(&workspace, None).await;
    let run = eventually("the mail being taken again", || process.deliver(&raw)).await;
    eventually("the reply waiting for the owner", || async {
        process.open_review(Some(&run)).await.filter(|review| review["ask"] == "approval")
    })
    .await;
    let shown = eventually("the money being shown", || process.get("/api/v1/spend?by=model")).await;
    let line = &shown["lines"][0];
    let calls = if sent { model.requests().len() as i64 - 1 } else { model.requests().len() as i64 };
    assert_eq!(line["spent_micros"], json!(calls * COST), "killed at {name}: {shown}");
    let worst = line["reserved_micros"].as_i64().unwrap();
    assert!(worst > COST, "killed at {name}: the lost call is still held, for all it may have cost: {shown}");
    let day: &Value = &shown["budgets"][0];
    assert_eq!((&day["scope"], &day["spent_micros"]), (&json!("workspace/day"), &json!(calls * COST)));
    assert_eq!(day["left_micros"], json!(3_000_000 - calls * COST - worst));
    let audit = process.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!(audit["broken"], 0, "killed at {name}: {audit}");
    process.stop().await;
}

#[tokio::test]
async fn killed_between_setting_aside_and_calling_the_ledger_adds_up() {
    adds_up_after(failpoint::MODEL_RESERVED, false).await;
}

#[tokio::test]
async fn killed_between_calling_and_settling_the_ledger_adds_up() {
    adds_up_after(failpoint::MODEL_CALLED, true).await;
}

#[tokio::test]
async fn spending_is_shown_by_workflow_model_and_day_and_nonsense_is_refused() {
    let model = ModelServer::start(Box::new(|_| {
        says(r#"{"fit": 0.1, "confidence": 0.8, "why": "x", "wants": "y", "unknown": []}"#)
    }))
    .await;
    let app = crate::support::app_with(|workspace| {
        std::fs::write(workspace.join("config/models.yaml"), model.models_yaml()).unwrap();
    })
    .await;
    let run = app.deliver(example_email("01-lead-bakery.eml")).await;
    eventually("a call", || async { (!model.requests().is_empty()).then_some(()) }).await;
    app.run_that_is(&run, &["succeeded", "waiting", "failed", "declined"]).await;
    for (by, name) in [("workflow", "lead-intake"), ("model", "test-model")] {
        let shown = app.get(&format!("/api/v1/spend?by={by}")).await;
        assert_eq!(shown["lines"][0]["name"], name, "{shown}");
        assert_eq!((&shown["currency"], &shown["time_zone"]), (&json!("USD"), &json!("Europe/Oslo")));
    }
    let shown = app.get("/api/v1/spend?by=day").await;
    assert_eq!(shown["lines"][0]["name"], shown["to"], "today, by the owner's clock: {shown}");
    assert_eq!(app.get("/api/v1/spend?from=2020-01-01&to=2020-12-31").await["spent_micros"], 0);
    for nonsense in ["by=mood", "from=yesterday", "from=2026-02-01&to=2026-01-01", "since=1"] {
        let (status, refused) = app.call(Method::GET, &format!("/api/v1/spend?{nonsense}"), None).await;
        assert_eq!(status, 400, "{nonsense}: {refused}");
    }
}
