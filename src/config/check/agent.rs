//! An agent's file: its schema, its prompt, its canned output.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::{Value, json};

use crate::config::agent::{RawAgent, RawCanned};
use crate::config::check::templates::{Place, Scope};
use crate::config::check::{Names, schema};
use crate::config::document::Reporter;
use crate::config::nearest;
use crate::config::node::Path;
use crate::domain::action;
use crate::domain::duration::Span;
use crate::domain::ids::AgentName;
use crate::domain::template;
use crate::domain::tool::Tool;
use crate::domain::workflow::{Agent, Canned, Class, TURNS, Votes};

/// The longest that an answer may serve again.
const LONGEST_CACHE: Span = Span::secs(30 * 86_400);

const PROMPT_HINT: &str = "a prompt names `workspace` alone; what an agent is to work on is given to it \
                           by the step's `with` and is never part of its instructions";

const CANNED_HINT: &str = "a canned output names `with` (what the agent is given), `workspace` and, when \
                           the agent has classes, `class`";

/// Checks an agent and gives its definition; whether that may be used is for the problems to say.
pub(in crate::config) fn resolve(
    report: &mut Reporter<'_>,
    raw: &RawAgent,
    body: Range<usize>,
    names: &Names,
) -> Agent {
    let top = Path::top();
    tier(report, "tier", &raw.tier, names);
    if let Some(finalize) = &raw.finalize {
        tier(report, "finalize", finalize, names);
    }
    let tools = tools(report, raw);
    let sound = output(report, raw);
    classes(report, raw, sound);
    votes(report, raw, sound);
    cache(report, raw);
    let prompt = report.document.source[body.clone()].to_owned();
    if prompt.is_empty() {
        let span = report.document.locate(&top.key("agent"));
        report.span(span, "this agent has no prompt", "write its instructions below the second `---`");
    }
    let scope = Scope {
        names: BTreeMap::from([("workspace", names.workspace.clone())]),
        steps: None,
        hint: PROMPT_HINT,
    };
    scope.text(report, &Place::Body(body), &prompt);
    if let Some(wanted) = &raw.canned {
        canned(report, raw, wanted, names, sound);
    }
    Agent {
        agent: AgentName(raw.agent.clone()),
        tier: raw.tier.clone(),
        prompt,
        output: raw.output.clone(),
        classes: raw
            .classes
            .iter()
            .map(|c| Class { class: c.class.clone(), examples: c.examples.clone() })
            .collect(),
        canned: raw.canned.as_ref().map(|canned| Canned {
            when: canned.when.as_ref().and_then(super::workflow::condition_text),
            output: canned.output.clone(),
            confidence: canned.confidence.clone(),
        }),
        max_tokens: raw.max_tokens,
        tools,
        max_turns: raw.max_turns,
        token_limit: raw.token_limit,
        finalize: raw.finalize.clone(),
        votes: raw.votes.map(|of| Votes { of, by: raw.votes_by.clone() }),
        cache: raw.cache,
    }
}

fn tier(report: &mut Reporter<'_>, field: &str, tier: &String, names: &Names) {
    let Some(tiers) = &names.tiers else { return };
    if !tiers.contains(tier) {
        let known: Vec<&str> = tiers.iter().map(String::as_str).collect();
        let mend = nearest::mend(tier, "the tiers of config/models.yaml", &known);
        report.value(&Path::top().key(field), format!("there is no tier `{tier}`"), mend);
    }
}

fn tools(report: &mut Reporter<'_>, raw: &RawAgent) -> Vec<Tool> {
    let path = Path::top().key("tools");
    let mut tools = Vec::new();
    for (index, name) in raw.tools.iter().enumerate() {
        let found = Tool::ALL.into_iter().find(|tool| tool.name() == name);
        match found {
            Some(tool) if tools.contains(&tool) => {
                let message = format!("the tool `{name}` stands here twice");
                report.value(&path.index(index), message, "take one of them away");
            }
            Some(tool) => tools.push(tool),
            None => {
                let known: Vec<&str> = Tool::ALL.into_iter().map(Tool::name).collect();
                let mend = match action::spec(name) {
                    Some(_) => {
                        "agents only read: what changes something is an action, in a step of its own".into()
                    }
                    None => nearest::mend(name, "the tools", &known),
                };
                report.value(&path.index(index), format!("there is no tool `{name}`"), mend);
            }
        }
    }
    if raw.max_turns != TURNS && raw.tools.is_empty() {
        let mend = "add `tools: [...]`, or take `max_turns` away";
        report.key(&Path::top().key("max_turns"), "an agent without tools has one turn", mend);
    }
    tools
}

/// Answers are compared by a field that the output has.
fn votes(report: &mut Reporter<'_>, raw: &RawAgent, sound: bool) {
    let Some(field) = &raw.votes_by else { return };
    let path = Path::top().key("votes_by");
    if raw.votes.is_none() {
        report.key(&path, "there are no `votes` to compare", "add `votes: 3`, or take `votes_by` away");
    }
    let properties = raw.output.get("properties").and_then(Value::as_object).filter(|_| sound);
    if let Some(properties) = properties.filter(|properties| !properties.contains_key(field)) {
        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
        let mend = nearest::mend(field, "the fields of the output", &known);
        report.value(&path, format!("the output schema has no `{field}`"), mend);
    }
}

fn cache(report: &mut Reporter<'_>, raw: &RawAgent) {
    let Some(age) = raw.cache else { return };
    let path = Path::top().key("cache");
    if age > LONGEST_CACHE {
        let message = format!("`{age}` is too long: models change, and so does what is right");
        report.value(&path, message, format!("write at most `{LONGEST_CACHE}`"));
    } else if age == Span::secs(0) {
        report.value(&path, "an answer of no age serves nobody", "write `24h`, or take `cache` away");
    }
}

fn output(report: &mut Reporter<'_>, raw: &RawAgent) -> bool {
    let path = Path::top().key("output");
    if !schema::check(report, &path, &raw.output) {
        return false;
    }
    if raw.output.get("type") != Some(&json!("object")) {
        report.value(&path, "an agent's output is an object", "begin the schema with `type: object`");
        return false;
    }
    true
}

/// The encoder answers with `class`: every class must be an output the schema allows.
fn classes(report: &mut Reporter<'_>, raw: &RawAgent, sound: bool) {
    let path = Path::top().key("classes");
    for (index, class) in raw.classes.iter().enumerate() {
        if raw.classes[..index].iter().any(|earlier| earlier.class == class.class) {
            let message = format!("the class `{}` stands here twice", class.class);
            report.value(&path.index(index).key("class"), message, "put its examples together");
        }
        for (n, example) in class.examples.iter().enumerate() {
            if example.trim().is_empty() {
                let place = path.index(index).key("examples").index(n);
                report.value(&place, "this example is empty", "write a phrase as it occurs in real texts");
            }
        }
        let Some(wanted) = raw.output.pointer("/properties/class").filter(|_| sound) else { continue };
        let allowed = schema::validator(wanted).map_or(true, |v| v.is_valid(&json!(class.class)));
        if !allowed {
            let message = format!("the output schema does not allow the class `{}`", class.class);
            let mend = "add it to the `enum` of the output's `class`";
            report.value(&path.index(index).key("class"), message, mend);
        }
    }
    if !raw.classes.is_empty() && sound && raw.output.pointer("/properties/class").is_none() {
        let mend = "add `class: { enum: [...] }` to the properties of `output`";
        report.key(&path, "the output schema has no `class` for the encoder's choice", mend);
    }
}

fn canned(report: &mut Reporter<'_>, raw: &RawAgent, canned: &RawCanned, names: &Names, sound: bool) {
    let path = Path::top().key("canned");
    let scope = canned_scope(raw, names);
    if let Some(Value::String(when)) = &canned.when {
        scope.expression(report, &Place::Value(&path.key("when")), when);
    }
    scope.templates(report, &path.key("output"), &canned.output);
    match &canned.confidence {
        Value::String(text) if text.contains("{{") => {
            scope.text(report, &Place::Value(&path.key("confidence")), text);
        }
        Value::String(text) => {
            scope.expression(report, &Place::Value(&path.key("confidence")), text);
        }
        number if number.as_f64().is_some_and(|n| (0.0..=1.0).contains(&n)) => {}
        _ => {
            let message = "a confidence is a number from 0 to 1";
            report.value(&path.key("confidence"), message, "write how sure you are, as in `0.5`");
        }
    }
    if sound {
        against_schema(report, &path.key("output"), &raw.output, &canned.output);
    }
}

fn canned_scope(raw: &RawAgent, names: &Names) -> Scope {
    let mut known =
        BTreeMap::from([("workspace", names.workspace.clone()), ("with", json!({"type": "object"}))]);
    if !raw.classes.is_empty() {
        let options: Vec<&str> = raw.classes.iter().map(|class| class.class.as_str()).collect();
        known.insert(
            "class",
            json!({"type": "object", "properties": {
                "class": {"enum": options, "type": "string"},
                "confidence": {"type": "number"},
                "scores": {"type": "object"},
            }}),
        );
    }
    Scope { names: known, steps: None, hint: CANNED_HINT }
}

/// What can be known of a canned output before there is an input: its fields, and its constant values.
fn against_schema(report: &mut Reporter<'_>, path: &Path, schema: &Value, output: &Value) {
    const MEND: &str = "make the canned output and the output schema agree";
    let Some(fields) = output.as_object() else { return };
    for field in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        let field = field.as_str().unwrap_or_default();
        if !fields.contains_key(field) {
            report.value(path, format!("the canned output lacks `{field}`"), format!("add `{field}:`"));
        }
    }
    if fields.values().all(constant) {
        let Ok(validator) = schema::validator(schema) else { return };
        for error in validator.iter_errors(output) {
            if !matches!(error.kind(), jsonschema::error::ValidationErrorKind::Required { .. }) {
                let at = path.pointer(output, error.instance_path().as_str());
                report.value(&at, format!("the output schema does not allow this: {error}"), MEND);
            }
        }
        return;
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (field, value) in fields {
        match properties.and_then(|properties| properties.get(field)) {
            None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                let known: Vec<&str> =
                    properties.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
                let mend = nearest::mend(field, "the fields of the output", &known);
                report.key(&path.key(field), format!("the output schema has no `{field}`"), mend);
            }
            // A part that refers to another part of the schema cannot be checked by itself.
            Some(wanted) if constant(value) && !wanted.to_string().contains("$ref") => {
                let error = schema::validator(wanted)
                    .ok()
                    .and_then(|validator| validator.iter_errors(value).next().map(|error| error.to_string()));
                if let Some(error) = error {
                    let message = format!("the output schema does not allow this: {error}");
                    report.value(&path.key(field), message, MEND);
                }
            }
            _ => {}
        }
    }
}

fn constant(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains("{{") && !text.contains("{%"),
        Value::Array(items) => items.iter().all(constant),
        Value::Object(map) => map.values().all(constant),
        _ => true,
    }
}

/// The parts of `with` that the agent's canned output cannot do without.
pub(in crate::config) fn canned_reads(agent: &Agent) -> BTreeSet<String> {
    let Some(canned) = &agent.canned else { return BTreeSet::new() };
    let mut found = BTreeSet::new();
    let mut whole = canned.output.to_string();
    // What does not parse has been reported with the agent.
    let _ = template::paths(&canned.output, &mut found);
    if let Some(when) = &canned.when {
        let _ = template::expression_paths(when, &mut found);
        whole.push_str(when);
    }
    let whole: String = whole.split_whitespace().collect();
    let optional = |path: &str| {
        [format!("{path}isdefined"), format!("{path}isnotdefined"), format!("{path}|default")]
            .iter()
            .any(|guard| whole.contains(guard))
    };
    let needed = found.iter().filter(|path| !optional(path));
    needed.filter_map(|path| path.strip_prefix("with.")?.split('.').next()).map(str::to_owned).collect()
}
