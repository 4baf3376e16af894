//! `config/connectors.yaml`: how effects leave the house.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secret::SecretRef;
use crate::domain::duration::Span;

/// The whole file.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connectors {
    /// Mail that goes out.
    #[serde(default)]
    pub email: Email,
    /// Web services that may be called.
    #[serde(default)]
    pub http: Http,
}

/// Mail that goes out.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// The sender of every mail, as `Name <address>` or an address.
    pub from: String,
    /// The server that takes mail. Without one, mail is written to `.steward/outbox/` as `.eml` files.
    #[serde(default)]
    pub smtp: Option<Smtp>,
}

impl Default for Email {
    fn default() -> Self {
        Self { from: "steward@localhost".into(), smtp: None }
    }
}

/// A mail server.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// Its host name.
    pub host: String,
    /// Its port; by default 465 for `tls`, 587 for `starttls`, 25 for `none`.
    #[serde(default)]
    pub port: Option<u16>,
    /// How the connection is secured.
    #[serde(default)]
    pub security: Security,
    /// The user to sign in as; nobody when absent.
    #[serde(default)]
    pub username: Option<String>,
    /// The password, as `env:NAME`.
    #[serde(default)]
    pub password: Option<SecretRef>,
    /// How long one mail may take.
    #[serde(default = "half_a_minute")]
    #[schemars(with = "String", extend("format" = "span"))]
    pub timeout: Span,
}

/// How a mail connection is secured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS from the first byte.
    #[default]
    Tls,
    /// TLS after a greeting; refused if the server does not offer it.
    Starttls,
    /// None: for a server on this machine.
    None,
}

/// Web services that may be called.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Host names, each optionally with `:port`, that `http.request` may reach. None by default.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Private networks that may be reached, such as `192.168.1.0/24`. None by default.
    #[serde(default)]
    #[schemars(with = "Vec<String>", extend("items" = {"type": "string", "format": "network"}))]
    pub allow_networks: Vec<IpNet>,
    /// How long one request may take.
    #[serde(default = "half_a_minute")]
    #[schemars(with = "String", extend("format" = "span"))]
    pub timeout: Span,
}

impl Default for Http {
    fn default() -> Self {
        Self { allow: Vec::new(), allow_networks: Vec::new(), timeout: half_a_minute() }
    }
}

fn half_a_minute() -> Span {
    Span::secs(30)
}
