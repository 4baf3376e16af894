//! What opens runs by itself: schedules, and triggers that wait.

use super::*;
use crate::config::workspace::Trigger;
use crate::domain::duration::Span;
use crate::domain::gather::Gather;
use crate::domain::schedule::{Missed, Overlap, When};

const EMAIL: &str = "  - email: { mailbox: leads }\n";
const CLOCK_FILE: &str = "config/workflows/clock.yaml";

/// A workspace with a workflow that has this schedule.
fn scheduled(schedule: &str) -> Workspace {
    let clock = format!(
        "workflow: clock\ntitle: Tick\non:\n  - schedule: {{ {schedule} }}\nsteps:\n  - id: tick\n    action: noop\n    with: {{ value: 1 }}\n"
    );
    Workspace::sound().and(CLOCK_FILE, &clock)
}

fn triggers(workspace: &Workspace, workflow: &str) -> Vec<Trigger> {
    let (mut definitions, warnings) = workspace.load().map_err(|problems| problems.render(false)).unwrap();
    assert_eq!(warnings, []);
    definitions.workflows.remove(&workflow.into()).unwrap().triggers
}

#[test]
fn a_schedule_takes_the_workspaces_zone_and_its_times_for_a_name() {
    let found = triggers(&scheduled("cron: 0  9 * * mon-fri"), "clock");
    let [Trigger::Schedule { name, schedule }] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(name, "0 9 * * mon-fri");
    assert_eq!(schedule.when, When::Cron("0  9 * * mon-fri".into()));
    assert_eq!(
        (schedule.zone.as_str(), schedule.missed, schedule.overlap),
        ("Europe/Oslo", Missed::Once, Overlap::Allow)
    );
    let found = triggers(
        &scheduled(
            "name: x, every: 15m, from: 2026-01-05T09:00, zone: America/New_York, missed: all, input: { on: \"{{ schedule.date }}\", of: \"{{ workspace.name }}\" }",
        ),
        "clock",
    );
    let [Trigger::Schedule { name, schedule }] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((name.as_str(), schedule.zone.as_str()), ("x", "America/New_York"));
    assert!(matches!(schedule.when, When::Every { from: Some(_), .. }));
}

#[test]
fn a_pattern_that_does_not_read_or_never_comes_is_told_at_its_place() {
    scheduled("cron: 0 25 * * *").has(
        &format!("{CLOCK_FILE}:4:23"),
        "0 25 * * *",
        "the pattern does not read: Number out of bounds",
        "`0 9 * * mon-fri`",
    );
    scheduled("cron: 0 9 30 2 *").has(
        &format!("{CLOCK_FILE}:4:23"),
        "0 9 30 2 *",
        "there is never a moment that fits `0 9 30 2 *`",
        "choose a day that its months have",
    );
}

#[test]
fn a_date_must_exist_and_say_nothing_about_offsets() {
    for text in
        ["2026-02-30T09:00", "2026-12-24", "2026-12-24T09:00Z", "2026-12-24T09:00+02:00", "2026-12-24T25:00"]
    {
        let schedule = format!("at: \"{text}\"");
        scheduled(&schedule).has(
            &format!("{CLOCK_FILE}:4:21"),
            &format!("\"{text}\""),
            &format!("`{text}` is not a moment of any calendar"),
            "`2026-12-24T09:00`",
        );
    }
}

#[test]
fn a_zone_must_exist() {
    scheduled("every: 1h, zone: Europe/Olso").has(
        &format!("{CLOCK_FILE}:4:34"),
        "Europe/Olso",
        "there is no time zone `Europe/Olso`",
        "`Europe/Oslo`",
    );
}

#[test]
fn an_interval_must_be_long_enough() {
    scheduled("every: 500ms").has(
        &format!("{CLOCK_FILE}:4:24"),
        "500ms",
        "an interval of 500ms is too short",
        "write `1s` or longer",
    );
}

#[test]
fn a_schedule_has_one_kind_of_time() {
    for both in ["every: 1h, at: 2026-12-24T09:00", "missed: all"] {
        let problems = scheduled(both).problems();
        assert_eq!(problems[0].message, "a schedule has exactly one of `cron`, `every` and `at`", "{both}");
        assert_eq!((problems.len(), problems[0].line), (1, 4));
    }
    let problems = scheduled("cron: 0 9 * * *, from: 2026-12-24T09:00").problems();
    assert_eq!(problems[0].message, "`from` is where an interval begins");
}

#[test]
fn making_up_for_everything_and_skipping_what_overlaps_exclude_each_other() {
    scheduled("every: 1h, missed: all, overlap: skip").has(
        &format!("{CLOCK_FILE}:4:36"),
        "all",
        "`overlap: skip` lets the first missed time through and skips the others",
        "`missed: once`",
    );
}

#[test]
fn two_schedules_of_a_workflow_have_two_names() {
    let twice = "every: 1h, missed: skip }\n  - schedule: { every: 1h, missed: once";
    let problems = scheduled(twice).problems();
    assert_eq!(problems[0].message, "there are two schedules `every 1h`");
    assert_eq!((problems.len(), problems[0].line), (1, 5));
}

#[test]
fn the_input_of_a_schedule_is_held_against_what_the_workflow_needs_and_what_there_is() {
    let needs = "    with: { value: 1 }\ninput: { type: object, required: [day] }\n";
    scheduled("every: 1h, input: { date: x }").but(CLOCK_FILE, "    with: { value: 1 }\n", needs).has(
        &format!("{CLOCK_FILE}:4:28"),
        "input",
        "the workflow's input needs `day`, which this schedule does not give",
        "add `day:`",
    );
    scheduled("every: 1h, input: { day: \"{{ schedule.dates }}\" }").has(
        &format!("{CLOCK_FILE}:4:46"),
        "schedule.dates",
        "`schedule` has no `dates`",
        "did you mean `date`?",
    );
    let problems = scheduled("every: 1h, input: { day: \"{{ input.x }}\" }").problems();
    assert_eq!(problems[0].message, "there is nothing called `input` here");
}

#[test]
fn a_trigger_that_waits_says_for_what() {
    let waits = |how: &str| {
        Workspace::sound().but(WORKFLOW_FILE, EMAIL, &format!("  - email: {{ mailbox: leads, {how} }}\n"))
    };
    let found = triggers(&waits("debounce: { quiet: 5m, key: \"{{ input.from }}\" }"), "hello");
    let gather = Gather::Debounce {
        key: Some("{{ input.from }}".into()),
        quiet: Span::secs(300),
        at_most: Span::secs(3600),
    };
    assert_eq!(found, [Trigger::Email { mailbox: "leads".into(), gather: Some(gather) }]);
    waits("debounce: { quiet: 5m, key: \"{{ input.form }}\" }").has(
        &format!("{WORKFLOW_FILE}:4:62"),
        "input.form",
        "`input` has no `form`",
        "did you mean `from`?",
    );
    waits("debounce: { quiet: 5m, at_most: 1m }").has(
        &format!("{WORKFLOW_FILE}:4:62"),
        "1m",
        "with `at_most: 1m` it is never quiet for 5m",
        "longer",
    );
    waits("debounce: { quiet: 0ms, at_most: 1m }").has(
        &format!("{WORKFLOW_FILE}:4:49"),
        "0ms",
        "0ms is not a time to wait for",
        "up to `7d`",
    );
}

#[test]
fn the_input_of_a_batch_of_mails_is_their_list() {
    let batch = WORKFLOW
        .replace(EMAIL, "  - email: { mailbox: leads, batch: { size: 10, within: 1h } }\n")
        .replace("input.from_name", "input.items[0].from_name")
        .replace("{{ input.from }}", "{{ input.items[0].from }}")
        .replace("input.message_id", "input.items[0].message_id")
        .replace("input.body", "input.items");
    let mut workspace = Workspace::sound();
    workspace.0.retain(|(file, _)| file != WORKFLOW_FILE);
    let workspace = workspace.and(WORKFLOW_FILE, &batch);
    assert_eq!(workspace.problems(), []);
    let problems = workspace.but(WORKFLOW_FILE, "size: 10", "size: 5000").problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("5000"), "{}", problems[0].message);
}

#[test]
fn a_webhook_takes_no_path_of_stewards_own() {
    for own in ["email", "slack"] {
        let hook = format!("  - webhook: {{ path: {own}, secret: env:HOME }}\n");
        let problems = Workspace::sound().but(WORKFLOW_FILE, EMAIL, &format!("{EMAIL}{hook}")).problems();
        let told = format!("`/hooks/{own}` is Steward's own");
        assert!(problems.iter().any(|problem| problem.message == told), "{problems:?}");
    }
}
