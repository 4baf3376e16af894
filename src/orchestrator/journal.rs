//! The journal actors: group commit. While one batch is on its way to the database, transitions
//! gather; the next statement carries all of them. Idle, a transition leaves at once.
//!
//! An acknowledged transition is durable. When the connection breaks in the middle, nobody knows
//! whether the batch landed: the actor reconnects and looks each one up before it sends it again.

use std::time::Duration;

use futures_util::future::{join_all, select_all};
use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio_postgres::Config;

use crate::domain::ids::{NodeId, RunId};
use crate::store::StoreError;
use crate::store::journal::writer::{Landed, Writer, refused};
use crate::store::journal::{Commit, CommitError, Open, Opened};

/// Writers per node, each with a connection of its own: while one waits for the disk the other keeps
/// the processors busy. Four were no faster at 256 runs, and slower at 32, for they split the batches
/// that make the speed.
const WRITERS: usize = 2;

/// The most transitions in one statement: beyond that a statement's own work outweighs what is shared.
const MAX_BATCH: usize = 256;

/// How long to wait before connecting again, at first and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Told when a commit is durable, or why it never will be.
pub type OnCommit = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// The way to the journal; cheap to clone.
#[derive(Clone)]
pub struct Journal {
    writers: Vec<ActorRef<Msg>>,
}

impl Journal {
    /// Starts the writers of a node.
    ///
    /// # Errors
    /// When an actor cannot be spawned.
    pub async fn start(config: &Config, node: NodeId) -> Result<Self, SpawnErr> {
        let mut writers = Vec::with_capacity(WRITERS);
        for _ in 0..WRITERS {
            let args = Args { config: config.clone(), node };
            writers.push(Actor::spawn(None, JournalActor, args).await?.0);
        }
        Ok(Self { writers })
    }

    /// Appends a transition; `done` is called once it is durable or refused.
    pub fn commit(&self, commit: Commit, done: OnCommit) {
        // A stopped journal drops `done`: the run is then no longer this node's to move.
        let _ = self.writer(commit.run).cast(Msg::Commit(Box::new(commit), done));
    }

    /// Opens a run; gives back once it is durable.
    ///
    /// # Errors
    /// When the database refuses it or the journal is stopping.
    pub async fn open(&self, open: Open) -> Result<Opened, StoreError> {
        let (done, answer) = oneshot::channel();
        let stopping = || StoreError::Unavailable("this node is stopping".into());
        self.writer(open.run).cast(Msg::Open(Box::new(open), done)).map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    fn writer(&self, run: RunId) -> &ActorRef<Msg> {
        let slot = usize::from(run.0.as_bytes()[15]) % self.writers.len();
        &self.writers[slot]
    }

    /// Waits until a writer has ended.
    pub async fn ended(&self) {
        let waits = self.writers.iter().map(|writer| Box::pin(writer.wait(None)));
        let _ = select_all(waits).await;
    }

    /// Stops the writers once everything that waits is written.
    pub async fn stop(&self, grace: Duration) {
        join_all(self.writers.iter().map(|writer| writer.drain_and_wait(Some(grace)))).await;
    }
}

/// What a journal actor is told.
pub enum Msg {
    /// Append a transition.
    Commit(Box<Commit>, OnCommit),
    /// Open a run.
    Open(Box<Open>, oneshot::Sender<Result<Opened, StoreError>>),
    /// The batch on its way is done; the writer comes back.
    Written(Box<Writer>),
    /// Writing crashed, and took the writer with it.
    Crashed(JoinError),
}

struct JournalActor;

struct Args {
    config: Config,
    node: NodeId,
}

struct State {
    config: Config,
    node: NodeId,
    /// Absent while a batch is on its way.
    writer: Option<Box<Writer>>,
    waiting: Batch,
}

#[derive(Default)]
struct Batch {
    commits: Vec<(Commit, OnCommit)>,
    opens: Vec<(Open, oneshot::Sender<Result<Opened, StoreError>>)>,
}

impl Actor for JournalActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let writer = Some(Box::new(connect(&args.config).await));
        Ok(State { config: args.config, node: args.node, writer, waiting: Batch::default() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Commit(commit, done) => state.waiting.commits.push((*commit, done)),
            Msg::Open(open, done) => state.waiting.opens.push((*open, done)),
            Msg::Written(writer) => state.writer = Some(writer),
            Msg::Crashed(error) => return Err(error.into()), // the node ends and starts anew
        }
        state.flush(&myself);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        // Whatever came in after the last flush: nothing acknowledged is lost, nothing waiting is dropped.
        let waiting = std::mem::take(&mut state.waiting);
        if !waiting.commits.is_empty() || !waiting.opens.is_empty() {
            let mut writer = match state.writer.take() {
                Some(writer) => writer,
                None => Box::new(connect(&state.config).await),
            };
            write(&mut writer, &state.config, state.node, waiting).await;
        }
        Ok(())
    }
}

impl State {
    fn flush(&mut self, myself: &ActorRef<Msg>) {
        if self.waiting.commits.is_empty() && self.waiting.opens.is_empty() {
            return;
        }
        let Some(mut writer) = self.writer.take() else { return };
        let commits = self.waiting.commits.len().min(MAX_BATCH);
        let opens = self.waiting.opens.len().min(MAX_BATCH);
        let batch = Batch {
            commits: self.waiting.commits.drain(..commits).collect(),
            opens: self.waiting.opens.drain(..opens).collect(),
        };
        let (config, node, myself) = (self.config.clone(), self.node, myself.clone());
        let writing = tokio::spawn(async move {
            write(&mut writer, &config, node, batch).await;
            writer
        });
        tokio::spawn(async move {
            let _ = myself.cast(writing.await.map_or_else(Msg::Crashed, Msg::Written));
        });
    }
}

async fn write(writer: &mut Box<Writer>, config: &Config, node: NodeId, batch: Batch) {
    if !batch.opens.is_empty() {
        open_all(writer, config, batch.opens).await;
    }
    if !batch.commits.is_empty() {
        commit_all(writer, config, node, batch.commits).await;
    }
}

async fn open_all(
    writer: &mut Box<Writer>,
    config: &Config,
    opens: Vec<(Open, oneshot::Sender<Result<Opened, StoreError>>)>,
) {
    let values: Vec<&Open> = opens.iter().map(|(open, _)| open).collect();
    let opened = loop {
        match writer.open(&values).await {
            Err(error) if error.retryable() => reconnect(writer, config, &error).await,
            opened => break opened,
        }
    };
    match opened {
        Ok(opened) => {
            for ((_, done), opened) in opens.into_iter().zip(opened) {
                let _ = done.send(Ok(opened)); // the asker may have gone
            }
        }
        Err(error) if opens.len() == 1 => {
            for (_, done) in opens {
                let _ = done.send(Err(StoreError::Statement(error.to_string())));
            }
        }
        Err(_) => {
            for open in opens {
                Box::pin(open_all(writer, config, vec![open])).await;
            }
        }
    }
}

async fn commit_all(
    writer: &mut Box<Writer>,
    config: &Config,
    node: NodeId,
    mut commits: Vec<(Commit, OnCommit)>,
) {
    while !commits.is_empty() {
        let values: Vec<&Commit> = commits.iter().map(|(commit, _)| commit).collect();
        match writer.write(node, &values).await {
            Ok(accepted) => return answer(commits, &accepted),
            Err(error) if error.retryable() => {
                reconnect(writer, config, &error).await;
                commits = settle_unknown(writer, config, commits).await;
            }
            // One transition spoils the statement: each gets its own, so that the others land.
            Err(_) if commits.len() > 1 => {
                for commit in commits {
                    Box::pin(commit_all(writer, config, node, vec![commit])).await;
                }
                return;
            }
            Err(error) => {
                if let Some((commit, done)) = commits.pop() {
                    done(Err(refused(&commit, error)));
                }
                return;
            }
        }
    }
}

fn answer(commits: Vec<(Commit, OnCommit)>, accepted: &[RunId]) {
    let accepted: std::collections::HashSet<&RunId> = accepted.iter().collect();
    for (commit, done) in commits {
        done(if accepted.contains(&commit.run) { Ok(()) } else { Err(CommitError::Fenced) });
    }
}

/// After a broken connection: acknowledges what landed, refuses what never will, gives back what must be sent again.
async fn settle_unknown(
    writer: &mut Box<Writer>,
    config: &Config,
    commits: Vec<(Commit, OnCommit)>,
) -> Vec<(Commit, OnCommit)> {
    let mut again = Vec::new();
    for (commit, done) in commits {
        let landed = loop {
            match writer.landed(&commit).await {
                Ok(landed) => break landed,
                Err(error) if error.retryable() => reconnect(writer, config, &error).await,
                Err(_) => break Landed::Never,
            }
        };
        match landed {
            Landed::Yes => done(Ok(())),
            Landed::No => again.push((commit, done)),
            Landed::Never => done(Err(CommitError::Fenced)),
        }
    }
    again
}

async fn reconnect(writer: &mut Box<Writer>, config: &Config, error: &StoreError) {
    tracing::warn!(%error, "the journal cannot write; it tries again until it can");
    if writer.is_closed() {
        **writer = connect(config).await;
    } else {
        tokio::time::sleep(RECONNECT.0).await;
    }
}

async fn connect(config: &Config) -> Writer {
    let mut pause = RECONNECT.0;
    loop {
        match Writer::connect(config).await {
            Ok(writer) => return writer,
            Err(error) => tracing::warn!(%error, "the journal cannot connect"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RECONNECT.1);
    }
}
