//! The checker of the invariants is itself checked: a good database passes, and each promise is shown
//! to be able to fail by breaking it by hand, in one way, in a database that was good.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use steward::domain::action::Repeat;
use steward::domain::event::{ErrorKind, Event, ModelCall, StepError, Verdict};
use steward::domain::ids::{EffectId, RunId};
use steward::domain::plan::EffectResult;
use steward::domain::workflow::{Step, StepKind, Undo, WaitStep};
use steward::store::Store;
use steward::store::audit::{Audit, Canary, Invariant, Observed, Received, Report};
use uuid::Uuid;

use crate::support::forge::{by_hand, place, rewrite};
use crate::support::rig::{Rig, Scripted, call_out, step};

/// Who receives the calls of `http.request` promises nothing about repetitions.
async fn check(store: &Store, change: impl FnOnce(&mut Audit<'_>)) -> Report {
    let observed = Observed::default();
    let mut audit = Audit {
        repeat: &|action| if action.action == "http.request" { Repeat::None } else { Repeat::Natural },
        secrets: &[],
        logs: &[],
        observed: &observed,
        patience: Duration::ZERO,
        progress: &|_| {},
    };
    change(&mut audit);
    store.audit(&audit).await.unwrap()
}

/// What does not hold, each named once.
async fn broken(store: &Store) -> Vec<Invariant> {
    named(&check(store, |_| {}).await)
}

fn named(report: &Report) -> Vec<Invariant> {
    let mut found: Vec<_> = report.violations.iter().map(|violation| violation.invariant).collect();
    found.sort_unstable();
    found.dedup();
    found
}

async fn observed(store: &Store, seen: Observed) -> Vec<Invariant> {
    let audit = Audit {
        repeat: &|_| Repeat::None,
        secrets: &[],
        logs: &[],
        observed: &seen,
        patience: Duration::ZERO,
        progress: &|_| {},
    };
    named(&store.audit(&audit).await.unwrap())
}

/// A run that called out twice with the owner's approval and ended; nobody moves it any more.
async fn good() -> (Rig, RunId) {
    let answers = Scripted::new(Repeat::None, |call, _| EffectResult::Succeeded(json!({"key": call.key})));
    let steps = vec![
        call_out("pay", None),
        step("note", Some("pay"), "noop", json!({"value": "{{ steps.pay.output.key }}"})),
        call_out("tell", Some("note")),
    ];
    let rig = Rig::new(steps, vec![answers]).await;
    let run = rig.open(Some("good")).await.run();
    rig.decide(run, Verdict::Approved).await;
    rig.decide(run, Verdict::Approved).await;
    rig.becomes(run, "succeeded").await;
    rig.door.stop().await;
    let report = check(&rig.store, |_| {}).await;
    assert!(report.holds(), "{report:#?}");
    assert_eq!((report.checked.runs, report.checked.effects, report.checked.reviews), (1, 2, 2));
    assert_eq!(report.checked.attempts, 2);
    (rig, run)
}

#[tokio::test]
async fn runs_that_wait_end_and_go_wrong_in_order_hold() {
    let answers = Scripted::new(Repeat::None, |_, n| match n {
        1 => EffectResult::Unknown("the line went dead".into()),
        2 => EffectResult::Failed(StepError::new(ErrorKind::Unavailable, "later")),
        _ => EffectResult::Succeeded(json!({"ok": true})),
    });
    let rig = Rig::new(vec![call_out("pay", None)], vec![answers]).await;
    let run = rig.open(None).await.run();
    let edit = json!({"method": "POST", "url": "https://api.example/other"});
    rig.decide(run, Verdict::Edited { params: edit }).await;
    rig.decide(run, Verdict::Answered { answer: json!("again") }).await;
    rig.becomes(run, "succeeded").await; // approved once, doubted once, failed once, done
    let (declined, cancelled, asleep) =
        (rig.open(None).await.run(), rig.open(None).await.run(), rig.open(None).await.run());
    rig.decide(declined, Verdict::Rejected { reason: "no".into() }).await;
    rig.becomes(declined, "declined").await;
    rig.becomes(cancelled, "waiting").await;
    assert!(rig.store.request_cancel(cancelled, "owner").await.unwrap());
    rig.door.wake(cancelled);
    rig.becomes(cancelled, "cancelled").await;
    rig.becomes(asleep, "waiting").await;
    let report = check(&rig.store, |_| {}).await;
    assert!(report.holds(), "{report:#?}");
    assert_eq!((report.checked.runs, report.checked.unfinished), (4, 1));
}

#[tokio::test]
async fn i1_an_acknowledged_run_that_is_not_there_is_noticed() {
    let (rig, run) = good().await;
    let lost = |acknowledged| Observed { acknowledged, ..Observed::default() };
    assert_eq!(observed(&rig.store, lost(vec![run])).await, []);
    assert_eq!(observed(&rig.store, lost(vec![run, RunId(Uuid::now_v7())])).await, [Invariant::I1]);
    by_hand(&rig.store, "delete from journal").await;
    assert_eq!(broken(&rig.store).await, [Invariant::I1]);
}

#[tokio::test]
async fn i2_a_run_that_nobody_owns_and_nothing_wakes_is_noticed() {
    let hour = StepError {
        retry_after: Some("1h".parse().unwrap()),
        ..StepError::new(ErrorKind::RateLimited, "later")
    };
    let answers = Scripted::new(Repeat::None, move |_, _| EffectResult::Failed(hour.clone()));
    let rig = Rig::new(vec![call_out("pay", None)], vec![answers]).await.live().await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "waiting").await;
    assert_eq!(broken(&rig.store).await, []);
    rig.door.stop().await;
    by_hand(&rig.store, "update runs set node = gen_random_uuid(), wake_at = null").await;
    assert_eq!(broken(&rig.store).await, [Invariant::I2], "its owner is dead");
    by_hand(&rig.store, "update runs set node = null").await;
    assert_eq!(broken(&rig.store).await, [Invariant::I2], "it sleeps for ever");
    let told = "insert into inbox (run_id, topic, data) select id, 'cancel', '{}' from runs;
        insert into reviews (id, run_id, step, ask, digest, title, question, opened_at)
            select gen_random_uuid(), id, 'pay', 'question', '\\x00', '', '{}', now() from runs";
    by_hand(&rig.store, told).await;
    let report = check(&rig.store, |_| {}).await;
    assert!(report.violations.iter().any(|v| v.what.contains("told `cancel`")), "{report:#?}");
}

#[tokio::test]
async fn i2_a_wait_that_nobody_knows_of_is_noticed() {
    let wait = WaitStep {
        event: Some("go".into()),
        matches: Some("{{ input.what }}".into()),
        span: Some("1h".parse().unwrap()),
        until: None,
    };
    let waits = Step { kind: StepKind::Wait(wait), ..step("answer", None, "noop", json!({})) };
    let rig = Rig::new(vec![waits], Vec::new()).await.live().await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "waiting").await;
    rig.door.stop().await;
    assert_eq!(broken(&rig.store).await, []);
    by_hand(&rig.store, "delete from waits").await;
    assert_eq!(broken(&rig.store).await, [Invariant::I2]);
}

#[tokio::test]
async fn i2_a_run_that_is_both_over_and_going_on_is_noticed() {
    for half in [
        "update runs set node = gen_random_uuid()",
        "update runs set wake_at = now()",
        "update runs set finished_at = null",
        "update runs set status = 'waiting'",
        "update runs set status = 'failed'",
        "insert into slots (run_id, workflow, flow_key) select id, workflow, 'k' from runs",
    ] {
        let (rig, _) = good().await;
        by_hand(&rig.store, half).await;
        assert_eq!(broken(&rig.store).await, [Invariant::I2], "{half}");
    }
}

#[tokio::test]
async fn i2_a_run_that_ended_in_the_middle_of_an_effect_is_noticed() {
    let (rig, run) = good().await;
    rewrite(&rig.store, run, |pages| {
        let started = place(pages, "effect.started");
        let end = pages.pop().unwrap();
        pages.truncate(started + 1);
        pages.push(end);
    })
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I2]);
}

#[tokio::test]
async fn i3_an_effect_repeated_without_the_owners_word_is_noticed() {
    let (rig, run) = good().await;
    rewrite(&rig.store, run, |pages| {
        let started = place(pages, "effect.started");
        let mut again = pages[started].clone();
        if let Event::EffectStarted { again, .. } = &mut again.event {
            *again = true;
        }
        pages.insert(started + 1, again);
    })
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I3]);
    let report = check(&rig.store, |audit| audit.repeat = &|_| Repeat::Natural).await;
    assert!(report.holds(), "what is harmless to repeat may be: {report:#?}");
}

#[tokio::test]
async fn i3_a_row_that_tells_another_story_than_the_journal_is_noticed() {
    for lie in [
        "update effects set status = 'failed' where step = 'pay'",
        "update effects set dedupe_key = 'another' where step = 'pay'",
        "update effects set response = '{}' where step = 'pay'",
        "delete from effects where step = 'pay'",
    ] {
        let (rig, _) = good().await;
        by_hand(&rig.store, lie).await;
        assert_eq!(broken(&rig.store).await, [Invariant::I3], "{lie}");
    }
}

#[tokio::test]
async fn i3_a_key_that_two_effects_hold_is_noticed() {
    let (rig, run) = good().await;
    by_hand(&rig.store, "drop index effects_dedupe_key; update effects set dedupe_key = 'k'").await;
    rewrite(&rig.store, run, |pages| {
        for page in pages {
            if let Event::EffectProposed(proposal) = &mut page.event {
                proposal.key = "k".into();
            }
        }
    })
    .await;
    // Within one run it is also the repetition of what is complete.
    assert_eq!(broken(&rig.store).await, [Invariant::I3, Invariant::I11]);
}

#[tokio::test]
async fn i3_what_a_receiver_saw_twice_or_never_is_noticed() {
    let (rig, run) = good().await;
    let seen =
        |step: &str, count| Received { action: "http.request".into(), key: format!("{run}/{step}"), count };
    let complete = vec!["http.request".to_owned()];
    let saw = |received| Observed { received, complete: complete.clone(), ..Observed::default() };
    assert_eq!(observed(&rig.store, saw(vec![seen("pay", 1), seen("tell", 1)])).await, []);
    assert_eq!(observed(&rig.store, saw(vec![seen("pay", 2), seen("tell", 1)])).await, [Invariant::I3]);
    assert_eq!(
        observed(&rig.store, saw(vec![seen("pay", 1)])).await,
        [Invariant::I3],
        "succeeded, never seen"
    );
    let stranger = saw(vec![seen("pay", 1), seen("tell", 1), seen("other", 1)]);
    assert_eq!(observed(&rig.store, stranger).await, [Invariant::I4], "seen, never started");
}

#[tokio::test]
async fn i4_an_effect_that_the_owner_did_not_approve_is_noticed() {
    let (rig, run) = good().await;
    rewrite(&rig.store, run, |pages| {
        let decided = place(pages, "review.decided");
        if let Event::ReviewDecided { verdict, .. } = &mut pages[decided].event {
            *verdict = Verdict::Rejected { reason: "no".into() };
        }
    })
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I4]);
}

#[tokio::test]
async fn i4_an_effect_that_is_not_what_was_approved_is_noticed() {
    let (rig, run) = good().await;
    rewrite(&rig.store, run, |pages| {
        let started = place(pages, "effect.started");
        if let Event::EffectStarted { action, digest, .. } = &mut pages[started].event {
            action.params["url"] = json!("https://elsewhere.example/");
            *digest = action.digest();
        }
    })
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I4]);
}

#[tokio::test]
async fn i4_one_approval_for_two_effects_is_noticed() {
    let (rig, run) = good().await;
    rewrite(&rig.store, run, |pages| {
        let kinds = ["effect.proposed", "effect.started", "effect.succeeded"];
        let (mut more, done) = (kinds.map(|kind| pages[place(pages, kind)].clone()), place(pages, kinds[2]));
        for page in &mut more {
            match &mut page.event {
                Event::EffectProposed(proposal) => {
                    (proposal.effect, proposal.key) = (EffectId(Uuid::nil()), "another".into());
                }
                Event::EffectStarted { effect, .. } | Event::EffectSucceeded { effect, .. } => {
                    *effect = EffectId(Uuid::nil());
                }
                _ => unreachable!(),
            }
        }
        pages.splice(done + 1..done + 1, more);
    })
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I4]);
}

#[tokio::test]
async fn i5_a_second_decision_is_noticed() {
    let (rig, run) = good().await;
    rewrite(&rig.store, run, |pages| {
        let decided = place(pages, "review.decided");
        pages.insert(decided, pages[decided].clone());
    })
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I5]);
}

#[tokio::test]
async fn i5_a_decision_that_the_run_did_not_hear_is_noticed() {
    for lie in [
        "update reviews set status = 'edited' where step = 'pay'",
        "update reviews set digest = '\\x00' where step = 'pay'",
        "update reviews set consumed_at = null where step = 'pay'",
        "delete from reviews where step = 'pay'",
    ] {
        let (rig, _) = good().await;
        by_hand(&rig.store, lie).await;
        assert_eq!(broken(&rig.store).await, [Invariant::I5], "{lie}");
    }
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "waiting").await;
    rig.door.stop().await;
    by_hand(
        &rig.store,
        "update reviews set status = 'approved', decided_at = now(); update runs set wake_at = now()",
    )
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I5], "its message is lost");
}

#[tokio::test]
async fn i6_a_row_and_a_journal_that_moved_apart_are_noticed() {
    let (rig, _) = good().await;
    by_hand(&rig.store, "update runs set seq = seq + 1").await;
    assert_eq!(broken(&rig.store).await, [Invariant::I6]);
}

#[tokio::test]
async fn i7_a_missing_number_and_a_skipped_attempt_are_noticed() {
    let (rig, run) = good().await;
    by_hand(&rig.store, "delete from journal where seq = 4").await;
    assert_eq!(broken(&rig.store).await, [Invariant::I7]);
    let (rig, other) = good().await;
    assert_ne!(run, other);
    rewrite(&rig.store, other, |pages| {
        let started = place(pages, "step.started");
        if let Event::StepStarted { attempt, .. } = &mut pages[started].event {
            *attempt = 2;
        }
    })
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I7]);
}

#[tokio::test]
async fn i7_a_journal_that_cannot_be_is_noticed() {
    let (rig, run) = good().await;
    rewrite(&rig.store, run, |pages| {
        let end = pages.pop().unwrap();
        let done = pages.pop().unwrap();
        pages.push(done.clone());
        pages.push(done); // the same step succeeds twice
        pages.push(end);
    })
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I7]);
}

#[tokio::test]
async fn i8_any_changed_word_is_noticed() {
    for lie in [
        "update journal set data = jsonb_set(data::jsonb, '{title}', '\"other\"')::json where seq = 1",
        "update journal set actor = 'owner' where seq = 2",
        "update journal set at = at + interval '1 second' where seq = 3",
        "update journal set hash = '\\x00' where seq = 3",
    ] {
        let (rig, _) = good().await;
        by_hand(&rig.store, lie).await;
        assert_eq!(broken(&rig.store).await, [Invariant::I8], "{lie}");
    }
}

#[tokio::test]
async fn i9_money_that_does_not_add_up_is_noticed() {
    let (rig, run) = good().await;
    rewrite(&rig.store, run, |pages| {
        let started = place(pages, "step.started");
        let mut called = pages[started].clone();
        called.event = Event::ModelCalled {
            step: "pay".into(),
            attempt: 1,
            call: ModelCall {
                model: "m".into(),
                outcome: "ok".into(),
                input_tokens: 1,
                output_tokens: 1,
                cost_micros: -5,
                millis: 1,
                ..ModelCall::default()
            },
        };
        pages.insert(started + 1, called);
    })
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I9]);
}

#[tokio::test]
async fn i10_what_a_failed_run_did_and_did_not_undo_is_noticed() {
    let answers = Scripted::new(Repeat::None, |call, _| match call.key.ends_with("/tell") {
        true => EffectResult::Failed(StepError::new(ErrorKind::Refused, "closed")),
        false => EffectResult::Succeeded(json!({})),
    });
    let back = json!({"method": "POST", "url": "https://api.example/back"});
    let undo = Some(Undo { action: "http.request".into(), with: back });
    let steps = vec![Step { undo, ..call_out("pay", None) }, call_out("tell", Some("pay"))];
    let rig = Rig::new(steps, vec![answers]).await.live().await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "failed").await;
    rig.door.stop().await;
    let report = check(&rig.store, |_| {}).await;
    assert!(report.holds(), "{report:#?}");
    rewrite(&rig.store, run, |pages| {
        pages.remove(place(pages, "effect.compensated"));
    })
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I10]);
}

#[tokio::test]
async fn i11_what_is_complete_and_is_done_again_is_noticed() {
    let (rig, run) = good().await;
    let key = format!("{run}/pay");
    rewrite(&rig.store, run, |pages| {
        for page in pages {
            if let Event::EffectProposed(proposal) = &mut page.event {
                proposal.key.clone_from(&key);
            }
        }
    })
    .await;
    assert_eq!(broken(&rig.store).await, [Invariant::I11]);
}

#[tokio::test]
async fn i12_a_secret_in_the_journal_or_a_log_is_noticed_and_not_repeated() {
    let (rig, _) = good().await;
    let secret = |value: &str| [Canary { name: "API_KEY".into(), value: value.into() }];
    let (leaked, kept) = (secret("everything"), secret("never-written"));
    let mut log = tempfile::NamedTempFile::new().unwrap();
    writeln!(log, "a line\nkey=never-written").unwrap();
    let logs = [log.path().to_owned()];
    for (secrets, logs, places) in [(&leaked, &[][..], "entry 1"), (&kept, &logs[..], "line 2")] {
        let seen = Observed::default();
        let audit = Audit {
            repeat: &|_| Repeat::None,
            secrets,
            logs,
            observed: &seen,
            patience: Duration::ZERO,
            progress: &|_| {},
        };
        let report = rig.store.audit(&audit).await.unwrap();
        assert_eq!(named(&report), [Invariant::I12]);
        assert!(report.violations.iter().any(|v| v.what.contains(places)), "{report:#?}");
        let told = serde_json::to_string(&report).unwrap();
        assert!(told.contains("API_KEY") && !told.contains(&secrets[0].value), "{told}");
    }
}
