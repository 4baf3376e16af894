//! The engine, driven through its own door: what is acknowledged is durable, what is durable goes on.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use steward::domain::action::Repeat;
use steward::domain::duration::Span;
use steward::domain::event::{ErrorKind, StepError, Verdict};
use steward::domain::ids::{NodeId, RunId};
use steward::domain::label::Label;
use steward::domain::plan::EffectResult;
use steward::domain::workflow::{ReviewSpec, StepKind};
use steward::orchestrator::journal::Journal;
use steward::store::journal::Opened;
use steward::store::journal::seal::{genesis, seal};

use crate::support::rig::{Rig, Scripted, call_out, ten_steps};
use crate::support::{database, eventually};

#[tokio::test]
async fn a_run_of_ten_pure_steps_is_durable_step_by_step() {
    let rig = Rig::new(ten_steps(), Vec::new()).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "succeeded").await;
    let kinds = rig.kinds(run).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "step.succeeded").count(), 10);
    assert_eq!(kinds.last().unwrap(), "run.finished");
    rig.door.stop().await;
}

#[tokio::test]
async fn the_same_key_opens_one_run_however_many_ask_at_once() {
    let rig = Arc::new(Rig::new(ten_steps(), Vec::new()).await);
    let asks = (0..50).map(|_| {
        let rig = rig.clone();
        tokio::spawn(async move { rig.open(Some("the same")).await })
    });
    let opened = futures_util::future::join_all(asks).await;
    let runs: std::collections::BTreeSet<_> =
        opened.iter().map(|opened| opened.as_ref().unwrap().run()).collect();
    assert_eq!(runs.len(), 1);
    let new = opened.iter().filter(|opened| matches!(opened.as_ref().unwrap(), Opened::New(_))).count();
    assert_eq!(new, 1);
    rig.door.stop().await;
}

#[tokio::test]
async fn hundreds_of_runs_at_once_all_end_with_whole_chains() {
    let rig = Arc::new(Rig::new(ten_steps(), Vec::new()).await);
    let opens = (0..300).map(|_| {
        let rig = rig.clone();
        tokio::spawn(async move { rig.open(None).await.run() })
    });
    for run in futures_util::future::join_all(opens).await {
        rig.becomes(run.unwrap(), "succeeded").await;
    }
    rig.door.stop().await;
}

#[tokio::test]
async fn what_the_owner_approves_is_carried_out_once() {
    let paid = Scripted::new(Repeat::None, |_, _| EffectResult::Succeeded(json!({"ok": true})));
    let rig = Rig::new(vec![call_out("pay", None)], vec![paid.clone()]).await;
    let run = rig.open(None).await.run();
    let review = rig.decide(run, Verdict::Approved).await;
    rig.becomes(run, "succeeded").await;
    assert_eq!(paid.calls(), 1);
    let again =
        rig.store.decide(review, steward::domain::digest::Digest::ZERO, &Verdict::Approved, "x").await;
    assert!(again.unwrap_err().to_string().contains("approved already"));
    rig.door.stop().await;
}

#[tokio::test]
async fn the_same_key_from_another_run_gets_the_first_result_without_a_second_call() {
    let mut pay = call_out("pay", None);
    if let StepKind::Action(action) = &mut pay.kind {
        action.dedupe = Some("invoice-7".into());
    }
    let paid = Scripted::new(Repeat::None, |_, n| EffectResult::Succeeded(json!({"receipt": n})));
    let rig = Rig::new(vec![pay], vec![paid.clone()]).await.live().await;
    let first = rig.open(None).await.run();
    rig.becomes(first, "succeeded").await;
    let second = rig.open(None).await.run();
    rig.becomes(second, "succeeded").await;
    assert_eq!(paid.calls(), 1);
    assert!(rig.kinds(second).await.contains(&"effect.reused".to_owned()));
    let run = rig.store.load_run(second).await.unwrap().unwrap().run;
    let context = run.context(&json!({}));
    assert_eq!(context["steps"]["pay"]["output"]["receipt"], 1);
    rig.door.stop().await;
}

#[tokio::test]
async fn a_passing_failure_is_retried_and_a_lasting_one_ends_the_run_with_its_reason() {
    let flaky = Scripted::new(Repeat::None, |_, n| match n {
        1 => EffectResult::Failed(StepError::new(ErrorKind::Unavailable, "down for a moment")),
        _ => EffectResult::Succeeded(json!({})),
    });
    let rig = Rig::new(vec![call_out("pay", None)], vec![flaky.clone()]).await.live().await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "succeeded").await;
    assert_eq!(flaky.calls(), 2);
    assert!(rig.kinds(run).await.contains(&"attempt.failed".to_owned()));
    rig.door.stop().await;

    let refused = Scripted::new(Repeat::None, |_, _| {
        EffectResult::Failed(StepError::new(ErrorKind::Refused, "this account is closed"))
    });
    let rig = Rig::new(vec![call_out("pay", None)], vec![refused.clone()]).await.live().await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "failed").await;
    assert_eq!(refused.calls(), 1);
    let run = rig.store.load_run(run).await.unwrap().unwrap().run;
    assert!(run.finished.unwrap().1.contains("this account is closed"));
    rig.door.stop().await;
}

#[tokio::test]
async fn an_effect_nobody_can_know_about_is_never_repeated_unless_the_owner_says_so() {
    let lost = Scripted::new(Repeat::None, |_, n| match n {
        1 => EffectResult::Unknown("the line went dead after the last byte".into()),
        _ => EffectResult::Succeeded(json!({})),
    });
    let rig = Rig::new(vec![call_out("pay", None)], vec![lost.clone()]).await.live().await;
    let run = rig.open(None).await.run();
    rig.decide(run, Verdict::Answered { answer: json!("again") }).await;
    rig.becomes(run, "succeeded").await;
    assert_eq!(lost.calls(), 2);
    let journal = rig.store.journal(run, 0, 100).await.unwrap();
    let repeated = journal
        .iter()
        .any(|entry| entry.kind == "effect.started" && entry.data.as_ref().unwrap()["again"] == true);
    assert!(repeated, "a repetition is marked as one");
    rig.door.stop().await;
}

#[tokio::test]
async fn a_harmless_effect_that_stays_unknown_is_not_repeated_for_ever() {
    let lost = Scripted::new(Repeat::Natural, |_, _| EffectResult::Unknown("no answer".into()));
    let rig = Rig::new(vec![call_out("pay", None)], vec![lost.clone()]).await.live().await;
    let run = rig.open(None).await.run();
    rig.decide(run, Verdict::Answered { answer: json!("give_up") }).await;
    rig.becomes(run, "declined").await;
    assert_eq!(lost.calls(), 3, "as often as the step's retry allows");
    rig.door.stop().await;
}

#[tokio::test]
async fn a_connector_that_panics_leaves_its_effect_in_doubt_and_every_other_run_alone() {
    let broken = Scripted::new(Repeat::None, |_, n| match n {
        1 => panic!("a fault in the connector"),
        _ => EffectResult::Succeeded(json!({})),
    });
    let rig = Rig::new(vec![call_out("pay", None)], vec![broken.clone()]).await.live().await;
    let first = rig.open(None).await.run();
    rig.decide(first, Verdict::Answered { answer: json!("give_up") }).await;
    rig.becomes(first, "declined").await;
    rig.door.stop().await;
}

#[tokio::test]
async fn a_review_past_its_time_expires_and_never_means_yes() {
    let paid = Scripted::new(Repeat::None, |_, _| EffectResult::Succeeded(json!({})));
    let mut pay = call_out("pay", None);
    if let StepKind::Action(action) = &mut pay.kind {
        action.review = Some(ReviewSpec { artifacts: Vec::new(), due: Some(Span::secs(0)) });
    }
    let rig = Rig::new(vec![pay], vec![paid.clone()]).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "failed").await;
    assert_eq!(paid.calls(), 0);
    assert_eq!(rig.store.reviews("expired", Some(run), None, 1).await.unwrap().len(), 1);
    rig.door.stop().await;
}

#[tokio::test]
async fn a_cancelled_run_withdraws_its_question_and_does_nothing_more() {
    let paid = Scripted::new(Repeat::None, |_, _| EffectResult::Succeeded(json!({})));
    let rig = Rig::new(vec![call_out("pay", None)], vec![paid.clone()]).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "waiting").await;
    assert!(rig.store.request_cancel(run, "owner").await.unwrap());
    rig.door.wake(run);
    rig.becomes(run, "cancelled").await;
    assert_eq!(
        (paid.calls(), rig.store.reviews("superseded", Some(run), None, 1).await.unwrap().len()),
        (0, 1)
    );
    assert!(!rig.store.request_cancel(run, "owner").await.unwrap(), "over is over");
    rig.door.stop().await;
}

#[tokio::test]
async fn runs_left_behind_by_a_lost_node_go_on_where_they_were() {
    let store = database().await;
    let rig = Rig::over(store.clone(), ten_steps(), Vec::new()).await;
    let version = rig.door.engine().current(&"test".into()).unwrap();
    rig.door.stop().await;
    // A run that another node had opened and begun when it was lost.
    let lost = NodeId(uuid::Uuid::new_v4());
    store.register_node(lost, std::time::Duration::ZERO, false).await.unwrap();
    let journal = Journal::start(store.config()).await.unwrap();
    let run = RunId(uuid::Uuid::now_v7());
    let opened = steward::domain::event::Opened {
        workflow: "test".into(),
        version: version.digest,
        title: "left behind".into(),
        input: json!({"what": "x"}),
        label: Label::Owner,
        trigger: "api".into(),
        verified: None,
        parent: None,
        rerun: None,
        budget_micros: None,
    };
    let entry = steward::domain::plan::Entry {
        event: steward::domain::event::Event::RunOpened(opened),
        actor: "trigger:api".into(),
        label: Label::Owner,
    };
    let at = Timestamp::now() - SignedDuration::from_secs(60);
    let at = steward::store::journal::seal::whole_microseconds(at);
    let entry = seal(genesis(run), 0, at, vec![entry]).pop().unwrap();
    let open = steward::store::journal::Open {
        run,
        workflow: "test".into(),
        version: version.digest,
        title: "left behind".into(),
        trigger: "api".into(),
        key: "left".into(),
        node: Some(lost),
        queued: None,
        entry,
    };
    assert_eq!(journal.open(open).await.unwrap(), Opened::New(run));
    let rig = Rig::over(store, ten_steps(), Vec::new()).await;
    rig.becomes(run, "succeeded").await;
    rig.door.stop().await;
}

#[tokio::test]
async fn a_journal_that_was_tampered_with_is_found_out_and_cannot_be_rewritten_by_accident() {
    let rig = Rig::new(ten_steps(), Vec::new()).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "succeeded").await;
    let (client, connection) = rig.store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let refused = client.execute("update journal set actor = 'nobody' where seq = 3", &[]).await.unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().constraint(), Some("journal_append_only"));
    assert!(client.execute("delete from journal", &[]).await.is_err());
    client
        .batch_execute(
            "alter table journal disable trigger all; alter table journal_rest disable trigger all",
        )
        .await
        .unwrap();
    client.execute("update journal set data = '{\"step\": \"s1\"}' where seq = 3", &[]).await.unwrap();
    let broken = rig.store.verify_run(run).await.unwrap().unwrap();
    assert_eq!(broken.seq, 3);
    rig.door.stop().await;
}

#[tokio::test]
async fn a_run_whose_journal_cannot_be_read_is_parked_and_the_others_go_on() {
    let store = database().await;
    let rig = Rig::over(store.clone(), vec![call_out("pay", None)], Vec::new()).await;
    let poisoned = rig.open(None).await.run();
    rig.becomes(poisoned, "waiting").await;
    let (client, connection) = store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(
            "alter table journal disable trigger all; alter table journal_rest disable trigger all",
        )
        .await
        .unwrap();
    client
        .execute("update journal set data = '{}' where run_id = $1 and seq = 2", &[&poisoned.0])
        .await
        .unwrap();
    client
        .execute("update runs set wake_at = now(), crashes = 3 where id = $1", &[&poisoned.0])
        .await
        .unwrap();
    rig.door.wake(poisoned);
    eventually("the run being parked", || async { (rig.status(poisoned).await == "parked").then_some(()) })
        .await;
    let other = rig.open(None).await.run();
    rig.becomes(other, "waiting").await;
    rig.door.stop().await;
}

#[tokio::test]
async fn a_run_this_node_owns_but_lost_sight_of_is_found_and_moved_again() {
    let rig = Rig::new(ten_steps(), Vec::new()).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "succeeded").await;
    // Durable and owned, but never told to the supervisor: what a lost answer leaves behind.
    let version = rig.door.engine().current(&"test".into()).unwrap();
    let journal = Journal::start(rig.store.config()).await.unwrap();
    let orphan = RunId(uuid::Uuid::now_v7());
    let opened = steward::domain::event::Opened {
        workflow: "test".into(),
        version: version.digest,
        title: "orphan".into(),
        input: json!({"what": "x"}),
        label: Label::Owner,
        trigger: "api".into(),
        verified: None,
        parent: None,
        rerun: None,
        budget_micros: None,
    };
    let entry = steward::domain::plan::Entry {
        event: steward::domain::event::Event::RunOpened(opened),
        actor: "trigger:api".into(),
        label: Label::Owner,
    };
    let at = steward::store::journal::seal::whole_microseconds(Timestamp::now());
    let open = steward::store::journal::Open {
        run: orphan,
        workflow: "test".into(),
        version: version.digest,
        title: "orphan".into(),
        trigger: "api".into(),
        key: "orphan".into(),
        node: Some(rig.door.engine().node()),
        queued: None,
        entry: seal(genesis(orphan), 0, at, vec![entry]).pop().unwrap(),
    };
    journal.open(open).await.unwrap();
    rig.becomes(orphan, "succeeded").await;
    rig.door.stop().await;
}

#[tokio::test]
async fn connections_cut_in_the_middle_lose_nothing_and_repeat_nothing() {
    let paid = Scripted::new(Repeat::None, |_, _| EffectResult::Succeeded(json!({"ok": true})));
    let mut steps = ten_steps();
    steps.push(call_out("pay", Some("s9")));
    let rig = Arc::new(Rig::new(steps, vec![paid.clone()]).await.live().await);
    let (client, connection) = rig.store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let opens: Vec<_> = (0..60)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { rig.open(None).await.run() })
        })
        .collect();
    for _ in 0..10 {
        let cut = "select pg_terminate_backend(pid) from pg_stat_activity
                   where datname = current_database() and pid <> pg_backend_pid()";
        client.query(cut, &[]).await.unwrap();
        tokio::task::yield_now().await;
    }
    for run in opens {
        rig.becomes(run.await.unwrap(), "succeeded").await;
    }
    assert_eq!(paid.calls(), 60, "each effect once");
    rig.door.stop().await;
}

#[tokio::test]
async fn deciding_and_cancelling_at_once_never_wait_for_each_other() {
    let paid = Scripted::new(Repeat::None, |_, _| EffectResult::Succeeded(json!({})));
    let rig = Arc::new(Rig::new(vec![call_out("pay", None)], vec![paid.clone()]).await);
    let contests = (0..40).map(|_| {
        let rig = rig.clone();
        tokio::spawn(async move {
            let run = rig.open(None).await.run();
            rig.becomes(run, "waiting").await;
            let review = rig.store.reviews("open", Some(run), None, 1).await.unwrap().pop().unwrap();
            let decide = rig.store.decide(review.id, review.digest, &Verdict::Approved, "owner");
            let (decided, cancelled) = tokio::join!(decide, rig.store.request_cancel(run, "owner"));
            rig.door.wake(run);
            eventually("the run ending", || async {
                let status = rig.status(run).await;
                ["succeeded", "cancelled"].contains(&status.as_str()).then_some(())
            })
            .await;
            assert!(decided.is_ok() && cancelled.unwrap(), "one lock order: nobody is a deadlock's victim");
        })
    });
    for contest in futures_util::future::join_all(contests).await {
        contest.unwrap();
    }
    rig.door.stop().await;
}
