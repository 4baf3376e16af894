//! One provider's gateway: an actor that everybody who wants to call the provider goes through.
//!
//! A call waits for its turn among the lanes, for a place (`concurrency`) and for the limits of the
//! provider and the model, then asks the breaker, and only then goes out, in a task of its own: `handle`
//! never waits. A caller that gives up takes its call along, queued or under way, so nobody pays for an
//! answer that nobody reads.

mod state;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ractor::rpc::CallResult;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::models::Provider;
use crate::domain::breaker::Breaker;
use crate::domain::duration::Span;
use crate::models::error::{Kind, ModelError};
use crate::models::estimate;
use crate::models::gateway::state::{Call, QUEUE, Seen, State, Verdict, verdict, wait};
use crate::models::headers::Told;
use crate::models::limits::{Limits, Queue};
use crate::models::openai::Endpoint;
use crate::models::wire::{Reply, Request};
use crate::time::wall;

/// What a caller waits beyond the two time-outs it is subject to, for the messages' way.
const GRACE: Duration = Duration::from_secs(2);

/// How long a stop may take; calls under way are dropped, so it is a matter of milliseconds.
const STOP: Duration = Duration::from_secs(2);

/// How long the actor may take to say how it stands: it never waits for anything itself.
const ANSWER: Duration = Duration::from_secs(5);

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

/// Why nobody calls a provider for a while.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// When a probe may be made.
    pub until: Timestamp,
    /// What happened, for the owner.
    pub why: String,
    /// Whether it stays so until the owner acts: the key is refused, or the account exhausted.
    pub lasting: bool,
}

/// How a gateway stands at this moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Why nobody calls, if that is so.
    pub trouble: Option<Trouble>,
    /// Calls under way.
    pub under_way: usize,
    /// Calls that wait.
    pub waiting: usize,
}

/// The way to one provider.
#[derive(Clone)]
pub(crate) struct Gateway {
    name: Arc<str>,
    actor: ActorRef<Message>,
    timeout: Duration,
    trouble: watch::Receiver<Option<Trouble>>,
    endpoint: Endpoint,
}

impl Gateway {
    /// Starts the gateway of the provider `name`; `models` are the limits of its models by their names there.
    pub(crate) async fn start(
        name: &str,
        provider: &Provider,
        models: HashMap<String, Limits>,
        endpoint: Endpoint,
        supervisor: Option<ActorCell>,
    ) -> Result<Self, SpawnErr> {
        let timeout = provider.timeout.0;
        let name: Arc<str> = Arc::from(name);
        let (publish, trouble) = watch::channel(None);
        let concurrency = provider.concurrency.max(1);
        let (per_minute, tokens) = (provider.per_minute, provider.tokens_per_minute);
        let state = State {
            waiting: Queue::new(QUEUE),
            under_way: 0,
            limits: Limits::new(per_minute, tokens, concurrency, Instant::now()),
            models,
            wake: None,
            breaker: Breaker::closed(),
            lasting: false,
            publish,
            calls: JoinSet::new(),
        };
        let actor =
            GatewayActor { name: Arc::clone(&name), endpoint: endpoint.clone(), timeout, concurrency };
        // Unnamed: names are process-global, and two workspaces may use the same provider.
        let (actor, _) = match supervisor {
            Some(supervisor) => Actor::spawn_linked(None, actor, state, supervisor).await?,
            None => Actor::spawn(None, actor, state).await?,
        };
        Ok(Self { name, actor, timeout, trouble, endpoint })
    }

    /// The provider's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The longest that a call can take, with its wait in the queue.
    pub(crate) fn patience(&self) -> Duration {
        self.timeout * 2 + GRACE
    }

    /// The way past the queue, for what is no call: batches. Whoever takes it says what he found ([`Gateway::report`]).
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What went past the queue has failed: the breaker counts it.
    pub(crate) fn report(&self, error: &ModelError) {
        let _ = self.actor.cast(Message::Failed(verdict(&Err(error.clone()))));
    }

    /// Calls the provider. At most `timeout` in the queue and `timeout` on the wire.
    pub(crate) async fn call(&self, request: Request) -> Outcome {
        self.send(request, false).await
    }

    /// Calls the provider whether its breaker is open or not: the owner wants to know. A good answer closes it.
    pub(crate) async fn probe(&self, request: Request) -> Outcome {
        self.send(request, true).await
    }

    async fn send(&self, request: Request, probe: bool) -> Outcome {
        let cancelled = CancellationToken::new();
        let _cancel_when_dropped = cancelled.clone().drop_guard();
        let give_up = Instant::now() + self.timeout;
        let tokens = estimate::about(&request);
        let message =
            |reply| Message::Call(Box::new(Call { request, tokens, probe, cancelled, give_up, reply }));
        match self.actor.call(message, Some(self.patience())).await {
            Ok(CallResult::Success(outcome)) => outcome,
            Ok(CallResult::Timeout) => Outcome::none(Kind::Busy, "its queue did not move in time"),
            Ok(CallResult::SenderError) | Err(_) => {
                Outcome::none(Kind::Unavailable, "its gateway has stopped")
            }
        }
    }

    /// Why nobody calls, and whenever that changes.
    pub(crate) fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.trouble.clone()
    }

    /// How it stands; nothing once it has stopped.
    pub(crate) async fn standing(&self) -> Option<Standing> {
        match self.actor.call(Message::Stand, Some(ANSWER)).await {
            Ok(CallResult::Success(standing)) => Some(standing),
            _ => None,
        }
    }

    /// Takes over what another node has found out, or this one before it was started anew.
    pub(crate) async fn adopt(&self, trouble: Option<Trouble>) {
        // A gateway that has stopped calls nobody anyway.
        let _ = self.actor.call(|reply| Message::Adopt(trouble, reply), Some(ANSWER)).await;
    }

    /// Forgets every trouble and what the provider said about its limits; gives whether there was trouble.
    pub(crate) async fn reset(&self) -> bool {
        matches!(self.actor.call(Message::Reset, Some(ANSWER)).await, Ok(CallResult::Success(true)))
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
    name: Arc<str>,
    endpoint: Endpoint,
    timeout: Duration,
    concurrency: usize,
}

enum Message {
    /// Somebody wants to call.
    Call(Box<Call>),
    /// A limit lets the next one through, or somebody has waited long enough.
    Ready,
    /// A call is over.
    Finished(Box<Seen>),
    /// Something went wrong past the queue.
    Failed(Verdict),
    /// Another node knows something.
    Adopt(Option<Trouble>, RpcReplyPort<()>),
    /// The owner has mended it.
    Reset(RpcReplyPort<bool>),
    /// How do you stand?
    Stand(RpcReplyPort<Standing>),
}

impl Actor for GatewayActor {
    type Msg = Message;
    type State = State;
    type Arguments = State;

    async fn pre_start(&self, _: ActorRef<Message>, state: State) -> Result<State, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Call(call) => state.enqueue(*call),
            Message::Ready => state.wake = None,
            Message::Finished(seen) => state.finished(*seen, wall()),
            Message::Failed(verdict) => state.judge(verdict, wall()),
            Message::Adopt(trouble, reply) => state.adopt(trouble, reply),
            Message::Reset(reply) => drop(reply.send(state.reset())),
            Message::Stand(reply) => drop(reply.send(state.standing())),
        }
        state.tell(&self.name);
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
        let now = Instant::now();
        while state.under_way < self.concurrency {
            let State { waiting, limits, models, .. } = state;
            let free =
                |call: &Call| call.cancelled.is_cancelled() || wait(limits, models, call, now).is_zero();
            match waiting.next(free) {
                Some(call) if call.cancelled.is_cancelled() => {}
                Some(call) => self.begin(myself, state, call, now),
                None => break,
            }
        }
        state.drop_the_hopeless(now);
        if let Some(at) = state.next_turn(self.concurrency, now)
            && state.wake.is_none_or(|wake| at < wake)
        {
            state.wake = Some(at);
            myself.send_after(at.saturating_duration_since(now), || Message::Ready);
        }
    }

    fn begin(&self, myself: &ActorRef<Message>, state: &mut State, call: Call, now: Instant) {
        if let Err(why) = state.breaker.admit(wall()) {
            if !call.probe {
                call.answer(Outcome::none(Kind::Paused, why));
                return;
            }
            state.breaker = Breaker::Probing;
        }
        state.under_way += 1;
        state.limits.take(call.tokens, now);
        if let Some(limits) = state.models.get_mut(&call.request.model) {
            limits.take(call.tokens, now);
        }
        while state.calls.try_join_next().is_some() {}
        let seen = Seen {
            model: call.request.model.clone(),
            verdict: Verdict::Nothing,
            told: Told::default(),
            refused: false,
        };
        let finish = Finish { actor: myself.clone(), seen: Some(seen) };
        state.calls.spawn(carry_out(self.endpoint.clone(), self.timeout, call, finish));
    }
}

/// Makes the call, tells the actor what it has shown, then answers: in this order, so that
/// whatever the caller does next meets a breaker that knows.
async fn carry_out(endpoint: Endpoint, timeout: Duration, call: Call, mut finish: Finish) {
    let started = Instant::now();
    let mut told = Told::default();
    let result = tokio::select! {
        result = tokio::time::timeout(timeout, endpoint.ask(&call.request, &mut told)) => result,
        () = call.cancelled.cancelled() => return,
    };
    let result = result.unwrap_or_else(|_| {
        let why = format!("no whole answer within {}", Span(timeout));
        Err(ModelError::new(Kind::Timeout, why).billed())
    });
    if let Some(seen) = &mut finish.seen {
        seen.verdict = verdict(&result);
        seen.refused = matches!(&result, Err(error) if error.kind == Kind::RateLimited);
        seen.told = told;
    }
    drop(finish);
    call.answer(Outcome { result, took: started.elapsed() });
}

/// Tells the actor that a call is over, however it ended: a task that panics must not keep its place.
struct Finish {
    actor: ActorRef<Message>,
    seen: Option<Seen>,
}

impl Drop for Finish {
    fn drop(&mut self) {
        if let Some(seen) = self.seen.take() {
            // A gateway that has stopped needs no places.
            let _ = self.actor.cast(Message::Finished(Box::new(seen)));
        }
    }
}
