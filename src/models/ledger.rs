//! The ledger: every call is paid before it is made.
//!
//! ```text
//! reserve(ask)  ── durable, in every account or in none ──►  the call
//!    ├─ inside a run: the commit that journals `model.called` settles the reservation it names
//!    ├─ outside: settle(id, cost)
//!    ├─ surely never sent: release(id)
//!    └─ nobody says: after its time it is taken for spent in full
//! ```
//!
//! Asks gather while one statement is on its way; the next carries all of them. Before anybody hears that
//! a budget is spent, what has ended meanwhile is brought in: only what is truly set aside or spent refuses
//! a call. A reservation whose call nobody tells of, because the process died, is not given back: the
//! provider may bill that call, and the owner must know at most what it can cost.

mod desk;
#[cfg(test)]
mod memory;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Config;
use uuid::Uuid;

use crate::config::models::Price;
use crate::config::settings::Settings;
use crate::domain::budget::book::End;
use crate::domain::budget::{DEAREST, Day, Limits, Shortage};
use crate::domain::ids::ReservationId;
use crate::models::Remote;
use crate::models::error::{Kind, ModelError};
use crate::models::estimate::worst;
use crate::models::gateway::Outcome;
use crate::models::ledger::desk::Desk;
use crate::models::price::{Tariff, cost};
use crate::models::wire::Request;
use crate::store::spend::writer::Wanted;
use crate::store::{Store, StoreError};

pub use crate::domain::budget::Payer;

/// Tells which moment it is, and so which day: the database's, like the lease's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How long a caller waits for its reservation; a database that is slower is as good as none.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long stopping may take: within the grace of a service.
const STOP: Duration = Duration::from_secs(3);

/// The way to the ledger; clones share it.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    /// Unbounded, because each caller waits for its own answer: there are as many asks as callers.
    desk: mpsc::UnboundedSender<Msg>,
    terms: Terms,
    /// Where balances are read; none in tests without a database.
    store: Option<Store>,
}

/// What the ledger goes by.
#[derive(Clone)]
pub struct Terms {
    /// What the whole workspace may cost.
    pub limits: Limits,
    /// The owner's time zone.
    pub zone: TimeZone,
    /// The workspace's currency.
    pub currency: String,
    /// The present moment.
    pub clock: Clock,
}

impl Terms {
    /// As the workspace's settings have it.
    #[must_use]
    pub fn of(settings: &Settings, clock: Clock) -> Self {
        Self {
            limits: settings.spending(),
            zone: settings.zone(),
            currency: settings.workspace.currency.clone(),
            clock,
        }
    }
}

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

/// Why nothing could be set aside.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoMoney {
    /// An account does not hold enough. Never tried again: nothing changes by itself before the next day.
    #[error("{}", .short.told(.currency))]
    Short {
        /// What is short.
        short: Shortage,
        /// The workspace's currency.
        currency: String,
    },
    /// The database did not answer, or the ledger is stopping.
    #[error("the ledger does not answer: {0}")]
    Unavailable(String),
}

impl From<NoMoney> for ModelError {
    fn from(refusal: NoMoney) -> Self {
        let message = refusal.to_string();
        match refusal {
            NoMoney::Short { short, .. } => {
                Self { shortage: Some(Box::new(short)), ..Self::new(Kind::Exhausted, message) }
            }
            NoMoney::Unavailable(_) => Self::new(Kind::Busy, message),
        }
    }
}

/// What the desk is told.
enum Msg {
    Reserve(Box<Wanted>, oneshot::Sender<Result<(), NoMoney>>),
    End(ReservationId, End),
    Stop(oneshot::Sender<()>),
}

impl Ledger {
    /// Starts it over the database that `config` names, which must be up to date.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn start(config: &Config, terms: Terms) -> Result<Self, StoreError> {
        let desk = Desk::open(config.clone(), terms.currency.clone()).await?;
        let (sender, inbox) = mpsc::unbounded_channel();
        tokio::spawn(desk.run(inbox));
        let store = Some(Store::new(config.clone())?);
        Ok(Self(Arc::new(Inner { desk: sender, terms, store })))
    }

    /// The day that is paid from now, in the owner's time zone.
    #[must_use]
    pub fn today(&self) -> Day {
        Day::at((self.0.terms.clock)(), &self.0.terms.zone)
    }

    /// Sets money aside in every account of the payer or in none; durable when it returns.
    ///
    /// # Errors
    /// See [`NoMoney`].
    pub async fn reserve(&self, ask: Ask) -> Result<Reservation, NoMoney> {
        let Ask { payer, model, worst_micros } = ask;
        let worst = worst_micros.clamp(0, DEAREST);
        let id = ReservationId(Uuid::now_v7());
        let day = self.today();
        let accounts = payer.accounts(&self.0.terms.limits, &day);
        let wanted = Wanted { id, payer, accounts, day: day.0, model, worst };
        let (done, answer) = oneshot::channel();
        let stopped = || NoMoney::Unavailable("it is stopping".into());
        self.0.desk.send(Msg::Reserve(Box::new(wanted), done)).map_err(|_| stopped())?;
        // Should it land when nobody waits for it any more, it is given back.
        let mut waiting = Waiting { ledger: self, id: Some(id) };
        let Ok(answer) = tokio::time::timeout(PATIENCE, answer).await else {
            return Err(NoMoney::Unavailable("the database is too slow".into()));
        };
        waiting.id = None;
        answer.map_err(|_| stopped())??;
        Ok(Reservation { id, worst_micros: worst })
    }

    /// What is left in the tightest of the payer's accounts, micro-units; `None` when none is limited. A
    /// hint for choosing a model: what may be spent is decided by [`Ledger::reserve`] alone.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn left(&self, payer: &Payer) -> Result<Option<i64>, StoreError> {
        let day = self.today();
        let accounts = payer.accounts(&self.0.terms.limits, &day);
        let limited = accounts.iter().filter_map(|(account, limit)| Some((account.to_string(), (*limit)?)));
        let (names, limits): (Vec<String>, Vec<i64>) = limited.unzip();
        let Some(store) = self.0.store.as_ref().filter(|_| !names.is_empty()) else { return Ok(None) };
        let balances = store.balances(&names).await?;
        let left = limits.iter().zip(balances).map(|(limit, balance)| {
            limit.saturating_add(payer.extra) - balance.spent_micros - balance.reserved_micros
        });
        Ok(left.min())
    }

    /// Sets aside what a call of a model may cost at most; nothing for one that is free.
    ///
    /// # Errors
    /// That the model has no price, with the line to add; or see [`NoMoney`].
    pub(super) async fn set_aside(
        &self,
        payer: &Payer,
        name: &str,
        remote: &Remote,
        request: &Request,
        tariff: Tariff,
    ) -> Result<Option<Reservation>, ModelError> {
        let Some(price) = &remote.price else { return Err(no_price(name, self.currency())) };
        if price.input.micros == 0 && price.output.micros == 0 {
            return Ok(None);
        }
        let worst_micros = worst(request, remote, tariff);
        let ask = Ask { payer: payer.clone(), model: name.to_owned(), worst_micros };
        Ok(Some(self.reserve(ask).await?))
    }

    /// The call was surely never sent: nothing was spent. Returns at once, written soon after.
    pub fn release(&self, id: ReservationId) {
        self.end(id, End::Released);
    }

    /// A call outside of runs has ended and cost this much. Returns at once, written soon after; what a
    /// crash keeps from being written is taken for spent in full.
    pub fn settle(&self, id: ReservationId, cost_micros: i64) {
        self.end(id, End::Settled(cost_micros.clamp(0, DEAREST)));
    }

    fn end(&self, id: ReservationId, end: End) {
        let _ = self.0.desk.send(Msg::End(id, end)); // stopped: it expires
    }

    /// Ends once everything is written, or when the database does not take it in a moment: what is not
    /// written then is taken for spent in its time.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.0.desk.send(Msg::Stop(done)).is_ok() {
            let _ = tokio::time::timeout(STOP, stopped).await;
        }
    }

    /// The workspace's currency.
    #[must_use]
    pub fn currency(&self) -> &str {
        &self.0.terms.currency
    }
}

/// Somebody who waits for a reservation, and gives it back should he leave before it is there.
struct Waiting<'l> {
    ledger: &'l Ledger,
    id: Option<ReservationId>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.ledger.release(id);
        }
    }
}

/// Without a price nobody can say what a call costs at most, so it is not made.
fn no_price(name: &str, currency: &str) -> ModelError {
    let line = format!("price: {{ input: 0.00 {currency}, output: 0.00 {currency} }}");
    ModelError::new(
        Kind::Inapplicable,
        format!(
            "it has no price; add `{line}` to `{name}` in config/models.yaml, with what a million tokens cost"
        ),
    )
}

/// What a call is charged that went to the gateway; `None` when it surely never left: then its reservation
/// is released. A reply costs what its usage says, or an estimate of it that is rather too high. A refusal costs
/// nothing. An answer that did not come or broke off costs the worst case: the provider may bill it.
pub(crate) fn charge(
    call: &Outcome,
    price: &Price,
    reservation: &Reservation,
    tariff: Tariff,
) -> Option<i64> {
    match &call.result {
        Ok(reply) if reply.error.is_some() => Some(0),
        Ok(reply) => Some(cost(price, &reply.usage(), tariff)),
        Err(error) if error.billed => Some(reservation.worst_micros),
        Err(error) => match error.kind {
            Kind::Paused | Kind::Busy | Kind::Spent | Kind::Inapplicable | Kind::Exhausted => None,
            Kind::RateLimited
            | Kind::Unavailable
            | Kind::Timeout
            | Kind::Permanent
            | Kind::Rejected
            | Kind::Invalid
            | Kind::Refused
            | Kind::Empty => Some(0),
        },
    }
}
