//! An agent's canned output: the owner's own expressions over the agent's input, the encoder's
//! verdict and the workspace. A reply template, a rule of thumb; it needs no model at all.

use serde_json::{Value, json};

use crate::domain::template::{Scope, TemplateError};
use crate::domain::workflow::Canned;
use crate::models::error::{Kind, ModelError};

/// What a canned output may name.
pub(crate) struct Context<'a> {
    /// The agent's input.
    pub with: &'a Value,
    /// The encoder's verdict, as `class.class`, `class.confidence` and `class.scores`; null for an agent
    /// without classes.
    pub class: Value,
    /// The owner's business.
    pub workspace: &'a Value,
}

/// The output and how sure the owner declared to be of it, in 0..=1.
pub(crate) fn evaluate(canned: &Canned, context: &Context<'_>) -> Result<(Value, f64), ModelError> {
    // Labels play no part: whoever asks an agent labels its output by the label of `with`.
    let known = json!({"with": context.with, "class": context.class, "workspace": context.workspace});
    let scope = Scope::new(&known, |_| Default::default());
    if let Some(when) = &canned.when
        && !scope.holds(when).map_err(broken)?
    {
        return Err(ModelError::new(Kind::Inapplicable, format!("its condition `{when}` does not hold")));
    }
    let output = scope.fill(&canned.output).map_err(broken)?;
    Ok((output, confidence(&canned.confidence, &scope)?))
}

fn confidence(declared: &Value, scope: &Scope<'_>) -> Result<f64, ModelError> {
    let value = match declared {
        Value::String(text) if !text.contains("{{") => scope.expression(text).map_err(broken)?,
        other => scope.fill(other).map_err(broken)?,
    };
    match value.as_f64() {
        Some(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err(ModelError::new(
            Kind::Invalid,
            format!("its confidence is {value}, not a number from 0 to 1"),
        )),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it reads better as a function to map with")]
fn broken(error: TemplateError) -> ModelError {
    ModelError::new(Kind::Invalid, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluated(canned: Value, class: Option<&str>) -> Result<(Value, f64), ModelError> {
        let canned: Canned = serde_json::from_value(canned).unwrap();
        let with = json!({"name": "Ada {{ workspace.name }}", "n": 3});
        evaluate(
            &canned,
            &Context {
                with: &with,
                class: class.map_or(Value::Null, |class| json!({"class": class, "confidence": 0.8})),
                workspace: &json!({"name": "Fjord Web"}),
            },
        )
    }

    #[test]
    fn it_fills_in_the_input_the_class_and_the_workspace_and_renders_nothing_twice() {
        let canned = json!({"output": {"body": "Dear {{ with.name }}, {{ workspace.name }}", "n": "{{ with.n }}",
            "class": "{{ class.class }}"}, "confidence": 0.4});
        let (output, confidence) = evaluated(canned, Some("lead")).unwrap();
        assert_eq!(
            output,
            json!({"body": "Dear Ada {{ workspace.name }}, Fjord Web", "n": 3, "class": "lead"})
        );
        assert!((confidence - 0.4).abs() < f64::EPSILON);
    }

    #[test]
    fn it_does_not_apply_when_its_condition_is_false() {
        let canned = json!({"when": "class.class == 'lead'", "output": {}, "confidence": 1});
        assert!(evaluated(canned.clone(), Some("lead")).is_ok());
        let error = evaluated(canned, Some("spam")).unwrap_err();
        assert_eq!((error.kind, error.message.contains("class.class == 'lead'")), (Kind::Inapplicable, true));
    }

    #[test]
    fn a_confidence_may_be_an_expression_but_must_lie_between_0_and_1() {
        for (confidence, ok) in [
            (json!("{{ with.n / 10 }}"), true),
            (json!("0.9 if class.class == 'lead' else 0.1"), true),
            (json!(1.5), false),
            (json!("{{ with.name }}"), false),
            (json!("{{ with.missing }}"), false),
        ] {
            let result = evaluated(json!({"output": {}, "confidence": confidence}), Some("spam"));
            assert_eq!(result.is_ok(), ok, "{confidence}: {result:?}");
        }
    }
}
