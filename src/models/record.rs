//! Keeps what was said to a provider's model and what it said, before anybody is told of the call, and finds
//! the answers that may serve again. Secrets that the owner's files name are taken out on the way; headers,
//! which carry the keys, never come here.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use uuid::Uuid;

use crate::config::secret::Secret;
use crate::domain::digest::Digest;
use crate::domain::duration::Span;
use crate::domain::event::ModelCall;
use crate::domain::ids::{CallId, RunId, StepId};
use crate::domain::label::Label;
use crate::models::ask::Target;
use crate::models::chain::Walk;
use crate::models::wire::{Dialect, Reply, Request};
use crate::store::batches::{BatchCall, NewBatchCall};
use crate::store::calls::{Body, Call, NewCall};
use crate::store::{Store, StoreError};

/// Secrets shorter than this are not looked for: they would be found everywhere (as in the audit).
const SHORTEST_SECRET: usize = 8;

/// A database that restarts is back within these delays; a call is then told without its bodies rather
/// than not at all.
const AGAIN: ExponentialBuilder =
    ExponentialBuilder::new().with_min_delay(Duration::from_millis(200)).with_factor(3.0).with_max_times(3);

/// What stands where a secret stood.
pub(crate) const REDACTED: &str = "***";

/// Where calls are kept. Clones share it.
#[derive(Clone)]
pub struct Calls(Arc<Kept>);

struct Kept {
    store: Store,
    /// Each as it is, and as it stands in a text of JSON.
    secrets: Vec<String>,
}

impl Calls {
    /// Keeps calls there, and none of these secrets with them.
    #[must_use]
    pub fn new(store: Store, secrets: impl IntoIterator<Item = Secret>) -> Self {
        let spelled = secrets.into_iter().flat_map(|secret| spellings(secret.expose()));
        let secrets = spelled.filter(|text| text.len() >= SHORTEST_SECRET).collect();
        Self(Arc::new(Kept { store, secrets }))
    }

    /// The body without secrets, and whether there were any.
    fn redacted(&self, mut body: Vec<u8>) -> (Vec<u8>, bool) {
        let mut found = false;
        for secret in &self.0.secrets {
            if let Some(clean) = without(&body, secret) {
                (body, found) = (clean, true);
            }
        }
        (body, found)
    }

    /// Keeps a call that goes into a batch.
    pub(crate) async fn put_off(&self, call: &NewBatchCall) -> Result<(), StoreError> {
        self.0.store.keep_batch_call(call).await
    }

    async fn write(&self, call: &NewCall) -> Result<(), StoreError> {
        let mut delays = AGAIN.build();
        loop {
            match self.0.store.keep_call(call).await {
                Err(error) if error.constraint() == Some("model_calls_pk") => return Ok(()), // the try before
                Err(error) if error.retryable() => match delays.next() {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => return Err(error),
                },
                done => return done,
            }
        }
    }
}

/// A secret as it is, and as it stands inside a text of JSON if that differs.
fn spellings(secret: &str) -> Vec<String> {
    let quoted = serde_json::Value::from(secret).to_string();
    let inner = quoted[1..quoted.len() - 1].to_owned();
    let mut spelled = vec![secret.to_owned(), inner];
    spelled.dedup();
    spelled
}

/// The body with stars in the secret's place; `None` when it is not there.
fn without(body: &[u8], secret: &str) -> Option<Vec<u8>> {
    let found = body.windows(secret.len().max(1)).any(|part| part == secret.as_bytes());
    found.then(|| String::from_utf8_lossy(body).replace(secret, REDACTED).into_bytes())
}

/// A body without this secret, however it is spelled.
pub(crate) fn redact(body: Vec<u8>, secret: &Secret) -> Vec<u8> {
    spellings(secret.expose()).iter().fold(body, |body, secret| without(&body, secret).unwrap_or(body))
}

/// Where the calls of an agent are kept, and for what.
#[derive(Clone, Copy)]
pub struct Keeping<'a> {
    /// Where.
    pub calls: &'a Calls,
    /// For which run.
    pub run: RunId,
    /// For which of its steps.
    pub step: &'a StepId,
    /// In which attempt of it.
    pub attempt: u32,
    /// Whether a call may go into a batch.
    pub may_wait: bool,
    /// A call that has come back from one.
    pub batched: Option<&'a BatchCall>,
}

/// Takes down the bodies of one exchange, to the letter. An answer that came in pieces is taken down as the
/// completion that they make.
#[derive(Clone, Default)]
pub(crate) struct Tape(Arc<Mutex<Taped>>);

/// The bodies of one exchange.
#[derive(Clone, Default)]
pub(crate) struct Taped {
    pub(crate) request: Option<Vec<u8>>,
    pub(crate) response: Option<Vec<u8>>,
}

impl Tape {
    pub(crate) fn sent(&self, body: Option<&[u8]>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).request = body.map(<[u8]>::to_vec);
    }

    pub(crate) fn came(&self, body: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).response = Some(body.to_vec());
    }

    fn take(&self) -> Taped {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tape")
    }
}

/// A call that is being made, as far as it has to be known to keep it. One that is dropped before it is
/// told, because its step has ended, is kept all the same if it was sent: it may have been paid for.
pub(crate) struct Making {
    calls: Calls,
    call: Option<NewCall>,
    tape: Tape,
    /// Under which key its answer is looked for and may serve again, and for how long.
    pub(crate) key: Option<(Digest, Span)>,
}

impl Making {
    /// It has been made already, and comes back from its batch.
    pub(crate) fn came(&mut self, batched: &BatchCall) {
        if let Some(call) = &mut self.call {
            call.id = batched.ended.id;
        }
        let unpacked = |body: &Body| body.unpack().ok();
        if batched.was_sent() {
            self.tape.sent(batched.request.as_ref().and_then(unpacked).as_deref());
        }
        if let Ok((_, body)) = &batched.ended.how
            && let Some(body) = unpacked(body)
        {
            self.tape.came(&body);
        }
    }

    /// Looks for an earlier answer that may serve.
    pub(crate) async fn look(&self) -> Option<Hit> {
        let (key, age) = self.key.as_ref()?;
        let found = self.calls.0.store.cached_call(key, *age).await;
        let call =
            found.map_err(|error| tracing::warn!(%error, "the cache of answers was not read")).ok()??;
        let response = call.response.as_ref()?.unpack().ok()?;
        let reply = serde_json::from_slice(&response).ok()?;
        Some(Hit { call, reply })
    }

    /// Keeps it, as it will be told; gives where. `fit` says whether the answer is of use, so that it may serve
    /// again.
    pub(crate) async fn keep(mut self, told: &ModelCall, hit: Option<Hit>, fit: bool) -> Option<CallId> {
        let mut call = self.call.take()?;
        let taped = self.tape.take();
        if taped.request.is_none() && hit.is_none() {
            return None; // it never left: the provider was paused, or its queue full
        }
        call.told = told.clone();
        let id = call.id;
        match hit {
            Some(Hit { call: earlier, .. }) => {
                call.origin = Some(earlier.row.origin.unwrap_or(earlier.row.id));
                (call.request, call.response) = (earlier.request, earlier.response);
            }
            None => call = packed(&self.calls, call, taped, self.key.take().filter(|_| fit)).await,
        }
        match self.calls.write(&call).await {
            Ok(()) => Some(id),
            Err(error) => {
                tracing::warn!(%error, run = %call.run, step = %call.step, "what was said to a model was not kept");
                None
            }
        }
    }
}

/// An answer that serves again.
pub(crate) struct Hit {
    call: Call,
    pub(crate) reply: Reply,
}

impl Drop for Making {
    fn drop(&mut self) {
        let Some(mut call) = self.call.take() else { return };
        let taped = self.tape.take();
        let (Some(_), Ok(runtime)) = (&taped.request, tokio::runtime::Handle::try_current()) else { return };
        call.told.outcome = "nobody waited for its answer any more".into();
        let calls = self.calls.clone();
        runtime.spawn(async move {
            let call = packed(&calls, call, taped, None).await;
            if let Err(error) = calls.write(&call).await {
                tracing::warn!(%error, run = %call.run, "what was said to a model was not kept");
            }
        });
    }
}

/// The call with its bodies, packed where that holds nobody up. What is not kept whole cannot serve again.
async fn packed(calls: &Calls, mut call: NewCall, taped: Taped, key: Option<(Digest, Span)>) -> NewCall {
    let calls = calls.clone();
    let pack = move || {
        let mut whole = true;
        let mut pack = |body: Vec<u8>| {
            let (body, redacted) = calls.redacted(body);
            let body = Body::pack(&body);
            whole &= !redacted && !body.clipped;
            body
        };
        let (request, response) = (taped.request.map(&mut pack), taped.response.map(&mut pack));
        (request, response, whole)
    };
    if let Ok((request, response, whole)) = tokio::task::spawn_blocking(pack).await {
        (call.request, call.response) = (request, response);
        call.serves = key.filter(|_| whole && call.response.is_some());
    }
    call
}

impl Walk<'_> {
    /// Prepares to keep a call; `None` where nothing is kept. From now on `request` is taken down.
    pub(crate) fn making(&self, target: &Target<'_>, request: &mut Request, turn: u32) -> Option<Making> {
        let Keeping { calls, run, step, attempt, .. } = self.asked.keeping?;
        let tape = Tape::default();
        request.tape = Some(tape.clone());
        let call = NewCall {
            id: CallId(Uuid::now_v7()),
            run,
            step: step.clone(),
            attempt,
            agent: self.agent.agent.clone(),
            agent_digest: self.agent.digest(),
            prompt_digest: Digest::of_json(&serde_json::json!(request.messages)),
            provider: target.remote.provider.clone(),
            told: ModelCall {
                model: target.name.to_owned(),
                turn,
                part: target.part.clone(),
                ..ModelCall::default()
            },
            request: None,
            response: None,
            origin: None,
            serves: None,
        };
        let key = self.agent.cache.filter(|_| !request.has_looked_up());
        let key = key.map(|age| (key_of(target, request), age));
        Some(Making { calls: calls.clone(), call: Some(call), tape, key })
    }
}

/// What an answer depends on: where it is asked for, all that is sent but the manner of its delivery, which
/// of several independent answers it is to be, and where its input came from. So an answer made from
/// untrusted input never serves another, were they the same to the letter.
fn key_of(target: &Target<'_>, request: &Request) -> Digest {
    let whole = Request { hear: None, ..request.clone() };
    let label: Label = request.label;
    Digest::of_json(&serde_json::json!({
        "provider": target.remote.provider,
        "at": target.remote.at,
        "body": whole.body(Dialect { json_schema: true, completion_tokens: false, stream_usage: false }),
        "sample": request.sample,
        "label": label,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_taken_out_however_it_is_spelled() {
        let secret = Secret::new("sk-\"quoted\\-1".into());
        let body = format!(
            "{{\"plain\": \"{}\", \"json\": {}}}",
            secret.expose(),
            serde_json::json!(secret.expose())
        );
        let body = redact(body.into_bytes(), &secret);
        assert_eq!(String::from_utf8(body).unwrap(), r#"{"plain": "***", "json": "***"}"#);
        assert_eq!(redact(b"nothing".to_vec(), &secret), b"nothing");
    }
}
