//! `config/settings.yaml`: who the owner is and where Steward listens.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::autonomy::Autonomy;
use crate::config::secret::SecretRef;
use crate::domain::admission::AGEING;
use crate::domain::budget;
use crate::domain::duration::Span;
use crate::domain::money::Money;
use crate::domain::retention::Keep;

/// The whole file.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What templates know as `workspace`.
    pub workspace: Workspace,
    /// Where the service listens.
    #[serde(default = "loopback")]
    #[schemars(with = "String", extend("format" = "socket"))]
    pub listen: SocketAddr,
    /// The mailboxes that workflows listen to, by name, each with the addresses it is reached under.
    #[serde(default)]
    pub mailboxes: BTreeMap<String, Vec<String>>,
    /// The mailbox of mail that is addressed to none of them, such as a blind copy. Without one,
    /// such mail is refused.
    #[serde(default)]
    pub default_mailbox: Option<String>,
    /// Where the database is; embedded when absent. `STEWARD_DATABASE_URL` comes before it.
    #[serde(default)]
    pub database: Option<Database>,
    /// How long finished runs are kept, such as `400d`, at least `7d`; `forever` when absent. A workflow
    /// may say otherwise.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "retention"))]
    pub retention: Option<Keep>,
    /// How long it is kept what was said to models, word for word, such as `90d`, or `forever`; `90d` when
    /// absent. It goes earlier with its run.
    #[serde(default = "ninety_days")]
    #[schemars(with = "String", extend("format" = "retention"))]
    pub calls: Keep,
    /// How long a notice is kept once it was acknowledged or is over, such as `90d`, or `forever`; `90d` when
    /// absent. One that stands is kept.
    #[serde(default = "ninety_days")]
    #[schemars(with = "String", extend("format" = "retention"))]
    pub notices: Keep,
    /// How much is taken in at once.
    #[serde(default)]
    pub limits: Limits,
    /// What all model calls together may cost; without it there is no limit.
    #[serde(default)]
    pub budget: Spending,
    /// When a workflow has earned to act without being asked first, and when no longer; a workflow may say
    /// otherwise. Without it nothing is proposed.
    #[serde(default)]
    pub autonomy: Autonomy,
}

/// What all model calls together may cost, in the owner's days and months.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spending {
    /// In one day, such as `3 USD`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "money"))]
    pub per_day: Option<Money>,
    /// In one month.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "money"))]
    pub per_month: Option<Money>,
}

/// Bounds that the service keeps. What is beyond waits in the queue; what is beyond the queue is told to
/// come back, and nothing that was acknowledged is ever dropped.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The most runs in motion on one node, 1 to 100000; 4096 when absent. Runs that wait for a person
    /// or a moment are only rows, and do not count.
    #[schemars(range(min = 1, max = 100_000))]
    pub in_motion: usize,
    /// The most runs that may wait for their turn, 1 to 1000000; 10000 when absent. One workflow may take
    /// three quarters of it, one concurrency key half of that.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queued: usize,
    /// How long a run has to wait to overtake newer ones of the next higher priority; `5m` when absent.
    #[schemars(with = "String", extend("format" = "span"))]
    pub ageing: Span,
    /// How long a stop may take: what is under way is waited for until then. Less than what whoever stops
    /// services waits before it kills (Docker: 10 s, unless told otherwise); `8s` when absent.
    #[schemars(with = "String", extend("format" = "span"))]
    pub grace: Span,
}

impl Default for Limits {
    /// A run in motion holds its input and outputs in memory, a few kilobytes to a few hundred: 4096 of
    /// them fit a small machine. 10000 queued are an hour's work at three a second: who comes later is
    /// better served by hearing so at once.
    fn default() -> Self {
        Self { in_motion: 4096, queued: 10_000, ageing: AGEING, grace: grace() }
    }
}

/// The owner's business, as templates know it: `workspace.name` and so on.
#[derive(Clone, PartialEq, Debug, Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// The business's name.
    pub name: String,
    /// The owner's name.
    pub owner: String,
    /// The owner's address.
    pub email: String,
    /// What the business does, in a sentence or two.
    #[serde(default)]
    pub about: String,
    /// The owner's time zone, such as `Europe/Oslo`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// The currency in which money is counted: three capital letters.
    #[serde(default = "dollars")]
    pub currency: String,
}

/// Where the database is.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The URL, as `env:NAME`: it holds a password.
    pub url: SecretRef,
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7007))
}

fn grace() -> Span {
    Span::secs(8)
}

fn ninety_days() -> Keep {
    Keep::For(Span::secs(90 * 86_400))
}

fn utc() -> String {
    "UTC".into()
}

fn dollars() -> String {
    "USD".into()
}

impl Settings {
    /// What the whole workspace may cost.
    #[must_use]
    pub fn spending(&self) -> budget::Limits {
        let micros = |money: &Option<Money>| money.as_ref().map(|money| money.micros);
        budget::Limits { per_day: micros(&self.budget.per_day), per_month: micros(&self.budget.per_month) }
    }

    /// The owner's time zone.
    #[must_use]
    pub fn zone(&self) -> TimeZone {
        TimeZone::get(&self.workspace.time_zone).unwrap_or(TimeZone::UTC) // checked when it was loaded
    }

    /// The mailbox that a mail to these addresses belongs to: the first address that is known
    /// decides, then the default.
    #[must_use]
    pub fn mailbox_of<'a>(&self, recipients: impl IntoIterator<Item = &'a str>) -> Option<&str> {
        let mailbox = |recipient: &str| {
            let mut all = self.mailboxes.iter();
            all.find(|(_, addresses)| addresses.iter().any(|known| known.eq_ignore_ascii_case(recipient)))
        };
        let known = recipients.into_iter().find_map(mailbox).map(|(name, _)| name.as_str());
        known.or(self.default_mailbox.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_goes_to_the_mailbox_of_its_first_known_recipient_and_else_to_the_default() {
        let settings: Settings = serde_json::from_value(serde_json::json!({
            "workspace": {"name": "n", "owner": "o", "email": "o@x.example"},
            "mailboxes": {"leads": ["hello@x.example"], "support": ["help@x.example"]},
            "default_mailbox": "leads",
        }))
        .unwrap();
        assert_eq!(settings.mailbox_of(["a@b.example", "Help@X.example"]), Some("support"));
        assert_eq!(settings.mailbox_of(["a@b.example"]), Some("leads"));
        assert_eq!(Settings { default_mailbox: None, ..settings }.mailbox_of([]), None);
    }
}
