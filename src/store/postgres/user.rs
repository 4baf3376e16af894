//! Whom the server runs as. PostgreSQL refuses root, so root hands it to an ordinary user; everyone else runs it
//! themselves.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::error::{PostgresError, io};

/// Whom root runs the server as, in order of preference.
const UNPRIVILEGED: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// The user the server runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) name: String,
    /// Whether this process is root and has to become that user.
    pub(super) other: bool,
}

impl ServerUser {
    /// For an ordinary user: themselves. For root: the owner of the first of `folders` that exists and is not
    /// root's (so the owner of a workspace can go on without root), else a user made for such work.
    pub(super) fn choose(folders: &[&Path]) -> Result<Self, PostgresError> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if uid != 0 {
            return Ok(Self { uid, gid, name: uid.to_string(), other: false });
        }
        let passwd = Path::new("/etc/passwd");
        let passwd = fs::read_to_string(passwd).map_err(io("read", passwd))?;
        let owners = folders.iter().filter_map(|folder| fs::metadata(folder).ok()).map(|found| found.uid());
        Self::for_root(&passwd, owners).ok_or(PostgresError::NoServerUser)
    }

    /// `initdb` wants its user in the password file, hence an owner who is not there is passed over.
    pub(super) fn for_root(passwd: &str, owners: impl Iterator<Item = u32>) -> Option<Self> {
        let users: Vec<Self> = passwd.lines().filter_map(entry).filter(|user| user.uid != 0).collect();
        let owner = owners.into_iter().find_map(|uid| users.iter().find(|user| user.uid == uid));
        let made_for_it =
            || UNPRIVILEGED.iter().find_map(|name| users.iter().find(|user| user.name == *name));
        owner.or_else(made_for_it).cloned()
    }

    /// Makes `command` run as this user. The supplementary groups of root are dropped with it.
    pub(super) fn assume(&self, command: &mut Command) {
        if self.other {
            command.gid(self.gid).uid(self.uid);
        }
    }

    /// Gives `path` to this user, never following a link: root would hand over whatever it points at.
    pub(super) fn own(&self, path: &Path) -> Result<(), PostgresError> {
        if !self.other {
            return Ok(());
        }
        lchown(path, Some(self.uid), Some(self.gid)).map_err(io("change the owner of", path))
    }

    /// The first folder on the way to (and including) `path` that this user may not pass through. Folders that
    /// do not exist yet are not in the way: whoever creates them opens them.
    pub(super) fn barrier(&self, path: &Path) -> Option<PathBuf> {
        if !self.other {
            return None;
        }
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        way.into_iter()
            .find(|folder| fs::metadata(folder).is_ok_and(|found| !self.may_pass(&found)))
            .map(Path::to_owned)
    }

    fn may_pass(&self, folder: &fs::Metadata) -> bool {
        let search = if folder.uid() == self.uid {
            0o100
        } else if folder.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        folder.permissions().mode() & search != 0
    }
}

fn entry(line: &str) -> Option<ServerUser> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(ServerUser { uid, gid, name, other: true })
}
