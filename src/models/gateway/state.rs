//! What a gateway keeps, and what it makes of each message; all of it without waiting.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ractor::RpcReplyPort;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::breaker::{Breaker, Thresholds};
use crate::domain::duration::Span;
use crate::models::error::{Harm, Kind, ModelError};
use crate::models::gateway::{Outcome, Standing, Trouble};
use crate::models::headers::Told;
use crate::models::limits::{Limits, Queue};
use crate::models::wire::{Reply, Request};
use crate::time::wall;

/// Calls that may wait. With four at once and a second each, the last of them waits about a minute,
/// as long as one call may take; whoever comes later is better served by the next model.
pub(super) const QUEUE: usize = 256;

/// When a provider is left alone: after this many failures in a row it is down, and half a minute
/// is what a restart or a failover takes.
const THRESHOLDS: Thresholds = Thresholds { failures: 5, pause: Duration::from_secs(30) };

/// How long a provider is left alone that refuses the key or has no money left: the owner must act,
/// and one refused probe in ten minutes bothers nobody.
const PERMANENT: Duration = Duration::from_secs(600);

/// A call on its way through the gateway.
pub(super) struct Call {
    pub(super) request: Request,
    /// About how many tokens it will be.
    pub(super) tokens: u64,
    /// Whether it goes out with an open breaker, too.
    pub(super) probe: bool,
    pub(super) cancelled: CancellationToken,
    pub(super) give_up: Instant,
    pub(super) reply: RpcReplyPort<Outcome>,
}

/// What a call has shown about the provider.
pub(super) struct Seen {
    pub(super) model: String,
    pub(super) verdict: Verdict,
    pub(super) told: Told,
    /// The provider asked to come back later.
    pub(super) refused: bool,
}

pub(super) enum Verdict {
    /// It is alive.
    Alive,
    /// It failed.
    Harm(Harm, String),
    /// Nothing: the call was given up.
    Nothing,
}

/// What the actor keeps.
pub(super) struct State {
    pub(super) waiting: Queue<Call>,
    pub(super) under_way: usize,
    pub(super) limits: Limits,
    /// By the model's name at the provider.
    pub(super) models: HashMap<String, Limits>,
    /// When the next `Message::Ready` comes.
    pub(super) wake: Option<Instant>,
    pub(super) breaker: Breaker,
    /// What opened the breaker lasts until the owner acts.
    pub(super) lasting: bool,
    pub(super) publish: watch::Sender<Option<Trouble>>,
    pub(super) calls: JoinSet<()>,
}

/// How long the limits of provider and model make a call wait.
pub(super) fn wait(limits: &Limits, models: &HashMap<String, Limits>, call: &Call, now: Instant) -> Duration {
    let own = models.get(&call.request.model).map_or(Duration::ZERO, |limits| limits.wait(call.tokens, now));
    own.max(limits.wait(call.tokens, now))
}

pub(super) fn verdict(result: &Result<Reply, ModelError>) -> Verdict {
    let error = match result {
        Ok(reply) if !reply.vectors.is_empty() => reply.error.clone(),
        Ok(reply) => reply.answer().err(),
        Err(error) => Some(error.clone()),
    };
    match error {
        Some(error) if error.kind.harm() != Harm::None => Verdict::Harm(error.kind.harm(), error.message),
        _ => Verdict::Alive,
    }
}

impl Call {
    /// Tells the caller; one that has left is told nothing.
    pub(super) fn answer(self, outcome: Outcome) {
        let _ = self.reply.send(outcome);
    }
}

impl State {
    pub(super) fn enqueue(&mut self, call: Call) {
        if let Err(why) = self.breaker.clone().admit(wall())
            && !call.probe
        {
            call.answer(Outcome::none(Kind::Paused, why));
            return;
        }
        let lane = Arc::clone(&call.request.lane);
        if let Some(call) = self.waiting.push(&lane, call) {
            call.answer(Outcome::none(Kind::Busy, format!("{QUEUE} calls are waiting already")));
        }
    }

    /// Lets go of those who would wait in vain: nobody wants them any more, they have waited too long, a
    /// limit holds them beyond that, or the breaker would refuse them.
    pub(super) fn drop_the_hopeless(&mut self, now: Instant) {
        let refused = self.breaker.clone().admit(wall()).err();
        let Self { waiting, limits, models, .. } = self;
        let hopeless = |call: &Call| {
            call.cancelled.is_cancelled()
                || (refused.is_some() && !call.probe)
                || now + wait(limits, models, call, now) >= call.give_up
        };
        for call in waiting.drain(hopeless) {
            let held = wait(limits, models, &call, now);
            let outcome = match &refused {
                Some(why) if !call.probe => Outcome::none(Kind::Paused, why),
                _ if now >= call.give_up => Outcome::none(Kind::Busy, "its queue did not move in time"),
                _ => held_back(held),
            };
            call.answer(outcome);
        }
    }

    /// When something changes by itself: a limit lets somebody through, or somebody has waited long enough.
    pub(super) fn next_turn(&self, concurrency: usize, now: Instant) -> Option<Instant> {
        let free = self.under_way < concurrency;
        let turn = |call: &Call| match free {
            true => call.give_up.min(now + wait(&self.limits, &self.models, call, now)),
            false => call.give_up,
        };
        self.waiting.iter().map(turn).min()
    }

    pub(super) fn finished(&mut self, seen: Seen, now: Timestamp) {
        self.under_way = self.under_way.saturating_sub(1);
        self.models.entry(seen.model).or_default().learn(&seen.told, seen.refused, Instant::now());
        self.judge(seen.verdict, now);
    }

    /// What a call has shown counts for the breaker.
    pub(super) fn judge(&mut self, verdict: Verdict, now: Timestamp) {
        match verdict {
            // A call that was under way when the breaker opened does not close it again.
            Verdict::Alive if matches!(self.breaker, Breaker::Open { .. }) => {}
            Verdict::Alive => self.close(),
            Verdict::Harm(Harm::Opens, why) => {
                self.breaker.open(now, PERMANENT, &why);
                self.lasting = true;
            }
            Verdict::Harm(_, why) => self.breaker.failed(now, THRESHOLDS, &why),
            // A probe without a verdict: the next call probes.
            Verdict::Nothing if self.breaker == Breaker::Probing => {
                self.breaker.open(now, Duration::ZERO, "its probe was given up");
            }
            Verdict::Nothing => {}
        }
    }

    fn close(&mut self) {
        self.breaker.succeeded();
        self.lasting = false;
    }

    pub(super) fn adopt(&mut self, trouble: Option<Trouble>, reply: RpcReplyPort<()>) {
        match trouble {
            Some(Trouble { until, why, lasting }) => {
                self.breaker = Breaker::Open { until, why };
                self.lasting = lasting;
            }
            None => self.close(),
        }
        // Before the answer, and without a word: whoever found it out has told the owner.
        self.publish.send_replace(self.trouble());
        let _ = reply.send(());
    }

    pub(super) fn reset(&mut self) -> bool {
        let troubled = self.trouble().is_some();
        self.close();
        self.limits.forget();
        self.models.values_mut().for_each(Limits::forget);
        troubled
    }

    fn trouble(&self) -> Option<Trouble> {
        match &self.breaker {
            Breaker::Closed { .. } => None,
            Breaker::Open { until, why } => {
                Some(Trouble { until: *until, why: why.clone(), lasting: self.lasting })
            }
            // Until the probe has its answer, things are as they were.
            Breaker::Probing => self.publish.borrow().clone(),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        Standing { trouble: self.trouble(), under_way: self.under_way, waiting: self.waiting.len() }
    }

    /// Publishes a change of the breaker. What only the owner can mend is told once, when it begins.
    pub(super) fn tell(&self, provider: &str) {
        let (before, now) = (self.publish.borrow().clone(), self.trouble());
        if before == now {
            return;
        }
        let lasted = before.as_ref().is_some_and(|trouble| trouble.lasting);
        match &now {
            Some(Trouble { why, lasting: true, .. }) if !lasted => tracing::warn!(
                provider,
                why,
                "a provider of models needs you: nobody asks it any more but for a probe now and then; \
                 once it is mended, `steward models reset` asks it at once"
            ),
            None if before.is_some() => tracing::info!(provider, "a provider of models answers again"),
            _ => {}
        }
        self.publish.send_replace(now);
    }
}

fn held_back(held: Duration) -> Outcome {
    let rounded = Duration::from_secs(held.as_secs().max(1));
    let why = format!("its rate limit lets the next call through in {}", Span(rounded));
    let mut error = ModelError::new(Kind::RateLimited, why);
    error.retry_after = Some(held);
    Outcome { result: Err(error), took: Duration::ZERO }
}
