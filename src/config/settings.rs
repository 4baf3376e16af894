//! `config/settings.yaml`: who the owner is and where Steward listens.

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
    #[schemars(with = "String")]
    pub listen: SocketAddr,
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
