//! In and out. Opening a link only shows a button: what looks at links before people do uses none up.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::api::ApiState;
use crate::api::auth::SIGN_IN;
use crate::api::extract::Query;
use crate::api::problem::Problem;
use crate::api::session::{Form, Session};
use crate::config::secret::kept;
use crate::ui::dress::html;
use crate::ui::text::Inert;

#[derive(Template)]
#[template(path = "sign_in.html", config = "src/ui/askama.toml")]
struct SignInPage {
    workspace: Inert,
    /// A link that would let somebody in; the secret of it.
    link: Option<String>,
    /// Somebody came with a link that lets nobody in.
    is_void: bool,
    csrf: Option<String>,
}

/// The query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Opened {
    link: Option<String>,
}

fn page(state: &ApiState, link: Option<String>, is_void: bool) -> Response {
    let workspace = Inert::line(&state.definitions.settings.workspace.name);
    html(&SignInPage { workspace, link, is_void, csrf: None })
}

/// `GET /sign-in`: what a link is and how to get one; with one, the button.
pub(super) async fn show(
    State(state): State<ApiState>,
    Query(opened): Query<Opened>,
) -> Result<Response, Problem> {
    let Some(link) = opened.link else { return Ok(page(&state, None, false)) };
    let sealer = &state.web.sealer;
    sealer.may_look(&link)?;
    let good = state.store().sign_in_link_is_good(kept(&link)).await?;
    if good {
        sealer.was_good(&link);
    }
    Ok(page(&state, good.then_some(link), !good))
}

/// `POST /sign-in`: uses the link up, and begins a session.
pub(super) async fn enter(
    State(state): State<ApiState>,
    Extension(form): Extension<Form>,
) -> Result<Response, Problem> {
    let link = form.get("link").unwrap_or_default();
    let sealer = &state.web.sealer;
    sealer.may_look(link)?;
    let session = sealer.fresh();
    if !state.store().sign_in(kept(link), kept(&session)).await? {
        tracing::warn!("a sign-in was refused: its link is unknown, used or too old");
        let mut response = page(&state, None, true);
        *response.status_mut() = StatusCode::FORBIDDEN;
        return Ok(response);
    }
    sealer.was_good(link);
    tracing::info!("the owner signed in to the web inbox");
    Ok(go("/", state.web.cookie(&session)))
}

/// `POST /sign-out`
pub(super) async fn leave(
    State(state): State<ApiState>,
    Extension(session): Extension<Session>,
) -> Result<Response, Problem> {
    state.store().revoke_session(session.digest()).await?;
    tracing::info!("the owner signed out of the web inbox");
    Ok(go(SIGN_IN, state.web.no_cookie()))
}

fn go(to: &'static str, cookie: HeaderValue) -> Response {
    let headers = [(LOCATION, HeaderValue::from_static(to)), (SET_COOKIE, cookie)];
    (StatusCode::SEE_OTHER, headers).into_response()
}
