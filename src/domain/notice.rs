//! Notices: what the owner should know although nobody asks him anything.

use serde::{Deserialize, Serialize};

/// How much it matters.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Soon something will not work.
    Warning,
    /// Something does not work now.
    Critical,
}

impl Severity {
    /// The name used in tables, files and screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What a notice is about. With its subject it is what makes two of them the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// Nobody calls a provider of models for a while; its subject is the provider.
    BreakerOpened,
    /// Half, four fifths or all of a budget is spent; its subject is the account, its period and the share.
    BudgetThreshold,
    /// A schedule's time went by; its subject is the schedule.
    ScheduleMissed,
    /// A connector's key is refused or missing; its subject is the connector.
    ConnectorKey,
    /// Steward cannot go on with a run; its subject is the run.
    RunParked,
    /// Messages to the owner do not get through; its subject is the channel.
    ChannelFailed,
    /// Something about how reviews are decided; its subject says which.
    Autonomy,
}

impl NoticeKind {
    /// The name used in tables, files and screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BreakerOpened => "breaker_opened",
            Self::BudgetThreshold => "budget_threshold",
            Self::ScheduleMissed => "schedule_missed",
            Self::ConnectorKey => "connector_key",
            Self::RunParked => "run_parked",
            Self::ChannelFailed => "channel_failed",
            Self::Autonomy => "autonomy",
        }
    }
}
