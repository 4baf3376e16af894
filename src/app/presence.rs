//! What a running service leaves in the workspace's state folder for clients to find: the token, which
//! all processes in one folder share, and where each of them listens.
//!
//! `address` is one line with the URL of the service that started last; `nodes/` holds a file like it
//! per process. One that stops hands `address` over to another that still answers.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use url::Url;

use crate::config::secret::{self, Secret};
use crate::domain::ids::NodeId;

/// The shortest token that is taken for one, characters; a made one has more.
const MIN_TOKEN: usize = 32;

/// How long a process on this machine may take to accept a connection.
const KNOCK: Duration = Duration::from_millis(250);

/// The announcement of one process.
pub struct Announcement {
    state: PathBuf,
    own: PathBuf,
    line: String,
}

impl Announcement {
    /// Announces where this process listens.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn make(state: &Path, node: NodeId, url: &str) -> Result<Self> {
        let nodes = state.join("nodes");
        fs::create_dir_all(&nodes).with_context(|| format!("cannot create {}", nodes.display()))?;
        let own = nodes.join(node.to_string());
        let announcement = Self { state: state.to_owned(), own, line: format!("{url}\n") };
        announcement.forget_namesakes();
        write_private(&announcement.own, &announcement.line)?;
        write_private(&announcement.address(), &announcement.line)?;
        Ok(announcement)
    }

    /// Takes the announcement back: a client hears at once that nobody serves, or finds another process.
    pub fn withdraw(&self) {
        let _ = fs::remove_file(&self.own);
        if fs::read_to_string(self.address()).is_ok_and(|line| line != self.line) {
            return; // another process started later
        }
        let handed_over = match newest(&self.state) {
            Some(line) => write_private(&self.address(), &line),
            None => fs::remove_file(self.address()).map_err(Into::into),
        };
        if let Err(error) = handed_over {
            tracing::debug!(%error, "the address could not be handed over");
        }
    }

    fn address(&self) -> PathBuf {
        self.state.join("address")
    }

    /// Whoever listened on this address before and was killed is not there any more.
    fn forget_namesakes(&self) {
        for (path, line) in announced(&self.state) {
            if line == self.line {
                let _ = fs::remove_file(path); // another start may be as fast
            }
        }
    }
}

/// Of those that still answer, the one that was announced last; what was killed is forgotten on the way.
fn newest(state: &Path) -> Option<String> {
    let changed = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
    let mut all = announced(state);
    all.sort_by_key(|(path, _)| changed(path).unwrap_or(SystemTime::UNIX_EPOCH));
    while let Some((path, line)) = all.pop() {
        if somebody_is_at(line.trim()) {
            return Some(line);
        }
        let _ = fs::remove_file(path); // another that stops may be as fast
    }
    None
}

/// Whether anybody accepts connections at a URL.
#[must_use]
pub fn somebody_is_at(url: &str) -> bool {
    let places = url.parse::<Url>().ok().and_then(|url| url.socket_addrs(|| None).ok());
    places.iter().flatten().any(|place| TcpStream::connect_timeout(place, KNOCK).is_ok())
}

/// The files of all processes that announced themselves and did not take it back, and what they say.
fn announced(state: &Path) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(state.join("nodes")).into_iter().flatten().flatten();
    let whole = entries.map(|entry| entry.path()).filter(|path| path.extension().is_none());
    whole.filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?))).collect()
}

/// The workspace's token. Whoever starts first makes it, and no two processes ever have different ones.
///
/// # Errors
/// When the file cannot be read or written.
pub fn token(state: &Path) -> Result<Secret> {
    let path = state.join("token");
    let fresh = format!("stw_{}", secret::fresh());
    let temporary = write_temporary(&path, &format!("{fresh}\n"))?;
    // A link, unlike a rename, never replaces what another process has just made.
    let made = fs::hard_link(&temporary, &path);
    let _ = fs::remove_file(&temporary);
    match made {
        Ok(()) => return Ok(Secret::new(fresh)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
    let kept = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let kept = kept.trim();
    if kept.len() < MIN_TOKEN {
        bail!("{} holds no token: remove the file, and the next start makes a new one", path.display());
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(Secret::new(kept.to_owned()))
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(path: &Path, content: &str) -> Result<()> {
    let temporary = write_temporary(path, content)?;
    fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

/// A name of its own for every writer: processes in different containers may have the same id.
fn write_temporary(path: &Path, content: &str) -> Result<PathBuf> {
    let temporary = path.with_extension(format!("{:016x}.tmp", rand::random::<u64>()));
    let write = || -> io::Result<()> {
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", temporary.display()))?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn node(n: u128) -> NodeId {
        NodeId(Uuid::from_u128(n))
    }

    /// Somebody who answers, and where.
    fn listening() -> (std::net::TcpListener, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (listener, url)
    }

    fn address(state: &Path) -> Option<String> {
        fs::read_to_string(state.join("address")).ok().map(|line| line.trim().to_owned())
    }

    #[test]
    fn processes_that_start_at_once_share_one_token() {
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let state = folder.path().to_owned();
            std::thread::spawn(move || token(&state).unwrap().expose().to_owned())
        };
        let threads: Vec<_> = (0..8).map(|_| start()).collect();
        let tokens: Vec<String> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(tokens.iter().all(|token| *token == tokens[0] && token.len() > MIN_TOKEN));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the token");
    }

    #[test]
    fn a_file_that_holds_no_token_is_named_with_the_mend() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "short").unwrap();
        let error = token(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("remove the file, and the next start makes a new one"), "{error}");
    }

    #[test]
    fn the_address_is_the_last_starters_and_is_handed_over_when_it_stops() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let ((_a, a), (killed, b), (_c, c)) = (listening(), listening(), listening());
        let first = Announcement::make(state, node(1), &a).unwrap();
        let _killed = Announcement::make(state, node(2), &b).unwrap();
        drop(killed);
        let last = Announcement::make(state, node(3), &c).unwrap();
        assert_eq!(address(state).unwrap(), c);
        last.withdraw();
        assert_eq!(address(state).unwrap(), a, "the one between does not answer any more");
        first.withdraw();
        assert_eq!(address(state), None);
    }

    #[test]
    fn one_that_stops_leaves_the_address_of_a_later_one_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let first = Announcement::make(state, node(1), "http://127.0.0.1:1").unwrap();
        let _second = Announcement::make(state, node(2), "http://127.0.0.1:2").unwrap();
        first.withdraw();
        assert_eq!(address(state).unwrap(), "http://127.0.0.1:2");
    }

    #[test]
    fn what_a_killed_process_left_on_the_same_address_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let _killed = Announcement::make(state, node(1), "http://127.0.0.1:1").unwrap();
        let next = Announcement::make(state, node(2), "http://127.0.0.1:1").unwrap();
        next.withdraw();
        assert_eq!(address(state), None);
    }
}
