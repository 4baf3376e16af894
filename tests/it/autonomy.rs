//! Trust is earned by what the owner decided, asked for, and taken back; and everything is counted.

use std::sync::Arc;

use serde_json::{Value, json};
use steward::config::workspace::Definitions;
use steward::connectors::Connector;
use steward::connectors::records::Records;
use steward::connectors::stages::Stages;
use steward::domain::action::{Repeat, STAGE_ACTION};
use steward::domain::autonomy::{Cause, Demote, Hasty, Promote, own};
use steward::domain::duration::Span;
use steward::domain::event::{ErrorKind, StepError, Verdict};
use steward::domain::ids::{ReviewId, RunId};
use steward::domain::plan::EffectResult;
use steward::domain::workflow::{Stage, Step, Undo};
use steward::reviews::autonomy::Observer;
use steward::store::Store;
use steward::store::reviews::ReviewRow;
use steward::store::runs::RunFilter;
use steward::store::stages::Restage;

use crate::support::forge::by_hand;
use crate::support::model_server::{ModelServer, says};
use crate::support::rig::{Rig, Scripted, call_out, define, set_stage, step, version};
use crate::support::{app_with, database, eventually};

const HASTY: Hasty = Hasty { within_ms: 5_000, in_a_row: 3 };

/// An engine over one workflow that calls out, with an observer beside it.
pub struct House {
    pub rig: Rig,
    pub store: Store,
    pub definitions: Arc<Definitions>,
    observer: Option<Observer>,
}

impl House {
    pub async fn new(change: impl FnOnce(&mut Definitions)) -> Self {
        Self::of(vec![call_out("pay", None)], |_| EffectResult::Succeeded(json!({"ok": true})), change).await
    }

    async fn of(
        steps: Vec<Step>,
        answer: impl Fn(usize) -> EffectResult + Send + Sync + 'static,
        change: impl FnOnce(&mut Definitions),
    ) -> Self {
        let store = database().await;
        let connectors: Vec<Arc<dyn Connector>> = vec![
            Scripted::new(Repeat::Natural, move |_, nth| answer(nth)),
            Arc::new(Records::new(store.clone())),
            Arc::new(Stages::new(store.clone())),
        ];
        let mut kept = None;
        let rig = Rig::defining(store.clone(), connectors, true, |definitions| {
            definitions.settings.autonomy = Default::default();
            define(definitions, version("test", steps));
            change(definitions);
            kept = Some(definitions.clone());
        })
        .await;
        Self { rig, store, definitions: Arc::new(kept.unwrap()), observer: None }
    }

    pub fn observed(mut self) -> Self {
        self.observer = Some(Observer::start(self.rig.door.clone(), self.definitions.clone()));
        self
    }

    pub async fn stop(self) {
        if let Some(observer) = self.observer {
            observer.stop().await;
        }
        self.rig.door.stop().await;
    }

    /// Opens a run and decides what it asks.
    pub async fn decided(&self, what: &str, verdict: Verdict) -> RunId {
        let run = self.rig.open_about(what, None).await.run();
        self.rig.decide(run, verdict).await;
        run
    }

    /// The question about a stage that is open now, with its run.
    async fn asked(&self) -> ReviewRow {
        eventually("a question about a stage", || async {
            let open = self.store.reviews("open", None, None, 100).await.unwrap();
            open.into_iter().find(|review| {
                review.question.action.as_ref().is_some_and(|action| action.action == STAGE_ACTION)
            })
        })
        .await
    }

    /// The runs about stages so far.
    async fn proposals(&self) -> usize {
        let filter = RunFilter { workflow: Some(own::WORKFLOW.into()), ..RunFilter::default() };
        self.store.runs(&filter, None, 100).await.unwrap().len()
    }

    async fn is_at(&self, stage: Stage) {
        eventually(&format!("the version being {stage:?} everywhere"), || async {
            let current = self.rig.door.engine().current(&"test".into()).unwrap();
            let stored = self.store.version(current.digest).await.unwrap().unwrap().stage;
            (current.stage == stage && stored == stage).then_some(())
        })
        .await;
    }

    pub async fn counted(&self, decisions: i64) {
        eventually(&format!("{decisions} decisions being counted"), || async {
            let counts = self.store.review_metrics(None, HASTY.within_ms).await.unwrap();
            let all = |of: &steward::store::metrics::ReviewMetrics| of.decided.in_time() + of.decided.expired;
            (counts.iter().map(all).sum::<i64>() == decisions).then_some(())
        })
        .await;
    }

    async fn notices(&self) -> Vec<(String, String)> {
        let notices = self.store.notices(true, 100).await.unwrap();
        notices.into_iter().map(|notice| (notice.subject, notice.severity)).collect()
    }
}

fn no() -> Verdict {
    Verdict::Rejected { reason: "no".into() }
}

fn after(count: u32) -> impl FnOnce(&mut Definitions) {
    move |definitions| {
        definitions.settings.autonomy.promote = Some(Promote { after: count, unchanged: 0.7 });
    }
}

fn demoting(on: Cause, automatic: bool) -> impl FnOnce(&mut Definitions) {
    move |definitions| {
        let demote = Demote { on: [on].into(), below: None, automatic };
        definitions.settings.autonomy.demote = Some(demote);
    }
}

#[tokio::test]
async fn approvals_earn_a_question_and_the_owners_yes_lets_policy_decide_alone() {
    let house = House::new(after(3)).await.observed();
    for what in ["one", "two", "three"] {
        let run = house.decided(what, Verdict::Approved).await;
        house.rig.becomes(run, "succeeded").await;
    }
    let review = house.asked().await;
    let action = review.question.action.clone().unwrap();
    let digest = house.rig.door.engine().current(&"test".into()).unwrap().digest;
    assert_eq!(action.params["version"], digest.to_string());
    assert_eq!((&action.params["was"], &action.params["stage"]), (&json!("supervised"), &json!("live")));
    assert!(review.title.starts_with("test, version 1: may it act without being asked first?"));
    let shown = json!(review.question.artifacts).to_string();
    assert!(shown.contains("`http.request`: 3 approved unchanged, 0 edited, 0 rejected"), "{shown}");
    house.rig.decide(review.run, Verdict::Approved).await;
    house.rig.becomes(review.run, "succeeded").await;
    house.is_at(Stage::Live).await;
    let changes = house.store.stage_changes(&"test".into(), 10).await.unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].by.as_str(), changes[0].stage.as_str()), ("owner", "live"));
    let effects = house.store.effects(review.run).await.unwrap();
    assert_eq!(changes[0].effect, Some(effects[0].id), "the log leads to the journal");
    // From now on nobody is asked.
    let run = house.rig.open_about("four", None).await.run();
    house.rig.becomes(run, "succeeded").await;
    assert!(house.store.reviews("open", Some(run), None, 1).await.unwrap().is_empty());
    assert_eq!(house.notices().await, [("test/1/live".to_owned(), "info".to_owned())]);
    house.stop().await;
}

#[tokio::test]
async fn a_no_is_not_asked_about_again_until_twice_as_much_was_shown() {
    let house = House::new(after(2)).await.observed();
    for what in ["one", "two"] {
        house.decided(what, Verdict::Approved).await;
    }
    let review = house.asked().await;
    house.rig.decide(review.run, no()).await;
    house.rig.becomes(review.run, "declined").await;
    house.is_at(Stage::Supervised).await;
    house.decided("three", Verdict::Approved).await;
    house.counted(4).await; // three effects and the question itself
    house.decided("four", Verdict::Approved).await;
    let again = house.asked().await;
    assert_ne!(again.run, review.run);
    assert_eq!(house.proposals().await, 2, "three approvals were no new occasion, four are");
    house.stop().await;
}

#[tokio::test]
async fn a_question_that_no_longer_stands_is_withdrawn() {
    let house = House::new(after(1)).await.observed();
    house.decided("one", Verdict::Approved).await;
    let review = house.asked().await;
    // The owner is faster by hand.
    let engine = house.rig.door.engine();
    let version = engine.current(&"test".into()).unwrap().digest;
    let (by, reason) = ("owner via cli", "I have seen enough");
    let change = Restage { version, was: None, stage: Stage::Live, by, reason, effect: None };
    assert!(engine.restage(&change).await.unwrap().unwrap().changed);
    assert!(!engine.restage(&change).await.unwrap().unwrap().changed, "it is live already");
    house.decided_by_somebody().await;
    house.rig.becomes(review.run, "cancelled").await;
    let changes = house.store.stage_changes(&"test".into(), 10).await.unwrap();
    assert_eq!(changes.iter().map(|change| change.by.as_str()).collect::<Vec<_>>(), ["owner via cli"]);
    house.stop().await;
}

impl House {
    /// A decision about anything, so that the observer looks.
    async fn decided_by_somebody(&self) {
        let engine = self.rig.door.engine();
        let version = engine.current(&"test".into()).unwrap();
        let sql = format!(
            "insert into reviews (id, run_id, step, ask, digest, title, question, status, decided_by, opened_at, decided_at)
             select gen_random_uuid(), id, 'x', 'question', '\\x00', 't', '{{}}', 'answered', 'somebody', now(), now()
             from runs where version = '\\x{}' limit 1",
            version.digest
        );
        by_hand(&self.store, &sql).await;
    }
}

/// The review of a run, made one of the sample or of high risk before it is decided.
async fn marked(house: &House, what: &str, name: &str, value: Value) -> (RunId, ReviewId) {
    let run = house.rig.open_about(what, None).await.run();
    let review = eventually("a review", || async {
        house.store.reviews("open", Some(run), None, 1).await.unwrap().pop()
    })
    .await;
    let sql = format!(
        "update reviews set question = jsonb_set(question, '{{{name}}}', '{value}') where id = '{}'",
        review.id
    );
    by_hand(&house.store, &sql).await;
    (run, review.id)
}

#[tokio::test]
async fn an_undo_that_failed_asks_whether_the_version_is_to_be_supervised_again() {
    let refused = |nth: usize| match nth {
        1 => EffectResult::Succeeded(json!({"ok": true})),
        _ => EffectResult::Failed(StepError::new(ErrorKind::Refused, "the books are closed")),
    };
    let back = json!({"method": "DELETE", "url": "https://api.example/pay"});
    let undo = Undo { action: "http.request".into(), with: back };
    let steps = vec![Step { undo: Some(undo), ..call_out("book", None) }, call_out("pay", Some("book"))];
    let house = House::of(steps, refused, demoting(Cause::FailedUndo, false)).await.observed();
    let version = house.rig.door.engine().current(&"test".into()).unwrap();
    set_stage(house.rig.door.engine(), version.digest, Stage::Live).await;
    house.rig.open_about("it", None).await;
    let review = house.asked().await;
    assert_eq!(review.question.action.clone().unwrap().params["stage"], "supervised");
    assert!(json!(review.question.artifacts).to_string().contains("undoing failed 1 times"));
    house.is_at(Stage::Live).await;
    house.rig.decide(review.run, Verdict::Approved).await;
    house.is_at(Stage::Supervised).await;
    let told = ("test/1/supervised".to_owned(), "warning".to_owned());
    eventually("the owner being told", || async { house.notices().await.contains(&told).then_some(()) })
        .await;
    house.stop().await;
}

#[tokio::test]
async fn fast_approvals_of_high_risk_are_pointed_out_and_earn_nothing() {
    // However slow this machine is, an hour is fast.
    let hour = |definitions: &mut Definitions| {
        after(3)(definitions);
        definitions.settings.autonomy.hasty.within = Span::secs(3600);
    };
    let house = House::new(hour).await.observed();
    for what in ["one", "two", "three"] {
        let (run, _) = marked(&house, what, "risk", json!({"class": "high"})).await;
        house.rig.decide(run, Verdict::Approved).await;
    }
    eventually("the owner being told", || async {
        house.notices().await.contains(&("hasty/owner".to_owned(), "warning".to_owned())).then_some(())
    })
    .await;
    house.counted(3).await;
    let metrics = house.store.review_metrics(None, 3_600_000).await.unwrap();
    assert_eq!((metrics[0].decided.approved, metrics[0].decided.hasty), (3, 3));
    // Three that were looked at do what these did not.
    for what in ["four", "five", "six"] {
        house.decided(what, Verdict::Approved).await;
    }
    house.asked().await;
    assert_eq!(house.proposals().await, 1);
    house.stop().await;
}

#[tokio::test]
async fn fast_approvals_are_pointed_out_once_though_the_first_try_fails_after_they_were_counted() {
    let hour = |definitions: &mut Definitions| definitions.settings.autonomy.hasty.within = Span::secs(3600);
    let house = House::new(hour).await;
    for what in ["one", "two", "three"] {
        let (run, _) = marked(&house, what, "risk", json!({"class": "high"})).await;
        house.rig.decide(run, Verdict::Approved).await;
    }
    let (client, connection) = house.store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // A sequence remembers what a transaction that failed has taken from it.
    let fails = "create sequence tried;
         create function fails() returns trigger language plpgsql as $$
         begin perform nextval('tried'); raise exception 'not now'; end $$;
         create trigger fails before insert on notices for each row execute function fails()";
    client.batch_execute(fails).await.unwrap();
    let house = house.observed();
    eventually("a try that fails", || async {
        let tried = client.query_one("select is_called from tried", &[]).await.unwrap();
        tried.get::<_, bool>(0).then_some(())
    })
    .await;
    house.counted(3).await;
    client.batch_execute("drop trigger fails on notices").await.unwrap();
    let pointed_out = || async {
        let notices = house.store.notices(true, 9).await.unwrap();
        notices.into_iter().find(|notice| notice.subject == "hasty/owner").map(|notice| notice.times)
    };
    assert_eq!(eventually("the owner being told", pointed_out).await, 1);
    assert!(house.store.unweighed().await.unwrap().is_empty());
    // More decisions, and another look: what was told is not told again.
    house.decided("four", no()).await;
    house.counted(4).await;
    assert_eq!(pointed_out().await, Some(1));
    house.stop().await;
}

#[tokio::test]
async fn each_decision_is_counted_once_however_many_count_and_stays_when_its_run_goes() {
    let house = House::new(|_| {}).await;
    let approved = house.decided("one", Verdict::Approved).await;
    let edited = Verdict::Edited { params: json!({"method": "POST", "url": "https://api.example/else"}) };
    let edited = house.decided("two", edited).await;
    let rejected = house.decided("three", no()).await;
    house.decided("four", Verdict::Expired).await;
    house.rig.becomes(approved, "succeeded").await;
    house.rig.becomes(edited, "succeeded").await;
    house.rig.becomes(rejected, "declined").await;
    let all = futures_util::future::join_all((0..8).map(|_| house.store.count_decisions(HASTY))).await;
    let counted: usize = all.into_iter().map(|counted| counted.unwrap()).sum();
    assert_eq!(counted, 4);
    assert_eq!(house.store.count_decisions(HASTY).await.unwrap(), 0);
    let version = house.rig.door.engine().current(&"test".into()).unwrap().digest;
    let before = house.store.action_counts(&[version], HASTY).await.unwrap();
    assert_eq!(before.len(), 1);
    let tally = before[0].tally;
    assert_eq!((tally.approved, tally.edited, tally.rejected, tally.expired), (1, 1, 1, 1));
    assert_eq!((before[0].action.as_str(), before[0].unchanged), ("http.request", Some(1.0 / 3.0)));
    assert!(before[0].median_seconds.unwrap() <= before[0].p90_seconds.unwrap());
    // Retention takes the runs, and what was asked about them.
    let remove = format!(
        "set session_replication_role = origin;
         select remove_runs(array['{approved}', '{edited}', '{rejected}']::uuid[], array[now(), now(), now()], now())"
    );
    by_hand(&house.store, &remove).await;
    assert!(house.store.run_row(approved).await.unwrap().is_none());
    assert_eq!(house.store.action_counts(&[version], HASTY).await.unwrap(), before);
    assert_eq!(house.store.count_decisions(HASTY).await.unwrap(), 0);
    house.stop().await;
}

#[tokio::test]
async fn how_long_somebody_can_have_looked_ends_with_what_was_decided_before() {
    let house = House::new(|_| {}).await;
    let one = house.decided("one", Verdict::Approved).await;
    let two = house.decided("two", Verdict::Approved).await;
    let three = house.decided("three", Verdict::Approved).await;
    // Two days ago: decided fifty minutes after they were asked, each two seconds after the other; the owner
    // was told of the third only one second before.
    let sql = format!(
        "update reviews set opened_at = now() - interval '3600 s' - interval '2 days',
             decided_at = now() - interval '2 days' - case run_id
                 when '{one}' then interval '600 s' when '{two}' then interval '598 s'
                 else interval '596 s' end;
         insert into messages_out (id, review_id, channel, kind, status, sent_at)
             select gen_random_uuid(), id, 'slack', 'ask', 'sent', now() - interval '597 s' - interval '2 days'
             from reviews where run_id = '{three}'"
    );
    by_hand(&house.store, &sql).await;
    assert_eq!(house.store.count_decisions(HASTY).await.unwrap(), 3);
    let (client, connection) = house.store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let rows = client.query("select looked_ms from decisions order by decided_at", &[]).await.unwrap();
    let looked: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(looked, [3_000_000, 2_000, 1_000]);
    house.stop().await;
}

#[tokio::test]
async fn a_change_of_stage_happens_once_and_only_from_where_it_was_meant() {
    let store = database().await;
    let row = store.keep_version(&version("test", vec![call_out("pay", None)])).await.unwrap();
    let effect = Some(steward::domain::ids::EffectId(uuid::Uuid::now_v7()));
    let up = Restage {
        version: row.digest,
        was: Some(Stage::Supervised),
        stage: Stage::Live,
        by: "somebody",
        reason: "",
        effect,
    };
    assert!(store.restage(&up).await.unwrap().unwrap().changed);
    let down = Restage { was: None, stage: Stage::Supervised, effect: None, ..up };
    assert!(store.restage(&down).await.unwrap().unwrap().changed);
    // The effect again, as after a crash: what was taken back since stays taken back.
    let again = store.restage(&up).await.unwrap().unwrap();
    assert_eq!((again.changed, again.again), (false, true));
    assert_eq!(store.version(row.digest).await.unwrap().unwrap().stage, Stage::Supervised);
    let other = Restage { was: Some(Stage::Live), effect: None, ..up };
    assert!(!store.restage(&other).await.unwrap().unwrap().changed, "it is not where it was meant to be");
    let nobody = Restage { version: steward::domain::digest::Digest::ZERO, ..up };
    assert_eq!(store.restage(&nobody).await.unwrap(), None);
    let (client, connection) = store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let refused = client.execute("update stages set by = 'nobody'", &[]).await.unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().constraint(), Some("stages_append_only"));
}

#[tokio::test]
async fn a_change_by_one_node_counts_on_the_other_within_a_moment() {
    let store = database().await;
    let steps = || vec![step("s", None, "noop", json!({"value": 1})), call_out("pay", Some("s"))];
    let one = Rig::beside(&store, std::time::Duration::from_secs(60), steps(), Vec::new()).await;
    let two = Rig::beside(&store, std::time::Duration::from_secs(60), steps(), Vec::new()).await;
    let version = one.door.engine().current(&"test".into()).unwrap().digest;
    set_stage(one.door.engine(), version, Stage::Live).await;
    eventually("the other node knowing it", || async {
        (two.door.engine().current(&"test".into()).unwrap().stage == Stage::Live).then_some(())
    })
    .await;
    one.door.stop().await;
    two.door.stop().await;
}

const SAMPLED: &str = "\
workflow: ask
title: A question
input: { type: object, required: [text], properties: { text: { type: string } } }
sample: 1
steps:
  - id: think
    agent: helper
    with: { text: \"{{ input.text }}\" }
  - id: reply
    action: email.send
    with: { to: mara@harbourandpine.example, subject: Re, body: \"{{ steps.think.output.answer }}\" }
";

const HELPER: &str = "\
---
agent: helper
tier: draft
output: { type: object, required: [answer], properties: { answer: { type: string } } }
---
Answer.
";

#[tokio::test]
async fn a_rejected_sample_takes_trust_back_at_once_and_the_owner_sees_why() {
    let model = ModelServer::start(Box::new(|_| says(r#"{"answer": "Welcome"}"#))).await;
    let app = app_with(|workspace| {
        crate::agents::write(workspace, &model, SAMPLED, HELPER);
        let _ = std::fs::remove_file(workspace.join("config/policy.yaml"));
    })
    .await;
    let promoted = app.post("/api/v1/workflows/ask/promote", json!({"reason": "it is good"})).await;
    assert_eq!((&promoted["stage"], &promoted["changed"]), (&json!("live"), &json!(true)));
    let opened = app.post("/api/v1/runs", json!({"workflow": "ask", "input": {"text": "Hello"}})).await;
    let run = opened["run"].as_str().unwrap();
    let review = app.open_review(run).await;
    assert_eq!(review["question"]["sampled"], true);
    let path = format!("/api/v1/reviews/{}/decision", review["id"].as_str().unwrap());
    app.post(&path, json!({"verdict": "rejected", "reason": "rude", "digest": review["digest"]})).await;
    let shown = eventually("the version being supervised again", || async {
        let shown = app.get("/api/v1/workflows/ask").await;
        (shown["versions"][0]["stage"] == "supervised").then_some(shown)
    })
    .await;
    let changes = shown["changes"].as_array().unwrap();
    let by: Vec<&str> = changes.iter().map(|change| change["by"].as_str().unwrap()).collect();
    assert_eq!(by, [own::WORKFLOW, "owner via api"]);
    assert_eq!(changes[1]["reason"], "it is good");
    assert!(changes[0]["reason"].as_str().unwrap().contains("you rejected 1 of the sample"), "{changes:?}");
    assert_eq!(shown["versions"][0]["actions"][0]["rejected"], 1);
    let notices = app.store.notices(true, 10).await.unwrap();
    assert!(
        notices.iter().any(|notice| notice.subject == "ask/1/supervised" && notice.severity == "warning")
    );
    app.assert_chains_hold().await;
    app.stop().await;
}
