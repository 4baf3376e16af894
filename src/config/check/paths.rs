//! Whether a path such as `steps.sort.output.class` can lead anywhere, by the schemas on its way.

use serde_json::{Map, Value};

/// References followed one after the other: beyond any schema made by a person, short of a circle.
const MAX_DEREFERENCES: usize = 16;

/// Schemas looked at for one path: a schema may offer itself as its own alternative, many times over.
const MAX_LOOKS: u32 = 500;

/// Where a path ends although it goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) struct Miss {
    /// How far it leads, such as `steps.sort.output`.
    pub(in crate::config) at: String,
    /// What is not there.
    pub(in crate::config) key: String,
    /// What is there; nothing for a text, a number or a list.
    pub(in crate::config) known: Vec<String>,
}

/// The schema of the value a path leads to, as far as it is known.
///
/// # Errors
/// When no value that fits `schema` has anything at `path`.
pub(in crate::config) fn follow<'s>(
    schema: &'s Value,
    at: &str,
    path: &[&str],
) -> Result<Option<&'s Value>, Miss> {
    let mut looks = MAX_LOOKS;
    walk(schema, schema, at, path, &mut looks)
}

fn walk<'s>(
    root: &'s Value,
    schema: &'s Value,
    at: &str,
    path: &[&str],
    looks: &mut u32,
) -> Result<Option<&'s Value>, Miss> {
    let Some(left) = looks.checked_sub(1) else { return Ok(None) };
    *looks = left;
    let Some(found @ Value::Object(schema)) = dereference(root, schema) else { return Ok(None) };
    let Some((key, rest)) = path.split_first() else { return Ok(Some(found)) };
    let next = format!("{at}.{key}");
    if let Some(child) = schema.get("properties").and_then(|properties| properties.get(*key)) {
        return walk(root, child, &next, rest, looks);
    }
    let branches: Vec<&Value> = ["anyOf", "oneOf", "allOf"]
        .iter()
        .filter_map(|word| schema.get(*word)?.as_array())
        .flatten()
        .collect();
    let found: Vec<_> = branches.iter().map(|branch| walk(root, branch, at, path, looks)).collect();
    if let Some(found) = found.iter().find(|found| found.is_ok()) {
        return found.clone();
    }
    if may_be(schema, "array") && key.parse::<usize>().is_ok() {
        return schema.get("items").map_or(Ok(None), |items| walk(root, items, &next, rest, looks));
    }
    let miss = |known| Miss { at: at.to_owned(), key: (*key).to_owned(), known };
    if !may_be(schema, "object") {
        return Err(miss(Vec::new()));
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(true)) => return Ok(None),
        Some(open @ Value::Object(_)) => return walk(root, open, &next, rest, looks),
        _ if schema.contains_key("patternProperties") => return Ok(None),
        _ => {}
    }
    let properties = schema.get("properties").and_then(Value::as_object).filter(|map| !map.is_empty());
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    match (properties, found.into_iter().find_map(Result::err)) {
        (Some(properties), _) => Err(miss(properties.keys().cloned().collect())),
        (None, Some(missed)) => Err(missed),
        (None, None) if closed => Err(miss(Vec::new())),
        (None, None) => Ok(None),
    }
}

fn may_be(schema: &Map<String, Value>, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(one)) => one == kind,
        Some(Value::Array(several)) => several.iter().any(|one| one == kind),
        _ => true,
    }
}

fn dereference<'s>(root: &'s Value, schema: &'s Value) -> Option<&'s Value> {
    let mut schema = schema;
    for _ in 0..MAX_DEREFERENCES {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => schema = root.pointer(reference.strip_prefix('#')?)?,
            None => return Some(schema),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_that_offers_itself_as_its_own_alternative_ends() {
        let itself = json!({"$ref": "#"});
        let circle = json!({"anyOf": [itself, itself, itself], "properties": {"a": itself}});
        assert!(follow(&circle, "x", &["a", "b", "c"]).is_ok());
        assert!(follow(&json!({"$ref": "#"}), "x", &["a"]).is_ok());
    }

    #[test]
    fn references_alternatives_lists_and_open_maps_are_followed() {
        let schema = json!({
            "$defs": {"person": {"type": "object", "properties": {"name": {"type": "string"}}}},
            "type": "object",
            "properties": {
                "who": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/person"}]},
                "all": {"type": "array", "items": {"$ref": "#/$defs/person"}},
                "open": {"type": "object", "additionalProperties": {"type": "integer"}},
                "any": {},
            },
        });
        for path in [&["who", "name"][..], &["all", "0", "name"], &["open", "x"], &["any", "x", "y"]] {
            assert!(follow(&schema, "input", path).is_ok(), "{path:?}");
        }
        for path in [&["who", "age"][..], &["all", "name"], &["open", "x", "y"], &["none"]] {
            assert!(follow(&schema, "input", path).is_err(), "{path:?}");
        }
    }
}
