//! Who is signed in to the pages: sign-in links, session cookies, and proof that a form is ours.
//!
//! A link and a session are secrets of 256 bits, kept as SHA-256 digests. A page's forms carry a token that
//! follows from the session's secret, so nothing needs to be kept for it; and a browser says itself, in
//! `Sec-Fetch-Site` and `Origin`, which page it posts from.

use axum::http::header::{COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq;
use url::Url;

use crate::api::extract::header;
use crate::api::problem::{Kind, Problem};
use crate::api::seal::Sealer;
use crate::config::channels;
use crate::config::secret::{Secret, kept};
use crate::domain::digest::Digest;
use crate::store::sessions::SESSION;

/// The form field with the proof that the form is ours.
pub const TOKEN_FIELD: &str = "csrf";

/// The token of the forms that are shown to whoever holds `secret`: a session, or a link of its own.
#[must_use]
pub fn form_token(secret: &str) -> String {
    Digest::of_parts(&[b"steward form", secret.as_bytes()]).to_string()
}

/// Somebody who is signed in.
#[derive(Clone)]
pub struct Session {
    secret: String,
}

impl Session {
    /// The session that a request's cookie names; whether it is good, the database knows.
    #[must_use]
    pub fn of(headers: &HeaderMap, web: &Web) -> Option<Self> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
        let secret = pairs.find(|(name, _)| name.trim() == web.cookie)?.1.trim().to_owned();
        Some(Self { secret })
    }

    /// The secret itself, to be looked at.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What is kept of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        kept(&self.secret)
    }

    /// The token of the forms that it is shown.
    #[must_use]
    pub fn form_token(&self) -> String {
        form_token(&self.secret)
    }
}

/// How the pages are served: where, and what follows from it.
pub struct Web {
    base: Url,
    cookie: String,
    secure: bool,
    /// What makes and knows the secrets of links and sessions.
    pub sealer: Sealer,
}

impl Web {
    /// For pages that people reach at `base`. Over TLS the cookie is bound to exactly this host (`__Host-`);
    /// without, its name has the port, for cookies do not tell ports apart. `token` is the workspace's.
    #[must_use]
    pub fn new(base: Url, token: &Secret) -> Self {
        let secure = base.scheme() == "https";
        let port = base.port_or_known_default().unwrap_or_default();
        let cookie = if secure { "__Host-steward".to_owned() } else { format!("steward-{port}") };
        Self { base, cookie, secure, sealer: Sealer::new(token) }
    }

    /// The URL of a page; `path` begins with a slash.
    #[must_use]
    pub fn page(&self, path: &str) -> String {
        channels::page(&self.base, path)
    }

    /// The URL that signs in whoever opens it first and presses the button.
    #[must_use]
    pub fn sign_in_url(&self, link: &str) -> String {
        self.page(&format!("/sign-in?link={link}"))
    }

    /// The cookie that begins a session. `Lax`: a link in a mail opens a page, and no form of another site
    /// posts with it.
    #[must_use]
    pub fn cookie(&self, secret: &str) -> HeaderValue {
        self.set_cookie(secret, SESSION.as_secs())
    }

    /// The cookie that ends it.
    #[must_use]
    pub fn no_cookie(&self) -> HeaderValue {
        self.set_cookie("", 0)
    }

    fn set_cookie(&self, value: &str, seconds: u64) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let text =
            format!("{}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}", self.cookie);
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }

    /// Refuses what a browser says it sends for another site's page. A client that says nothing about it is
    /// no browser of this decade, and the form's token is what it has to prove itself by.
    ///
    /// # Errors
    /// 403.
    pub fn same_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        self.admits(headers, header(headers, ORIGIN.as_str())?)
    }

    /// The same for a form of a page that tells nobody its address (`no-referrer`): browsers send `null` as its
    /// origin then (Fetch, "append a request `Origin` header"). What it proves itself by is its token.
    ///
    /// # Errors
    /// 403.
    pub fn same_origin_or_none(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let origin = header(headers, ORIGIN.as_str())?.filter(|origin| *origin != "null");
        self.admits(headers, origin)
    }

    fn admits(&self, headers: &HeaderMap, origin: Option<&str>) -> Result<(), Problem> {
        let refused = || Err(Problem::new(Kind::Forbidden, "this form was not sent from a page of Steward"));
        if let Some(site) = header(headers, "sec-fetch-site")?
            && site != "same-origin"
        {
            return refused();
        }
        let Some(origin) = origin else { return Ok(()) };
        if origin == self.base.origin().ascii_serialization() {
            return Ok(());
        }
        // Reached under another name: by `localhost`, through a tunnel. Host names what the browser asked for.
        let host = header(headers, HOST.as_str())?.unwrap_or_default();
        let scheme = if self.secure { "https" } else { "http" };
        match !host.is_empty() && origin == format!("{scheme}://{host}") {
            true => Ok(()),
            false => refused(),
        }
    }
}

/// The fields of a form, in their order.
#[derive(Clone, Debug, Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// A field, if it was sent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Checks the form's token, in constant time.
    ///
    /// # Errors
    /// 403 when it is missing or another session's.
    pub fn proves(&self, expected: &str) -> Result<(), Problem> {
        let given = self.get(TOKEN_FIELD).unwrap_or_default();
        match bool::from(given.as_bytes().ct_eq(expected.as_bytes())) {
            true => Ok(()),
            false => Err(Problem::new(
                Kind::Forbidden,
                "this form is not from your session: open the page again, and nothing has happened until then",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(base: &str) -> Web {
        Web::new(base.parse().unwrap(), &Secret::new("t".into()))
    }

    fn from(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>()
    }

    #[test]
    fn the_cookie_is_bound_to_the_host_over_tls_and_to_the_port_without() {
        let cookie = |base| web(base).cookie("abc").to_str().unwrap().to_owned();
        let max = SESSION.as_secs();
        assert_eq!(
            cookie("https://steward.example/"),
            format!("__Host-steward=abc; Path=/; HttpOnly; SameSite=Lax; Max-Age={max}; Secure")
        );
        assert_eq!(
            cookie("http://127.0.0.1:7007"),
            format!("steward-7007=abc; Path=/; HttpOnly; SameSite=Lax; Max-Age={max}")
        );
    }

    #[test]
    fn a_session_is_found_among_other_cookies_and_never_by_another_name() {
        let web = web("http://127.0.0.1:7007");
        let found = |value| Session::of(&from(&[("cookie", value)]), &web).map(|session| session.secret);
        assert_eq!(found("a=b; steward-7007=s3; c=d"), Some("s3".into()));
        for other in ["steward-7008=s3", "xsteward-7007=s3", "steward-7007", ""] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn a_form_of_another_site_is_refused_whatever_name_we_are_reached_by() {
        let web = web("http://127.0.0.1:7007");
        let ok = |pairs: &[(&'static str, &str)]| web.same_origin(&from(pairs)).is_ok();
        assert!(ok(&[]));
        assert!(ok(&[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:7007")]));
        assert!(ok(&[("host", "localhost:7007"), ("origin", "http://localhost:7007")]));
        assert!(!ok(&[("sec-fetch-site", "cross-site")]));
        assert!(!ok(&[("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:7007")]));
        assert!(!ok(&[("sec-fetch-site", "none")]));
        assert!(!ok(&[("host", "127.0.0.1:7007"), ("origin", "http://127.0.0.1:9")]));
        assert!(!ok(&[("host", "127.0.0.1:7007"), ("origin", "null")]));
        assert!(!ok(&[("host", "127.0.0.1:7007"), ("origin", "https://127.0.0.1:7007")]));
        assert!(!ok(&[("host", ""), ("origin", "http://")]));
    }

    #[test]
    fn a_page_that_tells_nobody_its_address_has_no_origin_and_no_other_site_has_its_place() {
        let web = web("http://127.0.0.1:7007");
        let ok = |pairs: &[(&'static str, &str)]| web.same_origin_or_none(&from(pairs)).is_ok();
        assert!(ok(&[]) && ok(&[("origin", "null")]));
        assert!(ok(&[("sec-fetch-site", "same-origin"), ("origin", "null")]));
        assert!(ok(&[("origin", "http://127.0.0.1:7007")]));
        assert!(!ok(&[("sec-fetch-site", "cross-site"), ("origin", "null")]));
        assert!(!ok(&[("sec-fetch-site", "same-site"), ("origin", "null")]));
        assert!(!ok(&[("host", "127.0.0.1:7007"), ("origin", "https://evil.example")]));
    }

    #[test]
    fn a_form_is_ours_only_with_the_token_of_its_own_session() {
        let mine = form_token("a");
        let form = |token: &str| Form::parse(format!("x=1&csrf={token}").as_bytes());
        assert!(form(&mine).proves(&mine).is_ok());
        for wrong in [String::new(), form_token("b"), format!("{mine}0"), mine[1..].to_owned()] {
            assert!(form(&wrong).proves(&mine).is_err());
        }
        assert!(Form::parse(b"x=1").proves(&mine).is_err());
        assert_ne!(mine, kept("a").to_string(), "what is shown in pages is not what is kept");
    }
}
