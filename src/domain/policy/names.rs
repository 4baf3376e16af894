//! What the owner's rules may ask about, and what each name means. The check of `config/policy.yaml` and the
//! documentation of `config/schemas/policy.json` are made from the same table.

use serde_json::{Map, Value, json};

use crate::domain::policy::view::{Answering, View};
use crate::domain::quiet::Day;

/// A name, with the JSON Schema of what it gives and one line about it.
pub struct Name {
    /// The name.
    pub name: &'static str,
    /// Its type as JSON Schema has it: `string`, `number`, `boolean`, `array`, `object`.
    pub kind: &'static str,
    /// What it means.
    pub about: &'static str,
}

const fn name(name: &'static str, kind: &'static str, about: &'static str) -> Name {
    Name { name, kind, about }
}

/// What a condition may name.
pub const RULE_NAMES: [Name; 37] = [
    name("action", "string", "the action, such as `email.send`"),
    name("params", "object", "its parameters, as they would be sent"),
    name("labels", "object", "where each parameter came from: `owner`, `system`, `model`, `untrusted`"),
    name("label", "string", "the least trusted of `labels`"),
    name("confidence", "number", "how sure the makers of its content were, 0 to 1; 1 when none of them said"),
    name("workflow", "string", "the workflow that proposes it"),
    name("stage", "string", "how far its version is trusted: `supervised`, `live`, `retired`"),
    name(
        "trigger",
        "string",
        "what opened the run: `email`, `webhook`, `schedule`, `api`, `cli`, `run`, `rerun`",
    ),
    name("review_asked", "boolean", "whether the step has `review:`"),
    name("reversible", "boolean", "whether it can be taken back"),
    name("amount", "number", "the greatest amount of money it moves or speaks of; 0 when none"),
    name("currency", "string", "the currency of `amount`; empty when none is told"),
    name("amounts", "array", "all of them: `amount`, `currency`, `param`"),
    name("tags", "array", "what it touches: see `tags:`, and what code knows"),
    name("risk", "string", "`low`, `medium` or `high`: the gravest of its tags"),
    name(
        "targets",
        "array",
        "whom it reaches: `target`, `domain`, `param`, `label`, `known`, and of each the counts below",
    ),
    name("recipients", "number", "how many it reaches"),
    name("known", "boolean", "whether you know all of them: `known:`, or a `contact` record of yours"),
    name(
        "chosen_by_others",
        "boolean",
        "whether a model or something from outside chose one you do not know",
    ),
    name("answers_sender", "boolean", "whether it goes to the sender of the mail alone"),
    name("authenticated", "boolean", "whether the sender of the mail was verified by DMARC"),
    name("suspicious", "array", "what looks like an attempt to steer or deceive, a sentence each"),
    name("first_contact", "boolean", "whether somebody is written to who never was before"),
    name("new_domain", "boolean", "whether a domain or host is reached that never was before"),
    name(
        "sent_hour",
        "number",
        "effects of this action to one target in the last hour, the most of any; this one not counted",
    ),
    name("sent_day", "number", "the same in the last 24 hours"),
    name("action_day", "number", "effects of this action in the last 24 hours, whomever they reached"),
    name("spent_today", "number", "what all model calls cost today, in your currency"),
    name("spent_workflow_today", "number", "what those of this workflow cost today"),
    name("hour", "number", "the hour of your day, 0 to 23"),
    name("minute", "number", "the minute of it"),
    name("weekday", "string", "`mon` to `sun`"),
    name("date", "string", "your date, as in `2026-11-30`"),
    name("weekend", "boolean", "whether it is Saturday or Sunday"),
    name("quiet", "boolean", "whether these are your quiet hours: see `quiet:`"),
    name("external", "boolean", "whether it leaves the house"),
    name("trusted", "array", "the paths that the workflow trusts and this action is made from"),
];

/// Names that a tag's condition cannot use: they follow from the tags.
pub const AFTER_TAGS: [&str; 3] = ["tags", "risk", "reversible"];

/// Names that need a look into the database. Of an action that nobody looked for they are undefined, and a
/// rule that uses them asks the owner.
pub const FROM_HISTORY: [&str; 8] = [
    "targets",
    "first_contact",
    "new_domain",
    "sent_hour",
    "sent_day",
    "action_day",
    "spent_today",
    "spent_workflow_today",
];

/// The names for whoever writes a rule.
#[must_use]
pub fn told() -> String {
    let lines = RULE_NAMES.iter().map(|one| format!("\n- `{}` ({}): {}", one.name, one.kind, one.about));
    format!("A condition; without it the rule always holds. It may name:{}", lines.collect::<String>())
}

/// The values of all names but those that follow from the tags.
pub(super) fn context(view: &View<'_>) -> Value {
    let (case, facts) = (&view.case, view.case.facts);
    let most = view.amounts.iter().max_by_key(|amount| amount.money.micros);
    let label = case.labels.values().copied().max().unwrap_or_default();
    let day = Day::of(facts.local);
    let verified = facts.sender.as_ref().is_some_and(|sender| sender.is_verified());
    let mut names = json!({
        "action": case.action.action,
        "params": case.action.params,
        "labels": case.labels,
        "label": label,
        "confidence": facts.confidence.unwrap_or(1.0),
        "workflow": facts.workflow,
        "stage": facts.stage,
        "trigger": facts.trigger,
        "review_asked": facts.review_asked,
        "amount": most.map_or(0.0, |amount| units(amount.money.micros)),
        "currency": most.map_or("", |amount| &amount.money.currency),
        "amounts": view.amounts.iter().map(|amount| json!({
            "amount": units(amount.money.micros), "currency": amount.money.currency, "param": amount.param,
        })).collect::<Vec<_>>(),
        "recipients": view.targets.len(),
        "known": view.targets.iter().all(|target| view.knows(target)),
        "chosen_by_others": view.targets.iter().any(|target| view.chosen_by_others(target)),
        "answers_sender": matches!(view.answering, Answering::Sender(..)),
        "authenticated": verified,
        "suspicious": facts.suspicious,
        "hour": facts.local.hour(),
        "minute": facts.local.minute(),
        "weekday": day.as_str(),
        "date": facts.local.date().to_string(),
        "weekend": matches!(day, Day::Sat | Day::Sun),
        "quiet": view.policy.quiet.as_ref().is_some_and(|quiet| quiet.at(facts.local)),
        "external": case.spec.reach == crate::domain::action::Reach::External,
        "trusted": facts.trusted,
    });
    if let Value::Object(names) = &mut names {
        names.extend(from_history(view));
    }
    names
}

/// What the database knew; nothing when nobody asked it, or asked about other targets.
fn from_history(view: &View<'_>) -> Map<String, Value> {
    let mut names = Map::new();
    let Some(history) = &view.case.facts.history else { return names };
    let (mut targets, mut hour, mut day) = (Vec::new(), 0, 0);
    names.insert("action_day".into(), history.action_day.into());
    names.insert("spent_today".into(), units(history.spent_today).into());
    names.insert("spent_workflow_today".into(), units(history.spent_workflow_today).into());
    for target in &view.targets {
        let Some(seen) = view.seen(target) else { return names };
        (hour, day) = (hour.max(seen.hour), day.max(seen.day));
        targets.push(json!({
            "target": target.key, "domain": target.domain, "param": target.param, "label": target.label,
            "known": view.knows(target), "sent_hour": seen.hour, "sent_day": seen.day, "before": seen.before,
            "domain_before": seen.domain_before,
        }));
    }
    names.insert("targets".into(), targets.into());
    names.insert("sent_hour".into(), hour.into());
    names.insert("sent_day".into(), day.into());
    names.insert("first_contact".into(), json!(view.is_first_contact()));
    names.insert("new_domain".into(), json!(view.is_new_domain()));
    names
}

#[expect(
    clippy::cast_precision_loss,
    reason = "amounts beyond 2^53 millionths are very much money either way"
)]
fn units(micros: i64) -> f64 {
    micros as f64 / 1e6
}
