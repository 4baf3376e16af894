//! Outputs against their JSON Schema: `Schemas` compiles each schema once, [`extract_json`] finds
//! the object inside a model's answer.

use std::sync::{Arc, LazyLock};

use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::domain::digest::Digest;
use crate::models::error::clipped;
use crate::models::memo::Memo;

/// Problems named at most: a model mends the first few, the rest is noise.
const PROBLEMS: usize = 5;

/// The longest description of one problem, characters.
const PROBLEM_CHARS: usize = 160;

/// A schema that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the output schema is not usable: {0}")]
pub struct SchemaError(String);

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// The schema itself is not usable.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The value does not fit: one short clause per problem, joined by `; `. The clauses name
    /// places and rules, never values.
    #[error("{0}")]
    Value(String),
}

/// Compiled schemas, kept by digest.
pub(crate) struct Schemas(Memo<Validator>);

impl Schemas {
    pub(crate) fn new() -> Self {
        Self(Memo::new())
    }

    /// Checks a value. References outside the schema are refused, never fetched.
    pub(crate) fn check(&self, schema: &Value, value: &Value) -> Result<(), OutputError> {
        let validator = self.compiled(schema)?;
        let problems: Vec<String> =
            validator.iter_errors(value).take(PROBLEMS).map(|e| problem(&e)).collect();
        if problems.is_empty() { Ok(()) } else { Err(OutputError::Value(problems.join("; "))) }
    }

    fn compiled(&self, schema: &Value) -> Result<Arc<Validator>, SchemaError> {
        let digest = Digest::of_json(schema);
        if let Some(validator) = self.0.get(&digest) {
            return Ok(validator);
        }
        let validator = jsonschema::options()
            .offline()
            .build(schema)
            .map_err(|error| SchemaError(clipped(&error.to_string(), PROBLEM_CHARS)))?;
        Ok(self.0.keep(digest, validator))
    }
}

/// Checks a value from outside: a run's input, the owner's answer to a form.
///
/// # Errors
/// What does not fit, as one line; or that the schema is none.
pub fn validate(schema: &Value, value: &Value) -> Result<(), String> {
    storable(value)?;
    static SCHEMAS: LazyLock<Schemas> = LazyLock::new(Schemas::new);
    SCHEMAS.check(schema, value).map_err(|error| error.to_string())
}

/// Whether the database can keep a value: PostgreSQL's `jsonb` takes no U+0000.
///
/// # Errors
/// That it cannot, as one line.
pub fn storable(value: &Value) -> Result<(), String> {
    let sound = match value {
        Value::String(text) => !text.contains('\0'),
        Value::Array(items) => return items.iter().try_for_each(storable),
        Value::Object(map) => {
            map.values().try_for_each(storable)?;
            !map.keys().any(|key| key.contains('\0'))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    };
    if sound { Ok(()) } else { Err("it contains the character U+0000, which cannot be kept".into()) }
}

fn problem(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { "the output" } else { place.as_str() };
    clipped(&format!("{place}: {}", error.masked()), PROBLEM_CHARS)
}

/// The first whole JSON object in a model's answer: alone, in a code fence or amid prose. What a
/// reasoning model thinks aloud before it answers is passed over. Nothing is repaired: an object
/// that is cut off or does not parse is none, and no part of it is taken for the whole.
#[must_use]
pub fn extract_json(answer: &str) -> Option<Value> {
    let mut rest = match answer.split_once("</think>") {
        Some((thought, rest)) if thought.trim_start().starts_with("<think>") => rest,
        _ => answer,
    };
    loop {
        rest = &rest[rest.find('{')?..];
        let end = balanced(rest)?;
        if let Ok(object) = serde_json::from_str::<Map<String, Value>>(&rest[..end]) {
            return Some(Value::Object(object));
        }
        rest = &rest[end..];
    }
}

/// Where the brace that `text` begins with is closed; braces inside strings do not count.
fn balanced(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The same value without U+0000, which PostgreSQL's `jsonb` refuses.
#[must_use]
pub fn without_nul(value: Value) -> Value {
    let clean = |text: String| if text.contains('\0') { text.replace('\0', "") } else { text };
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nul).collect()),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, item)| (clean(key), without_nul(item))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn an_object_is_found_alone_in_a_fence_and_amid_prose() {
        let object = json!({"class": "lead", "why": "they ask {x} \" }"});
        let text = object.to_string();
        for answer in [
            text.clone(),
            format!("```json\n{text}\n```"),
            format!("Sure! Here is what {{you}} asked for:\n\n{text}\nAnything else? {{}}"),
            format!("<think>maybe {{\"class\": \"spam\"}}</think>{text}"),
        ] {
            assert_eq!(extract_json(&answer).as_ref(), Some(&object), "{answer}");
        }
    }

    #[test]
    fn a_broken_object_is_none_and_no_part_of_it_passes_for_the_whole() {
        for answer in [
            "",
            "I cannot help with that.",
            "[1, 2]",
            r#"{"class": "lead", "more": {"fit": 1}"#,
            r#"{"more": {"fit": 1},}"#,
            r#"{"class": "lea"#,
            "}{",
        ] {
            assert_eq!(extract_json(answer), None, "{answer}");
        }
    }

    #[test]
    fn problems_name_the_place_and_the_rule_but_never_the_value() {
        let schemas = Schemas::new();
        let schema = json!({"type": "object", "required": ["fit"], "additionalProperties": false,
            "properties": {"fit": {"type": "number", "maximum": 1}, "why": {"type": "string"}}});
        assert_eq!(schemas.check(&schema, &json!({"fit": 0.5})), Ok(()));
        let error = schemas.check(&schema, &json!({"why": ["SECRET"], "fit": 7})).unwrap_err().to_string();
        assert!(error.contains("/fit: ") && error.contains("/why: "), "{error}");
        assert!(!error.contains("SECRET"), "{error}");
    }

    #[test]
    fn a_schema_that_points_outside_itself_is_refused_without_a_fetch() {
        for reference in ["http://192.0.2.1/schema.json", "file:///etc/passwd"] {
            let result = Schemas::new().check(&json!({"$ref": reference}), &json!(1));
            assert!(matches!(result, Err(OutputError::Schema(_))), "{result:?}");
        }
    }

    #[test]
    fn every_nul_is_taken_out_of_keys_and_strings() {
        assert_eq!(without_nul(json!({"a\0": ["\0b", {"c": 1}]})), json!({"a": ["b", {"c": 1}]}));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_search_fail(answer in r#"[{}"\\a,:\[\] é]{0,60}"#) {
            let _ = extract_json(&answer);
        }
    }
}
