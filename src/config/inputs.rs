//! The inputs of runs that triggers make up themselves, as JSON Schema.

use serde_json::{Value, json};

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
