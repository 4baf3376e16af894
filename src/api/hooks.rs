//! `/hooks/*`: what comes in from outside by itself. Nothing is read before its sender is proven.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, LOCATION};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::api::extract::{Query, header, read};
use crate::api::problem::{Kind, Problem};
use crate::api::{ApiState, auth, extract};
use crate::domain::ids::WorkflowName;
use crate::store::journal::Opened;
use crate::triggers::email::MAX_EMAIL;
use crate::triggers::gather::Taken;
use crate::triggers::mail;
use crate::triggers::webhook::{self, Hook, Signature, SignatureError};

/// Above the largest email, so that the parser, which knows why, refuses what is just too large.
const MAX_EMAIL_BODY: usize = MAX_EMAIL + 64 * 1024;

const TIMESTAMP: HeaderName = HeaderName::from_static("x-steward-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-steward-signature");
/// As in draft-ietf-httpapi-idempotency-key-header.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The query of `/hooks/email`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmailQuery {
    /// The workflow to run, whatever the recipients; only with the token, for no signature covers it.
    workflow: Option<WorkflowName>,
}

/// `POST /hooks/email`: one raw RFC 5322 message.
pub(super) async fn email(
    State(state): State<ApiState>,
    Query(query): Query<EmailQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let with_token = parts.headers.contains_key(AUTHORIZATION);
    let busy = |_| Problem::new(Kind::Busy, "as many emails as fit are being read");
    let unproven = |error| Problem::new(Kind::Unauthorized, error);
    let (proof, now) = (proof(&parts.headers)?, state.door.engine().now());
    if with_token {
        auth::check(&parts.headers, state.token_digest)?;
    } else if proof.signature.is_none() || state.email_secret.is_none() {
        return Err(unsigned(&state));
    } else {
        proof.timely(now).map_err(unproven)?;
        if query.workflow.is_some() {
            return Err(Problem::new(Kind::Unauthorized, "naming a workflow takes the token"));
        }
    }
    let _permit = state.emails.clone().try_acquire_owned().map_err(busy)?;
    let raw = read(&parts.headers, body, MAX_EMAIL_BODY).await?;
    if let (false, Some(secret)) = (with_token, &state.email_secret) {
        webhook::verify(secret, proof, &raw, now).map_err(unproven)?;
    }
    let taken = mail::open(&state.mail, raw, query.workflow).await?;
    Ok(taken_in(taken))
}

fn unsigned(state: &ApiState) -> Problem {
    let detail = match state.email_secret {
        Some(_) => SignatureError::Missing.to_string(),
        None => "send the token of `.steward/token` as `Authorization: Bearer TOKEN`".to_owned(),
    };
    Problem::new(Kind::Unauthorized, detail)
}

/// `POST /hooks/{path}`: signed JSON.
pub(super) async fn webhook(
    State(state): State<ApiState>,
    Path(path): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let proof = proof(&parts.headers)?;
    let hook = Hook::knock(&state.definitions, &path, proof, state.door.engine().now())?;
    let raw = read(&parts.headers, body, extract::MAX_JSON).await?;
    Ok(taken_in(hook.open(&state.door, &raw).await?))
}

fn proof(headers: &HeaderMap) -> Result<Signature<'_>, Problem> {
    Ok(Signature {
        timestamp: header(headers, TIMESTAMP.as_str())?,
        signature: header(headers, SIGNATURE.as_str())?,
        key: header(headers, IDEMPOTENCY_KEY.as_str())?,
    })
}

/// As [`answer`]; 202 for what waits for its run.
fn taken_in(taken: Taken) -> Response {
    match taken {
        Taken::Run(opened) => answer(opened),
        Taken::Gathered { due_at, new } => {
            let body = json!({"run": null, "created": false, "gathered": new, "due_at": due_at});
            (StatusCode::ACCEPTED, Json(body)).into_response()
        }
        Taken::Aside => (StatusCode::OK, Json(json!({"run": null, "created": false}))).into_response(),
    }
}

/// 201 for a new run, 200 for one that the same key had opened.
pub(super) fn answer(opened: Opened) -> Response {
    let run = opened.run();
    let (status, created) = match opened {
        Opened::New(_) => (StatusCode::CREATED, true),
        Opened::Existing(_) => (StatusCode::OK, false),
    };
    let location = [(LOCATION, format!("/api/v1/runs/{run}"))];
    (status, location, Json(json!({"run": run, "created": created}))).into_response()
}
