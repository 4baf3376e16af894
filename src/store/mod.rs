//! All SQL of Steward, one file per aggregate; nothing outside this module writes a statement.
//!
//! - [`Store`] is the pool and the way in; [`error`] turns constraint names into typed errors;
//! - [`runs`], [`effects`], [`reviews`], [`workflows`], [`records`], [`memory`], [`schedules`], [`gathered`]
//!   are the aggregates;
//! - [`decisions`] is what the owner decided, counted; [`stages`] how far versions are trusted;
//! - [`sessions`] is who is signed in to the web inbox;
//! - [`spend`] is the ledger of model calls, [`batches`] the calls that may wait;
//! - [`reached`] is whom effects reached, [`proposals`] what was proposed lately;
//! - [`threads`] is the mails of a thread;
//! - [`events`] is what runs wait for, [`pauses`] what the owner holds, [`breakers`] whom nobody calls;
//! - [`asides`] is what is said about reviews without deciding them, [`edits`] what was changed in drafts,
//!   [`acquaintance`] what is known of whom they are about;
//! - [`messages`] and [`notices`] are what the owner is told, [`mod@digest`] what his day was;
//! - [`metrics`] is what is counted for people and monitoring;
//! - [`mail`] is what goes with mail to the owner;
//! - [`admission`] is the queue of runs and the slots of concurrency keys;
//! - [`journal`] is the group commit and what reads it back;
//! - [`calls`] is what was said to models, and what may serve again;
//! - [`audit`] holds the invariants against all of it;
//! - [`partitions`] keeps the journal by month, [`retention`] removes runs that are past their time,
//!   [`leftovers`] what does not go with a run;
//! - [`nodes`] is who may act for which runs, [`wakeup`] the hints between nodes;
//! - [`migrate`] brings the schema up to date and refuses a newer one;
//! - [`postgres`] is the private server of a workspace without a database URL.

pub mod acquaintance;
pub mod admission;
pub mod asides;
pub mod audit;
pub mod batches;
pub mod breakers;
pub mod calls;
pub mod decisions;
pub mod digest;
pub mod edits;
pub mod effects;
pub mod error;
pub mod events;
pub mod gathered;
pub mod journal;
pub mod leftovers;
pub mod mail;
pub mod memory;
pub mod messages;
pub mod metrics;
pub mod migrate;
pub mod nodes;
pub mod notices;
pub mod partitions;
pub mod pauses;
pub mod postgres;
pub mod proposals;
pub mod reached;
pub mod records;
pub mod retention;
pub mod reviews;
pub mod runs;
pub mod schedules;
pub mod sessions;
pub mod spend;
pub mod stages;
pub mod threads;
pub mod wakeup;
pub mod workflows;

use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod, Runtime, Timeouts,
};
use tokio_postgres::{Config, NoTls};

pub use error::StoreError;

use journal::PLANNING;

/// Connections for everything but the journal's hot path, which has its own: handlers, claims, memory.
const POOL_SIZE: usize = 12;

/// Connections for what makes a sleeping run go on: deciding, taking and reading it.
const KEYED_SIZE: usize = 4;

/// How long a caller waits for a free connection or a new one before it hears that the database is not there.
const POOL_WAIT: Duration = Duration::from_secs(10);

/// No transaction of ours waits for anything but the database, so one that is idle for a minute is a fault.
/// It is ended, for as long as it lasts no vacuum can clear what died since it began, in any table.
const FORGOTTEN: &str = "set idle_in_transaction_session_timeout = '60s'";

/// Connections that cannot write: as many as one agent's tools use at once.
const READERS: usize = 4;

/// Nothing is written.
const READ_ONLY: &str = "set default_transaction_read_only = on";

/// The way into the database.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    keyed: Pool,
    config: Config,
}

impl Store {
    /// A store over the database that `config` names. Connects lazily.
    ///
    /// # Errors
    /// When the pool cannot be built.
    pub fn new(config: Config) -> Result<Self, StoreError> {
        Self::with(config, POOL_SIZE, FORGOTTEN)
    }

    /// The same database through connections of their own, on which PostgreSQL itself refuses to write: for
    /// what must never write, whatever it is asked.
    ///
    /// # Errors
    /// When the pool cannot be built.
    pub fn read_only(&self) -> Result<Self, StoreError> {
        Self::with(self.config.clone(), READERS, &format!("{FORGOTTEN}; {READ_ONLY}"))
    }

    /// Every connection begins with `settings`.
    fn with(config: Config, size: usize, settings: &str) -> Result<Self, StoreError> {
        let all = pool(&config, size, settings.to_owned())?;
        let keyed = pool(&config, KEYED_SIZE, format!("{settings}; {PLANNING}"))?;
        Ok(Self { pool: all, keyed, config })
    }

    /// How to make a connection of one's own.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A connection from the pool.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database cannot be reached.
    pub(crate) async fn client(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// A connection for statements that reach their rows by key, so that one plan fits for ever.
    async fn keyed(&self) -> Result<Object, StoreError> {
        self.keyed.get().await.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// Closes the connections; what asks from now on is told that the database does not answer.
    pub fn close(&self) {
        self.pool.close();
        self.keyed.close();
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.client().await?.simple_query("select 1").await?;
        Ok(())
    }
}

/// Connections that say `first` when they are new. The one used last is taken first: its statements are
/// planned, its process is in the caches.
fn pool(config: &Config, size: usize, first: String) -> Result<Pool, StoreError> {
    let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config.clone(), NoTls, manager);
    let timeouts = Timeouts { wait: Some(POOL_WAIT), create: Some(POOL_WAIT), recycle: Some(POOL_WAIT) };
    Pool::builder(manager)
        .max_size(size)
        .queue_mode(QueueMode::Lifo)
        .timeouts(timeouts)
        .post_create(Hook::async_fn(move |client, _| {
            let first = first.clone();
            Box::pin(async move { client.batch_execute(&first).await.map_err(HookError::Backend) })
        }))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::Unavailable(error.to_string()))
}
