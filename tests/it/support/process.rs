//! The real binary, serving a workspace in a process of its own, to be paused, killed and started again.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::PATIENCE;

/// Set it to see what the processes log.
const SHOW_LOG: &str = "STEWARD_IT_LOG";

/// The real binary, serving a workspace. Dropped, it is killed.
pub struct Process {
    child: Child,
    pub url: String,
    pub token: String,
    pub client: reqwest::Client,
}

impl Process {
    /// Starts `steward up` over the workspace's own database, armed with a failpoint if one is named.
    pub async fn start(workspace: &Path, failpoint: Option<&str>) -> Self {
        let armed = failpoint.map(|name| ("STEWARD_FAILPOINT", name));
        Self::start_with(workspace, armed.as_slice()).await
    }

    /// Starts `steward up` with these variables in its environment, and waits until it listens.
    pub async fn start_with(workspace: &Path, variables: &[(&str, &str)]) -> Self {
        let log = if std::env::var_os(SHOW_LOG).is_some() { Stdio::inherit() } else { Stdio::null() };
        Self::start_logged(workspace, variables, log).await
    }

    /// As [`Process::start_with`]; what it says about itself goes there.
    pub async fn start_logged(workspace: &Path, variables: &[(&str, &str)], log: Stdio) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut child = Command::new(env!("CARGO_BIN_EXE_steward"))
            .args(["up", "--listen", "127.0.0.1:0", "--workspace"])
            .arg(workspace)
            .env_remove("STEWARD_DATABASE_URL")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
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
    pub async fn get(&self, path: &str) -> Option<Value> {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.token);
        request.send().await.ok()?.json().await.ok()
    }

    /// `None` when the process died before it answered.
    pub async fn post(&self, path: &str, body: Value) -> Option<Value> {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.token);
        request.json(&body).send().await.ok()?.json().await.ok()
    }

    /// Hands a raw email in at the door; the id of its run.
    pub async fn deliver(&self, raw: &[u8]) -> Option<String> {
        let request = self.client.post(format!("{}/hooks/email", self.url)).bearer_auth(&self.token);
        let answer: Value = request.body(raw.to_vec()).send().await.ok()?.json().await.ok()?;
        Some(answer["run"].as_str()?.to_owned())
    }

    /// Decides a review; `None` when the process died before it answered.
    pub async fn decide(&self, review: &Value, decision: Value) -> Option<()> {
        self.post(&format!("/api/v1/reviews/{}/decision", review["id"].as_str()?), decision).await.map(drop)
    }

    /// Approves exactly what a review asks.
    pub async fn approve(&self, review: &Value) -> Option<()> {
        self.decide(review, json!({"verdict": "approved", "digest": review["digest"]})).await
    }

    /// The first open review, of this run if one is named.
    pub async fn open_review(&self, run: Option<&str>) -> Option<Value> {
        let reviews = self.get("/api/v1/reviews?status=open&limit=100").await?;
        let fits = |review: &&Value| run.is_none_or(|run| review["run"] == run);
        reviews["reviews"].as_array()?.iter().find(fits).cloned()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().expect("it lives").cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGSTOP: it stands still until [`Process::resume`].
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(self) {
        self.signal(Signal::KILL);
        self.died().await;
    }

    /// Waits for the end, however it comes.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }

    /// Waits until it has died.
    pub async fn died(mut self) {
        let status = self.ended().await;
        assert!(!status.success());
    }

    /// SIGTERM; it ends in order.
    pub async fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert!(status.success(), "{status}");
    }
}
