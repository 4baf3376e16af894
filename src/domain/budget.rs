//! Budgets: what a model call is paid from, how much may still be spent there, and what follows when it
//! is not enough.
//!
//! A call pays from up to five accounts at once: its run (and every run that waits for that one), its
//! workflow's day and month, the workspace's day and month. Days and months are the owner's, by the
//! time zone of the settings. All of them are counted whether limited or not, so that a limit set at
//! noon counts the morning. Amounts are millionths of the workspace's currency.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::domain::ids::{RunId, StepId, WorkflowName};

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

    /// The accounts it pays from at `now` in the owner's time zone, with what each may hold in all; in
    /// the order in which a shortage is told: the narrowest first.
    #[must_use]
    pub fn accounts(&self, workspace: &Limits, now: Timestamp, zone: &TimeZone) -> Vec<(Account, Option<i64>)> {
        let date = now.to_zoned(zone.clone()).date();
        let (day, month) = (date.to_string(), date.strftime("%Y-%m").to_string());
        let mut accounts: Vec<_> =
            self.runs.iter().map(|paying| (Account::Run(paying.run), paying.limit)).collect();
        if let Some(workflow) = &self.workflow {
            accounts.push((Account::WorkflowDay(workflow.clone(), day.clone()), self.budget.per_day));
            accounts.push((Account::WorkflowMonth(workflow.clone(), month.clone()), self.budget.per_month));
        }
        accounts.push((Account::WorkspaceDay(day), workspace.per_day));
        accounts.push((Account::WorkspaceMonth(month), workspace.per_month));
        for (_, limit) in &mut accounts {
            *limit = limit.map(|limit| limit.saturating_add(self.extra));
        }
        accounts
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

/// Why a call cannot be paid: the first account that is short.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shortage {
    /// Which kind of account: `run`, `workflow/day`, `workflow/month`, `workspace/day`, `workspace/month`.
    pub scope: String,
    /// What it may hold, micro-units.
    pub limit: i64,
    /// What is left of it, micro-units; never below zero.
    pub left: i64,
    /// What the call may cost at most, micro-units.
    pub worst: i64,
}
