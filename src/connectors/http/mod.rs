//! `http.request`: one call of a web service on a host that the owner allows.
//!
//! - [`guard`]: which hosts and addresses may be reached, pure;
//! - `request`: what is sent, and what a redirect makes of it;
//! - `response`: what comes back, and what it says about the effect.
//!
//! A name is resolved once, every address it has is checked, and the connection goes to those
//! addresses alone: a name that changes its mind in between (DNS rebinding) changes nothing.
//! Redirects are followed by hand, each checked in full.

pub mod guard;
mod request;
mod response;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use url::Host;

use crate::config::connectors as config;
use crate::connectors::heard::{cause, tls_fault};
use crate::connectors::{Call, Connector};
use crate::domain::action::{Action, Repeat};
use crate::domain::event::{ErrorKind, StepError};
use crate::domain::plan::EffectResult;
use guard::{Guard, NotAHost, Target};
use request::Request;
use response::Answer;

/// Redirects followed before the server is taken to run in circles.
const MAX_REDIRECTS: usize = 5;

/// The most of a body that is kept, in bytes: the response lives in the journal.
const MAX_BODY: usize = 1024 * 1024;

/// How long a name may take to resolve: resolvers try again after five seconds, twice is enough.
const RESOLVE_WAIT: Duration = Duration::from_secs(10);

/// How long a connection may take: longer means that nobody is there. It is also at most half of the
/// time left, so that a time-out while connecting is told from one after sending.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// How Steward introduces itself.
const USER_AGENT: &str = concat!("steward/", env!("CARGO_PKG_VERSION"));

/// Calls web services.
#[derive(Debug)]
pub struct Http {
    guard: Guard,
    timeout: Duration,
}

/// Reads from the hosts that the owner allows, and can do nothing else: what agents' tools are given.
#[derive(Debug)]
pub struct Getter(Result<Http, NotAHost>);

impl Getter {
    /// As `config` describes; an entry of its list that cannot be understood is told by every answer.
    #[must_use]
    pub fn new(config: &config::Http) -> Self {
        Self(Http::new(config))
    }

    /// What is at `url`: `{status, headers, body, truncated}`.
    ///
    /// # Errors
    /// Why there is nothing to read, in words.
    pub async fn get(&self, url: &str) -> Result<Value, StepError> {
        let http = self.0.as_ref().map_err(|error| StepError::new(ErrorKind::Denied, error.to_string()))?;
        let answer = http.follow(Request::get(url)?, Instant::now() + http.timeout).await;
        answer.map_err(|(Trouble::Untouched(error) | Trouble::Lost(error))| error)
    }
}

/// Why there is no good answer.
#[derive(Debug)]
enum Trouble {
    /// The request was not sent, or the server says that it did nothing.
    Untouched(StepError),
    /// The request was sent and may have done its work.
    Lost(StepError),
}

impl Http {
    /// The connector that `config` describes.
    ///
    /// # Errors
    /// When an entry of the allow-list cannot be understood.
    pub fn new(config: &config::Http) -> Result<Self, NotAHost> {
        Ok(Self { guard: Guard::new(config)?, timeout: config.timeout.0 })
    }

    async fn request(&self, call: &Call) -> EffectResult {
        let request = match Request::of(call) {
            Ok(request) => request,
            Err(error) => return EffectResult::Failed(error),
        };
        match self.follow(request, Instant::now() + self.timeout).await {
            Ok(response) => EffectResult::Succeeded(response),
            Err(Trouble::Untouched(error)) => EffectResult::Failed(error),
            Err(Trouble::Lost(error)) => match request::repeat(&call.action) {
                Repeat::None | Repeat::Probe => EffectResult::Unknown(error.message),
                // Failed rather than unknown: repeating is harmless, and should wait its turn.
                Repeat::Natural | Repeat::Token => EffectResult::Failed(error),
            },
        }
    }

    async fn follow(&self, mut request: Request, deadline: Instant) -> Result<Value, Trouble> {
        let mut done = None;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.exchange(&request, deadline).await.map_err(|e| after(done.as_ref(), e))?;
            let location = answer.header(&LOCATION);
            let next = request.redirected(answer.status.as_u16(), location.as_deref());
            let Some(next) = next.map_err(|e| after(done.as_ref(), Trouble::Untouched(e)))? else {
                return answer.judge(&request.place()).map_err(|e| after(done.as_ref(), e));
            };
            if next.method != request.method {
                // "See other": the server has done what was asked and points at the result.
                done = Some(format!("{} took the request ({})", request.place(), answer.status));
            }
            request = next;
        }
        let message = format!("{} redirects more than {MAX_REDIRECTS} times", request.place());
        Err(after(done.as_ref(), Trouble::Untouched(StepError::new(ErrorKind::Refused, message))))
    }

    async fn exchange(&self, request: &Request, deadline: Instant) -> Result<Answer, Trouble> {
        let target = self.guard.admit(&request.url).map_err(|refusal| denied(&refusal))?;
        let addresses = self.resolve(&target, deadline).await?;
        let client = client(&target, &addresses, left(deadline))?;
        let mut sending = client.request(request.method.clone(), request.url.clone());
        sending = sending.headers(request.headers.clone());
        if let Some(body) = &request.body {
            sending = sending.body(body.clone());
        }
        let response = sending.send().await.map_err(|error| unsent_or_lost(&target, &error))?;
        read(&target, response).await
    }

    /// The addresses of `target`, all of them checked.
    async fn resolve(&self, target: &Target, deadline: Instant) -> Result<Vec<SocketAddr>, Trouble> {
        let addresses: Vec<SocketAddr> = match &target.host {
            Host::Ipv4(address) => vec![(IpAddr::V4(*address), target.port).into()],
            Host::Ipv6(address) => vec![(IpAddr::V6(*address), target.port).into()],
            Host::Domain(name) => {
                let lookup = tokio::net::lookup_host((name.as_str(), target.port));
                match timeout(RESOLVE_WAIT.min(left(deadline)), lookup).await {
                    Ok(Ok(addresses)) => addresses.collect(),
                    Ok(Err(error)) => return Err(unreached(ErrorKind::Unavailable, target, &cause(&error))),
                    Err(_) => {
                        return Err(unreached(
                            ErrorKind::Timeout,
                            target,
                            "its name does not resolve in time",
                        ));
                    }
                }
            }
        };
        if addresses.is_empty() {
            return Err(unreached(ErrorKind::Unavailable, target, "its name has no address"));
        }
        for address in &addresses {
            self.guard.admit_address(address.ip()).map_err(|refusal| denied(&refusal))?;
        }
        Ok(addresses)
    }
}

/// `trouble` after an earlier host has already done what was asked: not knowing the end of it does
/// not undo that.
fn after(done: Option<&String>, trouble: Trouble) -> Trouble {
    let (Some(done), Trouble::Untouched(error) | Trouble::Lost(error)) = (done, &trouble) else {
        return trouble;
    };
    let message = format!("{done}, but following its answer failed: {}", error.message);
    Trouble::Lost(StepError { message, ..error.clone() })
}

/// A client for one request to these addresses alone: no proxy, no redirect, no retry, no other name.
fn client(target: &Target, addresses: &[SocketAddr], left: Duration) -> Result<Client, Trouble> {
    let client = Client::builder()
        .resolve_to_addrs(&target.host.to_string(), addresses)
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_WAIT.min(left / 2))
        .timeout(left)
        .build();
    client.map_err(|error| unreached(ErrorKind::Internal, target, &cause(&error)))
}

async fn read(target: &Target, mut response: Response) -> Result<Answer, Trouble> {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken_off(target, status, &error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            body.truncate(MAX_BODY);
            return Ok(Answer { status, headers, body, truncated: true });
        }
    }
    Ok(Answer { status, headers, body, truncated: false })
}

fn denied(refusal: &guard::Refusal) -> Trouble {
    Trouble::Untouched(StepError::new(ErrorKind::Denied, refusal.to_string()))
}

fn unreached(kind: ErrorKind, target: &Target, why: &str) -> Trouble {
    Trouble::Untouched(StepError::new(kind, format!("{target} cannot be reached: {why}")))
}

fn unsent_or_lost(target: &Target, error: &reqwest::Error) -> Trouble {
    let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Unavailable };
    if error.is_connect() {
        return match tls_fault(error) {
            Some(fault) => unreached(ErrorKind::Refused, target, &fault),
            None => unreached(kind, target, &cause(error)),
        };
    }
    let message = format!("{target} was sent the request but did not answer: {}", cause(error));
    Trouble::Lost(StepError::new(kind, message))
}

fn broken_off(target: &Target, status: reqwest::StatusCode, error: &reqwest::Error) -> Trouble {
    let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Unavailable };
    let message = format!("{target} answered {status}, then the answer broke off: {}", cause(error));
    Trouble::Lost(StepError::new(kind, message))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl Connector for Http {
    fn actions(&self) -> &'static [&'static str] {
        &["http.request"]
    }

    fn repeat(&self, action: &Action) -> Repeat {
        request::repeat(action)
    }

    fn perform<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, EffectResult> {
        Box::pin(self.request(call))
    }

    fn probe<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, EffectResult> {
        let evidence = "a web service cannot be asked whether it got a request";
        Box::pin(async move { EffectResult::Unknown(evidence.into()) })
    }
}

#[cfg(test)]
mod tests;
