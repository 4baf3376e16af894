//! The journal actors: group commit. While one batch is on its way to the database, transitions
//! gather in a queue; the next statement carries all of them. Idle, a transition leaves at once: who
//! appends to an empty queue wakes its writer, everybody else finds it at work.
//!
//! An acknowledged transition is durable. When the connection breaks in the middle, nobody knows
//! whether the batch landed: the actor reconnects and looks each one up before it sends it again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::oneshot;
use tokio_postgres::Config;

use crate::domain::ids::RunId;
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
    lanes: Vec<Lane>,
}

/// How much was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Transitions, openings of runs included.
    pub transitions: u64,
    /// The batches they went in.
    pub batches: u64,
}

/// One writer and what waits for it.
#[derive(Clone)]
struct Lane {
    queue: Arc<Queue>,
    writer: ActorRef<Msg>,
}

impl Journal {
    /// Starts the writers of a node.
    ///
    /// # Errors
    /// When an actor cannot be spawned.
    pub async fn start(config: &Config) -> Result<Self, SpawnErr> {
        let mut lanes = Vec::with_capacity(WRITERS);
        for _ in 0..WRITERS {
            let queue = Arc::new(Queue::default());
            let args = Args { config: config.clone(), queue: queue.clone() };
            lanes.push(Lane { queue, writer: Actor::spawn(None, JournalActor, args).await?.0 });
        }
        Ok(Self { lanes })
    }

    /// Appends a transition; `done` is called once it is durable or refused. A journal that has stopped
    /// drops `done`: the run is then no longer this node's to move.
    pub fn commit(&self, commit: Commit, done: OnCommit) {
        self.lane(commit.run).push(|batch| batch.commits.push((commit, done)));
    }

    /// Opens a run; gives back once it is durable.
    ///
    /// # Errors
    /// When the database refuses it or the journal is stopping.
    pub async fn open(&self, open: Open) -> Result<Opened, StoreError> {
        let (done, answer) = oneshot::channel();
        self.lane(open.run).push(|batch| batch.opens.push((open, done)));
        answer.await.map_err(|_| StoreError::Unavailable("this node is stopping".into()))?
    }

    /// What its writers have brought to the database since they started, the refused included.
    #[must_use]
    pub fn written(&self) -> Written {
        let sum = |of: fn(&Queue) -> &AtomicU64| {
            self.lanes.iter().map(|lane| of(&lane.queue).load(Ordering::Relaxed)).sum()
        };
        Written { transitions: sum(|queue| &queue.transitions), batches: sum(|queue| &queue.batches) }
    }

    fn lane(&self, run: RunId) -> &Lane {
        let slot = usize::from(run.0.as_bytes()[15]) % self.lanes.len();
        &self.lanes[slot]
    }

    /// Waits until a writer has ended.
    pub async fn ended(&self) {
        let waits = self.lanes.iter().map(|lane| Box::pin(lane.writer.wait(None)));
        let _ = select_all(waits).await;
    }

    /// Stops the writers once everything that waits is written.
    pub async fn stop(&self, grace: Duration) {
        join_all(self.lanes.iter().map(|lane| lane.writer.drain_and_wait(Some(grace)))).await;
    }
}

impl Lane {
    fn push(&self, add: impl FnOnce(&mut Batch)) {
        if self.queue.push(add) {
            // A writer that takes no more messages empties the queue once more when it stops.
            let _ = self.writer.cast(Msg::Write);
        }
    }
}

/// What waits for a writer. Bounded by what is admitted: a run in motion has one transition on its way,
/// a door has as many openings as it has askers.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    transitions: AtomicU64,
    batches: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    batch: Batch,
    /// The writer is at work, or told to begin: it will find what is added.
    awake: bool,
    /// The writer has ended: nothing is taken any more.
    closed: bool,
}

impl Queue {
    /// Adds to what waits; true when the writer has to be woken.
    fn push(&self, add: impl FnOnce(&mut Batch)) -> bool {
        let mut waiting = self.lock();
        if waiting.closed {
            return false;
        }
        add(&mut waiting.batch);
        !std::mem::replace(&mut waiting.awake, true)
    }

    /// The next batch; none when nothing waits, and then the writer sleeps until it is woken.
    fn take(&self) -> Option<Batch> {
        let mut waiting = self.lock();
        let batch = waiting.batch.take();
        waiting.awake = batch.is_some();
        batch
    }

    /// Takes nothing any more, and drops what waits: who asked hears that nobody writes.
    fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let dropped = std::mem::take(&mut waiting.batch);
        drop(waiting); // what is dropped may call back
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner) // two lists: never half-changed
    }
}

#[derive(Default)]
struct Batch {
    commits: Vec<(Commit, OnCommit)>,
    opens: Vec<(Open, oneshot::Sender<Result<Opened, StoreError>>)>,
}

impl Batch {
    /// As much as fits one statement, the oldest first.
    fn take(&mut self) -> Option<Self> {
        if self.commits.is_empty() && self.opens.is_empty() {
            return None;
        }
        Some(Self { commits: oldest(&mut self.commits), opens: oldest(&mut self.opens) })
    }
}

fn oldest<T>(waiting: &mut Vec<T>) -> Vec<T> {
    if waiting.len() <= MAX_BATCH { std::mem::take(waiting) } else { waiting.drain(..MAX_BATCH).collect() }
}

/// What a journal actor is told.
pub enum Msg {
    /// Something waits in its queue.
    Write,
}

struct JournalActor;

struct Args {
    config: Config,
    queue: Arc<Queue>,
}

struct State {
    config: Config,
    writer: Box<Writer>,
    queue: Arc<Queue>,
}

impl Drop for State {
    /// However the actor ended, nobody waits for it in vain.
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Actor for JournalActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let writer = Box::new(connect(&args.config).await);
        Ok(State { config: args.config, writer, queue: args.queue })
    }

    /// Waits for the database and nobody else: what comes in meanwhile gathers in the queue.
    async fn handle(&self, _: ActorRef<Msg>, msg: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Write => state.write_all().await,
        }
        Ok(())
    }

    /// Whatever came in after the last message: nothing acknowledged is lost, nothing waiting is dropped.
    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.write_all().await;
        Ok(())
    }
}

impl State {
    async fn write_all(&mut self) {
        while let Some(batch) = self.queue.take() {
            let transitions = batch.commits.len() + batch.opens.len();
            self.queue.transitions.fetch_add(transitions as u64, Ordering::Relaxed);
            self.queue.batches.fetch_add(1, Ordering::Relaxed);
            write(&mut self.writer, &self.config, batch).await;
        }
    }
}

/// How many transitions, from the first on, were made under the lease of the first. A batch has one
/// fence; what is left over from a lost lease goes ahead in a batch of its own, and is refused.
fn same_lease(commits: &[(Commit, OnCommit)]) -> usize {
    let lease = |commit: &(Commit, OnCommit)| commit.0.node;
    commits.iter().take_while(|commit| lease(commit) == lease(&commits[0])).count()
}

async fn write(writer: &mut Box<Writer>, config: &Config, mut batch: Batch) {
    if !batch.opens.is_empty() {
        open_all(writer, config, batch.opens).await;
    }
    while !batch.commits.is_empty() {
        let rest = batch.commits.split_off(same_lease(&batch.commits));
        commit_all(writer, config, std::mem::replace(&mut batch.commits, rest)).await;
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

/// Writes transitions that were made under one lease.
async fn commit_all(writer: &mut Box<Writer>, config: &Config, mut commits: Vec<(Commit, OnCommit)>) {
    while let Some(node) = commits.first().map(|(commit, _)| commit.node) {
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
                    Box::pin(commit_all(writer, config, vec![commit])).await;
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
