//! One chat-completion or embeddings call, over `async-openai` and an HTTP service of our own.
//!
//! The service is why: `async-openai` retries by itself, reads bodies without a bound, drops
//! `Retry-After` and logs whole bodies when they do not parse. Ours makes exactly one request, reads
//! at most [`MAX_BODY`] or [`MAX_VECTORS`], and lets nothing through but well-formed JSON of a successful answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_openai::Client;
use async_openai::config::{Config, OpenAIConfig};
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::config::models::{HeaderText, Provider};
use crate::config::secret::{Secret, SecretRef};
use crate::models::error::{Kind, ModelError, clipped};
use crate::models::headers::{Told, told};
use crate::models::record::{Tape, redact};
use crate::models::stream::assemble;
use crate::models::wire::{Dialect, Reply, Request, from_body};
use crate::models::witness::Hear;
use crate::time::wall;

/// The longest answer read, bytes: some hundred times the longest useful one.
pub(super) const MAX_BODY: usize = 2 * 1024 * 1024;

/// The longest answer with vectors that is read, bytes: a batch of 64 with 4,000 coordinates of 25 digits each,
/// and some more.
const MAX_VECTORS: usize = 8 * 1024 * 1024;

/// Why a provider cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The key holds characters that no HTTP header may carry.
    #[error("the key holds a line break or another character that no HTTP header may carry")]
    Key,
    /// A header that cannot be sent.
    #[error("the header `{0}` holds a line break or another character that no HTTP header may carry")]
    Header(String),
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

/// What is only known at start: whose secrets are where they should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    /// The key, if there is one.
    pub key: Option<Secret>,
    /// Further headers, by name.
    pub headers: Vec<(String, Secret)>,
    /// Those of them that no error may repeat: the rest are the owner's plain words.
    pub hidden: Vec<Secret>,
}

/// A secret shorter than this is none, and replacing it everywhere would only garble what a provider says.
const SHORTEST_SECRET: usize = 4;

impl Credentials {
    /// Looks for everything that the provider's settings name.
    ///
    /// # Errors
    /// What is missing, as a clause for the owner.
    pub(crate) fn of(provider: &Provider) -> Result<Self, String> {
        if let Some(missing) = provider.secrets().find(|reference| reference.resolve().is_none()) {
            return Err(missing.missing());
        }
        let header = |(name, text): (&String, &HeaderText)| Some((name.clone(), text.resolve()?));
        Ok(Self {
            key: provider.key.as_ref().and_then(SecretRef::resolve),
            headers: provider.headers.iter().filter_map(header).collect(),
            hidden: provider.secrets().filter_map(SecretRef::resolve).collect(),
        })
    }
}

impl Endpoint {
    /// An endpoint for `provider`; without a key no authorization is sent.
    pub(crate) fn new(provider: &Provider, credentials: Credentials) -> Result<Self, EndpointError> {
        // Whoever comes first installs it for the process; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = provider.base_url.host_str().unwrap_or_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(provider.connect_timeout.0)
            // An API does not redirect; a redirected POST would carry the key and the data elsewhere.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(idle) = provider.idle_timeout {
            http = http.read_timeout(idle.0);
        }
        if is_loopback(host) {
            http = http.no_proxy();
        }
        let http = http.build()?;
        let mut headers = HeaderMap::new();
        for (name, text) in &credentials.headers {
            let bad = || EndpointError::Header(name.clone());
            let mut value = HeaderValue::try_from(text.expose()).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(name).map_err(|_| bad())?, value);
        }
        if let Some(key) = &credentials.key {
            headers.insert(AUTHORIZATION, authorization(key)?);
        }
        // Every field is set: the defaults read the environment, and one provider's
        // organization is none of another's business.
        let config = OpenAIConfig::new()
            .with_api_base(provider.base_url.as_str().trim_end_matches('/'))
            .with_api_key("")
            .with_org_id(provider.organization.clone().unwrap_or_default())
            .with_project_id(provider.project.clone().unwrap_or_default());
        let transport = Transport {
            http: http.clone(),
            headers: Arc::new(headers),
            secrets: Arc::new(credentials),
            told: Arc::default(),
            hear: None,
            tape: None,
            longest: MAX_BODY,
        };
        Ok(Self { client: Client::build(http, config), transport, dialect: Dialect::of(provider) })
    }

    /// Asks once, for an answer or for vectors: one HTTP request, whatever comes of it. The caller sets the
    /// time-out. What the provider says about its limits is in `told` as soon as its headers are there.
    pub(crate) async fn ask(&self, request: &Request, told: &mut Told) -> Result<Reply, ModelError> {
        let heard = Arc::default();
        let (hear, tape) = (request.hear.clone(), request.tape.clone());
        let longest = if request.texts.is_empty() { MAX_BODY } else { MAX_VECTORS };
        let transport = Transport { told: Arc::clone(&heard), hear, tape, longest, ..self.transport.clone() };
        let client = self.client.clone().with_http_service(transport);
        let body = request.body(self.dialect);
        let result = match request.texts.is_empty() {
            true => client.chat().create_byot(body).await,
            false => client.embeddings().create_byot(body).await,
        };
        let result = result.map_err(ours);
        *told = *heard.lock().unwrap_or_else(PoisonError::into_inner);
        result
    }
}

impl Endpoint {
    /// One request of another interface than chat; its answer, if it is a good one. The caller sets the time-out
    /// and a bound to what he reads.
    pub(crate) async fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Option<(String, Vec<u8>)>,
    ) -> Result<reqwest::Response, ModelError> {
        let config = self.client.config();
        let mut request = self.transport.http.request(method, config.url(path)).headers(config.headers());
        if let Some((kind, body)) = body {
            request = request.header(CONTENT_TYPE, kind).body(body);
        }
        let unsendable = |_| ModelError::new(Kind::Rejected, "the request could not be made");
        let (response, _) = self.transport.send(request.build().map_err(unsendable)?).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        Err(from_body(status, &self.redacted(bounded(response, MAX_BODY).await?)))
    }

    /// What came without the secrets, which some servers repeat.
    pub(crate) fn redacted(&self, body: Vec<u8>) -> Vec<u8> {
        self.transport.redacted(body)
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
    /// What every request carries.
    headers: Arc<HeaderMap>,
    /// What no error may repeat.
    secrets: Arc<Credentials>,
    /// What came in the headers of this call's answer.
    told: Arc<Mutex<Told>>,
    /// Who hears an answer that comes in pieces.
    hear: Option<Hear>,
    /// Takes the bodies down.
    tape: Option<Tape>,
    /// The longest body that is read, bytes.
    longest: usize,
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
    /// Sends a request with everything that all of them carry; the answer's beginning.
    async fn send(&self, mut request: reqwest::Request) -> Result<(reqwest::Response, Told), ModelError> {
        request.headers_mut().remove(AUTHORIZATION); // the client sets an empty one
        for (name, value) in self.headers.iter() {
            request.headers_mut().insert(name, value.clone());
        }
        let response = self.http.execute(request).await.map_err(|error| broken(&error))?;
        let heard = told(response.headers(), wall());
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = heard;
        Ok((response, heard))
    }

    async fn exchange(&self, request: reqwest::Request) -> Result<reqwest::Response, ModelError> {
        if let Some(tape) = &self.tape {
            tape.sent(request.body().and_then(reqwest::Body::as_bytes));
        }
        let (response, heard) = self.send(request).await?;
        let status = response.status();
        let streamed = status.is_success() && is_stream(response.headers());
        let body = match streamed {
            true => assemble(response, self.hear.as_ref()).await?,
            false => bounded(response, self.longest).await?,
        };
        let body = self.redacted(body);
        if let Some(tape) = &self.tape {
            tape.came(&body);
        }
        if !status.is_success() {
            let mut error = from_body(status.as_u16(), &body);
            // What is left and when it resets is no request to wait, unless the call was refused for it.
            error.retry_after = heard.wait.filter(|_| matches!(status.as_u16(), 429 | 503));
            return Err(error);
        }
        if body.trim_ascii().is_empty() {
            return Err(ModelError::new(Kind::Unavailable, "the provider sent an empty body").billed());
        }
        if serde_json::from_slice::<serde_json::Value>(&body).is_err() {
            return Err(ModelError::new(Kind::Unavailable, "the provider's answer is not JSON").billed());
        }
        let mut whole = http::Response::new(body);
        *whole.status_mut() = status;
        Ok(whole.into())
    }

    /// What came without the secrets, which some servers repeat in their complaints, and a broken one anywhere.
    fn redacted(&self, body: Vec<u8>) -> Vec<u8> {
        let secrets = self.secrets.key.iter().chain(&self.secrets.hidden);
        secrets.filter(|secret| secret.expose().len() >= SHORTEST_SECRET).fold(body, redact)
    }
}

/// Whether the answer comes in pieces: servers that cannot stream answer whole all the same.
fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// The whole body, if it is no longer than `longest`.
pub(super) async fn bounded(mut response: reqwest::Response, longest: usize) -> Result<Vec<u8>, ModelError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + chunk.len() > longest {
            let why = format!("the provider's answer is longer than {} MiB", longest / (1024 * 1024));
            return Err(ModelError::new(Kind::Rejected, why).billed());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A failure below HTTP, told by its innermost cause: the outer layers only repeat the address.
pub(super) fn broken(error: &reqwest::Error) -> ModelError {
    if error.is_timeout() {
        let what = if error.is_connect() { "no connection in time" } else { "it was silent for too long" };
        return ModelError::new(Kind::Timeout, what);
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let what = if error.is_connect() { "no connection" } else { "the connection broke" };
    let failure = ModelError::new(Kind::Unavailable, format!("{what}: {}", clipped(&cause.to_string(), 120)));
    if error.is_connect() { failure } else { failure.billed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_no_header_may_carry_is_refused_at_start() {
        assert!(authorization(&Secret::new("sk-1\nX-Evil: 1".into())).is_err());
        assert!(authorization(&Secret::new("sk-1".into())).unwrap().is_sensitive());
    }
}
