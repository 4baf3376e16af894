//! The parameters of an action as fields of a form, and the way back. A field that nobody touched comes
//! back as exactly what it was: browsers rewrite line ends, and an approval must not turn into an edit by it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::api::session::Form;
use crate::domain::action::{self, Action};
use crate::ui::text::Inert;

/// What stands before a parameter's name in the form.
const PREFIX: &str = "p.";

/// Characters up to which a text is edited in one line.
const LINE: usize = 120;

/// How a parameter is edited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// In one line.
    Line,
    /// In an area of several lines.
    Text,
    /// As JSON.
    Json,
}

/// One parameter in the form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name in the form.
    pub name: String,
    /// What the owner calls it.
    pub label: Inert,
    /// How it is edited.
    pub kind: Kind,
    /// What stands in it.
    pub value: String,
    /// Lines to show.
    pub rows: usize,
    /// What is wrong with what was typed.
    pub error: Option<String>,
}

impl Field {
    /// Whether it is edited as JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.kind == Kind::Json
    }

    /// Whether it is edited in one line.
    #[must_use]
    pub fn is_line(&self) -> bool {
        self.kind == Kind::Line
    }
}

/// What was wrong with what was typed, by the name of the field.
pub type Errors = BTreeMap<String, String>;

/// The parameters of an action in the order of its kind: who is reached first, what is said last.
#[must_use]
pub fn in_order(action: &Action) -> Vec<(&str, &Value)> {
    let Some(params) = action.params.as_object() else { return Vec::new() };
    let place = |name: &str| {
        let spec = action::spec(&action.action)?;
        spec.targets.iter().chain(spec.required).chain(spec.optional).position(|known| *known == name)
    };
    let mut all: Vec<(&str, &Value)> = params.iter().map(|(name, value)| (name.as_str(), value)).collect();
    // What is long comes last, whatever it is called.
    all.sort_by_key(|(name, value)| (kind(value) == Kind::Text, place(name).unwrap_or(usize::MAX)));
    all
}

/// The fields of a form over an action, with what was `typed` into them before.
#[must_use]
pub fn fields(action: &Action, typed: Option<&Form>, errors: &Errors) -> Vec<Field> {
    let field = |(name, value): (&str, &Value)| {
        let (kind, key) = (kind(value), format!("{PREFIX}{name}"));
        let text = typed.and_then(|form| form.get(&key)).map_or_else(|| as_typed(value), str::to_owned);
        Field {
            label: Inert::line(&name.replace('_', " ")),
            kind,
            rows: text.lines().map(|line| 1 + line.chars().count() / 70).sum::<usize>().clamp(2, 24) + 1,
            error: errors.get(&key).cloned(),
            name: key,
            value: text,
        }
    };
    in_order(action).into_iter().map(field).collect()
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::String(text) if text.contains(['\n', '\r']) || text.chars().count() > LINE => Kind::Text,
        Value::String(_) => Kind::Line,
        _ => Kind::Json,
    }
}

fn as_typed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => format!("{value:#}"),
        plain => plain.to_string(),
    }
}

/// The parameters as they were typed; those that are not in the form stay.
///
/// # Errors
/// What cannot be read, by field.
pub fn typed(action: &Action, form: &Form) -> Result<Value, Errors> {
    let (mut params, mut errors) = (Map::new(), Errors::new());
    for (name, before) in action.params.as_object().into_iter().flatten() {
        let key = format!("{PREFIX}{name}");
        match form.get(&key).map(|text| read(before, text)) {
            None => drop(params.insert(name.clone(), before.clone())),
            Some(Ok(value)) => drop(params.insert(name.clone(), value)),
            Some(Err(why)) => drop(errors.insert(key, why)),
        }
    }
    if errors.is_empty() { Ok(Value::Object(params)) } else { Err(errors) }
}

fn read(before: &Value, text: &str) -> Result<Value, String> {
    if plain_lines(text) == plain_lines(&as_typed(before)) {
        return Ok(before.clone());
    }
    match before {
        Value::String(before) => {
            let text = plain_lines(text);
            let is_mail = before.contains("\r\n");
            Ok(Value::String(if is_mail { text.replace('\n', "\r\n") } else { text }))
        }
        _ => serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}")),
    }
}

/// Every line end as `\n`, whichever a browser sent.
fn plain_lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mail(body: &str) -> Action {
        let params = json!({"body": body, "to": ["a@b.example"], "subject": "s", "count": 3});
        Action { action: "email.send".into(), params }
    }

    fn form(pairs: &[(&str, &str)]) -> Form {
        let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        Form::parse(text.as_bytes())
    }

    #[test]
    fn what_nobody_touched_comes_back_as_it_was_whatever_line_ends_the_browser_sends() {
        for body in ["a\nb", "a\r\nb\r\n", "a\rb", "\n\na", ""] {
            let action = mail(body);
            let sent: Vec<(String, String)> = fields(&action, None, &Errors::new())
                .into_iter()
                .map(|field| (field.name, plain_lines(&field.value).replace('\n', "\r\n")))
                .collect();
            let pairs: Vec<(&str, &str)> =
                sent.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(typed(&action, &form(&pairs)).unwrap(), action.params, "{body:?}");
        }
    }

    #[test]
    fn an_edit_keeps_types_and_the_line_ends_of_the_draft() {
        let edit =
            form(&[("p.body", "a\r\nc"), ("p.count", "4"), ("p.to", "[\"x@y.example\"]"), ("p.evil", "1")]);
        let expected = json!({"body": "a\nc", "to": ["x@y.example"], "subject": "s", "count": 4});
        assert_eq!(typed(&mail("a\nb"), &edit).unwrap(), expected);
        assert_eq!(typed(&mail("a\r\nb"), &edit).unwrap()["body"], "a\r\nc");
    }

    #[test]
    fn what_cannot_be_read_is_told_at_its_field_and_kept_as_it_was_typed() {
        let action = mail("b");
        let edit = form(&[("p.count", "four")]);
        let errors = typed(&action, &edit).unwrap_err();
        let fields = fields(&action, Some(&edit), &errors);
        let count = fields.iter().find(|field| field.name == "p.count").unwrap();
        assert_eq!(count.value, "four");
        assert!(count.error.as_ref().unwrap().starts_with("this is not JSON"));
    }

    #[test]
    fn whom_it_reaches_comes_first_and_what_is_long_last() {
        let action = mail("a\nb");
        let names: Vec<&str> = in_order(&action).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["to", "subject", "count", "body"]);
    }
}
