//! Filling the wanted space in the background: after another model was named in `config/models.yaml`, and
//! with what no model could embed when it was added.
//!
//! ```text
//! announce: the wanted space is registered ──► fill, batch by batch ──► switch ──► clear the old one away
//! ```
//!
//! The old space answers until the switch, which is one statement and takes place when nothing is missing.
//! Every batch is durable, so a crash costs at most one; one node fills at a time ([`Turn`]), and goes on as
//! soon as whatever kept it (a spent budget, a provider that is down) has passed.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::failpoint;
use crate::memory::embedders::{Embedder, embed};
use crate::memory::ingest::{BATCH, as_embedded};
use crate::store::memory::spaces::{self, Space, Turn};
use crate::store::{Store, StoreError};

pub use crate::store::memory::spaces::Standing;

/// How often it looks for what is missing: what was added without vectors is found by its words meanwhile.
const LOOK: Duration = Duration::from_secs(15);

/// The first pause after something went wrong; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause: a new day's budget or a mended provider is noticed within this time, and what is paid
/// for in vain, such as vectors of a wrong size, is so at most this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Passes of one look: what came in during one is left for the next, and each is much shorter than the last.
const PASSES: usize = 5;

/// How long one batch may take, with its wait in the queue and its retries; gateways give up long before.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a model is asked whose vectors' size nobody knows.
const WORD: &str = "memory";

/// Why a space is not filled; all of it may pass by itself.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The model gave no vectors.
    #[error("{0}")]
    Embed(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a look ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Looked {
    /// The wanted space answers, and nothing is missing.
    Settled,
    /// Not all is done: another node is at it, or documents came in meanwhile. The next look goes on.
    Pending,
}

/// Looks after the spaces until the handle is aborted: a look that is cut short has lost at most one batch.
#[must_use]
pub fn look_after(store: Store, embedder: Arc<dyn Embedder>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let (mut pause, mut told) = (FIRST_PAUSE, String::new());
        let mut announced = false;
        loop {
            let looked = look_once(&store, embedder.as_ref(), &mut announced).await;
            let rest = match looked {
                Ok(_) => {
                    (pause, told) = (FIRST_PAUSE, String::new());
                    LOOK
                }
                Err(error) => {
                    let why = error.to_string();
                    if why != told {
                        tracing::warn!(why, "documents are not embedded for now; words still find them");
                        told = why;
                    }
                    let rest = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    rest
                }
            };
            tokio::time::sleep(rest).await;
        }
    })
}

/// The spaces, and how far they are.
///
/// # Errors
/// When the database fails.
pub async fn standings(store: &Store) -> Result<Vec<Standing>, StoreError> {
    spaces::list(store).await
}

/// Does all there is to do: when it comes back settled, the model of `embedder` answers, unless another node
/// has wanted another one since.
///
/// # Errors
/// See [`FillError`].
pub async fn settle(store: &Store, embedder: &dyn Embedder) -> Result<Looked, FillError> {
    look_once(store, embedder, &mut false).await
}

/// `announced` is whether this process has said already which space it wants: it does so once, so that of two
/// nodes with different settings the one that started last prevails, and they do not take turns.
async fn look_once(
    store: &Store,
    embedder: &dyn Embedder,
    announced: &mut bool,
) -> Result<Looked, FillError> {
    let wanted = if *announced { Ok(()) } else { announce(store, embedder).await };
    *announced = wanted.is_ok();
    // What was wanted before is looked after in any case.
    let looked = look_into_wanted(store, embedder).await?;
    wanted.map(|()| looked)
}

async fn look_into_wanted(store: &Store, embedder: &dyn Embedder) -> Result<Looked, FillError> {
    let Some(space) = spaces::wanted(store).await? else { return Ok(Looked::Pending) };
    if spaces::settled(store, &space).await? {
        return Ok(Looked::Settled);
    }
    if !embedder.knows(&space.model) {
        return Ok(Looked::Pending);
    }
    let Some(turn) = Turn::take(store).await? else { return Ok(Looked::Pending) };
    for _ in 0..PASSES {
        fill(store, embedder, &space, &turn).await?;
        if spaces::switch(store, &space).await? {
            if !space.active {
                tracing::info!(space = space.model, "memory is searched with another model from now on");
            }
            spaces::drop_others(store).await?;
            break;
        }
    }
    let settled = spaces::settled(store, &space).await?;
    Ok(if settled { Looked::Settled } else { Looked::Pending })
}

async fn announce(store: &Store, embedder: &dyn Embedder) -> Result<(), FillError> {
    let name = embedder.space();
    let known = spaces::known(store, &name).await?.and_then(|space| usize::try_from(space.dimensions).ok());
    let dimensions = match known.or(embedder.dimensions()) {
        Some(dimensions) => dimensions,
        None => {
            let word = vec![WORD.to_owned()];
            let vectors = embed(embedder, &name, None, word, PATIENCE).await.map_err(FillError::Embed)?;
            vectors.first().map_or(0, Vec::len)
        }
    };
    spaces::want(store, &name, dimensions).await?;
    Ok(())
}

/// Makes what is missing in one pass.
async fn fill(store: &Store, embedder: &dyn Embedder, space: &Space, turn: &Turn) -> Result<(), FillError> {
    let dimensions = usize::try_from(space.dimensions).ok();
    let mut after = None;
    while turn.lasts() {
        let missing = spaces::missing(store, space, after, BATCH as i64).await?;
        let Some(last) = missing.last() else { return Ok(()) };
        after = Some(last.place);
        let texts = missing.iter().map(|chunk| as_embedded(&chunk.heading, &chunk.text)).collect();
        let vectors = embed(embedder, &space.model, dimensions, texts, PATIENCE).await;
        let vectors = vectors.map_err(FillError::Embed)?;
        let places = missing.iter().map(|chunk| chunk.place);
        spaces::fill(store, space, places.zip(vectors).collect()).await?;
        failpoint::hit(failpoint::SPACE_FILLED);
    }
    Ok(())
}
