//! Templates and conditions: their syntax, their filters, and every name they use.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::LazyLock;

use minijinja::{Environment, ErrorKind};
use serde_json::Value;

use crate::config::check::paths::{self, Miss};
use crate::config::document::Reporter;
use crate::config::nearest;
use crate::config::node::Path;
use crate::domain::template as domain;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(Environment::new);

/// What the templates of one place may name.
#[derive(Clone)]
pub(in crate::config) struct Scope {
    /// The names themselves, with the schema of each.
    pub(in crate::config) names: BTreeMap<&'static str, Value>,
    /// Of a workflow: the outputs of the steps before this one.
    pub(in crate::config) steps: Option<Steps>,
    /// What to say about a name that is none of these; the names themselves when it is empty.
    pub(in crate::config) hint: &'static str,
}

/// The steps of a workflow as seen from one of them.
#[derive(Clone, Default)]
pub(in crate::config) struct Steps {
    /// The outputs of those that are over by then.
    pub(in crate::config) before: BTreeMap<String, Value>,
    /// All of them.
    pub(in crate::config) all: Vec<String>,
    /// The one that looks.
    pub(in crate::config) here: String,
}

/// Where a text stands.
pub(in crate::config) enum Place<'a> {
    /// A value of the YAML.
    Value(&'a Path),
    /// Bytes of the file, as they are.
    Body(Range<usize>),
}

impl Place<'_> {
    fn of(&self, report: &Reporter<'_>, text: &str, part: Range<usize>) -> Range<usize> {
        match self {
            Self::Value(path) => report.document.locate_part(path, text, part),
            Self::Body(body) => body.start + part.start..body.start + part.end,
        }
    }
}

impl Scope {
    /// Checks every text inside `value`, which stands at `path`; gives the paths they name.
    pub(in crate::config) fn templates(
        &self,
        report: &mut Reporter<'_>,
        path: &Path,
        value: &Value,
    ) -> BTreeSet<String> {
        match value {
            Value::String(text) => self.text(report, &Place::Value(path), text),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .flat_map(|(index, item)| self.templates(report, &path.index(index), item))
                .collect(),
            Value::Object(map) => {
                map.iter().flat_map(|(key, item)| self.templates(report, &path.key(key), item)).collect()
            }
            _ => BTreeSet::new(),
        }
    }

    /// Checks one template.
    pub(in crate::config) fn text(
        &self,
        report: &mut Reporter<'_>,
        place: &Place<'_>,
        text: &str,
    ) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        if let Err(error) = ENVIRONMENT.template_from_str(text) {
            syntax(report, place, text, &error);
        } else if domain::paths(&Value::String(text.to_owned()), &mut found).is_ok() {
            for block in blocks(text) {
                words(report, place, text, block);
            }
            found.iter().for_each(|name| self.name(report, place, text, name));
        }
        found
    }

    /// Checks one condition or bare expression.
    pub(in crate::config) fn expression(
        &self,
        report: &mut Reporter<'_>,
        place: &Place<'_>,
        text: &str,
    ) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        if text.contains("{{") || text.contains("{%") {
            let message = "a condition is an expression by itself, without `{{ }}`";
            report.span(
                place.of(report, text, 0..text.len()),
                message,
                "write it as in `when: input.fit > 0.5`",
            );
            return found;
        }
        match ENVIRONMENT.compile_expression(text) {
            Err(error) => syntax(report, place, text, &error),
            Ok(_) if domain::expression_paths(text, &mut found).is_ok() => {
                words(report, place, text, 0..text.len());
                for name in &found {
                    self.name(report, place, text, name);
                    self.constants(report, place, text, name);
                }
            }
            Ok(_) => {}
        }
        found
    }

    /// Checks one name that stands somewhere in `text`.
    fn name(&self, report: &mut Reporter<'_>, place: &Place<'_>, text: &str, name: &str) {
        if ENVIRONMENT.globals().any(|(global, _)| global == name) {
            return;
        }
        if let Err((message, mend)) = self.resolve(name) {
            let part = occurrence(text, name).unwrap_or(0..text.len());
            report.span(place.of(report, text, part), message, mend);
        }
    }

    /// The schema at a path.
    ///
    /// # Errors
    /// The message and the mend when it leads nowhere.
    pub(in crate::config) fn resolve<'s>(
        &'s self,
        name: &str,
    ) -> Result<Option<&'s Value>, (String, String)> {
        let parts: Vec<&str> = name.split('.').collect();
        let followed = match (parts.as_slice(), &self.steps) {
            (["steps", step, rest @ ..], Some(steps)) => match steps.before.get(*step) {
                Some(schema) => paths::follow(schema, &format!("steps.{step}"), rest),
                None => return Err(steps.missing(step)),
            },
            (["steps"], Some(_)) => Ok(None),
            ([root, rest @ ..], _) => match self.names.get(*root) {
                Some(schema) => paths::follow(schema, root, rest),
                None => {
                    let known: Vec<&str> = self.names.keys().copied().collect();
                    let mend = match self.hint {
                        "" => nearest::mend(root, "what there is", &known),
                        hint => hint.to_owned(),
                    };
                    return Err((format!("there is nothing called `{root}` here"), mend));
                }
            },
            ([], _) => Ok(None),
        };
        followed.map_err(|Miss { at, key, known }| {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let mend = match known.as_slice() {
                [] => format!(
                    "`{at}` is a single value: use it as it is, or with a filter as in `{at} | upper`"
                ),
                known => nearest::mend(&key, &format!("what `{at}` has"), known),
            };
            (format!("`{at}` has no `{key}`"), mend)
        })
    }

    /// A comparison of `name` with a text that it can never be.
    fn constants(&self, report: &mut Reporter<'_>, place: &Place<'_>, text: &str, name: &str) {
        let Ok(Some(schema)) = self.resolve(name) else { return };
        let Some(options) = schema.get("enum").and_then(Value::as_array) else { return };
        let options: Vec<&str> = options.iter().filter_map(Value::as_str).collect();
        for (at, _) in text.match_indices(name).filter(|(at, _)| bounded(text, *at, name.len())) {
            let Some((constant, part)) = compared(text, at + name.len()) else { continue };
            if !options.contains(&constant) {
                let message = format!("`{name}` is never `{constant}`");
                report.span(
                    place.of(report, text, part),
                    message,
                    nearest::mend(constant, "what it can be", &options),
                );
            }
        }
    }
}

impl Steps {
    fn missing(&self, step: &str) -> (String, String) {
        if step == self.here {
            let mend = "its output is there for the steps after it";
            return (format!("`{step}` cannot read its own output"), mend.into());
        }
        if self.all.iter().any(|known| known == step) {
            let mend = format!("move `{step}` before `{}`", self.here);
            return (format!("`{step}` comes later than `{}`", self.here), mend);
        }
        let known: Vec<&str> = self.before.keys().map(String::as_str).collect();
        (format!("there is no step `{step}`"), nearest::mend(step, "the steps before this one", &known))
    }
}

fn syntax(report: &mut Reporter<'_>, place: &Place<'_>, text: &str, error: &minijinja::Error) {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let part = error.range().unwrap_or(0..text.len());
    let span = place.of(report, text, part);
    report.span(
        span,
        format!("the template does not read: {detail}"),
        "mend what stands in `{{ }}` or `{% %}`",
    );
}

/// The insides of `{{ }}` and `{% %}`.
fn blocks(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(open) = text[at..].find("{{").into_iter().chain(text[at..].find("{%")).min() {
        let start = at + open + 2;
        let close = if text[at + open..].starts_with("{{") { "}}" } else { "%}" };
        let end = text[start..].find(close).map_or(text.len(), |end| start + end);
        found.push(start..end);
        at = end;
    }
    found
}

/// Filters and tests that do not exist: the engine would tell only when a run is under way.
fn words(report: &mut Reporter<'_>, place: &Place<'_>, text: &str, block: Range<usize>) {
    let bare = without_quotes(&text[block.clone()]);
    let tokens: Vec<(usize, &str)> = tokens(&bare);
    for (index, (at, word)) in tokens.iter().enumerate() {
        let before = |n: usize| index.checked_sub(n).and_then(|i| tokens.get(i)).map(|(_, token)| *token);
        let is_word = word.starts_with(|c: char| c.is_alphabetic() || c == '_');
        let is_test = before(1) == Some("is") || (before(1) == Some("not") && before(2) == Some("is"));
        let (kind, probe, unknown) = match before(1) {
            Some("|") if is_word => ("filter", format!("[] | {word}"), ErrorKind::UnknownFilter),
            _ if is_test && is_word && *word != "not" => {
                ("test", format!("1 is {word}"), ErrorKind::UnknownTest)
            }
            _ => continue,
        };
        let missing = ENVIRONMENT
            .compile_expression(&probe)
            .is_ok_and(|probe| probe.eval(()).is_err_and(|error| error.kind() == unknown));
        if missing {
            let start = block.start + at;
            let span = place.of(report, text, start..start + word.len());
            let mend = format!("see the {kind}s of minijinja, or of Jinja: they have the same names");
            report.span(span, format!("there is no {kind} `{word}`"), mend);
        }
    }
}

/// The text with what stands in quotes blanked, byte for byte.
fn without_quotes(text: &str) -> String {
    let mut quote = None;
    let mut escaped = false;
    let blank = |byte: u8| match (quote, byte) {
        (None, b'"' | b'\'') => {
            quote = Some(byte);
            '"'
        }
        (None, byte) if byte.is_ascii() => char::from(byte),
        (Some(open), byte) if byte == open && !escaped => {
            quote = None;
            '"'
        }
        (Some(_), byte) => {
            escaped = byte == b'\\' && !escaped;
            ' '
        }
        (None, _) => ' ',
    };
    text.bytes().map(blank).collect()
}

/// Words and signs with their places.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let word =
            text[at..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len() - at);
        let length = word.max(1);
        if !c.is_whitespace() {
            found.push((at, &text[at..at + length]));
        }
        at += length;
    }
    found
}

/// Where `name` stands in `text` by itself, not as a part of a longer one.
fn occurrence(text: &str, name: &str) -> Option<Range<usize>> {
    let mut all = text.match_indices(name);
    all.find(|(at, _)| bounded(text, *at, name.len())).map(|(at, _)| at..at + name.len())
}

fn bounded(text: &str, at: usize, length: usize) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    !text[..at].ends_with(part) && !text[at + length..].starts_with(|c: char| c != '.' && part(c))
}

/// The quoted text after `==` or `!=` at `at`.
fn compared(text: &str, at: usize) -> Option<(&str, Range<usize>)> {
    let rest = text[at..].trim_start();
    let rest = rest.strip_prefix("==").or_else(|| rest.strip_prefix("!="))?.trim_start();
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let start = text.len() - rest.len() + 1;
    let length = text[start..].find(quote)?;
    Some((&text[start..start + length], start..start + length))
}
