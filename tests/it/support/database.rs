//! One server for the whole binary, started through the product's own code; a database per test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use steward::store::postgres::Server;
use steward::store::{Store, migrate};
use tokio::sync::OnceCell;
use tokio_postgres::config::Host;
use tokio_postgres::{Config, NoTls};

static SERVER: OnceCell<Shared> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

struct Shared {
    server: Server,
}

/// A migrated, empty database of one's own.
pub async fn database() -> Store {
    Store::new(config().await).unwrap()
}

/// How to reach a migrated, empty database of one's own.
pub async fn config() -> Config {
    let shared = SERVER.get_or_init(start).await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    admin(shared, &format!("create database {name} template template_steward strategy file_copy")).await;
    shared.server.config(&name)
}

/// The URL of a database that this binary's server has, as `STEWARD_DATABASE_URL` takes it.
pub fn url(config: &Config) -> String {
    let host = match config.get_hosts() {
        [Host::Unix(folder)] => folder.to_string_lossy().replace('/', "%2F"),
        hosts => panic!("not this binary's server: {hosts:?}"),
    };
    let user = config.get_user().unwrap_or("postgres");
    format!("postgresql://{user}@{host}/{}", config.get_dbname().unwrap())
}

async fn admin(shared: &Shared, statement: &str) {
    let (client, connection) = shared.server.config("postgres").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(statement).await.unwrap();
}

async fn start() -> Shared {
    // A thread and runtime of its own: the test that starts the server ends before the others do.
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = runtime.block_on(start_server());
        let _ = send.send(shared);
        runtime.block_on(std::future::pending::<()>());
    });
    receive.await.unwrap()
}

async fn start_server() -> Shared {
    let folder = std::env::temp_dir().join(format!("steward-it-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let server = Server::start(&folder, &|line| eprintln!("postgres: {line}")).await.unwrap();
    stop_with_us(server.pid(), &folder);
    server.ensure_database("template_steward").await.unwrap();
    migrate::migrate(&server.config("template_steward")).await.unwrap();
    Shared { server }
}

/// A test binary has no hook for its end: a shell that reads our pipe sees it close, however we end.
fn stop_with_us(pid: u32, folder: &Path) {
    let script = "read line; kill -INT $0; n=0; \
                  while kill -0 $0 2>/dev/null && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done; rm -rf -- \"$1\"";
    let mut child = Command::new("sh")
        .args(["-c", script, &pid.to_string()])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.flush().unwrap();
    std::mem::forget(pipe); // closed by the kernel when this process ends
    std::thread::spawn(move || child.wait());
}

/// A folder of one's own, removed when dropped.
pub fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}
