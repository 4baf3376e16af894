//! Who may come in. Everything asks for the bearer token; the exceptions stand here and nowhere else.

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::api::ApiState;
use crate::api::problem::{Kind, Problem};
use crate::domain::digest::Digest;

/// Paths that take no token: health, which says nothing worth hiding.
pub const OPEN: [&str; 2] = ["/livez", "/readyz"];

/// Paths below this one prove who sends in their own way: a signature, or the token after all.
pub const SIGNED: &str = "/hooks/";

/// Paths below these prove themselves by the secret in them, which was mailed to the owner: the page of one
/// review, and what ends the digest.
pub const MAILED: [&str; 2] = ["/r/", "/u/"];

/// The name by which the command line makes itself known.
pub const CLI_AGENT: &str = "steward-cli";

/// The owner, and the door he came through. There is one token, so whoever has it is the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// `cli` or `api`.
    pub channel: &'static str,
}

impl Caller {
    /// For the journal.
    #[must_use]
    pub fn by(self) -> String {
        format!("owner via {}", self.channel)
    }
}

/// Lets a request through that has the token, or needs none.
pub(super) async fn require(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    if !is_open(request.uri()) {
        if let Err(problem) = check(request.headers(), state.token_digest) {
            return problem.into_response();
        }
        let caller = caller(request.headers());
        request.extensions_mut().insert(caller);
    }
    next.run(request).await
}

fn is_open(uri: &Uri) -> bool {
    let path = uri.path();
    OPEN.contains(&path) || path.starts_with(SIGNED) || MAILED.iter().any(|mailed| path.starts_with(mailed))
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
    fn nothing_but_health_and_hooks_is_open() {
        let open = |path: &str| is_open(&path.parse().unwrap());
        assert!(open("/livez") && open("/readyz?x=1") && open("/hooks/email"));
        assert!(open("/r/x") && open("/u/x"));
        for path in [
            "/",
            "/livez/",
            "/livezz",
            "/hooks",
            "/r",
            "/u",
            "/runs/x",
            "/api/v1/runs",
            "/nothing",
            "//livez",
            "/api/v1/../../livez",
        ] {
            assert!(!open(path), "{path}");
        }
    }
}
