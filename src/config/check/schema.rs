//! JSON Schemas that the owner writes: are they schemas, and do they stay in the house?

use serde_json::Value;

use crate::config::document::Reporter;
use crate::config::node::Path;

const MEND: &str = "write a JSON Schema (2020-12), such as `{ type: object, required: [from], properties: \
                    { from: { type: string } } }`";

/// Checks the schema at `path`. True when it can be relied on.
pub(in crate::config) fn check(report: &mut Reporter<'_>, path: &Path, schema: &Value) -> bool {
    let mut sound = true;
    remote(schema, path, &mut |at, reference| {
        sound = false;
        let message = format!("`{reference}` is outside of this file");
        report.value(at, message, "a schema refers to its own parts only, as in `#/$defs/address`");
    });
    if !sound {
        return false;
    }
    if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
        let at = path.pointer(schema, error.instance_path().as_str());
        report.value(&at, format!("this is not a JSON Schema: {error}"), MEND);
        return false;
    }
    if let Err(error) = validator(schema) {
        report.value(path, format!("this JSON Schema cannot be used: {error}"), MEND);
        return false;
    }
    true
}

/// The schema, ready to check values with; without any way to fetch another.
///
/// # Errors
/// When it is no schema, in words.
pub(in crate::config) fn validator(schema: &Value) -> Result<jsonschema::Validator, String> {
    let options = jsonschema::options().with_draft(jsonschema::Draft::Draft202012);
    options.offline().build(schema).map_err(|error| error.to_string())
}

/// Calls `found` with every reference that leaves the schema.
fn remote(schema: &Value, path: &Path, found: &mut impl FnMut(&Path, &str)) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                let at = path.key(key);
                match value.as_str() {
                    Some(reference) if matches!(key.as_str(), "$ref" | "$dynamicRef" | "$schema" | "$id") => {
                        let draft = "https://json-schema.org/draft/2020-12/schema";
                        let known = key == "$schema" && reference == draft;
                        if !known && !reference.starts_with('#') {
                            found(&at, reference);
                        }
                    }
                    _ => remote(value, &at, found),
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| remote(item, &path.index(index), found));
        }
        _ => {}
    }
}
