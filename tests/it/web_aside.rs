//! What the page of a review takes beside a yes and a no, over plain HTTP: comments, snoozes, words for another
//! draft, and calling back what waits.

use serde_json::{Value, json};

use crate::agents::{open, write};
use crate::reviews::{AGENT, LETTER, writer};
use crate::support::forge::by_hand;
use crate::support::model_server::ModelServer;
use crate::support::visitor::{Seen, Visitor};
use crate::support::{App, app_with, eventually};

/// A service with a model that writes letters, which wait for a day before they go out.
pub async fn letters() -> (App, ModelServer) {
    let model = writer().await;
    let delayed = format!("{LETTER}    delay: 1d\n");
    let app = app_with(|workspace| write(workspace, &model, &delayed, AGENT)).await;
    (app, model)
}

pub fn path(review: &Value) -> String {
    format!("/reviews/{}", review["id"].as_str().unwrap())
}

/// Sends a form of a page, with the hidden fields that it has.
async fn send(visitor: &Visitor, path: &str, fields: &[(&str, &str)]) -> Seen {
    let seen = visitor.get(path).await;
    let csrf = seen.field("csrf");
    let has_digest = seen.body.contains("name=\"digest\"");
    let digest = if has_digest { seen.field("digest") } else { String::new() };
    let hidden = [("csrf", csrf.as_str()), ("digest", digest.as_str())];
    visitor.post(path, &[&hidden[..], fields].concat()).await
}

async fn row(app: &App, review: &Value) -> Value {
    app.get(&format!("/api/v1{}", path(review))).await
}

#[tokio::test]
async fn a_comment_is_kept_and_shown_and_decides_nothing() {
    let (app, _model) = letters().await;
    let run = open(&app, "Write to Ann.").await;
    let review = app.open_review(&run).await;
    let (page, owner) = (path(&review), Visitor::signed_in(&app).await);
    let text = "Ask <i>Bea</i> first.\r\n\u{202e}Then send it.";
    let said = send(&owner, &page, &[("do", "comment"), ("text", text)]).await;
    assert_eq!((said.status.as_u16(), said.header("location")), (303, page.as_str()));
    let shown = owner.get(&page).await.body;
    assert!(
        shown.contains("Ask &lt;i&gt;Bea&lt;/i&gt; first.\n<span class=\"unseen\">U+202E</span>Then"),
        "{shown}"
    );
    let kept = row(&app, &review).await;
    assert_eq!((&kept["status"], &kept["comments"][0]["by"]), (&json!("open"), &json!("owner via web")));
    let long = "x".repeat(10_001);
    for (bad, status) in [("  \r\n", 422), (long.as_str(), 422), ("a\0b", 422)] {
        assert_eq!(send(&owner, &page, &[("do", "comment"), ("text", bad)]).await.status, status);
    }
    // Without the proof of its page nothing is kept.
    assert_eq!(owner.post(&page, &[("do", "comment"), ("text", "forged")]).await.status, 403);
    // After the decision it can still be said how it went.
    send(&owner, &page, &[("do", "reject")]).await;
    assert_eq!(send(&owner, &page, &[("do", "comment"), ("text", "Bea said no.")]).await.status, 303);
    assert_eq!(row(&app, &review).await["comments"].as_array().unwrap().len(), 2);
    app.stop().await;
}

#[tokio::test]
async fn a_snooze_is_offered_up_to_the_deadline_and_refused_past_it() {
    let (app, _model) = letters().await;
    let run = open(&app, "Write to Ann.").await;
    let review = app.open_review(&run).await;
    let (page, owner) = (path(&review), Visitor::signed_in(&app).await);
    let offered = |page: &str| -> Vec<&'static str> {
        let words = ["hour", "morning", "days"];
        words.into_iter().filter(|word| page.contains(&format!("name=\"for\" value=\"{word}\""))).collect()
    };
    by_hand(&app.store, "update reviews set due_at = null").await;
    assert_eq!(offered(&owner.get(&page).await.body), ["hour", "morning", "days"]);
    assert_eq!(send(&owner, &page, &[("do", "snooze"), ("for", "days")]).await.status, 303);
    let shown = owner.get(&page).await.body;
    assert!(shown.contains("Left alone until") && shown.contains("value=\"approve\""), "{shown}");
    let until = |row: &Value| row["snoozed_until"].as_str().map(str::to_owned);
    let first = until(&row(&app, &review).await).expect("it is snoozed");

    by_hand(&app.store, "update reviews set due_at = now() + interval '30 minutes'").await;
    assert_eq!(offered(&owner.get(&page).await.body), [""; 0]);
    let late = send(&owner, &page, &[("do", "snooze"), ("for", "hour")]).await;
    assert_eq!(late.status, 422);
    assert!(late.body.contains("This was not kept: it expires at"), "{}", late.body);
    assert_eq!(until(&row(&app, &review).await), Some(first));
    assert_eq!(send(&owner, &page, &[("do", "snooze"), ("for", "ever")]).await.status, 400);
    send(&owner, &page, &[("do", "reject")]).await;
    assert_eq!(send(&owner, &page, &[("do", "snooze"), ("for", "hour")]).await.status, 409);
    app.stop().await;
}

#[tokio::test]
async fn words_give_a_draft_back_to_its_agent_and_the_new_one_is_asked_about() {
    let (app, model) = letters().await;
    let run = open(&app, "Write to Ann.").await;
    let first = app.open_review(&run).await;
    let (page, owner) = (path(&first), Visitor::signed_in(&app).await);
    let shown = owner.get(&page).await.body;
    assert!(
        shown.contains("name=\"do\" value=\"respond\"") && shown.contains(">from a model</span>"),
        "{shown}"
    );
    assert!(shown.contains("letter 1") && shown.contains("until then you can call it back"), "{shown}");
    assert_eq!(send(&owner, &page, &[("do", "respond"), ("words", " ")]).await.status, 422);
    let said = send(&owner, &page, &[("do", "respond"), ("words", "Mention <b>tea</b>.")]).await;
    assert_eq!(said.status, 303, "{}", said.body);
    let after = owner.get(&page).await.body;
    assert!(
        after.contains("Given back for another draft") && after.contains("Mention &lt;b&gt;tea"),
        "{after}"
    );
    let second = eventually("the next draft", || async {
        let reviews = app.get(&format!("/api/v1/reviews?run={run}&status=open")).await;
        reviews["reviews"].as_array()?.iter().find(|review| review["id"] != first["id"]).cloned()
    })
    .await;
    assert!(owner.get(&path(&second)).await.body.contains("letter 2"));
    assert_eq!(model.requests().len(), 2);
    assert_eq!(send(&owner, &page, &[("do", "respond"), ("words", "again")]).await.status, 409);
    app.stop().await;
}

#[tokio::test]
async fn what_was_approved_and_waits_is_called_back_from_the_review_and_from_the_run() {
    let (app, _model) = letters().await;
    let owner = Visitor::signed_in(&app).await;
    for from_run in [false, true] {
        let run = open(&app, "Write to Ann.").await;
        let review = app.open_review(&run).await;
        let (page, run_page) = (path(&review), format!("/runs/{run}"));
        assert!(!owner.get(&page).await.body.contains("call-back"), "nothing is held yet");
        assert_eq!(send(&owner, &page, &[("do", "approve")]).await.status, 303);
        let held = eventually("the effect being held", || async {
            let seen = owner.get(&page).await;
            seen.body.contains("It goes out at").then_some(seen)
        })
        .await;
        let effect = held.field("effect");
        let from = if from_run { run_page.as_str() } else { page.as_str() };
        let seen = owner.get(from).await;
        assert_eq!(seen.field("effect"), effect, "{from}");
        // Another one than that of this run, none, and a form that proves nothing.
        let other = uuid::Uuid::new_v4().to_string();
        for (wrong, status) in [(other.as_str(), 404), ("", 404)] {
            let refused = send(&owner, from, &[("do", "call-back"), ("effect", wrong)]).await;
            assert_eq!(refused.status, status, "{wrong}");
        }
        assert_eq!(owner.post(from, &[("do", "call-back"), ("effect", &effect)]).await.status, 403);
        let called = send(&owner, from, &[("do", "call-back"), ("effect", &effect)]).await;
        assert_eq!((called.status.as_u16(), called.header("location")), (303, from), "{}", called.body);
        assert!(!owner.get(&page).await.body.contains("It goes out at"));
        let anew = app.open_review(&run).await;
        assert_ne!(anew["id"], review["id"], "the owner is asked anew");
        let late = send(&owner, from, &[("do", "call-back"), ("effect", &effect)]).await;
        assert_eq!(late.status, 409, "{}", late.body);
        assert!(late.body.contains("Too late") || late.body.contains("cannot be called back"));
    }
    let sent = app.get("/api/v1/runs").await;
    assert_eq!(sent["runs"].as_array().unwrap().len(), 2);
    app.assert_chains_hold().await;
    app.stop().await;
}

#[tokio::test]
async fn what_is_known_of_them_is_laid_out_for_a_person() {
    let (app, _model) = letters().await;
    let run = open(&app, "Write to Ann.").await;
    let review = app.open_review(&run).await;
    let owner = Visitor::signed_in(&app).await;
    let shown = owner.get(&path(&review)).await.body;
    for part in ["<h3>who gets it", "<h3>what is known of them", "<dt>mails sent</dt>", "<dt>in policy</dt>"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    app.stop().await;
}
