//! The inputs that triggers bring, as JSON Schemas.

use serde_json::{Value, json};

/// The input of a run that an email opens, as `triggers::email` makes it.
#[must_use]
pub fn email_input() -> Value {
    let text = json!({"type": "string"});
    let perhaps = json!({"type": ["string", "null"]});
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let attachment = json!({"type": "object", "properties": {
        "name": text, "media_type": text, "bytes": {"type": "integer"}, "sha256": text,
    }});
    json!({
        "type": "object",
        "required": ["message_id", "thread", "from", "subject", "body"],
        "properties": {
            "message_id": text, "thread": text,
            "from": text, "from_name": perhaps, "reply_to": perhaps,
            "to": texts, "cc": texts,
            "subject": text, "date": perhaps,
            "body": text, "body_truncated": {"type": "boolean"},
            "attachments": {"type": "array", "items": attachment},
            "auto": {"type": "boolean"}, "list": {"type": "boolean"}, "authenticated": perhaps,
        },
    })
}

/// The input of a run that opens for several inputs, each of which fits `item`.
#[must_use]
pub fn batch_input(item: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {"items": {"type": "array", "items": item}},
    })
}

/// What the input of a schedule may name as `schedule`.
#[must_use]
pub fn schedule_names() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["name", "at", "date", "time", "zone", "missed"],
        "properties": {
            "name": text, "at": text, "date": text, "time": text, "zone": text,
            "missed": {"type": "integer"},
        },
    })
}
