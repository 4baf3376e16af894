//! What `http.request` sends: read from the action once, strictly, then changed only by redirects.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use url::Url;

use crate::connectors::Call;
use crate::connectors::params::{Params, invalid};
use crate::domain::action::{Action, Repeat};
use crate::domain::digest::Digest;
use crate::domain::event::{ErrorKind, StepError};

const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// The longest address, in bytes: what servers commonly take.
const MAX_URL: usize = 8 * 1024;

/// The most headers, and the longest of them in bytes: servers refuse more.
const MAX_HEADERS: usize = 50;
const MAX_HEADER: usize = 4 * 1024;

/// The longest body, in bytes: an effect is kept in the journal, and this is too much for it already.
const MAX_BODY: usize = 1024 * 1024;

/// Headers that say how the message is framed or routed: they are the transport's.
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that another host than the one the owner wrote may see; any other may carry a secret.
const HARMLESS: [&str; 3] = ["accept", "accept-language", "content-type"];

/// A request ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// One of [`METHODS`].
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Everything but framing.
    pub headers: HeaderMap,
    /// The body, if there is one.
    pub body: Option<Bytes>,
    /// The header that carries the call's key.
    token: Option<HeaderName>,
}

/// What happens when `action` is carried out twice.
pub(super) fn repeat(action: &Action) -> Repeat {
    let method = action.text("method").unwrap_or_default().to_ascii_uppercase();
    if matches!(method.as_str(), "GET" | "HEAD" | "PUT" | "DELETE") {
        return Repeat::Natural;
    }
    match action.text("idempotency_header").is_some_and(|name| !name.is_empty()) {
        true => Repeat::Token,
        false => Repeat::None,
    }
}

impl Request {
    /// The request that `call` asks for.
    pub(super) fn of(call: &Call) -> Result<Self, StepError> {
        let params = Params::of(&call.action)?;
        let method = method(params.need("method")?)?;
        let url = url(params.need("url")?)?;
        let mut headers = headers(params.value("headers"))?;
        let token = token(params.text("idempotency_header")?, &headers)?;
        if let Some(name) = &token {
            let key = Digest::of_bytes(call.key.as_bytes()).to_string();
            let key = HeaderValue::try_from(key).map_err(|error| invalid(error.to_string()))?;
            headers.insert(name.clone(), key);
        }
        let body = body(params.value("body"), &mut headers)?;
        if body.is_some() && matches!(method, Method::GET | Method::HEAD) {
            return Err(invalid(format!("a {method} request has no body")));
        }
        Ok(Self { method, url, headers, body, token })
    }

    /// A request that only reads `address`, and says nothing but that address.
    pub(super) fn get(address: &str) -> Result<Self, StepError> {
        Ok(Self {
            method: Method::GET,
            url: url(address)?,
            headers: HeaderMap::new(),
            body: None,
            token: None,
        })
    }

    /// The request that an answer of `status` with this `location` asks for instead; `None` when the
    /// status does not redirect.
    pub(super) fn redirected(&self, status: u16, location: Option<&str>) -> Result<Option<Self>, StepError> {
        let (301 | 302 | 303 | 307 | 308, Some(location)) = (status, location) else { return Ok(None) };
        let refused = |kind, why: &str| Err(StepError::new(kind, format!("{} {why}", self.place())));
        let Ok(url) = self.url.join(location) else {
            return refused(ErrorKind::Refused, "redirects to something that is not an address");
        };
        if self.url.scheme() == "https" && url.scheme() != "https" {
            return refused(ErrorKind::Denied, "redirects from https to a connection that others can read");
        }
        let mut next = Self { url, ..self.clone() };
        let becomes_get = match status {
            303 => self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            next.method = Method::GET;
            next.body = None;
            next.headers.remove(CONTENT_TYPE);
        }
        if next.url.origin() != self.url.origin() {
            next.headers = self.harmless(&next.headers);
        }
        Ok(Some(next))
    }

    /// Where it goes, without what may be secret: path and query.
    pub(super) fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    fn harmless(&self, headers: &HeaderMap) -> HeaderMap {
        let keep = |name: &HeaderName| HARMLESS.contains(&name.as_str()) || Some(name) == self.token.as_ref();
        headers.iter().filter(|(name, _)| keep(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
    }
}

fn method(text: &str) -> Result<Method, StepError> {
    let upper = text.to_ascii_uppercase();
    let known = METHODS.into_iter().find(|method| method.as_str() == upper);
    known.ok_or_else(|| invalid(format!("`method`: {text:?} is none of GET, HEAD, POST, PUT, PATCH, DELETE")))
}

fn url(text: &str) -> Result<Url, StepError> {
    if text.len() > MAX_URL {
        return Err(invalid(format!("`url` is longer than {MAX_URL} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid("`url` holds a control character"));
    }
    let mut url = Url::parse(text).map_err(|error| invalid(format!("`url` is not an address: {error}")))?;
    url.set_fragment(None);
    Ok(url)
}

fn headers(value: Option<&Value>) -> Result<HeaderMap, StepError> {
    let mut headers = HeaderMap::new();
    let given = match value {
        None => return Ok(headers),
        Some(Value::Object(given)) if given.len() <= MAX_HEADERS => given,
        Some(Value::Object(_)) => return Err(invalid(format!("more than {MAX_HEADERS} `headers`"))),
        Some(_) => return Err(invalid("`headers` is not an object of texts")),
    };
    for (name, value) in given {
        let name = header_name(name)?;
        let text = value.as_str().filter(|text| text.len() <= MAX_HEADER);
        let value = text.and_then(|text| HeaderValue::from_str(text).ok());
        let why = "is not a text of printable ASCII characters of at most 4 KiB";
        headers.insert(&name, value.ok_or_else(|| invalid(format!("the header `{name}` {why}")))?);
    }
    Ok(headers)
}

fn header_name(text: &str) -> Result<HeaderName, StepError> {
    let name = HeaderName::try_from(text).map_err(|_| invalid(format!("{text:?} is not a header's name")))?;
    match FRAMING.contains(&name.as_str()) {
        true => Err(invalid(format!("the header `{name}` is set by the connection itself"))),
        false => Ok(name),
    }
}

fn token(name: Option<&str>, headers: &HeaderMap) -> Result<Option<HeaderName>, StepError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    let name = header_name(name)?;
    match headers.contains_key(&name) {
        true => Err(invalid(format!("`idempotency_header` is {name}, which `headers` sets already"))),
        false => Ok(Some(name)),
    }
}

/// A text goes out as it is, anything else as JSON.
fn body(value: Option<&Value>, headers: &mut HeaderMap) -> Result<Option<Bytes>, StepError> {
    let (bytes, kind) = match value {
        None => return Ok(None),
        Some(Value::String(text)) => (Bytes::from(text.clone()), "text/plain; charset=utf-8"),
        Some(json) => (Bytes::from(json.to_string()), "application/json"),
    };
    if bytes.len() > MAX_BODY {
        return Err(invalid(format!("`body` is longer than {MAX_BODY} bytes")));
    }
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
    Ok(Some(bytes))
}
