//! The database under test, and engines inside this process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use steward::config::template;
use steward::config::workspace::Definitions;
use steward::connectors::email::Email;
use steward::connectors::http::Http;
use steward::connectors::records::Records;
use steward::connectors::registry::Connectors;
use steward::domain::duration::Span;
use steward::domain::ids::StepId;
use steward::domain::retry::Retry;
use steward::domain::workflow::{ActionStep, Step, StepKind, Version};
use steward::models::ledger::{Ledger, Terms};
use steward::models::{Encoder, Models};
use steward::orchestrator::door::Door;
use steward::orchestrator::engine::{Engine, Parts};
use steward::orchestrator::journal::Journal;
use steward::orchestrator::lease::{LEASE, Lease};
use steward::store::postgres::Server;
use steward::store::{Store, migrate};
use tokio_postgres::{Client, Config, NoTls};

pub(crate) const STEPS: usize = 10;

/// The product's own server; only the comparison needs more: a connection per client.
pub(crate) async fn start_server(folder: &Path) -> Server {
    let quiet = |_: &str| {};
    let server = Server::start(folder, &quiet).await.unwrap();
    server.stop().await.unwrap();
    let settings = folder.join("postgres/data/postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}\nmax_connections = 150\n")).unwrap();
    Server::start(folder, &quiet).await.unwrap()
}

/// A migrated, empty database.
pub(crate) async fn database(server: &Server, name: &str) -> Config {
    server.ensure_database(name).await.unwrap();
    let config = server.config(name);
    migrate::migrate(&config).await.unwrap();
    config
}

/// A whole node but for its HTTP door; the encoder stays unloaded, for nothing asks it.
pub(crate) async fn start_node(config: &Config, folder: &Path) -> Door {
    template::write(folder).unwrap();
    let (mut definitions, _) = Definitions::load(folder).map_err(|problems| problems.render(false)).unwrap();
    let mut definition = definitions.workflows.values().next().unwrap().clone();
    definition.triggers.clear();
    definition.version = ten_steps();
    definitions.workflows = BTreeMap::from([("bench".into(), definition)]);
    let store = Store::new(config.clone()).unwrap();
    let lease = Lease::take(&store, LEASE, false).await.unwrap();
    let terms = Terms::of(&definitions.settings, lease.clock());
    let ledger = Ledger::start(store.config(), terms).await.unwrap();
    let models = Models::start(&definitions.models, json!({}), None, Encoder::lazy(), ledger).await.unwrap();
    let parts = Parts {
        clock: lease.clock(),
        lease,
        journal: Journal::start(config).await.unwrap(),
        connectors: Connectors::new(
            Email::new(&definitions.connectors.email, folder.join("outbox")).unwrap(),
            Http::new(&definitions.connectors.http).unwrap(),
            Records::new(store.clone()),
        ),
        embedder: Arc::new(models.encoder().clone()),
        models,
        store,
    };
    Door::start(Arc::new(Engine::new(parts, &definitions).await.unwrap())).await.unwrap()
}

pub(crate) fn ten_steps() -> Version {
    let step = |n: usize| Step {
        id: StepId(format!("s{n}")),
        name: None,
        needs: if n == 0 { Vec::new() } else { vec![StepId(format!("s{}", n - 1))] },
        when: None,
        kind: StepKind::Action(ActionStep {
            action: "noop".into(),
            with: json!({"value": "x".repeat(60)}),
            dedupe: None,
            review: None,
        }),
        retry: Retry::default(),
        timeout: Span::secs(60),
        deadline: None,
        each: None,
        undo: None,
    };
    Version {
        workflow: "bench".into(),
        title: "Ten steps".into(),
        input: json!({"type": "object"}),
        steps: (0..STEPS).map(step).collect(),
        agents: BTreeMap::new(),
        deadline: None,
        output: None,
        flow: Default::default(),
        budget: Default::default(),
        trust: Default::default(),
        sample: None,
    }
}

pub(crate) async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
