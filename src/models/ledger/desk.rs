//! Who sits at the ledger: gathers asks, writes them in one statement, brings in what has ended.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_postgres::Config;

use crate::domain::budget::Shortage;
use crate::domain::budget::book::End;
use crate::domain::ids::ReservationId;
use crate::domain::money::Money;
use crate::models::ledger::{Msg, NoMoney};
use crate::store::StoreError;
use crate::store::spend::writer::{Passed, Verdict, Wanted, Writer};

/// The most asks in one statement: more would only wait for each other's locks.
const MAX_BATCH: usize = 256;

/// How often what has ended is brought in, and what nobody settled is looked for, while nobody asks for
/// more than there is: the owner's screen is at most so old.
const LOOK: Duration = Duration::from_secs(1);

/// Accounts that are known to have a row; forgotten at this number, for runs end.
const KNOWN: usize = 20_000;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// An ask and who waits for it.
type Waiting = (Box<Wanted>, Answer);

/// Where the answer goes.
type Answer = oneshot::Sender<Result<(), NoMoney>>;

pub(super) struct Desk {
    config: Config,
    currency: String,
    /// What is durable before anybody hears of it.
    writer: Writer,
    /// What may be lost in a crash and is then done again: rows without money in them, sums.
    lazy: Writer,
    known: HashSet<String>,
    /// Accounts that are known to be spent: told once.
    told: HashSet<String>,
    /// Ends that are not written yet.
    ends: Vec<(ReservationId, End)>,
    next_look: Instant,
}

impl Desk {
    pub(super) async fn open(config: Config, currency: String) -> Result<Self, StoreError> {
        let writer = Writer::connect(&config, false).await?;
        let lazy = Writer::connect(&config, true).await?;
        Ok(Self {
            config,
            currency,
            writer,
            lazy,
            known: HashSet::new(),
            told: HashSet::new(),
            ends: Vec::new(),
            next_look: Instant::now(),
        })
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Msg>) {
        let mut messages = Vec::with_capacity(MAX_BATCH);
        loop {
            let gathered = inbox.recv_many(&mut messages, MAX_BATCH);
            match tokio::time::timeout_at(self.next_look, gathered).await {
                Ok(0) => return self.close().await, // everybody who could ask is gone
                Ok(_) => {
                    if let Some(stop) = self.serve(&mut messages).await {
                        inbox.close();
                        while inbox.recv_many(&mut messages, MAX_BATCH).await > 0 {
                            let _ = self.serve(&mut messages).await;
                        }
                        self.close().await;
                        let _ = stop.send(());
                        return;
                    }
                }
                Err(_) => {}
            }
            if self.next_look <= Instant::now() {
                self.look().await;
            }
        }
    }

    /// Does what came in; gives who wants it to stop.
    async fn serve(&mut self, messages: &mut Vec<Msg>) -> Option<oneshot::Sender<()>> {
        let (mut asks, mut stop) = (Vec::new(), None);
        for message in messages.drain(..) {
            match message {
                Msg::Reserve(wanted, answer) => asks.push((wanted, answer)),
                Msg::End(id, end) => self.ends.push((id, end)),
                Msg::Stop(done) => stop = Some(done),
            }
        }
        // Who has left before he was served wants nothing any more, nor does what he gave back.
        asks.retain(|(wanted, answer): &Waiting| {
            let left = answer.is_closed();
            if left {
                self.ends.retain(|(id, _)| *id != wanted.id);
            }
            !left
        });
        // The ends come first: what they free may be what is asked for.
        self.write_ends().await;
        if !asks.is_empty() {
            self.reserve(asks).await;
        }
        stop
    }

    async fn reserve(&mut self, asks: Vec<Waiting>) {
        let mut waiting = Vec::with_capacity(asks.len());
        if let Err((error, unknown)) = self.reserve_all(asks, &mut waiting).await {
            tracing::warn!(%error, "the ledger cannot reserve");
            for (wanted, answer) in unknown.into_iter().chain(waiting) {
                let _ = answer.send(Err(NoMoney::Unavailable(error.to_string())));
                self.ends.push((wanted.id, End::Released)); // it may have landed in spite of that
            }
            self.mend().await;
        }
    }

    /// In rounds: each settles at least its first ask, for nobody stands before that.
    async fn reserve_all(
        &mut self,
        mut asks: Vec<Waiting>,
        again: &mut Vec<Waiting>,
    ) -> Result<(), (StoreError, Vec<Waiting>)> {
        let mut up_to_date = false;
        while !asks.is_empty() {
            if let Err(error) = self.ensure(&asks).await {
                return Err((error, asks));
            }
            let batch: Vec<&Wanted> = asks.iter().map(|(wanted, _)| &**wanted).collect();
            let verdicts = match self.writer.reserve(&batch).await {
                Ok(verdicts) => verdicts,
                Err(error) => return Err((error, asks)),
            };
            let mut short = Vec::new();
            for ((wanted, answer), verdict) in asks.drain(..).zip(verdicts) {
                match verdict {
                    Verdict::Reserved => drop(answer.send(Ok(()))),
                    Verdict::Again => again.push((wanted, answer)),
                    Verdict::Unknown => {
                        self.known.clear();
                        again.push((wanted, answer));
                    }
                    // What has ended may not have been brought in yet.
                    Verdict::Short(..) if !up_to_date => again.push((wanted, answer)),
                    Verdict::Short(why, account) => short.push((account, why, answer)),
                }
            }
            self.refuse(short).await;
            asks.append(again);
            if !asks.is_empty() {
                self.roll_up().await;
                up_to_date = true;
            }
        }
        Ok(())
    }

    async fn ensure(&mut self, asks: &[Waiting]) -> Result<(), StoreError> {
        if self.known.len() > KNOWN {
            self.known.clear();
        }
        let accounts = asks.iter().flat_map(|(wanted, _)| wanted.accounts.iter().map(|(account, _)| account));
        let new: Vec<_> =
            accounts.filter(|account| !self.known.contains(&account.to_string())).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        self.lazy.ensure(&new).await?;
        self.known.extend(new.iter().map(ToString::to_string));
        Ok(())
    }

    async fn refuse(&mut self, short: Vec<(String, Shortage, Answer)>) {
        let new = short.iter().filter(|(account, ..)| !self.told.contains(account));
        let new: Vec<(String, Shortage)> =
            new.map(|(account, short, _)| (account.clone(), short.clone())).collect();
        for (_, short, answer) in short {
            let _ = answer.send(Err(NoMoney::Short { short, currency: self.currency.clone() }));
        }
        if new.is_empty() {
            return;
        }
        match self.lazy.refused(&new).await {
            Ok(passed) => {
                if self.told.len() > KNOWN {
                    self.told.clear();
                }
                self.told.extend(new.into_iter().map(|(account, _)| account));
                self.tell(&passed);
            }
            Err(error) => tracing::warn!(%error, "a spent budget could not be noted"),
        }
    }

    /// Looks after what nobody asks for.
    async fn look(&mut self) {
        if self.writer.is_closed() || self.lazy.is_closed() {
            self.mend().await;
        }
        self.write_ends().await;
        match self.lazy.expire().await {
            Ok(0) => {}
            Ok(expired) => tracing::warn!(expired, "calls that nobody told the end of are taken for spent"),
            Err(error) => tracing::warn!(%error, "the ledger cannot look for what expired"),
        }
        self.roll_up().await;
        self.next_look = Instant::now() + LOOK;
    }

    async fn roll_up(&mut self) {
        let mut rolled = self.lazy.roll_up().await;
        if rolled.as_ref().is_err_and(StoreError::retryable) {
            self.mend().await;
            rolled = self.lazy.roll_up().await;
        }
        match rolled {
            Ok(passed) => self.tell(&passed),
            Err(error) => tracing::warn!(%error, "the ledger cannot bring in what has ended"),
        }
    }

    async fn write_ends(&mut self) {
        if self.ends.is_empty() {
            return;
        }
        let mut written = self.writer.end(&self.ends).await;
        if written.as_ref().is_err_and(StoreError::retryable) {
            self.mend().await;
            written = self.writer.end(&self.ends).await;
        }
        match written {
            Ok(()) => self.ends.clear(),
            Err(error) if error.retryable() => tracing::warn!(%error, "the ledger writes the ends later"),
            Err(error) => {
                tracing::error!(%error, "ends that cannot be written: the calls are taken for spent in time");
                self.ends.clear();
            }
        }
    }

    /// Makes both connections anew: one that has failed may not know yet that it is lost. What does not
    /// work now is tried again at the next look.
    async fn mend(&mut self) {
        for (writer, lazy) in [(&mut self.writer, false), (&mut self.lazy, true)] {
            match timeout(CONNECT, Writer::connect(&self.config, lazy)).await {
                Ok(Ok(fresh)) => *writer = fresh,
                Ok(Err(error)) => tracing::warn!(%error, "the ledger cannot connect"),
                Err(_) => tracing::warn!("the ledger cannot connect in time"),
            }
        }
    }

    async fn close(&mut self) {
        self.write_ends().await;
        self.roll_up().await;
    }

    fn tell(&self, passed: &[Passed]) {
        let money = |micros: i64| Money { micros, currency: self.currency.clone() }.to_string();
        for passed in passed {
            let Passed { account, percent, limit, used } = passed;
            let (limit, used) = (money(*limit), money(*used));
            tracing::warn!(account, percent, limit, used, "a budget has passed a threshold");
        }
    }
}
