//! Templates and conditions: `minijinja` with strict undefined, fuel and size limits.
//!
//! A text that is one single `{{ expression }}` gives the expression's value, whatever its type;
//! any other text is rendered to text. What is filled in is never rendered again: `{{` in an
//! email stays text. [`paths`] tells which values a template names, and so which labels its
//! result carries.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::LazyLock;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

use crate::domain::label::Label;

/// Instructions one template may execute; a loop over a long thread takes a few thousand.
const FUEL: u64 = 200_000;

/// The longest rendered text, bytes: ten times the longest email body that is kept.
const MAX_RENDERED: usize = 1024 * 1024;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.remove_global("debug"); // it shows values without naming them
    environment
});

/// Why a template gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} in `{template}`")]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// The template, shortened.
    pub template: String,
}

impl TemplateError {
    fn new(error: &minijinja::Error, template: &str) -> Self {
        let message = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        Self::because(message, template)
    }

    fn because(message: impl Into<String>, template: &str) -> Self {
        let mut shortened: String = template.chars().take(80).collect();
        if shortened.len() < template.len() {
            shortened.push('…');
        }
        Self { message: message.into(), template: shortened }
    }
}

/// The values a template may name, and where each came from.
pub struct Scope<'a> {
    /// Made when the first template names something: most fixed values name nothing.
    context: LazyLock<minijinja::Value, Box<dyn FnOnce() -> minijinja::Value + Send + 'a>>,
    label_of: Box<dyn Fn(&str) -> Label + Send + Sync + 'a>,
}

impl<'a> Scope<'a> {
    /// A scope over an object; `label_of` answers for a dotted path into it.
    pub fn new(context: &'a Value, label_of: impl Fn(&str) -> Label + Send + Sync + 'a) -> Self {
        Self::over(Box::new(move || minijinja::Value::from(Serde(context))), label_of)
    }

    /// A scope over an object that is made only when a template names something.
    pub fn lazy(
        context: impl FnOnce() -> Value + Send + 'a,
        label_of: impl Fn(&str) -> Label + Send + Sync + 'a,
    ) -> Self {
        Self::over(Box::new(move || minijinja::Value::from(Serde(context()))), label_of)
    }

    fn over(
        context: Box<dyn FnOnce() -> minijinja::Value + Send + 'a>,
        label_of: impl Fn(&str) -> Label + Send + Sync + 'a,
    ) -> Self {
        Self { context: LazyLock::new(context), label_of: Box::new(label_of) }
    }

    /// Fills in one text.
    ///
    /// # Errors
    /// When it names something undefined, uses up its fuel or grows too long.
    pub fn text(&self, template: &str) -> Result<String, TemplateError> {
        let compiled =
            ENVIRONMENT.template_from_str(template).map_err(|error| TemplateError::new(&error, template))?;
        let mut out = Limited(Vec::new());
        compiled
            .render_captured_to(self.context.clone(), &mut out)
            .map_err(|error| TemplateError::new(&error, template))?;
        String::from_utf8(out.0).map_err(|_| TemplateError::because("not text", template))
    }

    /// The value of one expression.
    ///
    /// # Errors
    /// When it names something undefined or uses up its fuel.
    pub fn expression(&self, expression: &str) -> Result<Value, TemplateError> {
        let value = ENVIRONMENT
            .compile_expression(expression)
            .and_then(|compiled| compiled.eval(self.context.clone()))
            .map_err(|error| TemplateError::new(&error, expression))?;
        if value.is_undefined() {
            return Err(TemplateError::because("undefined value", expression));
        }
        serde_json::to_value(&value).map_err(|_| TemplateError::because("not a JSON value", expression))
    }

    /// Whether a condition holds.
    ///
    /// # Errors
    /// As [`Scope::expression`].
    pub fn holds(&self, condition: &str) -> Result<bool, TemplateError> {
        ENVIRONMENT
            .compile_expression(condition)
            .and_then(|compiled| compiled.eval(self.context.clone()))
            .map(|value| value.is_true())
            .map_err(|error| TemplateError::new(&error, condition))
    }

    /// Whether a condition holds that must not rest on anything undefined: alone, an undefined value counts
    /// as false elsewhere.
    ///
    /// # Errors
    /// As [`Scope::expression`].
    pub fn surely_holds(&self, condition: &str) -> Result<bool, TemplateError> {
        let value = ENVIRONMENT
            .compile_expression(condition)
            .and_then(|compiled| compiled.eval(self.context.clone()))
            .map_err(|error| TemplateError::new(&error, condition))?;
        match value.is_undefined() {
            true => Err(TemplateError::because("undefined value", condition)),
            false => Ok(value.is_true()),
        }
    }

    /// Fills in every text inside `template`, keeping its shape.
    ///
    /// # Errors
    /// As [`Scope::text`].
    pub fn fill(&self, template: &Value) -> Result<Value, TemplateError> {
        Ok(match template {
            Value::String(text) => match single_expression(text) {
                Some(expression) => self.expression(expression)?,
                None if text.contains("{{") || text.contains("{%") => Value::String(self.text(text)?),
                None => template.clone(),
            },
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.fill(item)).collect::<Result<_, _>>()?)
            }
            Value::Object(map) => {
                let filled = map.iter().map(|(key, item)| Ok((key.clone(), self.fill(item)?)));
                Value::Object(filled.collect::<Result<Map<_, _>, TemplateError>>()?)
            }
            other => other.clone(),
        })
    }

    /// The label of whatever `template` gives: the join over the paths it names.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn label(&self, template: &Value) -> Result<Label, TemplateError> {
        let mut found = BTreeSet::new();
        paths(template, &mut found)?;
        Ok(Label::join_all(found.iter().map(|path| (self.label_of)(path))))
    }
}

/// Adds every path that the texts inside `template` name, such as `input.body`.
///
/// # Errors
/// When a text does not parse.
pub fn paths(template: &Value, found: &mut BTreeSet<String>) -> Result<(), TemplateError> {
    match template {
        Value::String(text) if text.contains("{{") || text.contains("{%") => {
            let compiled =
                ENVIRONMENT.template_from_str(text).map_err(|error| TemplateError::new(&error, text))?;
            found.extend(compiled.undeclared_variables(true));
            mentioned(text, false, found);
        }
        Value::Array(items) => items.iter().try_for_each(|item| paths(item, found))?,
        Value::Object(map) => map.values().try_for_each(|item| paths(item, found))?,
        _ => {}
    }
    Ok(())
}

/// Adds every path that a bare expression names.
///
/// # Errors
/// When it does not parse.
pub fn expression_paths(expression: &str, found: &mut BTreeSet<String>) -> Result<(), TemplateError> {
    let compiled =
        ENVIRONMENT.compile_expression(expression).map_err(|error| TemplateError::new(&error, expression))?;
    found.extend(compiled.undeclared_variables(true));
    mentioned(expression, true, found);
    Ok(())
}

/// The step whose output a path such as `steps.sort.output.class` reads.
#[must_use]
pub fn step_of(path: &str) -> Option<&str> {
    path.strip_prefix("steps.")?.split('.').next()
}

/// The value at a dotted path.
#[must_use]
pub fn lookup<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => value.get(key),
    })
}

/// Adds every dotted path below a root that the code of a template spells out, whatever stands around it.
/// minijinja's own report leaves some places out (a sliced value, a name that is set again): a label
/// must not. Spelling is enough, for nothing reaches a root without its name.
fn mentioned(text: &str, mut in_code: bool, found: &mut BTreeSet<String>) {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let (mut rest, mut before, only_code) = (text, ' ', in_code);
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        match c {
            '{' if !in_code && (rest.starts_with("{{") || rest.starts_with("{%")) => {
                (in_code, length) = (true, 2)
            }
            '}' | '%' if in_code && !only_code && (rest.starts_with("}}") || rest.starts_with("%}")) => {
                (in_code, length) = (false, 2);
            }
            '"' | '\'' if in_code => length = literal(rest, c),
            _ if in_code && is_name(c) => {
                length = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
                if ROOTS.contains(&&rest[..length]) && before != '.' {
                    length = rest.find(|c: char| !is_name(c) && c != '.').unwrap_or(rest.len());
                    found.insert(rest[..length].trim_end_matches('.').to_owned());
                }
            }
            _ => {}
        }
        if !c.is_whitespace() {
            before = c;
        }
        rest = &rest[length..];
    }
}

/// The names under which a run's values are reached.
const ROOTS: [&str; 7] = ["input", "steps", "run", "workspace", "item", "index", "output"];

/// The length of a quoted text, its quotes included.
fn literal(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// The expression of a text that is nothing but `{{ expression }}`.
fn single_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    // `{{-` and `-}}` trim what stands around the expression: here there is nothing.
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    (!inner.contains("{{") && !inner.contains("}}") && !inner.contains("{%")).then_some(inner)
}

struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED {
            return Err(io::Error::other("the result is longer than 1 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope(context: &Value) -> Scope<'_> {
        Scope::new(context, |path| if path.starts_with("input") { Label::Untrusted } else { Label::Owner })
    }

    #[test]
    fn what_was_filled_in_is_never_rendered_again() {
        let context = json!({"input": {"body": "{{ workspace.secret }}"}, "workspace": {"secret": "x"}});
        let scope = scope(&context);
        assert_eq!(scope.text("They wrote: {{ input.body }}").unwrap(), "They wrote: {{ workspace.secret }}");
        assert_eq!(scope.fill(&json!("{{ input.body }}")).unwrap(), json!("{{ workspace.secret }}"));
    }

    #[test]
    fn a_single_expression_keeps_its_type() {
        let context = json!({"input": {"n": 3, "list": [1, 2]}});
        let scope = scope(&context);
        assert_eq!(
            scope.fill(&json!({"a": "{{ input.n }}", "b": "n={{ input.n }}"})).unwrap(),
            json!({"a": 3, "b": "n=3"})
        );
        assert_eq!(scope.fill(&json!("{{ input.list }}")).unwrap(), json!([1, 2]));
    }

    #[test]
    fn something_undefined_is_an_error_that_names_it() {
        let context = json!({"input": {}});
        let scope = scope(&context);
        assert!(scope.text("Dear {{ input.name }}").unwrap_err().to_string().contains("input.name"));
        assert!(scope.fill(&json!("{{ input.name }}")).is_err());
    }

    #[test]
    fn a_value_carries_the_join_of_the_labels_it_names() {
        let context = json!({"input": {"a": 1}, "workspace": {"name": "x"}});
        let scope = scope(&context);
        assert_eq!(scope.label(&json!("constant")).unwrap(), Label::Owner);
        assert_eq!(
            scope.label(&json!(["{{ workspace.name }}", "Hi {{ input.a }}"])).unwrap(),
            Label::Untrusted
        );
        assert_eq!(scope.label(&json!("{% set x = input %}{{ x.a }}")).unwrap(), Label::Untrusted);
    }

    #[test]
    fn no_way_of_writing_a_template_hides_where_its_value_came_from() {
        let context = json!({"input": {"a": "xyz", "list": [1, 2]}, "workspace": {"name": "x"}});
        let scope = scope(&context);
        for template in [
            "{{ input.a[:2] }}",
            "{{ input['a'][:2] }}",
            "{% set input = input.a %}{{ input }}",
            "{% with input = input.a %}{{ input }}{% endwith %}",
            "{% filter replace('x', input.a) %}x{% endfilter %}",
            "{%- for x in input.list -%}{{ x }}{%- endfor -%}",
            "{{- input . a -}}",
            "{{ workspace.name if input.a else workspace.name }}",
        ] {
            assert_eq!(scope.label(&json!(template)).unwrap(), Label::Untrusted, "{template}");
        }
        for template in ["input.a", "{{ workspace.name }} input.a", "{{ 'input.a' ~ workspace.name }}"] {
            assert_eq!(scope.label(&json!(template)).unwrap(), Label::Owner, "{template}");
        }
        assert_eq!(scope.fill(&json!("{{- input.a -}}")).unwrap(), json!("xyz"));
        assert!(scope.text("{{ debug() }}").is_err());
    }

    #[test]
    fn a_template_that_never_ends_runs_out_of_fuel() {
        let context = json!({});
        let scope = scope(&context);
        let error = scope
            .text("{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}");
        assert!(error.unwrap_err().message.contains("fuel"));
        assert!(scope.text("{% for a in range(9000) %}{{ 'x' * 9000 }}{% endfor %}").is_err());
    }
}
