//! Which answers a question takes in Slack: a few buttons, a modal with simple inputs, or none but on the
//! web page. What comes back is an index into the form, never an answer of the sender's own making.

use serde_json::{Map, Number, Value};

use crate::reviews::slack::limits;

/// Answers that fit on a row of buttons.
const BUTTONS: usize = 5;

/// Inputs that fit in a modal.
const FIELDS: usize = 20;

/// How a form is answered in Slack.
#[derive(Clone, PartialEq, Debug)]
pub enum Form {
    /// By one of these, each a button.
    Buttons(Vec<Value>),
    /// In a modal.
    Modal(Vec<Field>),
    /// Only on the web page: it asks for lists, or for more than a modal holds.
    Web,
}

/// One input of a modal.
#[derive(Clone, PartialEq, Debug)]
pub struct Field {
    /// The property it fills; none when it is the whole answer.
    pub name: Option<String>,
    /// What it is called.
    pub label: String,
    /// What it takes.
    pub takes: Takes,
    /// Whether it may stay empty.
    pub optional: bool,
}

/// What an input takes.
#[derive(Clone, PartialEq, Debug)]
pub enum Takes {
    /// Any text.
    Text,
    /// A number, perhaps a whole one.
    Number,
    /// One of these.
    Choice(Vec<Value>),
}

impl Form {
    /// How this JSON Schema is answered.
    #[must_use]
    pub fn of(schema: &Value) -> Self {
        match takes(schema) {
            Some(Takes::Choice(values)) if values.len() <= BUTTONS => Self::Buttons(values),
            Some(takes) => Self::Modal(vec![Field {
                name: None,
                label: title(schema, "Answer"),
                takes,
                optional: false,
            }]),
            None => Self::object(schema).map_or(Self::Web, Self::Modal),
        }
    }

    fn object(schema: &Value) -> Option<Vec<Field>> {
        let properties = schema.get("properties")?.as_object()?;
        let required = schema.get("required").and_then(Value::as_array);
        let needed = |name: &str| required.is_some_and(|all| all.iter().any(|it| it.as_str() == Some(name)));
        let fields: Vec<Field> = properties
            .iter()
            .filter_map(|(name, schema)| {
                let field = |takes| Field {
                    name: Some(name.clone()),
                    label: title(schema, name),
                    takes,
                    optional: !needed(name),
                };
                match takes(schema) {
                    Some(takes) => Some(Some(field(takes))),
                    // What need not be there is left out; what must be there needs the web page.
                    None if needed(name) => Some(None),
                    None => None,
                }
            })
            .collect::<Option<_>>()?;
        (1..=FIELDS).contains(&fields.len()).then_some(fields)
    }
}

/// What one simple value takes.
fn takes(schema: &Value) -> Option<Takes> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let simple = values.iter().all(|value| !value.is_array() && !value.is_object());
        return (simple && (1..=limits::OPTIONS).contains(&values.len()))
            .then(|| Takes::Choice(values.clone()));
    }
    match schema.get("type")?.as_str()? {
        "string" => Some(Takes::Text),
        "integer" | "number" => Some(Takes::Number),
        "boolean" => Some(Takes::Choice(vec![Value::Bool(true), Value::Bool(false)])),
        _ => None,
    }
}

fn title(schema: &Value, otherwise: &str) -> String {
    let said = ["title", "description"].into_iter().find_map(|key| schema.get(key)?.as_str());
    said.unwrap_or(otherwise).to_owned()
}

/// The answer that inputs make, in the order of the fields: `None` for one that stayed empty.
///
/// # Errors
/// The number of the field that does not hold what it should, and why.
pub fn answer(fields: &[Field], given: &[Option<String>]) -> Result<Value, (usize, String)> {
    let mut object = Map::new();
    for (at, field) in fields.iter().enumerate() {
        let text = given.get(at).and_then(Option::as_deref);
        let value = match (&field.takes, text) {
            (Takes::Text, Some(text)) => Some(Value::String(text.to_owned())),
            (Takes::Text, None) if !field.optional => Some(Value::String(String::new())),
            (Takes::Number, Some(text)) => {
                let number: Option<Number> = serde_json::from_str(text.trim()).ok();
                Some(Value::Number(number.ok_or((at, "this is not a number".to_owned()))?))
            }
            (Takes::Choice(values), Some(text)) => {
                let chosen = text.parse().ok().and_then(|index: usize| values.get(index));
                Some(chosen.cloned().ok_or((at, "this is none of the choices".to_owned()))?)
            }
            (_, None) if field.optional => None,
            (_, None) => return Err((at, "this must not stay empty".to_owned())),
        };
        match (&field.name, value) {
            (None, value) => return value.ok_or((at, "this must not stay empty".to_owned())),
            (Some(name), Some(value)) => {
                object.insert(name.clone(), value);
            }
            (Some(_), None) => {}
        }
    }
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_few_choices_are_buttons_and_many_are_a_menu() {
        let few = json!({"type": "string", "enum": ["happened", "again", "give_up"]});
        assert!(matches!(Form::of(&few), Form::Buttons(values) if values.len() == 3));
        let many = json!({"enum": (0..40).collect::<Vec<_>>()});
        assert!(matches!(Form::of(&many), Form::Modal(fields) if fields.len() == 1));
        assert!(matches!(Form::of(&json!({"type": "boolean"})), Form::Buttons(values) if values.len() == 2));
        assert_eq!(Form::of(&json!({"enum": (0..400).collect::<Vec<_>>()})), Form::Web);
    }

    #[test]
    fn an_object_of_simple_values_is_a_modal_and_one_with_a_list_that_it_needs_is_not() {
        let schema = json!({"type": "object", "required": ["fit", "why"], "properties": {
            "fit": {"type": "number"}, "why": {"type": "string"}, "tags": {"type": "array"}}});
        let Form::Modal(fields) = Form::of(&schema) else { panic!("{:?}", Form::of(&schema)) };
        assert_eq!(fields.iter().map(|it| it.label.as_str()).collect::<Vec<_>>(), ["fit", "why"]);
        let given = [Some("0.5".into()), Some("<b>".into())];
        assert_eq!(answer(&fields, &given), Ok(json!({"fit": 0.5, "why": "<b>"})));
        assert_eq!(answer(&fields, &[Some("much".into()), None]).unwrap_err().0, 0);
        let needy =
            json!({"type": "object", "required": ["tags"], "properties": {"tags": {"type": "array"}}});
        assert_eq!(Form::of(&needy), Form::Web);
    }

    #[test]
    fn a_choice_comes_back_as_its_number_alone() {
        let fields = [Field {
            name: None,
            label: String::new(),
            takes: Takes::Choice(vec![json!("a"), json!(2)]),
            optional: false,
        }];
        assert_eq!(answer(&fields, &[Some("1".into())]), Ok(json!(2)));
        for forged in ["2", "a", "-1", ""] {
            assert!(answer(&fields, &[Some(forged.into())]).is_err(), "{forged}");
        }
    }
}
