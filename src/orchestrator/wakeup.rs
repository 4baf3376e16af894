//! Wake-ups: tells the other nodes when something is due that this node cannot move itself, and hears
//! what they tell. Hints gather while one is on its way, so that a flood of decisions is a few
//! statements. A lost connection costs time only: the clock polls.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::domain::ids::RunId;
use crate::orchestrator::engine::Engine;
use crate::orchestrator::supervisor;
use crate::store::StoreError;
use crate::store::wakeup::{Hint, Line, NAMED};

/// The least time between two hints: those that come meanwhile go together.
const GAP: Duration = Duration::from_millis(3);

/// How long a hint may take: a connection that is slower than the poll is of no use.
const SLOW: Duration = Duration::from_secs(2);

/// How long to wait before connecting again, at first and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What is to be told to the other nodes; cheap to clone.
#[derive(Clone, Default)]
pub struct Wakeups {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Runs that were told something; [`NAMED`] and one at most, which means: too many to name.
    told: Mutex<BTreeSet<RunId>>,
    changed: Notify,
}

impl Wakeups {
    /// A run was told something, and it is not this node that moves it.
    pub fn told(&self, run: RunId) {
        let mut told = self.lock();
        if told.len() <= NAMED {
            told.insert(run);
        }
        drop(told);
        self.shared.changed.notify_one();
    }

    /// Something is due that any node may take.
    pub fn due(&self) {
        self.shared.changed.notify_one();
    }

    fn take(&self) -> Vec<RunId> {
        std::mem::take(&mut *self.lock()).into_iter().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<RunId>> {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner) // a set: always whole
    }
}

/// Begins to listen and to tell.
pub(super) fn start(engine: Arc<Engine>, supervisor: ActorRef<supervisor::Msg>) -> AbortHandle {
    let serving = tokio::spawn(async move {
        let mut pause = RECONNECT.0;
        loop {
            let since = Instant::now();
            if let Err(error) = serve(&engine, &supervisor).await {
                tracing::warn!(%error, "wake-ups between nodes are lost; the clock polls meanwhile");
            }
            pause = if since.elapsed() > RECONNECT.1 { RECONNECT.0 } else { (pause * 2).min(RECONNECT.1) };
            // Up to twice as long: nodes that lost the same server must not all come back at once.
            tokio::time::sleep(pause.mul_f64(1.0 + rand::random::<f64>())).await;
        }
    });
    serving.abort_handle()
}

/// Until the connection is lost.
async fn serve(engine: &Engine, supervisor: &ActorRef<supervisor::Msg>) -> Result<(), StoreError> {
    let lost = || StoreError::Unavailable("the connection that listens ended".into());
    let slow = || StoreError::Unavailable("a wake-up took too long".into());
    let connected = tokio::time::timeout(SLOW, Line::connect(engine.store.config())).await;
    let mut line = connected.map_err(|_| slow())??;
    let missed = Hint { runs: Vec::new(), others: true };
    let _ = supervisor.cast(supervisor::Msg::Heard(missed)); // whatever was told while nobody listened
    let mut free_at = Instant::now();
    loop {
        let something_to_tell = async {
            tokio::time::sleep_until(free_at).await;
            engine.wakeups.shared.changed.notified().await;
        };
        tokio::select! {
            hint = line.hear() => {
                let _ = supervisor.cast(supervisor::Msg::Heard(hint.ok_or_else(lost)?));
            }
            () = something_to_tell => {
                let hint = Hint { runs: engine.wakeups.take(), others: false };
                tokio::time::timeout(SLOW, line.tell(&hint)).await.map_err(|_| slow())??;
                free_at = Instant::now() + GAP;
            }
        }
    }
}
