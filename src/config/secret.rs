//! Secrets: named in files as `env:NAME` or `file:/path`, read where they are needed, never shown.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::digest::Digest;

/// The largest file read as a secret, bytes: a key is some hundred, and a wrong path must not fill memory.
const MAX_FILE: u64 = 64 * 1024;

/// Where a secret is found. Files of the workspace hold this name, never the secret itself.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("format" = "secret", "examples" = ["env:NAME", "file:/run/secrets/NAME"]))]
pub enum SecretRef {
    /// `env:NAME`: an environment variable.
    Env(String),
    /// `file:/path`: the text of a file, without the blanks around it. The path is absolute: a secret
    /// has no place in the workspace's folder.
    File(PathBuf),
}

/// A text that does not name a secret.
#[derive(Debug, thiserror::Error)]
#[error(
    "write a secret as `env:NAME`, the name of an environment variable, or `file:/path`; never the secret itself"
)]
pub struct NotASecretRef;

impl TryFrom<String> for SecretRef {
    type Error = NotASecretRef;

    fn try_from(text: String) -> Result<Self, NotASecretRef> {
        if let Some(path) = text.strip_prefix("file:") {
            return match Path::new(path).is_absolute() {
                true => Ok(Self::File(path.into())),
                false => Err(NotASecretRef),
            };
        }
        let variable = text.strip_prefix("env:").ok_or(NotASecretRef)?;
        let valid = variable.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if variable.is_empty() || !valid {
            return Err(NotASecretRef);
        }
        Ok(Self::Env(variable.to_owned()))
    }
}

impl SecretRef {
    /// The secret, if it is there and not empty.
    #[must_use]
    pub fn resolve(&self) -> Option<Secret> {
        let text = match self {
            Self::Env(variable) => std::env::var(variable).ok()?,
            Self::File(path) => {
                let small = std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() <= MAX_FILE);
                let text = small.then(|| std::fs::read_to_string(path).ok()).flatten()?;
                text.trim().to_owned()
            }
        };
        Some(text).filter(|text| !text.is_empty()).map(Secret)
    }

    /// Where it is looked for, without the word before: the variable's name or the file's path.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Env(variable) => variable.clone(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// The clause that tells the owner that it is not there.
    #[must_use]
    pub fn missing(&self) -> String {
        match self {
            Self::Env(variable) => format!("{variable} is not set"),
            Self::File(path) => format!("the file {} is not there or is empty", path.display()),
        }
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

/// A fresh secret of 256 bits, as text. Only [`kept`] of it goes into the database.
#[must_use]
pub fn fresh() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// What is kept of a secret.
#[must_use]
pub fn kept(secret: &str) -> Digest {
    Digest::of_bytes(secret.as_bytes())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Result<SecretRef, NotASecretRef> {
        SecretRef::try_from(text.to_owned())
    }

    #[test]
    fn a_secret_is_named_by_variable_or_by_absolute_path_and_by_nothing_else() {
        assert_eq!(named("env:A_1").unwrap(), SecretRef::Env("A_1".into()));
        assert_eq!(named("file:/run/secrets/key").unwrap(), SecretRef::File("/run/secrets/key".into()));
        for text in ["sk-123", "env:", "env:lower", "file:", "file:key", "A_1"] {
            assert!(named(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_gives_its_text_without_the_line_end_and_an_empty_or_huge_one_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let secret = named(&format!("file:{}", path.display())).unwrap();
        assert_eq!(secret.resolve(), None);
        std::fs::write(&path, "sk-1\n").unwrap();
        assert_eq!(secret.resolve().unwrap().expose(), "sk-1");
        for text in [" \n".to_owned(), "x".repeat(70_000)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(secret.resolve(), None);
        }
        assert!(secret.missing().contains("is not there"));
    }
}
