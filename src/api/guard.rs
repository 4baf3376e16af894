//! What stands around every handler: a bound on time, on load, and on what a fault can do.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use crate::api::problem::{Kind, Problem};
use crate::api::{ApiState, auth};

/// The longest a request may take, its body included: people and proxies give up about then.
const USUAL: Duration = Duration::from_secs(30);

/// For requests whose work grows with what is stored, or is done elsewhere: the whole journal read, a large
/// document embedded, models asked.
const LONG: Duration = Duration::from_secs(600);

/// Paths that are given [`LONG`].
const SLOW: [&str; 3] = ["/api/v1/audit/verify", "/api/v1/memory", "/api/v1/models/test"];

/// Ends what takes too long.
pub(super) async fn time(request: Request, next: Next) -> Response {
    let limit = if SLOW.contains(&request.uri().path()) { LONG } else { USUAL };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::new(Kind::TimedOut, format!("no answer within {} s", limit.as_secs())).into_response()
        }
    }
}

/// Turns away what comes while too much is under way, strangers by themselves; health is always answered.
pub(super) async fn load(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if auth::OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let places = if auth::is_known(&state, &request) { &state.in_flight } else { &state.strangers };
    match places.clone().try_acquire_owned() {
        Ok(_permit) => next.run(request).await,
        Err(_) => Problem::new(Kind::Busy, "as many requests as can be served are under way").into_response(),
    }
}

/// A panic in a handler is an answer without details; the panic hook has logged it.
pub(super) async fn panics(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    // What stands behind it in a mailed link is a secret.
    let path = auth::MAILED
        .iter()
        .find(|mailed| path.starts_with(*mailed))
        .map_or(path, |mailed| *mailed)
        .to_owned();
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => Problem::internal(format!("a handler of {path} panicked")).into_response(),
    }
}

/// Nothing of the owner's is kept by caches or taken for something it is not; what may be kept says so itself.
pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
