//! The life of a server: create the cluster, start it or adopt the one that runs, stop it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Config;
use tokio_postgres::error::SqlState;

use super::command::{lock, run, tail, tool};
use super::error::{PostgresError, io};
use super::layout::{Layout, SOCKET_FILE, Socket, short_places};
use super::locate::{Binaries, Needs, Search, Version};
use super::postmaster::{self, PidFile, Standing, signal};
use super::probe::{POLL, PROBE_LIMIT, Probe, SUPERUSER, Waited, connect, connection, probe, until_ready};
use super::{Progress, user::ServerUser};

/// A start takes a tenth of a second; a machine under heavy load some seconds.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a server that was found running may keep silent before it counts as hung.
const ADOPT_LIMIT: Duration = Duration::from_secs(10);
/// A fast shutdown writes a checkpoint: at most `shared_buffers` (128 MB) to disk.
const FAST_STOP_LIMIT: Duration = Duration::from_secs(30);
/// An immediate shutdown writes nothing; the server itself kills children after 5 s.
const IMMEDIATE_STOP_LIMIT: Duration = Duration::from_secs(8);
/// Between SIGKILL and the system having cleaned up.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// `initdb` syncs 40 MB in a thousand files; a hard disk takes a minute for that.
const INITDB_LIMIT: Duration = Duration::from_secs(5 * 60);
/// As long as another process may need to create, recover and start.
const TURN_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Backends whose server was killed end when their statement does, and until then hold the shared memory.
const ORPHANS_LIMIT: Duration = Duration::from_secs(10);
const ORPHANS_POLL: Duration = Duration::from_millis(200);
/// `create database` writes a copy of 7 MB; a slow disk takes seconds for that.
const CREATE_DATABASE_LIMIT: Duration = Duration::from_secs(60);
/// How much of the log an error quotes.
const QUOTED_LINES: usize = 12;

/// Written once into a new cluster's `postgresql.conf`, where the owner may change it.
const FIRST_SETTINGS: &str = "
# Steward's defaults for a private server on a small machine; yours to change.
max_connections = 100
jit = off
log_checkpoints = off
# After a checkpoint the first change of a page writes the whole page: compress those, and write fewer.
wal_compression = on
checkpoint_timeout = 15min
max_wal_size = 2GB
# Log files are used again instead of being filled with zeros while commits wait.
min_wal_size = 256MB
";

/// A running private PostgreSQL. Dropping it does not stop the server (the next start adopts it); [`Server::stop`]
/// does.
#[derive(Debug)]
pub struct Server {
    binaries: Binaries,
    layout: Layout,
    cluster_name: String,
    socket_dir: PathBuf,
    pid: u32,
    /// `None` for an adopted server, which is not this process's child.
    child: Option<Child>,
}

impl Server {
    /// Finds or fetches binaries, creates the cluster if there is none, and starts the server of
    /// `<state_dir>/postgres`, or adopts it if it runs already. `state_dir` is a workspace's `.steward`.
    /// `progress` gets one line before each stage that takes over a second.
    ///
    /// # Errors
    /// Each with its mend in the text: see [`PostgresError`].
    pub async fn start(state_dir: &Path, progress: Progress<'_>) -> Result<Self, PostgresError> {
        Box::pin(Self::start_with(state_dir, &Search::from_environment(), &short_places(), progress)).await
    }

    pub(super) async fn start_with(
        state_dir: &Path,
        search: &Search,
        short_places: &[PathBuf],
        progress: Progress<'_>,
    ) -> Result<Self, PostgresError> {
        let layout = Layout::open(state_dir)?;
        let _turn = lock(&layout.lock()?, TURN_LIMIT).await?;
        let data = layout.data();
        let written_by = layout.data_major()?;
        let needs = Needs {
            user: &layout.user,
            data: written_by.map(|major| (data.as_path(), major)),
            inherits: layout.closed,
        };
        let binaries = search.find(needs, progress).await?;
        if written_by.is_none() {
            progress("creating the database cluster");
            create_cluster(&layout, &binaries).await?;
        }
        let cluster_name = postmaster::cluster_name(&data)?;
        if let Some((pid, socket_dir)) = running(&layout, &cluster_name).await? {
            return Ok(Self { binaries, layout, cluster_name, socket_dir, pid, child: None });
        }
        let socket = layout.socket(short_places)?;
        sweep(&socket).await?;
        let child = launch(&layout, &binaries, &socket, &cluster_name).await?;
        let pid = child.id().unwrap_or_default();
        Ok(Self { binaries, layout, cluster_name, socket_dir: socket.dir, pid, child: Some(child) })
    }

    /// How to connect to `database`: by the socket, as the cluster's superuser, without a password.
    #[must_use]
    pub fn config(&self, database: &str) -> Config {
        connection(&self.socket_dir, database)
    }

    /// Creates `database` unless it exists; who creates it first does not matter.
    ///
    /// # Errors
    /// [`PostgresError::Sql`] when the server refuses, [`PostgresError::NotReady`] when it does not answer.
    pub async fn ensure_database(&self, database: &str) -> Result<(), PostgresError> {
        let create = async {
            let client = connect(&self.config("postgres")).await?;
            if client.query_opt("select 1 from pg_database where datname = $1", &[&database]).await?.is_some()
            {
                return Ok(());
            }
            let statement = format!("create database \"{}\"", database.replace('"', "\"\""));
            match client.batch_execute(&statement).await {
                // Two at once: the loser sees the name taken, or the catalogue's unique index broken.
                Err(error)
                    if matches!(
                        error.code(),
                        Some(&SqlState::DUPLICATE_DATABASE | &SqlState::UNIQUE_VIOLATION)
                    ) =>
                {
                    Ok(())
                }
                outcome => outcome,
            }
        };
        match timeout(CREATE_DATABASE_LIMIT, create).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(not_ready(&self.layout, 0, CREATE_DATABASE_LIMIT)),
        }
    }

    /// The server's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The folder of `pg_dump`, `psql` and the rest, matching the server.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.binaries.bin_dir
    }

    /// The version of these binaries.
    #[must_use]
    pub fn version(&self) -> Version {
        self.binaries.version
    }

    /// Whether this start found the server running, left by an earlier Steward.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.child.is_none()
    }

    /// Shuts the server down: connections are closed, then a checkpoint is written. If that takes over 30 s, it
    /// ends at once, and the next start replays the log.
    ///
    /// # Errors
    /// [`PostgresError::Stuck`] when it outlives even SIGKILL.
    pub async fn stop(mut self) -> Result<(), PostgresError> {
        let steps = [
            (Signal::INT, FAST_STOP_LIMIT),
            (Signal::QUIT, IMMEDIATE_STOP_LIMIT),
            (Signal::KILL, KILL_LIMIT),
        ];
        match &mut self.child {
            Some(child) => end_child(child, &steps).await,
            None => end_process(self.pid, &self.layout.data(), &self.cluster_name, &steps).await,
        }
    }
}

/// `initdb` works in a folder of its own, which becomes the data folder only when whole.
async fn create_cluster(layout: &Layout, binaries: &Binaries) -> Result<(), PostgresError> {
    // The second choice is for systems whose C library has no UTF-8 locale without a language.
    let mut outcome = initdb(layout, binaries, "C.UTF-8").await;
    if matches!(&outcome, Err(PostgresError::Initdb { output }) if output.contains("locale")) {
        outcome = initdb(layout, binaries, "C").await;
    }
    outcome?;
    let staging = layout.staging();
    let settings = staging.join("postgresql.conf");
    let mut file = OpenOptions::new().append(true).open(&settings).map_err(io("open", &settings))?;
    file.write_all(FIRST_SETTINGS.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io("write", &settings))?;
    fs::rename(&staging, layout.data()).map_err(io("move into place", &layout.data()))?;
    File::open(layout.home()).and_then(|home| home.sync_all()).map_err(io("sync", layout.home()))
}

async fn initdb(layout: &Layout, binaries: &Binaries, ctype: &str) -> Result<(), PostgresError> {
    let staging = layout.staging();
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(io("remove", &staging))?;
    }
    layout.create_private_for_server(&staging)?;
    let (name, working_folder, _open) = layout.working_folder(&staging)?;
    let mut initdb = tool(&binaries.bin_dir.join("initdb"), &layout.user);
    initdb.current_dir(working_folder).arg("-D").arg(name);
    initdb.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]);
    initdb.arg(format!("--username={SUPERUSER}")).arg(format!("--lc-ctype={ctype}"));
    if binaries.version.major >= 17 {
        // Sorts by code point and knows upper and lower case of all scripts, the same on every system.
        initdb.args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]);
    }
    let output = run(&mut initdb, INITDB_LIMIT).await.map_err(io("run initdb for", &staging))?;
    if output.status.success() {
        return Ok(());
    }
    Err(PostgresError::Initdb { output: tail(&String::from_utf8_lossy(&output.stderr), QUOTED_LINES) })
}

/// The server that an earlier Steward left running on this data, with its socket's folder. One that is hung is
/// ended.
async fn running(layout: &Layout, cluster_name: &str) -> Result<Option<(u32, PathBuf)>, PostgresError> {
    let data = layout.data();
    let Some(PidFile { pid, socket_dir }) = PidFile::read(&data) else { return Ok(None) };
    let socket_dir = layout.socket_of(&socket_dir.unwrap_or_else(|| PathBuf::from("../socket")));
    let config = connection(&socket_dir, "postgres");
    let standing = postmaster::standing(pid, &data, cluster_name);
    if standing == Standing::Gone {
        if probe(&config, cluster_name).await == Probe::Ready {
            return Err(PostgresError::Elsewhere { dir: data });
        }
        return disown(pid, &data).map(|()| None);
    }
    let ended =
        || (postmaster::standing(pid, &data, cluster_name) == Standing::Gone).then_some("gone".to_owned());
    match until_ready(&config, cluster_name, ADOPT_LIMIT, ended).await {
        Waited::Ready => Ok(Some((pid, socket_dir))),
        Waited::Ended(_) => Ok(None),
        Waited::Silent(_) if standing == Standing::Doubtful => {
            Err(PostgresError::Doubtful { pid, dir: data })
        }
        Waited::Silent(_) => {
            tracing::warn!(pid, "PostgreSQL left by an earlier start does not answer; ending it");
            let steps = [(Signal::QUIT, IMMEDIATE_STOP_LIMIT), (Signal::KILL, KILL_LIMIT)];
            end_process(pid, &data, cluster_name, &steps).await?;
            disown(pid, &data).map(|()| None)
        }
    }
}

/// PostgreSQL itself sees through a `postmaster.pid` whose process is gone, not through one whose id was given to
/// another process or belongs to one that its parent has yet to bury.
fn disown(pid: u32, data: &Path) -> Result<(), PostgresError> {
    if !postmaster::exists(pid) {
        return Ok(());
    }
    remove(&PidFile::path(data))
}

/// Removes what a killed server, or a copy of the workspace, left in the socket's folder: the lock there names a
/// process too. A socket that still takes connections stays, and PostgreSQL says whose it is.
async fn sweep(socket: &Socket) -> Result<(), PostgresError> {
    let path = socket.dir.join(SOCKET_FILE);
    if !matches!(timeout(PROBE_LIMIT, UnixStream::connect(&path)).await, Ok(Err(_))) {
        return Ok(());
    }
    remove(&path)?;
    remove(&socket.dir.join(format!("{SOCKET_FILE}.lock")))
}

fn remove(path: &Path) -> Result<(), PostgresError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

async fn launch(
    layout: &Layout,
    binaries: &Binaries,
    socket: &Socket,
    cluster_name: &str,
) -> Result<Child, PostgresError> {
    let started = Instant::now();
    loop {
        match launch_once(layout, binaries, socket, cluster_name).await {
            Err(PostgresError::Exited { tail, .. })
                if tail.contains("is still in use") && started.elapsed() < ORPHANS_LIMIT =>
            {
                sleep(ORPHANS_POLL).await;
            }
            outcome => return outcome,
        }
    }
}

async fn launch_once(
    layout: &Layout,
    binaries: &Binaries,
    socket: &Socket,
    cluster_name: &str,
) -> Result<Child, PostgresError> {
    let (log, begins_at) = layout.open_log()?;
    let log_again = log.try_clone().map_err(io("open", &layout.log()))?;
    let (name, working_folder, _open) = layout.working_folder(&layout.data())?;
    let program = binaries.bin_dir.join("postgres");
    let mut command = server_command(&program, &layout.user, socket, cluster_name, &name);
    command.current_dir(working_folder).stdout(log).stderr(log_again);
    let mut child = command.spawn().map_err(io("run", &program))?;
    let ended = || match child.try_wait() {
        Ok(None) => None,
        Ok(Some(status)) => Some(status.to_string()),
        Err(error) => Some(error.to_string()),
    };
    match until_ready(&connection(&socket.dir, "postgres"), cluster_name, START_LIMIT, ended).await {
        Waited::Ready => Ok(child),
        Waited::Ended(status) => {
            Err(PostgresError::Exited { status, log: layout.log(), tail: end_of_log(layout, begins_at) })
        }
        Waited::Silent(waited) => {
            let error = not_ready(layout, begins_at, waited);
            end_child(&mut child, &[(Signal::QUIT, IMMEDIATE_STOP_LIMIT), (Signal::KILL, KILL_LIMIT)])
                .await?;
            Err(error)
        }
    }
}

/// In a process group of its own, so that Ctrl-C in the terminal reaches Steward alone, which drains first.
fn server_command(
    program: &Path,
    user: &ServerUser,
    socket: &Socket,
    cluster_name: &str,
    data: &Path,
) -> Command {
    let mut command = tool(program, user);
    command.process_group(0).arg("-D").arg(data);
    let settings = [
        ("cluster_name", cluster_name),
        ("listen_addresses", ""),
        ("port", "5432"),
        ("unix_socket_directories", &socket.argument),
        ("unix_socket_permissions", "0700"),
        ("fsync", "on"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
    ];
    for (setting, value) in settings {
        command.arg("-c").arg(format!("{setting}={value}"));
    }
    command
}

async fn end_child(child: &mut Child, steps: &[(Signal, Duration)]) -> Result<(), PostgresError> {
    // Until it is waited for, a child's id is not given to another process; after that there is none.
    let Some(pid) = child.id() else { return Ok(()) };
    for (step, limit) in steps {
        signal(pid, *step);
        if timeout(*limit, child.wait()).await.is_ok() {
            return Ok(());
        }
        tracing::warn!(pid, signal = ?step, "PostgreSQL outlived a signal");
    }
    Err(PostgresError::Stuck { pid })
}

/// Ends a server that is not our child: before each signal it is proven again.
async fn end_process(
    pid: u32,
    data: &Path,
    cluster_name: &str,
    steps: &[(Signal, Duration)],
) -> Result<(), PostgresError> {
    let runs = || postmaster::standing(pid, data, cluster_name) != Standing::Gone;
    for (step, limit) in steps {
        if runs() {
            signal(pid, *step);
        }
        let started = Instant::now();
        while started.elapsed() < *limit {
            if !runs() {
                return Ok(());
            }
            sleep(POLL).await;
        }
        tracing::warn!(pid, signal = ?step, "PostgreSQL outlived a signal");
    }
    Err(PostgresError::Stuck { pid })
}

fn not_ready(layout: &Layout, log_begins_at: u64, waited: Duration) -> PostgresError {
    PostgresError::NotReady { waited, log: layout.log(), tail: end_of_log(layout, log_begins_at) }
}

/// The last lines written since `begins_at`; an unreadable log is said to be so, since this explains another error.
fn end_of_log(layout: &Layout, begins_at: u64) -> String {
    let read = || {
        let mut file = File::open(layout.log())?;
        file.seek(SeekFrom::Start(begins_at))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    match read() {
        Ok(text) => tail(&String::from_utf8_lossy(&text), QUOTED_LINES),
        Err(error) => format!("(unreadable: {error})"),
    }
}
