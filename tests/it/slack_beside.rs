//! What may be done in Slack beside deciding: a question is left alone, commented on, given back to its agent,
//! by whom the owner named, once, and about what was shown.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use steward::reviews::slack::Slack;
use steward::reviews::slack::interact::{Reply, handle};
use steward::reviews::slack::payload::Payload;

use crate::slack::{APPROVER, STRANGER, review, run, waiting};
use crate::slack_kinds::tells;
use crate::support::forge::by_hand;
use crate::support::rig::{Rig, call_out};
use crate::support::slack::person::{button, choose, pick, press, submit, tell};
use crate::support::slack::{CHANNEL, Fake, OWNER};
use crate::support::{App, eventually};

async fn comments(app: &App, asked: &Value) -> Vec<Value> {
    review(app, asked).await["comments"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_question_is_left_alone_for_as_long_as_was_chosen_however_often_that_arrives() {
    let (app, fake, asked, message) = waiting(false).await;
    tell(&app.url, &choose(&fake, &message, "snooze", APPROVER)).await;
    let view = fake.view(1).await;
    let options = view["blocks"][0]["element"]["options"].as_array().unwrap();
    let words: Vec<&str> = options.iter().map(|option| option["value"].as_str().unwrap()).collect();
    assert_eq!(words, ["hour", "morning", "days"]);
    // Who may not decide may not put it off either, and what is not offered is nothing.
    let answer = tell(&app.url, &submit(&view, &[Some("days")], STRANGER)).await;
    assert!(answer["view"].to_string().contains("You may not decide"), "{answer}");
    for strange in [Some("years"), None] {
        let answer = tell(&app.url, &submit(&view, &[strange], OWNER)).await;
        assert_eq!(answer["response_action"], "errors", "{strange:?}");
    }
    assert_eq!(review(&app, &asked).await["snoozed_until"], Value::Null);
    let chosen = submit(&view, &[Some("days")], APPROVER);
    let answer = tell(&app.url, &chosen).await;
    assert_eq!(answer["response_action"], "update");
    assert!(answer["view"].to_string().contains("You hear of it again on"), "{answer}");
    let until = review(&app, &asked).await["snoozed_until"].clone();
    let moment: Timestamp = until.as_str().unwrap().parse().unwrap();
    let ahead = moment.duration_since(Timestamp::now());
    assert!((71..=72).contains(&ahead.as_hours()), "{ahead}");
    assert_eq!(tell(&app.url, &chosen).await, answer, "the same again is the same");
    assert_eq!(review(&app, &asked).await["snoozed_until"], until);
    // It can be decided all the same; and then there is nothing to put off.
    tell(&app.url, &press(&fake, &message, "approve", &button(&message, "approve").unwrap()["value"], OWNER))
        .await;
    let answer = tell(&app.url, &chosen).await;
    assert!(answer["view"].to_string().contains("Approved by owner via slack"), "{answer}");
    fake.says(&message, "Approved by owner via slack").await;
    tell(&app.url, &choose(&fake, &message, "snooze", OWNER)).await;
    assert!(fake.whisper(1).await["text"].as_str().unwrap().starts_with("Approved by owner via slack"));
    assert_eq!(fake.seen().views.len(), 1, "what is over is not put off");
    app.assert_chains_hold().await;
}

#[tokio::test]
async fn what_expires_soon_is_not_put_off_beyond_that() {
    let (app, fake, asked, message) = waiting(false).await;
    let id = asked["id"].as_str().unwrap();
    let due = |minutes: i64| {
        format!("update reviews set due_at = '{}' where id = '{id}'", Timestamp::now() + minutes.minutes())
    };
    by_hand(&app.store, &due(90)).await;
    tell(&app.url, &choose(&fake, &message, "snooze", OWNER)).await;
    let view = fake.view(1).await;
    let options = view["blocks"][0]["element"]["options"].as_array().unwrap();
    assert!(options.iter().all(|option| option["value"] != "days"), "{options:?}");
    // The form was made when there was more time: what would outlast the deadline is told at its input.
    let answer = tell(&app.url, &submit(&view, &[Some("days")], OWNER)).await;
    assert_eq!(answer["response_action"], "errors");
    assert!(answer["errors"].to_string().contains("it expires at"), "{answer}");
    by_hand(&app.store, &due(10)).await;
    tell(&app.url, &choose(&fake, &message, "snooze", OWNER)).await;
    assert!(fake.whisper(1).await["text"].as_str().unwrap().contains("expires too soon"));
    assert_eq!(review(&app, &asked).await["snoozed_until"], Value::Null);
}

#[tokio::test]
async fn a_comment_is_kept_once_for_each_time_it_was_made_and_decides_nothing() {
    let (app, fake, asked, message) = waiting(false).await;
    tell(&app.url, &choose(&fake, &message, "comment", STRANGER)).await;
    assert_eq!(fake.whisper(1).await["user"], STRANGER);
    assert_eq!(fake.seen().views, Vec::<Value>::new());
    tell(&app.url, &choose(&fake, &message, "comment", OWNER)).await;
    let view = fake.view(1).await;
    let answer = tell(&app.url, &submit(&view, &[Some("mine")], STRANGER)).await;
    assert!(answer["view"].to_string().contains("You may not decide"), "{answer}");
    for nothing in [Some(" \n "), None] {
        let answer = tell(&app.url, &submit(&view, &[nothing], OWNER)).await;
        assert_eq!(answer["response_action"], "errors", "{nothing:?}");
    }
    assert_eq!(comments(&app, &asked).await, Vec::<Value>::new());
    let said = submit(&view, &[Some("ask <!channel> & Ann\nfirst ")], OWNER);
    for _ in 0..3 {
        assert_eq!(tell(&app.url, &said).await["response_action"], "update");
    }
    let kept = comments(&app, &asked).await;
    let texts = |kept: &[Value]| -> Vec<(String, String)> {
        let text = |it: &Value, name: &str| it[name].as_str().unwrap().to_owned();
        kept.iter().map(|it| (text(it, "by"), text(it, "text"))).collect()
    };
    let mine = ("owner via slack".to_owned(), "ask <!channel> & Ann\nfirst".to_owned());
    assert_eq!(texts(&kept), std::slice::from_ref(&mine));
    // The same words, said once more, are another comment.
    tell(&app.url, &choose(&fake, &message, "comment", OWNER)).await;
    let view = fake.view(2).await;
    tell(&app.url, &submit(&view, &[Some("ask <!channel> & Ann\nfirst")], OWNER)).await;
    assert_eq!(texts(&comments(&app, &asked).await), [mine.clone(), mine]);
    assert_eq!(review(&app, &asked).await["status"], "open");
}

#[tokio::test]
async fn a_draft_is_given_back_to_its_agent_once_and_the_message_says_so() {
    let (app, fake, asked, message) = waiting(false).await;
    tell(&app.url, &choose(&fake, &message, "respond", APPROVER)).await;
    let view = fake.view(1).await;
    let answer = tell(&app.url, &submit(&view, &[Some("warmer")], STRANGER)).await;
    assert!(answer["view"].to_string().contains("You may not decide"), "{answer}");
    let answer = tell(&app.url, &submit(&view, &[Some(" ")], APPROVER)).await;
    assert_eq!(answer["response_action"], "errors");
    assert_eq!(review(&app, &asked).await["status"], "open");
    let words = submit(&view, &[Some("warmer, {{ please }} <@U1>")], APPROVER);
    for _ in 0..2 {
        assert_eq!(tell(&app.url, &words).await, Value::Null, "the same again is nobody's business");
    }
    let decided = review(&app, &asked).await;
    assert_eq!(decided["verdict"], json!({"verdict": "responded", "words": "warmer, {{ please }} <@U1>"}));
    assert_eq!(decided["decided_by"], format!("{APPROVER} via slack"));
    let locked = fake.says(&message, "Given back for another draft by").await;
    assert!(button(&locked, "more").is_none() && button(&locked, "approve").is_none());
    let another = eventually("what follows", || async {
        let open = app.get(&format!("/api/v1/reviews?run={}", run(&asked))).await;
        open["reviews"].as_array()?.iter().find(|it| it["id"] != asked["id"]).cloned()
    })
    .await;
    assert_eq!(another["status"], "open");
    // Other words come too late.
    let answer = tell(&app.url, &submit(&view, &[Some("colder")], OWNER)).await;
    assert!(answer["view"].to_string().contains("Given back for another draft"), "{answer}");
    app.assert_chains_hold().await;
}

#[tokio::test]
async fn where_no_agent_wrote_it_the_menu_says_so() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let (courier, slack) = tells(&rig, &fake, CHANNEL, folder.path());
    let _ = rig.open(None).await.run();
    let message = fake.message("the approval", |it| button(it, "approve").is_some()).await;
    let chosen = |payload: Value, slack: &Arc<Slack>| {
        let slack = slack.clone();
        async move { handle(&slack, Payload::of_value(&payload).unwrap()).await }
    };
    assert_eq!(chosen(choose(&fake, &message, "respond", OWNER), &slack).await, Reply::Done);
    assert!(fake.whisper(1).await["text"].as_str().unwrap().contains("no agent made this"));
    assert_eq!(fake.seen().views, Vec::<Value>::new());
    courier.stop().await;
}

#[tokio::test]
async fn a_menu_of_the_past_of_another_review_or_of_nobodys_opens_nothing() {
    let (app, fake, asked, message) = waiting(false).await;
    let (id, digest) = (asked["id"].as_str().unwrap(), asked["digest"].as_str().unwrap());
    let stale = format!("{id} {}", "0".repeat(64));
    let values = [
        format!("comment {stale}"),
        format!("snooze {stale}"),
        format!("respond {stale}"),
        // A menu never decides, whatever its option says.
        format!("approve {id} {digest}"),
        format!("reject {id} {digest}"),
        format!("{id} {digest}"),
        "comment".into(),
        String::new(),
    ];
    for (n, value) in values.iter().enumerate() {
        let option = json!({"text": {"type": "plain_text", "text": "x"}, "value": value});
        tell(&app.url, &pick(&fake, &message, &option, OWNER)).await;
        fake.whisper(n + 1).await;
    }
    assert_eq!(fake.seen().views, Vec::<Value>::new());
    // A modal that was opened about something else than what is asked now says nothing to it.
    tell(&app.url, &choose(&fake, &message, "comment", OWNER)).await;
    let mut view = fake.view(1).await;
    view["private_metadata"] = json!(stale);
    for callback in ["comment", "respond", "snooze.1790000000"] {
        view["callback_id"] = json!(callback);
        let answer = tell(&app.url, &submit(&view, &[Some("x")], OWNER)).await;
        assert!(answer["view"].to_string().contains("something else than what is asked now"), "{answer}");
    }
    // A moment that has passed is told at the input.
    view["private_metadata"] = json!(format!("{id} {digest}"));
    for callback in ["snooze.1790000000", "snooze.x", "snooze", "snooze.9999999999999999"] {
        view["callback_id"] = json!(callback);
        let answer = tell(&app.url, &submit(&view, &[Some("hour")], OWNER)).await;
        assert_eq!(answer["response_action"], "errors", "{callback}: {answer}");
    }
    let now = review(&app, &asked).await;
    assert_eq!((&now["status"], &now["snoozed_until"]), (&json!("open"), &Value::Null));
    assert_eq!(now["comments"], json!([]));
}
