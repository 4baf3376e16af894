//! Runs and reviews as text, pure: the same value, width and colour give the same text.

use jiff::Timestamp;
use serde_json::Value;

use crate::api::view::{RunView, StepView, Wait};
use crate::cli::asides;
use crate::cli::ids::short;
use crate::cli::out::{cut, moment, plain};
use crate::domain::duration::told;
use crate::domain::event::Topic;
use crate::domain::money::Money;

/// Lines of a text that are shown of one artifact; the whole is in `--json`.
const MAX_LINES: usize = 30;

/// Colours of the terminal, by what they mean here.
#[derive(Clone, Copy)]
enum Tone {
    Good,
    Bad,
    Asks,
    Quiet,
    Strong,
}

struct Paint(bool);

impl Paint {
    fn on(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Asks => "33",
            Tone::Quiet => "2",
            Tone::Strong => "1",
        };
        if self.0 && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A run as a tree: its steps with status, attempts, durations, cost and model, and what it waits for.
#[must_use]
pub fn render_run(run: &RunView, width: usize, color: bool) -> String {
    let paint = Paint(color);
    let mut lines = vec![paint.on(Tone::Strong, &cut(&run.title, width))];
    lines.push(paint.on(Tone::Quiet, &headline(run)));
    lines.push(paint.on(Tone::Quiet, &format!("run {}", run.id)));
    let name_width =
        run.steps.iter().map(|step| plain(&step.name).chars().count()).max().unwrap_or(0).min(28);
    let does_width =
        run.steps.iter().map(|step| plain(&step.does).chars().count()).max().unwrap_or(0).min(28);
    for (index, step) in run.steps.iter().enumerate() {
        let last = index + 1 == run.steps.len();
        let (branch, below) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        let (glyph, tone) = glyph(&step.status);
        let facts = facts(step, &run.currency);
        let text = format!(
            "{:<name_width$}  {:<does_width$}  {facts}",
            cut(&step.name, name_width),
            cut(&step.does, does_width)
        );
        lines.push(format!(
            "{branch} {} {}",
            paint.on(tone, glyph),
            cut(text.trim_end(), width.saturating_sub(5))
        ));
        if let Some(why) = &step.why {
            let tone = if step.status == "skipped" { Tone::Quiet } else { tone };
            lines.push(format!("{below}   {}", paint.on(tone, &cut(why, width.saturating_sub(5)))));
        }
    }
    if let Some(reason) = &run.reason {
        let (_, tone) = glyph(&run.status);
        lines.push(paint.on(tone, &cut(&format!("{}: {reason}", run.status), width)));
    }
    if let (Some(by), None) = (&run.cancelling, &run.reason) {
        lines.push(paint.on(Tone::Bad, &cut(&format!("being cancelled by {by}"), width)));
    }
    lines.extend(run.waits_for.iter().flat_map(|wait| waiting(wait, width, &paint)));
    lines.join("\n")
}

fn headline(run: &RunView) -> String {
    let mut facts = vec![
        format!("{} v{} ({})", plain(run.workflow.as_str()), run.number, plain(&run.stage)),
        plain(&run.status),
        format!("opened {} by {}", moment(&run.opened_at.to_string()), plain(&run.trigger)),
    ];
    facts.extend(run.finished_at.map(|end| format!("took {}", took(run.opened_at, end))));
    if run.cost_micros > 0 {
        facts.push(money(run.cost_micros, &run.currency));
    }
    facts.join(" · ")
}

fn glyph(status: &str) -> (&'static str, Tone) {
    match status {
        "succeeded" => ("✓", Tone::Good),
        "failed" | "parked" => ("✗", Tone::Bad),
        "declined" | "cancelled" => ("⊘", Tone::Bad),
        "skipped" => ("–", Tone::Quiet),
        "asking" | "waiting" => ("?", Tone::Asks),
        "in_doubt" => ("!", Tone::Asks),
        "backoff" | "held" => ("↻", Tone::Asks),
        "pending" | "queued" => ("·", Tone::Quiet),
        _ => ("▶", Tone::Strong),
    }
}

fn facts(step: &StepView, currency: &str) -> String {
    let mut facts = Vec::new();
    if !matches!(step.status.as_str(), "succeeded" | "pending") {
        facts.push(plain(&step.status.replace('_', " ")));
    }
    if step.attempt > 1 {
        facts.push(format!("{} attempts", step.attempt));
    }
    if let (Some(start), Some(end), true) = (step.started_at, step.ended_at, step.attempt > 0) {
        facts.push(took(start, end));
    }
    if let Some(call) = step.calls.iter().rev().find(|call| call.outcome == "ok") {
        facts.push(plain(&call.model));
    }
    if step.cost_micros > 0 {
        facts.push(money(step.cost_micros, currency));
    }
    facts.extend(step.confidence.map(|sure| format!("{:.0} % sure", sure * 100.0)));
    facts.extend(step.decided.as_deref().map(plain));
    facts.join(" · ")
}

fn waiting(wait: &Wait, width: usize, paint: &Paint) -> Vec<String> {
    match wait {
        Wait::Decision { review, ask, title, due_at, .. } => {
            let id = review.to_string();
            let due = due_at.map(|at| format!(" until {}", moment(&at.to_string()))).unwrap_or_default();
            let asks = format!("waits for your {}{due}: {title}", wanted(ask));
            let mut lines = vec![paint.on(Tone::Asks, &cut(&asks, width))];
            lines.extend(commands(ask, short(&id)).into_iter().map(|command| format!("  {command}")));
            lines
        }
        Wait::Retry { step, at, why } => {
            let text = format!("tries `{step}` again at {}: {why}", moment(&at.to_string()));
            vec![paint.on(Tone::Asks, &cut(&text, width))]
        }
        Wait::Turn { limit } => {
            let why = match limit {
                Some(1) => "one run of its key goes at a time".to_owned(),
                Some(limit) => format!("{limit} runs of its key go at a time"),
                None => "others go before it".to_owned(),
            };
            vec![paint.on(Tone::Quiet, &cut(&format!("waits for its turn: {why}"), width))]
        }
        Wait::Event { step, event, matches, until } => {
            let until = until.map(|at| format!(" until {}", moment(&at.to_string()))).unwrap_or_default();
            let text = match event.as_str() {
                Topic::CALL_ANSWERED => format!("`{step}` waits for a batch of model calls{until}"),
                _ => format!("`{step}` waits for {event} about {matches}{until}"),
            };
            vec![paint.on(Tone::Asks, &cut(&text, width))]
        }
        Wait::Moment { step, at } => {
            let at = at.map(|at| moment(&at.to_string())).unwrap_or_default();
            vec![paint.on(Tone::Asks, &cut(&format!("`{step}` goes on at {at}"), width))]
        }
        Wait::Run { step, run } => {
            let run = run.to_string();
            vec![paint.on(Tone::Asks, &cut(&format!("`{step}` waits for run {}", short(&run)), width))]
        }
        Wait::Dispatch { step, effect, at } => {
            let text = format!("`{step}` goes out at {}; until then:", moment(&at.to_string()));
            let command = format!("  steward effects call-back {effect}");
            vec![paint.on(Tone::Asks, &cut(&text, width)), command]
        }
        Wait::Resume { by } => {
            vec![paint.on(Tone::Asks, &cut(&format!("held by {by} until it is resumed"), width))]
        }
        Wait::Work { step, does } => {
            vec![paint.on(Tone::Quiet, &cut(&format!("works on `{step}`: {does}"), width))]
        }
    }
}

fn wanted(ask: &str) -> &str {
    match ask {
        "approval" => "approval",
        "in_doubt" => "word on what happened",
        "undo" | "parked" => "word on what to do",
        _ => "answer",
    }
}

/// The commands that decide a review.
fn commands(ask: &str, id: &str) -> Vec<String> {
    let all: &[&str] = match ask {
        "approval" => &["show", "approve", "edit", "reject"],
        "in_doubt" => &["show", "answer"],
        "answer" => &["show", "answer", "reject"],
        _ => &["show", "approve", "answer", "reject"],
    };
    all.iter().map(|verb| format!("steward reviews {verb} {id}")).collect()
}

/// A review: what is asked, why, what it rests on, exactly what would be done, and how to decide.
#[must_use]
pub fn render_review(review: &Value, width: usize, color: bool) -> String {
    let paint = Paint(color);
    let text = |name: &str| review[name].as_str().unwrap_or_default();
    let question = &review["question"];
    let id = short(text("id"));
    let mut lines = vec![paint.on(Tone::Strong, &cut(text("title"), width))];
    let opened = moment(text("opened_at"));
    let mut facts =
        format!("review {} · asks for {} · {} · opened {opened}", text("id"), text("ask"), text("status"));
    if let Some(due) = review["due_at"].as_str() {
        facts.push_str(&format!(" · expires {}", moment(due)));
    }
    lines.push(paint.on(Tone::Quiet, &plain(&facts)));
    lines.push(paint.on(
        Tone::Quiet,
        &plain(&format!("run {} · step {} · digest {}", text("run"), text("step"), text("digest"))),
    ));
    for reason in question["reasons"].as_array().into_iter().flatten() {
        lines.push(paint.on(Tone::Asks, &format!("why: {}", plain(reason.as_str().unwrap_or_default()))));
    }
    let artifacts = review["artifacts"].as_array().or(question["artifacts"].as_array());
    for artifact in artifacts.into_iter().flatten() {
        let (title, label) = (
            plain(artifact["title"].as_str().unwrap_or_default()),
            plain(artifact["label"].as_str().unwrap_or_default()),
        );
        lines.push(String::new());
        lines.push(format!(
            "{} {}",
            paint.on(Tone::Strong, &title),
            paint.on(Tone::Quiet, &format!("({label})"))
        ));
        lines.extend(block(&artifact["value"]));
    }
    if let Some(params) = question["action"]["params"].as_object() {
        lines.push(String::new());
        let action = plain(question["action"]["action"].as_str().unwrap_or_default());
        lines.push(paint.on(Tone::Strong, &format!("{action}, exactly so")));
        for (name, value) in params {
            lines.push(format!("  {}:", plain(name)));
            lines.extend(whole(value).map(|line| format!("  {line}").trim_end().to_owned()));
        }
    }
    lines.extend(asides::about(review));
    lines.push(String::new());
    match (text("status"), review["decided_by"].as_str()) {
        ("open", _) => lines.extend(commands(text("ask"), id)),
        (status, by) => {
            let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
            lines.push(plain(&format!("{status}{by} at {}", moment(text("decided_at")))));
        }
    }
    lines.join("\n")
}

/// A value, indented; a long one is cut, and says so.
fn block(value: &Value) -> Vec<String> {
    let mut lines: Vec<String> = whole(value).collect();
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("  … {more} more lines (--json shows all)"));
    }
    lines
}

/// Every line of a value, indented: what is approved is never cut.
fn whole(value: &Value) -> impl Iterator<Item = String> {
    let text = value.as_str().map_or_else(|| format!("{value:#}"), str::to_owned);
    let lines: Vec<String> =
        text.lines().map(|line| format!("  {}", plain(line)).trim_end().to_owned()).collect();
    lines.into_iter()
}

/// One journal entry as a line of progress; those that only prepare another say nothing.
#[must_use]
pub fn entry(entry: &Value) -> Option<String> {
    let data = &entry["data"];
    let text = |name: &str| plain(data[name].as_str().unwrap_or_default());
    let step = text("step");
    let error = plain(data["error"]["message"].as_str().unwrap_or_default());
    Some(match entry["kind"].as_str()? {
        "run.opened" => format!("▶ {}", text("title")),
        "model.called" => {
            let call = &data["call"];
            let named = |name: &str| plain(call[name].as_str().unwrap_or_default());
            let took = told(call["millis"].as_i64().unwrap_or_default());
            format!("  {step}: {} {} ({took})", named("model"), named("outcome"))
        }
        "tool.called" => {
            let named = |name: &str| plain(data["call"][name].as_str().unwrap_or_default());
            format!("  {step}: {} {}", named("tool"), named("outcome"))
        }
        "attempt.failed" => format!("↻ {step}: {error}"),
        "step.succeeded" => format!("✓ {step}"),
        "step.skipped" => format!("– {step}: {}", text("reason")),
        "step.declined" => format!("⊘ {step}: {}", text("reason")),
        "step.failed" => format!("✗ {step}: {error}"),
        "effect.started" => {
            format!("→ {step}: {}", plain(data["action"]["action"].as_str().unwrap_or_default()))
        }
        "effect.held" => format!("… {step}: goes out at {}", moment(&text("until"))),
        "effect.called_back" => format!("⊘ {step}: called back by {}", text("by")),
        "draft.returned" => format!("↻ {step}: {}", text("words")),
        "effect.unknown" => format!("! {step}: {}", text("evidence")),
        "review.opened" => format!("? {}", text("title")),
        "review.decided" => format!(
            "  {step}: {} by {}",
            plain(data["verdict"]["verdict"].as_str().unwrap_or_default()),
            text("by")
        ),
        "run.finished" => format!("■ {}: {}", text("outcome"), text("reason")),
        _ => return None,
    })
}

/// How long it took.
fn took(start: Timestamp, end: Timestamp) -> String {
    told(end.as_millisecond() - start.as_millisecond())
}

fn money(micros: i64, currency: &str) -> String {
    plain(&Money { micros, currency: currency.to_owned() }.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run() -> RunView {
        let step = |id: &str, name: &str, does: &str, status: &str| {
            json!({
                "id": id, "name": name, "does": does, "status": status, "attempt": 0, "failures": 0,
                "started_at": null, "ended_at": null, "cost_micros": 0, "calls": [], "why": null,
                "decided": null, "output": null, "confidence": null,
            })
        };
        let call = |model: &str, outcome: &str| json!({"model": model, "outcome": outcome, "millis": 5});
        let mut sort = step("sort", "Sort the mail", "agent router", "succeeded");
        sort["attempt"] = json!(1);
        sort["started_at"] = json!("2026-11-22T21:00:00.000Z");
        sort["ended_at"] = json!("2026-11-22T21:00:00.042Z");
        sort["calls"] = json!([call("encoder", "ok")]);
        sort["confidence"] = json!(0.834);
        let mut draft = step("draft", "Draft the answer", "agent writer", "succeeded");
        draft["attempt"] = json!(2);
        draft["started_at"] = json!("2026-11-22T21:00:00.042Z");
        draft["ended_at"] = json!("2026-11-22T21:00:05.392Z");
        draft["cost_micros"] = json!(1234);
        draft["calls"] = json!([call("big", "time-out"), call("small", "ok")]);
        let mut save = step("save", "Save the lead", "records.put", "skipped");
        save["why"] = json!("its condition is false: \u{1b}[31mclass == \"lead\"");
        let mut send = step("send", "Send it", "email.send", "asking");
        send["attempt"] = json!(1);
        serde_json::from_value(json!({
            "id": "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "workflow": "lead-intake",
            "version": "00".repeat(32), "number": 1, "stage": "supervised", "status": "waiting",
            "reason": null, "cancelling": null,
            "title": "Anna Brandt: a website for a bakery \u{202e}evil", "trigger": "email", "label": "untrusted",
            "input": {}, "seq": 12, "opened_at": "2026-11-22T21:00:00.000Z", "finished_at": null,
            "cost_micros": 1234, "currency": "EUR",
            "steps": [sort, draft, save, send, step("after", "Wait for an answer", "review", "pending")],
            "effects": [], "reviews": [],
            "waits_for": [{"for": "decision", "step": "send", "review": "5a1e0000-0000-8000-8000-00000badcafe",
                "ask": "approval", "title": "Anna Brandt · Send it", "due_at": null}],
        }))
        .unwrap()
    }

    #[test]
    fn a_run_that_waits_says_for_whom_and_which_command_goes_on() {
        insta::assert_snapshot!(render_run(&run(), 100, false), @r#"
        Anna Brandt: a website for a bakery \u{202e}evil
        lead-intake v1 (supervised) · waiting · opened 2026-11-22 21:00:00Z by email · 0.001234 EUR
        run 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b
        ├─ ✓ Sort the mail       agent router  42 ms · encoder · 83 % sure
        ├─ ✓ Draft the answer    agent writer  2 attempts · 5.3 s · small · 0.001234 EUR
        ├─ – Save the lead       records.put   skipped
        │    its condition is false: \u{1b}[31mclass == "lead"
        ├─ ? Send it             email.send    asking
        └─ · Wait for an answer  review
        waits for your approval: Anna Brandt · Send it
          steward reviews show 0badcafe
          steward reviews approve 0badcafe
          steward reviews edit 0badcafe
          steward reviews reject 0badcafe
        "#);
    }

    #[test]
    fn a_run_that_ended_says_how_why_and_how_long_it_took() {
        let mut run = run();
        run.status = "failed".into();
        run.reason = Some("Send it: the server said 550\nno such user".into());
        run.finished_at = Some("2026-11-22T22:10:00Z".parse().unwrap());
        run.waits_for = vec![];
        run.steps[3].status = "failed".into();
        run.steps[3].why = Some("the server said 550\nno such user".into());
        insta::assert_snapshot!(render_run(&run, 60, false), @r#"
        Anna Brandt: a website for a bakery \u{202e}evil
        lead-intake v1 (supervised) · failed · opened 2026-11-22 21:00:00Z by email · took 1 h 10 min · 0.001234 EUR
        run 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b
        ├─ ✓ Sort the mail       agent router  42 ms · encoder · 83…
        ├─ ✓ Draft the answer    agent writer  2 attempts · 5.3 s ·…
        ├─ – Save the lead       records.put   skipped
        │    its condition is false: \u{1b}[31mclass == "lead"
        ├─ ✗ Send it             email.send    failed
        │    the server said 550\nno such user
        └─ · Wait for an answer  review
        failed: Send it: the server said 550\nno such user
        "#);
    }

    #[test]
    fn no_line_is_wider_than_the_screen_and_no_escape_of_others_gets_through() {
        for width in [40, 60, 100] {
            let text = render_run(&run(), width, false);
            assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
            let tree = text.lines().filter(|line| line.starts_with(['├', '└', '│']));
            for line in tree {
                assert!(line.chars().count() <= width, "{line}");
            }
        }
        let colored = render_run(&run(), 100, true);
        assert!(colored.contains("\u{1b}[32m✓\u{1b}[0m") && !colored.contains("\u{1b}[31mclass"));
    }

    #[test]
    fn a_review_shows_what_is_asked_why_and_exactly_what_would_be_done() {
        let review = json!({
            "id": "5a1e0000-0000-8000-8000-00000badcafe", "run": "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
            "step": "send", "ask": "approval", "digest": "ab".repeat(32), "title": "Anna Brandt · Send it",
            "status": "open", "opened_at": "2026-11-22T21:00:05.5Z", "due_at": "2026-11-24T21:00:05.5Z",
            "decided_by": null, "decided_at": null,
            "question": {
                "reasons": ["this version is supervised: every external effect is reviewed"],
                "artifacts": [{"title": "input.body", "label": "untrusted", "value": "Hello,\n\u{1b}[2Jcan you help?"}],
                "action": {"action": "email.send", "params": {
                    "to": "anna@baeckerei.example", "subject": "Re: website", "body": "Dear Anna,\n\nyes.\n"}},
            },
        });
        insta::assert_snapshot!(render_review(&review, 100, false), @r#"
        Anna Brandt · Send it
        review 5a1e0000-0000-8000-8000-00000badcafe · asks for approval · open · opened 2026-11-22 21:00:05Z · expires 2026-11-24 21:00:05Z
        run 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b · step send · digest abababababababababababababababababababababababababababababababab
        why: this version is supervised: every external effect is reviewed

        input.body (untrusted)
          Hello,
          \u{1b}[2Jcan you help?

        email.send, exactly so
          body:
            Dear Anna,

            yes.
          subject:
            Re: website
          to:
            anna@baeckerei.example

        steward reviews show 0badcafe
        steward reviews approve 0badcafe
        steward reviews edit 0badcafe
        steward reviews reject 0badcafe
        "#);
    }

    #[test]
    fn progress_tells_each_event_that_a_person_cares_about_on_one_line() {
        let line = |kind: &str, data: Value| entry(&json!({"kind": kind, "data": data}));
        assert_eq!(
            line("step.skipped", json!({"step": "save", "reason": "no\nlead"})).unwrap(),
            "– save: no\\nlead"
        );
        let call = json!({"step": "sort", "call": {"model": "encoder", "outcome": "ok", "millis": 1250}});
        assert_eq!(line("model.called", call).unwrap(), "  sort: encoder ok (1.2 s)");
        assert_eq!(line("step.started", json!({"step": "a"})), None);
    }
}
