//! Texts to vectors by a provider's model: through its gateway, paid by the workspace, and kept.
//!
//! ```text
//! texts ──► kept? ──► batches ──► set aside → call → settle ──► kept ──► vectors
//! ```
//!
//! What was paid for is kept before anybody has it, under the digest of the model and the text: the same text
//! is not paid a second time, not after a crash, and not by two who ask at the same moment. A batch that was
//! begun is brought to its end even when nobody waits for it any more, because it is paid for.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tracing::Instrument;

use crate::domain::budget::Payer;
use crate::domain::digest::{Digest, canonical};
use crate::failpoint;
use crate::models::ask::{delays, worth_waiting};
use crate::models::error::{Kind, ModelError};
use crate::models::estimate::{self, BYTES_PER_TOKEN};
use crate::models::gateway::Gateway;
use crate::models::ledger::charge;
use crate::models::price::Tariff;
use crate::models::wire::{Reply, Request};
use crate::models::{Models, Remote, otel};
use crate::store::{Store, StoreError};

/// The lane of what memory asks, for documents and questions alike.
const LANE: &str = "memory";

/// The most texts of one call. Providers take hundreds; a server of one's own works on them one by one, and
/// must be through within its time-out.
const MOST_TEXTS: usize = 64;

/// About the most tokens of one call.
const MOST_TOKENS: usize = 16_000;

/// What every model that embeds reads of a text, bytes: 512 tokens, by the highest count there is. A text that
/// was refused is asked again with no more than that.
const SHORT: usize = 512;

/// A model of `config/models.yaml` that embeds. Clones share it.
#[derive(Clone)]
pub struct RemoteEmbedder(Arc<Inner>);

struct Inner {
    models: Models,
    name: String,
    space: String,
    dimensions: Option<u32>,
    /// Where vectors are kept; nowhere in tests without a database.
    store: Option<Store>,
    under_way: UnderWay,
}

impl Models {
    /// The model that the owner wants to embed; none when the built-in encoder does.
    #[must_use]
    pub fn embedding(&self) -> Option<&str> {
        self.0.config.embedding()
    }

    /// The models whose providers have embeddings.
    pub fn may_embed(&self) -> impl Iterator<Item = &str> {
        let config = &self.0.config;
        let embeds = |provider: &str| config.providers.get(provider).is_some_and(|found| found.embeddings);
        config.models.iter().filter(move |(_, model)| embeds(&model.provider)).map(|(name, _)| name.as_str())
    }

    /// The model as one that embeds, and keeps in `store` what was paid for; `None` when there is no such model.
    #[must_use]
    pub fn embedder(&self, name: &str, store: Option<Store>) -> Option<RemoteEmbedder> {
        let remote = self.0.remotes.get(name)?;
        let dimensions = self.0.config.models.get(name)?.dimensions;
        // What could answer otherwise is another space: another address, another model, another size.
        let space = serde_json::json!({"at": remote.at, "model": remote.id, "dimensions": dimensions});
        let space = canonical(&space);
        let (models, name, under_way) = (self.clone(), name.to_owned(), UnderWay::default());
        Some(RemoteEmbedder(Arc::new(Inner { models, name, space, dimensions, store, under_way })))
    }
}

impl RemoteEmbedder {
    /// What must be equal before two vectors may be compared.
    #[must_use]
    pub fn space(&self) -> &str {
        &self.0.space
    }

    /// How many coordinates a vector has, if the owner says so.
    #[must_use]
    pub fn dimensions(&self) -> Option<usize> {
        self.0.dimensions.and_then(|wanted| usize::try_from(wanted).ok())
    }

    /// One vector per text, in order, each of `size` coordinates, if somebody knows how many there must be:
    /// others are not kept, nor taken from what is kept.
    ///
    /// # Errors
    /// Why the model gave none; of what was paid for until then nothing is lost.
    pub async fn embed(&self, texts: Vec<String>, size: Option<usize>) -> Result<Vec<Vec<f32>>, ModelError> {
        let size = size.or(self.dimensions());
        let keys: Vec<Digest> = texts.iter().map(|text| self.key(text)).collect();
        let mut by_key: HashMap<Digest, String> = keys.iter().copied().zip(texts).collect();
        let mut vectors = HashMap::with_capacity(by_key.len());
        let mut distinct = keys.clone();
        distinct.retain(|key| vectors.insert(*key, Vec::new()).is_none());
        for batch in batches(&distinct, |key| by_key.get(key).map_or(0, String::len)) {
            let turn = self.0.under_way.turn(batch).await;
            let mut kept = self.0.kept(batch).await?;
            kept.retain(|_, vector| size.is_none_or(|size| size == vector.len()));
            let missing: Vec<(Digest, String)> = batch
                .iter()
                .filter(|key| !kept.contains_key(key))
                .filter_map(|key| by_key.remove_entry(key))
                .collect();
            vectors.extend(kept);
            if missing.is_empty() {
                continue;
            }
            let this = Arc::clone(&self.0);
            let made = tokio::spawn(async move {
                let made = this.make(missing, size).await;
                drop(turn);
                made
            });
            vectors.extend(made.await.map_err(|_| ModelError::new(Kind::Unavailable, "it crashed"))??);
        }
        Ok(keys.iter().map(|key| vectors.get(key).cloned().unwrap_or_default()).collect())
    }

    fn key(&self, text: &str) -> Digest {
        Digest::of_parts(&[self.0.space.as_bytes(), text.as_bytes()])
    }
}

impl Inner {
    async fn kept(&self, keys: &[Digest]) -> Result<HashMap<Digest, Vec<f32>>, ModelError> {
        let Some(store) = &self.store else { return Ok(HashMap::new()) };
        // Not to know what was paid for already is no reason to pay again.
        let unknown = |error: StoreError| ModelError::new(Kind::Busy, error.to_string());
        store.cached_embeddings(keys).await.map_err(unknown)
    }

    /// Asks the model, and once more for the beginnings alone if it finds something wrong with the texts: most
    /// likely one of them is longer than it reads.
    async fn make(
        &self,
        texts: Vec<(Digest, String)>,
        size: Option<usize>,
    ) -> Result<Vec<(Digest, Vec<f32>)>, ModelError> {
        let cannot = |why: &str| ModelError::new(Kind::Inapplicable, why);
        let Some(remote) = self.models.0.remotes.get(&self.name) else {
            return Err(cannot("there is no such model in config/models.yaml"));
        };
        let gateway = remote.gateway.as_ref().map_err(|why| cannot(why))?;
        let (keys, texts): (Vec<Digest>, Vec<String>) = texts.into_iter().unzip();
        let most = remote.context.map_or(usize::MAX, |tokens| bytes_of(tokens as usize));
        let request = self.request(remote, texts.iter().map(|text| beginning(text, most)));
        let vectors = match self.ask(gateway, remote, &request, size).await {
            Err(error) if error.kind == Kind::Rejected && texts.iter().any(|text| text.len() > SHORT) => {
                tracing::warn!(model = self.name, %error, "texts are embedded by their beginnings alone");
                let request = self.request(remote, texts.iter().map(|text| beginning(text, SHORT)));
                self.ask(gateway, remote, &request, size).await?
            }
            asked => asked?,
        };
        let made: Vec<(Digest, Vec<f32>)> = keys.into_iter().zip(vectors).collect();
        if let Some(store) = &self.store
            && let Err(error) = store.keep_embeddings(&made).await
        {
            tracing::warn!(%error, "vectors that were paid for are not kept");
        }
        Ok(made)
    }

    fn request<'a>(&self, remote: &Remote, texts: impl Iterator<Item = &'a str>) -> Request {
        Request {
            model: remote.id.clone(),
            texts: texts.map(str::to_owned).collect(),
            dimensions: self.dimensions,
            lane: Arc::from(LANE),
            ..Request::default()
        }
    }

    /// One call, and again while it fails in a way that may pass soon.
    async fn ask(
        &self,
        gateway: &Gateway,
        remote: &Remote,
        request: &Request,
        size: Option<usize>,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut delays = delays();
        loop {
            let error = match self.call(gateway, remote, request, size).await {
                Ok(vectors) => return Ok(vectors),
                Err(error) => error,
            };
            match worth_waiting(&error, &mut delays) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(error),
            }
        }
    }

    /// The HTTP call and what pays for it: set aside, call, settle.
    async fn call(
        &self,
        gateway: &Gateway,
        remote: &Remote,
        request: &Request,
        size: Option<usize>,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let ledger = self.models.ledger();
        let payer = Payer::workspace(gateway.patience());
        let reserved = ledger.set_aside(&payer, &self.name, remote, request, Tariff::Usual).await?;
        if reserved.is_some() {
            failpoint::hit(failpoint::MODEL_RESERVED);
        }
        let span = otel::embedding(&self.name, remote, request);
        let mut call = gateway.call(request.clone()).instrument(span.clone()).await;
        if let Ok(reply) = &mut call.result
            && reply.error.is_none()
        {
            estimate::complete(reply, request, remote);
        }
        let mut cost = None;
        if let (Some(reserved), Some(price)) = (&reserved, &remote.price) {
            cost = charge(&call, price, reserved, Tariff::Usual);
            match cost {
                Some(cost) => ledger.settle(reserved.id, cost),
                None => ledger.release(reserved.id),
            }
        }
        let vectors = judged(&call.result, request.texts.len(), size);
        let coordinates = vectors.as_ref().map(|vectors| vectors.first().map_or(0, Vec::len));
        otel::embedded(&span, &call, coordinates, cost.unwrap_or(0));
        vectors
    }
}

/// The vectors, if there is a sound one of the right size for each text.
fn judged(
    result: &Result<Reply, ModelError>,
    texts: usize,
    size: Option<usize>,
) -> Result<Vec<Vec<f32>>, ModelError> {
    let vectors = result.as_ref().map_err(Clone::clone)?.embedded(texts)?;
    let given = vectors.first().map_or(0, Vec::len);
    match size.filter(|wanted| *wanted != given) {
        Some(wanted) => {
            let why = format!("it gave vectors of {given} coordinates, not of {wanted}");
            Err(ModelError::new(Kind::Invalid, why))
        }
        None => Ok(vectors.to_vec()),
    }
}

/// What is being asked at this moment, by key.
#[derive(Default)]
struct UnderWay {
    keys: Arc<Mutex<HashSet<Digest>>>,
    free: Arc<Notify>,
}

/// Somebody who asks for these.
struct Turn {
    taken: Vec<Digest>,
    keys: Arc<Mutex<HashSet<Digest>>>,
    free: Arc<Notify>,
}

impl UnderWay {
    /// Waits until nobody asks for any of these: by then they are kept.
    async fn turn(&self, keys: &[Digest]) -> Turn {
        loop {
            let free = self.free.notified();
            tokio::pin!(free);
            free.as_mut().enable(); // before the look, or the end of a turn could be missed
            {
                let mut taken = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
                if !keys.iter().any(|key| taken.contains(key)) {
                    taken.extend(keys);
                    break;
                }
            }
            free.await;
        }
        Turn { taken: keys.to_vec(), keys: Arc::clone(&self.keys), free: Arc::clone(&self.free) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|key| !self.taken.contains(key));
        drop(taken);
        self.free.notify_waiters();
    }
}

/// Runs of `all` that one call can carry, by their lengths in bytes.
fn batches<T>(all: &[T], length: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut batches, mut begun, mut bytes) = (Vec::new(), 0, 0);
    for (place, item) in all.iter().enumerate() {
        let full = place - begun == MOST_TEXTS || bytes + length(item) > bytes_of(MOST_TOKENS);
        if full && place > begun {
            batches.push(&all[begun..place]);
            (begun, bytes) = (place, 0);
        }
        bytes += length(item);
    }
    batches.extend((begun < all.len()).then(|| &all[begun..]));
    batches
}

/// About how many bytes so many tokens are.
fn bytes_of(tokens: usize) -> usize {
    tokens.saturating_mul(usize::try_from(BYTES_PER_TOKEN).unwrap_or(1))
}

fn beginning(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_carry_everything_in_order_and_none_is_too_large(
            lengths in prop::collection::vec(0usize..20_000, 0..300),
        ) {
            let batches = batches(&lengths, |length| *length);
            prop_assert_eq!(batches.concat(), lengths.clone());
            for batch in batches {
                prop_assert!(!batch.is_empty() && batch.len() <= MOST_TEXTS);
                prop_assert!(batch.iter().sum::<usize>() <= bytes_of(MOST_TOKENS));
            }
        }
    }
}
