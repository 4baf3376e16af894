//! The schema: migrations are applied at start; a database newer than the binary is refused.

use jiff::Timestamp;
use tokio_postgres::{Client, Config, NoTls};

use crate::store::{StoreError, partitions};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Several nodes may start at once: whoever holds this advisory lock migrates, the others wait.
/// The number is arbitrary, only Steward uses it.
const LOCK: i64 = 0x0053_5445_5741_5244;

/// Why the schema is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A newer Steward has used this database.
    #[error(
        "this database has schema version {found}, but this steward knows only up to {known}: \
         start the newer steward that wrote it, or restore an older export"
    )]
    Newer {
        /// The database's.
        found: u32,
        /// This binary's.
        known: u32,
    },
    /// PostgreSQL lacks pgvector.
    #[error(
        "this PostgreSQL has no pgvector: install the `vector` extension on the server, \
         or unset the database URL to use the embedded PostgreSQL"
    )]
    NoVector,
    /// The database cannot be reached.
    #[error("the database does not answer: {0}")]
    Connect(#[from] tokio_postgres::Error),
    /// A migration failed.
    #[error("the database could not be brought up to date: {0}")]
    Failed(#[from] refinery::Error),
}

/// Applies what is missing, and sees to it that the journal has its months; gives the schema version.
///
/// # Errors
/// See [`MigrateError`].
pub async fn migrate(config: &Config) -> Result<u32, MigrateError> {
    let (mut client, connection) = config.connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    client.execute("select pg_advisory_lock($1)", &[&LOCK]).await?;
    let done = apply(&mut client).await;
    if done.is_ok()
        && let Err(error) = months(&client).await
    {
        // Nothing is refused for want of a month: the housekeeper tries again.
        tracing::warn!(%error, "the journal's partitions could not be made");
    }
    drop(client); // ends the session, and with it the lock
    let _ = connection.await;
    done
}

async fn months(client: &Client) -> Result<(), StoreError> {
    let now: Timestamp = client.query_one("select now()", &[]).await?.get(0);
    partitions::look_after_with(client, now).await.map(|_| ())
}

async fn apply(client: &mut Client) -> Result<u32, MigrateError> {
    let mut runner = embedded::migrations::runner();
    runner = runner.set_abort_missing(false);
    let known = runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0);
    let found = runner.get_last_applied_migration_async(client).await;
    let found = found.ok().flatten().map_or(0, |migration| migration.version());
    if found > known {
        return Err(MigrateError::Newer { found: found as u32, known: known as u32 });
    }
    if client.query("select 1 from pg_available_extensions where name = 'vector'", &[]).await?.is_empty() {
        return Err(MigrateError::NoVector);
    }
    runner.run_async(client).await?;
    Ok(known as u32)
}
