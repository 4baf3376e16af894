//! One call of one provider's model, and what comes before and after it: the way to the model, retries of
//! what may pass by itself, what is told of each call. What is said over several turns is in
//! [`crate::models::converse`].

use std::sync::PoisonError;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde_json::Value;
use tracing::{Instrument, Span};

use crate::domain::event::ModelCall;
use crate::domain::ids::ReservationId;
use crate::failpoint;
use crate::models::chain::{Given, Walk, millis, outcome};
use crate::models::error::{Kind, ModelError};
use crate::models::estimate;
use crate::models::gateway::{Gateway, Outcome};
use crate::models::ledger::{Reservation, charge};
use crate::models::price::Tariff;
use crate::models::schema::extract_json;
use crate::models::wire::{Choice, Reply, Request};
use crate::models::{Remote, error::clipped, otel};

/// The delays before the same model is tried again, at most twice within an attempt; what lasts
/// longer is for the next model, or for the step's own durable retry. Each is a ceiling: full
/// jitter draws from zero up to it.
const DELAYS: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_delay(Duration::from_secs(5))
    .with_factor(4.0)
    .with_max_times(2);

/// The longest `Retry-After` worth waiting for before the next model is asked instead.
const PATIENCE: Duration = Duration::from_secs(10);

/// A model, the way to it, and what for.
#[derive(Clone)]
pub(crate) struct Target<'a> {
    pub(crate) name: &'a str,
    pub(crate) remote: &'a Remote,
    pub(crate) gateway: &'a Gateway,
    /// As in [`ModelCall::part`].
    pub(crate) part: Option<String>,
}

/// What a model has said, when it is of use.
pub(crate) enum Said {
    /// An output, valid under the agent's schema.
    Output(Value),
    /// It wants to look something up first.
    Wants(Reply),
}

/// A try that gave nothing, and what the model said instead, if anything.
pub(crate) struct Unfit {
    pub(crate) error: ModelError,
    pub(crate) said: Option<String>,
}

/// What is left of the delays of one conversation.
pub(crate) type Delays = <ExponentialBuilder as BackoffBuilder>::Backoff;

pub(crate) fn delays() -> Delays {
    DELAYS.build()
}

impl Walk<'_> {
    /// Asks a model of `config/models.yaml`: once, or as often as the agent wants answers compared; to go
    /// over a draft, once.
    pub(crate) async fn ask_remote(&self, name: &str, draft: Option<&Given>) -> Result<Given, ModelError> {
        let (remote, gateway) = match self.models.remotes.get(name).map(|remote| (remote, &remote.gateway)) {
            Some((remote, Ok(gateway))) => (remote, gateway),
            Some((_, Err(why))) => return Err(self.cannot(name, why)),
            None => return Err(self.cannot(name, "there is no such model in config/models.yaml")),
        };
        if !self.agent.tools.is_empty() && !remote.tools {
            return Err(self.cannot(name, "it cannot use tools, and this agent has some"));
        }
        let target = Target { name, remote, gateway, part: draft.map(|_| "finalize".to_owned()) };
        match (&self.agent.votes, draft) {
            (Some(votes), None) => self.compare(&target, votes).await,
            _ => self.converse(&target, draft, 0).await,
        }
    }

    /// A question that has outgrown the model is not asked, in the first turn or in a later one.
    pub(crate) fn fits(&self, target: &Target<'_>, request: &Request) -> Result<(), ModelError> {
        match too_long(target.remote, request) {
            Some(why) => Err(self.cannot(target.name, &why)),
            None => Ok(()),
        }
    }

    /// A call that the step's own time ended is told like any other that got no answer.
    pub(crate) fn too_late(&self, name: &str) -> ModelError {
        let why = "the step's time was up before it answered";
        // They may have been sent: nobody can tell, so they are taken for spent.
        let at_stake = std::mem::take(&mut *self.at_stake.lock().unwrap_or_else(PoisonError::into_inner));
        let Some((last, others)) = at_stake.split_last() else {
            return self.untried(name, Kind::Timeout, why);
        };
        for reservation in others.iter().chain([last]) {
            self.tale.called(ModelCall {
                model: name.to_owned(),
                outcome: why.to_owned(),
                cost_micros: reservation.worst_micros,
                reservation: Some(reservation.id),
                ..ModelCall::default()
            });
        }
        ModelError::new(Kind::Timeout, why)
    }

    /// A model that cannot even be tried is told like a try, so that the journal shows why.
    fn cannot(&self, name: &str, why: &str) -> ModelError {
        self.untried(name, Kind::Inapplicable, why)
    }

    pub(crate) fn untried(&self, name: &str, kind: Kind, why: &str) -> ModelError {
        self.tale.called(ModelCall {
            model: name.to_owned(),
            outcome: why.to_owned(),
            ..ModelCall::default()
        });
        ModelError::new(kind, why)
    }

    /// One turn: the call, and again while it fails in a way that may pass and `delays` has more.
    pub(crate) async fn turn(
        &self,
        target: &Target<'_>,
        request: &Request,
        turn: u32,
        delays: &mut Delays,
    ) -> Result<Said, Unfit> {
        loop {
            let unfit = match self.call_once(target, request, turn).await {
                Ok(said) => return Ok(said),
                Err(unfit) => unfit,
            };
            let Some(delay) = worth_waiting(&unfit.error, delays) else { return Err(unfit) };
            self.tale.goes_on();
            tokio::time::sleep(delay).await;
        }
    }

    /// One call, from the question to what is told of it. Every call of a provider's model goes through
    /// here, so that none is made that is not accounted for.
    async fn call_once(&self, target: &Target<'_>, request: &Request, turn: u32) -> Result<Said, Unfit> {
        self.tale.goes_on();
        let mut request = request.clone();
        request.hear =
            self.tale.hear(target.name, target.part.as_deref()).filter(|_| target.remote.streaming);
        let turn = if request.tools.is_empty() { 0 } else { turn };
        let span = self.span(target, &request);
        let mut making = self.making(target, &mut request, turn);
        let batched = self.take_batched(target.name);
        let hit = match &making {
            Some(making) if batched.is_none() => making.look().await,
            _ => None,
        };
        let (call, paid) = match (&hit, &batched) {
            (_, Some(batched)) => self.came(target, &request, batched, making.as_mut()),
            (Some(hit), None) => (Outcome { result: Ok(hit.reply.clone()), took: Duration::ZERO }, None),
            (None, None) => match self.made(target, &request, &span).await {
                Ok(made) => made,
                Err(unpaid) => {
                    otel::unmade(&span, &unpaid.error);
                    return Err(unpaid);
                }
            },
        };
        let judged = self.judged(&call, &request);
        let reply = call.result.as_ref().ok();
        // Who answers from the cache reads and writes nothing, and is paid nothing.
        let usage = reply.filter(|_| hit.is_none()).map(Reply::usage).unwrap_or_default();
        let mut told = ModelCall {
            model: target.name.to_owned(),
            outcome: outcome(&judged),
            answered_by: reply.and_then(|reply| reply.model.as_deref()).map(|model| clipped(model, 100)),
            input_tokens: usage.read,
            cached_tokens: usage.cached,
            output_tokens: usage.written,
            estimated: usage.estimated,
            cost_micros: paid.as_ref().map_or(0, |paid| paid.cost_micros),
            reservation: paid.map(|paid| paid.reservation),
            millis: millis(call.took),
            turn,
            part: target.part.clone(),
            cached: hit.is_some(),
            batch: batched.is_some(),
            call: None,
        };
        if let Some(making) = making {
            told.call = making.keep(&told, hit, matches!(judged, Ok(Said::Output(_)))).await;
        }
        otel::ended(&span, reply, &told, judged.as_ref().err());
        // At stake until here: a step that ends while the call is being kept must not leave it unsettled.
        if let Some(reservation) = told.reservation {
            self.no_longer_at_stake(reservation);
        }
        self.tale.called(told);
        judged.map_err(|error| Unfit { error, said: call.result.ok().map(|reply| reply.text) })
    }

    /// The HTTP call and what pays for it; one statement each for the ledger: set aside, call, charge.
    async fn made(
        &self,
        target: &Target<'_>,
        request: &Request,
        span: &Span,
    ) -> Result<(Outcome, Option<Paid>), Unfit> {
        let reservation = match self.reserve(target, request).await {
            Ok(reservation) => reservation,
            Err(error) => return Err(Unfit { error: self.unpaid(target, error), said: None }),
        };
        if reservation.is_some() {
            failpoint::hit(failpoint::MODEL_RESERVED);
        }
        let mut call = target.gateway.call(request.clone()).instrument(span.clone()).await;
        if let Ok(reply) = &mut call.result
            && reply.error.is_none()
        {
            estimate::complete(reply, request, target.remote);
        }
        if reservation.is_some() {
            failpoint::hit(failpoint::MODEL_CALLED);
        }
        let paid = reservation.and_then(|reservation| self.charged(&call, target.remote, &reservation));
        Ok((call, paid))
    }

    async fn reserve(
        &self,
        target: &Target<'_>,
        request: &Request,
    ) -> Result<Option<Reservation>, ModelError> {
        let ledger = &self.models.ledger;
        let reservation =
            ledger.set_aside(self.asked.payer, target.name, target.remote, request, Tariff::Usual).await?;
        self.at_stake.lock().unwrap_or_else(PoisonError::into_inner).extend(reservation.clone());
        Ok(reservation)
    }

    /// What the call is charged; a reservation whose call surely never left is given back.
    fn charged(&self, call: &Outcome, remote: &Remote, reservation: &Reservation) -> Option<Paid> {
        let cost = remote.price.as_ref().and_then(|price| charge(call, price, reservation, Tariff::Usual));
        if cost.is_none() {
            self.no_longer_at_stake(reservation.id);
            self.models.ledger.release(reservation.id);
        }
        cost.map(|cost_micros| Paid { reservation: reservation.id, cost_micros })
    }

    fn no_longer_at_stake(&self, reservation: ReservationId) {
        let mut at_stake = self.at_stake.lock().unwrap_or_else(PoisonError::into_inner);
        at_stake.retain(|other| other.id != reservation);
    }

    /// A call that could not be paid is told like a try, so that the journal shows why.
    pub(crate) fn unpaid(&self, target: &Target<'_>, error: ModelError) -> ModelError {
        self.tale.called(ModelCall {
            model: target.name.to_owned(),
            outcome: error.to_string(),
            part: target.part.clone(),
            ..ModelCall::default()
        });
        error
    }

    fn judged(&self, call: &Outcome, request: &Request) -> Result<Said, ModelError> {
        let reply = call.result.as_ref().map_err(Clone::clone)?;
        if reply.wants_tools() {
            if request.choice == Choice::Auto && !request.tools.is_empty() {
                return Ok(Said::Wants(reply.clone()));
            }
            if reply.text.trim().is_empty() {
                let why = "it asked for a tool where it had to answer";
                return Err(ModelError::new(Kind::Invalid, why));
            }
        }
        let object = extract_json(reply.answer()?).ok_or_else(|| no_object(reply))?;
        self.checked(object).map(Said::Output)
    }
}

/// A call that was paid: what settles it.
pub(crate) struct Paid {
    pub(crate) reservation: ReservationId,
    pub(crate) cost_micros: i64,
}

/// Why the question does not fit the model: some servers would cut it off without a word.
fn too_long(remote: &Remote, request: &Request) -> Option<String> {
    let context = u64::from(remote.context?);
    let read = estimate::likely(request, remote);
    let whole = read.saturating_add(request.max_tokens.into());
    (whole > context).then(|| {
        format!(
            "the question of about {read} tokens and an answer of {} do not fit into its {context}",
            request.max_tokens
        )
    })
}

fn no_object(reply: &Reply) -> ModelError {
    let cut = if reply.finish.as_deref() == Some("length") { ": it was cut off at `max_tokens`" } else { "" };
    ModelError::new(Kind::Invalid, format!("there is no whole JSON object in its answer{cut}"))
}

/// How long to wait before the same model is tried again; `None` when it is not worth it.
pub(super) fn worth_waiting(
    error: &ModelError,
    delays: &mut impl Iterator<Item = Duration>,
) -> Option<Duration> {
    if !error.kind.again() || error.retry_after.is_some_and(|asked| asked > PATIENCE) {
        return None;
    }
    let delay = delays.next()?.mul_f64(rand::random());
    Some(error.retry_after.map_or(delay, |asked| asked + delay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_soon_is_worth_waiting_for() {
        let mut error = ModelError::new(Kind::RateLimited, "x");
        error.retry_after = Some(Duration::from_secs(1));
        let mut delays = DELAYS.build();
        let waits: Vec<_> = std::iter::from_fn(|| worth_waiting(&error, &mut delays)).collect();
        assert_eq!(waits.len(), 2, "two more tries");
        assert!(waits.iter().all(|wait| *wait >= Duration::from_secs(1)));
        error.retry_after = Some(Duration::from_secs(3600));
        assert_eq!(worth_waiting(&error, &mut DELAYS.build()), None);
        assert_eq!(worth_waiting(&ModelError::new(Kind::Permanent, "x"), &mut DELAYS.build()), None);
    }
}
