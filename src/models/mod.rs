//! What answers a prompt.
//!
//! | file | what it holds |
//! |---|---|
//! | `chain` | an agent's way along its tier, from the first model to the owner |
//! | `converse` | what is said with one model: the question, turns with tools, the repair turn, votes |
//! | `tools` | what models look up, and what they are told |
//! | `ask` | one call of a provider's model: retries, what is told of it |
//! | `witness` | who is told how an answer comes about, and who hears it being written |
//! | `gateway` | the actor per provider: queue, rate limit, breaker |
//! | `openai`, `wire`, `stream` | one HTTP call in the OpenAI format, whole or in pieces |
//! | `record` | what was said, kept word for word; answers that serve again |
//! | `otel` | what a call is named in traces |
//! | `encoder`, `classify` | the built-in encoder: vectors and zero-shot classes |
//! | `canned` | the agent's own output, written by the owner |
//! | `schema` | the object inside an answer, valid under its schema |
//! | `error` | the kinds of failure and what follows from each |

mod ask;
mod canned;
mod chain;
mod classify;
mod converse;
pub mod encoder;
pub mod error;
mod gateway;
mod memo;
mod openai;
mod otel;
pub mod record;
pub mod schema;
mod stream;
#[cfg(test)]
mod tests;
pub mod tools;
mod wire;
pub mod witness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use serde_json::Value;

pub use self::encoder::{Encoder, EncoderError};
pub use self::openai::EndpointError;

use self::chain::Walk;
use self::classify::Classifier;
use self::gateway::Gateway;
use self::openai::Endpoint;
use self::record::Keeping;
use self::schema::Schemas;
use self::tools::Tools;
use self::witness::Witness;
use crate::config;
use crate::config::models::{Price, Provider};
use crate::domain::event::ModelCall;
use crate::domain::label::Label;
use crate::domain::plan::Answer;
use crate::domain::workflow::Agent;

/// Why the models could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The built-in encoder.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// A provider cannot be spoken to.
    #[error("provider `{provider}` in config/models.yaml: {source}")]
    Endpoint {
        /// Its name.
        provider: String,
        /// Why.
        source: EndpointError,
    },
    /// A gateway did not start.
    #[error("the gateway of provider `{provider}` did not start: {source}")]
    Gateway {
        /// The provider's name.
        provider: String,
        /// Why.
        source: ractor::SpawnErr,
    },
}

/// What an agent is asked, and what it may use.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Who is asked.
    pub agent: &'a Agent,
    /// What it is given.
    pub with: &'a Value,
    /// Where that came from.
    pub label: Label,
    /// How long providers may be waited for.
    pub limit: Duration,
    /// What its tools look into.
    pub tools: &'a dyn Tools,
    /// Who is told.
    pub witness: &'a dyn Witness,
    /// Where the calls are kept; nowhere without.
    pub keeping: Option<Keeping<'a>>,
}

/// Everything that can answer a prompt. Clones share it.
#[derive(Clone)]
pub struct Models(Arc<Inner>);

struct Inner {
    encoder: Encoder,
    classifier: Classifier,
    schemas: Schemas,
    workspace: Value,
    tiers: BTreeMap<String, Vec<String>>,
    remotes: BTreeMap<String, Remote>,
    gateways: Vec<Gateway>,
}

/// A model of some provider.
struct Remote {
    /// Its name at the provider.
    id: String,
    /// Whose it is.
    provider: String,
    /// Where that provider is.
    at: Option<url::Url>,
    price: Option<Price>,
    /// Whether it can use tools.
    tools: bool,
    /// Whether it can be heard while it writes.
    streaming: bool,
    /// The way to it, or why there is none.
    gateway: Result<Gateway, String>,
}

impl Models {
    /// Starts one gateway per provider whose key is there (or needs none); the encoder loads when it is
    /// first asked, or by [`Encoder::warm`].
    /// `workspace` is what prompts and canned outputs know by that name; the gateways are linked
    /// to `supervisor`.
    ///
    /// # Errors
    /// When a provider's settings cannot work.
    pub async fn start(
        config: &config::models::Models,
        workspace: Value,
        supervisor: Option<ActorCell>,
    ) -> Result<Self, ModelsError> {
        let encoder = Encoder::lazy();
        let mut served = BTreeMap::new();
        for (name, provider) in &config.providers {
            served.insert(name, gateway(name, provider, supervisor.clone()).await?);
        }
        let can = |model: &config::models::Model, what: fn(&Provider) -> bool| {
            config.providers.get(&model.provider).is_some_and(what)
        };
        let remote = |model: &config::models::Model| Remote {
            id: model.id.clone(),
            provider: model.provider.clone(),
            at: config.providers.get(&model.provider).map(|provider| provider.base_url.clone()),
            price: model.price.clone(),
            tools: can(model, |provider| provider.tools),
            streaming: can(model, |provider| provider.streaming),
            gateway: match served.get(&model.provider) {
                Some(gateway) => gateway.clone(),
                None => Err(format!("there is no provider `{}` in config/models.yaml", model.provider)),
            },
        };
        Ok(Self(Arc::new(Inner {
            classifier: Classifier::new(encoder.clone()),
            encoder,
            schemas: Schemas::new(),
            workspace,
            tiers: config.tiers.clone(),
            remotes: config.models.iter().map(|(name, model)| (name.clone(), remote(model))).collect(),
            gateways: served.into_values().flatten().collect(),
        })))
    }

    /// The built-in encoder.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.0.encoder
    }

    /// Asks an agent: walks its tier from the first model to the last, then, with the draft, the tier that
    /// goes over it. Every call but the last is told to the witness as soon as something follows it; the last
    /// comes back with the answer. A model that was passed over counts as a call, its outcome says why. No
    /// provider is waited for beyond the limit; what needs none comes after it all the same. Dropping the
    /// future ends whatever is under way.
    pub async fn answer(&self, asked: Asked<'_>) -> (Option<ModelCall>, Answer) {
        Walk::new(&self.0, asked).run().await
    }

    /// Stops the gateways; calls under way end as unavailable.
    pub async fn stop(&self) {
        futures_util::future::join_all(self.0.gateways.iter().map(Gateway::stop)).await;
    }
}

/// The provider's gateway, or why it has none.
async fn gateway(
    name: &str,
    provider: &Provider,
    supervisor: Option<ActorCell>,
) -> Result<Result<Gateway, String>, ModelsError> {
    let key = match &provider.key {
        Some(reference) => match reference.resolve() {
            Some(key) => Some(key),
            None => return Ok(Err(format!("{} is not set", reference.variable))),
        },
        None => None,
    };
    let endpoint = Endpoint::new(provider, key)
        .map_err(|source| ModelsError::Endpoint { provider: name.to_owned(), source })?;
    let gateway = Gateway::start(provider, endpoint, supervisor)
        .await
        .map_err(|source| ModelsError::Gateway { provider: name.to_owned(), source })?;
    Ok(Ok(gateway))
}
