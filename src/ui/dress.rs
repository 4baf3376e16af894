//! What every answer carries to a browser, and how a problem looks to a person.

use askama::Template;
use axum::extract::Request;
use axum::http::header::{
    ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};

use crate::api::auth::{Gate, gate};
use crate::api::problem::{Kind, Problem};
use crate::ui::text::Inert;

/// Nothing but our own files: no script and no style inside a page, no frame around it, no form that leads
/// elsewhere. What hostile text there is in a page stays text even if it were not escaped.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// `same-origin`, not `no-referrer`: without a referrer browsers send `Origin: null` with our own forms.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (REFERRER_POLICY, "same-origin"),
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What a page whose address is a secret carries besides: nothing of the address is told to anybody, and no search
/// engine keeps it.
const SECRET: [(HeaderName, &str); 2] = [
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("x-robots-tag"), "noindex, nofollow, noarchive"),
];

/// What went wrong, for a person.
#[derive(Template)]
#[template(path = "problem.html", config = "src/ui/askama.toml")]
struct ProblemPage {
    title: &'static str,
    detail: Inert,
    status: u16,
    signed_out: bool,
    csrf: Option<String>,
}

/// Dresses an answer.
pub(super) async fn dress(request: Request, next: Next) -> Response {
    let gate = gate(request.uri().path());
    let is_secret = matches!(gate, Gate::Link | Gate::Mailed);
    let is_page = is_secret || matches!(gate, Gate::Session | Gate::Visitor);
    let wants_page = is_page && accepts_html(request.headers());
    let mut response = next.run(request).await;
    if wants_page && let Some(problem) = response.extensions().get::<Problem>().cloned() {
        response = page_of(&problem, response.headers());
    }
    let secret = SECRET.into_iter().filter(|_| is_secret);
    for (name, value) in HEADERS.into_iter().chain(secret) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// A page that says one thing, and shows the way to the inbox.
pub(super) fn told(status: StatusCode, title: &'static str, detail: &str) -> Response {
    says(status, title, detail, false)
}

fn says(status: StatusCode, title: &'static str, detail: &str, signed_out: bool) -> Response {
    let detail = Inert::line(detail);
    let page = ProblemPage { title, detail, status: status.as_u16(), signed_out, csrf: None };
    (status, html(&page)).into_response()
}

fn page_of(problem: &Problem, before: &HeaderMap) -> Response {
    let signed_out = problem.kind == Kind::SignedOut;
    let mut response = says(problem.kind.status(), problem.title(), problem.detail(), signed_out);
    for name in [
        RETRY_AFTER,
        SET_COOKIE,
        axum::http::header::CACHE_CONTROL,
        axum::http::header::X_CONTENT_TYPE_OPTIONS,
    ] {
        if let Some(value) = before.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// A page. A template that cannot be filled is a fault of ours, and told as one.
pub fn html(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            let plain = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
            (StatusCode::INTERNAL_SERVER_ERROR, plain, "Something is wrong in Steward; the log has it.")
                .into_response()
        }
    }
}
