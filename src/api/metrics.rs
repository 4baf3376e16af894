//! Numbers: reviews by workflow for people, everything for a monitoring system.
//!
//! | family | what |
//! |---|---|
//! | `steward_reviews_open`, `steward_reviews_oldest_seconds` | open reviews by workflow, the age of the oldest |
//! | `steward_reviews_decided_total` | decided reviews by workflow and outcome, from the first day on |
//! | `steward_review_decision_seconds` | from asking to deciding, by workflow: median and 90 % of the last 30 days, sum and count from the first day on |
//! | `steward_reviews_unchanged_ratio`, `steward_reviews_expired_ratio` | shares by workflow, of the last 30 days |
//! | `steward_reviews_hasty_total` | approvals of high risk too fast to have been read, from the first day on |
//! | `steward_runs`, `steward_effects` | all that are kept, by status; counted once a minute |
//! | `steward_runs_in_motion`, `steward_runs_queued` | of this node; of all |
//! | `steward_journal_transitions_total`, `steward_journal_batches_total` | of this node since it started |
//! | `steward_commits_fenced_total` | transitions refused because another node owns the run |
//! | `steward_model_calls_today`, `steward_model_spend_today` | by model, on the owner's day |

mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::text::{Kind as Is, MEDIA_TYPE, Text};
use crate::api::ApiState;
use crate::api::extract::Query;
use crate::api::problem::{Kind, Problem};
use crate::domain::budget::Day;
use crate::store::metrics::{Decided, ReviewMetrics, Totals};
use crate::store::spend::report::By;

/// How old an answer may be: however many scrape, the database is asked so often.
const FRESH: Duration = Duration::from_secs(5);

/// How old the counts of all runs and effects may be: counting a million takes a moment.
const COUNTED: Duration = Duration::from_secs(60);

/// Of how long shares and quantiles of `GET /metrics` tell: what is asked every few seconds must not read all that
/// was ever decided. Counters do not fall, and come from totals that are kept.
const WINDOW: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What was counted last.
#[derive(Clone, Default)]
pub(super) struct Scrapes(Arc<Mutex<Last>>);

#[derive(Default)]
struct Last {
    text: Option<(Instant, String)>,
    totals: Option<(Instant, Totals)>,
}

/// The query of `GET /api/v1/metrics/reviews`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only what was decided in the last so many days; everything when absent.
    days: Option<u32>,
}

/// `GET /api/v1/metrics/reviews`: open reviews, how long deciding takes, and how it goes, by workflow.
pub(super) async fn reviews(
    State(state): State<ApiState>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Problem> {
    let since = match wanted.days {
        None => None,
        Some(days @ 1..=36_500) => {
            let span = SignedDuration::from_hours(24 * i64::from(days));
            state.door.engine().now().checked_sub(span).ok()
        }
        Some(_) => return Err(Problem::new(Kind::BadRequest, "`days` is a number from 1 to 36500")),
    };
    let hasty = state.definitions.settings.autonomy.hasty();
    let workflows = state.store().review_metrics(since, hasty.within_ms).await?;
    Ok(Json(json!({"since": since, "hasty_ms": hasty.within_ms, "workflows": workflows})))
}

/// `GET /metrics`, for the token or the scraper's own.
pub(super) async fn scrape(State(state): State<ApiState>) -> Result<Response, Problem> {
    // Held while the database is asked: whoever scrapes meanwhile gets the same answer.
    let mut last = state.scrapes.0.lock().await;
    let fresh = last.text.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, text)| text.clone());
    let text = match fresh {
        Some(text) => text,
        None => {
            let totals = match last.totals.take().filter(|(at, _)| at.elapsed() < COUNTED) {
                Some(totals) => totals,
                None => (Instant::now(), state.store().totals().await?),
            };
            let text = collect(&state, &totals.1).await?;
            last.totals = Some(totals);
            last.text = Some((Instant::now(), text.clone()));
            text
        }
    };
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}

async fn collect(state: &ApiState, totals: &Totals) -> Result<String, Problem> {
    let hasty = state.definitions.settings.autonomy.hasty();
    let mut text = Text::default();
    let since = state.door.engine().now().checked_sub(WINDOW).ok();
    let metrics = state.store().review_metrics(since, hasty.within_ms).await?;
    of_reviews(&mut text, &metrics, &state.store().decision_totals().await?);
    of_engine(&mut text, state, totals).await?;
    of_money(&mut text, state).await?;
    Ok(text.finish())
}

fn of_reviews(text: &mut Text, metrics: &[ReviewMetrics], totals: &BTreeMap<String, Decided>) {
    type Value = fn(&ReviewMetrics) -> Option<f64>;
    let gauges: [(&'static str, &str, Value); 4] = [
        ("steward_reviews_open", "Reviews that wait for a decision.", |of| Some(of.open as f64)),
        ("steward_reviews_oldest_seconds", "Age of the oldest open review.", |of| of.oldest_open_seconds),
        (
            "steward_reviews_unchanged_ratio",
            "Share of approvals asked for that were given without a change, of the last 30 days.",
            |of| of.unchanged_ratio,
        ),
        (
            "steward_reviews_expired_ratio",
            "Share of reviews that nobody decided in time, of the last 30 days.",
            |of| of.expired_ratio,
        ),
    ];
    for (name, help, value) in gauges {
        let mut family = text.family(name, Is::Gauge, help);
        for of in metrics {
            if let Some(value) = value(of) {
                family.sample(&[("workflow", &of.workflow)], value);
            }
        }
    }
    let mut decided = text.family("steward_reviews_decided_total", Is::Counter, "Reviews by how they ended.");
    for (workflow, of) in totals {
        let outcomes = [
            ("approved", of.approved),
            ("edited", of.edited),
            ("rejected", of.rejected),
            ("answered", of.answered),
            ("expired", of.expired),
        ];
        for (outcome, count) in outcomes {
            decided.sample(&[("workflow", workflow), ("outcome", outcome)], count as f64);
        }
    }
    let help = "Approvals of high risk that were too fast to have been read.";
    let mut fast = text.family("steward_reviews_hasty_total", Is::Counter, help);
    for (workflow, of) in totals {
        fast.sample(&[("workflow", workflow)], of.hasty as f64);
    }
    let help = "From asking to deciding, seconds; quantiles of the last 30 days.";
    let mut took = text.family("steward_review_decision_seconds", Is::Summary, help);
    for (workflow, of) in totals {
        let lately = metrics.iter().find(|lately| lately.workflow == *workflow);
        let workflow = ("workflow", workflow.as_str());
        let (median, p90) = lately.map_or((None, None), |lately| (lately.median_seconds, lately.p90_seconds));
        for (quantile, value) in [("0.5", median), ("0.9", p90)] {
            took.sample(&[workflow, ("quantile", quantile)], value.unwrap_or(f64::NAN));
        }
        took.part("_sum", &[workflow], of.total_seconds).part("_count", &[workflow], of.in_time() as f64);
    }
}

async fn of_engine(text: &mut Text, state: &ApiState, totals: &Totals) -> Result<(), Problem> {
    let engine = state.door.engine();
    let by_status = [
        ("steward_runs", "Runs that are kept, by status.", &totals.runs),
        ("steward_effects", "Effects that are kept, by status.", &totals.effects),
    ];
    for (name, help, counts) in by_status {
        let mut family = text.family(name, Is::Gauge, help);
        for (status, count) in counts {
            family.sample(&[("status", status)], *count as f64);
        }
    }
    let queued = state.store().backlog().await?.total;
    let journal = engine.journal.written();
    let numbers = [
        ("steward_runs_in_motion", Is::Gauge, "Runs in motion on this node.", state.door.in_motion() as f64),
        ("steward_runs_queued", Is::Gauge, "Runs that wait for their turn.", queued as f64),
        (
            "steward_journal_transitions_total",
            Is::Counter,
            "Transitions this node brought to the database.",
            journal.transitions as f64,
        ),
        (
            "steward_journal_batches_total",
            Is::Counter,
            "Batches in which it brought them.",
            journal.batches as f64,
        ),
        (
            "steward_commits_fenced_total",
            Is::Counter,
            "Transitions refused because another node owns the run.",
            engine.fenced.load(std::sync::atomic::Ordering::Relaxed) as f64,
        ),
    ];
    for (name, kind, help, value) in numbers {
        text.family(name, kind, help).sample(&[], value);
    }
    Ok(())
}

/// The owner's day: a counter of all days would have to know what retention has removed.
async fn of_money(text: &mut Text, state: &ApiState) -> Result<(), Problem> {
    let settings = &state.definitions.settings;
    let today = Day::at(state.door.engine().now(), &settings.zone()).0;
    let lines = state.store().spent(By::Model, today, today).await?;
    let mut calls = text.family("steward_model_calls_today", Is::Gauge, "Calls of models that cost, today.");
    for line in &lines {
        calls.sample(&[("model", &line.name)], line.calls as f64);
    }
    let help = "What they cost, in the workspace's currency.";
    let mut spend = text.family("steward_model_spend_today", Is::Gauge, help);
    for line in &lines {
        let labels = [("model", line.name.as_str()), ("currency", settings.workspace.currency.as_str())];
        spend.sample(&labels, line.spent_micros as f64 / 1e6);
    }
    Ok(())
}
