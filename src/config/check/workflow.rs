//! A workflow's file: its triggers, its steps, and what each step may name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::config::check::templates::{Place, Scope, Steps};
use crate::config::check::{Names, agent, graph, outputs, schema};
use crate::config::document::Reporter;
use crate::config::nearest;
use crate::config::node::Path;
use crate::config::workflow::{RawReview, RawStep, RawWorkflow, email_input};
use crate::config::workspace::{Definition, Trigger};
use crate::domain::action::{self, ACTIONS, ActionSpec, Reach};
use crate::domain::duration::Span;
use crate::domain::ids::{AgentName, StepId, WorkflowName};
use crate::domain::retry::Retry;
use crate::domain::template;
use crate::domain::workflow::{ActionStep, AgentStep, ReviewSpec, ReviewStep, Step, StepKind, Version};

/// How long one attempt may take unless the step says otherwise: two tries of a slow model.
const TIMEOUT: Span = Span::secs(120);

const HINT: &str = "a workflow's templates name `input`, `workspace`, `run` and `steps`";

/// Checks a workflow and gives its definition; whether that may be used is for the problems to say.
pub(in crate::config) fn resolve(report: &mut Reporter<'_>, raw: &RawWorkflow, names: &Names) -> Definition {
    let top = Path::top();
    let triggers = triggers(report, raw, names);
    let input = input(report, raw, &triggers);
    let base = BTreeMap::from([("input", input.clone()), ("workspace", names.workspace.clone())]);
    let title = Scope { names: base.clone(), steps: None, hint: "a title names `input` and `workspace`" };
    title.text(report, &Place::Value(&top.key("title")), &raw.title);

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
        let kind = kind(report, &path, step, names, &scope);
        reachable(report, &path, step, &mut dead);
        Step {
            id: StepId(step.id.clone()),
            name: step.name.clone(),
            needs: needs.get(step.id.as_str()).into_iter().flatten().map(|id| StepId::from(*id)).collect(),
            when: step.when.as_ref().and_then(condition_text),
            kind,
            retry: retry(step),
            timeout: step.timeout.unwrap_or(TIMEOUT),
        }
    });
    let steps: Vec<Step> = steps.collect();
    let used = steps.iter().filter_map(|step| match &step.kind {
        StepKind::Agent(step) => Some((step.agent.clone(), names.agents.get(step.agent.as_str())?.clone()?)),
        StepKind::Action(_) | StepKind::Review(_) => None,
    });
    let version = Version {
        workflow: WorkflowName(raw.workflow.clone()),
        title: raw.title.clone(),
        input,
        agents: used.collect(),
        steps,
    };
    Definition { triggers, version }
}

fn triggers(report: &mut Reporter<'_>, raw: &RawWorkflow, names: &Names) -> Vec<Trigger> {
    let mut found = Vec::new();
    for (index, trigger) in raw.on.iter().enumerate() {
        let path = Path::top().key("on").index(index);
        match (&trigger.email, &trigger.webhook) {
            (Some(email), None) => {
                if let Some(known) = names.mailboxes.as_ref().filter(|known| !known.contains(&email.mailbox))
                {
                    let known: Vec<&str> = known.iter().map(String::as_str).collect();
                    let message = format!("there is no mailbox `{}`", email.mailbox);
                    let mend = nearest::mend(&email.mailbox, "the mailboxes of config/settings.yaml", &known);
                    report.value(&path.key("email").key("mailbox"), message, mend);
                }
                found.push(Trigger::Email { mailbox: email.mailbox.clone() });
            }
            (None, Some(webhook)) => {
                super::settings::secret(report, &path.key("webhook").key("secret"), Some(&webhook.secret));
                found.push(Trigger::Webhook { path: webhook.path.clone(), secret: webhook.secret.clone() });
            }
            _ => report.value(
                &path,
                "a trigger is exactly one of `email` and `webhook`",
                "give each its own line, beginning with `-`",
            ),
        }
    }
    found
}

fn input(report: &mut Reporter<'_>, raw: &RawWorkflow, triggers: &[Trigger]) -> Value {
    let path = Path::top().key("input");
    let by_email = triggers.iter().any(|trigger| matches!(trigger, Trigger::Email { .. }));
    let Some(input) = &raw.input else {
        let email_alone = by_email && triggers.iter().all(|trigger| matches!(trigger, Trigger::Email { .. }));
        return if email_alone { email_input() } else { json!({"type": "object"}) };
    };
    if !schema::check(report, &path, input) {
        return json!(true);
    }
    if by_email {
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

/// What each step waits for: the one before it. Reports ids that stand twice.
fn order<'a>(report: &mut Reporter<'_>, raw: &'a RawWorkflow) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut needs = BTreeMap::new();
    let mut previous = None;
    for (index, step) in raw.steps.iter().enumerate() {
        let id = step.id.as_str();
        if needs.contains_key(id) {
            let path = Path::top().key("steps").index(index).key("id");
            report.value(&path, format!("there are two steps `{id}`"), "give this one another id");
            continue;
        }
        needs.insert(id, previous.into_iter().collect());
        previous = Some(id);
    }
    needs
}

fn kind(report: &mut Reporter<'_>, path: &Path, step: &RawStep, names: &Names, scope: &Scope) -> StepKind {
    let with = step.with.clone().unwrap_or_else(|| json!({}));
    scope.templates(report, &path.key("with"), &with);
    if let Some(Value::String(when)) = &step.when {
        scope.expression(report, &Place::Value(&path.key("when")), when);
    }
    let review = step.review.clone();
    match (&step.agent, &step.action, review) {
        (Some(wanted), None, review) => {
            if review.is_some() {
                let mend = "ask in a step of its own, or review the action that uses this output";
                report.key(&path.key("review"), "an agent's step has no `review`", mend);
            }
            not_here(report, path, "dedupe", step.dedupe.is_some(), "an agent's step");
            agent_step(report, path, wanted, &with, names);
            StepKind::Agent(AgentStep { agent: AgentName(wanted.clone()), with })
        }
        (None, Some(wanted), review) => {
            let spec = action_step(report, path, wanted, &with);
            dedupe(report, path, step, scope);
            if let Some(review) = &review {
                shows(report, &path.key("review"), review, scope);
                review_of_action(report, &path.key("review"), review, spec);
            }
            StepKind::Action(ActionStep {
                action: wanted.clone(),
                with,
                dedupe: step.dedupe.clone(),
                review: review.map(|review| ReviewSpec { artifacts: review.artifacts, due: review.due }),
            })
        }
        (None, None, Some(review)) => {
            not_here(report, path, "with", step.with.is_some(), "a step that asks the owner");
            not_here(report, path, "dedupe", step.dedupe.is_some(), "a step that asks the owner");
            question(report, &path.key("review"), review, scope)
        }
        (both, _, review) => {
            let message = match both {
                Some(_) => "a step has either an `agent` or an `action`, not both",
                None => "this step does nothing",
            };
            report.value(path, message, "give it exactly one of `agent`, `action` and `review`");
            let shows = ReviewSpec { artifacts: review.map(|r| r.artifacts).unwrap_or_default(), due: None };
            StepKind::Review(ReviewStep { ask: String::new(), form: None, shows })
        }
    }
}

fn not_here(report: &mut Reporter<'_>, path: &Path, field: &str, there: bool, what: &str) {
    if there {
        report.key(&path.key(field), format!("{what} has no `{field}`"), "take it away");
    }
}

fn agent_step(report: &mut Reporter<'_>, path: &Path, wanted: &str, with: &Value, names: &Names) {
    match names.agents.get(wanted) {
        None => {
            let known: Vec<&str> = names.agents.keys().map(String::as_str).collect();
            let mend = nearest::mend(wanted, "the agents in agents/", &known);
            report.value(&path.key("agent"), format!("there is no agent `{wanted}`"), mend);
        }
        Some(None) => {}
        Some(Some(agent)) => {
            for field in agent::canned_reads(agent) {
                if with.get(&field).is_none() {
                    let message =
                        format!("the canned output of `{wanted}` reads `with.{field}`, which is not given");
                    report.value(&path.key("with"), message, format!("add `{field}:` to this step's `with`"));
                }
            }
        }
    }
}

fn action_step(
    report: &mut Reporter<'_>,
    path: &Path,
    wanted: &str,
    with: &Value,
) -> Option<&'static ActionSpec> {
    let Some(spec) = action::spec(wanted) else {
        let known: Vec<&str> = ACTIONS.iter().map(|spec| spec.name).collect();
        let mend = nearest::mend(wanted, "the actions", &known);
        report.value(&path.key("action"), format!("there is no action `{wanted}`"), mend);
        return None;
    };
    let known: Vec<&str> = spec.required.iter().chain(spec.optional).copied().collect();
    let given = with.as_object();
    for (parameter, _) in given.into_iter().flatten() {
        if !known.contains(&parameter.as_str()) {
            let mend = nearest::mend(parameter, &format!("the parameters of `{wanted}`"), &known);
            let message = format!("`{wanted}` has no parameter `{parameter}`");
            report.key(&path.key("with").key(parameter), message, mend);
        }
    }
    for parameter in spec.required {
        if !given.is_some_and(|given| given.contains_key(*parameter)) {
            let at = if given.is_some_and(|given| !given.is_empty()) { "with" } else { "action" };
            let message = format!("`{wanted}` needs the parameter `{parameter}`");
            report.value(&path.key(at), message, format!("add `{parameter}:` under `with`"));
        }
    }
    Some(spec)
}

fn dedupe(report: &mut Reporter<'_>, path: &Path, step: &RawStep, scope: &Scope) {
    if let Some(dedupe) = &step.dedupe {
        scope.text(report, &Place::Value(&path.key("dedupe")), dedupe);
    }
}

fn review_of_action(report: &mut Reporter<'_>, path: &Path, review: &RawReview, spec: Option<&ActionSpec>) {
    for (field, there) in [("ask", review.ask.is_some()), ("form", review.form.is_some())] {
        if there {
            let mend = "the question is whether to do it; to ask something else, write a step of its own";
            report.key(&path.key(field), format!("the review of an action has no `{field}`"), mend);
        }
    }
    if let Some(spec) = spec.filter(|spec| spec.reach <= Reach::Read) {
        let message = format!("`{}` changes nothing: there is nothing to review", spec.name);
        report.key(path, message, "take `review` away");
    }
}

fn question(report: &mut Reporter<'_>, path: &Path, review: RawReview, scope: &Scope) -> StepKind {
    match &review.ask {
        Some(ask) => {
            scope.text(report, &Place::Value(&path.key("ask")), ask);
        }
        None => {
            report.value(path, "this review asks nothing", "add `ask:` with the question, or an `action`")
        }
    }
    if let Some(form) = &review.form {
        schema::check(report, &path.key("form"), form);
    }
    shows(report, path, &review, scope);
    StepKind::Review(ReviewStep {
        ask: review.ask.unwrap_or_default(),
        form: review.form,
        shows: ReviewSpec { artifacts: review.artifacts, due: review.due },
    })
}

fn shows(report: &mut Reporter<'_>, path: &Path, review: &RawReview, scope: &Scope) {
    for (index, artifact) in review.artifacts.iter().enumerate() {
        let at = path.key("artifacts").index(index);
        if artifact.contains(|c: char| c.is_whitespace() || c == '{') {
            report.value(&at, "an artifact is a path, not a template", "write it as in `input.body`");
        } else if let Err((message, mend)) = scope.resolve(artifact) {
            report.value(&at, message, mend);
        }
    }
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
    if let Some(with) = &step.with {
        let _ = template::paths(with, &mut named);
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
