//! The composition root: starts the parts in order, and stops them in the reverse order.
//!
//! ```text
//! lock → definitions → database → schema → node → journal → models, connectors → engine → door
//!      → intake → listener                                        (stop: the same way back)
//! ```

use std::fs::{File, TryLockError};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use jiff::Timestamp;
use ractor::{Actor, ActorRef};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_postgres::Config;
use uuid::Uuid;

use crate::api::{self, ApiState};
use crate::config::secret::{Secret, SecretRef};
use crate::config::workspace::Definitions;
use crate::connectors::email::Email;
use crate::connectors::http::Http;
use crate::connectors::records::Records;
use crate::connectors::registry::Connectors;
use crate::domain::ids::NodeId;
use crate::models::Models;
use crate::orchestrator::clock::LEASE_SECS;
use crate::orchestrator::door::Door;
use crate::orchestrator::engine::{Engine, Parts};
use crate::orchestrator::journal::Journal;
use crate::store::postgres::Server;
use crate::store::{Store, migrate};
use crate::triggers::files::{self, Intake};

/// The folder of a workspace that Steward keeps to itself.
pub const STATE: &str = ".steward";

/// The variable that holds the key of signatures on `/hooks/email`.
const EMAIL_HOOK_SECRET: &str = "STEWARD_EMAIL_HOOK_SECRET";

/// How long a database across a network may be silent before the connection counts as lost.
const DATABASE_SILENCE: Duration = Duration::from_secs(15);

/// How long requests under way may take to finish when the service stops.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// How a service is started.
pub struct Options {
    /// The workspace folder.
    pub workspace: PathBuf,
    /// Where to listen, if not where the settings say.
    pub listen: Option<SocketAddr>,
    /// The database to use, whatever the environment and the settings say.
    pub database: Option<Config>,
    /// Told one line per stage that takes over a second.
    pub progress: Box<dyn Fn(&str) + Send + Sync>,
}

/// A running service.
pub struct Service {
    /// The way to the orchestrator.
    pub door: Door,
    /// What the owner defined.
    pub definitions: Arc<Definitions>,
    /// Where it listens.
    pub address: SocketAddr,
    /// The token that the CLI and the owner use.
    pub token: Secret,
    /// The file that tells clients the address.
    announcement: PathBuf,
    intake: ActorRef<files::Msg>,
    stop_listening: oneshot::Sender<()>,
    listening: Shared<BoxFuture<'static, ()>>,
    server: Option<Server>,
    _lock: Option<File>,
}

impl Service {
    /// Starts everything, in order.
    ///
    /// # Errors
    /// What is wrong and how to mend it, in the words of the part that failed.
    pub async fn start(options: Options) -> Result<Self> {
        let state = prepare_state(&options.workspace)?;
        let (definitions, warnings) = Definitions::load(&options.workspace)
            .map_err(|problems| anyhow!("the workspace has problems:\n\n{}", problems.render(false)))?;
        for warning in warnings {
            tracing::info!(file = %warning.file, line = warning.line, "{}", warning.message);
        }
        let definitions = Arc::new(definitions);
        let models = Models::start(&definitions.models, workspace_value(&definitions), None);
        let database = async {
            match options.database {
                Some(config) => Ok((config, None, None)),
                None => open_database(&definitions, &state, options.progress.as_ref()).await,
            }
        };
        // The encoder's weights are unpacked while PostgreSQL starts.
        let (models, database) = tokio::join!(models, database);
        let (models, (config, server, lock)) = (models?, database?);
        migrate::migrate(&config).await?;
        let store = Store::new(config)?;
        let node = NodeId(Uuid::new_v4());
        store.register_node(node, LEASE_SECS, lock.is_some()).await?;
        let journal = Journal::start(store.config(), node).await?;
        let connectors = Connectors::new(
            Email::new(&definitions.connectors.email, state.join("outbox"))?,
            Http::new(&definitions.connectors.http)?,
            Records::new(store.clone()),
        );
        let parts = Parts {
            node,
            store,
            journal,
            connectors,
            embedder: Arc::new(models.encoder().clone()),
            models,
            clock: Arc::new(Timestamp::now),
        };
        let engine = Arc::new(Engine::new(parts, &definitions).await?);
        let door = Door::start(engine).await?;
        let intake =
            Intake { door: door.clone(), definitions: definitions.clone(), folder: state.join("inbox") };
        let (intake, _) = Actor::spawn(None, intake, ()).await?;

        let listen = options.listen.unwrap_or(definitions.settings.listen);
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("cannot listen on {listen}: choose another address with `--listen ADDR` (port 0 takes a free one)")
        })?;
        let address = listener.local_addr()?;
        let token = token(&state)?;
        let announcement = state.join("address");
        write_private(&announcement, &format!("http://{address}\n"))?;
        let email_secret = SecretRef { variable: EMAIL_HOOK_SECRET.into() }.resolve();
        let router = api::router(ApiState::new(door.clone(), definitions.clone(), &token, email_secret));
        let (stop_listening, stopped) = oneshot::channel::<()>();
        let serving = axum::serve(listener, router).with_graceful_shutdown(stopped.map(|_| ()));
        let serving = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the listener failed");
            }
        });
        let listening = serving.map(|_| ()).boxed().shared();
        Ok(Self {
            door,
            definitions,
            address,
            token,
            announcement,
            intake,
            stop_listening,
            listening,
            server,
            _lock: lock,
        })
    }

    /// The address as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs until `shutdown` is ready, then stops in order.
    ///
    /// # Errors
    /// When the database could not be stopped in order.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let listening = self.listening.clone();
        let ended = tokio::select! {
            () = shutdown => return self.stop().await,
            () = listening => "listener",
            part = self.door.ended() => part,
        };
        // Half a node is worse than none: whatever restarts services restarts the whole of it.
        self.stop().await?;
        bail!("the {ended} ended by itself; what it was doing is in the journal, start steward again")
    }

    /// Stops in the reverse order of the start.
    ///
    /// # Errors
    /// When the database could not be stopped in order.
    pub async fn stop(self) -> Result<()> {
        let _ = std::fs::remove_file(&self.announcement); // a client then hears at once that nobody serves
        let _ = self.stop_listening.send(()); // gone only when the listener has ended already
        if tokio::time::timeout(LAST_REQUESTS, self.listening).await.is_err() {
            tracing::warn!("requests were still under way when the service stopped");
        }
        if let Err(error) = self.intake.stop_and_wait(None, Some(LAST_REQUESTS)).await {
            tracing::warn!(%error, "the inbox folder was still being looked at");
        }
        self.door.stop().await;
        self.door.engine().models.stop().await;
        self.door.engine().store.close();
        if let Some(server) = self.server {
            server.stop().await?;
        }
        Ok(())
    }
}

/// Ready when the process is asked to stop: Ctrl-C or SIGTERM.
pub async fn asked_to_stop() {
    let interrupt = tokio::signal::ctrl_c();
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be heard");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = interrupt => {}
        () = terminate => {}
    }
}

fn workspace_value(definitions: &Definitions) -> serde_json::Value {
    serde_json::to_value(&definitions.settings.workspace).unwrap_or_default()
}

fn prepare_state(workspace: &Path) -> Result<PathBuf> {
    if !workspace.is_dir() {
        bail!("there is no folder {}: name the workspace with `--workspace DIR`", workspace.display());
    }
    let state = workspace.join(STATE);
    for folder in [state.clone(), state.join("inbox"), state.join("outbox")] {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(state)
}

/// The database by URL, or the workspace's own. Only the latter is locked: any number of nodes may
/// share a database by URL, but a workspace's own server has one master.
async fn open_database(
    definitions: &Definitions,
    state: &Path,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<(Config, Option<Server>, Option<File>)> {
    let named = definitions.settings.database.as_ref().and_then(|database| database.url.resolve());
    let url = std::env::var("STEWARD_DATABASE_URL").ok().filter(|url| !url.is_empty());
    if let Some(url) = url.or(named.map(|secret| secret.expose().to_owned())) {
        // The parser's own error may quote the URL, and with it a password.
        let mut config = url.parse::<Config>().map_err(|_| {
            anyhow!(
                "the database URL cannot be read: write it as postgresql://user:password@host:5432/database"
            )
        })?;
        config.connect_timeout(DATABASE_SILENCE).tcp_user_timeout(DATABASE_SILENCE);
        config.keepalives(true).keepalives_idle(DATABASE_SILENCE);
        return Ok((config, None, None));
    }
    let lock = lock(state)?;
    let server = Server::start(state, progress).await?;
    server.ensure_database("steward").await?;
    let config = server.config("steward");
    Ok((config, Some(server), Some(lock)))
}

fn lock(state: &Path) -> Result<File> {
    let path = state.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another steward is running in this workspace ({}): use it, or stop it first",
            std::fs::read_to_string(state.join("address")).unwrap_or_default().trim()
        ),
        Err(TryLockError::Error(error)) => Err(error).context(format!("cannot lock {}", path.display())),
    }
}

/// The workspace's token, made at the first start.
fn token(state: &Path) -> Result<Secret> {
    let path = state.join("token");
    if let Ok(token) = std::fs::read_to_string(&path) {
        let token = token.trim().to_owned();
        if token.len() >= 32 {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            return Ok(Secret::new(token));
        }
    }
    let token = format!("stw_{}", hex::encode(rand::random::<[u8; 32]>()));
    write_private(&path, &format!("{token}\n"))?;
    Ok(Secret::new(token))
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(path: &Path, content: &str) -> Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}
