//! Budgets: what a model call is paid from, how much may still be spent there, and what follows when it
//! is not enough.
//!
//! A call pays from up to five accounts at once: its run (and every run that waits for that one), its
//! workflow's day and month, the workspace's day and month. Days and months are the owner's, by the
//! time zone of the settings. All of them are counted whether limited or not, so that a limit set at
//! noon counts the morning. Amounts are millionths of the workspace's currency.

//!
//! - [`Payer`] says from which accounts a call pays, [`Shortage`] why it cannot;
//! - [`Exhausted`] says what follows;
//! - [`book`] is the ledger's arithmetic, in memory.

pub mod book;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::domain::ids::{RunId, StepId, WorkflowName};
use crate::domain::money::Money;
use crate::domain::run::Run;
use crate::domain::workflow::Version;

/// The shares of a limit at which the owner is told, percent, each once per account. The last one means:
/// spent, or a call had to be refused.
pub const THRESHOLDS: [i32; 3] = [50, 80, 100];

/// The most that one call can be thought to cost, micro-units: what is beyond is no price but a mistake,
/// and sums of any number of calls must stay far from overflow.
pub const DEAREST: i64 = 1_000_000_000_000_000;

/// What a workflow's runs may cost, as its version says; what is absent is not limited.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Budget {
    /// Each run, the runs it waits for included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_run: Option<i64>,
    /// All its runs in one day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<i64>,
    /// All its runs in one month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_month: Option<i64>,
    /// What follows when it is not enough, whichever account is short.
    #[serde(default)]
    pub exhausted: Exhausted,
}

impl Budget {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What follows when a model cannot be paid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exhausted {
    /// The next model of the chain is asked, as after any failure.
    #[default]
    Fallback,
    /// The owner is asked whether it may cost more this once.
    Review,
    /// The step fails, for good.
    Fail,
}

/// What the whole workspace may cost; what is absent is not limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// In one day.
    pub per_day: Option<i64>,
    /// In one month.
    pub per_month: Option<i64>,
}

/// Who pays for the calls of one attempt of one agent step, or of something outside of runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payer {
    /// The run; none for what the owner or the service does outside of runs.
    pub run: Option<RunId>,
    /// Its workflow.
    pub workflow: Option<WorkflowName>,
    /// The step.
    pub step: Option<StepId>,
    /// Its attempt.
    pub attempt: u32,
    /// The run itself and those that wait for it, each with its limit.
    pub runs: Vec<RunLimit>,
    /// The workflow's limits, as the run's version has them.
    pub budget: Budget,
    /// What the owner allowed this run beyond all limits, micro-units.
    pub extra: i64,
    /// How long the calls may be under way at most; a reservation that nobody settled long after that is
    /// taken for spent.
    pub patience: Duration,
}

impl Payer {
    /// Somebody outside of runs: only the workspace pays.
    #[must_use]
    pub fn workspace(patience: Duration) -> Self {
        Self {
            run: None,
            workflow: None,
            step: None,
            attempt: 0,
            runs: Vec::new(),
            budget: Budget::default(),
            extra: 0,
            patience,
        }
    }

    /// Who pays for the present attempt of a step.
    #[must_use]
    pub fn of(run: &Run, version: &Version, step: &StepId, patience: Duration) -> Self {
        Self {
            run: Some(run.id),
            workflow: Some(run.opened.workflow.clone()),
            step: Some(step.clone()),
            attempt: run.record(step).attempt,
            runs: run_limits(run, version),
            budget: version.budget.clone(),
            extra: run.allowed_micros,
            patience,
        }
    }

    /// The accounts it pays from on `day`, the narrowest first, each with what it may hold in all; what
    /// the owner allowed beyond that is not in it.
    #[must_use]
    pub fn accounts(&self, workspace: &Limits, day: &Day) -> Vec<(Account, Option<i64>)> {
        let (day, month) = (day.day(), day.month());
        let mut accounts: Vec<_> =
            self.runs.iter().map(|paying| (Account::Run(paying.run), paying.limit)).collect();
        if let Some(workflow) = &self.workflow {
            accounts.push((Account::WorkflowDay(workflow.clone(), day.clone()), self.budget.per_day));
            accounts.push((Account::WorkflowMonth(workflow.clone(), month.clone()), self.budget.per_month));
        }
        accounts.push((Account::WorkspaceDay(day), workspace.per_day));
        accounts.push((Account::WorkspaceMonth(month), workspace.per_month));
        accounts
    }
}

/// The run itself and the runs that wait for it, each with its limit.
fn run_limits(run: &Run, version: &Version) -> Vec<RunLimit> {
    let limits = run.opened.budget_micros.into_iter().chain(version.budget.per_run);
    let own = RunLimit { run: run.id, limit: limits.min() };
    let waiting = run.opened.parent.iter().flat_map(|parent| parent.pays.iter().copied());
    std::iter::once(own).chain(waiting).collect()
}

/// The runs that pay for what a run opened by this one costs; what the owner allowed this one beyond its
/// limit is part of it.
#[must_use]
pub fn paying_for_child(run: &Run, version: &Version) -> Vec<RunLimit> {
    let mut limits = run_limits(run, version);
    for paying in &mut limits {
        paying.limit = paying.limit.map(|limit| limit.saturating_add(run.allowed_micros));
    }
    limits
}

/// A day of the owner's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Day(pub Date);

impl Day {
    /// The owner's day at a moment.
    #[must_use]
    pub fn at(now: Timestamp, zone: &TimeZone) -> Self {
        Self(now.to_zoned(zone.clone()).date())
    }

    /// As in `2026-11-25`.
    #[must_use]
    pub fn day(self) -> String {
        self.0.to_string()
    }

    /// As in `2026-11`.
    #[must_use]
    pub fn month(self) -> String {
        format!("{:04}-{:02}", self.0.year(), self.0.month())
    }
}

/// A run that pays, and what it may cost in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunLimit {
    /// The run.
    pub run: RunId,
    /// Its limit, micro-units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

/// Where spending is counted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Account {
    /// A run, with the runs it waits for.
    Run(RunId),
    /// A workflow's day, as in `2026-11-25`.
    WorkflowDay(WorkflowName, String),
    /// A workflow's month, as in `2026-11`.
    WorkflowMonth(WorkflowName, String),
    /// The workspace's day.
    WorkspaceDay(String),
    /// The workspace's month.
    WorkspaceMonth(String),
}

impl Account {
    /// What kind of account: the column `scope`.
    #[must_use]
    pub fn scope(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::WorkflowDay(..) => "workflow/day",
            Self::WorkflowMonth(..) => "workflow/month",
            Self::WorkspaceDay(_) => "workspace/day",
            Self::WorkspaceMonth(_) => "workspace/month",
        }
    }

    /// The run, of a run's account.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Run(run) => Some(*run),
            Self::WorkflowDay(..)
            | Self::WorkflowMonth(..)
            | Self::WorkspaceDay(_)
            | Self::WorkspaceMonth(_) => None,
        }
    }

    /// The workflow, of a workflow's account.
    #[must_use]
    pub fn workflow(&self) -> Option<&str> {
        match self {
            Self::WorkflowDay(workflow, _) | Self::WorkflowMonth(workflow, _) => Some(workflow.as_str()),
            Self::Run(_) | Self::WorkspaceDay(_) | Self::WorkspaceMonth(_) => None,
        }
    }

    /// The day or month, of every account but a run's.
    #[must_use]
    pub fn period(&self) -> Option<&str> {
        match self {
            Self::Run(_) => None,
            Self::WorkflowDay(_, period)
            | Self::WorkflowMonth(_, period)
            | Self::WorkspaceDay(period)
            | Self::WorkspaceMonth(period) => Some(period),
        }
    }
}

/// The key of its row.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(run) => write!(f, "run/{run}"),
            Self::WorkflowDay(name, period) => write!(f, "workflow/day/{period}/{name}"),
            Self::WorkflowMonth(name, period) => write!(f, "workflow/month/{period}/{name}"),
            Self::WorkspaceDay(period) => write!(f, "workspace/day/{period}"),
            Self::WorkspaceMonth(period) => write!(f, "workspace/month/{period}"),
        }
    }
}

/// Why a call cannot be paid: the account that lacks most.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shortage {
    /// Which kind of account: `run`, `workflow/day`, `workflow/month`, `workspace/day`, `workspace/month`.
    pub scope: String,
    /// What it may hold, micro-units, what the owner allowed beyond its limit included.
    pub limit: i64,
    /// What it holds, spent or set aside, micro-units.
    pub used: i64,
    /// What the call may cost at most, micro-units.
    pub worst: i64,
}

impl Shortage {
    /// What is left, micro-units.
    #[must_use]
    pub fn left(&self) -> i64 {
        self.limit.saturating_sub(self.used).max(0)
    }

    /// What would have to be allowed beyond the limit: enough for this call and for one more like it, such
    /// as a repair turn, or the owner would be asked again at once.
    #[must_use]
    pub fn wanted(&self) -> i64 {
        self.used.saturating_add(self.worst).saturating_sub(self.limit).saturating_add(self.worst).max(0)
    }

    /// In the owner's words, without a full stop.
    #[must_use]
    pub fn told(&self, currency: &str) -> String {
        let money = |micros: i64| Money { micros, currency: currency.to_owned() };
        let whose = match self.scope.as_str() {
            "run" => "the budget of this run",
            "workflow/day" => "this workflow's budget for today",
            "workflow/month" => "this workflow's budget for this month",
            "workspace/day" => "the whole budget for today",
            _ => "the whole budget for this month",
        };
        let (left, limit, worst) = (money(self.left()), money(self.limit), money(self.worst));
        format!("{whose} has {left} left of {limit}, and this call may cost up to {worst}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn payer() -> Payer {
        let run = |n| RunId(uuid::Uuid::from_u128(n));
        Payer {
            run: Some(run(2)),
            workflow: Some("lead".into()),
            runs: vec![RunLimit { run: run(2), limit: Some(5) }, RunLimit { run: run(1), limit: None }],
            budget: Budget { per_day: Some(7), ..Budget::default() },
            ..Payer::workspace(Duration::ZERO)
        }
    }

    #[test]
    fn a_call_pays_from_its_run_those_that_wait_its_workflow_and_the_workspace() {
        let limits = Limits { per_day: None, per_month: Some(100) };
        let accounts = payer().accounts(&limits, &Day(date(2026, 2, 3)));
        let told: Vec<_> = accounts.iter().map(|(account, limit)| (account.to_string(), *limit)).collect();
        assert_eq!(
            told,
            [
                ("run/00000000-0000-0000-0000-000000000002".to_owned(), Some(5)),
                ("run/00000000-0000-0000-0000-000000000001".to_owned(), None),
                ("workflow/day/2026-02-03/lead".to_owned(), Some(7)),
                ("workflow/month/2026-02/lead".to_owned(), None),
                ("workspace/day/2026-02-03".to_owned(), None),
                ("workspace/month/2026-02".to_owned(), Some(100)),
            ]
        );
    }

    #[test]
    fn a_day_begins_at_the_owners_midnight_and_may_have_another_month_than_utc() {
        let zone = TimeZone::get("Europe/Oslo").unwrap();
        let day = |at: &str| Day::at(at.parse().unwrap(), &zone);
        assert_eq!(day("2026-10-31T22:59:59Z").day(), "2026-10-31");
        assert_eq!(day("2026-10-31T23:00:00Z").day(), "2026-11-01");
        assert_eq!(day("2026-10-31T23:00:00Z").month(), "2026-11");
        assert_eq!(day("2026-07-31T22:00:00Z").day(), "2026-08-01", "in summer time");
    }

    #[test]
    fn a_shortage_says_what_is_left_and_asks_for_this_call_and_one_more() {
        let short = Shortage { scope: "workflow/day".into(), limit: 100_000, used: 90_000, worst: 30_000 };
        assert_eq!((short.left(), short.wanted()), (10_000, 50_000));
        assert_eq!(
            short.told("USD"),
            "this workflow's budget for today has 0.01 USD left of 0.10 USD, and this call may cost up to 0.03 USD"
        );
        assert_eq!(Shortage { used: 500_000, ..short }.left(), 0, "a limit that was lowered leaves nothing");
    }
}
