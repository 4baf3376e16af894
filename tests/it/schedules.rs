//! Runs that open by the clock: none is lost, none is opened twice, and none stops another.

use std::collections::BTreeSet;

use serde_json::json;
use steward::domain::label::Label;
use steward::orchestrator::door::Request;
use steward::store::journal::Opened;

use crate::support::bench::Bench;
use crate::support::{app_with, database, eventually};

/// A workflow with one schedule and one step.
fn workflow(name: &str, schedule: &str) -> String {
    let step = "  - id: note\n    action: noop\n    with: { value: \"{{ input.date }}\" }\n";
    with_steps(name, schedule, step)
}

fn with_steps(name: &str, schedule: &str, steps: &str) -> String {
    format!(
        "workflow: {name}\ntitle: \"{{{{ input.date }}}} {{{{ input.time }}}}\"\non:\n  - schedule:\n      \
         zone: Europe/Oslo\n      input: {{ date: \"{{{{ schedule.date }}}}\", time: \"{{{{ schedule.time }}}}\" }}\n      \
         {schedule}\ninput: {{ type: object, required: [date, time] }}\nsteps:\n{steps}"
    )
}

#[tokio::test]
async fn times_that_nobody_was_there_for_are_skipped_made_up_for_once_or_made_up_for_whole() {
    let daily = |missed: &str| workflow(missed, &format!("cron: 0 9 * * *\n      missed: {missed}"));
    let workflows = ["skip", "once", "all"].map(daily);
    let bench = Bench::new(database().await, "2026-05-01T05:00:00Z", &workflows).await;
    bench.tick().await;
    assert_eq!(bench.titles("all").await, Vec::<String>::new());
    bench.at("2026-05-04T12:00:00Z");
    for _ in 0..2 {
        bench.tick().await;
        assert_eq!(bench.titles("skip").await, Vec::<String>::new());
        assert_eq!(bench.titles("once").await, ["2026-05-04 09:00:00"]);
        let all = [1, 2, 3, 4].map(|day| format!("2026-05-0{day} 09:00:00"));
        assert_eq!(bench.titles("all").await, all);
    }
    assert_eq!((bench.schedule("skip").await.missed, bench.schedule("once").await.missed), (4, 3));
    let next = bench.tick().await.unwrap();
    assert_eq!(next.to_string(), "2026-05-05T07:00:00Z");
    // On time, every policy does the same.
    bench.at("2026-05-05T07:00:00.05Z");
    bench.tick().await;
    for policy in ["skip", "once", "all"] {
        assert_eq!(bench.titles(policy).await.last().map(String::as_str), Some("2026-05-05 09:00:00"));
    }
    let run = bench.runs("all").await.pop().unwrap();
    assert_eq!(
        (run.trigger.as_str(), run.idempotency_key.as_str()),
        ("schedule", "schedule:0 9 * * *:2026-05-05T07:00:00Z")
    );
    assert_eq!(bench.schedule("all").await.last_run, Some(run.id));
    bench.rig.becomes(run.id, "succeeded").await;
}

#[tokio::test]
async fn one_bad_schedule_stops_no_other_and_says_what_is_wrong_with_it() {
    let workflows = [
        workflow("a-unreadable", "every: 1h"),
        workflow("b-misfit", "every: 1h")
            .replace("required: [date, time]", "properties: { date: { type: integer }, time: {} }"),
        workflow("c-elsewhere", "every: 1h"),
        workflow("d-sound", "every: 1h"),
    ];
    let bench = Bench::new(database().await, "2026-05-01T05:30:00Z", &workflows).await;
    bench.sql("update schedules set spec = '{\"when\": 1}' where workflow = 'a-unreadable'").await;
    bench.sql("update schedules set spec = jsonb_set(spec, '{zone}', '\"Mars/Olympus\"') where workflow = 'c-elsewhere'").await;
    for (now, runs) in [("2026-05-01T06:00:00Z", 1), ("2026-05-01T07:00:00Z", 2)] {
        bench.at(now);
        bench.tick().await;
        assert_eq!(bench.runs("d-sound").await.len(), runs);
    }
    let problem =
        |workflow: &'static str| async { bench.schedule(workflow).await.problem.unwrap_or_default() };
    assert!(problem("a-unreadable").await.contains("invalid type"), "{}", problem("a-unreadable").await);
    assert!(problem("b-misfit").await.contains("does not fit"), "{}", problem("b-misfit").await);
    assert!(problem("c-elsewhere").await.contains("Mars/Olympus"), "{}", problem("c-elsewhere").await);
    assert_eq!(bench.schedule("b-misfit").await.missed, 2);
    assert_eq!(problem("d-sound").await, "");
    // The next start writes what the files say over it, and it goes on from there.
    let mended = Bench::new(bench.store.clone(), "2026-05-01T07:10:00Z", &workflows).await;
    mended.at("2026-05-01T08:00:00Z");
    mended.tick().await;
    for workflow in ["a-unreadable", "c-elsewhere"] {
        assert_eq!(mended.titles(workflow).await.last().map(String::as_str), Some("2026-05-01 10:00:00"));
        assert_eq!(mended.schedule(workflow).await.problem, None);
    }
}

#[tokio::test]
async fn nodes_that_look_at_the_same_moment_open_each_run_once() {
    let store = database().await;
    let each = [workflow("minutely", "cron: \"* * * * *\"\n      missed: all")];
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Bench::new(store.clone(), "2026-05-01T05:00:30Z", &each).await);
    }
    for round in 0..20 {
        // The clocks of the nodes are not quite the same.
        for (index, node) in nodes.iter().enumerate() {
            node.after(60 + if round == 0 { index as i64 * 7 } else { 0 });
        }
        tokio::join!(nodes[0].tick(), nodes[1].tick(), nodes[2].tick(), nodes[0].tick());
    }
    let runs = nodes[0].runs("minutely").await;
    let keys: BTreeSet<_> = runs.iter().map(|run| run.idempotency_key.as_str()).collect();
    assert_eq!((runs.len(), keys.len()), (20, 20));
    assert_eq!(nodes[0].schedule("minutely").await.missed, 0);
}

#[tokio::test]
async fn a_single_moment_opens_one_run_whatever_restarts() {
    let store = database().await;
    let once = [workflow("once", "at: 2026-05-02T09:00")];
    let first = Bench::new(store.clone(), "2026-05-01T05:00:00Z", &once).await;
    first.tick().await;
    // Nobody is there at the moment; a node that starts later makes up for it.
    for _ in 0..2 {
        let later = Bench::new(store.clone(), "2026-05-03T05:00:00Z", &once).await;
        later.tick().await;
        later.tick().await;
        assert_eq!(later.titles("once").await, ["2026-05-02 09:00:00"]);
        assert_eq!(later.schedule("once").await.next_at, None);
    }
    // A moment that was over when it was written opens nothing.
    let past = [workflow("past", "at: 2026-01-02T09:00")];
    let bench = Bench::new(store, "2026-05-03T05:00:00Z", &past).await;
    bench.tick().await;
    assert_eq!(bench.runs("past").await.len(), 0);
}

#[tokio::test]
async fn a_crash_between_the_run_and_the_row_neither_loses_nor_doubles_it() {
    let hourly = [workflow("hourly", "every: 1h\n      missed: all")];
    let bench = Bench::new(database().await, "2026-05-01T05:30:00Z", &hourly).await;
    // The process that died had opened the first of two runs; its row was not moved on.
    bench.at("2026-05-01T07:10:00Z");
    let died = Request {
        workflow: "hourly".into(),
        input: json!({"date": "2026-05-01", "time": "08:00:00"}),
        label: Label::System,
        trigger: "schedule",
        key: Some("schedule:every 1h:2026-05-01T06:00:00Z".into()),
        verified: None,
    };
    let Opened::New(opened) = bench.rig.door.open(died).await.unwrap() else { panic!("it is new") };
    bench.tick().await;
    assert_eq!(bench.titles("hourly").await, ["2026-05-01 08:00:00", "2026-05-01 09:00:00"]);
    assert_eq!(bench.runs("hourly").await[0].id, opened);
    // The other way round: everything was opened, and the row still says the old moment.
    bench.sql("update schedules set next_at = '2026-05-01T06:00:00Z'").await;
    bench.tick().await;
    assert_eq!(bench.runs("hourly").await.len(), 2);
    assert_eq!(bench.schedule("hourly").await.next_at.unwrap().to_string(), "2026-05-01T08:00:00Z");
}

#[tokio::test]
async fn a_time_whose_predecessor_is_not_over_opens_nothing_and_is_counted() {
    let asks = "  - id: ask\n    review: { ask: \"Done?\" }\n";
    let hourly =
        |name: &str, overlap: &str| with_steps(name, &format!("every: 1h\n      overlap: {overlap}"), asks);
    let workflows = [hourly("skips", "skip"), hourly("allows", "allow")];
    let bench = Bench::new(database().await, "2026-05-01T05:30:00Z", &workflows).await;
    for _ in 0..3 {
        bench.after(3600);
        bench.tick().await;
    }
    assert_eq!(bench.runs("allows").await.len(), 3);
    let run = bench.runs("skips").await.remove(0);
    let row = bench.schedule("skips").await;
    assert_eq!((bench.runs("skips").await.len(), row.skipped, row.last_run), (1, 2, Some(run.id)));
    assert_eq!(row.skipped_at.unwrap().to_string(), "2026-05-01T08:00:00Z");
    assert!(row.last_run_open);
    // As soon as it is over, the next one opens.
    bench.rig.decide(run.id, steward::domain::event::Verdict::Approved).await;
    bench.rig.becomes(run.id, "succeeded").await;
    bench.after(3600);
    bench.tick().await;
    assert_eq!(bench.runs("skips").await.len(), 2);
}

#[tokio::test]
async fn a_changed_schedule_begins_anew_and_one_whose_times_are_the_same_goes_on() {
    let store = database().await;
    let before = [
        workflow("moved", "cron: 0 9 * * *\n      name: morning"),
        workflow("kept", "cron: 0 9 * * *\n      name: morning"),
        workflow("gone", "cron: 0 9 * * *"),
    ];
    let first = Bench::new(store.clone(), "2026-05-01T05:00:00Z", &before).await;
    assert_eq!(store.schedules().await.unwrap().len(), 3);
    drop(first);
    // Everybody was away at 09:00. Then the files are changed.
    let after = [
        workflow("moved", "cron: 30 8 * * *\n      name: morning"),
        workflow("kept", "cron: 0 9 * * *\n      name: morning\n      overlap: skip"),
        workflow("gone", "every: 3d"),
    ];
    let bench = Bench::new(store, "2026-05-01T12:00:00Z", &after).await;
    bench.tick().await;
    assert_eq!(bench.runs("moved").await.len(), 0, "08:30 was before it was written");
    assert_eq!(bench.titles("kept").await, ["2026-05-01 09:00:00"]);
    assert_eq!(bench.schedule("kept").await.spec["overlap"], "skip");
    assert_eq!(bench.schedule("gone").await.name, "every 3d");
    assert_eq!(bench.schedule("moved").await.next_at.unwrap().to_string(), "2026-05-02T06:30:00Z");
}

#[tokio::test]
async fn a_running_service_opens_its_schedules_runs_and_lists_them() {
    let ticking = workflow("ticking", "every: 1s\n      name: beat");
    let app = app_with(|workspace| {
        std::fs::write(workspace.join("config/workflows/ticking.yaml"), ticking).unwrap();
    })
    .await;
    eventually("two runs of the schedule", || async {
        let runs = app.get("/api/v1/runs?workflow=ticking").await;
        (runs["runs"].as_array()?.len() >= 2).then_some(())
    })
    .await;
    let list = eventually("the schedule's last run in the list", || async {
        let list = app.get("/api/v1/schedules").await;
        (!list["schedules"][0]["last_at"].is_null()).then_some(list)
    })
    .await;
    let row = &list["schedules"][0];
    assert_eq!((row["workflow"].as_str(), row["name"].as_str()), (Some("ticking"), Some("beat")));
    assert!(row["next_at"].is_string() && row["last_run"].is_string() && row["problem"].is_null(), "{row}");
    // Never asserted, for nothing here may depend on speed: run with `--nocapture` to read it.
    for run in app.get("/api/v1/runs?workflow=ticking").await["runs"].as_array().unwrap() {
        let moment = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let id = run["id"].as_str().unwrap().parse().unwrap();
        let row = app.store.run_row(id).await.unwrap().unwrap();
        let occurrence = moment(row.idempotency_key.strip_prefix("schedule:beat:").unwrap());
        eprintln!("opened {} after its moment", row.opened_at.duration_since(occurrence));
    }
    app.assert_chains_hold().await;
    app.stop().await;
}
