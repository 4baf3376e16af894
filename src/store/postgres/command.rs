//! Child processes: a clean environment for PostgreSQL's tools, a time-out for every tool, a turn-taking file lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::error::{PostgresError, io};
use super::user::ServerUser;

/// All that PostgreSQL needs of our environment. The rest may hold the owner's keys, or `PG*` settings meant for
/// another server.
const KEPT_ENVIRONMENT: [&str; 6] = ["PATH", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// How often a lock held by another process is tried again.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// A PostgreSQL program, to be run as the server's user. The working folder is `/`, because ours may be closed to
/// that user.
pub(super) fn tool(program: &Path, user: &ServerUser) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").stdin(Stdio::null());
    for name in KEPT_ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    user.assume(&mut command);
    command
}

/// Runs a program to its end and collects what it said; it is killed when `limit` passes.
pub(super) async fn run(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let running = command.kill_on_drop(true).output();
    timeout(limit, running).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
}

/// The last `lines` lines of what a program or a log said.
pub(super) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Takes the lock of `path`, waiting at most `limit` for another process or task; dropping the file gives it back.
pub(super) async fn lock(path: &Path, limit: Duration) -> Result<File, PostgresError> {
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(io("open", path))?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if started.elapsed() < limit => sleep(LOCK_POLL).await,
            Err(TryLockError::WouldBlock) => {
                return Err(PostgresError::Locked { path: path.to_owned(), waited: limit });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock", path)(error)),
        }
    }
}
