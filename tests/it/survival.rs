//! The real binary is killed at the places that matter, and started again: the run finishes, the
//! mail arrives once or the owner is asked, every chain verifies.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use steward::config::template;
use steward::orchestrator::failpoint;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::smtp::MailServer;
use crate::support::{PATIENCE, database, eventually, example_email};

/// The real binary, serving a workspace.
struct Process {
    child: Child,
    url: String,
    token: String,
    client: reqwest::Client,
}

impl Process {
    async fn start(workspace: &Path, failpoint: Option<&str>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut command = Command::new(env!("CARGO_BIN_EXE_steward"));
        command
            .args(["up", "--listen", "127.0.0.1:0", "--workspace"])
            .arg(workspace)
            .env_remove("STEWARD_DATABASE_URL")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if let Some(name) = failpoint {
            command.env("STEWARD_FAILPOINT", name);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = tokio::time::timeout(PATIENCE, async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it says where it listens");
                if let Some(at) = line.find("http://") {
                    return line[at..].split_whitespace().next().unwrap().to_owned();
                }
            }
        });
        let url = url.await.expect("it starts");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let token = std::fs::read_to_string(workspace.join(".steward/token")).unwrap().trim().to_owned();
        Self { child, url, token, client: reqwest::Client::new() }
    }

    /// `None` when the process died before it answered.
    async fn get(&self, path: &str) -> Option<Value> {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.token);
        request.send().await.ok()?.json().await.ok()
    }

    async fn deliver(&self, raw: &[u8]) -> Option<String> {
        let request = self.client.post(format!("{}/hooks/email", self.url)).bearer_auth(&self.token);
        let answer: Value = request.body(raw.to_vec()).send().await.ok()?.json().await.ok()?;
        Some(answer["run"].as_str()?.to_owned())
    }

    async fn decide(&self, review: &Value, decision: Value) -> Option<()> {
        let path = format!("{}/api/v1/reviews/{}/decision", self.url, review["id"].as_str()?);
        self.client.post(path).bearer_auth(&self.token).json(&decision).send().await.ok().map(drop)
    }

    async fn died(mut self) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it dies").unwrap();
        assert!(!status.success());
    }

    async fn stop(mut self) {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it stops").unwrap();
        assert!(status.success(), "{status}");
    }
}

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
    assert_eq!(asked_in_doubt, doubtful, "killed at {name}: the owner is asked just where nobody can know");
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
