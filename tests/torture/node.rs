//! One process of the real binary, to be killed, paused and replaced.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a start may take on a slow, busy machine.
const START: Duration = Duration::from_secs(60);

pub struct Node {
    child: Child,
    pub url: String,
    pub token: String,
}

impl Node {
    /// Spawns `steward up`; it need not live to see the end of its own start.
    pub fn spawn(workspace: &Path, log: &Path, variables: &[(String, String)]) -> Result<Starting> {
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        let child = Command::new(env!("CARGO_BIN_EXE_steward"))
            .args(["up", "--listen", "127.0.0.1:0", "--workspace"])
            .arg(workspace)
            .env_remove("STEWARD_FAILPOINT")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Starting { child, workspace: workspace.to_owned() })
    }

    pub fn signal(&self, signal: Signal) {
        signal_child(&self.child, signal);
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
    }

    /// Whether it died by itself within this time.
    pub async fn dies_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.child.wait()).await.is_ok()
    }

    /// Whether it stops (SIGSTOP) by itself within this time. Where there is no /proc, nobody can tell.
    pub async fn stands_still_within(&self, time: Duration) -> bool {
        let stands_still = async {
            while !self.stands_still() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(time, stands_still).await.is_ok()
    }

    fn stands_still(&self) -> bool {
        let Some(pid) = self.child.id() else { return false };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    pub fn is_dead(&mut self) -> bool {
        self.child.try_wait().map_or(true, |ended| ended.is_some())
    }

    /// SIGTERM: it drains and ends in order.
    pub async fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let status = tokio::time::timeout(START, self.child.wait()).await.context("it does not stop")??;
        if !status.success() {
            bail!("it stopped with {status}");
        }
        Ok(())
    }
}

/// A process that does not serve yet.
pub struct Starting {
    child: Child,
    workspace: PathBuf,
}

impl Starting {
    /// Waits until it serves; `None` when it died before.
    pub async fn serving(mut self) -> Result<Option<Node>> {
        let stdout = self.child.stdout.take().context("its output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let url = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(at) = line.find("http://") {
                    return line[at..].split_whitespace().next().map(str::to_owned);
                }
            }
            None
        };
        let url = tokio::time::timeout(START, url).await.context("it neither serves nor dies")?;
        let Some(url) = url else {
            let _ = self.child.wait().await;
            return Ok(None);
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let token = std::fs::read_to_string(self.workspace.join(".steward/token"))?.trim().to_owned();
        Ok(Some(Node { child: self.child, url, token }))
    }
}

fn signal_child(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        let _ = kill_process(pid, signal); // it may be gone already
    }
}
