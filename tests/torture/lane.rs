//! A lane: one database, its nodes, its people, and a plan of faults; at the end everything comes to
//! rest, and the one checker looks at all of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rustix::process::Signal;
use serde::Serialize;
use steward::config::workspace::Definitions;
use steward::connectors::email::Email;
use steward::connectors::http::Http;
use steward::connectors::records::Records;
use steward::connectors::registry::Connectors;
use steward::store::Store;
use steward::store::audit::{Audit, Canary, Observed, PATIENCE};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_postgres::Config;

use crate::database::{self, Database};
use crate::disk::Disk;
use crate::node::Node;
use crate::peers::Peers;
use crate::people::Village;
use crate::plan::{Fault, PASSING};
use crate::proxy::Proxy;
use crate::workspace::{self, CANARY_VARIABLE, WORKFLOWS};

/// I14: after the last fault something must move within this time, until everything has ended.
const PROGRESS: Duration = Duration::from_secs(30);

/// People who ask, per lane.
const CUSTOMERS: usize = 3;

/// The lease of the nodes: short, so that what a dead node leaves is taken over soon.
pub const LEASE: Duration = Duration::from_secs(1);

/// What was done and seen; added up over lanes.
#[derive(Clone, Default, Debug, Serialize)]
pub struct Counts {
    pub kills: u64,
    pub kills_at_failpoints: u64,
    pub database_restarts: u64,
    pub cuts_before_the_answer: u64,
    pub cuts_at_rest: u64,
    pub pauses: u64,
    pub pauses_at_failpoints: u64,
    pub full_disks: u64,
    pub runs: u64,
    pub journal_entries: u64,
    pub effects: u64,
    pub reviews: u64,
    pub decisions: u64,
    pub received: u64,
    pub violations: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.kills, other.kills),
            (&mut self.kills_at_failpoints, other.kills_at_failpoints),
            (&mut self.database_restarts, other.database_restarts),
            (&mut self.cuts_before_the_answer, other.cuts_before_the_answer),
            (&mut self.cuts_at_rest, other.cuts_at_rest),
            (&mut self.pauses, other.pauses),
            (&mut self.pauses_at_failpoints, other.pauses_at_failpoints),
            (&mut self.full_disks, other.full_disks),
            (&mut self.runs, other.runs),
            (&mut self.journal_entries, other.journal_entries),
            (&mut self.effects, other.effects),
            (&mut self.reviews, other.reviews),
            (&mut self.decisions, other.decisions),
            (&mut self.received, other.received),
            (&mut self.violations, other.violations),
        ];
        for (sum, more) in pairs {
            *sum += more;
        }
    }
}

/// What a lane is made of.
pub struct Setup {
    pub name: String,
    pub folder: PathBuf,
    pub database: Arc<Mutex<Database>>,
    /// Nodes that serve at once.
    pub nodes: usize,
    /// By how many seconds the clock of the last node is off.
    pub skew: i64,
    pub disk: Option<Disk>,
    /// Whether receivers honour our keys, as they say.
    pub honest: bool,
    pub dice: StdRng,
}

pub struct Lane {
    setup: Setup,
    config: Config,
    proxy: Proxy,
    village: Village,
    nodes: Vec<Option<Node>>,
    canary: String,
    pub counts: Counts,
    /// What the harness was doing, for whoever reads a failure.
    pub doing: String,
}

impl Lane {
    pub async fn open(mut setup: Setup) -> Result<Self> {
        use rand::{Rng, SeedableRng};
        let peers = Peers::start(StdRng::seed_from_u64(setup.dice.random()), setup.honest).await?;
        let village = Village::new(peers.clone(), StdRng::seed_from_u64(setup.dice.random()));
        let canary = format!("canary-{:032x}", setup.dice.random::<u128>());
        let (config, proxy) = {
            let database = setup.database.lock().await;
            let name = format!("lane_{}", setup.name.replace('-', "_"));
            database.admin(&format!("create database {name}")).await?;
            (database.config(&name), Proxy::start(database.socket()).await?)
        };
        for node in 0..setup.nodes {
            let folder = setup.folder.join(format!("node-{node}"));
            std::fs::create_dir_all(&folder)?;
            workspace::write(&folder, &peers)?;
        }
        let nodes = (0..setup.nodes).map(|_| None).collect();
        let (counts, doing) = (Counts::default(), "opening".to_owned());
        let mut lane = Self { setup, config, proxy, village, nodes, canary, counts, doing };
        lane.first_start().await?;
        Ok(lane)
    }

    /// The first node makes the schema and the versions; some of them are then trusted.
    async fn first_start(&mut self) -> Result<()> {
        self.start(0).await?;
        let live: Vec<String> =
            WORKFLOWS.iter().filter(|flow| flow.live).map(|flow| format!("'{}'", flow.name)).collect();
        let client = database::connect(&self.config).await?;
        let statement =
            format!("update workflow_versions set stage = 'live' where workflow in ({})", live.join(", "));
        client.batch_execute(&statement).await?;
        self.stop(0).await?;
        Ok(())
    }

    /// Runs the plan with people about, lets everything come to rest, and checks.
    pub async fn run(&mut self, plan: &[Fault]) -> Result<()> {
        let mut people = JoinSet::new();
        let mut customers = JoinSet::new();
        for name in 0..CUSTOMERS {
            customers.spawn(self.village.clone().customer(name));
        }
        people.spawn(self.village.clone().owner());
        people.spawn(count(self.config.clone(), self.village.clone()));
        for (number, fault) in plan.iter().enumerate() {
            self.doing = format!("fault {} of {}: {fault:?}", number + 1, plan.len());
            self.inject(fault).await.with_context(|| self.doing.clone())?;
        }
        for node in 0..self.nodes.len() {
            self.ensure(node).await?;
        }
        if !self.setup.honest {
            "waiting for a lie".clone_into(&mut self.doing);
            self.lie_told().await?;
        }
        "coming to rest after the last fault".clone_into(&mut self.doing);
        self.village.close();
        self.village.peers.calm();
        while customers.join_next().await.is_some() {}
        self.rest().await?;
        "the check".clone_into(&mut self.doing);
        self.check().await?;
        for node in 0..self.nodes.len() {
            self.stop(node).await.context("the last stop")?;
        }
        Ok(())
    }

    async fn inject(&mut self, fault: &Fault) -> Result<()> {
        match fault {
            Fault::KillAt { failpoint, at_last } => self.kill_at(failpoint, *at_last).await,
            Fault::Kill { after } => self.kill_after(*after).await,
            Fault::Database { down, after } => {
                self.all_serve_for(*after).await?;
                let database = self.setup.database.clone();
                let mut database = database.lock().await;
                database.kill().await?;
                tokio::time::sleep(*down).await;
                database.revive().await?;
                self.counts.database_restarts += 1;
                Ok(())
            }
            Fault::Cut { mid_statement, after } => {
                self.all_serve_for(*after).await?;
                match mid_statement {
                    true => self.proxy.cut_next_statement(),
                    false => self.proxy.cut_all(),
                }
                Ok(())
            }
            Fault::Pause { node, stopped, after } => self.pause(*node, *stopped, *after).await,
            Fault::PauseAt { node, failpoint, stopped } => self.pause_at(*node, failpoint, *stopped).await,
            Fault::DiskFull { full, after } => {
                self.all_serve_for(*after).await?;
                let Some(disk) = &self.setup.disk else { bail!("there is no disk to fill") };
                disk.fill()?;
                tokio::time::sleep(*full).await;
                disk.free()?;
                self.counts.full_disks += 1;
                let database = self.setup.database.clone();
                let mut database = database.lock().await;
                if database::connect(&self.config).await.is_err() {
                    database.kill().await?;
                    database.revive().await?;
                }
                Ok(())
            }
        }
    }

    async fn pause_at(&mut self, node: usize, failpoint: &str, stopped: Duration) -> Result<()> {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.ensure(other).await?;
        }
        self.remove(node).await;
        let serving = self.spawn(node, Some(&format!("{failpoint}:stop")))?.serving().await?;
        let serving = serving.context("a node died before it served; see its log")?;
        self.village.open_door(&serving.url, &serving.token);
        let passed = serving.stands_still_within(PASSING).await;
        self.nodes[node] = Some(serving);
        if passed {
            self.counts.pauses_at_failpoints += 1;
        } else {
            // One that is still armed would stand still later, and nobody would let it go on.
            self.remove(node).await;
        }
        self.pause(node, stopped, Duration::ZERO).await
    }

    /// Its door stays open: people who knock there wait, give up, and knock elsewhere.
    async fn pause(&mut self, node: usize, stopped: Duration, after: Duration) -> Result<()> {
        self.all_serve_for(after).await?;
        let Some(paused) = &self.nodes[node] else { bail!("node {node} is not there") };
        paused.signal(Signal::STOP);
        tokio::time::sleep(stopped).await;
        paused.signal(Signal::CONT);
        self.counts.pauses += 1;
        Ok(())
    }

    async fn kill_at(&mut self, failpoint: &str, at_last: Duration) -> Result<()> {
        self.make_way().await?;
        if let Some(mut node) = self.spawn(0, Some(failpoint))?.serving().await? {
            self.village.open_door(&node.url, &node.token);
            if node.dies_within(at_last).await {
                self.counts.kills_at_failpoints += 1;
            }
            self.village.shut_door(&node.url);
            node.kill().await;
        }
        self.counts.kills += 1;
        Ok(())
    }

    async fn kill_after(&mut self, after: Duration) -> Result<()> {
        self.make_way().await?;
        let starting = self.spawn(0, None)?;
        let begun = Instant::now();
        // A pipe of its output tells when it serves; a kill in the middle of the start is as good.
        let serving = tokio::time::timeout(after, starting.serving()).await;
        if let Ok(serving) = serving {
            let Some(node) = serving? else { bail!("a node did not start; see its log") };
            self.village.open_door(&node.url, &node.token);
            tokio::time::sleep(after.saturating_sub(begun.elapsed())).await;
            self.village.shut_door(&node.url);
            node.kill().await;
        }
        self.counts.kills += 1;
        Ok(())
    }

    /// The first node is the one that dies; the others serve.
    async fn make_way(&mut self) -> Result<()> {
        self.remove(0).await;
        for other in 1..self.nodes.len() {
            self.ensure(other).await?;
        }
        Ok(())
    }

    async fn all_serve_for(&mut self, time: Duration) -> Result<()> {
        for node in 0..self.nodes.len() {
            self.ensure(node).await?;
        }
        tokio::time::sleep(time).await;
        Ok(())
    }

    /// Starts a node that is not there; one whose database was away while it started tries again.
    async fn ensure(&mut self, node: usize) -> Result<()> {
        if self.nodes[node].as_mut().is_some_and(|node| !node.is_dead()) {
            return Ok(());
        }
        self.remove(node).await;
        let since = Instant::now();
        while self.start(node).await.is_err() {
            if since.elapsed() > PROGRESS {
                bail!("node {node} does not start within {PROGRESS:?}; see its log");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn start(&mut self, node: usize) -> Result<()> {
        let serving = self.spawn(node, None)?.serving().await?;
        let serving = serving.context("a node died before it served; see its log")?;
        self.village.open_door(&serving.url, &serving.token);
        self.nodes[node] = Some(serving);
        Ok(())
    }

    fn spawn(&self, node: usize, failpoint: Option<&str>) -> Result<crate::node::Starting> {
        let database = format!(
            "postgresql://{}@{}/{}",
            self.config.get_user().unwrap_or("steward"),
            self.proxy.address,
            self.config.get_dbname().unwrap_or_default()
        );
        let mut variables = vec![
            ("STEWARD_DATABASE_URL".to_owned(), database),
            ("STEWARD_LEASE".to_owned(), LEASE.as_secs_f64().to_string()),
            (CANARY_VARIABLE.to_owned(), self.canary.clone()),
        ];
        if self.setup.skew != 0 && node + 1 == self.nodes.len() {
            variables.push(("STEWARD_CLOCK_SKEW".to_owned(), self.setup.skew.to_string()));
        }
        variables.extend(failpoint.map(|name| ("STEWARD_FAILPOINT".to_owned(), name.to_owned())));
        let folder = &self.setup.folder;
        Node::spawn(&folder.join(format!("node-{node}")), &self.log(node), &variables)
    }

    fn log(&self, node: usize) -> PathBuf {
        self.setup.folder.join(format!("node-{node}.log"))
    }

    async fn remove(&mut self, node: usize) {
        if let Some(node) = self.nodes[node].take() {
            self.village.shut_door(&node.url);
            node.kill().await;
        }
    }

    async fn stop(&mut self, node: usize) -> Result<()> {
        let Some(node) = self.nodes[node].take() else { return Ok(()) };
        self.village.shut_door(&node.url);
        node.stop().await
    }

    /// People stay until a receiver that lies was asked twice: however slow the machine, there is something to find.
    async fn lie_told(&self) -> Result<()> {
        let since = Instant::now();
        while !self.village.peers.lied() {
            if since.elapsed() > PROGRESS {
                bail!("nobody asked a receiver that lies twice within {PROGRESS:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// I14: until every run has ended, something moves every thirty seconds.
    async fn rest(&mut self) -> Result<()> {
        let (mut moved, mut since) = (-1, Instant::now());
        loop {
            let (entries, unfinished) = standing(&self.config).await.unwrap_or((moved, 1));
            if unfinished == 0 {
                return Ok(());
            }
            if entries != moved {
                (moved, since) = (entries, Instant::now());
            }
            if since.elapsed() > PROGRESS {
                let stuck = stuck(&self.config).await.unwrap_or_default();
                bail!("I14: nothing moved for {PROGRESS:?}; {unfinished} runs have not ended:\n{stuck}");
            }
            for node in 0..self.nodes.len() {
                self.ensure(node).await?;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn check(&mut self) -> Result<()> {
        let folder = self.setup.folder.join("node-0");
        let (definitions, _) =
            Definitions::load(&folder).map_err(|problems| anyhow::anyhow!("{}", problems.render(false)))?;
        let store = Store::new(self.config.clone())?;
        let connectors = Connectors::new(
            Email::new(&definitions.connectors.email, folder.join("outbox"))?,
            Http::new(&definitions.connectors.http)?,
            Records::new(store.clone()),
        );
        let observed = Observed {
            acknowledged: self.village.acknowledged(),
            received: self.village.peers.received(),
            complete: vec!["http.request".into(), "email.send".into()],
        };
        let secrets = [Canary { name: CANARY_VARIABLE.into(), value: self.canary.clone() }];
        let logs: Vec<PathBuf> = (0..self.nodes.len()).map(|node| self.log(node)).collect();
        let audit = Audit {
            repeat: &|action| connectors.repeat(action),
            secrets: &secrets,
            logs: &logs,
            observed: &observed,
            patience: PATIENCE,
            progress: &|_| {},
        };
        let report = store.audit(&audit).await?;
        self.proxied();
        self.counts.runs += report.checked.runs;
        self.counts.journal_entries += report.checked.entries;
        self.counts.effects += report.checked.effects;
        self.counts.reviews += report.checked.reviews;
        self.counts.received += report.checked.received;
        self.counts.decisions += self.village.decisions();
        self.counts.violations += report.violated;
        let mut wrong = self.village.scandals();
        wrong.extend(report.violations.iter().map(|violation| {
            let run = violation.run.map(|run| format!(" run {run}:")).unwrap_or_default();
            format!("{:?}{run} {}", violation.invariant, violation.what)
        }));
        wrong.extend(parked(&self.config).await?);
        let told = self.village.verify().await.context("nobody answers the last question")?;
        if told["broken"] != 0 {
            wrong.push(format!("the service's own check: {told}"));
        }
        if report.checked.runs == 0 || observed.acknowledged.is_empty() {
            wrong.push("nobody was served, so nothing was shown".to_owned());
        }
        if !wrong.is_empty() {
            bail!("{} things do not hold:\n{}", wrong.len(), wrong.join("\n"));
        }
        Ok(())
    }

    fn proxied(&mut self) {
        let (mid, idle) = self.proxy.cuts();
        self.counts.cuts_before_the_answer = mid as u64;
        self.counts.cuts_at_rest = idle as u64;
    }

    pub fn folder(&self) -> &Path {
        &self.setup.folder
    }
}

/// Tells customers how much is under way, past every proxy.
async fn count(config: Config, village: Village) {
    loop {
        if let Ok((_, unfinished)) = standing(&config).await {
            village.count_unfinished(u64::try_from(unfinished).unwrap_or(0));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How many entries the journals have, and how many runs have not ended.
async fn standing(config: &Config) -> Result<(i64, i64)> {
    let statement =
        "select (select count(*) from journal), count(*) filter (where finished_at is null) from runs";
    let row = database::connect(config).await?.query_one(statement, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// A parked run is a fault of Steward's own, however well it is kept.
async fn parked(config: &Config) -> Result<Vec<String>> {
    let statement =
        "select r.id::text, j.data::text from runs r join journal j on j.run_id = r.id and j.seq = r.seq
         where r.status = 'parked'";
    let rows = database::connect(config).await?.query(statement, &[]).await?;
    let told = |row: &tokio_postgres::Row| {
        format!("run {} was parked: {}", row.get::<_, String>(0), row.get::<_, String>(1))
    };
    Ok(rows.iter().map(told).collect())
}

/// Where the runs that have not ended stand.
async fn stuck(config: &Config) -> Result<String> {
    let statement = "select concat_ws(' ', r.id, r.workflow, r.status, 'seq', r.seq, 'node', r.node, 'wake_at', r.wake_at,
             (select string_agg(ask || ' ' || step || ' ' || status, ', ') from reviews v where v.run_id = r.id),
             (select string_agg(kind, ' ' order by seq) from journal j where j.run_id = r.id))
         from runs r where finished_at is null limit 20";
    let rows = database::connect(config).await?.query(statement, &[]).await?;
    Ok(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n"))
}
