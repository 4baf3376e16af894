//! What opens runs by itself: whether mailboxes and zones exist, patterns can be, keys can be filled in.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::config::check::Names;
use crate::config::check::settings::secret;
use crate::config::check::templates::{Place, Scope};
use crate::config::document::Reporter;
use crate::config::inputs::{batch_input, email_input, schedule_names};
use crate::config::nearest;
use crate::config::node::Path;
use crate::config::workflow::{RawBatch, RawDebounce, RawSchedule, RawTrigger, RawWorkflow};
use crate::config::workspace::Trigger;
use crate::domain::duration::Span;
use crate::domain::gather::{Gather, LONGEST_WAIT};
use crate::domain::schedule::{BadWhen, Missed, Overlap, SHORTEST_INTERVAL, Schedule, Timetable, When};

/// How much longer than its quiet time a debounced input waits at most, unless the file says.
const AT_MOST_FACTOR: u32 = 12;

const CRON_HOW: &str = "write minute, hour, day of the month, month and weekday, such as `0 9 * * mon-fri`";
const MOMENT_HOW: &str =
    "write a date and a local time, such as `2026-12-24T09:00`; the zone stands in `zone`";

/// The input of a workflow that declares none: an email where nothing else opens it.
pub(in crate::config) fn input(raw: &RawWorkflow) -> Value {
    let emails = || raw.on.iter().filter_map(|trigger| trigger.email.as_ref());
    let alone = !raw.on.is_empty() && emails().count() == raw.on.len();
    match (alone, emails().all(|email| email.batch.is_some()), emails().any(|email| email.batch.is_some())) {
        (true, true, _) => batch_input(&email_input()),
        (true, _, false) => email_input(),
        _ => json!({"type": "object"}),
    }
}

/// Paths below `/hooks/` that are no workflow's.
const TAKEN: [&str; 2] = ["email", "slack"];

/// Checks a workflow's triggers, whose runs take `input`.
pub(in crate::config) fn resolve(
    report: &mut Reporter<'_>,
    raw: &RawWorkflow,
    names: &Names,
    input: &Value,
) -> Vec<Trigger> {
    let mut found = Vec::new();
    let mut taken = BTreeSet::new();
    for (index, trigger) in raw.on.iter().enumerate() {
        let path = Path::top().key("on").index(index);
        match trigger {
            RawTrigger { email: Some(email), webhook: None, schedule: None } => {
                let path = path.key("email");
                if let Some(known) = names.mailboxes.as_ref().filter(|known| !known.contains(&email.mailbox))
                {
                    let known: Vec<&str> = known.iter().map(String::as_str).collect();
                    let message = format!("there is no mailbox `{}`", email.mailbox);
                    let mend = nearest::mend(&email.mailbox, "the mailboxes of config/settings.yaml", &known);
                    report.value(&path.key("mailbox"), message, mend);
                }
                let waits = (email.debounce.as_ref(), email.batch.as_ref());
                let gather = gather(report, &path, waits, names, &email_input());
                found.push(Trigger::Email { mailbox: email.mailbox.clone(), gather });
            }
            RawTrigger { email: None, webhook: Some(webhook), schedule: None } => {
                let path = path.key("webhook");
                if TAKEN.contains(&webhook.path.as_str()) {
                    let message = format!("`/hooks/{}` is Steward's own", webhook.path);
                    report.value(&path.key("path"), message, "choose another path");
                }
                secret(report, &path.key("secret"), Some(&webhook.secret));
                let waits = (webhook.debounce.as_ref(), webhook.batch.as_ref());
                let item = match &webhook.batch {
                    Some(_) => input.pointer("/properties/items/items").cloned().unwrap_or(json!({})),
                    None => input.clone(),
                };
                let gather = gather(report, &path, waits, names, &item);
                let (path, secret) = (webhook.path.clone(), webhook.secret.clone());
                found.push(Trigger::Webhook { path, secret, gather });
            }
            RawTrigger { email: None, webhook: None, schedule: Some(raw) } => {
                let path = path.key("schedule");
                let Some(schedule) = schedule(report, &path, raw, names, input) else { continue };
                let name = raw.name.clone().unwrap_or_else(|| schedule.when.in_words());
                if !taken.insert(name.clone()) {
                    let message = format!("there are two schedules `{name}`");
                    report.value(&path, message, "give this one a `name:` of its own");
                }
                found.push(Trigger::Schedule { name, schedule });
            }
            _ => report.value(
                &path,
                "a trigger is exactly one of `email`, `webhook` and `schedule`",
                "give each its own line, beginning with `-`",
            ),
        }
    }
    found
}

fn schedule(
    report: &mut Reporter<'_>,
    path: &Path,
    raw: &RawSchedule,
    names: &Names,
    input: &Value,
) -> Option<Schedule> {
    let zone = zone(report, path, raw, names);
    let when = when(report, path, raw)?;
    if let Err(error) = Timetable::new(&when, zone.clone().unwrap_or(TimeZone::UTC)) {
        let (field, mend) = match (&error, &when) {
            (BadWhen::TooShort(_), _) => ("every", format!("write `{SHORTEST_INTERVAL}` or longer")),
            (BadWhen::Pattern(_), _) => ("cron", CRON_HOW.to_owned()),
            (BadWhen::Never(_), When::Cron(_)) => ("cron", "choose a day that its months have".to_owned()),
            (BadWhen::Never(_), _) => ("at", MOMENT_HOW.to_owned()),
        };
        report.value(&path.key(field), error.to_string(), mend);
        return None;
    }
    let (missed, overlap) = (raw.missed.unwrap_or_default(), raw.overlap.unwrap_or_default());
    if (missed, overlap) == (Missed::All, Overlap::Skip) {
        let message = "`overlap: skip` lets the first missed time through and skips the others";
        report.value(&path.key("missed"), message, "write `missed: once`, or `overlap: allow`");
    }
    let with = raw.input.clone().unwrap_or_else(|| json!({}));
    let scope = Scope {
        names: BTreeMap::from([("workspace", names.workspace.clone()), ("schedule", schedule_names())]),
        steps: None,
        hint: "the input of a schedule names `workspace` and `schedule`",
    };
    scope.templates(report, &path.key("input"), &with);
    required(report, path, raw, &with, input);
    let zone = zone.and_then(|zone| zone.iana_name().map(str::to_owned));
    Some(Schedule { when, zone: zone.unwrap_or_else(|| "UTC".into()), missed, overlap, input: with })
}

fn zone(report: &mut Reporter<'_>, path: &Path, raw: &RawSchedule, names: &Names) -> Option<TimeZone> {
    let Some(zone) = &raw.zone else {
        // What is wrong with the workspace's is told there.
        return names.time_zone.as_ref().and_then(|zone| TimeZone::get(zone).ok());
    };
    let found = TimeZone::get(zone).ok();
    if found.is_none() {
        let mend = "write its IANA name, such as `Europe/Oslo`";
        report.value(&path.key("zone"), format!("there is no time zone `{zone}`"), mend);
    }
    found
}

fn when(report: &mut Reporter<'_>, path: &Path, raw: &RawSchedule) -> Option<When> {
    let from = raw.from.as_ref().map(|from| moment(report, &path.key("from"), from));
    if from.is_some() && raw.every.is_none() {
        report.key(&path.key("from"), "`from` is where an interval begins", "add `every:`, or take it away");
    }
    match (&raw.cron, raw.every, &raw.at) {
        (Some(cron), None, None) => Some(When::Cron(cron.clone())),
        (None, Some(span), None) => Some(When::Every { span, from: from.flatten() }),
        (None, None, Some(at)) => moment(report, &path.key("at"), at).map(When::At),
        _ => {
            let message = "a schedule has exactly one of `cron`, `every` and `at`";
            report.value(path, message, "write one of them");
            None
        }
    }
}

/// A date that exists and a time of day. jiff would overlook an offset, and with it what was meant.
fn moment(report: &mut Reporter<'_>, path: &Path, text: &str) -> Option<DateTime> {
    let whole = text.len() >= "2026-12-24T09:00".len()
        && text.bytes().all(|b| b.is_ascii_digit() || b"-:T ".contains(&b));
    let time = text.get(10..).unwrap_or_default();
    match text.parse::<DateTime>() {
        Ok(moment) if whole && !time.contains('-') => Some(moment),
        _ => {
            report.value(path, format!("`{text}` is not a moment of any calendar"), MOMENT_HOW);
            None
        }
    }
}

/// What the workflow's input needs and a schedule does not give could never open a run.
fn required(report: &mut Reporter<'_>, path: &Path, raw: &RawSchedule, with: &Value, input: &Value) {
    let needed = input.get("required").and_then(Value::as_array).into_iter().flatten();
    for field in needed.filter_map(Value::as_str).filter(|field| with.get(field).is_none()) {
        let at = if raw.input.is_some() { path.key("input") } else { path.clone() };
        let message = format!("the workflow's input needs `{field}`, which this schedule does not give");
        report.value(&at, message, format!("add `{field}:` under `input`"));
    }
}

fn gather(
    report: &mut Reporter<'_>,
    path: &Path,
    waits: (Option<&RawDebounce>, Option<&RawBatch>),
    names: &Names,
    item: &Value,
) -> Option<Gather> {
    let scope = Scope {
        names: BTreeMap::from([("input", item.clone()), ("workspace", names.workspace.clone())]),
        steps: None,
        hint: "a key names `input` and `workspace`",
    };
    match waits {
        (None, None) => None,
        (Some(_), Some(_)) => {
            let mend = "keep one of them";
            report.key(&path.key("batch"), "a trigger has either `debounce` or `batch`, not both", mend);
            None
        }
        (Some(debounce), None) => {
            let path = path.key("debounce");
            let RawDebounce { key, quiet, at_most } = debounce.clone();
            let usual = Span(quiet.0.saturating_mul(AT_MOST_FACTOR)).min(LONGEST_WAIT);
            let at_most = at_most.unwrap_or(usual);
            key_template(report, &path, key.as_deref(), &scope);
            wait(report, &path.key("quiet"), quiet);
            wait(report, &path.key("at_most"), at_most);
            if at_most < quiet {
                let message = format!("with `at_most: {at_most}` it is never quiet for {quiet}");
                report.value(&path.key("at_most"), message, "write a longer time than `quiet`");
            }
            Some(Gather::Debounce { key, quiet, at_most })
        }
        (None, Some(batch)) => {
            let path = path.key("batch");
            let RawBatch { key, size, within } = batch.clone();
            key_template(report, &path, key.as_deref(), &scope);
            wait(report, &path.key("within"), within);
            Some(Gather::Batch { key, size, within })
        }
    }
}

fn key_template(report: &mut Reporter<'_>, path: &Path, key: Option<&str>, scope: &Scope) {
    if let Some(key) = key {
        scope.text(report, &Place::Value(&path.key("key")), key);
    }
}

fn wait(report: &mut Reporter<'_>, path: &Path, span: Span) {
    if span.0.is_zero() || span > LONGEST_WAIT {
        let message = format!("{span} is not a time to wait for");
        report.value(path, message, format!("write a time above zero, up to `{LONGEST_WAIT}`"));
    }
}
