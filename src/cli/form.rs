//! An answer to a review's form (a JSON Schema): given whole, or asked for field by field. What is
//! checked here is only what helps while typing; the service checks everything.

use std::io::{BufRead, Write};

use serde_json::{Map, Value};

use crate::cli::Fail;
use crate::cli::out::plain;

/// How often one field is asked for before giving up: a pipe that repeats itself must come to an end.
const TRIES: usize = 5;

/// An answer given whole: JSON, or bare text where the form wants a text.
///
/// # Errors
/// [`Fail::Usage`] when it is neither.
pub fn value(form: &Value, text: &str) -> Result<Value, Fail> {
    let wants_text = kind(form) == "string";
    match serde_json::from_str(text) {
        Ok(value) if !wants_text || matches!(value, Value::String(_)) => Ok(value),
        _ if wants_text => Ok(Value::String(text.to_owned())),
        Ok(value) => Ok(value),
        Err(error) => Err(Fail::Usage(format!("the answer is not JSON: {error}"))),
    }
}

/// Asks for an answer: for each field of an object in turn, else for one value.
///
/// # Errors
/// [`Fail::Usage`] when the input ends or does not fit again and again.
pub fn ask(form: &Value, input: &mut impl BufRead, output: &mut impl Write) -> Result<Value, Fail> {
    let Some(fields) = form["properties"].as_object() else {
        return field("answer", form, true, input, output).map(Option::unwrap_or_default);
    };
    let is_required =
        |name: &str| form["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let mut answer = Map::new();
    for (name, schema) in fields {
        if let Some(value) = field(name, schema, is_required(name), input, output)? {
            answer.insert(name.clone(), value);
        }
    }
    Ok(Value::Object(answer))
}

fn field(
    name: &str,
    schema: &Value,
    required: bool,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> Result<Option<Value>, Fail> {
    if let Some(about) = schema["description"].as_str() {
        writeln!(output, "{}", plain(about))?;
    }
    for _ in 0..TRIES {
        write!(
            output,
            "{} ({}{}): ",
            plain(name),
            hint(schema),
            if required { "" } else { ", may be left empty" }
        )?;
        output.flush()?;
        let text = typed(input)?;
        if text.is_empty() && !required {
            return Ok(None);
        }
        match read(schema, &text) {
            Ok(value) => return Ok(Some(value)),
            Err(why) => writeln!(output, "  {why}")?,
        }
    }
    Err(Fail::Usage(format!("`{}` did not fit; nothing was decided", plain(name))))
}

/// One line; a `\` at its end goes on with the next.
fn typed(input: &mut impl BufRead) -> Result<String, Fail> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Err(Fail::Usage("the input ended; nothing was decided".into()));
        }
        let line = line.trim_end_matches(['\n', '\r']);
        match line.strip_suffix('\\') {
            Some(more) => {
                text.push_str(more);
                text.push('\n');
            }
            None => {
                text.push_str(line);
                return Ok(text);
            }
        }
    }
}

fn read(schema: &Value, text: &str) -> Result<Value, String> {
    if let Some(choices) = schema["enum"].as_array() {
        let fits = |choice: &&Value| match choice {
            Value::String(word) => word == text,
            other => format!("{other}") == text,
        };
        return choices.iter().find(fits).cloned().ok_or_else(|| format!("one of {}", hint(schema)));
    }
    match kind(schema) {
        "string" => Ok(Value::String(text.to_owned())),
        "boolean" => match text {
            "y" | "yes" | "true" => Ok(Value::Bool(true)),
            "n" | "no" | "false" => Ok(Value::Bool(false)),
            _ => Err("y or n".into()),
        },
        _ => serde_json::from_str(text).map_err(|error| error.to_string()),
    }
}

fn hint(schema: &Value) -> String {
    if let Some(choices) = schema["enum"].as_array() {
        let choices = choices.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), plain));
        return choices.collect::<Vec<_>>().join(" | ");
    }
    match (kind(schema), schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        ("string", ..) => "text; end a line with \\ to go on".into(),
        ("boolean", ..) => "y | n".into(),
        ("integer" | "number", Some(low), Some(high)) => format!("{low} to {high}"),
        ("integer" | "number", ..) => "a number".into(),
        _ => "JSON".into(),
    }
}

/// The type a schema names; the first that is not `null` of several. Choices that are all texts are texts.
fn kind(schema: &Value) -> &str {
    let texts = |all: &Vec<Value>| !all.is_empty() && all.iter().all(Value::is_string);
    match &schema["type"] {
        Value::String(kind) => kind,
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("")
        }
        _ if schema["enum"].as_array().is_some_and(texts) => "string",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(form: &Value, typed: &str) -> (Result<Value, String>, String) {
        let mut output = Vec::new();
        let answer = ask(form, &mut typed.as_bytes(), &mut output).map_err(|fail| fail.to_string());
        (answer, String::from_utf8(output).unwrap())
    }

    #[test]
    fn an_object_is_asked_for_field_by_field_until_each_fits() {
        let form = json!({"type": "object", "required": ["fit", "class", "body"], "properties": {
            "fit": {"type": "number", "minimum": 0, "maximum": 1}, "class": {"enum": ["lead", "spam"]},
            "body": {"type": "string"}, "sure": {"type": "boolean"}, "note": {"type": ["string", "null"]},
        }});
        // Fields are asked for in the order in which the schema's map keeps them.
        let answers = std::collections::BTreeMap::from([
            ("body", "Dear Anna,\\\n\\\nyes\n"),
            ("class", "perhaps\nlead\n"),
            ("fit", "high\n0.5\n"),
            ("note", "\n"),
            ("sure", "y\n"),
        ]);
        let order = form["properties"].as_object().unwrap().keys().map(|name| answers[name.as_str()]);
        let (answer, shown) = asked(&form, &order.collect::<String>());
        assert_eq!(
            answer.unwrap(),
            json!({"body": "Dear Anna,\n\nyes", "class": "lead", "fit": 0.5, "sure": true})
        );
        assert!(shown.contains("class (lead | spam): ") && shown.contains("fit (0 to 1): "), "{shown}");
    }

    #[test]
    fn an_effect_in_doubt_is_answered_with_one_word() {
        let form = json!({"type": "string", "enum": ["happened", "again", "give_up"]});
        assert_eq!(asked(&form, "happened\n").0.unwrap(), json!("happened"));
        assert_eq!(value(&form, "again").unwrap(), json!("again"));
        assert_eq!(value(&form, "\"again\"").unwrap(), json!("again"));
    }

    #[test]
    fn an_input_that_ends_or_never_fits_decides_nothing() {
        let form = json!({"type": "integer"});
        assert!(asked(&form, "x\n").0.unwrap_err().contains("ended"));
        assert!(asked(&form, &"x\n".repeat(9)).0.unwrap_err().contains("did not fit"));
        assert!(value(&form, "x").is_err());
    }

    #[test]
    fn a_text_that_looks_like_a_number_stays_a_text_where_a_text_is_wanted() {
        assert_eq!(value(&json!({"type": "string"}), "42").unwrap(), json!("42"));
    }
}
