//! The breakers of all gateways, kept in the database: a restart does not forget them, and one node need not
//! find out what another one knows.
//!
//! Each change of a gateway is written; every [`LOOK`] the rows are read. What another node opened is open
//! here, too; what was closed elsewhere, by a probe or by the owner, is closed here. A node that cannot
//! reach the database goes by its own breakers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::JoinHandle;

use crate::domain::duration::Span;
use crate::models::gateway::{Gateway, Trouble};
use crate::store::breakers::BreakerRow;
use crate::store::{Store, StoreError};
use crate::time::wall;

/// How often the rows are read: the shortest pause is three times as long.
const LOOK: Duration = Duration::from_secs(10);

/// How long the last look may take when the service stops.
const LAST: Duration = Duration::from_secs(2);

/// What keeps the breakers.
pub(crate) struct Keeper {
    gateways: Vec<Gateway>,
    /// Once there is a database.
    kept: OnceLock<Arc<Kept>>,
    looking: Mutex<Option<JoinHandle<()>>>,
}

struct Kept {
    store: Store,
    /// One look at a time; what each provider's trouble was when this node and the database last agreed.
    agreed: AsyncMutex<BTreeMap<String, Option<Trouble>>>,
    gateways: Vec<Gateway>,
}

impl Keeper {
    pub(crate) fn new(gateways: Vec<Gateway>) -> Self {
        Self { gateways, kept: OnceLock::new(), looking: Mutex::new(None) }
    }

    /// Keeps the breakers in this database from now on.
    pub(crate) async fn attend(&self, store: Store) -> Result<(), StoreError> {
        let kept = Arc::new(Kept { store, agreed: AsyncMutex::default(), gateways: self.gateways.clone() });
        kept.look().await?;
        if self.kept.set(Arc::clone(&kept)).is_ok() && !self.gateways.is_empty() {
            *self.looking() = Some(tokio::spawn(kept.go_on()));
        }
        Ok(())
    }

    /// Writes what is new here and reads what is new elsewhere, now.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        match self.kept.get() {
            Some(kept) => kept.look().await,
            None => Ok(()),
        }
    }

    /// The rows; none without a database.
    pub(crate) async fn rows(&self) -> Result<Vec<BreakerRow>, StoreError> {
        match self.kept.get() {
            Some(kept) => kept.store.breakers().await,
            None => Ok(Vec::new()),
        }
    }

    /// The owner has mended a provider: that is so for every node.
    pub(crate) async fn close(&self, provider: &str) -> Result<(), StoreError> {
        let Some(kept) = self.kept.get() else { return Ok(()) };
        let mut agreed = kept.agreed.lock().await;
        kept.store.close_breaker(provider).await?;
        agreed.insert(provider.to_owned(), None);
        Ok(())
    }

    pub(crate) async fn stop(&self) {
        let looking = self.looking().take();
        if let Some(looking) = looking {
            looking.abort();
            // What is not written now is found out anew by whoever starts next.
            if let Ok(Err(error)) = tokio::time::timeout(LAST, self.look()).await {
                tracing::debug!(%error, "the breakers could not be written");
            }
        }
    }

    fn looking(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    async fn go_on(self: Arc<Self>) {
        let mut changes: Vec<watch::Receiver<_>> = self.gateways.iter().map(Gateway::trouble).collect();
        loop {
            let changed = select_all(changes.iter_mut().map(|change| Box::pin(change.changed())));
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                (change, ..) = changed => if change.is_err() {
                    return; // the gateways have stopped
                }
            }
            changes.iter_mut().for_each(|change| drop(change.borrow_and_update()));
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "the breakers could not be looked at");
            }
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        let mut agreed = self.agreed.lock().await;
        for gateway in &self.gateways {
            let here = gateway.trouble().borrow().clone();
            if agreed.get(gateway.name()).cloned().flatten() != here {
                self.write(gateway.name(), here.as_ref()).await?;
                agreed.insert(gateway.name().to_owned(), here);
            }
        }
        for row in self.store.breakers().await? {
            let Some(gateway) = self.gateways.iter().find(|gateway| gateway.name() == row.provider) else {
                continue;
            };
            let known = agreed.get(&row.provider).cloned().flatten();
            let there = row.closed_at.is_none().then(|| trouble(&row));
            if !same(known.as_ref(), there.as_ref()) {
                gateway.adopt(there.clone()).await;
                agreed.insert(row.provider, there);
            }
        }
        Ok(())
    }

    async fn write(&self, provider: &str, trouble: Option<&Trouble>) -> Result<(), StoreError> {
        match trouble {
            Some(Trouble { until, why, lasting }) => {
                let left = Duration::try_from(until.duration_since(wall())).unwrap_or_default();
                self.store.open_breaker(provider, why, *lasting, left).await
            }
            None => self.store.close_breaker(provider).await.map(drop),
        }
    }
}

fn trouble(row: &BreakerRow) -> Trouble {
    Trouble { until: Span(row.left).after(wall()), why: row.why.clone(), lasting: row.lasting }
}

/// Whether two nodes mean the same: the moment need not be the same to the millisecond, and one that is
/// over is over.
fn same(known: Option<&Trouble>, there: Option<&Trouble>) -> bool {
    const NEAR: i64 = 2;
    match (known, there) {
        (None, None) => true,
        (Some(known), Some(there)) => {
            let apart = known.until.duration_since(there.until).as_secs().abs();
            let over = known.until <= wall() && there.until <= wall();
            known.lasting == there.lasting && (apart <= NEAR || over)
        }
        _ => false,
    }
}
