//! One chat-completion call, over `async-openai` and an HTTP service of our own.
//!
//! The service is why: `async-openai` retries by itself, reads bodies without a bound, drops
//! `Retry-After` and logs whole bodies when they do not parse. Ours makes exactly one request, reads
//! at most [`MAX_BODY`], and lets nothing through but well-formed JSON of a successful answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};

use crate::config::models::Provider;
use crate::config::secret::Secret;
use crate::models::error::{Kind, ModelError, clipped};
use crate::models::record::{Tape, redact};
use crate::models::stream::assemble;
use crate::models::wire::{Dialect, Reply, Request, from_body};
use crate::models::witness::Hear;
use crate::time::wall;

/// The longest answer read, bytes: some hundred times the longest useful one.
pub(super) const MAX_BODY: usize = 2 * 1024 * 1024;

/// How long a connection may take to open: a provider that is up answers within a second, and the
/// call's own time-out is better spent on the answer.
const CONNECT: Duration = Duration::from_secs(10);

/// The longest wait a provider may ask for; a `Retry-After` beyond a day is a mistake or a prank.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// Why a provider cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The key holds characters that no HTTP header may carry.
    #[error("the key holds a line break or another character that no HTTP header may carry")]
    Key,
    /// The HTTP client could not be made.
    #[error("no HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// One provider's chat completions.
#[derive(Clone)]
pub(crate) struct Endpoint {
    client: Client<OpenAIConfig>,
    transport: Transport,
    dialect: Dialect,
}

impl Endpoint {
    /// An endpoint for `provider`; without a key no authorization is sent.
    pub(crate) fn new(provider: &Provider, key: Option<Secret>) -> Result<Self, EndpointError> {
        // Whoever comes first installs it for the process; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = provider.base_url.host_str().unwrap_or_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            // An API does not redirect; a redirected POST would carry the key and the data elsewhere.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(host) {
            http = http.no_proxy();
        }
        let http = http.build()?;
        let authorization = key.as_ref().map(authorization).transpose()?;
        // Every field is set: the defaults read the environment, and one provider's
        // organization is none of another's business.
        let config = OpenAIConfig::new()
            .with_api_base(provider.base_url.as_str().trim_end_matches('/'))
            .with_api_key("")
            .with_org_id("")
            .with_project_id("");
        let transport = Transport { http: http.clone(), authorization, key, hear: None, tape: None };
        let dialect =
            Dialect { json_schema: provider.json_schema, completion_tokens: host == "api.openai.com" };
        let client = Client::build(http, config).with_http_service(transport.clone());
        Ok(Self { client, transport, dialect })
    }

    /// Asks once: one HTTP request, whatever comes of it. The caller sets the time-out.
    pub(crate) async fn chat(&self, request: &Request) -> Result<Reply, ModelError> {
        let body = request.body(self.dialect);
        let answer = match (&request.hear, &request.tape) {
            (None, None) => self.client.chat().create_byot(body).await,
            (hear, tape) => {
                let (hear, tape) = (hear.clone(), tape.clone());
                let transport = Transport { hear, tape, ..self.transport.clone() };
                self.client.clone().with_http_service(transport).chat().create_byot(body).await
            }
        };
        answer.map_err(ours)
    }
}

/// Whether the host is this machine: no proxy leads there.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn authorization(key: &Secret) -> Result<HeaderValue, EndpointError> {
    let text = format!("Bearer {}", key.expose());
    let mut value = HeaderValue::try_from(text).map_err(|_| EndpointError::Key)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The error that [`Transport`] put in; everything else is a fault on this side of the wire.
fn ours(error: OpenAIError) -> ModelError {
    match error {
        OpenAIError::Boxed(inner) => match inner.downcast::<ModelError>() {
            Ok(error) => *error,
            Err(_) => ModelError::new(Kind::Rejected, "the request could not be sent"),
        },
        _ => ModelError::new(Kind::Rejected, "the request could not be made"),
    }
}

/// The HTTP service under the client.
#[derive(Clone)]
struct Transport {
    http: reqwest::Client,
    authorization: Option<HeaderValue>,
    key: Option<Secret>,
    /// Who hears an answer that comes in pieces.
    hear: Option<Hear>,
    /// Takes the bodies down.
    tape: Option<Tape>,
}

impl tower::Service<HttpRequestFactory> for Transport {
    type Response = reqwest::Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<reqwest::Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let request = request.build().await?;
            this.exchange(request).await.map_err(|error| OpenAIError::Boxed(Box::new(error)))
        })
    }
}

impl Transport {
    async fn exchange(&self, mut request: reqwest::Request) -> Result<reqwest::Response, ModelError> {
        match &self.authorization {
            Some(value) => request.headers_mut().insert(AUTHORIZATION, value.clone()),
            None => request.headers_mut().remove(AUTHORIZATION),
        };
        if let Some(tape) = &self.tape {
            tape.sent(request.body().and_then(reqwest::Body::as_bytes));
        }
        let response = self.http.execute(request).await.map_err(|error| broken(&error))?;
        let (status, asked) = (response.status(), retry_after(response.headers(), wall()));
        let streamed = status.is_success() && is_stream(response.headers());
        let body = match streamed {
            true => assemble(response, self.hear.as_ref()).await?,
            false => bounded(response).await?,
        };
        let body = self.redacted(body);
        if let Some(tape) = &self.tape {
            tape.came(&body);
        }
        if !status.is_success() {
            let mut error = from_body(status.as_u16(), &body);
            error.retry_after = asked;
            return Err(error);
        }
        if body.trim_ascii().is_empty() {
            return Err(ModelError::new(Kind::Unavailable, "the provider sent an empty body"));
        }
        if serde_json::from_slice::<serde_json::Value>(&body).is_err() {
            return Err(ModelError::new(Kind::Unavailable, "the provider's answer is not JSON"));
        }
        let mut whole = http::Response::new(body);
        *whole.status_mut() = status;
        Ok(whole.into())
    }

    /// What came without the key, which some servers repeat in their complaints, and a broken one anywhere.
    fn redacted(&self, body: Vec<u8>) -> Vec<u8> {
        match &self.key {
            Some(key) => redact(body, key),
            None => body,
        }
    }
}

/// Whether the answer comes in pieces: servers that cannot stream answer whole all the same.
fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// The whole body, if it keeps to [`MAX_BODY`].
async fn bounded(mut response: reqwest::Response) -> Result<Vec<u8>, ModelError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(ModelError::new(Kind::Rejected, "the provider's answer is longer than 2 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A failure below HTTP, told by its innermost cause: the outer layers only repeat the address.
pub(super) fn broken(error: &reqwest::Error) -> ModelError {
    if error.is_timeout() {
        return ModelError::new(Kind::Timeout, "no connection in time");
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let what = if error.is_connect() { "no connection" } else { "the connection broke" };
    ModelError::new(Kind::Unavailable, format!("{what}: {}", clipped(&cause.to_string(), 120)))
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LONGEST_WAIT),
        Err(_) => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::try_from(at.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_as_seconds_or_as_a_date_and_is_bounded() {
        let now: Timestamp = "1994-11-06T08:49:30Z".parse().unwrap();
        for (text, secs) in [
            ("7", Some(7)),
            ("1e99", Some(86_400)),
            ("-3", Some(0)),
            ("99999999999999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("NaN", Some(0)),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), secs.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_key_that_no_header_may_carry_is_refused_at_start() {
        assert!(authorization(&Secret::new("sk-1\nX-Evil: 1".into())).is_err());
        assert!(authorization(&Secret::new("sk-1".into())).unwrap().is_sensitive());
    }
}
