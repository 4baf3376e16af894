//! The HTTP API from outside: who may come in, and what everybody hears who asks for what cannot be.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::forge::by_hand;
use crate::support::{App, app, app_with, eventually, example_email};

/// The status, content type and body of any answer.
async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, String, Value) {
    let response = request.send().await.unwrap();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    (response.status(), kind.unwrap_or_default(), response.json().await.unwrap_or_default())
}

fn assert_problem((status, kind, body): &(StatusCode, String, Value), wanted: u16, slug: &str) {
    assert_eq!(status.as_u16(), wanted, "{body}");
    assert_eq!(kind, "application/problem+json");
    assert_eq!(body["type"], format!("/problems/{slug}"));
    assert_eq!(body["status"], wanted);
    assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
}

fn decision_path(review: &Value) -> String {
    format!("/api/v1/reviews/{}/decision", review["id"].as_str().unwrap())
}

/// A lead whose reply waits for approval.
async fn waiting_lead(app: &App) -> (String, Value) {
    let run = app.deliver(example_email("01-lead-bakery.eml")).await;
    let review = app.open_review(&run).await;
    (run, review)
}

#[tokio::test]
async fn without_the_token_every_door_but_health_is_closed() {
    let app = app().await;
    for path in ["/api/v1/runs", "/api/v1/reviews", "/api/v1/audit/verify", "/api/v1/memory", "/nothing"] {
        let url = format!("{}{path}", app.url);
        assert_problem(&answer(app.client.get(&url)).await, 401, "unauthorized");
        assert_problem(&answer(app.client.get(&url).bearer_auth("wrong")).await, 401, "unauthorized");
    }
    let response = app.client.get(format!("{}/api/v1/runs", app.url)).send().await.unwrap();
    assert!(response.headers().contains_key("www-authenticate"));
    for path in ["/livez", "/readyz"] {
        assert_eq!(answer(app.client.get(format!("{}{path}", app.url))).await.0, 200);
    }
    app.stop().await;
}

#[tokio::test]
async fn an_unsigned_hook_is_refused_before_anything_in_it_is_read() {
    let app = app().await;
    let email = app.client.post(format!("{}/hooks/email", app.url)).body(example_email("01-lead-bakery.eml"));
    assert_problem(&answer(email).await, 401, "unauthorized");
    let hook = app.client.post(format!("{}/hooks/orders", app.url)).body("{ this is no JSON");
    assert_problem(&answer(hook).await, 401, "unauthorized");
    assert_eq!(app.get("/api/v1/runs").await["runs"], json!([]));
    app.stop().await;
}

#[tokio::test]
async fn what_cannot_be_served_is_told_precisely() {
    let app = app().await;
    let post = |path: &str| app.client.post(format!("{}{path}", app.url)).bearer_auth(&app.token);
    let get = |path: &str| app.client.get(format!("{}{path}", app.url)).bearer_auth(&app.token);

    let unknown = answer(post("/api/v1/runs").json(&json!({"workflow": "nope", "input": {}}))).await;
    assert_problem(&unknown, 404, "unknown-workflow");
    assert!(unknown.2["known"].as_array().unwrap().contains(&json!("lead-intake")), "{}", unknown.2);

    let misfit = answer(post("/api/v1/runs").json(&json!({"workflow": "lead-intake", "input": {}}))).await;
    assert_problem(&misfit, 422, "bad-input");

    let broken = post("/api/v1/runs").header("content-type", "application/json").body("{\n  \"workflow\": }");
    let broken = answer(broken).await;
    assert_problem(&broken, 400, "bad-request");
    assert_eq!((&broken.2["line"], &broken.2["column"]), (&json!(2), &json!(15)));

    assert_problem(&answer(post("/api/v1/runs").body("{}")).await, 415, "wrong-media-type");
    let large = json!({"workflow": "lead-intake", "input": {"body": "x".repeat(1024 * 1024)}});
    assert_problem(&answer(post("/api/v1/runs").json(&large)).await, 413, "too-large");

    let method = app.client.delete(format!("{}/api/v1/runs", app.url)).bearer_auth(&app.token);
    let response = method.send().await.unwrap();
    assert_eq!(response.status(), 405);
    let allowed = response.headers()["allow"].to_str().unwrap().to_owned();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["type"], "/problems/wrong-method");

    assert_problem(&answer(get("/api/v1/nothing")).await, 404, "unknown-route");
    assert_problem(&answer(get("/api/v1/runs/not-an-id")).await, 404, "unknown-run");
    let nobody = "00000000-0000-7000-8000-000000000000";
    for (path, slug) in [
        (format!("/api/v1/runs/{nobody}"), "unknown-run"),
        (format!("/api/v1/runs/{nobody}/journal"), "unknown-run"),
        (format!("/api/v1/reviews/{nobody}"), "unknown-review"),
    ] {
        assert_problem(&answer(get(&path)).await, 404, slug);
    }
    for query in ["limit=0", "limit=many", "cursor=x", "status=odd", "unknown=1"] {
        assert_problem(&answer(get(&format!("/api/v1/runs?{query}"))).await, 400, "bad-request");
    }
    app.stop().await;
}

#[tokio::test]
async fn the_same_idempotency_key_opens_one_run_and_never_hides_another_input() {
    let app = app().await;
    let input = |body: &str| {
        json!({"message_id": "1@a.example", "thread": "1@a.example", "from": "a@a.example", "from_name": null,
               "reply_to": null, "to": [], "cc": [], "subject": "s", "date": null, "body": body,
               "body_truncated": false, "attachments": [], "auto": true, "list": false})
    };
    let open = |body: &str| {
        let request = app.client.post(format!("{}/api/v1/runs", app.url)).bearer_auth(&app.token);
        let wanted = json!({"workflow": "lead-intake", "input": input(body)});
        answer(request.header("Idempotency-Key", "k1").json(&wanted))
    };
    let (first, again) = tokio::join!(open("hello"), open("hello"));
    let mut statuses = [first.0.as_u16(), again.0.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201]);
    assert_eq!(first.2["run"], again.2["run"]);
    assert_problem(&open("something else").await, 422, "key-reused");
    assert_eq!(app.get("/api/v1/runs").await["runs"].as_array().unwrap().len(), 1);
    app.stop().await;
}

#[tokio::test]
async fn a_list_goes_on_page_by_page_without_gap_or_repetition() {
    let app = app().await;
    for name in ["01-lead-bakery.eml", "10-auto-reply-out-of-office.eml", "11-newsletter.eml"] {
        app.deliver(example_email(name)).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("/api/v1/runs?limit=2{cursor}")).await;
        seen.extend(page["runs"].as_array().unwrap().iter().map(|run| run["id"].to_string()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
    app.stop().await;
}

#[tokio::test]
async fn a_decision_about_something_else_changes_nothing() {
    let app = app().await;
    let (_, review) = waiting_lead(&app).await;
    let path = decision_path(&review);
    let other = format!("\"{}\"", "0".repeat(64));
    let request = app.client.post(format!("{}{path}", app.url)).bearer_auth(&app.token);
    let refused = answer(request.header("If-Match", other).json(&json!({"verdict": "approved"}))).await;
    assert_problem(&refused, 412, "other-digest");
    assert_eq!(refused.2["expected"], review["digest"]);
    let unfit = app.call(Method::POST, &path, Some(json!({"verdict": "answered", "answer": 1}))).await;
    assert_eq!(
        (unfit.0.as_u16(), &unfit.1["fitting"]),
        (422, &json!(["approved", "edited", "rejected", "responded"]))
    );
    let shown = app.get(&format!("/api/v1/reviews/{}", review["id"].as_str().unwrap())).await;
    assert_eq!(shown["status"], "open");
    app.stop().await;
}

#[tokio::test]
async fn of_two_deciders_one_wins_and_the_other_hears_the_outcome() {
    let app = app().await;
    let (run, review) = waiting_lead(&app).await;
    let path = decision_path(&review);
    let decide = |body: Value| app.call(Method::POST, &path, Some(body));
    let (yes, no) = tokio::join!(
        decide(json!({"verdict": "approved", "digest": review["digest"]})),
        decide(json!({"verdict": "rejected", "reason": "not now", "digest": review["digest"]})),
    );
    let (won, lost) = if yes.0.is_success() { (yes, no) } else { (no, yes) };
    assert_eq!((won.0.as_u16(), lost.0.as_u16()), (200, 409), "{} {}", won.1, lost.1);
    assert_eq!(lost.1["review_status"], won.1["status"]);
    assert_eq!(lost.1["by"], "owner via api");
    let outcome = if won.1["status"] == "approved" { "succeeded" } else { "declined" };
    app.run_that_is(&run, &[outcome]).await;
    let late = app.call(Method::POST, &format!("/api/v1/runs/{run}/cancel"), None).await;
    assert_eq!((late.0.as_u16(), &late.1["run_status"]), (409, &json!(outcome)));
    app.assert_chains_hold().await;
    app.stop().await;
}

#[tokio::test]
async fn a_denied_edit_decides_nothing() {
    let app = app_with(|workspace| {
        let path = workspace.join("config/policy.yaml");
        let rule = "\n  - rule: never\n    action: email.send\n    when: '\"unspeakable\" in params.body'\n    \
                    then: deny\n    because: Never this word.\n";
        let policy = std::fs::read_to_string(&path).unwrap() + rule;
        std::fs::write(path, policy).unwrap();
    })
    .await;
    let (_, review) = waiting_lead(&app).await;
    let path = decision_path(&review);
    let params = &review["question"]["action"]["params"];
    let edit = |change: &dyn Fn(&mut Value)| {
        let mut params = params.clone();
        change(&mut params);
        json!({"verdict": "edited", "params": params})
    };

    let denied =
        app.call(Method::POST, &path, Some(edit(&|p| p["body"] = json!("an unspeakable thing")))).await;
    assert_eq!(denied.0, 422);
    assert_eq!(denied.1["type"], "/problems/denied-edit");
    let why = denied.1["reasons"][0].as_str().unwrap();
    assert!(why.starts_with("Never this word (rule `never`; needed: "), "{why}");

    let strange = app.call(Method::POST, &path, Some(edit(&|p| p["bcc"] = json!("x@y.example")))).await;
    assert_eq!((strange.0.as_u16(), &strange.1["type"]), (422, &json!("/problems/bad-edit")));

    let shown = app.get(&format!("/api/v1/reviews/{}", review["id"].as_str().unwrap())).await;
    assert_eq!(shown["status"], "open");
    app.post(&path, edit(&|p| p["body"] = json!("something better"))).await;
    app.stop().await;
}

#[tokio::test]
async fn a_cancelled_run_stops_and_withdraws_its_question() {
    let app = app().await;
    let (run, review) = waiting_lead(&app).await;
    let (status, _) = app.call(Method::POST, &format!("/api/v1/runs/{run}/cancel"), None).await;
    assert_eq!(status, 202);
    let over = app.run_that_is(&run, &["cancelled"]).await;
    assert_eq!(over["waits_for"], json!([]));
    let shown = app.get(&format!("/api/v1/reviews/{}", review["id"].as_str().unwrap())).await;
    assert_eq!(shown["status"], "superseded");
    app.stop().await;
}

#[tokio::test]
async fn steward_audit_verify_names_what_is_broken_and_ends_with_1() {
    let app = app().await;
    let opened = app.deliver(crate::support::example_email("01-lead-bakery.eml")).await;
    eventually("the question", || async {
        let run = app.get(&format!("/api/v1/runs/{opened}")).await;
        (run["status"] == "waiting").then_some(())
    })
    .await;
    let verify = || async {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_steward"));
        command.args(["audit", "verify"]).env("STEWARD_URL", &app.url).env("STEWARD_TOKEN", &app.token);
        command.output().await.unwrap()
    };
    let good = verify().await;
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(good.status.success() && text.starts_with("1 of 1 runs verified"), "{good:?}");
    by_hand(&app.store, "update journal set actor = 'owner' where seq = 2").await;
    let bad = verify().await;
    let text = String::from_utf8_lossy(&bad.stdout).into_owned();
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    assert!(
        text.contains(&format!("I8 run {opened}: entry 2")) && text.contains("0 of 1 runs verified"),
        "{text}"
    );
    app.stop().await;
}
