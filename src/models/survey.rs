//! Every model as the owner sees it: what it costs, whether it can be asked, and whether it answers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;

use crate::config::models::{Price, Tokenizer};
use crate::domain::budget::Payer;
use crate::models::error::clipped;
use crate::models::ledger::charge;
use crate::models::price::Tariff;
use crate::models::wire::{Message, Request};
use crate::models::{Models, Remote, Standing, chain, estimate};
use crate::store::StoreError;

/// The lane of what the owner asks.
const LANE: &str = "owner";

/// How long one model may take to answer a word: a local one may have to be loaded first.
const PATIENCE: Duration = Duration::from_secs(120);

/// A provider, as it is listed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ProviderView {
    /// Its name.
    pub provider: String,
    /// Where it is.
    pub base_url: String,
    /// `ready`, `paused` (its breaker is open) or `passed over` (something is missing).
    pub state: &'static str,
    /// Why, unless it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether only the owner can mend it.
    pub needs_owner: bool,
    /// When a probe may be made, of one that is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When its last trouble began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Timestamp>,
    /// When its last trouble was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
    /// Calls under way on this node.
    pub under_way: usize,
    /// Calls that wait on this node.
    pub waiting: usize,
    /// Calls under way at once, at most.
    pub concurrency: usize,
    /// Calls begun per minute, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
    /// Tokens per minute, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
}

/// A model, as it is listed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ModelView {
    /// Its name.
    pub model: String,
    /// Who serves it.
    pub provider: String,
    /// Its name there.
    pub id: String,
    /// What a million tokens cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// The most tokens of question and answer together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
    /// The most tokens of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output: Option<u32>,
    /// Calls per minute, besides the provider's limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
    /// Tokens per minute, besides the provider's limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
    /// How its tokens are counted before a call.
    pub tokenizer: Tokenizer,
    /// The tiers it is in.
    pub tiers: Vec<String>,
    /// Whether it embeds documents and questions.
    pub embeds: bool,
}

/// Everything that is listed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Survey {
    /// Who serves models.
    pub providers: Vec<ProviderView>,
    /// The models.
    pub models: Vec<ModelView>,
}

/// How one model answered one word.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Tested {
    /// Its name.
    pub model: String,
    /// Who serves it.
    pub provider: String,
    /// `ok`, or what went wrong.
    pub outcome: String,
    /// Whether it answered.
    pub ok: bool,
    /// How long it took.
    pub millis: u64,
    /// The model that the provider says answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Millionths of the workspace's currency.
    pub cost_micros: i64,
}

impl Models {
    /// Lists providers and models.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn survey(&self) -> Result<Survey, StoreError> {
        let inner = &self.0;
        let rows = inner.keeper.rows().await?;
        let mut providers = Vec::new();
        for (name, provider) in &inner.config.providers {
            let (standing, missing) = match inner.gateways.get(name) {
                Some(Ok(gateway)) => (gateway.standing().await, None),
                Some(Err(why)) => (None, Some(why.clone())),
                None => (None, None),
            };
            let missing =
                missing.or_else(|| standing.is_none().then(|| "its gateway has stopped".to_owned()));
            let Standing { trouble, under_way, waiting } =
                standing.unwrap_or(Standing { trouble: None, under_way: 0, waiting: 0 });
            let row = rows.iter().find(|row| row.provider == *name);
            let state = match (&missing, &trouble) {
                (Some(_), _) => "passed over",
                (None, Some(_)) => "paused",
                (None, None) => "ready",
            };
            providers.push(ProviderView {
                provider: name.clone(),
                base_url: provider.base_url.to_string(),
                state,
                needs_owner: missing.is_some() || trouble.as_ref().is_some_and(|trouble| trouble.lasting),
                until: trouble.as_ref().map(|trouble| trouble.until),
                why: missing.or(trouble.map(|trouble| trouble.why)),
                opened_at: row.map(|row| row.opened_at),
                closed_at: row.and_then(|row| row.closed_at),
                under_way,
                waiting,
                concurrency: provider.concurrency,
                per_minute: provider.per_minute,
                tokens_per_minute: provider.tokens_per_minute,
            });
        }
        let models = inner.config.models.iter().map(|(name, model)| {
            let names =
                |chain: &Vec<_>| chain.iter().any(|link: &crate::domain::tier::Link| link.model == *name);
            let tiers = inner.tiers.iter().filter(|(_, chain)| names(chain)).map(|(tier, _)| tier.clone());
            ModelView {
                model: name.clone(),
                provider: model.provider.clone(),
                id: model.id.clone(),
                price: model.price.clone(),
                context: model.context,
                max_output: model.max_output,
                per_minute: model.per_minute,
                tokens_per_minute: model.tokens_per_minute,
                tokenizer: inner.config.tokenizer(model),
                tiers: tiers.collect(),
                embeds: self.embedding() == Some(name),
            }
        });
        Ok(Survey { models: models.collect(), providers })
    }

    /// Lets a provider be asked again at once, on every node. Gives whether it was paused; nothing when there
    /// is no such provider.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reset(&self, provider: &str) -> Result<Option<bool>, StoreError> {
        let Some(gateway) = self.0.gateways.get(provider) else { return Ok(None) };
        let paused = match gateway {
            Ok(gateway) => gateway.reset().await,
            Err(_) => false,
        };
        self.0.keeper.close(provider).await?;
        Ok(Some(paused))
    }

    /// Writes down which providers are paused here and takes over what other nodes have found out. Done by
    /// itself every few seconds.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn compare_breakers(&self) -> Result<(), StoreError> {
        self.0.keeper.look().await
    }

    /// Asks each model, or only `one`, for one token, and the one that embeds for one vector, all at the same
    /// time, whether it is paused or not. One that answers is paused no longer.
    pub async fn test(&self, one: Option<&str>) -> Vec<Tested> {
        let wanted = self.0.remotes.iter().filter(|(name, _)| one.is_none_or(|one| one == *name));
        join_all(wanted.map(|(name, remote)| self.test_one(name, remote))).await
    }

    async fn test_one(&self, name: &str, remote: &Remote) -> Tested {
        let provider = self.0.config.models.get(name).map(|model| model.provider.clone()).unwrap_or_default();
        let mut tested = Tested {
            model: name.to_owned(),
            provider,
            outcome: String::new(),
            ok: false,
            millis: 0,
            answered_by: None,
            input_tokens: 0,
            output_tokens: 0,
            cost_micros: 0,
        };
        let gateway = match &remote.gateway {
            Ok(gateway) => gateway,
            Err(why) => return Tested { outcome: why.clone(), ..tested },
        };
        let embeds = self.embedding() == Some(name);
        let request = Request { model: remote.id.clone(), lane: Arc::from(LANE), ..Request::default() };
        let request = match embeds {
            true => Request {
                texts: vec!["ok".to_owned()],
                dimensions: self.0.config.models.get(name).and_then(|model| model.dimensions),
                ..request
            },
            false => Request {
                messages: vec![Message::new("user", "Say: ok".to_owned())],
                max_tokens: 1,
                ..request
            },
        };
        // A call outside of runs: the workspace pays. One that nobody settles is taken for spent in its time.
        let ledger = &self.0.ledger;
        let reserved = match ledger
            .set_aside(&Payer::workspace(PATIENCE), name, remote, &request, Tariff::Usual)
            .await
        {
            Ok(reserved) => reserved,
            Err(refusal) => return Tested { outcome: refusal.to_string(), ..tested },
        };
        let Ok(mut call) = tokio::time::timeout(PATIENCE, gateway.probe(request.clone())).await else {
            return Tested { outcome: format!("no answer within {} s", PATIENCE.as_secs()), ..tested };
        };
        tested.millis = chain::millis(call.took);
        if let Ok(reply) = &mut call.result
            && reply.error.is_none()
        {
            estimate::complete(reply, &request, remote);
        }
        if let (Some(reserved), Some(price)) = (reserved, &remote.price) {
            let cost = charge(&call, price, &reserved, Tariff::Usual);
            match cost {
                Some(cost) => ledger.settle(reserved.id, cost),
                None => ledger.release(reserved.id),
            }
            tested.cost_micros = cost.unwrap_or(0);
        }
        match call.result {
            Ok(reply) => {
                let usage = reply.usage();
                tested.answered_by = reply.model.as_deref().map(|model| clipped(model, 100));
                (tested.input_tokens, tested.output_tokens) = (usage.read, usage.written);
                // One token is too few for an answer; that one came is enough.
                let error = match embeds {
                    true => reply.embedded(1).err(),
                    false if reply.error.is_none() && reply.refusal.is_none() => None,
                    false => reply.answer().err(),
                };
                tested.ok = error.is_none();
                tested.outcome = error.map_or_else(|| "ok".to_owned(), |error| error.to_string());
            }
            Err(error) => tested.outcome = error.to_string(),
        }
        tested
    }
}
