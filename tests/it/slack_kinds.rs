//! Every kind of question has its own answers in Slack, and what asks nothing has none.

use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use steward::config::channels::Channels;
use steward::domain::action::Repeat;
use steward::domain::event::Verdict;
use steward::domain::notice::{NoticeKind, Severity};
use steward::domain::plan::EffectResult;
use steward::domain::risk::RiskClass;
use steward::domain::workflow::{ReviewStep, Step, StepKind};
use steward::reviews::channel::Channel;
use steward::reviews::courier::Courier;
use steward::reviews::digest::gather;
use steward::reviews::slack::Slack;
use steward::reviews::slack::interact::{Reply, handle};
use steward::reviews::slack::payload::Payload;
use steward::store::notices::News;

use crate::slack_blocks::look;
use crate::support::forge::by_hand;
use crate::support::rig::{Rig, Scripted, call_out};
use crate::support::slack::person::{button, click, submit};
use crate::support::slack::{BOT_TOKEN, CHANNEL, Fake, OWNER};

/// A courier that tells the owner over this Slack, at once and again after an hour.
pub fn tells(rig: &Rig, fake: &Fake, target: &str, folder: &Path) -> (Courier, Arc<Slack>) {
    let token = folder.join("bot");
    std::fs::write(&token, BOT_TOKEN).unwrap();
    let channels: Channels = serde_json::from_value(json!({
        "slack": {
            "token": format!("file:{}", token.display()), "channel": target, "owner": OWNER, "api": fake.api(),
        },
        "ladder": {"medium": {"rungs": [
            {"after": "0s", "channels": ["slack"]}, {"after": "1h", "channels": ["slack"]},
        ]}},
    }))
    .unwrap();
    let config = channels.slack.clone().unwrap();
    let slack = Slack::new(rig.door.clone(), &config, look(), "EUR".into()).unwrap();
    let ways = vec![slack.clone() as Arc<dyn Channel>];
    (Courier::start(rig.door.engine().clone(), channels, TimeZone::UTC, ways), slack)
}

async fn clicks(slack: &Arc<Slack>, fake: &Fake, message: &Value, action: &str) {
    let payload = Payload::of_value(&click(fake, message, action, OWNER)).unwrap();
    assert_eq!(handle(slack, payload).await, Reply::Done);
}

#[tokio::test]
async fn an_effect_in_doubt_is_answered_with_one_of_its_three_buttons() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let doubtful = Scripted::new(Repeat::None, |_, n| match n {
        1 => EffectResult::Unknown("the line went dead".into()),
        _ => EffectResult::Succeeded(json!({"status": 200})),
    });
    let rig = Rig::new(vec![call_out("pay", None)], vec![doubtful.clone()]).await;
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let (courier, slack) = tells(&rig, &fake, CHANNEL, folder.path());
    let run = rig.open(None).await.run();
    let message = fake.message("the approval", |it| button(it, "approve").is_some()).await;
    clicks(&slack, &fake, &message, "approve").await;
    let message = fake.message("the doubt", |it| button(it, "answer.0").is_some()).await;
    let texts =
        ["answer.0", "answer.1", "answer.2"].map(|it| button(&message, it).unwrap()["text"]["text"].clone());
    assert_eq!(texts, ["happened", "again", "give up"]);
    assert!(button(&message, "approve").is_none() && button(&message, "reject").is_none());
    clicks(&slack, &fake, &message, "answer.0").await;
    rig.becomes(run, "succeeded").await;
    assert_eq!(doubtful.calls(), 1);
    fake.says(&message, "Answered by owner via slack: happened").await;
    courier.stop().await;
}

#[tokio::test]
async fn a_form_of_simple_fields_is_answered_in_a_modal_and_held_against_its_schema() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let form = json!({"type": "object", "required": ["fit", "why"], "properties": {
        "fit": {"type": "number", "maximum": 1}, "why": {"type": "string"},
        "size": {"enum": ["small", "large"]}, "tags": {"type": "array"}}});
    let asks = ReviewStep { ask: "How good is it?".into(), form: Some(form), shows: Default::default() };
    let step = Step { kind: StepKind::Review(asks), ..call_out("judge", None) };
    let rig = Rig::new(vec![step], Vec::new()).await;
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let (courier, slack) = tells(&rig, &fake, CHANNEL, folder.path());
    let run = rig.open(None).await.run();
    let message = fake.message("the question", |it| button(it, "answer").is_some()).await;
    clicks(&slack, &fake, &message, "answer").await;
    let view = fake.view(1).await;
    // In the order of their names: fit, size, why.
    let submitted = |given: &[Option<&str>]| Payload::of_value(&submit(&view, given, OWNER)).unwrap();
    for bad in [[Some("much"), None, None], [Some("7"), None, Some("x")], [Some("1"), Some("2"), None]] {
        let Reply::View(answer) = handle(&slack, submitted(&bad)).await else { panic!("{bad:?}") };
        assert_eq!(answer["response_action"], "errors", "{bad:?}");
    }
    let good = submitted(&[Some("0.5"), Some("1"), Some("a <b> shop")]);
    assert_eq!(handle(&slack, good).await, Reply::Done);
    rig.becomes(run, "succeeded").await;
    let reviews = rig.store.reviews("answered", Some(run), None, 1).await.unwrap();
    let answer = json!({"fit": 0.5, "size": "large", "why": "a <b> shop"});
    assert_eq!(reviews[0].verdict, Some(Verdict::Answered { answer }));
    courier.stop().await;
}

#[tokio::test]
async fn a_reminder_stands_in_the_thread_of_the_question_and_both_are_locked() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    // Messages to the owner alone go to his own conversation with the app.
    let (courier, _) = tells(&rig, &fake, OWNER, folder.path());
    let run = rig.open(None).await.run();
    let first = fake.message("the question", |it| it["thread_ts"].is_null()).await;
    assert_eq!(first["channel"], format!("D{OWNER}"));
    let hour =
        "update reviews set opened_at = opened_at - interval '1 hour', tell_at = tell_at - interval '1 hour'";
    by_hand(&rig.store, hour).await;
    let second = fake.message("the reminder", |it| it["thread_ts"] == first["ts"]).await;
    assert_eq!(second["reply_broadcast"], true);
    assert!(button(&second, "reject").is_some());
    rig.decide(run, Verdict::Rejected { reason: "no".into() }).await;
    for message in [&first, &second] {
        fake.says(message, "Rejected by owner: no").await;
    }
    courier.stop().await;
}

#[tokio::test]
async fn the_digest_has_what_waits_what_left_the_house_yesterday_its_cost_and_what_to_know() {
    let sound = Scripted::new(Repeat::None, |_, _| EffectResult::Succeeded(json!({"status": 200})));
    let rig = Rig::new(vec![call_out("pay", None)], vec![sound]).await;
    let zone = TimeZone::get("Europe/Oslo").unwrap();
    let today = Timestamp::now().to_zoned(zone.clone()).date();
    let midnight = today.to_zoned(zone.clone()).unwrap().timestamp();
    for at in [midnight - 1.microsecond(), midnight, midnight - 25.hours()] {
        let run = rig.open(None).await.run();
        rig.decide(run, Verdict::Approved).await;
        rig.becomes(run, "succeeded").await;
        by_hand(&rig.store, &format!("update effects set ended_at = '{at}' where run_id = '{run}'")).await;
    }
    // What hangs most on comes first, however late it was asked.
    for class in ["low", "high"] {
        let waits = rig.open(None).await.run();
        rig.becomes(waits, "waiting").await;
        let set = format!("jsonb_set(question, '{{risk,class}}', '\"{class}\"')");
        by_hand(&rig.store, &format!("update reviews set question = {set} where run_id = '{waits}'")).await;
    }
    let cost = |day, cents: i64| {
        format!(
            "insert into spend_entries (id, attempt, model, accounts, day, reserved_micros, settled_micros, status,
                 expires_at) values (gen_random_uuid(), 1, 'm', '{{}}', '{day}', 0, {}, 'settled', now());",
            cents * 10_000
        )
    };
    let yesterday = today.yesterday().unwrap();
    by_hand(&rig.store, &(cost(yesterday, 12) + &cost(yesterday, 30) + &cost(today, 500))).await;
    let news = News {
        kind: NoticeKind::BudgetThreshold,
        subject: "month",
        severity: Severity::Info,
        title: "Half is spent",
        detail: "",
        run: None,
    };
    rig.store.notice(&news).await.unwrap();
    let day = gather(&rig.store, today, &zone, "EUR").await.unwrap();
    assert_eq!((day.of, day.waiting_total, day.waiting.len()), (yesterday, 2, 2));
    assert_eq!(day.waiting[0].risk, RiskClass::High);
    let sent: Vec<_> = day.went_out.iter().map(|it| (it.action.as_str(), it.target.as_str())).collect();
    assert_eq!(sent, [("http.request", "https://api.example/pay")]);
    assert_eq!(day.went_out_total[0].number, 1);
    assert_eq!((day.spend.yesterday.to_string(), day.spend.calls), ("0.42 EUR".into(), 2));
    assert_eq!(day.notices.iter().map(|it| it.title.as_str()).collect::<Vec<_>>(), ["Half is spent"]);
}
