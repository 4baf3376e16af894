//! `config/settings.yaml`: who the owner is and where Steward listens.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secret::SecretRef;

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

fn utc() -> String {
    "UTC".into()
}

fn dollars() -> String {
    "USD".into()
}

impl Settings {
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
