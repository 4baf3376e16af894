//! Flow control at the doors: who is told to come back, and that nobody who was acknowledged is lost.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{App, app_with, eventually};

const WORKFLOW: &str = "
workflow: orders
title: \"Order {{ input.subject }}\"
on:
  - email: { mailbox: orders }
concurrency: { limit: 1 }
steps:
  - id: ask
    review: { ask: Shall we do it }
";

/// A workspace whose workflow does one run at a time, with place for few in the queue.
async fn small() -> App {
    app_with(|workspace| {
        let settings = workspace.join("config/settings.yaml");
        let text = std::fs::read_to_string(&settings).unwrap();
        let text = text.replace("mailboxes:\n", "mailboxes:\n  orders: [orders@harbourandpine.example]\n");
        std::fs::write(&settings, format!("{text}\nlimits: {{ queued: 4 }}\n")).unwrap();
        std::fs::write(workspace.join("config/workflows/orders.yaml"), WORKFLOW).unwrap();
    })
    .await
}

fn email(id: &str) -> String {
    format!(
        "From: a@b.example\r\nTo: orders@harbourandpine.example\r\nSubject: {id}\r\n\
         Message-ID: <{id}@b.example>\r\n\r\nhello\r\n"
    )
}

/// Hands an email in; the status, when to come back, and the answer.
async fn hand_in(app: &App, id: &str) -> (StatusCode, Option<String>, Value) {
    let request = app.client.post(format!("{}/hooks/email", app.url)).bearer_auth(&app.token);
    let response = request.body(email(id)).send().await.unwrap();
    let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (response.status(), retry, response.json().await.unwrap())
}

async fn approve_the_open_one(app: &App) -> String {
    let review = eventually("a question", || async {
        app.get("/api/v1/reviews?status=open&limit=10").await["reviews"].as_array()?.first().cloned()
    })
    .await;
    let path = format!("/api/v1/reviews/{}/decision", review["id"].as_str().unwrap());
    app.post(&path, json!({"verdict": "approved"})).await;
    let run = review["run"].as_str().unwrap().to_owned();
    app.run_that_is(&run, &["succeeded"]).await;
    run
}

#[tokio::test]
async fn a_full_door_says_when_to_come_back_and_loses_nothing_it_took() {
    let app = small().await;
    let mut taken = Vec::new();
    for n in 0..4 {
        let (status, _, body) = hand_in(&app, &format!("m{n}")).await;
        assert_eq!(status, 201, "{body}");
        taken.push(body["run"].as_str().unwrap().to_owned());
        if n == 0 {
            app.run_that_is(&taken[0], &["waiting"]).await;
        }
    }
    let queued = app.get(&format!("/api/v1/runs/{}", taken[1])).await;
    assert_eq!(
        (&queued["status"], &queued["waits_for"][0]),
        (&json!("queued"), &json!({"for": "turn", "limit": 1}))
    );
    assert_eq!(app.get("/api/v1/runs?status=queued").await["runs"].as_array().unwrap().len(), 3);

    // One works, three wait: that is this workflow's share of four.
    let (status, retry, body) = hand_in(&app, "m4").await;
    assert_eq!((status.as_u16(), retry.as_deref()), (429, Some("5")), "{body}");
    assert_eq!((&body["type"], &body["retry_after"]), (&json!("/problems/full"), &json!(5)));
    let wanted = json!({"workflow": "orders", "input": {"message_id": "x", "thread": "x", "from": "a@b.example", "subject": "x", "body": ""}});
    let refused = app.call(reqwest::Method::POST, "/api/v1/runs", Some(wanted)).await;
    assert_eq!((refused.0.as_u16(), &refused.1["type"]), (429, &json!("/problems/full")));

    // Who repeats what was taken hears so all the same; other workflows come in as ever.
    for (n, run) in taken.iter().enumerate() {
        let (status, _, body) = hand_in(&app, &format!("m{n}")).await;
        assert_eq!((status.as_u16(), &body["run"]), (200, &json!(run)));
    }
    app.deliver(crate::support::example_email("10-auto-reply-out-of-office.eml")).await;

    // The inbox folder keeps the file until there is place.
    let inbox = app.workspace.join(".steward/inbox");
    std::fs::write(inbox.join("m5.eml"), email("m5")).unwrap();
    let cli = tokio::process::Command::new(env!("CARGO_BIN_EXE_steward"))
        .args(["run", "orders", "--workspace"])
        .arg(&app.workspace)
        .arg("--input")
        .arg(inbox.join("m5.eml"))
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&cli.stderr).into_owned();
    assert_eq!(cli.status.code(), Some(6), "{said}");
    assert!(said.contains("try again in 5 s"), "{said}");
    assert!(inbox.join("m5.eml").exists() && !inbox.join("refused/m5.eml").exists());

    // Each that ends lets the next begin, and one more in: the file first, or the sender who comes back.
    assert_eq!(approve_the_open_one(&app).await, taken[0]);
    eventually("the file being taken", || async { inbox.join("done/m5.eml").exists().then_some(()) }).await;
    assert_eq!(approve_the_open_one(&app).await, taken[1]);
    let late = eventually("the sender who comes back", || async {
        let (status, _, body) = hand_in(&app, "m4").await;
        status.is_success().then(|| body["run"].as_str().unwrap().to_owned())
    })
    .await;
    for expected in &taken[2..] {
        assert_eq!(approve_the_open_one(&app).await, *expected, "in the order in which they came");
    }
    approve_the_open_one(&app).await;
    assert_eq!(approve_the_open_one(&app).await, late);
    app.assert_chains_hold().await;
    app.stop().await;
}
