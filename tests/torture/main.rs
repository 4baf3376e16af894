//! The crash harness: the real binary, real PostgreSQL, several workflows in flight, and everything
//! that goes wrong with machines. After each lane the one checker of the invariants looks at the
//! database and at what customers, owner and receivers saw.
//!
//! - `plan` draws faults from a seed; `lane` carries a plan out, lets all come to rest, and checks;
//! - `database`, `proxy`, `disk`, `node` are what breaks; `peers` and `people` are who it is done to;
//! - `workspace` is what runs meanwhile.
//!
//! `cargo test --test torture` is one round. `script/torture --minutes N --seed S` goes on and on.
//! A word on the command line picks the lanes whose names hold it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub
)]

mod database;
mod disk;
mod lane;
mod node;
mod peers;
mod people;
mod plan;
mod proxy;
mod workspace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use database::Database;
use disk::Disk;
use lane::{Counts, LEASE, Lane, Setup};
use plan::{Fault, dice};

/// The seed of a round that nobody gave one: every change meets the same plan.
const SEED: u64 = 20_260_801;

/// Lanes at a time: more would take turns on two cores, and wait for each other.
const AT_A_TIME: usize = 3;

/// What one lane does.
struct Kind {
    name: &'static str,
    nodes: usize,
    /// By how many seconds the last node's clock is off.
    skew: i64,
    /// Whether it breaks the server itself, and so needs one of its own.
    own_server: bool,
    /// Whether receivers honour our keys, as they say. The lane in which they lie must be found wanting.
    honest: bool,
    faults: usize,
    draw: fn(&mut StdRng) -> Fault,
}

/// A lane of one node that is killed.
const KILLS: Kind =
    Kind { name: "", nodes: 1, skew: 0, own_server: false, honest: true, faults: 52, draw: plan::kill };

/// Together: 208 kills, 10 restarts of the database, more than 120 cuts, 20 pauses, and a full disk
/// where there can be one; and receivers that lie. The longest lanes begin first.
const LANES: [Kind; 11] = [
    Kind { name: "kills-1", ..KILLS },
    Kind { name: "kills-2", ..KILLS },
    Kind { name: "kills-3", nodes: 2, ..KILLS },
    Kind { name: "kills-4", nodes: 2, ..KILLS },
    Kind { name: "restarts", nodes: 2, own_server: true, faults: 10, draw: plan::database, ..KILLS },
    Kind { name: "pauses-ahead", nodes: 3, skew: 3600, faults: 10, draw: pause, ..KILLS },
    Kind { name: "pauses-behind", nodes: 3, skew: -3600, faults: 10, draw: pause, ..KILLS },
    Kind { name: "cuts-1", nodes: 2, faults: 60, draw: plan::cut, ..KILLS },
    Kind { name: "cuts-2", faults: 60, draw: plan::cut, ..KILLS },
    Kind { name: DISK, own_server: true, faults: 4, draw: plan::disk_full, ..KILLS },
    Kind { name: "a-lie", honest: false, faults: 8, ..KILLS },
];

const DISK: &str = "disk";

fn pause(dice: &mut StdRng) -> Fault {
    plan::pause(dice, 3, LEASE)
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if std::env::args().any(|arg| arg == "--list") {
        LANES.iter().for_each(|kind| println!("{}: test", kind.name));
        return ExitCode::SUCCESS;
    }
    let kinds: Vec<&'static Kind> = LANES
        .iter()
        .filter(|kind| wanted.is_empty() || wanted.iter().any(|word| kind.name.contains(word.as_str())))
        .collect();
    if kinds.is_empty() {
        return ExitCode::SUCCESS; // the filter is meant for another test binary
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match runtime.block_on(torture(&kinds)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Rounds until the time is over, or one; whether everything held.
async fn torture(kinds: &[&'static Kind]) -> Result<bool> {
    let minutes: u64 = given("TORTURE_MINUTES").unwrap_or(0);
    let seed: u64 = given("TORTURE_SEED").unwrap_or(SEED);
    let (began, mut total, mut rounds) = (Instant::now(), Counts::default(), 0u64);
    let mut held = true;
    while held && (rounds == 0 || began.elapsed() < Duration::from_secs(60 * minutes)) {
        held = round(kinds, seed.wrapping_add(rounds), &mut total).await?;
        rounds += 1;
    }
    let mut line = serde_json::to_value(&total)?;
    line["seed"] = seed.into();
    line["rounds"] = rounds.into();
    line["seconds"] = began.elapsed().as_secs().into();
    println!("{line}");
    Ok(held)
}

fn given(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

async fn round(kinds: &[&'static Kind], seed: u64, total: &mut Counts) -> Result<bool> {
    let folder = tempfile::Builder::new().prefix("steward-torture-").tempdir()?;
    // PostgreSQL runs as another user when this is root: it must be able to walk through.
    open_to_all(folder.path())?;
    let shared = Arc::new(Mutex::new(Database::start(&folder.path().join("shared")).await?));
    let room = Arc::new(Semaphore::new(AT_A_TIME));
    let mut lanes = JoinSet::new();
    for kind in kinds.iter().copied() {
        let (place, shared, room) = (folder.path().join(kind.name), shared.clone(), room.clone());
        lanes.spawn(async move {
            let _permit = room.acquire().await;
            let begun = Instant::now();
            (kind, run(kind, seed, place, shared).await, begun.elapsed())
        });
    }
    let mut held = true;
    while let Some(ended) = lanes.join_next().await {
        let (kind, (mut counts, outcome), took) = ended?;
        if !kind.honest {
            counts.violations = 0; // those that had to be found
        }
        total.add(&counts);
        match outcome {
            Ok(None) if !kind.honest => println!("{:14} was noticed after {took:.0?}", kind.name),
            Ok(None) => println!("{:14} holds after {:4.0?}: {}", kind.name, took, summary(&counts)),
            Ok(Some(skipped)) => println!("{:14} skipped: {skipped}", kind.name),
            Err(error) => {
                held = false;
                eprintln!("\n{} FAILED after {took:.0?}, seed {seed}: {error:#}", kind.name);
                eprintln!("repeat it: script/torture --seed {seed} --lane {}\n", kind.name);
            }
        }
    }
    if let Some(database) = Arc::into_inner(shared) {
        database.into_inner().stop().await;
    }
    if !held {
        eprintln!("logs and workspaces are kept in {}", folder.keep().display());
    }
    Ok(held)
}

fn summary(counts: &Counts) -> String {
    let shown = serde_json::to_value(counts).unwrap_or_default();
    let not_none = shown.as_object().into_iter().flatten().filter(|(_, count)| **count != 0);
    not_none.map(|(name, count)| format!("{count} {}", name.replace('_', " "))).collect::<Vec<_>>().join(", ")
}

/// The counts of one lane, and whether it held, was skipped and why, or what went wrong.
async fn run(
    kind: &'static Kind,
    seed: u64,
    folder: PathBuf,
    shared: Arc<Mutex<Database>>,
) -> (Counts, Result<Option<String>>) {
    let mut dice = dice(seed, kind.name);
    let plan: Vec<Fault> = (0..kind.faults).map(|_| (kind.draw)(&mut dice)).collect();
    match open(kind, &folder, shared, dice).await {
        Err(error) => (Counts::default(), Err(error.context("the lane could not be opened"))),
        Ok(Err(skipped)) => (Counts::default(), Ok(Some(skipped))),
        Ok(Ok(mut lane)) => {
            let outcome = lane.run(&plan).await;
            let counts = lane.counts.clone();
            let outcome =
                outcome.with_context(|| format!("during {} (in {})", lane.doing, lane.folder().display()));
            (counts, if kind.honest { outcome.map(|()| None) } else { noticed(outcome) })
        }
    }
}

/// A harness that finds nothing where there is something is worth nothing.
fn noticed(outcome: Result<()>) -> Result<Option<String>> {
    match outcome {
        Err(error) if format!("{error:#}").contains("\nI3 ") => Ok(None),
        Err(error) => {
            Err(error.context("receivers that did things twice were to be noticed, and nothing else"))
        }
        Ok(()) => anyhow::bail!("receivers that did things twice were not noticed"),
    }
}

async fn open(
    kind: &'static Kind,
    folder: &Path,
    shared: Arc<Mutex<Database>>,
    dice: StdRng,
) -> Result<std::result::Result<Lane, String>> {
    std::fs::create_dir_all(folder)?;
    open_to_all(folder)?;
    let mut disk = None;
    let mut server = folder.to_owned();
    if kind.name == DISK {
        server = folder.join("volume");
        match Disk::mount(&server) {
            Ok(mounted) => disk = Some(mounted),
            Err(why) => return Ok(Err(format!("no small disk can be mounted here: {why}"))),
        }
        open_to_all(&server)?;
    }
    let database = match kind.own_server {
        true => Arc::new(Mutex::new(Database::start(&server).await?)),
        false => shared,
    };
    let setup = Setup {
        name: kind.name.to_owned(),
        folder: folder.to_owned(),
        database,
        nodes: kind.nodes,
        skew: kind.skew,
        disk,
        honest: kind.honest,
        dice,
    };
    Ok(Ok(Lane::open(setup).await?))
}

fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?)
}
