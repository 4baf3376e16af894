//! What steps give to the ones after them, as schemas: of agents, of actions, of the owner.

use serde_json::{Value, json};

use crate::config::check::Names;
use crate::config::workflow::{RawReview, RawStep};

/// What templates see as `run`.
pub(super) fn run() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "properties": {"id": text, "title": text, "opened_at": text}})
}

/// What templates see of a step that is over.
pub(super) fn step(step: &RawStep, names: &Names) -> Value {
    let output = match (&step.agent, &step.action, &step.review) {
        _ if step.wait.is_some() => Some(waited()),
        _ if step.workflow.is_some() => {
            Some(json!({"type": "object", "properties": {"run": {"type": "string"}, "output": true}}))
        }
        (Some(agent), _, _) => {
            names.agents.get(agent).and_then(Option::as_ref).map(|agent| agent.output.clone())
        }
        (None, Some(action), _) => response(action),
        (None, None, Some(review)) => Some(answer(review)),
        (None, None, None) => None,
    };
    // A schema of the owner's may refer to its own parts from its top: those parts are taken along.
    let output = output.unwrap_or(json!(true));
    let mut output = output;
    if step.each.is_some() {
        let of_each = |name: &str| {
            json!({"type": "array", "items": {"type": "object", "properties":
            {"index": {"type": "integer"}, name: {"type": "string"}}}})
        };
        output = json!({"type": "object", "properties": {
            "items": {"type": "array", "items": output},
            "failed": of_each("error"),
            "declined": of_each("reason"),
        }});
    }
    let definitions = ["$defs", "definitions"].iter().filter_map(|k| Some((*k, output.get(k)?.clone())));
    let mut schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {"output": output.clone(), "confidence": {"type": ["number", "null"]}},
    });
    for (key, value) in definitions {
        schema[key] = value;
    }
    schema
}

/// What a step gives that waited.
fn waited() -> Value {
    json!({"type": "object", "properties": {
        "timed_out": {"type": "boolean"}, "data": true, "at": {"type": "string"},
    }})
}

/// What a review step gives.
fn answer(review: &RawReview) -> Value {
    json!({
        "type": "object",
        "properties": {
            "decision": {"type": "string", "enum": ["approved", "rejected", "answered"]},
            "reason": {"type": "string"},
            "answer": review.form.clone().unwrap_or(json!(true)),
        },
    })
}

/// What an action gives, as far as it is fixed.
fn response(action: &str) -> Option<Value> {
    let text = json!({"type": "string"});
    let count = json!({"type": "integer"});
    let object = |properties: Value| Some(json!({"type": "object", "properties": properties}));
    match action {
        "email.send" => object(json!({"message_id": text})),
        "memory.search" => {
            object(json!({"words_only": {"type": "boolean"}, "hits": {"type": "array", "items": {
                "type": "object",
                "properties": {
                    "document": text, "version": count, "title": text, "heading": text,
                    "place": text, "text": text, "score": {"type": "number"},
                },
            }}}))
        }
        "records.get" => object(json!({
            "found": {"type": "boolean"}, "kind": text, "key": text, "version": count, "data": true,
        })),
        "records.put" | "records.revert" => object(json!({"kind": text, "key": text, "version": count})),
        _ => None,
    }
}
