//! Several real processes in one workspace folder over one database: `steward up` n times.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use steward::config::template;
use steward::orchestrator::failpoint;
use steward::store::Store;

use crate::support::process::Process;
use crate::support::smtp::MailServer;
use crate::support::{database, eventually, example_email};

/// The lease of every process here, seconds: short enough to wait for, long enough for a busy machine.
const LEASE: &str = "4";

/// A workspace whose processes share a database and send through one mail server.
struct Place {
    workspace: PathBuf,
    url: String,
    store: Store,
    mail: MailServer,
    _folder: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let mail = MailServer::start().await;
        let (folder, workspace) = database::folder();
        template::write(&workspace).unwrap();
        send_through(&workspace, mail.address);
        let config = database::config().await;
        let (url, store) = (database::url(&config), Store::new(config).unwrap());
        Self { workspace, url, store, mail, _folder: folder }
    }

    async fn process(&self, variables: &[(&str, &str)]) -> Process {
        let mut all = vec![("STEWARD_DATABASE_URL", self.url.as_str()), ("STEWARD_LEASE", LEASE)];
        all.extend(variables);
        Process::start_with(&self.workspace, &all).await
    }
}

fn send_through(workspace: &Path, server: std::net::SocketAddr) {
    let connectors = format!(
        "email:\n  from: Mara Lind <mara@harbourandpine.example>\n  \
         smtp: {{ host: \"{}\", port: {}, security: none }}\n",
        server.ip(),
        server.port()
    );
    std::fs::write(workspace.join("config/connectors.yaml"), connectors).unwrap();
}

/// The nth enquiry: each opens a run of its own.
fn enquiry(n: usize) -> Vec<u8> {
    let raw = String::from_utf8(example_email("01-lead-bakery.eml")).unwrap();
    let raw = raw.replace("9A6B1F0C-52E4-4D0B-8C3A", &format!("{n:08}-52E4-4D0B-8C3A"));
    raw.replace("jonas@baeckerei-brandt.example", &format!("jonas{n}@baeckerei-brandt.example")).into_bytes()
}

async fn becomes(process: &Process, run: &str, status: &str) -> Value {
    eventually(&format!("run {run} becoming {status}"), || async {
        let shown = process.get(&format!("/api/v1/runs/{run}")).await?;
        (shown["status"] == status).then_some(shown)
    })
    .await
}

async fn question(process: &Process, run: &str, ask: &str) -> Value {
    eventually(&format!("run {run} asking for `{ask}`"), || async {
        process.open_review(Some(run)).await.filter(|review| review["ask"] == ask)
    })
    .await
}

async fn journal(process: &Process, run: &str) -> Value {
    process.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await.unwrap()
}

async fn chains_hold(process: &Process) {
    let audit = process.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!(audit["broken"], 0, "{audit}");
}

#[tokio::test]
async fn a_run_of_a_killed_process_goes_on_in_another_and_any_of_them_takes_the_decision() {
    let place = Place::new().await;
    let doomed = place.process(&[("STEWARD_FAILPOINT", failpoint::AGENT_ANSWERED)]).await;
    let (second, third) = tokio::join!(place.process(&[]), place.process(&[]));
    assert_eq!(doomed.token, third.token, "one workspace, one token");
    let raw = enquiry(1);
    let _ = doomed.deliver(&raw).await; // it dies while an agent answers
    doomed.died().await;
    let run = eventually("the mail being taken again", || second.deliver(&raw)).await;
    let review = question(&second, &run, "approval").await;
    third.approve(&review).await.unwrap();
    becomes(&second, &run, "succeeded").await;
    assert_eq!(place.mail.accepted().len(), 1);
    let kinds = journal(&second, &run).await.to_string();
    assert!(!kinds.contains("in_doubt"), "nothing had been sent: {kinds}");
    chains_hold(&second).await;

    // Whoever is left is found by the command line, and the last one takes the address away.
    third.stop().await;
    let address = || std::fs::read_to_string(place.workspace.join(".steward/address"));
    assert_eq!(address().unwrap().trim(), second.url);
    second.stop().await;
    assert!(address().is_err());
}

#[tokio::test]
async fn a_process_that_stood_still_beyond_its_lease_neither_writes_nor_sends_when_it_goes_on() {
    let place = Place::new().await;
    let stands_still = format!("{}@email.send:stop", failpoint::EFFECT_STARTED);
    let paused = place.process(&[("STEWARD_FAILPOINT", &stands_still)]).await;
    let run = paused.deliver(&enquiry(1)).await.unwrap();
    let review = question(&paused, &run, "approval").await;
    let other = place.process(&[]).await;
    let meanwhile = async {
        // It has written that the mail is being sent, and stands still before it sends it.
        let doubt = question(&other, &run, "in_doubt").await;
        other.decide(&doubt, json!({"verdict": "answered", "answer": "again"})).await.unwrap();
        becomes(&other, &run, "succeeded").await;
        assert_eq!(place.mail.accepted().len(), 1);
        let before = journal(&other, &run).await;
        paused.resume();
        before
    };
    // Whether the decision is answered before it stands still or when it goes on is chance.
    let (approved, before) = tokio::join!(paused.approve(&review), meanwhile);
    approved.unwrap();
    // It serves again, under a new lease, and has come past what it stood before.
    let raw = enquiry(2);
    let next = eventually("it taking mail again", || paused.deliver(&raw)).await;
    let review = question(&paused, &next, "approval").await;
    other.approve(&review).await.unwrap();
    becomes(&paused, &next, "succeeded").await;
    assert_eq!(journal(&other, &run).await, before, "not a word more about the run it had lost");
    assert_eq!(place.mail.accepted().len(), 2, "one mail for each of the two");
    chains_hold(&paused).await;
    paused.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_process_paused_in_the_middle_of_its_runs_leaves_them_to_another_and_does_not_disturb_it() {
    let place = Place::new().await;
    let (paused, other) = tokio::join!(place.process(&[]), place.process(&[]));
    let mut runs = Vec::new();
    for n in 0..6 {
        runs.push(paused.deliver(&enquiry(n)).await.unwrap());
    }
    paused.pause(); // wherever its runs are just then
    for run in &runs {
        let review = question(&other, run, "approval").await;
        other.approve(&review).await.unwrap();
        becomes(&other, run, "succeeded").await;
    }
    paused.resume();
    let next = paused.deliver(&enquiry(6)).await.unwrap();
    question(&paused, &next, "approval").await;
    assert_eq!(place.mail.accepted().len(), 6);
    chains_hold(&paused).await;
    paused.kill().await;
    other.stop().await;
}

#[tokio::test]
async fn clocks_that_are_an_hour_off_date_nothing_and_wake_nothing_wrongly() {
    let place = Place::new().await;
    let (fast, slow) = tokio::join!(
        place.process(&[("STEWARD_CLOCK_SKEW", "3600")]),
        place.process(&[("STEWARD_CLOCK_SKEW", "-3600")])
    );
    for (n, (opener, decider)) in [(&fast, &slow), (&slow, &fast)].into_iter().enumerate() {
        let run = opener.deliver(&enquiry(n)).await.unwrap();
        let review = question(decider, &run, "approval").await;
        decider.approve(&review).await.unwrap();
        becomes(opener, &run, "succeeded").await;
        let id: uuid::Uuid = run.parse().unwrap();
        let (seconds, _) = id.get_timestamp().unwrap().to_unix();
        let now = jiff::Timestamp::now().as_second();
        assert!(now.abs_diff(seconds.cast_signed()) < 600, "the run's id carries the database's time");
        let entries = place.store.journal(steward::domain::ids::RunId(id), 0, 500).await.unwrap();
        for pair in entries.windows(2) {
            assert!(pair[0].at <= pair[1].at, "whichever node wrote it: {} {}", pair[0].at, pair[1].at);
        }
        for entry in &entries {
            assert!(now.abs_diff(entry.at.as_second()) < 600, "{} at {}", entry.kind, entry.at);
        }
    }
    fast.stop().await;
    slow.stop().await;
}

#[tokio::test]
async fn restarting_one_process_after_the_other_under_load_loses_nothing_and_does_nothing_twice() {
    let place = Place::new().await;
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(place.process(&[]).await);
    }
    let mut acknowledged = BTreeSet::new();
    let mut sent = 0;
    for turn in 0..3 {
        let leaving = processes.remove(0);
        let load = async {
            let mut runs = Vec::new();
            for n in 0..12 {
                // To whoever is there: a sender whose mail is not taken sends it again.
                let raw = enquiry(turn * 100 + n);
                let run = eventually("the mail being taken", || processes[n % 2].deliver(&raw)).await;
                runs.push(run);
            }
            runs
        };
        let leave = async {
            for n in 50..56 {
                if let Some(run) = leaving.deliver(&enquiry(turn * 100 + n)).await {
                    acknowledged.insert(run);
                    sent += 1;
                }
            }
            leaving.stop().await;
        };
        let (runs, ()) = tokio::join!(load, leave);
        sent += runs.len();
        acknowledged.extend(runs);
        processes.push(place.process(&[]).await);
    }
    assert_eq!(acknowledged.len(), sent, "every mail has a run of its own");
    for run in &acknowledged {
        question(&processes[0], run, "approval").await;
        let journal = journal(&processes[0], run).await.to_string();
        let (begun, again) = (journal.matches("effect.started"), journal.matches("\"again\":true"));
        assert_eq!(begun.count() - again.count(), 1, "the record was put once: {journal}");
    }
    chains_hold(&processes[0]).await;
    for process in processes {
        process.stop().await;
    }
}

#[tokio::test]
async fn a_mail_server_that_never_answers_does_not_keep_a_process_from_stopping_in_time() {
    let place = Place::new().await;
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    send_through(&place.workspace, deaf.local_addr().unwrap());
    let settings = place.workspace.join("config/settings.yaml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}\nlimits: {{ grace: 2s }}\n")).unwrap();
    let process = place.process(&[]).await;
    let run = process.deliver(&enquiry(1)).await.unwrap();
    let review = question(&process, &run, "approval").await;
    process.approve(&review).await.unwrap();
    let _talking_to_nobody = deaf.accept().await.unwrap();
    process.stop().await;
    let next = place.process(&[]).await;
    question(&next, &run, "in_doubt").await;
    next.stop().await;
}

#[tokio::test]
async fn an_inbox_folder_that_several_processes_watch_opens_one_run_for_each_mail() {
    let place = Place::new().await;
    let (first, second) = tokio::join!(place.process(&[]), place.process(&[]));
    let inbox = place.workspace.join(".steward/inbox");
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".eml")).collect::<BTreeSet<_>>()
    };
    for n in 0..10 {
        std::fs::write(inbox.join(format!("{n}.eml")), enquiry(n)).unwrap();
    }
    eventually("the folder being emptied", || async { names(&inbox).is_empty().then_some(()) }).await;
    assert_eq!(names(&inbox.join("done")).len(), 10);
    let runs = first.get("/api/v1/runs?limit=100").await.unwrap();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 10, "{runs}");
    first.stop().await;
    second.stop().await;
}
