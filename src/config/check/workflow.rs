//! A workflow's file: its triggers, its steps, and what each step may name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::config::check::templates::{Place, Scope, Steps};
use crate::config::check::{Names, graph, money, outputs, schema, steps, triggers, trust};
use crate::config::document::Reporter;
use crate::config::nearest;
use crate::config::node::Path;
use crate::config::workflow::{RawConcurrency, RawStep, RawWorkflow, email_input};
use crate::config::workspace::Definition;
use crate::domain::admission::{Concurrency, Flow};
use crate::domain::duration::Span;
use crate::domain::ids::{StepId, WorkflowName};
use crate::domain::retry::Retry;
use crate::domain::template;
use crate::domain::workflow::{Step, StepKind, Version};

/// How long one attempt may take unless the step says otherwise: two tries of a slow model.
const TIMEOUT: Span = Span::secs(120);

const HINT: &str = "a workflow's templates name `input`, `workspace`, `run` and `steps`";

/// Checks a workflow and gives its definition; whether that may be used is for the problems to say.
pub(in crate::config) fn resolve(report: &mut Reporter<'_>, raw: &RawWorkflow, names: &Names) -> Definition {
    let top = Path::top();
    let input = input(report, raw);
    let triggers = triggers::resolve(report, raw, names, &input);
    let base = BTreeMap::from([("input", input.clone()), ("workspace", names.workspace.clone())]);
    let title = Scope { names: base.clone(), steps: None, hint: "a title names `input` and `workspace`" };
    title.text(report, &Place::Value(&top.key("title")), &raw.title);
    if let Some(key) = raw.concurrency.as_ref().and_then(|concurrency| concurrency.key.as_ref()) {
        let place = top.key("concurrency").key("key");
        let hint = "a concurrency key names `input` and `workspace`";
        Scope { hint, ..title }.text(report, &Place::Value(&place), key);
    }

    let needs = order(report, raw);
    let before = match graph::ancestors(&needs) {
        Ok(before) => before,
        Err(cycle) => {
            let way = cycle.iter().chain(cycle.first()).map(|step| format!("`{step}`"));
            let message = format!("these steps wait for each other: {}", way.collect::<Vec<_>>().join(" → "));
            report.value(&top.key("steps"), message, "take one of the needs away");
            BTreeMap::new()
        }
    };
    let outputs: BTreeMap<&str, Value> =
        raw.steps.iter().map(|step| (step.id.as_str(), outputs::step(step, names))).collect();
    let all: Vec<String> = raw.steps.iter().map(|step| step.id.clone()).collect();
    let mut dead = BTreeSet::new();
    let steps = raw.steps.iter().enumerate().map(|(index, step)| {
        let path = top.key("steps").index(index);
        let known = before.get(step.id.as_str()).into_iter().flatten();
        let known = known.filter_map(|id| Some(((*id).to_owned(), outputs.get(id)?.clone())));
        let mut names_here = base.clone();
        names_here.insert("run", outputs::run());
        let scope = Scope {
            names: names_here,
            steps: Some(Steps { before: known.collect(), all: all.clone(), here: step.id.clone() }),
            hint: HINT,
        };
        let kind = steps::kind(report, &path, step, names, &steps::inside(&scope, step));
        let each = steps::each(report, &path, step, &scope);
        let undo = steps::undo(report, &path, step, &scope, outputs.get(step.id.as_str()));
        reachable(report, &path, step, &mut dead);
        Step {
            id: StepId(step.id.clone()),
            name: step.name.clone(),
            needs: needs.get(step.id.as_str()).into_iter().flatten().map(|id| StepId::from(*id)).collect(),
            when: step.when.as_ref().and_then(condition_text),
            kind,
            retry: retry(step),
            timeout: step.timeout.unwrap_or(TIMEOUT),
            deadline: step.deadline,
            each,
            undo,
        }
    });
    let steps: Vec<Step> = steps.collect();
    let used = steps.iter().filter_map(|step| match &step.kind {
        StepKind::Agent(step) => Some((step.agent.clone(), names.agents.get(step.agent.as_str())?.clone()?)),
        StepKind::Action(_) | StepKind::Review(_) | StepKind::Wait(_) | StepKind::Workflow(_) => None,
    });
    let used: BTreeMap<_, _> = used.collect();
    if let Some(output) = &raw.output {
        let mut names_there = base.clone();
        names_there.insert("run", outputs::run());
        let before = outputs.iter().map(|(id, output)| ((*id).to_owned(), output.clone())).collect();
        let steps = Steps { before, all: all.clone(), here: String::new() };
        let scope = Scope { names: names_there, steps: Some(steps), hint: HINT };
        scope.templates(report, &top.key("output"), output);
    }
    let version = Version {
        workflow: WorkflowName(raw.workflow.clone()),
        title: raw.title.clone(),
        input,
        agents: used,
        steps,
        deadline: raw.deadline,
        output: raw.output.clone(),
        flow: flow(raw),
        sample: raw.sample,
        budget: money::budget(report, raw.budget.as_ref(), names.currency.as_deref()),
        trust: trust::resolve(report, raw, &base, &outputs),
    };
    super::settings::retention(report, raw.retention);
    Definition { triggers, version, retention: raw.retention }
}

fn flow(raw: &RawWorkflow) -> Flow {
    let limited = |raw: &RawConcurrency| Concurrency { key: raw.key.clone(), limit: raw.limit };
    Flow { concurrency: raw.concurrency.as_ref().map(limited), priority: raw.priority.unwrap_or_default() }
}

/// The schema of the input, and what a mail lacks for it.
fn input(report: &mut Reporter<'_>, raw: &RawWorkflow) -> Value {
    let path = Path::top().key("input");
    let Some(input) = &raw.input else { return triggers::input(raw) };
    if !schema::check(report, &path, input) {
        return json!(true);
    }
    // Mails that are collected come as `items`; what one of them is, the schema of those says.
    if raw.on.iter().filter_map(|trigger| trigger.email.as_ref()).any(|email| email.batch.is_none()) {
        let email = email_input();
        let fields = email.pointer("/properties").and_then(Value::as_object);
        let known: Vec<&str> = fields.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        let required = input.get("required").and_then(Value::as_array).into_iter().flatten();
        for (index, field) in required.enumerate() {
            let field = field.as_str().unwrap_or_default();
            if !known.contains(&field) {
                let mend = nearest::mend(field, "the fields of an email", &known);
                let at = path.key("required").index(index);
                report.value(&at, format!("an email has no `{field}`, so it could never open a run"), mend);
            }
        }
        let declared = input.get("properties").and_then(Value::as_object);
        let missing = known.iter().find(|field| !declared.is_some_and(|map| map.contains_key(**field)));
        if let (Some(Value::Bool(false)), Some(field)) = (input.get("additionalProperties"), missing) {
            let message = format!("an email has `{field}`, which this closed schema refuses");
            report.value(
                &path.key("additionalProperties"),
                message,
                "take `additionalProperties: false` away",
            );
        }
    }
    input.clone()
}

/// What each step waits for: what its `needs` name, or else the one before it. Reports ids that stand
/// twice, and needs that name no step.
fn order<'a>(report: &mut Reporter<'_>, raw: &'a RawWorkflow) -> BTreeMap<&'a str, Vec<&'a str>> {
    let all: Vec<&str> = raw.steps.iter().map(|step| step.id.as_str()).collect();
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut previous = None;
    for (index, step) in raw.steps.iter().enumerate() {
        let id = step.id.as_str();
        let path = Path::top().key("steps").index(index);
        if needs.contains_key(id) {
            report.value(&path.key("id"), format!("there are two steps `{id}`"), "give this one another id");
            continue;
        }
        let wanted = match &step.needs {
            Some(wanted) => wanted.iter().map(String::as_str).collect(),
            None => previous.into_iter().collect::<Vec<_>>(),
        };
        for (at, need) in wanted.iter().enumerate().filter(|(_, need)| !all.contains(need)) {
            let mend = nearest::mend(need, "the steps of this workflow", &all);
            report.value(&path.key("needs").index(at), format!("there is no step `{need}`"), mend);
        }
        needs.insert(id, wanted);
        previous = Some(id);
    }
    needs
}

/// A step that can never run, by its own condition or by what it builds on.
fn reachable(report: &mut Reporter<'_>, path: &Path, step: &RawStep, dead: &mut BTreeSet<String>) {
    let mut named = BTreeSet::new();
    let when = step.when.as_ref().and_then(condition_text);
    let parsed = when.as_deref().map(|when| template::expression_paths(when, &mut named));
    if let (Some(when), Some(Ok(()))) = (&when, parsed)
        && named.is_empty()
        && template::Scope::new(&json!({}), |_| Default::default()).holds(when) == Ok(false)
    {
        let message = format!("`{}` can never run: its condition is always false", step.id);
        report.value(&path.key("when"), message, "mend the condition, or take the step away");
        dead.insert(step.id.clone());
        return;
    }
    let each = step.each.iter().map(|each| Value::String(each.of.clone()));
    for with in step.with.iter().cloned().chain(each) {
        let _ = template::paths(&with, &mut named);
    }
    if let Some(source) =
        named.iter().filter_map(|path| template::step_of(path)).find(|id| dead.contains(*id))
    {
        let message = format!("`{}` can never run: it builds on `{source}`, which never does", step.id);
        report.value(&path.key("id"), message, format!("mend `{source}`, or take this step away too"));
        dead.insert(step.id.clone());
    }
}

/// A condition as text; YAML reads a bare `false` as a boolean.
pub(super) fn condition_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn retry(step: &RawStep) -> Retry {
    let default = Retry::default();
    match &step.retry {
        None => default,
        Some(raw) => Retry {
            attempts: raw.attempts.unwrap_or(default.attempts),
            backoff: raw.backoff.unwrap_or(default.backoff),
            base: raw.base.unwrap_or(default.base),
            max: raw.max.unwrap_or(default.max),
        },
    }
}
