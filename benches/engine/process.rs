//! The real binary, and what the system says about processes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use steward::config::template;
use steward::store::postgres::Server;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// `steward up` on a workspace.
pub(crate) struct Process {
    child: Child,
    url: String,
    token: String,
    client: reqwest::Client,
}

impl Process {
    pub(crate) async fn start(workspace: &Path, database: Option<&Config>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steward"));
        command
            .args(["up", "--listen", "127.0.0.1:0", "--workspace"])
            .arg(workspace)
            .env_remove("STEWARD_DATABASE_URL")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if let Some(database) = database {
            command.env("STEWARD_DATABASE_URL", url(database));
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

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.token).json(body);
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or_default();
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// A workspace with one workflow.
pub(crate) fn workspace(folder: &Path, workflow: &str) {
    template::write(folder).unwrap();
    let workflows = folder.join("config/workflows");
    for file in std::fs::read_dir(&workflows).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    std::fs::write(workflows.join("bench.yaml"), workflow).unwrap();
}

/// A database as the binary is told of it.
fn url(config: &Config) -> String {
    let Host::Unix(folder) = &config.get_hosts()[0] else { panic!("the bench's server has a socket") };
    let (user, database) = (config.get_user().unwrap(), config.get_dbname().unwrap());
    format!("host='{}' user='{user}' dbname='{database}'", folder.display())
}

/// The resident memory of a process, MB.
pub(crate) fn resident_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Processor seconds: of this process, and of the server with its backends.
pub(crate) fn cpu_secs(server: &Server) -> (f64, f64) {
    let mut database = 0.0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some((parent, own, buried)) = cpu_of(pid)
            && (parent == server.pid() || pid == server.pid())
        {
            database += own + buried;
        }
    }
    (cpu_of(std::process::id()).map_or(0.0, |(_, own, _)| own), database)
}

/// A process's parent, its processor seconds and those of its children that have ended; the clock ticks 100
/// times a second on Linux.
fn cpu_of(pid: u32) -> Option<(u32, f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let secs = |at: usize| Some(fields.get(at)?.parse::<f64>().ok()? / 100.0);
    Some((fields.get(1)?.parse().ok()?, secs(11)? + secs(12)?, secs(13)? + secs(14)?))
}
