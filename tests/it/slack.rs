//! The owner decides in Slack: once, himself or whom he named, about exactly what he saw; and the message
//! says how it ended.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::support::forge::by_hand;
use crate::support::slack::person::{button, click, form, press, send, submit, tell};
use crate::support::slack::{APP_TOKEN, BOT_TOKEN, CHANNEL, Fake, Fault, OWNER, SIGNING_SECRET, sdk};
use crate::support::{App, app_with, eventually, example_email};

pub const APPROVER: &str = "U0000000002";
pub const STRANGER: &str = "U0000000009";

/// A workspace whose owner uses this Slack.
fn uses(fake: &Arc<Fake>, socket: bool) -> impl FnOnce(&Path) + use<> {
    let api = fake.api();
    move |workspace: &Path| {
        let secret = |name: &str, value: &str| {
            let path = workspace.join(name);
            std::fs::write(&path, value).unwrap();
            format!("file:{}", path.display())
        };
        let (token, signing) = (secret("bot", BOT_TOKEN), secret("signing", SIGNING_SECRET));
        let app = match socket {
            true => format!("  app_token: {}\n", secret("app", APP_TOKEN)),
            false => String::new(),
        };
        let yaml = format!(
            "public_url: https://steward.example\nslack:\n  token: {token}\n  channel: {CHANNEL}\n  owner: {OWNER}\n  \
             approvers: [{APPROVER}]\n  signing_secret: {signing}\n  api: {api}\n{app}"
        );
        std::fs::write(workspace.join("config/channels.yaml"), yaml).unwrap();
    }
}

/// A service with a lead whose answer waits: the service, Slack, the review and its message.
pub async fn waiting(socket: bool) -> (App, Arc<Fake>, Value, Value) {
    let fake = Fake::start().await;
    let app = app_with(uses(&fake, socket)).await;
    let run = app.deliver(example_email("01-lead-bakery.eml")).await;
    let review = app.open_review(&run).await;
    let message = fake.ask(&review).await;
    (app, fake, review, message)
}

pub async fn review(app: &App, review: &Value) -> Value {
    app.get(&format!("/api/v1/reviews/{}", review["id"].as_str().unwrap())).await
}

pub fn run(review: &Value) -> &str {
    review["run"].as_str().unwrap()
}

/// The parameters with which the mail went out.
async fn sent(app: &App, review: &Value) -> Value {
    app.run_that_is(run(review), &["succeeded"]).await;
    let shown = app.get(&format!("/api/v1/runs/{}", run(review))).await;
    let effects = shown["effects"].as_array().unwrap();
    let mails: Vec<&Value> = effects.iter().filter(|effect| effect["action"] == "email.send").collect();
    assert_eq!(mails.len(), 1);
    mails[0].clone()
}

#[tokio::test]
async fn a_click_approves_once_however_often_it_arrives_and_the_message_is_locked() {
    let (app, fake, asked, message) = waiting(false).await;
    for name in ["unfurl_links", "unfurl_media", "link_names", "mrkdwn"] {
        assert_eq!(message[name], false, "{name}");
    }
    let payload = click(&fake, &message, "approve", OWNER);
    assert_eq!(tell(&app.url, &payload).await, Value::Null);
    // It was durable before Slack was answered.
    let decided = review(&app, &asked).await;
    assert_eq!(
        (decided["status"].as_str(), decided["decided_by"].as_str()),
        (Some("approved"), Some("owner via slack"))
    );
    for _ in 0..3 {
        assert_eq!(tell(&app.url, &payload).await, Value::Null);
    }
    let effect = sent(&app, &asked).await;
    assert_eq!(effect["digest"], asked["digest"]);
    let locked = fake.says(&message, "Approved by owner via slack").await;
    assert!(button(&locked, "approve").is_none() && button(&locked, "reject").is_none());
    assert_eq!(fake.seen().whispers, Vec::<Value>::new(), "the same click again is nobody's business");
    app.assert_chains_hold().await;
}

#[tokio::test]
async fn of_two_who_decide_one_wins_and_the_other_is_told_who() {
    let (app, fake, asked, message) = waiting(false).await;
    let (one, two) = (click(&fake, &message, "approve", OWNER), click(&fake, &message, "approve", APPROVER));
    tokio::join!(tell(&app.url, &one), tell(&app.url, &two));
    let decided = review(&app, &asked).await;
    let by = decided["decided_by"].as_str().unwrap();
    let loser = if by == "owner via slack" { APPROVER } else { OWNER };
    let whisper = fake.whisper(1).await;
    assert_eq!(whisper["user"], loser);
    assert!(whisper["text"].as_str().unwrap().starts_with(&format!("Approved by {by}")), "{whisper}");
    sent(&app, &asked).await;
    assert_eq!(fake.seen().whispers.len(), 1);
}

#[tokio::test]
async fn an_edit_is_made_in_a_modal_and_exactly_it_goes_out() {
    let (app, fake, asked, message) = waiting(false).await;
    tell(&app.url, &click(&fake, &message, "edit", OWNER)).await;
    let view = fake.view(1).await;
    let inputs: Vec<&Value> =
        view["blocks"].as_array().unwrap().iter().filter(|it| it["type"] == "input").collect();
    let params = &asked["question"]["action"]["params"];
    let mut given: Vec<String> =
        inputs.iter().map(|it| it["element"]["initial_value"].as_str().unwrap().to_owned()).collect();
    let names: Vec<&str> = inputs.iter().map(|it| it["label"]["text"].as_str().unwrap()).collect();
    let body = names.iter().position(|name| *name == "body").unwrap();
    assert_eq!(params["body"], given[body].as_str());
    let texts = |given: &[String]| given.iter().map(|it| Some(it.clone())).collect::<Vec<_>>();
    let submitted = |given: &[String], user: &str| {
        let given = texts(given);
        submit(&view, &given.iter().map(Option::as_deref).collect::<Vec<_>>(), user)
    };
    // As it is, it is no edit; and whoever may not decide may not submit what somebody else opened.
    let answer = tell(&app.url, &submitted(&given, OWNER)).await;
    assert_eq!(answer["response_action"], "errors");
    given[body] = "Dear <b>baker</b> & co,\n\nThursday?".into();
    let answer = tell(&app.url, &submitted(&given, STRANGER)).await;
    assert!(answer["view"].to_string().contains("You may not decide"), "{answer}");
    assert_eq!(review(&app, &asked).await["status"], "open");
    assert_eq!(tell(&app.url, &submitted(&given, OWNER)).await, Value::Null);
    let effect = sent(&app, &asked).await;
    assert_eq!(effect["request"]["body"], "Dear <b>baker</b> & co,\n\nThursday?");
    assert_eq!(effect["request"]["to"], params["to"]);
    fake.says(&message, "Approved with changes by owner via slack").await;
    // The same again is nobody's business; another one, by whomever, decides nothing more and is told.
    assert_eq!(tell(&app.url, &submitted(&given, OWNER)).await, Value::Null);
    given[body] = "Another".into();
    for user in [OWNER, APPROVER] {
        let answer = tell(&app.url, &submitted(&given, user)).await;
        assert!(answer["view"].to_string().contains("Approved with changes by owner via slack"), "{answer}");
    }
}

#[tokio::test]
async fn a_no_has_its_reason_from_a_modal() {
    let (app, fake, asked, message) = waiting(false).await;
    tell(&app.url, &click(&fake, &message, "reject", APPROVER)).await;
    let view = fake.view(1).await;
    tell(&app.url, &submit(&view, &[Some("too <!channel> cheap")], APPROVER)).await;
    let decided = review(&app, &asked).await;
    assert_eq!(decided["verdict"], json!({"verdict": "rejected", "reason": "too <!channel> cheap"}));
    assert_eq!(decided["decided_by"], format!("{APPROVER} via slack"));
    let locked = fake.says(&message, "too <!channel> cheap").await;
    assert!(locked["text"].as_str().unwrap().contains("too &lt;!channel&gt; cheap"));
    app.run_that_is(run(&asked), &["declined"]).await;
}

#[tokio::test]
async fn strangers_forgeries_and_things_of_the_past_decide_nothing() {
    let (app, fake, asked, message) = waiting(false).await;
    let other = app.deliver(example_email("02-lead-ceramics-shop.eml")).await;
    let other = app.open_review(&other).await;
    let now = || Timestamp::now().as_second();
    let good = form(&click(&fake, &message, "approve", OWNER));
    // Unsigned, signed with another secret, over other bytes, too old, from the future.
    let bare = app.client.post(format!("{}/hooks/slack", app.url)).body(good.clone()).send().await.unwrap();
    assert_eq!(bare.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(send(&app.url, good.clone(), "another secret", now()).await.0, StatusCode::UNAUTHORIZED);
    for at in [now() - 301, now() + 302, 0] {
        assert_eq!(
            send(&app.url, good.clone(), SIGNING_SECRET, at).await.0,
            StatusCode::UNAUTHORIZED,
            "{at}"
        );
    }
    // What Slack signs and Steward cannot read is refused whole.
    for body in ["", "payload=", "payload=%7B%7D&payload=%7B%7D", "payload=%5B%5D", "other=1"] {
        let status = send(&app.url, body.into(), SIGNING_SECRET, now()).await.0;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
    // Somebody whom nobody named.
    tell(&app.url, &click(&fake, &message, "approve", STRANGER)).await;
    let whisper = fake.whisper(1).await;
    assert_eq!(whisper["user"], STRANGER);
    assert!(whisper["text"].as_str().unwrap().contains("You may not decide"));
    // One review's button with another one's digest, a digest of the past, and nonsense.
    let id = |review: &Value| review["id"].as_str().unwrap().to_owned();
    let crossed = format!("{} {}", id(&asked), other["digest"].as_str().unwrap());
    let stale = format!("{} {}", id(&asked), "0".repeat(64));
    let nobody = format!("{} {}", uuid::Uuid::now_v7(), asked["digest"].as_str().unwrap());
    for (n, value) in
        [crossed, stale, nobody, id(&asked), "'; drop table reviews".into(), String::new()].iter().enumerate()
    {
        for action in ["approve", "answer.0"] {
            tell(&app.url, &press(&fake, &message, action, &json!(value), OWNER)).await;
        }
        fake.whisper(2 * n + 3).await;
    }
    tell(
        &app.url,
        &press(&fake, &message, "answer.0", &button(&message, "approve").unwrap()["value"], OWNER),
    )
    .await;
    tell(&app.url, &press(&fake, &message, "obey", &button(&message, "approve").unwrap()["value"], OWNER))
        .await;
    // What Steward offers nobody is taken and left.
    assert_eq!(tell(&app.url, &json!({"type": "message_action", "user": {"id": OWNER}})).await, Value::Null);
    for review_ in [&asked, &other] {
        assert_eq!(review(&app, review_).await["status"], "open");
    }
    assert!(
        !app.get(&format!("/api/v1/runs/{}", run(&asked))).await["effects"]
            .to_string()
            .contains("\"started\"")
    );
    // The message still asks what is asked.
    assert!(button(&fake.now(&message), "approve").is_some());
}

#[tokio::test]
async fn what_is_decided_elsewhere_is_said_in_slack_and_a_late_click_is_told() {
    let (app, fake, asked, message) = waiting(false).await;
    let late = click(&fake, &message, "approve", OWNER);
    let edit = click(&fake, &message, "edit", OWNER);
    let path = format!("/api/v1/reviews/{}/decision", asked["id"].as_str().unwrap());
    app.post(&path, json!({"verdict": "rejected", "reason": "not now"})).await;
    fake.says(&message, "Rejected by owner via api: not now").await;
    tell(&app.url, &late).await;
    assert!(
        fake.whisper(1).await["text"].as_str().unwrap().starts_with("Rejected by owner via api: not now")
    );
    tell(&app.url, &edit).await;
    fake.whisper(2).await;
    assert_eq!(fake.seen().views, Vec::<Value>::new());
}

#[tokio::test]
async fn what_got_through_although_nobody_heard_is_found_and_not_sent_again() {
    let fake = Fake::start().await;
    fake.fails("chat.postMessage", Fault::Lost);
    let app = app_with(uses(&fake, false)).await;
    let run = app.deliver(example_email("01-lead-bakery.eml")).await;
    let asked = app.open_review(&run).await;
    let message = fake.ask(&asked).await;
    eventually("the second try", || async {
        by_hand(&app.store, "update messages_out set due_at = now() where status = 'due'").await;
        fake.seen().calls.contains(&"conversations.history".to_owned()).then_some(())
    })
    .await;
    tell(&app.url, &click(&fake, &message, "approve", OWNER)).await;
    fake.says(&message, "Approved by owner via slack").await;
    assert_eq!(fake.seen().messages.len(), 1);
}

#[tokio::test]
async fn slack_is_left_alone_as_long_as_it_asks_to_be() {
    let fake = Fake::start().await;
    fake.fails("chat.postMessage", Fault::Busy(3600));
    let app = app_with(uses(&fake, false)).await;
    app.deliver(example_email("01-lead-bakery.eml")).await;
    eventually("a second try within the pause", || async {
        by_hand(
            &app.store,
            "update messages_out set due_at = now() where status = 'due' and error is not null",
        )
        .await;
        let (client, connection) = app.store.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let row =
            client.query_opt("select error from messages_out where attempts >= 2", &[]).await.unwrap()?;
        row.get::<_, Option<String>>(0).filter(|error| error.contains("pause of 3"))
    })
    .await;
    let calls = fake.seen().calls.iter().filter(|it| *it == "chat.postMessage").count();
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn what_slack_finds_too_long_is_said_in_few_words_that_cannot_approve() {
    let fake = Fake::start().await;
    fake.fails("chat.postMessage", Fault::Says("msg_blocks_too_long"));
    let app = app_with(uses(&fake, false)).await;
    let run = app.deliver(example_email("01-lead-bakery.eml")).await;
    let message = fake.ask(&app.open_review(&run).await).await;
    assert!(button(&message, "approve").is_none() && button(&message, "edit").is_none());
    assert!(button(&message, "reject").is_some() && button(&message, "open").is_some());
}

#[tokio::test]
async fn a_key_that_slack_refuses_is_something_the_owner_should_know() {
    let fake = Fake::start().await;
    let uses = uses(&fake, false);
    let app = app_with(|workspace| {
        uses(workspace);
        std::fs::write(workspace.join("bot"), "xoxb-revoked").unwrap();
    })
    .await;
    let notice = eventually("a notice", || async {
        app.store.notices(true, 10).await.unwrap().into_iter().find(|it| it.subject == "slack")
    })
    .await;
    assert_eq!((notice.kind.as_str(), notice.severity.as_str()), ("connector_key", "critical"));
    assert!(notice.detail.contains("invalid_auth") && !notice.detail.contains("xoxb"), "{}", notice.detail);
}

#[tokio::test]
async fn a_notice_is_seen_once_and_its_message_says_by_whom() {
    let fake = Fake::start().await;
    let app = app_with(uses(&fake, false)).await;
    let news = steward::store::notices::News {
        kind: steward::domain::notice::NoticeKind::BreakerOpened,
        subject: "openai",
        severity: steward::domain::notice::Severity::Critical,
        title: "Nobody calls openai <!here>",
        detail: "401",
        run: None,
    };
    app.service.as_ref().unwrap().door.engine().tell_owner(&news).await;
    let message = fake.message("the notice", |it| it.to_string().contains("Nobody calls openai")).await;
    tell(&app.url, &click(&fake, &message, "seen", STRANGER)).await;
    fake.whisper(1).await;
    assert_eq!(app.store.notices(true, 10).await.unwrap().len(), 1);
    for user in [OWNER, APPROVER] {
        tell(&app.url, &click(&fake, &message, "seen", user)).await;
    }
    let now = fake.says(&message, "Seen by owner via slack").await;
    assert!(button(&now, "seen").is_none());
    assert!(app.store.notices(true, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_digest_tells_the_day() {
    let fake = Fake::start().await;
    let uses = uses(&fake, false);
    let app = app_with(|workspace| {
        uses(workspace);
        let path = workspace.join("config/channels.yaml");
        let yaml = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{yaml}digest: {{ at: \"00:00\", channels: [slack] }}\n")).unwrap();
    })
    .await;
    let digest = fake.message("the digest", |it| it["text"].as_str().unwrap().starts_with("Your day")).await;
    assert!(digest["blocks"].to_string().contains("nothing for you to decide"), "{digest}");
    assert!(digest["blocks"].to_string().contains("Models cost 0.00"), "{digest}");
    drop(app);
}

#[tokio::test]
async fn behind_nat_slack_speaks_over_a_socket_and_is_answered_when_the_decision_is_durable() {
    let (app, fake, asked, message) = waiting(true).await;
    fake.connected(1).await;
    let (payload, id) = (click(&fake, &message, "approve", OWNER), asked["id"].as_str().unwrap());
    // The run is held, so that nothing can be decided for a while.
    let (client, connection) = app.store.config().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(&format!("begin; select from runs where id = '{}' for update", run(&asked)))
        .await
        .unwrap();
    let held = fake.envelope(&payload);
    let (status, _) = send(&app.url, form(&payload), SIGNING_SECRET, Timestamp::now().as_second()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "nothing is acknowledged that is not durable");
    assert!(!fake.acked(&held));
    assert_eq!(app.get(&format!("/api/v1/reviews/{id}")).await["status"], "open");
    client.batch_execute("commit").await.unwrap();
    // Slack delivers again what was not acknowledged, over whatever connection there is.
    fake.refresh();
    fake.connected(2).await;
    let again = fake.envelope(&payload);
    assert_eq!(fake.ack(&again).await, json!({"envelope_id": again}));
    assert_eq!(review(&app, &asked).await["decided_by"], "owner via slack");
    fake.says(&message, "Approved by owner via slack").await;
    sent(&app, &asked).await;
    assert_eq!(fake.seen().whispers, Vec::<Value>::new());
    // What nobody offers, or nobody can read, is acknowledged and left.
    for strange in [json!({"type": "shortcut"}), json!([1]), json!({"type": "block_actions"})] {
        let envelope = fake.envelope(&strange);
        fake.ack(&envelope).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn a_modal_is_answered_over_the_socket_too() {
    let (app, fake, asked, message) = waiting(true).await;
    fake.connected(1).await;
    let envelope = fake.envelope(&click(&fake, &message, "reject", OWNER));
    fake.ack(&envelope).await;
    let view = fake.view(1).await;
    let stranger = fake.envelope(&submit(&view, &[None], STRANGER));
    assert_eq!(fake.ack(&stranger).await["payload"]["response_action"], "update");
    let mine = fake.envelope(&submit(&view, &[None], OWNER));
    assert_eq!(fake.ack(&mine).await, json!({"envelope_id": mine}));
    assert_eq!(review(&app, &asked).await["verdict"], json!({"verdict": "rejected", "reason": ""}));
}

#[tokio::test]
async fn slacks_own_library_speaks_with_the_slack_of_these_tests_and_signs_as_we_do() {
    let fake = Fake::start().await;
    let review = json!([{"type": "header", "text": {"type": "plain_text", "text": "x"}}]);
    let view = json!({"type": "modal", "title": {"type": "plain_text", "text": "x"}, "blocks": review});
    let job = json!({"job": "methods", "api": fake.api(), "token": BOT_TOKEN, "blocks": review, "view": view, "trigger": fake.trigger()});
    assert_eq!(sdk::job(job).await, true);
    assert_eq!(fake.seen().refused, Vec::<String>::new());
    let listening =
        tokio::spawn(sdk::job(json!({"job": "socket", "api": fake.api(), "app_token": APP_TOKEN})));
    fake.connected(1).await;
    let envelope = fake.envelope(&json!({"type": "block_actions", "word": "grüß"}));
    assert_eq!(fake.ack(&envelope).await, json!({"envelope_id": envelope, "payload": {"text": "ok"}}));
    assert_eq!(
        listening.await.unwrap(),
        json!({"type": "interactive", "payload": {"type": "block_actions", "word": "grüß"}})
    );
    let body = "payload=%7B%22type%22%3A%22block_actions%22%7D";
    let secret = steward::config::secret::Secret::new(SIGNING_SECRET.into());
    let ours = steward::reviews::slack::signature::sign(&secret, 1_531_420_618, body.as_bytes());
    for (now, valid) in [(1_531_420_618, true), (1_531_420_918, true), (1_531_420_919, false)] {
        let job = json!({"job": "sign", "secret": SIGNING_SECRET, "timestamp": 1_531_420_618, "now": now, "body": body, "signature": ours});
        assert_eq!(sdk::job(job).await, json!({"signature": ours, "valid": valid}));
    }
}

#[tokio::test]
async fn without_slack_nobody_listens_at_its_hook() {
    let app = app_with(|_| {}).await;
    let (status, _) = app.call(Method::POST, "/hooks/slack", Some(json!({}))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
