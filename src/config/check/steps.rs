//! What each step does, held against what there is.

use serde_json::{Value, json};

use crate::config::check::templates::{Place, Scope};
use crate::config::check::{Names, agent, channels, money, schema};
use crate::config::document::Reporter;
use crate::config::nearest;
use crate::config::node::Path;
use crate::config::workflow::{RawReview, RawStep, RawWait};
use crate::domain::action::{self, ACTIONS, ActionSpec, Reach, STAGE_ACTION};
use crate::domain::ids::{AgentName, WorkflowName};
use crate::domain::workflow::{
    ActionStep, AgentStep, BATCH_WAIT, ChildStep, Each, Mode, OnFailure, ReviewSpec, ReviewStep, StepKind,
    Undo, WaitStep,
};

/// How many items of a list are under way at once unless the step says otherwise: what a mail server or
/// a model provider takes without complaint.
const PARALLEL: u32 = 4;

/// What the templates of a step may name: of one that works through a list also the item.
pub(super) fn inside(scope: &Scope, step: &RawStep) -> Scope {
    let mut scope = scope.clone();
    if step.each.is_some() {
        scope.names.insert("item", json!(true));
        scope.names.insert("index", json!({"type": "integer"}));
    }
    scope
}

/// The list that a step works through.
pub(super) fn each(report: &mut Reporter<'_>, path: &Path, step: &RawStep, scope: &Scope) -> Option<Each> {
    let raw = step.each.as_ref()?;
    let at = path.key("each").key("of");
    scope.text(report, &Place::Value(&at), &raw.of);
    if !raw.of.trim().starts_with("{{") || !raw.of.trim().ends_with("}}") {
        let mend = "write it as in `of: \"{{ steps.find.output.hits }}\"`";
        report.value(&at, "this is a text, not a list", mend);
    }
    Some(Each {
        of: raw.of.clone(),
        parallel: raw.parallel.unwrap_or(PARALLEL),
        on_failure: raw.on_failure.unwrap_or(OnFailure::Stop),
    })
}

/// What takes a step back.
pub(super) fn undo(
    report: &mut Reporter<'_>,
    path: &Path,
    step: &RawStep,
    scope: &Scope,
    output: Option<&Value>,
) -> Option<Undo> {
    let raw = step.undo.as_ref()?;
    let path = path.key("undo");
    let does =
        step.action.as_deref().and_then(action::spec).is_some_and(|spec| spec.reach >= Reach::Internal);
    if !does && step.workflow.is_none() {
        report.key(&path, "this step does nothing that could be undone", "take `undo` away");
    }
    let mut scope = inside(scope, step);
    let output = output.and_then(|output| output.pointer("/properties/output")).cloned();
    scope
        .names
        .insert("output", if step.each.is_some() { json!(true) } else { output.unwrap_or(json!(true)) });
    let with = raw.with.clone().unwrap_or_else(|| json!("{{ output }}"));
    match &raw.with {
        Some(with) => {
            scope.templates(report, &path.key("with"), with);
            action_step(report, &path, &raw.action, with);
        }
        None if action::spec(&raw.action).is_none() || raw.action == STAGE_ACTION => {
            action_step(report, &path, &raw.action, &json!({}));
        }
        None => {}
    }
    Some(Undo { action: raw.action.clone(), with })
}

/// Steps that wait, for something or for another run.
fn waits_or_opens(
    report: &mut Reporter<'_>,
    path: &Path,
    step: &RawStep,
    names: &Names,
    scope: &Scope,
) -> Option<StepKind> {
    if step.wait.is_none() && step.workflow.is_none() {
        return None;
    }
    let what = if step.wait.is_some() { "a step that waits" } else { "a step that opens a workflow" };
    let others = [
        ("agent", step.agent.is_some()),
        ("action", step.action.is_some()),
        ("review", step.review.is_some()),
        ("dedupe", step.dedupe.is_some()),
        ("delay", step.delay.is_some()),
        ("workflow", step.wait.is_some() && step.workflow.is_some()),
        ("with", step.wait.is_some() && step.with.is_some()),
        ("budget", step.wait.is_some() && step.budget.is_some()),
    ];
    for (field, there) in others {
        not_here(report, path, field, there, what);
    }
    if let Some(wait) = &step.wait {
        return Some(StepKind::Wait(waits(report, &path.key("wait"), wait, scope)));
    }
    let budget = step.budget.as_ref();
    if let Some(budget) = budget {
        money::amount(report, &path.key("budget"), budget, names.currency.as_deref());
    }
    Some(StepKind::Workflow(ChildStep {
        workflow: WorkflowName(step.workflow.clone().unwrap_or_default()),
        with: step.with.clone().unwrap_or_else(|| json!({})),
        budget_micros: budget.map(|budget| budget.micros),
    }))
}

fn waits(report: &mut Reporter<'_>, path: &Path, raw: &RawWait, scope: &Scope) -> WaitStep {
    for (field, text) in [("match", &raw.matches), ("until", &raw.until)] {
        if let Some(text) = text {
            scope.text(report, &Place::Value(&path.key(field)), text);
        }
    }
    let example = "write `event:` with `match:`, or `for:`, or `until:`";
    match (&raw.event, raw.span, &raw.until) {
        (None, None, None) => report.value(path, "it waits for nothing", example),
        (Some(_), Some(_), _) => {
            report.key(&path.key("for"), "an event is waited for with `timeout`", "write `timeout:` instead")
        }
        (None, Some(_), Some(_)) => report.value(path, "it waits for two moments", example),
        _ => {}
    }
    match (&raw.event, &raw.matches) {
        (Some(_), None) => report.value(
            &path.key("event"),
            "nothing says which of these events",
            "add `match:`, such as `\"{{ input.thread }}\"`",
        ),
        (None, Some(_)) => report.key(&path.key("match"), "there is no `event` to match", example),
        _ => {}
    }
    match (&raw.event, raw.timeout, &raw.until) {
        (None, Some(_), _) => {
            report.key(&path.key("timeout"), "only an event can time out", "write `for:` instead")
        }
        (Some(_), Some(_), Some(_)) => {
            report.key(&path.key("timeout"), "it has a last moment already", "take `timeout` or `until` away")
        }
        _ => {}
    }
    WaitStep {
        event: raw.event.clone(),
        matches: raw.matches.clone(),
        span: raw.span.or(raw.timeout),
        until: raw.until.clone(),
    }
}

/// What a step does.
pub(super) fn kind(
    report: &mut Reporter<'_>,
    path: &Path,
    step: &RawStep,
    names: &Names,
    scope: &Scope,
) -> StepKind {
    let with = step.with.clone().unwrap_or_else(|| json!({}));
    scope.templates(report, &path.key("with"), &with);
    if let Some(Value::String(when)) = &step.when {
        scope.expression(report, &Place::Value(&path.key("when")), when);
    }
    let review = step.review.clone();
    if step.agent.is_none() {
        not_here(report, path, "mode", step.mode.is_some(), "a step without an agent");
    }
    if let Some(waits) = waits_or_opens(report, path, step, names, scope) {
        return waits;
    }
    not_here(report, path, "budget", step.budget.is_some(), "a step that opens no workflow");
    match (&step.agent, &step.action, review) {
        (Some(wanted), None, review) => {
            if review.is_some() {
                let mend = "ask in a step of its own, or review the action that uses this output";
                report.key(&path.key("review"), "an agent's step has no `review`", mend);
            }
            not_here(report, path, "dedupe", step.dedupe.is_some(), "an agent's step");
            not_here(report, path, "delay", step.delay.is_some(), "an agent's step");
            agent_step(report, path, wanted, &with, names);
            let mode = step.mode.unwrap_or_default();
            if mode == Mode::Batch {
                may_wait(report, path, step, wanted, names);
            }
            StepKind::Agent(AgentStep { agent: AgentName(wanted.clone()), with, mode })
        }
        (None, Some(wanted), review) => {
            let spec = action_step(report, path, wanted, &with);
            dedupe(report, path, step, scope);
            if step.delay.is_some() {
                channels::held(report, &path.key("delay"), wanted);
            }
            if let Some(review) = &review {
                shows(report, &path.key("review"), review, scope);
                review_of_action(report, &path.key("review"), review, spec);
            }
            StepKind::Action(ActionStep {
                action: wanted.clone(),
                with,
                dedupe: step.dedupe.clone(),
                review: review.map(|review| ReviewSpec { artifacts: review.artifacts, due: review.due }),
                delay: step.delay,
            })
        }
        (None, None, Some(review)) => {
            not_here(report, path, "with", step.with.is_some(), "a step that asks the owner");
            not_here(report, path, "dedupe", step.dedupe.is_some(), "a step that asks the owner");
            not_here(report, path, "delay", step.delay.is_some(), "a step that asks the owner");
            question(report, &path.key("review"), review, scope)
        }
        (both, _, review) => {
            let message = match both {
                Some(_) => "a step has either an `agent` or an `action`, not both",
                None => "this step does nothing",
            };
            report.value(
                path,
                message,
                "give it exactly one of `agent`, `action`, `wait`, `workflow` and `review`",
            );
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

/// What goes into a batch is one question with one answer, a day later at worst.
fn may_wait(report: &mut Reporter<'_>, path: &Path, step: &RawStep, wanted: &str, names: &Names) {
    if let Some(Some(agent)) = names.agents.get(wanted) {
        let several = [("tools", !agent.tools.is_empty()), ("votes", agent.votes.is_some())];
        for (field, _) in several.into_iter().filter(|(_, there)| *there) {
            let message =
                format!("the agent `{wanted}` has `{field}`: it is asked more than once, and cannot wait");
            report.value(&path.key("mode"), message, "take `mode: batch` away, or use an agent without");
        }
    }
    if let Some(deadline) = step.deadline.filter(|deadline| deadline.0 <= BATCH_WAIT.0) {
        let message = format!("its time is up after {deadline}, and a batch may take {BATCH_WAIT}");
        let mend = "give it longer, such as `deadline: 2d`, or take `mode: batch` away";
        report.value(&path.key("deadline"), message, mend);
    }
}

fn action_step(
    report: &mut Reporter<'_>,
    path: &Path,
    wanted: &str,
    with: &Value,
) -> Option<&'static ActionSpec> {
    // Steward's own action is as good as not there: nobody's file may say how far it is trusted.
    let Some(spec) = action::spec(wanted).filter(|spec| spec.name != STAGE_ACTION) else {
        let known: Vec<&str> =
            ACTIONS.iter().map(|spec| spec.name).filter(|name| *name != STAGE_ACTION).collect();
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
