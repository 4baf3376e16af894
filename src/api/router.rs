//! The table of the product: every route in one line.

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};

use crate::api::{
    ApiState, asides, audit, auth, calls, control, events, guard, health, hooks, memory, metrics, models,
    notices, policy, problem, reviews, runs, schedules, sign_in, slack, spend, watch, workflows,
};

/// Everything that Steward serves, with the `pages` of the web inbox. Every route asks for what [`auth::gate`]
/// says, which is the token unless its path is named there.
pub fn router(state: ApiState, pages: Router<ApiState>) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/hooks/email", post(hooks::email))
        .route("/hooks/slack", post(slack::interact))
        .route("/hooks/{path}", post(hooks::webhook))
        .route("/api/v1/runs", get(runs::list).post(runs::open))
        .route("/api/v1/runs/{id}", get(runs::show))
        .route("/api/v1/runs/{id}/journal", get(runs::journal))
        .route("/api/v1/runs/{id}/calls", get(calls::list))
        .route("/api/v1/calls/{id}", get(calls::show))
        .route("/api/v1/effects/{id}/trace", get(calls::trace))
        .route("/api/v1/runs/{id}/events", get(watch::run))
        .route("/api/v1/runs/bulk", post(control::bulk))
        .route("/api/v1/runs/{id}/cancel", post(control::cancel))
        .route("/api/v1/runs/{id}/pause", post(control::pause))
        .route("/api/v1/runs/{id}/resume", post(control::resume))
        .route("/api/v1/runs/{id}/retry", post(control::retry))
        .route("/api/v1/runs/{id}/rerun", post(control::rerun))
        .route("/api/v1/pause", post(control::pause_all))
        .route("/api/v1/resume", post(control::resume_all))
        .route("/api/v1/pauses", get(control::pauses))
        .route("/api/v1/events", post(events::publish))
        .route("/api/v1/reviews", get(reviews::list))
        .route("/api/v1/reviews/decisions", post(asides::decide))
        .route("/api/v1/reviews/edits", get(asides::edits))
        .route("/api/v1/reviews/{id}", get(reviews::show))
        .route("/api/v1/reviews/{id}/comments", post(asides::comment))
        .route("/api/v1/reviews/{id}/snooze", post(asides::snooze))
        .route("/api/v1/reviews/{id}/decision", post(reviews::decide))
        .route("/api/v1/effects/{id}/call-back", post(asides::call_effect_back))
        .route("/api/v1/notices", get(notices::list))
        .route("/api/v1/notices/{id}/acknowledge", post(notices::acknowledge))
        .route("/api/v1/workflows", get(workflows::list))
        .route("/api/v1/workflows/{name}", get(workflows::show))
        .route("/api/v1/workflows/{name}/promote", post(workflows::promote))
        .route("/api/v1/workflows/{name}/demote", post(workflows::demote))
        .route("/api/v1/metrics/reviews", get(metrics::reviews))
        .route("/metrics", get(metrics::scrape))
        .route("/api/v1/schedules", get(schedules::list))
        .route("/api/v1/spend", get(spend::show))
        .route("/api/v1/memory", get(memory::list).post(memory::add))
        .route("/api/v1/memory/search", get(memory::search))
        .route("/api/v1/models", get(models::list))
        .route("/api/v1/models/test", post(models::test))
        .route("/api/v1/models/providers/{name}/reset", post(models::reset))
        .route("/api/v1/policy/explain", post(policy::explain))
        .route("/api/v1/policy/try", post(policy::try_on))
        .route("/api/v1/audit/verify", get(audit::verify))
        .route("/api/v1/sign-in-links", post(sign_in::link))
        .route("/api/v1/sessions", delete(sign_in::revoke_all))
        .merge(pages)
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        // The last is the outermost: a panic anywhere inside still gives an answer.
        .layer(from_fn_with_state(state.clone(), auth::require))
        .layer(from_fn_with_state(state.clone(), guard::load))
        .layer(from_fn(guard::time))
        .layer(from_fn(guard::panics))
        .layer(from_fn(guard::headers))
        .with_state(state)
}
