//! Three nodes over one database, all in this process, each with its own connections, journal and clock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use steward::domain::ids::{NodeId, RunId};
use steward::domain::run::RunStatus;
use steward::orchestrator::door::Door;
use steward::store::Store;
use steward::store::postgres::Server;

use crate::node::{connect, database, start_node};
use crate::scale::open;
use crate::throughput::steps;

const NODES: usize = 3;
const IN_FLIGHT: usize = 256;

/// Runs that nobody owns, all due at once: what three nodes may quarrel about.
const DUE: usize = 3_000;

pub(crate) async fn measure(server: &Server, folder: &Path) -> Value {
    let config = database(server, "nodes").await;
    let mut doors = Vec::new();
    for _ in 0..NODES {
        doors.push(start_node(&config, folder).await);
    }
    // One, three, one again: what drifts on the machine falls on both sides.
    let (first, _) = steps(&doors[..1], IN_FLIGHT).await;
    let (three, _) = steps(&doors, IN_FLIGHT).await;
    let (second, _) = steps(&doors[..1], IN_FLIGHT).await;
    let one = (first.per_second + second.per_second) / 2.0;

    let client = connect(&config).await;
    let nobody = NodeId(uuid::Uuid::new_v4());
    let statement = "insert into nodes (id, lease_until) values ($1, now() + interval '1 hour')";
    client.execute(statement, &[&nobody.0]).await.unwrap();
    let runs = open(&config, &client, nobody, DUE).await;
    let (ours, moves) = (Arc::new(runs.iter().copied().collect()), Arc::<Mutex<Moves>>::default());
    doors.iter().enumerate().for_each(|(n, door)| listen(door, n, Arc::clone(&ours), moves.clone()));
    let statement = "update runs set node = null, wake_at = now() where node = $1";
    client.execute(statement, &[&nobody.0]).await.unwrap();
    for run in &runs {
        doors.iter().for_each(|door| door.wake(*run)); // all three try at once
    }
    while moves.lock().unwrap().over.len() < DUE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let taken = std::mem::take(&mut moves.lock().unwrap().by);
    let twice = taken.values().filter(|nodes| nodes.len() > 1).count();
    let each: Vec<usize> =
        (0..NODES).map(|n| taken.values().filter(|nodes| nodes.contains(&n)).count()).collect();
    let store = Store::new(config).unwrap();
    let mut broken = 0;
    for run in &runs {
        broken += usize::from(store.verify_run(*run).await.unwrap().is_some());
    }
    for door in &doors {
        door.stop().await;
    }
    println!(
        "three nodes: {:.0} steps/s, one: {one:.0} ({:.2}); {DUE} due runs raced for: {each:?} taken, {twice} twice, {broken} chains broken",
        three.per_second,
        three.per_second / one
    );
    json!({
        "one_per_s": one, "three_per_s": three.per_second, "ratio": three.per_second / one,
        "raced_for": DUE, "taken": each, "taken_twice": twice, "chains_broken": broken,
    })
}

/// Which nodes have moved each run, and which runs are over.
#[derive(Default)]
struct Moves {
    by: BTreeMap<RunId, BTreeSet<usize>>,
    over: BTreeSet<RunId>,
}

/// Keeps what one node says about these runs.
fn listen(door: &Door, n: usize, runs: Arc<BTreeSet<RunId>>, moves: Arc<Mutex<Moves>>) {
    let mut moved = door.engine().moved.subscribe();
    tokio::spawn(async move {
        while let Ok(moved) = moved.recv().await {
            if runs.contains(&moved.run) {
                let mut moves = moves.lock().unwrap();
                moves.by.entry(moved.run).or_default().insert(n);
                if matches!(moved.status, RunStatus::Over(_)) {
                    moves.over.insert(moved.run);
                }
            }
        }
    });
}
