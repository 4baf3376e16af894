//! One provider's gateway: an actor that everybody who wants to call the provider goes through.
//!
//! A call waits for a place (`concurrency`), then for the rate limiter (`per_minute`), then asks the
//! breaker, and only then goes out, in a task of its own: `handle` never waits. A caller that gives
//! up takes its call along, queued or under way, so nobody pays for an answer that nobody reads.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Jitter, Quota, RateLimiter};
use jiff::Timestamp;
use ractor::rpc::CallResult;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::models::Provider;
use crate::domain::breaker::{Breaker, Thresholds};
use crate::models::error::{Harm, Kind, ModelError};
use crate::models::openai::Endpoint;
use crate::models::wire::{Reply, Request};
use crate::time::wall;

/// Calls that may wait. With four at once and a second each, the last of them waits about a minute,
/// as long as one call may take; whoever comes later is better served by the next model.
const QUEUE: usize = 256;

/// When a provider is left alone: after this many failures in a row it is down, and half a minute
/// is what a restart or a failover takes.
const THRESHOLDS: Thresholds = Thresholds { failures: 5, pause: Duration::from_secs(30) };

/// How long a provider is left alone that refuses the key or has no money left: the owner must act,
/// and one refused probe in ten minutes bothers nobody.
const PERMANENT: Duration = Duration::from_secs(600);

/// Spreads the calls that wait for the limiter, so that they do not all begin at its tick.
const JITTER: Duration = Duration::from_millis(50);

/// What a caller waits beyond the two time-outs it is subject to, for the messages' way.
const GRACE: Duration = Duration::from_secs(2);

/// How long a stop may take; calls under way are dropped, so it is a matter of milliseconds.
const STOP: Duration = Duration::from_secs(2);

/// How one call ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What came back.
    pub result: Result<Reply, ModelError>,
    /// How long the HTTP call took; nothing if there was none.
    pub took: Duration,
}

impl Outcome {
    fn none(kind: Kind, message: impl Into<String>) -> Self {
        Self { result: Err(ModelError::new(kind, message)), took: Duration::ZERO }
    }
}

/// The way to one provider.
#[derive(Clone)]
pub(crate) struct Gateway {
    actor: ActorRef<Message>,
    timeout: Duration,
}

impl Gateway {
    pub(crate) async fn start(
        provider: &Provider,
        endpoint: Endpoint,
        supervisor: Option<ActorCell>,
    ) -> Result<Self, SpawnErr> {
        let timeout = provider.timeout.0;
        let actor = GatewayActor { endpoint, timeout, concurrency: provider.concurrency.max(1) };
        let limiter = provider.per_minute.map(|rate| Limiter::new(rate, provider.concurrency));
        // Unnamed: names are process-global, and two workspaces may use the same provider.
        let (actor, _) = match supervisor {
            Some(supervisor) => Actor::spawn_linked(None, actor, limiter, supervisor).await?,
            None => Actor::spawn(None, actor, limiter).await?,
        };
        Ok(Self { actor, timeout })
    }

    /// Calls the provider. At most `timeout` in the queue and `timeout` on the wire.
    pub(crate) async fn call(&self, request: Request) -> Outcome {
        let cancelled = CancellationToken::new();
        let _cancel_when_dropped = cancelled.clone().drop_guard();
        let give_up = Instant::now() + self.timeout;
        let message = |reply| Message::Call(Box::new(Call { request, cancelled, give_up, reply }));
        match self.actor.call(message, Some(self.timeout * 2 + GRACE)).await {
            Ok(CallResult::Success(outcome)) => outcome,
            Ok(CallResult::Timeout) => Outcome::none(Kind::Busy, "its queue did not move in time"),
            Ok(CallResult::SenderError) | Err(_) => {
                Outcome::none(Kind::Unavailable, "its gateway has stopped")
            }
        }
    }

    /// Stops it; calls under way end as unavailable.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.actor.stop_and_wait(None, Some(STOP)).await {
            tracing::warn!(%error, "a model gateway did not stop in time");
            self.actor.kill();
        }
    }
}

struct GatewayActor {
    endpoint: Endpoint,
    timeout: Duration,
    concurrency: usize,
}

enum Message {
    /// Somebody wants to call.
    Call(Box<Call>),
    /// The limiter may let the next one through.
    Ready,
    /// A call is over.
    Finished(Seen),
}

struct Call {
    request: Request,
    cancelled: CancellationToken,
    give_up: Instant,
    reply: RpcReplyPort<Outcome>,
}

/// What a call has shown about the provider.
enum Seen {
    /// It is alive.
    Alive,
    /// It failed.
    Harm(Harm, String),
    /// Nothing: the call was given up.
    Nothing,
}

struct State {
    queue: VecDeque<Call>,
    under_way: usize,
    limiter: Option<Limiter>,
    /// [`Message::Ready`] is on its way.
    awaiting: bool,
    breaker: Breaker,
    calls: JoinSet<()>,
}

impl Actor for GatewayActor {
    type Msg = Message;
    type State = State;
    type Arguments = Option<Limiter>;

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        limiter: Option<Limiter>,
    ) -> Result<State, ActorProcessingErr> {
        let (breaker, calls) = (Breaker::closed(), JoinSet::new());
        Ok(State { queue: VecDeque::new(), under_way: 0, limiter, awaiting: false, breaker, calls })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Call(call) => state.enqueue(*call),
            Message::Ready => state.awaiting = false,
            Message::Finished(seen) => state.finished(seen, wall()),
        }
        self.begin_what_can(&myself, state);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.calls.shutdown().await;
        Ok(())
    }
}

impl GatewayActor {
    fn begin_what_can(&self, myself: &ActorRef<Message>, state: &mut State) {
        while state.under_way < self.concurrency && !state.awaiting {
            state.drop_the_hopeless(wall());
            if state.queue.is_empty() {
                return;
            }
            if let Err(wait) = state.limiter.as_ref().map_or(Ok(()), Limiter::take) {
                state.awaiting = true;
                myself.send_after(wait, || Message::Ready);
                return;
            }
            if let Some(call) = state.queue.pop_front() {
                self.begin(myself, state, call);
            }
        }
    }

    fn begin(&self, myself: &ActorRef<Message>, state: &mut State, call: Call) {
        if let Err(why) = state.breaker.admit(wall()) {
            call.answer(Outcome::none(Kind::Paused, why));
            return;
        }
        state.under_way += 1;
        while state.calls.try_join_next().is_some() {}
        let finish = Finish { actor: myself.clone(), seen: Seen::Nothing };
        state.calls.spawn(carry_out(self.endpoint.clone(), self.timeout, call, finish));
    }
}

/// Makes the call, tells the actor what it has shown, then answers: in this order, so that
/// whatever the caller does next meets a breaker that knows.
async fn carry_out(endpoint: Endpoint, timeout: Duration, call: Call, mut finish: Finish) {
    let started = Instant::now();
    let result = tokio::select! {
        result = tokio::time::timeout(timeout, endpoint.chat(&call.request)) => result,
        () = call.cancelled.cancelled() => return,
    };
    let result = result.unwrap_or_else(|_| {
        Err(ModelError::new(
            Kind::Timeout,
            format!("no whole answer within {}", crate::domain::duration::Span(timeout)),
        )
        .billed())
    });
    finish.seen = seen(&result);
    drop(finish);
    call.answer(Outcome { result, took: started.elapsed() });
}

fn seen(result: &Result<Reply, ModelError>) -> Seen {
    let error = match result {
        Ok(reply) => reply.answer().err(),
        Err(error) => Some(error.clone()),
    };
    match error {
        Some(error) if error.kind.harm() != Harm::None => Seen::Harm(error.kind.harm(), error.message),
        _ => Seen::Alive,
    }
}

impl Call {
    /// Tells the caller; one that has left is told nothing.
    fn answer(self, outcome: Outcome) {
        let _ = self.reply.send(outcome);
    }
}

impl State {
    fn enqueue(&mut self, call: Call) {
        if self.queue.len() < QUEUE {
            self.queue.push_back(call);
        } else {
            call.answer(Outcome::none(Kind::Busy, format!("{QUEUE} calls are waiting already")));
        }
    }

    /// Lets go of the calls at the front that need not wait for the limiter: nobody wants them any
    /// more, they have waited too long, or the breaker would refuse them.
    fn drop_the_hopeless(&mut self, now: Timestamp) {
        while let Some(call) = self.queue.front() {
            let outcome = if call.cancelled.is_cancelled() {
                None
            } else if Instant::now() >= call.give_up {
                Some(Outcome::none(Kind::Busy, "its queue did not move in time"))
            } else if let Err(why) = self.breaker.clone().admit(now) {
                Some(Outcome::none(Kind::Paused, why))
            } else {
                return;
            };
            if let (Some(call), Some(outcome)) = (self.queue.pop_front(), outcome) {
                call.answer(outcome);
            }
        }
    }

    fn finished(&mut self, seen: Seen, now: Timestamp) {
        self.under_way = self.under_way.saturating_sub(1);
        match seen {
            // A call that was under way when the breaker opened does not close it again.
            Seen::Alive if matches!(self.breaker, Breaker::Open { .. }) => {}
            Seen::Alive => self.breaker.succeeded(),
            Seen::Harm(Harm::Opens, why) => self.breaker.open(now, PERMANENT, &why),
            Seen::Harm(_, why) => self.breaker.failed(now, THRESHOLDS, &why),
            // A probe without a verdict: the next call probes.
            Seen::Nothing if self.breaker == Breaker::Probing => {
                self.breaker.open(now, Duration::ZERO, "its probe was given up");
            }
            Seen::Nothing => {}
        }
    }
}

/// Tells the actor that a call is over, however it ended: a task that panics must not keep its place.
struct Finish {
    actor: ActorRef<Message>,
    seen: Seen,
}

impl Drop for Finish {
    fn drop(&mut self) {
        // A gateway that has stopped needs no places.
        let _ = self.actor.cast(Message::Finished(std::mem::replace(&mut self.seen, Seen::Nothing)));
    }
}

/// So many calls begun per minute, and no more at once than may be under way.
struct Limiter {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Limiter {
    fn new(per_minute: u32, burst: usize) -> Self {
        let at_least_one = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let burst = u32::try_from(burst).unwrap_or(u32::MAX).min(per_minute);
        let quota = Quota::per_minute(at_least_one(per_minute)).allow_burst(at_least_one(burst));
        let clock = DefaultClock::default();
        Self { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock }
    }

    /// Takes a turn, or says how long to wait before asking again.
    fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not| Jitter::up_to(JITTER) + not.wait_time_from(self.clock.now()))
    }
}
