//! The composition root: starts the parts in order, and stops them in the reverse order.
//!
//! ```text
//! definitions → address → lock → database → schema → lease → journal → ledger → models, connectors → engine
//!      → door → intake, schedules, courier, observer, filling → listener         (stop: the same way back)
//! ```

pub mod presence;
mod replies;

use std::fs::{File, TryLockError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use ractor::{Actor, ActorRef};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_postgres::Config;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::api::ApiState;
use crate::api::session::Web;
use crate::api::sign_in::Link;
use crate::app::presence::{Announcement, token};
use crate::config::secret::{Secret, SecretRef};
use crate::config::workspace::Definitions;
use crate::connectors::email::Email;
use crate::connectors::http::Http;
use crate::connectors::records::Records;
use crate::connectors::registry::Connectors;
use crate::memory::{Embedder, Embedders, filling};
use crate::models::ledger::{Ledger, Terms};
use crate::models::{Encoder, Models};
use crate::orchestrator::door::Door;
use crate::orchestrator::engine::{Engine, Parts};
use crate::orchestrator::journal::Journal;
use crate::orchestrator::lease::{LEASE, Lease};
use crate::reviews;
use crate::reviews::autonomy::Observer;
use crate::reviews::channel::Channel;
use crate::reviews::courier::Courier;
use crate::reviews::email::{ByEmail, Desk};
use crate::reviews::slack::blocks::Look;
use crate::reviews::slack::{self, Slack};
use crate::store::postgres::Server;
use crate::store::{Store, migrate};
use crate::telemetry;
use crate::triggers::email::authentic::Authenticator;
use crate::triggers::files::{self, Intake};
use crate::triggers::mail::Mailroom;
use crate::triggers::schedule::{self, Schedules};
use crate::ui;

/// The folder of a workspace that Steward keeps to itself.
pub const STATE: &str = ".steward";

/// The variable that holds the key of signatures on `/hooks/email`.
const EMAIL_HOOK_SECRET: &str = "STEWARD_EMAIL_HOOK_SECRET";

/// The variable that holds a token which reads `/metrics` and nothing else.
const METRICS_TOKEN: &str = "STEWARD_METRICS_TOKEN";

/// How long a database across a network may be silent before the connection counts as lost.
const DATABASE_SILENCE: Duration = Duration::from_secs(15);

/// How long requests under way may take to finish when the service stops, and their share of the grace
/// at most.
const LAST_REQUESTS: (Duration, u32) = (Duration::from_secs(5), 4);

/// How a service is started.
pub struct Options {
    /// The workspace folder.
    pub workspace: PathBuf,
    /// Where to listen, if not where the settings say.
    pub listen: Option<SocketAddr>,
    /// The database to use, whatever the environment and the settings say.
    pub database: Option<Config>,
    /// Tells whom mail is from, if not by the name service of this machine.
    pub authenticator: Option<Authenticator>,
    /// Told one line per stage that takes over a second.
    pub progress: Box<dyn Fn(&str) + Send + Sync>,
}

/// A running service.
pub struct Service {
    /// The way to the orchestrator.
    pub door: Door,
    /// Where mail comes in.
    pub mail: Arc<Mailroom>,
    /// What the owner defined.
    pub definitions: Arc<Definitions>,
    /// Where it listens.
    pub address: SocketAddr,
    /// The token that the CLI and the owner use.
    pub token: Secret,
    api: ApiState,
    /// What tells clients the address.
    announcement: Announcement,
    intake: ActorRef<files::Msg>,
    schedules: ActorRef<schedule::Msg>,
    courier: Courier,
    filling: AbortOnDropHandle<()>,
    slack: Option<slack::Running>,
    observer: Observer,
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
        telemetry::remember_panics();
        let state = prepare_state(&options.workspace)?;
        let (definitions, warnings) = Definitions::load(&options.workspace)
            .map_err(|problems| anyhow!("the workspace has problems:\n\n{}", problems.render(false)))?;
        for warning in warnings {
            tracing::info!(file = %warning.file, line = warning.line, "{}", warning.message);
        }
        let definitions = Arc::new(definitions);
        // Before anything else is begun: a second service on the same address ends here, having done nothing.
        let listen = options.listen.unwrap_or(definitions.settings.listen);
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("cannot listen on {listen}: choose another address with `--listen ADDR` (port 0 takes a free one)")
        })?;
        let address = listener.local_addr()?;
        let encoder = Encoder::lazy();
        let database = async {
            match options.database {
                Some(config) => Ok((config, None, None)),
                None => open_database(&definitions, &state, options.progress.as_ref()).await,
            }
        };
        // The encoder's weights are unpacked while PostgreSQL starts.
        let (warm, database) = tokio::join!(encoder.warm(), database);
        let ((), (config, server, lock)) = (warm?, database?);
        migrate::migrate(&config).await?;
        let store = Store::new(config)?;
        let lease = Lease::take(&store, lease_length()?, lock.is_some()).await?;
        let journal = Journal::start(store.config()).await?;
        let terms = Terms::of(&definitions.settings, lease.clock());
        let ledger = Ledger::start(store.config(), terms).await?;
        let workspace = workspace_value(&definitions);
        let models = Models::start(&definitions.models, workspace, None, encoder, ledger).await?;
        let connectors = Connectors::new(
            Email::new(&definitions.connectors.email, state.join("outbox"))?,
            Http::new(&definitions.connectors.http)?,
            Records::new(store.clone()),
        );
        let embedder: Arc<dyn Embedder> = Arc::new(Embedders::of(&models, &store));
        let parts = Parts { clock: lease.clock(), lease, store, journal, connectors, embedder, models };
        let engine = Arc::new(Engine::new(parts, &definitions).await?);
        let door = Door::start(engine).await?;
        let desk =
            mail_desk(&definitions, door.engine().store.clone(), state.join("outbox"), address).await?;
        let mail = Arc::new(Mailroom {
            door: door.clone(),
            definitions: definitions.clone(),
            authenticator: options.authenticator.map_or_else(authenticator, Ok)?,
            aside: desk.clone().map(|desk| replies::aside(desk, door.clone())),
        });
        let intake = Intake { mail: mail.clone(), folder: state.join("inbox") };
        let (intake, _) = Actor::spawn(None, intake, ()).await?;
        schedule::register(&door, &definitions).await?;
        let (schedules, _) = Actor::spawn(None, Schedules { door: door.clone() }, ()).await?;
        let (slack, listening_to_slack) = open_slack(&door, &definitions, address)?;
        let channels = ways_to_the_owner(slack.clone(), desk.clone());
        let courier = Courier::start(
            door.engine().clone(),
            definitions.channels.clone(),
            definitions.settings.zone(),
            channels,
        );
        let filling = filling::look_after(door.engine().store.clone(), door.engine().embedder.clone());
        let observer = Observer::start(door.clone(), definitions.clone());

        let token = token(&state)?;
        let announcement = Announcement::make(&state, door.engine().node(), &format!("http://{address}"))?;
        let email_secret = SecretRef::Env(EMAIL_HOOK_SECRET.into()).resolve();
        let base = definitions.channels.public_url.clone().map_or_else(|| local_url(address), Ok)?;
        let web = Web::new(base, &token);
        let metrics_token = SecretRef::Env(METRICS_TOKEN.into()).resolve();
        let api =
            ApiState::new(door.clone(), definitions.clone(), (mail.clone(), desk), &token, email_secret, web)
                .with_slack(slack)
                .with_metrics_token(metrics_token.as_ref());
        let router = ui::serve(api.clone());
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
            mail,
            definitions,
            address,
            token,
            api,
            announcement,
            intake,
            schedules,
            courier,
            filling: AbortOnDropHandle::new(filling),
            slack: listening_to_slack,
            observer,
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

    /// A link that signs its first opener in to the web inbox.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sign_in_link(&self) -> Result<Link> {
        Ok(self.api.sign_in_link().await?)
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

    /// Stops in the reverse order of the start, within the grace of `limits.grace`. Other nodes go on with
    /// what nothing is under way for as soon as this begins.
    ///
    /// # Errors
    /// When the database could not be stopped in order.
    pub async fn stop(self) -> Result<()> {
        let grace = self.definitions.settings.limits.grace.0;
        let deadline = Instant::now() + grace;
        let last_requests = LAST_REQUESTS.0.min(grace / LAST_REQUESTS.1);
        self.announcement.withdraw();
        self.door.retreat();
        self.door.engine().live.stop();
        let _ = self.stop_listening.send(()); // gone only when the listener has ended already
        if tokio::time::timeout(last_requests, self.listening).await.is_err() {
            tracing::warn!("requests were still under way when the service stopped");
        }
        // A look under way goes on until the door is shut; its rows stay where they are then.
        self.schedules.stop(None);
        self.observer.stop().await;
        self.courier.stop().await;
        self.filling.abort();
        if let Some(slack) = self.slack {
            slack.stop().await;
        }
        if let Err(error) = self.intake.stop_and_wait(None, Some(last_requests)).await {
            tracing::warn!(%error, "the inbox folder was still being looked at");
        }
        self.door.stop_by(deadline).await;
        self.door.engine().models.stop().await;
        self.door.engine().store.close();
        if let Some(server) = self.server {
            server.stop().await?;
        }
        Ok(())
    }
}

/// Where a browser on this machine finds what listens on `address`.
fn local_url(address: SocketAddr) -> Result<Url> {
    let host = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    Ok(format!("http://{}/", SocketAddr::new(host, address.port())).parse()?)
}

/// How long this node's lease lasts. Only tests have a reason to change it.
fn lease_length() -> Result<Duration> {
    let Ok(seconds) = std::env::var("STEWARD_LEASE") else { return Ok(LEASE) };
    let length = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    length.filter(|length| !length.is_zero()).ok_or_else(|| {
        anyhow!("STEWARD_LEASE is `{}`: it takes a number of seconds, such as 2.5", seconds.escape_debug())
    })
}

/// Ready when the process is asked to stop: Ctrl-C or SIGTERM. It listens from the call on, not from the first
/// wait: whoever is told that the service is up may ask at once.
pub fn asked_to_stop() -> impl Future<Output = ()> {
    let (mut interrupt, mut terminate) = (heard(SignalKind::interrupt()), heard(SignalKind::terminate()));
    async move {
        tokio::select! {
            () = asked(&mut interrupt) => {}
            () = asked(&mut terminate) => {}
        }
    }
}

fn heard(kind: SignalKind) -> Option<Signal> {
    match signal(kind) {
        Ok(signal) => Some(signal),
        Err(error) => {
            tracing::warn!(%error, signal = kind.as_raw_value(), "a signal cannot be heard");
            None
        }
    }
}

async fn asked(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The owner's Slack, if `config/channels.yaml` names one, and what it does by itself.
fn open_slack(
    door: &Door,
    definitions: &Definitions,
    address: SocketAddr,
) -> Result<(Option<Arc<Slack>>, Option<slack::Running>)> {
    let Some(config) = &definitions.channels.slack else { return Ok((None, None)) };
    let (settings, channels) = (&definitions.settings, &definitions.channels);
    let web = match &channels.public_url {
        Some(url) => url.clone(),
        None => format!("http://{address}/").parse()?,
    };
    let look = Look { web, zone: settings.zone() };
    let slack = Slack::new(door.clone(), config, look, settings.workspace.currency.clone())?;
    let running = slack.start(config);
    Ok((Some(slack), Some(running)))
}

/// The channels of `config/channels.yaml`.
fn ways_to_the_owner(slack: Option<Arc<Slack>>, desk: Option<Arc<Desk>>) -> Vec<Arc<dyn Channel>> {
    let slack = slack.map(|slack| slack as Arc<dyn Channel>);
    let email = desk.map(|desk| Arc::new(ByEmail(desk)) as Arc<dyn Channel>);
    slack.into_iter().chain(email).collect()
}

/// Mail to the owner, if `config/channels.yaml` has any.
async fn mail_desk(
    definitions: &Definitions,
    store: Store,
    outbox: PathBuf,
    address: SocketAddr,
) -> Result<Option<Arc<Desk>>> {
    let Some(email) = &definitions.channels.email else { return Ok(None) };
    let workspace = &definitions.settings.workspace;
    let parts = reviews::email::Parts {
        store,
        post: Email::new(&definitions.connectors.email, outbox)?,
        owner: workspace.email.clone(),
        url: match &definitions.channels.public_url {
            Some(url) => url.clone(),
            None => format!("http://{address}/").parse()?,
        },
        zone: definitions.settings.zone(),
        currency: workspace.currency.clone(),
    };
    Ok(Some(Arc::new(Desk::new(parts, email).await?)))
}

/// Who mail is from, by the name servers of this machine. Without any, all mail is unproven: it still comes in.
fn authenticator() -> Result<Authenticator> {
    match Authenticator::system() {
        Ok(authenticator) => Ok(authenticator),
        Err(error) => {
            tracing::warn!(%error, "nobody can be asked whom mail is from: it counts as unproven");
            Ok(Authenticator::fixed([])?)
        }
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
