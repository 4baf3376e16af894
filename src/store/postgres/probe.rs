//! Connecting to a server, and waiting until it answers.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// The superuser of the private cluster. Who can reach the socket is decided by its folder.
pub(super) const SUPERUSER: &str = "steward";
/// Replaying the log after a crash is bounded by `max_wal_size` (1 GB); ending it early would begin it anew.
const RECOVERY_LIMIT: Duration = Duration::from_secs(10 * 60);
/// One attempt at a local socket and one trivial query.
pub(super) const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// Connecting through a local socket waits only for the server to fork.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Short, since starts are waited for by people.
pub(super) const POLL: Duration = Duration::from_millis(10);

/// How waiting for a server ended.
pub(super) enum Waited {
    Ready,
    /// How the process ended.
    Ended(String),
    /// How long it was waited for.
    Silent(Duration),
}

/// Waits for the server to answer: `limit` if it is silent, [`RECOVERY_LIMIT`] if it says that it is starting up.
pub(super) async fn until_ready(
    config: &Config,
    cluster_name: &str,
    limit: Duration,
    mut ended: impl FnMut() -> Option<String>,
) -> Waited {
    let started = Instant::now();
    loop {
        let limit = match probe(config, cluster_name).await {
            Probe::Ready => return Waited::Ready,
            Probe::Starting => RECOVERY_LIMIT,
            Probe::Silent => limit,
        };
        if let Some(status) = ended() {
            return Waited::Ended(status);
        }
        if started.elapsed() >= limit {
            return Waited::Silent(started.elapsed());
        }
        sleep(POLL).await;
    }
}

/// What one question to a server brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// The cluster of that name answers queries.
    Ready,
    /// It says that it is starting up, or that all connections are taken.
    Starting,
    /// Nothing, or not this cluster.
    Silent,
}

pub(super) async fn probe(config: &Config, cluster_name: &str) -> Probe {
    let ask = async {
        let client = connect(config).await?;
        client.simple_query("show cluster_name").await
    };
    match timeout(PROBE_LIMIT, ask).await {
        Ok(Ok(rows)) if rows.iter().any(|row| is(row, cluster_name)) => Probe::Ready,
        Ok(Err(error))
            if matches!(
                error.code(),
                Some(&SqlState::CANNOT_CONNECT_NOW | &SqlState::TOO_MANY_CONNECTIONS)
            ) =>
        {
            Probe::Starting
        }
        _ => Probe::Silent,
    }
}

fn is(row: &SimpleQueryMessage, cluster_name: &str) -> bool {
    matches!(row, SimpleQueryMessage::Row(row) if row.get(0) == Some(cluster_name))
}

pub(super) fn connection(socket_dir: &Path, database: &str) -> Config {
    let mut config = Config::new();
    config.host_path(socket_dir).port(5432).user(SUPERUSER).dbname(database);
    config.application_name("steward").connect_timeout(CONNECT_LIMIT);
    config
}

/// The connection ends when the client is dropped.
pub(super) async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the embedded PostgreSQL ended");
        }
    });
    Ok(client)
}
