//! A form made from the JSON Schema of an answer, and the answer made from what was typed. Flat objects of
//! choices, texts, numbers and truths have a field each; whatever else there is, is typed as JSON. What is
//! checked here is only what helps while typing: whether an answer fits, `reviews::decide` says.

use serde_json::{Map, Value};

use crate::api::session::Form;
use crate::ui::params::Errors;
use crate::ui::text::{Inert, words};

/// The field of an answer that is no object, and what stands before the names of an object's fields.
const ANSWER: &str = "answer";

/// Choices that are all seen at once; more of them are a list to choose from.
const SEEN: usize = 7;

/// How a field is filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One of these.
    Choice(Vec<Choice>),
    /// A text.
    Text,
    /// A number.
    Number,
    /// Anything, as JSON.
    Json,
}

/// Something to choose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Its number, which is what the form sends.
    pub value: usize,
    /// What the owner reads.
    pub label: Inert,
    /// Whether it was chosen before.
    pub is_chosen: bool,
}

/// One field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name in the form.
    pub name: String,
    /// What the owner reads.
    pub label: Inert,
    /// What it is about, if the schema says so.
    pub about: Option<Inert>,
    /// How it is filled in.
    pub kind: Kind,
    /// Whether it has to be filled in.
    pub required: bool,
    /// What was typed before.
    pub value: String,
    /// What is wrong with that.
    pub error: Option<String>,
}

impl Field {
    /// The choices, if it has few enough to be seen at once.
    #[must_use]
    pub fn radios(&self) -> Option<&[Choice]> {
        match &self.kind {
            Kind::Choice(choices) if choices.len() <= SEEN => Some(choices),
            _ => None,
        }
    }

    /// The choices, if they are many.
    #[must_use]
    pub fn options(&self) -> Option<&[Choice]> {
        match &self.kind {
            Kind::Choice(choices) if choices.len() > SEEN => Some(choices),
            _ => None,
        }
    }

    /// Whether it takes a number.
    #[must_use]
    pub fn is_number(&self) -> bool {
        self.kind == Kind::Number
    }

    /// Whether it takes JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.kind == Kind::Json
    }
}

/// What a schema asks for, as far as a form knows.
enum Wants {
    Choice(Vec<Value>),
    Text,
    Number,
    Json,
}

fn wants(schema: &Value) -> Wants {
    if let Some(choices) = schema["enum"].as_array() {
        return Wants::Choice(choices.clone());
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_default(),
        kind => kind.clone(),
    };
    match kind.as_str() {
        Some("string") => Wants::Text,
        Some("number" | "integer") => Wants::Number,
        Some("boolean") => Wants::Choice(vec![Value::Bool(true), Value::Bool(false)]),
        _ => Wants::Json,
    }
}

type Part<'a> = (String, &'a str, &'a Value, bool);

/// The parts of a form: each with its key in the form, its name, its schema, and whether it must be there.
/// `None` is a form that is one field.
fn parts<'a>(schema: &'a Value) -> Option<Vec<Part<'a>>> {
    let properties = schema["properties"].as_object().filter(|properties| !properties.is_empty())?;
    if schema["type"] != "object" {
        return None;
    }
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let part = |(name, part): (&'a String, &'a Value)| {
        (format!("{ANSWER}.{name}"), name.as_str(), part, required(name))
    };
    Some(properties.iter().map(part).collect())
}

/// The fields of a form, with what was `typed` into them before.
#[must_use]
pub fn fields(schema: &Value, typed: Option<&Form>, errors: &Errors) -> Vec<Field> {
    match parts(schema) {
        Some(parts) => parts
            .into_iter()
            .map(|(key, name, schema, required)| field(key, name, schema, required, typed, errors))
            .collect(),
        None => vec![field(ANSWER.to_owned(), "your answer", schema, true, typed, errors)],
    }
}

fn field(
    key: String,
    name: &str,
    schema: &Value,
    required: bool,
    typed: Option<&Form>,
    errors: &Errors,
) -> Field {
    let value = typed.and_then(|form| form.get(&key)).unwrap_or_default().to_owned();
    let kind = match wants(schema) {
        Wants::Text => Kind::Text,
        Wants::Number => Kind::Number,
        Wants::Json => Kind::Json,
        Wants::Choice(choices) => Kind::Choice(
            choices
                .iter()
                .enumerate()
                .map(|(at, choice)| Choice {
                    value: at,
                    label: Inert::line(&words(choice).replace('_', " ")),
                    is_chosen: value == at.to_string(),
                })
                .collect(),
        ),
    };
    let title = schema["title"].as_str().map_or_else(|| name.replace('_', " "), str::to_owned);
    Field {
        label: Inert::line(&title),
        about: schema["description"].as_str().map(Inert::line),
        kind,
        required,
        value,
        error: errors.get(&key).cloned(),
        name: key,
    }
}

/// The answer that was typed.
///
/// # Errors
/// What is missing or cannot be read, by field.
pub fn typed(schema: &Value, form: &Form) -> Result<Value, Errors> {
    let Some(parts) = parts(schema) else {
        let answer = read(schema, true, form.get(ANSWER).unwrap_or_default());
        return answer.map(Option::unwrap_or_default).map_err(|why| Errors::from([(ANSWER.to_owned(), why)]));
    };
    let (mut answer, mut errors) = (Map::new(), Errors::new());
    for (key, name, schema, required) in parts {
        match read(schema, required, form.get(&key).unwrap_or_default()) {
            Ok(Some(value)) => drop(answer.insert(name.to_owned(), value)),
            Ok(None) => {}
            Err(why) => drop(errors.insert(key, why)),
        }
    }
    if errors.is_empty() { Ok(Value::Object(answer)) } else { Err(errors) }
}

/// One value; none, when nothing was typed and nothing has to be.
fn read(schema: &Value, required: bool, text: &str) -> Result<Option<Value>, String> {
    let nullable = schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "null"));
    let wants = wants(schema);
    if text.trim().is_empty() {
        return match wants {
            _ if !required => Ok(None),
            _ if nullable => Ok(Some(Value::Null)),
            Wants::Text => Ok(Some(Value::String(String::new()))),
            Wants::Choice(_) => Err("choose one".into()),
            Wants::Number | Wants::Json => Err("this is needed".into()),
        };
    }
    match wants {
        Wants::Text => Ok(Some(Value::String(text.replace("\r\n", "\n")))),
        Wants::Choice(choices) => {
            let chosen = text.parse().ok().and_then(|at: usize| choices.get(at).cloned());
            chosen.map(Some).ok_or_else(|| "choose one".into())
        }
        Wants::Number => match serde_json::from_str(text.trim()) {
            Ok(number @ Value::Number(_)) => Ok(Some(number)),
            _ => Err("this is not a number".into()),
        },
        Wants::Json => {
            serde_json::from_str(text).map(Some).map_err(|error| format!("this is not JSON: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn form(pairs: &[(&str, &str)]) -> Form {
        let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        Form::parse(text.as_bytes())
    }

    fn lead() -> Value {
        json!({"type": "object", "required": ["fit", "class", "urgent"], "properties": {
            "fit": {"type": "number", "description": "0 to 1"},
            "class": {"enum": ["lead", "spam", 3]},
            "urgent": {"type": "boolean"},
            "note": {"type": ["string", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
        }})
    }

    #[test]
    fn a_flat_form_has_a_field_for_each_property() {
        let fields = fields(&lead(), None, &Errors::new());
        let kind = |name: &str| &fields.iter().find(|field| field.name == name).unwrap().kind;
        assert!(matches!(kind("answer.class"), Kind::Choice(choices) if choices.len() == 3));
        assert!(
            matches!(kind("answer.urgent"), Kind::Choice(choices) if choices[0].label.to_string() == "yes")
        );
        assert_eq!(
            (kind("answer.fit"), kind("answer.note"), kind("answer.tags")),
            (&Kind::Number, &Kind::Text, &Kind::Json)
        );
    }

    #[test]
    fn what_is_typed_becomes_values_of_their_kind_and_what_is_not_needed_may_be_left_out() {
        let typed = |pairs| super::typed(&lead(), &form(pairs));
        assert_eq!(
            typed(&[
                ("answer.fit", " 0.5 "),
                ("answer.class", "2"),
                ("answer.urgent", "1"),
                ("answer.tags", "[\"a\"]")
            ])
            .unwrap(),
            json!({"fit": 0.5, "class": 3, "urgent": false, "tags": ["a"]})
        );
        let errors =
            typed(&[("answer.fit", "half"), ("answer.class", "9"), ("answer.tags", "[")]).unwrap_err();
        assert_eq!(
            errors.keys().collect::<Vec<_>>(),
            ["answer.class", "answer.fit", "answer.tags", "answer.urgent"]
        );
    }

    #[test]
    fn a_form_that_is_no_object_is_one_field() {
        let choice = json!({"type": "string", "enum": ["happened", "again", "give_up"]});
        assert_eq!(typed(&choice, &form(&[("answer", "1")])).unwrap(), "again");
        assert!(typed(&choice, &form(&[("answer", "again")])).is_err());
        assert_eq!(typed(&json!({"type": "string"}), &form(&[("answer", "hello")])).unwrap(), "hello");
        let deep = json!({"type": "array"});
        assert!(fields(&deep, None, &Errors::new())[0].is_json());
        assert_eq!(typed(&deep, &form(&[("answer", "[1]")])).unwrap(), json!([1]));
    }

    #[test]
    fn many_choices_are_a_list_and_few_are_seen_at_once() {
        let many: Vec<usize> = (0..20).collect();
        let field = |schema| fields(&schema, None, &Errors::new()).remove(0);
        assert!(field(json!({"enum": many})).options().is_some());
        assert!(field(json!({"enum": [1, 2]})).radios().is_some());
    }
}
