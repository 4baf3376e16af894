//! The parameters of an action, read strictly: a parameter that the connector would not look at is
//! an error, because the owner who approved it believes that it counts.

use serde_json::{Map, Value};

use crate::domain::action::{self, Action};
use crate::domain::event::{ErrorKind, StepError};

/// The parameters of one action.
pub(super) struct Params<'a> {
    values: &'a Map<String, Value>,
}

impl<'a> Params<'a> {
    /// The parameters of `action`: all that are required, none that are unknown.
    pub(super) fn of(action: &'a Action) -> Result<Self, StepError> {
        let name = &action.action;
        let spec = action::spec(name).ok_or_else(|| invalid(format!("there is no action `{name}`")))?;
        let Value::Object(values) = &action.params else {
            return Err(invalid(format!("the parameters of `{name}` are not an object")));
        };
        if let Some(missing) = spec.required.iter().find(|wanted| !values.contains_key(**wanted)) {
            return Err(invalid(format!("`{name}` needs `{missing}`")));
        }
        let known = |given: &str| spec.required.contains(&given) || spec.optional.contains(&given);
        match values.keys().find(|given| !known(given)) {
            Some(unknown) => Err(invalid(format!("`{name}` has no parameter `{unknown}`"))),
            None => Ok(Self { values }),
        }
    }

    /// A parameter that was given and is not null.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// A text that need not be there.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, StepError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(format!("`{name}` is not a text"))),
        }
    }

    /// A text that must be there.
    pub(super) fn need(&self, name: &str) -> Result<&'a str, StepError> {
        self.text(name)?.ok_or_else(|| invalid(format!("`{name}` is missing")))
    }

    /// A text or a list of texts; empty when not given.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&'a str>, StepError> {
        let wrong = || invalid(format!("`{name}` is neither a text nor a list of texts"));
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(items)) => items.iter().map(|item| item.as_str().ok_or_else(wrong)).collect(),
            Some(_) => Err(wrong()),
        }
    }
}

/// A parameter that does not fit; trying again does not help.
pub(super) fn invalid(message: impl Into<String>) -> StepError {
    StepError::new(ErrorKind::Invalid, message)
}
