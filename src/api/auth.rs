//! Who may come in. [`gate`] is the one place that decides what a path asks for; what it does not name asks
//! for the bearer token, so that a route which was forgotten is a closed one.

use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, LOCATION, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::api::ApiState;
use crate::api::extract;
use crate::api::problem::{Kind, Problem};
use crate::api::session::{Form, Session, form_token};
use crate::domain::digest::Digest;
use crate::reviews::email::link::{self, Behind};

/// Paths that take no token: health, which says nothing worth hiding.
pub const OPEN: [&str; 2] = ["/livez", "/readyz"];

/// Paths below this one prove who sends in their own way: a signature, or the token after all.
pub const SIGNED: &str = "/hooks/";

/// Where people sign in: the only page for everybody.
pub const SIGN_IN: &str = "/sign-in";

/// What pages look like; the same files for everybody, in the binary.
pub const STATIC: &str = "/static/";

/// Pages that ask for a session: these exactly, and everything below those that end in a slash.
pub const PAGES: [&str; 5] = ["/", "/live", "/reviews/", "/runs/", "/sign-out"];

/// What a monitoring system reads.
const METRICS: &str = "/metrics";

/// The page of one review, below which stands the secret of a link that was mailed to the owner.
pub const LINK: &str = "/r/";

/// Paths below these prove themselves by the secret in them: the page of one review, and what ends the digest.
pub const MAILED: [&str; 2] = [LINK, "/u/"];

/// The name by which the command line makes itself known.
pub const CLI_AGENT: &str = "steward-cli";

/// The largest form: an edit may have a megabyte, of which percent-encoding makes three.
const MAX_FORM: usize = 4 * 1024 * 1024;

/// The largest form of somebody who has shown nothing yet: a secret and a button.
const SMALL_FORM: usize = 16 * 1024;

/// What a path asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// Nothing.
    Open,
    /// What its handler asks for.
    Signed,
    /// The secret in the path, which its handler looks up; a form needs no more, for mail programs send it.
    Mailed,
    /// The secret in the path, and for a form its token. Who is signed in besides is known as the owner.
    Link,
    /// Nothing, but a form must come from a page of ours.
    Visitor,
    /// A session, and for a form its token.
    Session,
    /// The bearer token.
    Token,
}

/// What a path asks for. Paths are compared as they are sent: one that is written differently is another one.
#[must_use]
pub fn gate(path: &str) -> Gate {
    let is_page =
        |page: &&str| path == *page || (page.len() > 1 && page.ends_with('/') && path.starts_with(*page));
    match path {
        _ if OPEN.contains(&path) || path.starts_with(STATIC) => Gate::Open,
        _ if path.starts_with(SIGNED) => Gate::Signed,
        _ if path.starts_with(LINK) => Gate::Link,
        _ if MAILED.iter().any(|mailed| path.starts_with(mailed)) => Gate::Mailed,
        SIGN_IN => Gate::Visitor,
        _ if PAGES.iter().any(is_page) => Gate::Session,
        _ => Gate::Token,
    }
}

/// The owner, and the door he came through. There is one token, so whoever has it is the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// `cli`, `api` or `web`.
    pub channel: &'static str,
}

impl Caller {
    /// For the journal.
    #[must_use]
    pub fn by(self) -> String {
        format!("owner via {}", self.channel)
    }
}

/// Lets a request through that has what its path asks for.
pub(super) async fn require(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let admitted = match gate(request.uri().path()) {
        Gate::Open | Gate::Signed => Ok(request),
        Gate::Token => with_token(&state, request).map_err(IntoResponse::into_response),
        Gate::Visitor => match state.web.same_origin(request.headers()) {
            Err(refused) if changes(&request) => Err(refused.into_response()),
            _ => with_form(request, SMALL_FORM, |_| Ok(())).await,
        },
        Gate::Mailed => with_form(request, SMALL_FORM, |_| Ok(())).await,
        Gate::Link => with_link(&state, request).await,
        Gate::Session => with_session(&state, request).await,
    };
    match admitted {
        Ok(request) => next.run(request).await,
        Err(response) => response,
    }
}

/// Whether a request shows at sight that it is of somebody whom the owner let in: the token, or the cookie or
/// the link of a sign-in that was made here. Whether those are still good is found out later.
pub(super) fn is_known(state: &ApiState, request: &Request) -> bool {
    let headers = request.headers();
    let is_ours = |secret: &str| state.web.sealer.is_ours(secret);
    let link = || {
        let query = request.uri().query().filter(|_| request.uri().path() == SIGN_IN)?;
        url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "link").map(|(_, link)| link)
    };
    check(headers, state.token_digest).is_ok()
        || is_scraper(request, state)
        || Session::of(headers, &state.web).is_some_and(|session| is_ours(session.secret()))
        || link().is_some_and(|link| is_ours(&link))
}

fn with_token(state: &ApiState, mut request: Request) -> Result<Request, Problem> {
    if is_scraper(&request, state) {
        return Ok(request);
    }
    check(request.headers(), state.token_digest)?;
    let caller = caller(request.headers());
    request.extensions_mut().insert(caller);
    Ok(request)
}

/// The session that a request's cookie named, if it is good; 429 when too many were made up.
async fn good(state: &ApiState, session: Option<Session>) -> Result<Option<Session>, Problem> {
    let Some(session) = session else { return Ok(None) };
    state.web.sealer.may_look(session.secret())?;
    let good = state.store().session_is_good(session.digest()).await?;
    if good {
        state.web.sealer.was_good(session.secret());
    }
    Ok(good.then_some(session))
}

async fn with_session(state: &ApiState, mut request: Request) -> Result<Request, Response> {
    let refused = IntoResponse::into_response;
    let named = Session::of(request.headers(), &state.web);
    let Some(session) = good(state, named).await.map_err(refused)? else {
        return Err(nobody(&request));
    };
    if changes(&request) {
        state.web.same_origin(request.headers()).map_err(refused)?;
    }
    request.extensions_mut().insert(Caller { channel: "web" });
    request.extensions_mut().insert(session.clone());
    with_form(request, MAX_FORM, |form| form.proves(&session.form_token())).await
}

/// Its page is shown to whoever has the link. A form of it proves by its token that it comes from that page;
/// by the token of a session, that it comes from the page as the owner was shown it, signed in. A cookie alone
/// makes nobody the owner here.
async fn with_link(state: &ApiState, mut request: Request) -> Result<Request, Response> {
    let refused = |problem: Problem| problem.into_response();
    let named = Session::of(request.headers(), &state.web);
    let mut session = match good(state, named).await {
        // The link is good without it.
        Err(problem) if problem.kind == Kind::Busy => None,
        looked => looked.map_err(refused)?,
    };
    let secret = request.uri().path().strip_prefix(LINK).unwrap_or_default().to_owned();
    if changes(&request) {
        state.web.same_origin_or_none(request.headers()).map_err(refused)?;
        let behind = link::look(state.store(), &secret).await.map_err(|error| refused(error.into()))?;
        let longest = if behind == Behind::Nothing { SMALL_FORM } else { MAX_FORM };
        request = with_form(request, longest, |form| {
            session = session.take().filter(|session| form.proves(&session.form_token()).is_ok());
            match session {
                Some(_) => Ok(()),
                None => form.proves(&form_token(&secret)),
            }
        })
        .await?;
    }
    if let Some(session) = session {
        request.extensions_mut().insert(session);
    }
    Ok(request)
}

fn changes(request: &Request) -> bool {
    request.method() != Method::GET && request.method() != Method::HEAD
}

/// Reads the form of a request that would change something, of at most `longest` bytes, and has it prove where it comes from. A handler
/// finds it in the request's extensions: without the proof no handler ever sees it.
async fn with_form(
    request: Request,
    longest: usize,
    proves: impl FnOnce(&Form) -> Result<(), Problem> + Send,
) -> Result<Request, Response> {
    if !changes(&request) {
        return Ok(request);
    }
    let refused = IntoResponse::into_response;
    let (mut parts, body) = request.into_parts();
    let bytes = extract::read(&parts.headers, body, longest).await.map_err(refused)?;
    let form = Form::parse(&bytes);
    proves(&form).map_err(refused)?;
    parts.extensions.insert(form);
    Ok(Request::from_parts(parts, axum::body::Body::empty()))
}

/// A person is shown the way in; a script that fetches is told that it is not.
fn nobody(request: &Request) -> Response {
    let headers = request.headers();
    let wants_page = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    let fetched = headers.contains_key("hx-request")
        || headers.get("sec-fetch-mode").is_some_and(|mode| mode != "navigate");
    match request.method() == Method::GET && wants_page && !fetched {
        true => (StatusCode::SEE_OTHER, [(LOCATION, HeaderValue::from_static(SIGN_IN))]).into_response(),
        false => {
            Problem::new(Kind::SignedOut, "sign in and open the page again: `steward login` prints a link")
                .into_response()
        }
    }
}

/// A monitoring system has a token of its own, if the owner gave it one: it reads numbers and nothing else.
fn is_scraper(request: &Request, state: &ApiState) -> bool {
    let token = state.metrics_digest.filter(|_| request.uri().path() == METRICS);
    token.is_some_and(|token| check(request.headers(), token).is_ok())
}

/// Checks the bearer token (RFC 6750). Digests are compared, in constant time: neither the token's
/// content nor its length shows in how long it takes.
///
/// # Errors
/// 401, and nothing about how near it was.
pub fn check(headers: &HeaderMap, token_digest: Digest) -> Result<(), Problem> {
    let refused = |detail| Err(Problem::new(Kind::Unauthorized, detail));
    let Some(value) = headers.get(AUTHORIZATION) else {
        return refused("send the token of `.steward/token` as `Authorization: Bearer TOKEN`");
    };
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let given = Digest::of_bytes(token.unwrap_or_default().as_bytes());
    match token.is_some() && bool::from(given.0.ct_eq(&token_digest.0)) {
        true => Ok(()),
        false => refused("the token is not the one of this workspace"),
    }
}

fn caller(headers: &HeaderMap) -> Caller {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    Caller { channel: if agent.starts_with(CLI_AGENT) { "cli" } else { "api" } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(value: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        check(&headers, Digest::of_bytes(b"right")).is_ok()
    }

    #[test]
    fn only_the_whole_token_under_its_scheme_opens_the_door() {
        assert!(checked(Some("Bearer right")) && checked(Some("bearer right")));
        for wrong in [
            None,
            Some("right"),
            Some("Bearer righ"),
            Some("Bearer right2"),
            Some("Basic right"),
            Some("Bearer "),
        ] {
            assert!(!checked(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_named_asks_for_the_token() {
        for (path, expected) in [
            ("/livez", Gate::Open),
            ("/readyz", Gate::Open),
            ("/static/steward.css", Gate::Open),
            ("/hooks/email", Gate::Signed),
            ("/sign-in", Gate::Visitor),
            ("/r/x", Gate::Link),
            ("/u/x", Gate::Mailed),
            ("/", Gate::Session),
            ("/live", Gate::Session),
            ("/reviews/x", Gate::Session),
            ("/runs/x/live", Gate::Session),
            ("/sign-out", Gate::Session),
        ] {
            assert_eq!(gate(path), expected, "{path}");
        }
        for path in [
            "",
            "/livez/",
            "/livezz",
            "/hooks",
            "/static",
            "/sign-in/",
            "/sign-in/x",
            "/reviews",
            "/live/",
            "/r",
            "/u",
            "/api/v1/runs",
            "/nothing",
            "//",
            "//livez",
            "/api/v1/../../livez",
            "/%73ign-in",
        ] {
            assert_eq!(gate(path), Gate::Token, "{path}");
        }
    }
}
