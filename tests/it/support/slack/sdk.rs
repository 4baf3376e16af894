//! Slack's own library for Python, at a pinned version with a pinned digest, fetched once with the local pip
//! into the user's cache.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const REQUIREMENT: &str = "slack-sdk==3.48.0 \
    --hash=sha256:1213726e5b8015eeded608fcb3665c4e9b48af7f7f383ecc1b90af886d6aaa03\n";
const SCRIPT: &str = include_str!("sdk.py");

/// What is missing when it is.
const NEEDED: &str = "our messages are held against Slack's own Python library: this test needs `python3` with \
    pip, and a package index once (Debian: apt install python3-pip)";

fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.unwrap_or_else(std::env::temp_dir).join("steward").join("slack-sdk-3.48.0")
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{NEEDED}: python3: {error}"))
}

/// The folder with the library in it. Two that fetch it at once each do, and one of them is used.
fn library() -> PathBuf {
    let library = cache();
    if library.join("slack_sdk").is_dir() {
        return library;
    }
    let parent = library.parent().unwrap();
    std::fs::create_dir_all(parent).unwrap();
    let work = tempfile::tempdir_in(parent).unwrap();
    let requirements = work.path().join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENT).unwrap();
    let target = work.path().join("library");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-deps"]);
    pip.args(["--require-hashes", "--only-binary=:all:", "--target"])
        .arg(&target)
        .arg("-r")
        .arg(&requirements);
    let said = run(&mut pip);
    assert!(said.status.success(), "{NEEDED}: {}", String::from_utf8_lossy(&said.stderr));
    if std::fs::rename(&target, &library).is_err() {
        assert!(library.join("slack_sdk").is_dir(), "{} cannot be made", library.display());
    }
    library
}

/// Does one of the jobs of `sdk.py`, off the runtime's threads.
pub async fn job(job: Value) -> Value {
    tokio::task::spawn_blocking(move || {
        let mut python = Command::new("python3");
        python.args(["-c", SCRIPT]).env("PYTHONPATH", library()).env("PYTHONDONTWRITEBYTECODE", "1");
        python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut python = python.spawn().unwrap_or_else(|error| panic!("{NEEDED}: python3: {error}"));
        python.stdin.take().unwrap().write_all(job.to_string().as_bytes()).unwrap();
        let said = python.wait_with_output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        serde_json::from_slice(&said.stdout).unwrap()
    })
    .await
    .unwrap()
}
