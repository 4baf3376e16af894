//! A real PostgreSQL, started through the product's own code; killed, and started again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use steward::store::postgres::Server;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

/// How long a killed server may take to be gone, and a started one to answer.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Database {
    state: PathBuf,
    server: Option<Server>,
    socket: PathBuf,
    config: Config,
}

impl Database {
    /// A server of its own in `folder`, with room for many nodes' connections.
    pub async fn start(folder: &Path) -> Result<Self> {
        let state = folder.join("database");
        std::fs::create_dir_all(&state)?;
        let server = Server::start(&state, &|_| {}).await?;
        let config = server.config("postgres");
        let socket = match config.get_hosts().first() {
            Some(Host::Unix(folder)) => folder.join(".s.PGSQL.5432"),
            other => bail!("the server listens at {other:?}, not at a socket"),
        };
        let mut database = Self { state, server: Some(server), socket, config };
        database.admin("alter system set max_connections = 400").await?;
        database.kill().await?;
        database.revive().await?;
        Ok(database)
    }

    pub fn config(&self, name: &str) -> Config {
        let mut config = self.config.clone();
        config.dbname(name);
        config
    }

    /// The socket at which it listens, now and after every start.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn admin(&self, statement: &str) -> Result<()> {
        Ok(connect(&self.config).await?.batch_execute(statement).await?)
    }

    /// What `pg_ctl stop -m immediate` does: SIGQUIT to the postmaster, no checkpoint, no goodbye.
    pub async fn kill(&mut self) -> Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        let pid = Pid::from_raw(i32::try_from(server.pid())?).context("a server has a process id")?;
        let _ = kill_process(pid, Signal::QUIT); // it may have ended by itself, out of disk
        let since = Instant::now();
        // Asked of its socket: the process may be a child that nobody has buried yet.
        while tokio::net::UnixStream::connect(&self.socket).await.is_ok() {
            if since.elapsed() > PATIENCE {
                bail!("PostgreSQL outlived SIGQUIT");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Starts it again; it recovers by itself.
    pub async fn revive(&mut self) -> Result<()> {
        let since = Instant::now();
        loop {
            match Server::start(&self.state, &|_| {}).await {
                Ok(server) => {
                    self.server = Some(server);
                    return Ok(());
                }
                Err(error) if since.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    pub async fn stop(mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.stop().await;
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(server) = &self.server
            && let Some(pid) = i32::try_from(server.pid()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::QUIT);
        }
    }
}

/// A connection of the harness itself, past every proxy.
pub async fn connect(config: &Config) -> Result<Client> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
