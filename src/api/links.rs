//! What mailed links open: the page of one review, and the end of the digest. `GET` only shows, however often
//! and by whomever it is done; `POST` acts.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, X_FRAME_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use serde_json::Value;
use url::form_urlencoded;

use crate::api::extract::{MAX_JSON, read};
use crate::api::problem::{Kind, Problem};
use crate::api::{ApiState, auth, link_page as page};
use crate::domain::digest::Digest;
use crate::domain::event::Verdict;
use crate::domain::risk::RiskClass;
use crate::reviews::DecideRefusal;
use crate::reviews::email::link::{self, Behind, LinkRefusal};

/// What every page carries: nothing is fetched from anywhere, nothing of the address is told to anybody, no
/// search engine keeps it.
const DRESS: [(HeaderName, &str); 4] = [
    (CONTENT_SECURITY_POLICY, page::POLICY),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("x-robots-tag"), "noindex, nofollow, noarchive"),
];

/// `GET /r/{secret}`
pub(super) async fn show(
    State(state): State<ApiState>,
    Path(secret): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let behind = link::look(state.store(), &secret).await?;
    Ok(shown(&state, &headers, &behind, None))
}

/// `POST /r/{secret}`
pub(super) async fn decide(
    State(state): State<ApiState>,
    Path(secret): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let form = Form::read(&parts.headers, body).await?;
    let behind = link::look(state.store(), &secret).await?;
    let verdict = match verdict(&form, &behind) {
        Ok(verdict) => verdict,
        Err(why) => return Ok(shown(&state, &parts.headers, &behind, Some((StatusCode::BAD_REQUEST, why)))),
    };
    let signed_in = signed_in(&state, &parts.headers);
    let seen = form.get("digest").and_then(|digest| digest.parse::<Digest>().ok());
    let refusal = match link::act(&state.door, &secret, seen, signed_in, verdict).await {
        // The page says what came of it; reloading it sends nothing again.
        Ok(()) => return Ok((StatusCode::SEE_OTHER, [(LOCATION, format!("/r/{secret}"))]).into_response()),
        Err(LinkRefusal::Store(error) | LinkRefusal::Decide(DecideRefusal::Store(error))) => {
            return Err(error.into());
        }
        Err(refusal) => refusal,
    };
    let told = match &refusal {
        LinkRefusal::SignIn => (StatusCode::FORBIDDEN, refusal.to_string()),
        LinkRefusal::Changed => {
            (StatusCode::CONFLICT, "This changed since you looked at it. Nothing was decided.".into())
        }
        LinkRefusal::Behind(_) | LinkRefusal::Decide(DecideRefusal::Over { .. }) => {
            (StatusCode::CONFLICT, "What you said changed nothing.".into())
        }
        LinkRefusal::Decide(other) => (StatusCode::UNPROCESSABLE_ENTITY, other.to_string()),
        LinkRefusal::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "Try again in a moment.".into()),
    };
    let behind = link::look(state.store(), &secret).await?;
    Ok(shown(&state, &parts.headers, &behind, Some(told)))
}

/// `GET /u/{token}`
pub(super) async fn digest(
    State(state): State<ApiState>,
    Path(token): Path<String>,
) -> Result<Response, Problem> {
    let address = subscriber(&state, &token)?;
    let wanted = state.store().digest_wanted(&address).await?;
    Ok(dressed(StatusCode::OK, page::digest(wanted, &format!("/u/{token}"))))
}

/// `POST /u/{token}`: what a mail program sends for its reader (RFC 8058), and the buttons of the page.
pub(super) async fn want_digest(
    State(state): State<ApiState>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let address = subscriber(&state, &token)?;
    let (parts, body) = request.into_parts();
    let form = Form::read(&parts.headers, body).await?;
    let wanted = form.get("digest") == Some("on");
    state.store().want_digest(&address, wanted).await?;
    Ok(dressed(StatusCode::OK, page::digest(wanted, &format!("/u/{token}"))))
}

fn subscriber(state: &ApiState, token: &str) -> Result<String, Problem> {
    let desk = state.desk.as_ref().filter(|desk| desk.ends_digest(token));
    let desk = desk.ok_or_else(|| Problem::new(Kind::UnknownRoute, "this link ends nothing"))?;
    Ok(desk.approver())
}

/// Whether whoever asks is known as the owner besides holding a link. The one seam to sessions.
fn signed_in(state: &ApiState, headers: &HeaderMap) -> bool {
    auth::check(headers, state.token_digest).is_ok()
}

fn shown(
    state: &ApiState,
    headers: &HeaderMap,
    behind: &Behind,
    told: Option<(StatusCode, String)>,
) -> Response {
    let usual = match behind {
        Behind::Nothing => StatusCode::NOT_FOUND,
        Behind::Expired | Behind::Changed => StatusCode::GONE,
        Behind::Open(_) | Behind::Over(_) => StatusCode::OK,
    };
    let may = match behind {
        Behind::Open(review) => review.question.class() < RiskClass::High || signed_in(state, headers),
        _ => false,
    };
    let zone = state.definitions.settings.zone();
    let (status, word) = match told {
        Some((status, word)) if usual == StatusCode::OK => (status, Some(word)),
        _ => (usual, None),
    };
    dressed(status, page::review(behind, may, word.as_deref(), &zone))
}

fn dressed(status: StatusCode, page: String) -> Response {
    let mut response = (status, Html(page)).into_response();
    for (name, value) in DRESS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The fields of a form.
struct Form(Vec<(String, String)>);

impl Form {
    async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let bytes = read(headers, body, MAX_JSON).await?;
        Ok(Self(form_urlencoded::parse(&bytes).into_owned().collect()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn verdict(form: &Form, behind: &Behind) -> Result<Verdict, String> {
    match form.get("verdict") {
        Some("approved") => Ok(Verdict::Approved),
        Some("rejected") => {
            Ok(Verdict::Rejected { reason: form.get("reason").unwrap_or_default().trim().to_owned() })
        }
        Some("answered") => {
            let text = form.get("answer").unwrap_or_default();
            let plain = match behind {
                Behind::Open(review) => review.question.form.as_ref().is_some_and(page::takes_text),
                _ => true,
            };
            if plain {
                return Ok(Verdict::Answered { answer: text.replace("\r\n", "\n").into() });
            }
            let answer: Value =
                serde_json::from_str(text).map_err(|error| format!("The answer is not JSON: {error}"))?;
            Ok(Verdict::Answered { answer })
        }
        _ => Err("Nothing was decided: the form says neither yes nor no.".into()),
    }
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
