//! What mailed links open: the page of one review, and the end of the digest. `GET` only shows, however often
//! and by whomever it is done; `POST` acts.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use crate::api::ApiState;
use crate::api::problem::{Kind, Problem};
use crate::api::session::{Form, Session};
use crate::reviews::email::link::{self, Behind};
use crate::ui::dress::{html, told};
use crate::ui::review;
use crate::ui::viewer::Viewer;

/// Whether the digest is sent.
#[derive(Template)]
#[template(path = "digest.html", config = "src/ui/askama.toml")]
struct DigestPage {
    csrf: Option<String>,
    here: String,
    is_wanted: bool,
}

/// `GET /r/{secret}`
pub(super) async fn show(
    State(state): State<ApiState>,
    session: Option<Extension<Session>>,
    Path(secret): Path<String>,
) -> Result<Response, Problem> {
    let viewer = Viewer::linked(&secret, session.as_deref());
    match link::look(state.store(), &secret).await? {
        Behind::Open(row) | Behind::Over(row) => review::show_to(&state, row.id, &viewer).await,
        void => Ok(opens_nothing(&void)),
    }
}

/// `POST /r/{secret}`
pub(super) async fn post(
    State(state): State<ApiState>,
    session: Option<Extension<Session>>,
    Path(secret): Path<String>,
    Extension(form): Extension<Form>,
) -> Result<Response, Problem> {
    let viewer = Viewer::linked(&secret, session.as_deref());
    match link::look(state.store(), &secret).await? {
        Behind::Open(row) | Behind::Over(row) => review::decide_as(&state, row.id, &viewer, form).await,
        void => Ok(opens_nothing(&void)),
    }
}

/// The page of a link that opens nothing that could be decided.
pub(super) fn opens_nothing(behind: &Behind) -> Response {
    let (status, title, detail) = match behind {
        Behind::Changed => (
            StatusCode::GONE,
            "This has changed",
            "What this link was about is not what is asked any more. A newer message has a link to it, and so \
             has the inbox.",
        ),
        Behind::Expired => (StatusCode::GONE, "This link has expired", "What waits for you is in the inbox."),
        Behind::Nothing | Behind::Open(_) | Behind::Over(_) => (
            StatusCode::NOT_FOUND,
            "This link opens nothing",
            "It may be mistyped, or too old. What waits for you is in the inbox.",
        ),
    };
    told(status, title, detail)
}

/// `GET /u/{token}`
pub(super) async fn digest(
    State(state): State<ApiState>,
    Path(token): Path<String>,
) -> Result<Response, Problem> {
    let address = subscriber(&state, &token)?;
    let is_wanted = state.store().digest_wanted(&address).await?;
    Ok(html(&DigestPage { csrf: None, here: format!("/u/{token}"), is_wanted }))
}

/// `POST /u/{token}`: what a mail program sends for its reader (RFC 8058), and the buttons of the page.
pub(super) async fn want_digest(
    State(state): State<ApiState>,
    Path(token): Path<String>,
    Extension(form): Extension<Form>,
) -> Result<Response, Problem> {
    let address = subscriber(&state, &token)?;
    let is_wanted = form.get("digest") == Some("on");
    state.store().want_digest(&address, is_wanted).await?;
    Ok(html(&DigestPage { csrf: None, here: format!("/u/{token}"), is_wanted }))
}

fn subscriber(state: &ApiState, token: &str) -> Result<String, Problem> {
    let desk = state.desk.as_ref().filter(|desk| desk.ends_digest(token));
    let desk = desk.ok_or_else(|| Problem::new(Kind::UnknownRoute, "this link ends nothing"))?;
    Ok(desk.approver())
}
