//! Triggers that wait before they open a run: what was acknowledged is in exactly one run, or replaced by
//! what came after it.

use serde_json::{Value, json};
use steward::config::workspace::Trigger;
use steward::domain::gather::Gather;
use steward::domain::label::Label;
use steward::orchestrator::door::{OpenError, Request};
use steward::store::journal::Opened;
use steward::triggers::gather::{self, Taken};

use crate::support::bench::Bench;
use crate::support::{app_with, database, eventually};

/// A workflow with a hook that waits.
fn workflow(gather: &str, input: &str) -> String {
    format!(
        "workflow: orders\ntitle: Orders\non:\n  - webhook: {{ path: orders, secret: env:NO_SUCH_SECRET, {gather} }}\n\
         input: {input}\nsteps:\n  - id: note\n    action: noop\n    with: {{ value: done }}\n"
    )
}

const ANY: &str =
    "{ type: object, required: [n], properties: { n: { type: integer }, customer: { type: string } } }";
const MANY: &str = "{ type: object, required: [items], properties: { items: { type: array, items: \
                    { type: object, required: [n], properties: { n: { type: integer }, customer: { type: string } } } } } }";

const DEBOUNCE: &str = "debounce: { key: \"{{ input.customer }}\", quiet: 5m, at_most: 1h }";

async fn bench(gather: &str, input: &str) -> Bench {
    Bench::new(database().await, "2026-05-01T09:00:00Z", &[workflow(gather, input)]).await
}

/// Hands an input in as the hook does once the signature holds.
async fn deliver(bench: &Bench, key: &str, input: Value, label: Label) -> Result<Taken, OpenError> {
    let definition = &bench.definitions.workflows[&"orders".into()];
    let waits = definition.triggers.iter().find_map(|trigger| match trigger {
        Trigger::Webhook { gather, .. } => gather.as_ref(),
        _ => None,
    });
    let key = Some(format!("hook:orders:{key}"));
    let request =
        Request { workflow: "orders".into(), input, label, trigger: "webhook", key, verified: None };
    gather::take(&bench.rig.door, request, "webhook:orders", waits).await
}

async fn send(bench: &Bench, key: &str, customer: &str, n: i64) -> Taken {
    deliver(bench, key, json!({"n": n, "customer": customer}), Label::Untrusted).await.unwrap()
}

/// The inputs of the runs, the oldest first.
async fn inputs(bench: &Bench) -> Vec<Value> {
    let mut found = Vec::new();
    for run in bench.runs("orders").await {
        let opened = bench.store.journal(run.id, 0, 1).await.unwrap().remove(0);
        found.push(opened.data.unwrap()["input"].clone());
    }
    found
}

fn numbers(input: &Value) -> Vec<i64> {
    input["items"].as_array().unwrap().iter().map(|item| item["n"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn of_several_inputs_the_last_wins_once_it_is_quiet() {
    let bench = bench(DEBOUNCE, ANY).await;
    for n in 0..3 {
        let taken = send(&bench, &format!("a{n}"), "ada", n).await;
        assert!(matches!(taken, Taken::Gathered { new: true, due_at: Some(_) }), "{taken}");
        bench.after(60);
        bench.tick().await;
    }
    send(&bench, "b0", "bob", 7).await;
    assert_eq!(inputs(&bench).await.len(), 0, "it is not quiet yet");
    bench.after(4 * 60);
    let next = bench.tick().await;
    assert_eq!(inputs(&bench).await, [json!({"n": 2, "customer": "ada"})]);
    assert_eq!(next.unwrap().to_string(), "2026-05-01T09:08:00Z", "bob's");
    bench.after(60);
    bench.tick().await;
    assert_eq!(inputs(&bench).await.len(), 2);
    assert!(bench.store.groups(10).await.unwrap().is_empty());
    let run = bench.runs("orders").await.remove(0);
    assert_eq!(run.trigger, "webhook");
    bench.rig.becomes(run.id, "succeeded").await;
}

#[tokio::test]
async fn what_never_gets_quiet_opens_its_run_all_the_same() {
    let bench = bench(DEBOUNCE, ANY).await;
    for n in 0..70 {
        send(&bench, &n.to_string(), "ada", n).await;
        bench.tick().await;
        bench.after(60);
    }
    // The first came at 09:00, and an hour is the most it waits.
    assert_eq!(inputs(&bench).await, [json!({"n": 60, "customer": "ada"})]);
}

#[tokio::test]
async fn the_same_delivery_counts_once_before_and_after_its_run() {
    let bench = bench("batch: { size: 10, within: 10m }", MANY).await;
    for _ in 0..3 {
        send(&bench, "first", "ada", 1).await;
    }
    let again = send(&bench, "first", "ada", 1).await;
    assert!(matches!(again, Taken::Gathered { new: false, due_at: Some(_) }), "{again}");
    // At the same moment, too.
    let both = tokio::join!(send(&bench, "second", "ada", 2), send(&bench, "second", "ada", 2));
    let new =
        [both.0, both.1].iter().filter(|taken| matches!(taken, Taken::Gathered { new: true, .. })).count();
    assert_eq!(new, 1);
    bench.after(600);
    bench.tick().await;
    let opened = inputs(&bench).await;
    assert_eq!(numbers(&opened[0]), [1, 2]);
    let run = bench.runs("orders").await.remove(0).id;
    assert_eq!(send(&bench, "first", "ada", 1).await, Taken::Run(Opened::Existing(run)));
    bench.after(600);
    bench.tick().await;
    assert_eq!(bench.runs("orders").await.len(), 1);
}

#[tokio::test]
async fn a_full_batch_opens_at_once_with_everything_in_order_and_every_label() {
    let bench = bench("batch: { size: 3, within: 10m }", MANY).await;
    for (n, label) in [(1, Label::Owner), (2, Label::Untrusted), (3, Label::System), (4, Label::Owner)] {
        deliver(&bench, &n.to_string(), json!({"n": n}), label).await.unwrap();
    }
    // Nobody has looked at the clock: the third input opens the run by itself.
    let run = eventually("the run of a full batch", || async { bench.runs("orders").await.pop() }).await;
    assert_eq!(inputs(&bench).await.iter().map(numbers).collect::<Vec<_>>(), [vec![1, 2, 3]]);
    let opened = bench.store.journal(run.id, 0, 1).await.unwrap().remove(0);
    assert_eq!(opened.label, "untrusted");
    bench.after(600);
    bench.tick().await;
    assert_eq!(inputs(&bench).await.iter().map(numbers).collect::<Vec<_>>(), [vec![1, 2, 3], vec![4]]);
}

#[tokio::test]
async fn of_many_inputs_at_once_each_is_in_exactly_one_batch() {
    let bench = bench("batch: { size: 7, within: 10m, key: \"{{ input.customer }}\" }", MANY).await;
    let all = (0..100).map(|n| {
        let bench = &bench;
        async move { send(bench, &n.to_string(), if n % 2 == 0 { "ada" } else { "bob" }, n).await }
    });
    futures_util::future::join_all(all).await;
    bench.after(600);
    bench.tick().await;
    let opened = eventually("every batch", || async {
        let opened = inputs(&bench).await;
        (opened.iter().map(|input| numbers(input).len()).sum::<usize>() >= 100).then_some(opened)
    })
    .await;
    assert!(opened.iter().all(|input| numbers(input).len() <= 7));
    assert!(opened.iter().all(|input| numbers(input).windows(2).all(|pair| pair[0] % 2 == pair[1] % 2)));
    let mut all: Vec<i64> = opened.iter().flat_map(numbers).collect();
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_crash_between_the_run_and_its_group_neither_loses_nor_doubles_it() {
    let bench = bench("batch: { size: 10, within: 10m }", MANY).await;
    send(&bench, "1", "ada", 1).await;
    send(&bench, "2", "ada", 2).await;
    bench.after(600);
    // The process that died had closed the group and opened its run.
    let group = bench.store.close_due_groups(bench.now()).await.unwrap().remove(0);
    let kept = bench.store.closed_group(group).await.unwrap().unwrap();
    let died = Request {
        workflow: kept.workflow,
        input: json!({"items": kept.items.into_iter().map(|(_, input)| input).collect::<Vec<_>>()}),
        label: Label::Untrusted,
        trigger: "webhook",
        key: Some(format!("gathered:{group}")),
        verified: None,
    };
    let run = bench.rig.door.open(died).await.unwrap().run();
    // What comes meanwhile is not of that run.
    send(&bench, "3", "ada", 3).await;
    bench.tick().await;
    assert_eq!(bench.runs("orders").await.len(), 1);
    assert_eq!(send(&bench, "2", "ada", 2).await, Taken::Run(Opened::Existing(run)));
    bench.after(600);
    bench.tick().await;
    assert_eq!(inputs(&bench).await.iter().map(numbers).collect::<Vec<_>>(), [vec![1, 2], vec![3]]);
}

#[tokio::test]
async fn nodes_that_look_at_the_same_moment_open_a_groups_run_once() {
    let store = database().await;
    let file = [workflow("batch: { size: 100, within: 10m, key: \"{{ input.customer }}\" }", MANY)];
    let one = Bench::new(store.clone(), "2026-05-01T09:00:00Z", &file).await;
    let other = Bench::new(store, "2026-05-01T09:00:00Z", &file).await;
    for n in 0..40 {
        send(&one, &n.to_string(), &format!("c{}", n % 20), n).await;
    }
    one.after(600);
    other.after(600);
    tokio::join!(one.tick(), other.tick());
    assert_eq!(one.runs("orders").await.len(), 20);
    assert!(inputs(&one).await.iter().all(|input| numbers(input).len() == 2));
}

#[tokio::test]
async fn what_could_open_no_run_is_refused_while_somebody_is_there_to_be_told() {
    let bench = bench("batch: { size: 10, within: 10m, key: \"{{ input.customer }}\" }", MANY).await;
    for bad in [json!({"n": "one", "customer": "ada"}), json!({"n": 1})] {
        let refused = deliver(&bench, "1", bad, Label::Untrusted).await;
        assert!(matches!(refused, Err(OpenError::BadInput { .. })), "{refused:?}");
    }
    assert!(bench.store.groups(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn inputs_whose_run_cannot_be_opened_are_kept_until_it_can() {
    let bench = bench("batch: { size: 10, within: 10m }", MANY).await;
    send(&bench, "1", "ada", 1).await;
    bench.sql("update gathered set workflow = 'renamed'").await;
    bench.after(600);
    bench.tick().await;
    let held = bench.store.groups(10).await.unwrap().remove(0);
    assert!(held.problem.unwrap().contains("there is no workflow `renamed`"));
    assert!(held.due_at > bench.now());
    bench.sql("update gathered set workflow = 'orders'").await;
    bench.after(60);
    bench.tick().await;
    assert_eq!(inputs(&bench).await.iter().map(numbers).collect::<Vec<_>>(), [vec![1]]);
}

#[tokio::test]
async fn the_keys_of_gathered_inputs_are_forgotten_after_a_month() {
    let bench = bench("batch: { size: 10, within: 10m }", MANY).await;
    send(&bench, "1", "ada", 1).await;
    bench.after(600);
    bench.tick().await;
    assert_eq!(bench.store.forget_gathered(bench.now()).await.unwrap(), 0);
    bench.after(31 * 86_400);
    assert_eq!(bench.store.forget_gathered(bench.now()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_running_service_answers_202_for_mail_that_waits_and_opens_one_run_for_all_of_it() {
    let app = app_with(|workspace| {
        let folder = workspace.join("config/workflows");
        for entry in std::fs::read_dir(&folder).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let digest = "workflow: digest\ntitle: \"{{ input.items | length }} mails\"\non:\n  \
                      - email: { mailbox: leads, batch: { size: 2, within: 7d } }\nsteps:\n  - id: note\n    \
                      action: noop\n    with: { value: \"{{ input.items[0].subject }}\" }\n";
        std::fs::write(folder.join("digest.yaml"), digest).unwrap();
    })
    .await;
    let post = async |name: &str| {
        let raw = crate::support::example_email(name);
        let request = app.client.post(format!("{}/hooks/email", app.url)).bearer_auth(&app.token);
        let response = request.header("content-type", "message/rfc822").body(raw).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let mut names: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/inbox"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("lead"))
        .collect();
    names.sort();
    let first = post(&names[0]).await;
    assert_eq!((first.0, &first.1["gathered"]), (202, &json!(true)), "{first:?}");
    assert_eq!(app.get("/api/v1/schedules").await["gathered"][0]["items"], 1);
    assert_eq!(post(&names[0]).await.1["gathered"], false);
    assert_eq!(post(&names[1]).await.0, 202);
    let run = eventually("the run of both", || async {
        app.get("/api/v1/runs?workflow=digest").await["runs"].get(0).cloned()
    })
    .await;
    assert_eq!(run["title"], "2 mails");
    let (status, again) = eventually("the answer that names the run", || async {
        let answer = post(&names[1]).await;
        (answer.0 == 200).then_some(answer)
    })
    .await;
    assert_eq!((status, &again["run"]), (200, &run["id"]));
    app.stop().await;
}

#[test]
fn a_group_is_written_down_as_its_trigger_was() {
    let gather = Gather::Batch { key: None, size: 3, within: "10m".parse().unwrap() };
    let spec = serde_json::to_value(&gather).unwrap();
    assert_eq!(spec, json!({"batch": {"key": null, "size": 3, "within": "10m"}}));
    assert_eq!(serde_json::from_value::<Gather>(spec).unwrap(), gather);
}
