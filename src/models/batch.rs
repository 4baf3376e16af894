//! Calls that may wait, in batches at half the price (OpenAI's `/files` and `/batches`).
//!
//! ```text
//! walk: put_off ─ reserve, keep ─►  run sleeps ─►  gather ─► upload ─► submit ─► look … ─► fetch ─►  run goes on
//!                                                      (batcher, whichever node holds the claim)
//! ```
//!
//! - [`put_off`] is the agent's side: a call goes into a batch, and comes back as the answer of its model;
//! - [`api`] is the provider's interface, [`results`] what its files say;
//! - here: the batcher, a task of each node that looks after batches, one holder of the claim at a time.
//!
//! A batch is `submitting` before it is submitted. Who finds one so does not know whether it has begun, and asks
//! the provider by its metadata before he begins it: nothing is silently paid for twice.

mod api;
mod put_off;
mod results;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::models::{Price, Provider};
use crate::failpoint;
use crate::models::batch::api::{Remote, Stage};
use crate::models::batch::results::read;
use crate::models::error::{Kind, ModelError};
use crate::models::gateway::Gateway;
use crate::models::ledger::Ledger;
use crate::models::price::{Tariff, cost};
use crate::models::wire::{Reply, from_body};
use crate::store::batches::{Batch, BatchStatus, Claim, Ended, Fault, Gathering, Progress, Unheard};
use crate::store::{Store, StoreError};

/// A batch is claimed for so long and claimed again at a third of it: so long nobody looks after it when its
/// node dies.
const CLAIM: Duration = Duration::from_secs(10);

/// How long after a batch was perhaps begun the provider is asked whether it was: longer than the request to
/// begin it may take, so that it has either come there or never will.
const PROBE_AFTER: Duration = Duration::from_secs(15);

/// How long a batch may take to be handed over; the calls of one that is not are made one by one.
const SEND_WITHIN: Duration = Duration::from_secs(3600);

/// How long a call may be kept before its run's wait for it is durable.
const UNWANTED: Duration = Duration::from_secs(600);

/// The most bytes of questions in one batch: a third of what OpenAI takes, and little enough for memory.
const BYTES: i64 = 64 * 1024 * 1024;

/// The pauses after failures: doubling from the first to the last.
const AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// How often a node looks when nothing gathers on it.
const IDLE: Duration = Duration::from_secs(30);

/// How often it looks at most and at least when something may gather.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long what is under way may take when the service stops; what is cut off is looked up later.
const STOP: Duration = Duration::from_secs(3);

/// What looks after batches on this node.
pub(crate) struct Batcher {
    providers: BTreeMap<String, Served>,
    prices: BTreeMap<String, Price>,
    ledger: Ledger,
    stop: CancellationToken,
    working: Mutex<Option<JoinHandle<()>>>,
}

/// A provider that takes batches.
#[derive(Clone)]
struct Served {
    gateway: Gateway,
    gathering: Gathering,
    look: Duration,
}

impl Batcher {
    pub(crate) fn new(
        config: &crate::config::models::Models,
        gateways: &BTreeMap<String, Result<Gateway, String>>,
        ledger: Ledger,
    ) -> Self {
        let takes = |(name, provider): (&String, &Provider)| {
            let gateway = gateways.get(name)?.as_ref().ok().filter(|_| provider.batch)?.clone();
            let gathering =
                Gathering { size: provider.batch_size, bytes: BYTES, within: provider.batch_within.0 };
            Some((name.clone(), Served { gateway, gathering, look: provider.batch_look.0 }))
        };
        let prices =
            config.models.iter().filter_map(|(name, model)| Some((name.clone(), model.price.clone()?)));
        Self {
            providers: config.providers.iter().filter_map(takes).collect(),
            prices: prices.collect(),
            ledger,
            stop: CancellationToken::new(),
            working: Mutex::new(None),
        }
    }

    /// Looks after the batches in this database from now on.
    pub(crate) fn attend(&self, store: Store) {
        let work = Work {
            store,
            providers: self.providers.clone(),
            prices: self.prices.clone(),
            ledger: self.ledger.clone(),
            claimant: Uuid::now_v7(),
            stop: self.stop.clone(),
        };
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        working.get_or_insert_with(|| tokio::spawn(work.go_on()));
    }

    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut working) = working
            && tokio::time::timeout(STOP, &mut working).await.is_err()
        {
            working.abort();
        }
    }
}

struct Work {
    store: Store,
    providers: BTreeMap<String, Served>,
    prices: BTreeMap<String, Price>,
    ledger: Ledger,
    claimant: Uuid,
    stop: CancellationToken,
}

/// What follows for a batch that was looked after.
enum Next {
    /// Look again after a while.
    Look(Duration),
    /// It is over.
    Over(Over),
    /// Something failed that may pass.
    Failed(ModelError),
    /// The claim is lost, or the database away: somebody looks after it later.
    Left,
}

/// How a batch ended.
struct Over {
    why: String,
    /// How each of its calls did.
    ended: Vec<Ended>,
    /// What the provider need not keep once that is durable.
    files: Vec<String>,
}

impl Work {
    async fn go_on(self) {
        let work = Arc::new(self);
        let pause = work.pause();
        loop {
            if let Err(error) = work.look().await {
                tracing::warn!(%error, "batches of model calls are looked after later");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = work.stop.cancelled() => return,
            }
        }
    }

    fn pause(&self) -> Duration {
        let shortest = self.providers.values().map(|served| served.look.min(served.gathering.within)).min();
        shortest.map_or(IDLE, |shortest| (shortest / 2).clamp(LOOK.0, LOOK.1))
    }

    async fn look(&self) -> Result<(), StoreError> {
        for (provider, model) in self.store.batches_wanted().await? {
            if let Some(served) = self.providers.get(&provider)
                && served.gateway.trouble().borrow().is_none()
            {
                self.store.form_batch(&provider, &model, served.gathering).await?;
            }
        }
        let names: Vec<&str> = self.providers.keys().map(String::as_str).collect();
        let claim = Claim { by: self.claimant, span: CLAIM };
        while !self.stop.is_cancelled()
            && let Some(batch) = self.store.claim_batch(&names, claim).await?
        {
            self.look_after(&batch, claim).await?;
        }
        self.settle(self.store.end_unsent(SEND_WITHIN, UNWANTED).await?);
        self.store.forget_batch_bodies().await?;
        Ok(())
    }

    /// Takes a batch as far as it goes without waiting; whoever loses the claim stops at once.
    async fn look_after(&self, batch: &Batch, claim: Claim) -> Result<(), StoreError> {
        let Some(served) = self.providers.get(&batch.provider) else { return Ok(()) };
        let hold = async {
            loop {
                tokio::time::sleep(CLAIM / 3).await;
                match self.store.advance_batch(batch.id, claim, Progress::Held).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => tracing::warn!(%error, "the claim of a batch was not renewed"),
                }
            }
        };
        let next = tokio::select! {
            next = self.advance(batch, served, claim) => next?,
            () = hold => Next::Left,
            () = self.stop.cancelled() => Next::Left,
        };
        match next {
            Next::Look(pause) => self.store.leave_batch(batch.id, claim, pause, None).await?,
            Next::Left => {}
            Next::Over(Over { why, ended, files }) => {
                if let Some(unheard) = self.store.end_batch(batch.id, claim, &why, &ended).await? {
                    tracing::info!(batch = %batch.id, provider = batch.provider, calls = ended.len(), why, "a batch is over");
                    self.settle_with(&unheard, &ended);
                    Remote(served.gateway.endpoint()).forget(&files).await;
                }
            }
            Next::Failed(error) => {
                tracing::warn!(batch = %batch.id, provider = batch.provider, %error, "a batch has to wait");
                let pause = AGAIN.0.saturating_mul(1 << batch.failures.min(10)).min(AGAIN.1);
                self.store.leave_batch(batch.id, claim, pause, Some(&error.message)).await?;
            }
        }
        Ok(())
    }

    async fn advance(&self, batch: &Batch, served: &Served, claim: Claim) -> Result<Next, StoreError> {
        let remote = Remote(served.gateway.endpoint());
        match batch.status {
            BatchStatus::Formed => self.hand_over(batch, served, claim, &remote).await,
            BatchStatus::Submitting => self.look_up(batch, served, claim, &remote).await,
            BatchStatus::Submitted => self.fetch(batch, served, &remote).await,
        }
    }

    /// Uploads the questions, then begins the batch.
    async fn hand_over(
        &self,
        batch: &Batch,
        served: &Served,
        claim: Claim,
        remote: &Remote<'_>,
    ) -> Result<Next, StoreError> {
        if batch.age > SEND_WITHIN {
            return self.over(batch, Fault::Unsent, "it could not be handed over in time").await;
        }
        let file = match &batch.file {
            Some(file) => file.clone(),
            None => {
                let questions = self.store.batch_questions(batch.id).await?;
                if questions.is_empty() {
                    return self.over(batch, Fault::Unsent, "nobody wants it any more").await;
                }
                let file = match remote.upload(batch.id, questions).await {
                    Ok(file) => file,
                    Err(error) => return self.refused(batch, served, error).await,
                };
                if !self.store.advance_batch(batch.id, claim, Progress::Uploaded(&file)).await? {
                    return Ok(Next::Left);
                }
                file
            }
        };
        // From here on it may have begun.
        if !self.store.advance_batch(batch.id, claim, Progress::Submitting).await? {
            return Ok(Next::Left);
        }
        match remote.submit(batch.id, &file).await {
            Ok(id) => {
                failpoint::hit(failpoint::BATCH_SUBMITTED);
                self.begun(batch, served, claim, remote, &id).await
            }
            Err(error) if is_refusal(&error) => self.refused(batch, served, error).await,
            // It may have come there all the same.
            Err(error) => {
                tracing::warn!(batch = %batch.id, %error, "nobody knows whether a batch has begun; it is looked up");
                Ok(Next::Look(PROBE_AFTER))
            }
        }
    }

    async fn begun(
        &self,
        batch: &Batch,
        served: &Served,
        claim: Claim,
        remote: &Remote<'_>,
        id: &str,
    ) -> Result<Next, StoreError> {
        if self.store.advance_batch(batch.id, claim, Progress::Submitted(id)).await? {
            tracing::info!(batch = %batch.id, provider = batch.provider, id, "a batch has begun");
            return Ok(Next::Look(served.look));
        }
        // Another node has taken over and may have begun it as well: one of the two is enough.
        tracing::warn!(batch = %batch.id, id, "a batch was begun after its claim was lost; it is cancelled");
        if let Err(error) = remote.cancel(id).await {
            tracing::error!(batch = %batch.id, id, %error, "a batch that may be a second one could not be cancelled");
        }
        Ok(Next::Left)
    }

    /// Nobody knows whether it has begun: the provider does.
    async fn look_up(
        &self,
        batch: &Batch,
        served: &Served,
        claim: Claim,
        remote: &Remote<'_>,
    ) -> Result<Next, StoreError> {
        let perhaps = batch.perhaps.unwrap_or(PROBE_AFTER);
        if let Some(left) = PROBE_AFTER.checked_sub(perhaps).filter(|left| !left.is_zero()) {
            return Ok(Next::Look(left));
        }
        match remote.find(batch.id, batch.submitting_at).await {
            Ok(Some(id)) => self.begun(batch, served, claim, remote, &id).await,
            Ok(None) => self.hand_over(batch, served, claim, remote).await,
            Err(error) if error.kind == Kind::Rejected || batch.age > SEND_WITHIN => {
                let why = format!("nobody can tell whether it has begun: {error}");
                self.over(batch, Fault::Lost, &why).await
            }
            Err(error) => {
                served.gateway.report(&error);
                Ok(Next::Failed(error))
            }
        }
    }

    async fn fetch(&self, batch: &Batch, served: &Served, remote: &Remote<'_>) -> Result<Next, StoreError> {
        let Some(id) = &batch.batch else { return Ok(Next::Left) };
        let state = match remote.look(id).await {
            Ok(state) => state,
            Err(error) if error.kind == Kind::Rejected => {
                return self
                    .over(batch, Fault::Lost, &format!("the provider does not know it: {error}"))
                    .await;
            }
            Err(error) => {
                served.gateway.report(&error);
                return Ok(Next::Failed(error));
            }
        };
        let (fault, why) = match state.stage {
            Stage::UnderWay => return Ok(Next::Look(served.look)),
            Stage::Done => (Fault::Failed, "there is no answer in the batch"),
            Stage::Expired => (Fault::Expired, "the provider did not come to it within a day"),
            Stage::Cancelled => (Fault::Cancelled, "somebody cancelled the batch at the provider"),
            Stage::Failed => {
                let error =
                    state.error.unwrap_or_else(|| ModelError::new(Kind::Rejected, "the batch failed"));
                return self.refused(batch, served, error).await;
            }
        };
        let mut ended = BTreeMap::new();
        for file in state.output.iter().chain(&state.errors) {
            match remote.lines(file).await {
                Ok(lines) => ended.extend(read(lines).await.into_iter().map(|ended| (ended.id, ended))),
                Err(error) if error.kind == Kind::Rejected => {
                    tracing::warn!(batch = %batch.id, %error, "the answers of a batch are gone");
                }
                Err(error) => return Ok(Next::Failed(error)),
            }
        }
        for (id, _) in self.store.batch_questions(batch.id).await? {
            ended.entry(id).or_insert_with(|| Ended { id, how: Err((fault, why.to_owned())) });
        }
        let files = batch.file.clone().into_iter().chain(state.output).chain(state.errors).collect();
        Ok(Next::Over(Over { why: state.word, ended: ended.into_values().collect(), files }))
    }

    /// The provider will not have the batch: its calls go on by themselves; an account that is refused is left
    /// alone. What may pass is tried again.
    async fn refused(&self, batch: &Batch, served: &Served, error: ModelError) -> Result<Next, StoreError> {
        served.gateway.report(&error);
        match error.kind {
            Kind::Permanent => self.over(batch, Fault::Refused, &error.message).await,
            _ if is_refusal(&error) => self.over(batch, Fault::Failed, &error.message).await,
            _ => Ok(Next::Failed(error)),
        }
    }

    /// All of its calls end the same way.
    async fn over(&self, batch: &Batch, fault: Fault, why: &str) -> Result<Next, StoreError> {
        let calls = self.store.batch_questions(batch.id).await?;
        let ended = calls.into_iter().map(|(id, _)| Ended { id, how: Err((fault, why.to_owned())) });
        // One of which nobody knows anything may still be read there.
        let files = batch.file.clone().filter(|_| fault != Fault::Lost).into_iter().collect();
        Ok(Next::Over(Over { why: why.to_owned(), ended: ended.collect(), files }))
    }

    /// What nobody waited for is paid all the same, at what it cost; what was never sent is not.
    fn settle_with(&self, unheard: &[Unheard], ended: &[Ended]) {
        for call in unheard.iter().filter(|call| !call.unsent) {
            let how = ended.iter().find(|ended| ended.id == call.id).map(|ended| &ended.how);
            let cost = match (how, self.prices.get(&call.model)) {
                (Some(Ok((status, body))), Some(price)) if (200..300).contains(status) => {
                    let reply =
                        body.unpack().ok().and_then(|body| serde_json::from_slice::<Reply>(&body).ok());
                    reply
                        .map(|reply| reply.usage())
                        .filter(|usage| !usage.estimated)
                        .map(|usage| cost(price, &usage, Tariff::Batch))
                }
                (Some(Ok(_)), _) => Some(0),
                (Some(Err((Fault::Expired | Fault::Failed | Fault::Refused | Fault::Cancelled, _))), _) => {
                    Some(0)
                }
                // Nobody can tell: all that was set aside is taken for spent in its time.
                _ => None,
            };
            if let Some(cost) = cost {
                self.ledger.settle(call.reservation, cost);
            }
        }
        self.settle(unheard.iter().filter(|call| call.unsent).cloned().collect());
    }

    fn settle(&self, unheard: Vec<Unheard>) {
        for call in unheard.into_iter().filter(|call| call.unsent) {
            self.ledger.release(call.reservation);
        }
    }
}

/// Whether the provider has surely not begun: it understood, and will not.
fn is_refusal(error: &ModelError) -> bool {
    matches!(error.kind, Kind::Rejected | Kind::Permanent | Kind::Refused) && !error.billed
}

/// What a call that came back from its batch is: an answer, or the error that an ordinary call would have had.
pub(super) fn outcome(ended: &Ended) -> Result<Reply, ModelError> {
    match &ended.how {
        Ok((status, body)) => {
            let body = body.unpack().unwrap_or_default();
            if !(200..300).contains(status) {
                return Err(from_body(*status, &body));
            }
            let broken = |_| ModelError::new(Kind::Unavailable, "its answer is not JSON").billed();
            serde_json::from_slice::<Reply>(&body).map_err(broken)
        }
        Err((fault, why)) => Err(match fault {
            Fault::Unsent | Fault::Failed | Fault::Cancelled => {
                ModelError::new(Kind::Unavailable, why.clone())
            }
            Fault::Refused => ModelError::new(Kind::Permanent, why.clone()),
            Fault::Expired => ModelError::new(Kind::Timeout, why.clone()),
            Fault::Lost => ModelError::new(Kind::Unavailable, why.clone()).billed(),
            Fault::Late => ModelError::new(Kind::Timeout, why.clone()).billed(),
        }),
    }
}
