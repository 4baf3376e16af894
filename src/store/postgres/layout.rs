//! The folders under `.steward/postgres`: `data`, `socket`, `log`, `lock`, and `data.new` while a cluster is made.
//!
//! When root runs the server as a user made for it, the folder itself stays root's, so that this user cannot
//! put a link where root will write.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::error::{PostgresError, io};
use super::user::ServerUser;

/// The longest socket path every system binds: `sun_path` holds 104 bytes on macOS (108 on Linux), the last is NUL.
const SOCKET_PATH_LIMIT: usize = 103;
/// The name PostgreSQL gives its socket for port 5432, which is fixed here since there is no TCP to collide with.
pub(super) const SOCKET_FILE: &str = ".s.PGSQL.5432";
/// Above this size the log is begun anew at the next start.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;
/// A data folder as its own server sees it, when the absolute path is closed to that server: see [`Layout::closed`].
const INHERITED: &str = "/proc/self/cwd";

/// Where everything of one workspace's server is, and whom it belongs to.
#[derive(Debug)]
pub(super) struct Layout {
    /// `<workspace>/.steward/postgres`, absolute and free of links.
    home: PathBuf,
    pub(super) user: ServerUser,
    /// A folder above is closed to the server's user (as root's home is). The server then inherits its working
    /// folder, which needs no way there, and knows its data by [`INHERITED`].
    pub(super) closed: bool,
    /// Whether the folder itself belongs to the server's user too.
    shared: bool,
}

/// The socket's folder, as clients and as the server call it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) dir: PathBuf,
    pub(super) argument: String,
}

impl Layout {
    /// Creates the folder if needed and decides whom the server runs as.
    pub(super) fn open(state_dir: &Path) -> Result<Self, PostgresError> {
        fs::create_dir_all(state_dir).map_err(io("create", state_dir))?;
        let state_dir = fs::canonicalize(state_dir).map_err(io("resolve", state_dir))?;
        let home = state_dir.join("postgres");
        let user = ServerUser::choose(&[&home.join("data"), &state_dir])?;
        let shared = !user.other || fs::metadata(&state_dir).is_ok_and(|found| found.uid() == user.uid);
        let barrier = user.barrier(&state_dir);
        if let Some(folder) = barrier.as_ref().filter(|_| !cfg!(target_os = "linux")) {
            return Err(PostgresError::Untraversable { folder: folder.clone(), user: user.name });
        }
        let layout = Self { home, user, closed: barrier.is_some(), shared };
        layout.prepare()?;
        Ok(layout)
    }

    fn prepare(&self) -> Result<(), PostgresError> {
        let home = &self.home;
        create_private(home).map_err(io("create", home))?;
        if self.shared {
            self.user.own(home)?;
        }
        if let Ok(data) = fs::metadata(self.data())
            && data.uid() != self.user.uid
        {
            return Err(PostgresError::Foreign { dir: self.data(), owner: data.uid() });
        }
        let mode = if self.shared { 0o700 } else { 0o711 };
        fs::set_permissions(home, Permissions::from_mode(mode)).map_err(io("set the permissions of", home))
    }

    pub(super) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Where `initdb` works; renamed to [`Layout::data`] when whole.
    pub(super) fn staging(&self) -> PathBuf {
        self.home.join("data.new")
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    pub(super) fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// The lock that lets one process at a time start the server.
    pub(super) fn lock(&self) -> Result<PathBuf, PostgresError> {
        let path = self.home.join("lock");
        self.open_own(&path)?;
        Ok(path)
    }

    /// The major version that wrote the data; `None` when there is no cluster yet.
    pub(super) fn data_major(&self) -> Result<Option<u32>, PostgresError> {
        let path = self.data().join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| PostgresError::DataVersion { path }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    /// The log, opened to append, and its length so far.
    pub(super) fn open_log(&self) -> Result<(File, u64), PostgresError> {
        let path = self.log();
        let file = self.open_own(&path)?;
        let mut length = file.metadata().map_err(io("read", &path))?.len();
        if length > LOG_LIMIT {
            file.set_len(0).map_err(io("truncate", &path))?;
            length = 0;
        }
        Ok((file, length))
    }

    /// What the server of `folder` is to call it, and the working folder to start that server in. The returned
    /// file, if any, must stay open until the process is spawned.
    pub(super) fn working_folder(
        &self,
        folder: &Path,
    ) -> Result<(PathBuf, PathBuf, Option<File>), PostgresError> {
        use std::os::fd::AsRawFd;
        if !self.closed {
            return Ok((folder.to_owned(), folder.to_owned(), None));
        }
        let open = File::open(folder).map_err(io("open", folder))?;
        let through = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        Ok((PathBuf::from(INHERITED), through, Some(open)))
    }

    /// The socket's folder, created: in the workspace when the path is short enough, else in a private folder
    /// under one of `short_places`, named after the workspace.
    pub(super) fn socket(&self, short_places: &[PathBuf]) -> Result<Socket, PostgresError> {
        let near = self.home.join("socket");
        if fits(&near) {
            self.create_private_for_server(&near)?;
            return Ok(Socket { dir: near, argument: "../socket".to_owned() });
        }
        let digest = Sha256::digest(self.home.as_os_str().as_bytes());
        let name = format!("steward-{}", hex::encode(&digest[..8]));
        let mut tried = Vec::new();
        for place in short_places {
            let dir = place.join(&name);
            if !place.is_dir() || !fits(&dir) || self.user.barrier(place).is_some() {
                continue;
            }
            match self.create_private_for_server(&dir) {
                Ok(()) => return Ok(Socket { argument: quoted(&dir), dir }),
                Err(error) => tried.push(error.to_string()),
            }
        }
        let detail = if tried.is_empty() {
            "no short folder is open to the server".to_owned()
        } else {
            tried.join("; ")
        };
        Err(PostgresError::Socket { detail })
    }

    /// Where a running server said its socket is.
    pub(super) fn socket_of(&self, told: &Path) -> PathBuf {
        if told == Path::new("../socket") { self.home.join("socket") } else { self.data().join(told) }
    }

    /// Anyone can make a folder of that name in a shared place first, hence what is found is checked, not trusted.
    pub(super) fn create_private_for_server(&self, dir: &Path) -> Result<(), PostgresError> {
        if create_private(dir).map_err(io("create", dir))? {
            return self.user.own(dir);
        }
        let found = fs::symlink_metadata(dir).map_err(io("read", dir))?;
        if found.is_dir() && found.uid() == self.user.uid && found.mode() & 0o077 == 0 {
            return Ok(());
        }
        Err(PostgresError::Socket {
            detail: format!("{} exists and is not private to the server", dir.display()),
        })
    }

    fn open_own(&self, path: &Path) -> Result<File, PostgresError> {
        let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600).custom_flags(no_link);
        let file = options.open(path).map_err(io("open", path))?;
        if self.shared {
            self.user.own(path)?;
        }
        Ok(file)
    }
}

/// Private folders with short paths, best first.
pub(super) fn short_places() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]).collect()
}

fn fits(dir: &Path) -> bool {
    dir.join(SOCKET_FILE).as_os_str().len() <= SOCKET_PATH_LIMIT
}

/// The server splits its list of socket folders at commas unless a name is quoted.
fn quoted(dir: &Path) -> String {
    format!("\"{}\"", dir.display().to_string().replace('"', "\"\""))
}

/// Whether the folder was created just now.
fn create_private(dir: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}
