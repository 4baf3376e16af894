//! The real binary is killed at the places that matter, and started again: the run finishes, the
//! mail arrives once or the owner is asked, every chain verifies.

use std::process::Stdio;

use serde_json::{Value, json};
use steward::config::template;
use steward::orchestrator::failpoint;
use tokio::process::Command;

use crate::support::process::Process;
use crate::support::smtp::MailServer;
use crate::support::{PATIENCE, database, eventually, example_email};

/// Kills at `name` while an email is on its way, starts again, and sees it through.
async fn survives(name: &str) {
    let mail = MailServer::start().await;
    let (_folder, workspace) = database::folder();
    template::write(&workspace).unwrap();
    let connectors = format!(
        "email:\n  from: Mara Lind <mara@harbourandpine.example>\n  \
         smtp: {{ host: \"{}\", port: {}, security: none }}\n",
        mail.address.ip(),
        mail.address.port()
    );
    std::fs::write(workspace.join("config/connectors.yaml"), connectors).unwrap();
    let raw = example_email("01-lead-bakery.eml");

    let doomed = Process::start(&workspace, Some(name)).await;
    let _ = doomed.deliver(&raw).await; // it may die before it answers: a sender then sends again
    if let Some(review) = open_review_while_alive(&doomed).await {
        let _ = doomed.decide(&review, json!({"verdict": "approved", "digest": review["digest"]})).await;
    }
    doomed.died().await;

    let process = Process::start(&workspace, None).await;
    let run = eventually("the mail being taken again", || process.deliver(&raw)).await;
    let mut asked_in_doubt = false;
    let over = eventually("the run ending", || async {
        let shown = process.get(&format!("/api/v1/runs/{run}")).await?;
        if ["succeeded", "failed", "declined", "parked"].contains(&shown["status"].as_str()?) {
            return Some(shown);
        }
        let reviews = process.get("/api/v1/reviews?status=open").await?;
        for review in reviews["reviews"].as_array()? {
            let decision = match review["ask"].as_str()? {
                "in_doubt" if mail.accepted().is_empty() => json!({"verdict": "answered", "answer": "again"}),
                "in_doubt" => json!({"verdict": "answered", "answer": "happened"}),
                _ => json!({"verdict": "approved", "digest": review["digest"]}),
            };
            process.decide(review, decision).await?;
        }
        None
    })
    .await;
    assert_eq!(over["status"], "succeeded", "{over}");
    let journal = process.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await.unwrap();
    asked_in_doubt |= journal.to_string().contains("in_doubt");
    assert_eq!(mail.accepted().len(), 1, "killed at {name}: the mail arrives exactly once");
    let doubtful = name.ends_with("@email.send");
    // A run goes on while its decision is flushed: when the process dies the mail may be under way.
    if name != failpoint::DECISION_TAKEN {
        assert_eq!(
            asked_in_doubt, doubtful,
            "killed at {name}: the owner is asked just where nobody can know"
        );
    }
    let audit = process.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!(audit["broken"], 0, "{audit}");
    process.stop().await;
}

/// The open review of the only run, or `None` once the process has died.
async fn open_review_while_alive(process: &Process) -> Option<Value> {
    eventually("a review or a death", || async {
        match process.get("/api/v1/reviews?status=open").await {
            None => Some(None),
            Some(reviews) => {
                let approval =
                    reviews["reviews"].as_array()?.iter().find(|review| review["ask"] == "approval");
                approval.cloned().map(Some)
            }
        }
    })
    .await
}

#[tokio::test]
async fn killed_when_the_run_is_acknowledged_nothing_is_lost() {
    survives(failpoint::RUN_OPENED).await;
}

#[tokio::test]
async fn killed_when_an_agent_has_answered_it_is_asked_again() {
    survives(failpoint::AGENT_ANSWERED).await;
}

#[tokio::test]
async fn killed_when_a_decision_is_taken_the_decision_stands() {
    survives(failpoint::DECISION_TAKEN).await;
}

#[tokio::test]
async fn killed_before_or_after_a_record_is_written_it_is_written_once() {
    survives(failpoint::EFFECT_STARTED).await;
    survives(failpoint::EFFECT_DONE).await;
}

#[tokio::test]
async fn killed_before_the_mail_is_sent_the_owner_is_asked_whether_it_was() {
    survives(&format!("{}@email.send", failpoint::EFFECT_STARTED)).await;
}

#[tokio::test]
async fn killed_after_the_mail_is_sent_the_owner_is_asked_whether_it_was() {
    survives(&format!("{}@email.send", failpoint::EFFECT_DONE)).await;
}

/// A workspace with this workflow and no other.
fn only(workflow: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let (folder, workspace) = database::folder();
    template::write(&workspace).unwrap();
    let workflows = workspace.join("config/workflows");
    for entry in std::fs::read_dir(&workflows).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    std::fs::write(workflows.join("only.yaml"), workflow).unwrap();
    (folder, workspace)
}

#[tokio::test]
async fn killed_when_a_schedule_has_opened_its_run_no_time_is_lost_or_doubled() {
    let (_folder, workspace) = only(
        "workflow: beat\ntitle: \"{{ input.at }}\"\non:\n  - schedule: { every: 1s, missed: all, input: \
         { at: \"{{ schedule.at }}\" } }\nsteps:\n  - id: note\n    action: noop\n    with: { value: 1 }\n",
    );
    // It may die before it says where it listens: its clock runs as soon as it is up.
    let mut doomed = Command::new(env!("CARGO_BIN_EXE_steward"));
    doomed.args(["up", "--listen", "127.0.0.1:0", "--workspace"]).arg(&workspace);
    doomed.env_remove("STEWARD_DATABASE_URL").env("STEWARD_FAILPOINT", failpoint::RUN_OPENED);
    let mut doomed = doomed.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let status = tokio::time::timeout(PATIENCE, doomed.wait()).await.expect("it dies").unwrap();
    assert!(!status.success());

    let process = Process::start(&workspace, None).await;
    let mut moments = eventually("three runs that are over", || async {
        let runs = process.get("/api/v1/runs?limit=100").await?;
        let over: Vec<jiff::Timestamp> = runs["runs"]
            .as_array()?
            .iter()
            .filter(|run| run["status"] == "succeeded")
            .map(|run| run["title"].as_str().unwrap().parse().unwrap())
            .collect();
        (over.len() >= 3 && over.len() == runs["runs"].as_array()?.len()).then_some(over)
    })
    .await;
    moments.sort();
    let second = |pair: &[jiff::Timestamp]| pair[1].duration_since(pair[0]).as_secs() == 1;
    assert!(moments.windows(2).all(second), "{moments:?}");
    let audit = process.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!(audit["broken"], 0, "{audit}");
    process.stop().await;
}

#[tokio::test]
async fn killed_when_a_batch_has_opened_its_run_every_input_is_in_one_run() {
    let (_folder, workspace) = only(
        "workflow: digest\ntitle: \"{{ input.items | length }} mails\"\non:\n  - email: { mailbox: leads, batch: \
         { size: 2, within: 7d } }\nsteps:\n  - id: note\n    action: noop\n    with: { value: 1 }\n",
    );
    let mail = |n: u32| {
        format!(
            "From: a@b.example\r\nTo: x@y.example\r\nMessage-ID: <{n}@b.example>\r\nSubject: {n}\r\n\r\nhello\r\n"
        )
    };
    let settings = workspace.join("config/settings.yaml");
    let text = std::fs::read_to_string(&settings).unwrap();
    if !text.contains("default_mailbox") {
        std::fs::write(&settings, format!("{text}\ndefault_mailbox: leads\n")).unwrap();
    }
    let doomed = Process::start(&workspace, Some(failpoint::RUN_OPENED)).await;
    for n in 1..=2 {
        let _ = doomed.deliver(mail(n).as_bytes()).await;
    }
    doomed.died().await;

    let process = Process::start(&workspace, None).await;
    // The sender of the second heard nothing, or cannot know: it sends again, and meets its own key.
    let run =
        eventually("the answer that names the run", || async { process.deliver(mail(2).as_bytes()).await })
            .await;
    eventually("the run being over", || async {
        let shown = process.get(&format!("/api/v1/runs/{run}")).await?;
        (shown["status"] == "succeeded").then_some(())
    })
    .await;
    let runs = process.get("/api/v1/runs").await.unwrap();
    assert_eq!((runs["runs"].as_array().unwrap().len(), &runs["runs"][0]["title"]), (1, &json!("2 mails")));
    assert_eq!(process.deliver(mail(1).as_bytes()).await, Some(run));
    process.stop().await;
}
