//! Nodes over workflows of the test's own, whose clock stands still until the test moves it.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use steward::config::template;
use steward::config::workspace::Definitions;
use steward::store::Store;
use steward::store::runs::{RunFilter, RunRow};
use steward::store::schedules::ScheduleRow;
use steward::triggers::schedule;
use tokio_postgres::NoTls;

use super::database;
use super::rig::{Rig, Setup};

/// A node with a clock in the test's hand.
pub struct Bench {
    pub rig: Rig,
    pub store: Store,
    pub definitions: Arc<Definitions>,
    clock: Arc<Mutex<Timestamp>>,
}

impl Bench {
    /// A node at `now`, with these workflows and no other.
    pub async fn new(store: Store, now: &str, workflows: &[String]) -> Self {
        let (folder, path) = database::folder();
        template::write(&path).unwrap();
        let files = path.join("config/workflows");
        for entry in std::fs::read_dir(&files).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (index, workflow) in workflows.iter().enumerate() {
            std::fs::write(files.join(format!("{index}.yaml")), workflow).unwrap();
        }
        let (definitions, _) =
            Definitions::load(&path).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let clock = Arc::new(Mutex::new(now.parse().unwrap()));
        let hand = clock.clone();
        let setup = Setup {
            store: store.clone(),
            definitions: &definitions,
            extra: Vec::new(),
            clock: Arc::new(move || *hand.lock().unwrap()),
            alone: false,
        };
        let rig = Rig::start(setup, folder).await;
        schedule::register(&rig.door, &definitions).await.unwrap();
        Self { rig, store, definitions: Arc::new(definitions), clock }
    }

    pub fn now(&self) -> Timestamp {
        *self.clock.lock().unwrap()
    }

    pub fn at(&self, moment: &str) {
        *self.clock.lock().unwrap() = moment.parse().unwrap();
    }

    pub fn after(&self, seconds: i64) {
        let mut clock = self.clock.lock().unwrap();
        *clock += jiff::SignedDuration::from_secs(seconds);
    }

    /// One look at the clock, as the driver takes it.
    pub async fn tick(&self) -> Option<Timestamp> {
        schedule::tick(&self.rig.door).await.unwrap()
    }

    /// The runs of a workflow, the oldest first.
    pub async fn runs(&self, workflow: &str) -> Vec<RunRow> {
        let filter = RunFilter { workflow: Some(workflow.into()), ..RunFilter::default() };
        let mut runs = self.store.runs(&filter, None, 1_000).await.unwrap();
        runs.sort_by_key(|run| run.id);
        runs
    }

    pub async fn titles(&self, workflow: &str) -> Vec<String> {
        self.runs(workflow).await.into_iter().map(|run| run.title).collect()
    }

    /// The only schedule of a workflow.
    pub async fn schedule(&self, workflow: &str) -> ScheduleRow {
        let all = self.store.schedules().await.unwrap();
        let mut found: Vec<_> = all.into_iter().filter(|row| row.workflow.as_str() == workflow).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    /// Changes the database behind the store's back.
    pub async fn sql(&self, statement: &str) {
        let (client, connection) = self.store.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(statement).await.unwrap();
    }
}
