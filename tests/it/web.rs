//! The pages over plain HTTP: who may see them, whose forms count, what hostile text can do in them, and that
//! all of it works without a script.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::visitor::Visitor;
use crate::support::{App, PATIENCE, app, app_with, example_email};

/// A workflow that proposes a mail to whoever is named, about whatever is said.
const WORKFLOW: &str = "\
workflow: letter
title: \"Letter to {{ input.to }}: {{ input.subject }}\"
input:
  type: object
  required: [to, subject, body]
  properties: { to: { type: string }, subject: { type: string }, body: { type: string } }
steps:
  - id: send
    name: Send the letter
    action: email.send
    with: { to: \"{{ input.to }}\", subject: \"A letter\", body: \"{{ input.body }}\" }
    review: { artifacts: [input.to, input.subject, input.body] }
";

/// A workflow that asks for an answer in every kind of field.
const QUESTION: &str = "\
workflow: question
title: A question
input: { type: object }
steps:
  - id: ask
    review:
      ask: How shall it go on?
      form:
        type: object
        required: [fit, class, urgent]
        properties:
          fit: { type: number, description: from 0 to 1 }
          class: { type: string, enum: [lead, spam] }
          urgent: { type: boolean }
          note: { type: string }
          tags: { type: array, items: { type: string } }
";

/// A service that has both workflows.
pub async fn letters() -> App {
    app_with(|workspace| {
        std::fs::write(workspace.join("config/workflows/letter.yaml"), WORKFLOW).unwrap();
        std::fs::write(workspace.join("config/workflows/question.yaml"), QUESTION).unwrap();
    })
    .await
}

/// A letter that waits for approval: its review.
pub async fn letter(app: &App, subject: &str, body: &str) -> Value {
    let input = json!({"to": "nora@bergflowers.example", "subject": subject, "body": body});
    let opened = app.post("/api/v1/runs", json!({"workflow": "letter", "input": input})).await;
    app.open_review(opened["run"].as_str().unwrap()).await
}

fn page(review: &Value) -> String {
    format!("/reviews/{}", review["id"].as_str().unwrap())
}

async fn status(app: &App, review: &Value) -> String {
    let review = app.get(&format!("/api/v1{}", page(review))).await;
    review["status"].as_str().unwrap().to_owned()
}

/// The fields that every form of a review's page has.
async fn hidden(visitor: &Visitor, path: &str) -> [(&'static str, String); 2] {
    let seen = visitor.get(path).await;
    [("csrf", seen.field("csrf")), ("digest", seen.field("digest"))]
}

/// Posts a decision as the page's form would.
async fn decide(visitor: &Visitor, path: &str, fields: &[(&str, &str)]) -> crate::support::visitor::Seen {
    let [csrf, digest] = hidden(visitor, path).await;
    let mut all = vec![(csrf.0, csrf.1.as_str()), (digest.0, digest.1.as_str())];
    all.extend(fields);
    visitor.post(path, &all).await
}

#[tokio::test]
async fn pages_are_closed_to_whoever_is_not_signed_in_and_show_the_way_in() {
    let app = letters().await;
    let review = letter(&app, "s", "b").await;
    let run = format!("/runs/{}", review["run"].as_str().unwrap());
    let (live, run_live) = (format!("{}/live", page(&review)), format!("{run}/live"));
    let stranger = Visitor::new(&app);
    for path in ["/", "/live", "/reviews/x", &page(&review), &live, &run, &run_live, "/sign-out"] {
        let seen = stranger.get(path).await;
        assert_eq!((seen.status.as_u16(), seen.header("location")), (303, "/sign-in"), "{path}");
        assert_eq!(stranger.post(path, &[("do", "approve")]).await.status, 401, "{path}");
        let bearer = app.client.get(format!("{}{path}", app.url)).bearer_auth(&app.token);
        assert_eq!(bearer.send().await.unwrap().status(), 401, "the API's token opens no page: {path}");
        let forged = stranger
            .request(Method::GET, path)
            .header("cookie", format!("{}={}", crate::sign_in::cookie_name(&app), "0".repeat(64)));
        assert_eq!(forged.send().await.unwrap().status(), 303, "{path}");
    }
    let way = stranger.get("/sign-in").await;
    assert_eq!(way.status, 200);
    assert!(way.body.contains("steward login"), "{}", way.body);
    // And a session opens nothing of the API.
    let owner = Visitor::signed_in(&app).await;
    assert_eq!(owner.get("/").await.status, 200);
    for path in ["/api/v1/runs", "/api/v1/reviews", "/nothing"] {
        assert_eq!(owner.get(path).await.status, 401, "{path}");
    }
    assert_eq!(status(&app, &review).await, "open");
    app.stop().await;
}

#[tokio::test]
async fn a_form_that_does_not_prove_where_it_comes_from_decides_nothing() {
    let app = letters().await;
    let review = letter(&app, "s", "b").await;
    let path = page(&review);
    let (owner, other) = (Visitor::signed_in(&app).await, Visitor::signed_in(&app).await);
    let [csrf, digest] = hidden(&owner, &path).await;
    let [others, _] = hidden(&other, &path).await;
    let without = [("digest", digest.1.as_str()), ("do", "approve")];
    assert_eq!(owner.post(&path, &without).await.status, 403);
    for wrong in ["", "0", others.1.as_str()] {
        let fields = [("csrf", wrong), without[0], without[1]];
        assert_eq!(owner.post(&path, &fields).await.status, 403, "{wrong}");
    }
    let whole = [("csrf", csrf.1.as_str()), without[0], without[1]];
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let forged = owner.form(&path, &whole).header(name, value).send().await.unwrap();
        assert_eq!(forged.status(), 403, "{name}: {value}");
    }
    // Nothing is decided by opening an address, whoever opens it.
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(whole).finish();
    for method in [Method::GET, Method::HEAD] {
        owner.request(method, &format!("{path}?{query}")).send().await.unwrap();
    }
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let status = owner.request(method, &path).body(query.clone()).send().await.unwrap().status();
        assert!(status == 403 || status == 405, "{status}");
    }
    assert_eq!(status(&app, &review).await, "open");
    // The same form from our own page does.
    let ours = owner.form(&path, &whole).header("sec-fetch-site", "same-origin").header("origin", &app.url);
    assert_eq!(ours.send().await.unwrap().status(), 303);
    assert_eq!(status(&app, &review).await, "approved");
    app.stop().await;
}

#[tokio::test]
async fn every_page_forbids_scripts_and_styles_inside_it_and_has_none() {
    let app = letters().await;
    let review = letter(&app, "s", "b").await;
    let owner = Visitor::signed_in(&app).await;
    let run = format!("/runs/{}", review["run"].as_str().unwrap());
    for path in ["/", "/sign-in", &page(&review), &run, "/reviews/x", "/api/v1/runs"] {
        let seen = owner.get(path).await;
        let policy = seen.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"),
            "{path}: {policy}"
        );
        assert!(
            !policy.contains("unsafe")
                && policy.contains("frame-ancestors 'none'")
                && policy.contains("form-action 'self'")
        );
        assert_eq!(seen.header("x-frame-options"), "DENY");
        assert_eq!(seen.header("x-content-type-options"), "nosniff");
        assert_eq!(seen.header("referrer-policy"), "same-origin");
        assert_eq!(seen.header("cache-control"), "no-store");
        if path.starts_with("/api") {
            continue;
        }
        assert_eq!(seen.header("content-type"), "text/html; charset=utf-8", "{path}");
        for part in seen.body.split('<').skip(1) {
            let tag = part.split('>').next().unwrap();
            assert!(!tag.starts_with("style"), "{path}: <{tag}>");
            assert!(!tag.starts_with("script") || tag.contains(" src=\"/static/"), "{path}: <{tag}>");
            assert!(
                !tag.contains(" style=") && !tag.contains(" on") && !tag.contains("javascript:"),
                "{path}: <{tag}>"
            );
        }
    }
    // The files are the same for everybody and may be kept: their names change with them.
    let home = owner.get("/").await.body;
    let file = home
        .split("href=\"")
        .find_map(|part| part.split('"').next().filter(|path| path.ends_with(".css")))
        .unwrap();
    let css = Visitor::new(&app).get(file).await;
    assert_eq!((css.status.as_u16(), css.header("content-type")), (200, "text/css; charset=utf-8"));
    assert!(css.header("cache-control").contains("immutable"));
    for wrong in ["/static/x/steward.css", "/static/../Cargo.toml", "/static/x/..%2f..%2fCargo.toml"] {
        assert!(Visitor::new(&app).get(wrong).await.status.is_client_error(), "{wrong}");
    }
    app.stop().await;
}

#[tokio::test]
async fn hostile_text_is_shown_and_does_nothing() {
    let app = letters().await;
    let evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'></textarea><svg onload=alert(3)> \
                https://evil.example [click](javascript:alert(4)) <!channel> pay \u{202e}lluf ni\u{202c} \u{200b}now \u{1b}[2J";
    let review = letter(&app, evil, &format!("{evil}\n{}", "x".repeat(100_000))).await;
    let owner = Visitor::signed_in(&app).await;
    for path in ["/".to_owned(), page(&review), format!("/runs/{}", review["run"].as_str().unwrap())] {
        let seen = owner.get(&path).await;
        assert_eq!(seen.status, 200);
        let outside = without_areas(&seen.body);
        for never in [
            "<script>",
            "<img",
            "<svg onload",
            "\u{202e}",
            "\u{200b}",
            "\u{1b}",
            "href=\"https://evil",
            "href=\"javascript",
        ] {
            assert!(!outside.contains(never), "{path} has {never:?}");
        }
        assert!(outside.contains("&lt;script&gt;alert(1)"), "{path}");
        // In a field it is what it is, so that it can be edited, and ends no field.
        assert!(!seen.body.contains("</textarea><svg"), "{path}");
    }
    let shown = owner.get(&page(&review)).await.body;
    assert!(shown.contains("<span class=\"unseen\">U+202E</span>lluf ni"), "what turns text is written out");
    assert!(
        shown.contains("<details class=\"fold\"") && shown.contains(&"x".repeat(100_000)),
        "folded, and all there"
    );
    app.stop().await;
}

/// A page without what stands in its text areas.
fn without_areas(page: &str) -> String {
    let mut kept = String::new();
    for (n, part) in page.split("<textarea").enumerate() {
        kept.push_str(if n == 0 {
            part
        } else {
            part.split_once("</textarea>").map_or("", |(_, rest)| rest)
        });
    }
    kept
}

#[tokio::test]
async fn a_review_shows_what_where_it_came_from_and_why_it_is_asked() {
    let app = app().await;
    let run = app.deliver(example_email("01-lead-bakery.eml")).await;
    let review = app.open_review(&run).await;
    let owner = Visitor::signed_in(&app).await;
    let shown = owner.get(&page(&review)).await.body;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for reason in review["question"]["reasons"].as_array().unwrap() {
        assert!(shown.contains(&html(&text(reason))), "{reason}");
    }
    let whole = app.get(&format!("/api/v1{}", page(&review))).await;
    assert!(shown.contains(">from outside</span>"), "where things came from");
    let risk = &review["question"]["risk"];
    assert!(shown.contains(&format!(">{} risk</span>", text(&risk["class"]))), "what is at stake: {risk}");
    for tag in risk["tags"].as_array().unwrap() {
        assert!(shown.contains(&format!(">{}</span>", html(&text(tag).replace('_', " ")))), "{tag}");
    }
    assert!(shown.contains(&html(&text(&whole["reversible"]))), "whether it can be taken back");
    assert!(shown.contains(&html(&text(&review["question"]["action"]["params"]["to"]))));
    assert_eq!(
        shown.matches("class=\"part\"").count() + shown.matches("class=\"part target\"").count(),
        review["question"]["action"]["params"].as_object().unwrap().len()
            + whole["artifacts"].as_array().unwrap().len()
    );
    assert!(shown.contains(review["digest"].as_str().unwrap()));
    app.stop().await;
}

fn html(text: &str) -> String {
    steward::ui::text::Inert::line(text).to_string()
}

#[tokio::test]
async fn without_a_script_a_letter_is_edited_looked_at_and_approved() {
    let app = letters().await;
    let review = letter(&app, "s", "Dear Nora,\nsee you on Thursday.\nMara").await;
    let (path, owner) = (page(&review), Visitor::signed_in(&app).await);
    let edit = [
        ("p.to", "nora@bergflowers.example"),
        ("p.subject", "A letter"),
        ("p.body", "Dear Nora,\r\nsee you on Friday.\r\nMara"),
    ];
    // Looking at an edit decides nothing.
    let preview = decide(&owner, &path, &[&edit[..], &[("do", "preview")]].concat()).await;
    assert_eq!(preview.status, 200);
    assert!(preview.body.contains("<del>Thursday</del><ins>Friday</ins>"), "{}", preview.body);
    assert!(!preview.body.contains("<h3>subject</h3>\n<div class=\"text diff\""), "what stays is no change");
    assert_eq!(status(&app, &review).await, "open");
    let same = [edit[0], edit[1], ("p.body", "Dear Nora,\r\nsee you on Thursday.\r\nMara"), ("do", "edit")];
    assert_eq!(decide(&owner, &path, &same).await.status, 422, "line ends of a browser are no edit");
    let done = decide(&owner, &path, &[&edit[..], &[("do", "edit")]].concat()).await;
    assert_eq!((done.status.as_u16(), done.header("location")), (303, path.as_str()));
    let row = app.get(&format!("/api/v1{path}")).await;
    assert_eq!((&row["status"], &row["decided_by"]), (&json!("edited"), &json!("owner via web")));
    assert_eq!(row["verdict"]["params"]["body"], "Dear Nora,\nsee you on Friday.\nMara");
    let after = owner.get(&path).await.body;
    assert!(after.contains("Approved with changes") && after.contains("<ins>Friday</ins>"), "{after}");
    let words: Vec<&str> =
        after.split("name=\"do\" value=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(words, ["comment"], "nothing is left to decide");
    app.run_that_is(review["run"].as_str().unwrap(), &["succeeded"]).await;
    app.assert_chains_hold().await;
    app.stop().await;
}

#[tokio::test]
async fn an_answer_is_made_from_fields_and_what_does_not_fit_is_told_and_kept() {
    let app = letters().await;
    let opened = app.post("/api/v1/runs", json!({"workflow": "question", "input": {}})).await;
    let review = app.open_review(opened["run"].as_str().unwrap()).await;
    let (path, owner) = (page(&review), Visitor::signed_in(&app).await);
    let shown = owner.get(&path).await.body;
    assert!(
        shown.contains("type=\"radio\"")
            && shown.contains("inputmode=\"decimal\"")
            && shown.contains("as JSON")
    );
    let wrong = [("do", "answer"), ("answer.fit", "half"), ("answer.note", "<b>kept</b>")];
    let refused = decide(&owner, &path, &wrong).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("this is not a number") && refused.body.contains("choose one"));
    assert!(
        refused.body.contains("&#60;b&#62;kept") || refused.body.contains("&lt;b&gt;kept"),
        "{}",
        refused.body
    );
    assert_eq!(status(&app, &review).await, "open");
    let right = [
        ("do", "answer"),
        ("answer.fit", "0.5"),
        ("answer.class", "0"),
        ("answer.urgent", "1"),
        ("answer.note", ""),
        ("answer.tags", "[\"a\"]"),
    ];
    assert_eq!(decide(&owner, &path, &right).await.status, 303);
    let row = app.get(&format!("/api/v1{path}")).await;
    assert_eq!(
        row["verdict"]["answer"],
        json!({"fit": 0.5, "class": "lead", "urgent": false, "tags": ["a"]})
    );
    app.stop().await;
}

#[tokio::test]
async fn of_two_deciders_one_wins_and_the_other_is_told_who_decided_what() {
    let app = letters().await;
    let owner = Visitor::signed_in(&app).await;
    let review = letter(&app, "s", "b").await;
    let path = page(&review);
    let [csrf, digest] = hidden(&owner, &path).await;
    let fields = |word| [("csrf", csrf.1.as_str()), ("digest", digest.1.as_str()), ("do", word)];
    let (approve, reject) = (fields("approve"), fields("reject"));
    let race = (0..10).map(|n| owner.post(&path, if n % 2 == 0 { &approve } else { &reject }));
    let all = futures_util::future::join_all(race).await;
    assert_eq!(
        all.iter().filter(|seen| seen.status == 303).count(),
        1,
        "{:?}",
        all.iter().map(|seen| seen.status).collect::<Vec<_>>()
    );
    for late in all.iter().filter(|seen| seen.status != 303) {
        assert_eq!(late.status, 409);
        assert!(
            late.body.contains("decided before you did") && late.body.contains("owner via web"),
            "{}",
            late.body
        );
    }
    // And so when the other one was elsewhere.
    let review = letter(&app, "t", "b").await;
    let path = page(&review);
    let [csrf, digest] = hidden(&owner, &path).await;
    let no = json!({"verdict": "rejected", "reason": "<i>not now</i>", "digest": review["digest"]});
    app.post(&format!("/api/v1{path}/decision"), no).await;
    let late = owner.post(&path, &[("csrf", &csrf.1), ("digest", &digest.1), ("do", "approve")]).await;
    assert_eq!(late.status, 409);
    assert!(
        late.body.contains("Rejected")
            && late.body.contains("owner via api")
            && late.body.contains("&lt;i&gt;not now")
    );
    app.stop().await;
}

#[tokio::test]
async fn what_was_not_seen_is_not_approved() {
    let app = letters().await;
    let owner = Visitor::signed_in(&app).await;
    let review = letter(&app, "s", "b").await;
    let path = page(&review);
    let [csrf, _] = hidden(&owner, &path).await;
    let other = "0".repeat(64);
    let typed = [("csrf", csrf.1.as_str()), ("digest", other.as_str()), ("p.body", "mine"), ("do", "edit")];
    let stale = owner.post(&path, &typed).await;
    assert_eq!(stale.status, 412);
    assert!(
        stale.body.contains("changed while you were looking") && stale.body.contains("mine"),
        "what was typed is kept"
    );
    assert_eq!(
        stale.field("digest"),
        review["digest"].as_str().unwrap(),
        "the page is about what is asked now"
    );
    for strange in [
        &[("csrf", csrf.1.as_str()), ("do", "approve")][..],
        &[("csrf", csrf.1.as_str()), ("digest", review["digest"].as_str().unwrap())],
        &[("csrf", csrf.1.as_str()), ("digest", review["digest"].as_str().unwrap()), ("do", "expire")],
        &[("csrf", csrf.1.as_str()), ("digest", review["digest"].as_str().unwrap()), ("do", "answer")],
    ] {
        assert_eq!(owner.post(&path, strange).await.status, 400, "{strange:?}");
    }
    assert_eq!(status(&app, &review).await, "open");
    app.stop().await;
}

#[tokio::test]
async fn a_problem_is_a_page_for_a_person_and_json_for_a_program() {
    let app = app().await;
    let owner = Visitor::signed_in(&app).await;
    let missing = format!("/reviews/{}", uuid::Uuid::nil());
    let page = owner.get(&missing).await;
    assert_eq!(page.status, 404);
    assert!(
        page.body.contains("<h1>There is no such review</h1>") && page.body.contains("href=\"/\""),
        "{}",
        page.body
    );
    let request =
        app.client.get(format!("{}{missing}", app.url)).header("cookie", owner.cookie.as_ref().unwrap());
    let json = request.send().await.unwrap();
    assert_eq!(json.headers()["content-type"], "application/problem+json");
    app.stop().await;
}

#[tokio::test]
async fn who_begins_to_watch_a_review_after_it_was_decided_hears_of_it_too() {
    let app = letters().await;
    let visitor = Visitor::signed_in(&app).await;
    let review = letter(&app, "news", "b").await;
    // The page was shown while the review was open, and its script came late.
    let yes = json!({"verdict": "approved", "digest": review["digest"]});
    app.post(&format!("/api/v1{}/decision", page(&review)), yes).await;
    let path = format!("{}/live", page(&review));
    let mut response = visitor.request(Method::GET, &path).send().await.unwrap();
    let mut said = String::new();
    while !said.contains("owner via api") {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.expect("something in time");
        said.push_str(std::str::from_utf8(&chunk.unwrap().expect("it goes on")).unwrap());
    }
    assert!(said.contains("approved"), "{said}");
}
