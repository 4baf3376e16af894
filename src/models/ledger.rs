//! The ledger: every call is paid before it is made.
//!
//! ```text
//! reserve(ask)  ── durable, in every account or in none ──►  the call
//!    ├─ inside a run: the commit that journals `model.called` settles the reservation it names
//!    ├─ outside: settle(id, cost)
//!    ├─ surely never sent: release(id)
//!    └─ nobody says: after its time it is taken for spent in full
//! ```

use crate::domain::budget::Shortage;
use crate::domain::ids::ReservationId;

pub use crate::domain::budget::Payer;

/// The way to the ledger; clones share it.
#[derive(Clone)]
pub struct Ledger(/* … */);

/// A call that wants to be made.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who pays.
    pub payer: Payer,
    /// The model, as named in `config/models.yaml`.
    pub model: String,
    /// What the call may cost at most, micro-units.
    pub worst_micros: i64,
}

/// Money set aside for one call. Dropping it does nothing: what was not settled is taken for spent later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// What settles it: goes into [`ModelCall::reservation`](crate::domain::event::ModelCall).
    pub id: ReservationId,
    /// How much was set aside, micro-units: what the call is taken to cost when nobody can tell.
    pub worst_micros: i64,
}

/// Why nothing could be set aside. `ModelError::from` turns it into a [`Kind`](super::error::Kind):
/// `Exhausted` (with the shortage), or `Unavailable` while the database does not answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoMoney {
    /// An account does not hold enough: `scope`, `limit`, `left`, `worst`.
    #[error("…")]
    Short(Shortage),
    /// The database did not answer, or the ledger is stopping.
    #[error("the ledger does not answer: {0}")]
    Unavailable(String),
}

/* The signatures that others call:

impl Ledger {
    /// Starts it over the database that `config` names. `limits` and `zone` are the workspace's, `clock`
    /// says which day it is (the lease's clock).
    pub async fn start(config: &tokio_postgres::Config, limits: Limits, zone: TimeZone, currency: &str, clock: Clock) -> Result<Self, StoreError>;

    /// Sets money aside in every account of the payer or in none; durable when it returns.
    pub async fn reserve(&self, ask: Ask) -> Result<Reservation, NoMoney>;

    /// The call was surely never sent: nothing was spent. Returns at once, written soon after.
    pub fn release(&self, id: ReservationId);

    /// A call outside of runs has ended and cost this much. Returns at once, written soon after.
    pub fn settle(&self, id: ReservationId, cost_micros: i64);

    /// Ends once everything is written.
    pub async fn stop(&self);

    /// For unit tests without a database: counts in memory under these limits.
    #[cfg(test)]
    pub(crate) fn in_memory(limits: Limits) -> Self;
}

/// What a call that went through the gateway is charged, micro-units; `None`: release the reservation.
/// A reply costs what its usage says (or the worst, when it has none); a refusal (4xx, 429, 5xx) and a
/// connection that was never made cost nothing; a time-out or an answer that broke off costs the worst,
/// for the provider may bill it.
pub(crate) fn charge(call: &Outcome, price: Option<&Price>, reservation: &Reservation) -> Option<i64>;

impl Models {
    /// `encoder` is made before (`Encoder::lazy()`), so that it can warm while the database starts.
    pub async fn start(config, workspace, supervisor, encoder: Encoder, ledger: Ledger) -> Result<Self, ModelsError>;
    pub async fn answer(&self, agent, with, label, limit, payer: &Payer, tried) -> (Option<ModelCall>, Answer);
    pub fn ledger(&self) -> &Ledger;
}

The walk (`Walk`) gets `payer: &Payer`. In `turn`, as one statement each:
    let reservation = self.reserve(name, remote, worst).await?;    // None for price zero; error for no price / no money
    let call = gateway.call(request.clone()).await;
    let paid = self.settle(&call, price, reservation);              // ModelCall { reservation, cost_micros, .. }

error.rs: Kind::Exhausted (never again, harm none, ErrorKind::Budget), ModelError.shortage: Option<Box<Shortage>>,
          ModelError.billed: bool (the provider may bill it although it gave nothing: set by the transport on
          time-outs and broken answers after the request was sent).
chain.rs `run`: after a failure of kind Exhausted, `payer.budget.exhausted` decides: Fallback goes on,
          Review returns Answer::Short(shortage), Fail returns Answer::Failed(ErrorKind::Budget).
*/
