//! What a call of a model is named in traces: the attributes of OpenTelemetry's semantic conventions for
//! generative AI (`gen_ai.*`), all of them in this file, for the conventions still change. Never a body, a
//! message or a key: those are kept with the call, whose id leads there.

use tracing::Span;
use tracing::field::{Empty, display};

use crate::domain::event::ModelCall;
use crate::models::Remote;
use crate::models::ask::Target;
use crate::models::chain::Walk;
use crate::models::error::ModelError;
use crate::models::gateway::Outcome;
use crate::models::wire::{Reply, Request};

impl Walk<'_> {
    /// The span around one call.
    pub(crate) fn span(&self, target: &Target<'_>, request: &Request) -> Span {
        let span = tracing::info_span!(
            "chat",
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = %target.remote.provider,
            gen_ai.request.model = %request.model,
            gen_ai.request.max_tokens = request.max_tokens,
            gen_ai.output.type = "json",
            gen_ai.agent.name = %self.agent.agent,
            gen_ai.conversation.id = Empty,
            gen_ai.response.model = Empty,
            gen_ai.response.finish_reasons = Empty,
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            "error.type" = Empty,
            steward.model = target.name,
            steward.call = Empty,
            steward.cached = Empty,
            steward.batch = Empty,
            steward.cost_micros = Empty,
        );
        if let Some(keeping) = &self.asked.keeping {
            span.record("gen_ai.conversation.id", display(keeping.run));
        }
        span
    }
}

/// The span around one call that embeds.
pub(crate) fn embedding(name: &str, remote: &Remote, request: &Request) -> Span {
    tracing::info_span!(
        "embeddings",
        gen_ai.operation.name = "embeddings",
        gen_ai.provider.name = %remote.provider,
        gen_ai.request.model = %request.model,
        gen_ai.embeddings.dimension.count = Empty,
        gen_ai.response.model = Empty,
        gen_ai.usage.input_tokens = Empty,
        "error.type" = Empty,
        steward.model = name,
        steward.texts = request.texts.len(),
        steward.cost_micros = Empty,
    )
}

/// Adds how a call that embeds ended.
pub(crate) fn embedded(span: &Span, call: &Outcome, vectors: Result<usize, &ModelError>, cost_micros: i64) {
    if let Ok(reply) = &call.result {
        span.record("gen_ai.response.model", reply.model.as_deref());
        span.record("gen_ai.usage.input_tokens", reply.usage().read);
    }
    match vectors {
        Ok(coordinates) => span.record("gen_ai.embeddings.dimension.count", coordinates),
        Err(error) => span.record("error.type", tracing::field::debug(error.kind)),
    };
    span.record("steward.cost_micros", cost_micros);
    tracing::debug!(parent: span, "texts were embedded");
}

/// Adds that the call was not made: nothing could be set aside for it.
pub(crate) fn unmade(span: &Span, error: &ModelError) {
    span.record("error.type", tracing::field::debug(error.kind));
    span.record("steward.cached", false);
    span.record("steward.cost_micros", 0);
    tracing::debug!(parent: span, "a model was not asked");
}

/// Adds how the call ended.
pub(crate) fn ended(span: &Span, reply: Option<&Reply>, told: &ModelCall, error: Option<&ModelError>) {
    if let Some(model) = &told.answered_by {
        span.record("gen_ai.response.model", model.as_str());
    }
    if let Some(reason) = reply.and_then(|reply| reply.finish.as_deref()) {
        span.record("gen_ai.response.finish_reasons", reason);
    }
    span.record("gen_ai.usage.input_tokens", told.input_tokens);
    span.record("gen_ai.usage.output_tokens", told.output_tokens);
    if let Some(error) = error {
        span.record("error.type", tracing::field::debug(error.kind));
    }
    if let Some(call) = told.call {
        span.record("steward.call", display(call));
    }
    span.record("steward.cached", told.cached);
    span.record("steward.batch", told.batch);
    span.record("steward.cost_micros", told.cost_micros);
    tracing::debug!(parent: span, "a model was asked");
}
