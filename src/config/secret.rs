//! Secrets: named in files as `env:NAME`, read from the environment, never shown.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

/// Where a secret is found: `env:NAME`. Files hold the name, never the secret itself.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("format" = "secret", "examples" = ["env:NAME"]))]
pub struct SecretRef {
    /// The environment variable.
    pub variable: String,
}

/// A text that does not name a secret.
#[derive(Debug, thiserror::Error)]
#[error("write a secret as `env:NAME`, the name of an environment variable; never the secret itself")]
pub struct NotASecretRef;

impl TryFrom<String> for SecretRef {
    type Error = NotASecretRef;

    fn try_from(text: String) -> Result<Self, NotASecretRef> {
        let variable = text.strip_prefix("env:").ok_or(NotASecretRef)?;
        let valid = variable.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if variable.is_empty() || !valid {
            return Err(NotASecretRef);
        }
        Ok(Self { variable: variable.to_owned() })
    }
}

impl SecretRef {
    /// The secret, if the environment has it and it is not empty.
    #[must_use]
    pub fn resolve(&self) -> Option<Secret> {
        std::env::var(&self.variable).ok().filter(|value| !value.is_empty()).map(Secret)
    }
}

/// A secret value. It has no way into a log: its debug form is three stars.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret from elsewhere.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
