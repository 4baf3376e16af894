//! The ledger's connection: reserves, ends, rolls up, expires.

use jiff::civil::Date;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};
use uuid::Uuid;

use crate::domain::budget::book::End;
use crate::domain::budget::{Account, Payer, Shortage, THRESHOLDS};
use crate::domain::ids::ReservationId;
use crate::store::StoreError;
use crate::store::spend::statements::{END, ENSURE, EXPIRE, PLANNING, REFUSED, RESERVE, ROLL_UP};

/// Entries that one statement brings up to date: a few milliseconds of locks.
const ROLLED: i64 = 500;

/// How long after its time a reservation is still waited for, seconds: a commit may wait for a database
/// that is being restarted.
const GRACE_SECONDS: f64 = 120.0;

/// One call that wants money set aside.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The reservation that it becomes.
    pub id: ReservationId,
    /// Who pays.
    pub payer: Payer,
    /// The accounts that pay, each with its limit.
    pub accounts: Vec<(Account, Option<i64>)>,
    /// The owner's day.
    pub day: Date,
    /// The model.
    pub model: String,
    /// What it may cost at most, micro-units.
    pub worst: i64,
}

/// What became of a call that wanted money.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is set aside.
    Reserved,
    /// It would fit but for others that asked at the same moment: to be asked again.
    Again,
    /// An account of it has no row: to be made, and asked again.
    Unknown,
    /// It does not fit: the account that lacks most, and its key.
    Short(Shortage, String),
}

/// A share of a limit that was passed just now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passed {
    /// The account's key.
    pub account: String,
    /// The share, percent.
    pub percent: i32,
    /// The limit, micro-units.
    pub limit: i64,
    /// What was spent, micro-units.
    pub used: i64,
}

/// One connection of the ledger. What it commits is durable, unless it was opened to be lazy: then it
/// may be lost in a crash, together with everything after it.
pub struct Writer {
    client: Client,
    ensure: Statement,
    reserve: Statement,
    end: Statement,
    expire: Statement,
    roll_up: Statement,
    refused: Statement,
}

impl Writer {
    /// Connects and prepares.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn connect(config: &Config, lazy: bool) -> Result<Self, StoreError> {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "the ledger's connection ended");
            }
        });
        client.batch_execute(PLANNING).await?;
        if lazy {
            client.batch_execute("set synchronous_commit = off").await?;
        }
        Ok(Self {
            ensure: client.prepare(ENSURE).await?,
            reserve: client.prepare(RESERVE).await?,
            end: client.prepare(END).await?,
            expire: client.prepare(EXPIRE).await?,
            roll_up: client.prepare(ROLL_UP).await?,
            refused: client.prepare(REFUSED).await?,
            client,
        })
    }

    /// Whether the connection is lost.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Makes rows for accounts that have none.
    ///
    /// # Errors
    /// When the statement fails; repeating it is harmless.
    pub async fn ensure(&self, accounts: &[Account]) -> Result<(), StoreError> {
        let mut accounts: Vec<(String, &Account)> =
            accounts.iter().map(|account| (account.to_string(), account)).collect();
        accounts.sort_unstable();
        accounts.dedup();
        let keys: Vec<&str> = accounts.iter().map(|(key, _)| key.as_str()).collect();
        let scopes: Vec<&str> = accounts.iter().map(|(_, account)| account.scope()).collect();
        let runs: Vec<Option<Uuid>> =
            accounts.iter().map(|(_, account)| account.run().map(|r| r.0)).collect();
        let workflows: Vec<Option<&str>> = accounts.iter().map(|(_, account)| account.workflow()).collect();
        let periods: Vec<Option<&str>> = accounts.iter().map(|(_, account)| account.period()).collect();
        self.client.execute(&self.ensure, &[&keys, &scopes, &runs, &workflows, &periods]).await?;
        Ok(())
    }

    /// Sets money aside for a batch, in one statement; gives what became of each.
    ///
    /// # Errors
    /// When the statement fails: then nothing is set aside, or, if the connection broke, nobody knows.
    pub async fn reserve(&self, batch: &[&Wanted]) -> Result<Vec<Verdict>, StoreError> {
        let asks = Asks::of(batch);
        let rows = self.client.query(&self.reserve, &asks.params()).await?;
        let mut verdicts = vec![Verdict::Reserved; batch.len()];
        for row in rows {
            let place = usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX);
            let (Some(wanted), Some(verdict)) = (batch.get(place), verdicts.get_mut(place)) else { continue };
            *verdict = refusal(&row, wanted);
        }
        Ok(verdicts)
    }

    /// Ends calls that no run journals.
    ///
    /// # Errors
    /// When the statement fails; repeating it is harmless.
    pub async fn end(&self, ends: &[(ReservationId, End)]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = ends.iter().map(|(id, _)| id.0).collect();
        let row = |(_, end): &(ReservationId, End)| match end {
            End::Settled(cost) => ("settled", Some(*cost)),
            End::Released => ("released", None),
            End::Assumed => ("assumed", None),
        };
        let (statuses, costs): (Vec<&str>, Vec<Option<i64>>) = ends.iter().map(row).unzip();
        self.client.execute(&self.end, &[&ids, &statuses, &costs]).await?;
        Ok(())
    }

    /// Takes for spent what nobody settled in its time; gives how many.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn expire(&self) -> Result<u64, StoreError> {
        Ok(self.client.execute(&self.expire, &[&ROLLED]).await?)
    }

    /// Brings `spend` up to date with every entry that has ended; gives the shares of limits that were
    /// passed by that, each told once in the life of its account.
    ///
    /// # Errors
    /// When a statement fails.
    pub async fn roll_up(&self) -> Result<Vec<Passed>, StoreError> {
        let mut passed = Vec::new();
        loop {
            let rows = self.client.query(&self.roll_up, &[&ROLLED, &&THRESHOLDS[..]]).await?;
            passed.extend(rows.iter().filter_map(|row| passed_row(row, 1)));
            if rows.first().is_none_or(|row| row.get::<_, i64>(0) < ROLLED) {
                return Ok(passed);
            }
        }
    }

    /// Notes that calls had to be refused; gives the accounts of which that was not known yet.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn refused(&self, short: &[(String, Shortage)]) -> Result<Vec<Passed>, StoreError> {
        let last = THRESHOLDS.last().copied().unwrap_or(100);
        let accounts: Vec<&str> = short.iter().map(|(account, _)| account.as_str()).collect();
        let percents = vec![last; short.len()];
        let limits: Vec<i64> = short.iter().map(|(_, short)| short.limit).collect();
        let used: Vec<i64> = short.iter().map(|(_, short)| short.used).collect();
        let rows = self.client.query(&self.refused, &[&accounts, &percents, &limits, &used]).await?;
        Ok(rows.iter().filter_map(|row| passed_row(row, 0)).collect())
    }
}

fn passed_row(row: &Row, from: usize) -> Option<Passed> {
    let account: Option<String> = row.get(from);
    Some(Passed {
        account: account?,
        percent: row.get(from + 1),
        limit: row.get(from + 2),
        used: row.get(from + 3),
    })
}

fn refusal(row: &Row, wanted: &Wanted) -> Verdict {
    let (missing, fits): (bool, bool) = (row.get(1), row.get(2));
    if missing {
        return Verdict::Unknown;
    }
    let (account, most, used): (String, Option<i64>, Option<i64>) = (row.get(3), row.get(4), row.get(5));
    match (fits, most, used) {
        (false, Some(limit), Some(used)) => {
            let scope = wanted.accounts.iter().find(|(known, _)| known.to_string() == account);
            let scope = scope.map_or("run", |(account, _)| account.scope()).to_owned();
            Verdict::Short(Shortage { scope, limit, used, worst: wanted.worst }, account)
        }
        _ => Verdict::Again,
    }
}

/// The columns of a batch.
struct Asks<'w> {
    keys: Vec<String>,
    // One per ask and account.
    place: Vec<i32>,
    account: Vec<String>,
    worst: Vec<i64>,
    limit: Vec<Option<i64>>,
    extra: Vec<i64>,
    // One per ask.
    ask: Vec<i32>,
    id: Vec<Uuid>,
    run: Vec<Option<Uuid>>,
    workflow: Vec<Option<&'w str>>,
    step: Vec<Option<&'w str>>,
    attempt: Vec<i32>,
    model: Vec<&'w str>,
    day: Vec<Date>,
    most: Vec<i64>,
    life: Vec<f64>,
}

impl<'w> Asks<'w> {
    fn of(batch: &[&'w Wanted]) -> Self {
        let mut asks = Self {
            keys: Vec::new(),
            place: Vec::new(),
            account: Vec::new(),
            worst: Vec::new(),
            limit: Vec::new(),
            extra: Vec::new(),
            ask: (0i32..).take(batch.len()).collect(),
            id: batch.iter().map(|wanted| wanted.id.0).collect(),
            run: batch.iter().map(|wanted| wanted.payer.run.map(|run| run.0)).collect(),
            workflow: batch.iter().map(|wanted| wanted.payer.workflow.as_ref().map(|w| w.as_str())).collect(),
            step: batch.iter().map(|wanted| wanted.payer.step.as_ref().map(|step| step.as_str())).collect(),
            attempt: batch.iter().map(|wanted| wanted.payer.attempt.cast_signed()).collect(),
            model: batch.iter().map(|wanted| wanted.model.as_str()).collect(),
            day: batch.iter().map(|wanted| wanted.day).collect(),
            most: batch.iter().map(|wanted| wanted.worst).collect(),
            life: batch.iter().map(|wanted| wanted.payer.patience.as_secs_f64() + GRACE_SECONDS).collect(),
        };
        for (place, wanted) in (0i32..).zip(batch) {
            for (account, limit) in &wanted.accounts {
                asks.place.push(place);
                asks.account.push(account.to_string());
                asks.worst.push(wanted.worst);
                asks.limit.push(*limit);
                asks.extra.push(wanted.payer.extra);
            }
        }
        asks.keys.clone_from(&asks.account);
        asks.keys.sort_unstable();
        asks.keys.dedup();
        asks
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 16] {
        [
            &self.keys,
            &self.place,
            &self.account,
            &self.worst,
            &self.limit,
            &self.extra,
            &self.ask,
            &self.id,
            &self.run,
            &self.workflow,
            &self.step,
            &self.attempt,
            &self.model,
            &self.day,
            &self.most,
            &self.life,
        ]
    }
}
