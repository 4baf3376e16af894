//! How many tokens a question has and what it can cost at most, before it is sent.
//!
//! The whole body is counted, as it goes over the wire: prompts, data, schema, tools. OpenAI's own
//! vocabulary (`tiktoken-rs`) counts for OpenAI's models. Everybody else's is unknown, so there a token is
//! a byte: tokenizers over bytes give a token to at least one of them, so no count is higher.

use std::sync::LazyLock;

use serde_json::Value;
use tiktoken_rs::CoreBPE;

use crate::config::models::{Price, Tokenizer};
use crate::domain::workflow::Agent;
use crate::models::Remote;
use crate::models::price::{self, Tariff};
use crate::models::wire::{Reply, Request, Usage};

/// What a chat template puts around a question, tokens: OpenAI's takes three for each message and some
/// for the schema; other makers' begin with a few lines of their own.
const FRAME: u64 = 256;

/// The longest text that is counted exactly, bytes: some 20 ms of work. Longer ones count as bytes.
const COUNTED: usize = 128 * 1024;

/// The bytes of a token in plain prose of most languages, for what only has to be about right.
pub(crate) const BYTES_PER_TOKEN: u64 = 3;

/// Made at first use: a quarter of a second and some tens of megabytes, which a workspace without
/// OpenAI's models never needs.
static O200K: LazyLock<Option<CoreBPE>> = LazyLock::new(|| {
    tiktoken_rs::o200k_base()
        .inspect_err(|error| tracing::error!(%error, "the vocabulary does not load: tokens count as bytes"))
        .ok()
});

/// The most tokens that `text` has for a model that counts with `tokenizer`.
pub(crate) fn tokens(tokenizer: Tokenizer, text: &str) -> u64 {
    let bytes = length(text);
    match tokenizer {
        Tokenizer::O200k if text.len() <= COUNTED => {
            O200K.as_ref().map_or(bytes, |vocabulary| vocabulary.encode_ordinary(text).len() as u64)
        }
        Tokenizer::O200k | Tokenizer::Bytes => bytes,
    }
}

/// About how many tokens a call takes from the limits per minute: what is read, and all that may be
/// written, for that is how providers count before they know better.
pub(crate) fn about(request: &Request) -> u64 {
    let schema = request.output.as_ref().map_or(0, |output| length(&output.1.to_string()));
    let said: u64 = request.messages.iter().map(|message| length(&message.content)).sum();
    let calls = request.messages.iter().flat_map(|message| &message.tool_calls);
    let calls: u64 = calls.map(|call| length(&call.to_string())).sum();
    let tools = request.tools.iter().map(|tool| length(tool.about()) + length(&tool.arguments().to_string()));
    let texts: u64 = request.texts.iter().map(|text| length(text)).sum();
    (said + schema + calls + texts + tools.sum::<u64>())
        .div_ceil(BYTES_PER_TOKEN)
        .saturating_add(request.max_tokens.into())
}

/// Puts estimates where the provider did not count.
pub(crate) fn complete(reply: &mut Reply, request: &Request, model: &Remote) {
    reply.complete(|| question(request, model), |said| tokens(model.tokenizer, said));
}

/// How many tokens the model reads of this question, about: for what only has to be so in general, such as
/// whether it fits into the context.
pub(crate) fn likely(request: &Request, model: &Remote) -> u64 {
    match model.tokenizer {
        Tokenizer::O200k => question(request, model),
        Tokenizer::Bytes => question(request, model).div_ceil(BYTES_PER_TOKEN),
    }
}

/// About how many tokens an agent's question has, before any model is chosen.
pub(crate) fn input(agent: &Agent, with: &Value) -> u64 {
    let bytes = length(&agent.prompt) + length(&with.to_string()) + length(&agent.output.to_string());
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// The most tokens that the model reads of this question.
pub(crate) fn question(request: &Request, model: &Remote) -> u64 {
    // What embeds has a vocabulary of its own, OpenAI's models too, and costs next to nothing: the sum set
    // aside may be far too high.
    let tokenizer = if request.texts.is_empty() { model.tokenizer } else { Tokenizer::Bytes };
    tokens(tokenizer, &request.body(model.dialect).to_string()).saturating_add(FRAME)
}

/// The most that the call can cost, millionths of the workspace's currency: everything read at the full
/// price, and as much written as is allowed. Nothing for a model without a price.
pub(crate) fn worst(request: &Request, model: &Remote, tariff: Tariff) -> i64 {
    let usage =
        Usage { read: question(request, model), written: request.max_tokens.into(), ..Usage::default() };
    model.price.as_ref().map_or(0, |price: &Price| price::cost(price, &usage, tariff))
}

fn length(text: &str) -> u64 {
    text.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn openais_vocabulary_counts_as_openai_does() {
        // From the cookbook "How to count tokens with tiktoken".
        for (text, count) in
            [("antidisestablishmentarianism", 6), ("2 + 2 = 4", 7), ("お誕生日おめでとう", 8)]
        {
            assert_eq!(tokens(Tokenizer::O200k, text), count, "{text}");
        }
    }

    #[test]
    fn a_long_or_hostile_text_is_counted_in_a_moment() {
        let started = std::time::Instant::now();
        let same = "a".repeat(COUNTED);
        assert!(tokens(Tokenizer::O200k, &same) <= same.len() as u64);
        assert_eq!(tokens(Tokenizer::O200k, &"x".repeat(5_000_000)), 5_000_000);
        assert!(started.elapsed() < std::time::Duration::from_secs(30), "{:?}", started.elapsed());
    }

    proptest! {
        #[test]
        fn no_text_has_more_tokens_than_bytes(text in "\\PC{0,200}") {
            prop_assert!(tokens(Tokenizer::O200k, &text) <= tokens(Tokenizer::Bytes, &text));
        }
    }
}
