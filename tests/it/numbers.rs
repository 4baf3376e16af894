//! What is counted, and how far workflows are trusted, over HTTP.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use steward::api::session::Web;
use steward::config::secret::Secret;
use steward::domain::autonomy::own;
use steward::domain::event::Verdict;
use steward::triggers::email::authentic::Authenticator;
use steward::triggers::mail::Mailroom;

use crate::autonomy::House;
use crate::support::app;
use crate::support::forge::by_hand;

#[tokio::test]
async fn workflows_are_listed_and_changed_by_hand_and_what_does_not_exist_is_said() {
    let app = app().await;
    let listed = app.get("/api/v1/workflows").await;
    let names: Vec<&str> =
        listed["workflows"].as_array().unwrap().iter().map(|row| row["workflow"].as_str().unwrap()).collect();
    assert!(names.contains(&"lead-intake") && !names.contains(&own::WORKFLOW), "{names:?}");
    for (name, body) in
        [("nothing", json!({})), (own::WORKFLOW, json!({})), ("lead-intake", json!({"version": 9}))]
    {
        for what in ["promote", "demote"] {
            let path = format!("/api/v1/workflows/{name}/{what}");
            let (status, problem) = app.call(Method::POST, &path, Some(body.clone())).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{problem}");
        }
    }
    let up = app.post("/api/v1/workflows/lead-intake/promote", json!({"version": 1})).await;
    let down = app.post("/api/v1/workflows/lead-intake/demote", json!({})).await;
    assert_eq!(
        (&up["was"], &down["was"], &down["stage"]),
        (&json!("supervised"), &json!("live"), &json!("supervised"))
    );
    let again = app.post("/api/v1/workflows/lead-intake/demote", json!({})).await;
    assert_eq!(again["changed"], false);
    let shown = app.get("/api/v1/workflows/lead-intake").await;
    assert_eq!(shown["changes"].as_array().unwrap().len(), 2);
    assert_eq!(shown["promote"], json!({"after": 20, "unchanged": 0.95}));
    app.stop().await;
}

#[tokio::test]
async fn numbers_are_for_the_token_and_for_the_scrapers_own_which_opens_nothing_else() {
    let house = House::new(|_| {}).await.observed();
    let run = house.decided("one", Verdict::Approved).await;
    house.rig.becomes(run, "succeeded").await;
    house.rig.open_about("two", None).await;
    house.counted(1).await;
    // What was decided long ago counts for the counters alone, and so does what is not kept any more.
    let long_ago = "
        insert into decisions (review_id, run_id, step, workflow, version, ask, risk, sampled, outcome, opened_at,
            decided_at, decided_by, looked_ms)
        select gen_random_uuid(), gen_random_uuid(), 'pay', workflow, version, ask, risk, false, 'rejected',
            now() - interval '41 days', now() - interval '40 days', 'owner', 1 from decisions;
        update decision_totals set rejected = 2, seconds = seconds + 2 * 86400";
    by_hand(&house.store, long_ago).await;
    let mail = Mailroom {
        door: house.rig.door.clone(),
        definitions: house.definitions.clone(),
        authenticator: Authenticator::fixed([]).unwrap(),
        aside: None,
    };
    let state = steward::api::ApiState::new(
        house.rig.door.clone(),
        house.definitions.clone(),
        (Arc::new(mail), None),
        &Secret::new("owner".to_owned()),
        None,
        Web::new("http://127.0.0.1:1/".parse().unwrap(), &Secret::new("owner".to_owned())),
    );
    let scraper = Secret::new("scraper".to_owned());
    let router = steward::ui::serve(state.with_metrics_token(Some(&scraper)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = reqwest::Client::new();
    let get = async |path: &str, token: &str| {
        let request = client.get(format!("http://{address}{path}")).bearer_auth(token);
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    };
    assert_eq!(get("/metrics", "nobody").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(get("/api/v1/runs", "scraper").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(get("/metrics/", "scraper").await.0, StatusCode::UNAUTHORIZED);
    let (status, text) = get("/metrics", "scraper").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(get("/metrics", "owner").await.0, StatusCode::OK);
    for line in [
        "steward_reviews_open{workflow=\"test\"} 1",
        "steward_reviews_decided_total{workflow=\"test\",outcome=\"approved\"} 1",
        "steward_reviews_decided_total{workflow=\"test\",outcome=\"rejected\"} 2",
        "steward_reviews_unchanged_ratio{workflow=\"test\"} 1",
        "steward_review_decision_seconds_count{workflow=\"test\"} 3",
        "steward_runs{status=\"succeeded\"} 1",
        "steward_effects{status=\"succeeded\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    well_formed(&text);
    let (_, reviews) = get("/api/v1/metrics/reviews?days=1", "owner").await;
    let reviews: Value = serde_json::from_str(&reviews).unwrap();
    let of = &reviews["workflows"][0];
    assert_eq!((&of["workflow"], &of["open"], &of["approved"]), (&json!("test"), &json!(1), &json!(1)));
    assert!(of["median_seconds"].as_f64().unwrap() >= 0.0);
    assert_eq!(get("/api/v1/metrics/reviews?days=0", "owner").await.0, StatusCode::BAD_REQUEST);
    house.stop().await;
}

/// Every sample stands in its family, which has help and a type before it and is told once.
fn well_formed(text: &str) {
    let (mut family, mut seen) = (String::new(), std::collections::BTreeSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(seen.insert(family.clone()), "{family} twice");
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            assert!(of.starts_with(&format!("{family} ")), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.split('{').next().unwrap();
            let parts = [family.clone(), format!("{family}_sum"), format!("{family}_count")];
            assert!(parts.iter().any(|part| part == name), "{line} stands in {family}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
