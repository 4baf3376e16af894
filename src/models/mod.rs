//! What answers a prompt.
//!
//! | file | what it holds |
//! |---|---|
//! | `chain` | an agent's way along its tier, from the first model to the owner |
//! | `converse` | what is said with one model: the question, turns with tools, the repair turn, votes |
//! | `tools` | what models look up, and what they are told |
//! | `ask` | one call of a provider's model: retries, what is told of it |
//! | `batch` | calls that may wait, at half the price |
//! | `witness` | who is told how an answer comes about, and who hears it being written |
//! | `gateway` | the actor per provider: fair queue, limits, breaker |
//! | `limits`, `headers` | rate limits: the owner's, and what providers say of theirs |
//! | `breakers` | breakers kept in the database, shared between nodes |
//! | `openai`, `wire`, `stream`, `vectors` | one HTTP call in the OpenAI format, whole or in pieces |
//! | `estimate`, `price` | tokens before a call, money after it |
//! | `survey` | every model as the owner sees it, and whether it answers |
//! | `record` | what was said, kept word for word; answers that serve again |
//! | `memo` | what is made once and used again |
//! | `otel` | what a call is named in traces |
//! | `embed` | texts to vectors by a provider's model: paid, kept, never paid twice |
//! | `encoder`, `classify` | the built-in encoder: vectors and zero-shot classes |
//! | `canned` | the agent's own output, written by the owner |
//! | `schema` | the object inside an answer, valid under its schema |
//! | `ledger` | pays for each call before it is made |
//! | `error` | the kinds of failure and what follows from each |

mod ask;
mod batch;
mod breakers;
mod canned;
mod chain;
mod classify;
mod converse;
pub mod embed;
pub mod encoder;
pub mod error;
mod estimate;
mod gateway;
mod headers;
pub mod ledger;
mod limits;
mod memo;
mod openai;
mod otel;
mod price;
pub mod record;
pub mod schema;
mod stream;
pub mod survey;
#[cfg(test)]
mod tests;
pub mod tools;
mod vectors;
mod wire;
pub mod witness;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use serde_json::Value;

pub use self::encoder::{Encoder, EncoderError};
pub use self::gateway::{Standing, Trouble};
pub use self::openai::EndpointError;

use self::batch::Batcher;
use self::breakers::Keeper;
use self::chain::Walk;
use self::classify::Classifier;
use self::gateway::Gateway;
use self::ledger::{Ledger, Payer};
use self::limits::Limits;
use self::openai::{Credentials, Endpoint};
use self::record::Keeping;
use self::schema::Schemas;
use self::tools::Tools;
use self::wire::Dialect;
use self::witness::Witness;
use crate::config;
use crate::config::models::{Model, Price, Provider, Tokenizer};
use crate::domain::event::ModelCall;
use crate::domain::label::Label;
use crate::domain::plan::Answer;
use crate::domain::run::Round;
use crate::domain::tier::Link;
use crate::domain::workflow::Agent;
use crate::store::{Store, StoreError};

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
    /// Its earlier drafts, and what the owner said to each.
    pub rounds: &'a [Round],
    /// How long providers may be waited for.
    pub limit: Duration,
    /// Who pays.
    pub payer: &'a Payer,
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
    /// What the owner wrote.
    config: config::models::Models,
    tiers: BTreeMap<String, Vec<Link>>,
    remotes: BTreeMap<String, Remote>,
    /// By provider: the way to it, or why there is none.
    gateways: BTreeMap<String, Result<Gateway, String>>,
    keeper: Keeper,
    ledger: Ledger,
    batcher: Batcher,
}

/// A model of some provider.
struct Remote {
    /// Its name at the provider.
    id: String,
    /// Whose it is.
    provider: String,
    /// Where that provider is.
    at: url::Url,
    price: Option<Price>,
    /// Whether it can use tools.
    tools: bool,
    /// Whether it can be heard while it writes.
    streaming: bool,
    /// Whether its provider takes batches.
    batch: bool,
    /// The most tokens that question and answer may have together.
    context: Option<u32>,
    /// The most tokens of an answer.
    max_output: Option<u32>,
    /// How it counts tokens.
    tokenizer: Tokenizer,
    /// What its provider speaks.
    dialect: Dialect,
    /// The way to it, or why there is none.
    gateway: Result<Gateway, String>,
}

impl Models {
    /// Starts one gateway per provider whose key is there (or needs none). `workspace` is what prompts
    /// and canned outputs know by that name; the gateways are linked to `supervisor`; `ledger` pays for
    /// every call.
    ///
    /// # Errors
    /// When a provider's settings cannot work.
    pub async fn start(
        config: &config::models::Models,
        workspace: Value,
        supervisor: Option<ActorCell>,
        encoder: Encoder,
        ledger: Ledger,
    ) -> Result<Self, ModelsError> {
        let mut gateways = BTreeMap::new();
        for (name, provider) in &config.providers {
            let limits = limits(config, name, provider);
            gateways.insert(name.clone(), gateway(name, provider, limits, supervisor.clone()).await?);
        }
        let remotes = config.models.iter().filter_map(|(name, model)| {
            let (provider, gateway) =
                (config.providers.get(&model.provider)?, gateways.get(&model.provider)?);
            Some((name.clone(), Remote::new(config, model, provider, gateway.clone())))
        });
        Ok(Self(Arc::new(Inner {
            classifier: Classifier::new(encoder.clone()),
            encoder,
            schemas: Schemas::new(),
            workspace,
            config: config.clone(),
            tiers: config.tiers.clone(),
            remotes: remotes.collect(),
            batcher: Batcher::new(config, &gateways, ledger.clone()),
            keeper: Keeper::new(gateways.values().flatten().cloned().collect()),
            gateways,
            ledger,
        })))
    }

    /// Looks after batches, and keeps the breakers in the database, from now on: those that were open still are, and what other nodes
    /// find out counts here, too.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn attend(&self, store: &Store) -> Result<(), StoreError> {
        self.0.keeper.attend(store.clone()).await?;
        self.0.batcher.attend(store.clone());
        Ok(())
    }

    /// The built-in encoder.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.0.encoder
    }

    /// What pays for calls.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Asks an agent: walks its tier from the first model to the last, then, with the draft, the tier that
    /// goes over it. Every call but the last is told to the witness as soon as something follows it; the last
    /// comes back with the answer. A model that was passed over counts as a call, its outcome says why. No
    /// provider is waited for beyond the limit; what needs none comes after it all the same. Dropping the
    /// future ends whatever is under way.
    pub async fn answer(&self, asked: Asked<'_>) -> (Option<ModelCall>, Answer) {
        Walk::new(&self.0, asked).run().await
    }

    /// Stops the gateways, then the ledger; calls under way end as unavailable.
    pub async fn stop(&self) {
        self.0.batcher.stop().await;
        self.0.keeper.stop().await;
        futures_util::future::join_all(self.0.gateways.values().flatten().map(Gateway::stop)).await;
        self.0.ledger.stop().await;
    }
}

impl Remote {
    fn new(
        config: &config::models::Models,
        model: &Model,
        provider: &Provider,
        gateway: Result<Gateway, String>,
    ) -> Self {
        Self {
            id: model.id.clone(),
            provider: model.provider.clone(),
            at: provider.base_url.clone(),
            price: model.price.clone(),
            context: model.context,
            max_output: model.max_output,
            tools: provider.tools,
            streaming: provider.streaming,
            batch: provider.batch,
            tokenizer: config.tokenizer(model),
            dialect: Dialect::of(provider),
            gateway,
        }
    }
}

/// The limits of a provider's models, by their names there. Two of the owner's names for one model share the
/// limits of the first.
fn limits(config: &config::models::Models, name: &str, provider: &Provider) -> HashMap<String, Limits> {
    let now = tokio::time::Instant::now();
    let mut limits = HashMap::new();
    for model in config.models.values().filter(|model| model.provider == name) {
        let own = || Limits::new(model.per_minute, model.tokens_per_minute, provider.concurrency, now);
        limits.entry(model.id.clone()).or_insert_with(own);
    }
    limits
}

/// The provider's gateway, or why it has none.
async fn gateway(
    name: &str,
    provider: &Provider,
    limits: HashMap<String, Limits>,
    supervisor: Option<ActorCell>,
) -> Result<Result<Gateway, String>, ModelsError> {
    let credentials = match Credentials::of(provider) {
        Ok(credentials) => credentials,
        Err(missing) => return Ok(Err(missing)),
    };
    let endpoint = Endpoint::new(provider, credentials)
        .map_err(|source| ModelsError::Endpoint { provider: name.to_owned(), source })?;
    let gateway = Gateway::start(name, provider, limits, endpoint, supervisor)
        .await
        .map_err(|source| ModelsError::Gateway { provider: name.to_owned(), source })?;
    Ok(Ok(gateway))
}
