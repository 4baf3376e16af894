//! The process behind `postmaster.pid`: whose it is, and signals to it.
//!
//! Process ids are reused, workspaces are copied and moved. So a cluster carries a name of its own, made of the
//! system identifier `initdb` gave it; the server is started with that name on its command line, where any user can
//! read it, and answers `show cluster_name` with it.

use std::fs;
#[cfg(target_os = "linux")]
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::error::{PostgresError, io};

/// What this module needs of `postmaster.pid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: u32,
    /// The socket's folder as the server was told it: absolute, or relative to the data folder.
    pub(super) socket_dir: Option<PathBuf>,
}

impl PidFile {
    /// `None` when there is none, or it is still being written.
    pub(super) fn read(data: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(Self::path(data)).ok()?)
    }

    pub(super) fn path(data: &Path) -> PathBuf {
        data.join("postmaster.pid")
    }

    /// Line 1 is the process, line 5 the first socket folder (`miscadmin.h`, "data directory lock file").
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok().filter(|pid| *pid > 0)?;
        let socket_dir = lines.nth(3).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        Some(Self { pid, socket_dir })
    }
}

/// How a process stands to a data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Proven to be the server of this data folder.
    Ours,
    /// Bears this cluster's name, but which copy of the data folder it serves cannot be seen.
    Doubtful,
    /// Not this cluster's server, or no process at all.
    Gone,
}

/// The name of the cluster in `data`: the first eight bytes of `pg_control` are the system identifier.
pub(super) fn cluster_name(data: &Path) -> Result<String, PostgresError> {
    let path = data.join("global/pg_control");
    let control = fs::read(&path).map_err(io("read", &path))?;
    let id = control.first_chunk::<8>().ok_or(PostgresError::DataVersion { path })?;
    Ok(format!("steward-{:016x}", u64::from_ne_bytes(*id)))
}

/// Judges process `pid` by its command line and, where the system shows it, by its working folder, which for a
/// server is always its data folder.
pub(super) fn standing(pid: u32, data: &Path, cluster_name: &str) -> Standing {
    let Some(command_line) = command_line(pid) else { return Standing::Gone };
    if !command_line.contains(&format!("cluster_name={cluster_name}")) {
        return Standing::Gone;
    }
    match works_in(pid, data) {
        Some(true) => Standing::Ours,
        Some(false) => Standing::Gone,
        None if command_line.contains(&format!("-D {} ", data.display())) => Standing::Ours,
        None => Standing::Doubtful,
    }
}

/// Whether any process has this id.
pub(super) fn exists(pid: u32) -> bool {
    raw(pid).is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
}

/// Sends `signal`. A process that is already gone is what the sender wanted.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(target) = raw(pid)
        && let Err(error) = kill_process(target, signal)
    {
        tracing::debug!(pid, ?signal, %error, "signal not delivered");
    }
}

fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[cfg(target_os = "linux")]
fn command_line(pid: u32) -> Option<String> {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&arguments).replace('\0', " "))
}

#[cfg(not(target_os = "linux"))]
fn command_line(pid: u32) -> Option<String> {
    let shown = std::process::Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    shown.status.success().then(|| String::from_utf8_lossy(&shown.stdout).into_owned())
}

/// `None` where that cannot be seen: a container's root may lack the right to look at another user's process.
#[cfg(target_os = "linux")]
fn works_in(pid: u32, data: &Path) -> Option<bool> {
    let cwd = fs::metadata(format!("/proc/{pid}/cwd")).ok()?;
    let data = fs::metadata(data).ok()?;
    Some((cwd.dev(), cwd.ino()) == (data.dev(), data.ino()))
}

#[cfg(not(target_os = "linux"))]
fn works_in(_pid: u32, _data: &Path) -> Option<bool> {
    None
}
