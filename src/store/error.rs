//! What can go wrong with the database, and whether it passes by itself.

use tokio_postgres::error::SqlState;

/// A failed statement.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or went away in the middle.
    #[error("the database does not answer: {0}")]
    Unavailable(String),
    /// A named constraint refused the change; callers turn the names they know into errors of their own.
    #[error("the database refused the change: {constraint}")]
    Constraint {
        /// The constraint's name.
        constraint: String,
    },
    /// What is stored cannot be read.
    #[error("{what} in the database cannot be read: {why}")]
    Corrupt {
        /// Which row.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A fault in Steward's own SQL.
    #[error("the database rejected a statement: {0}")]
    Statement(String),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Constraint { .. } | Self::Corrupt { .. } | Self::Statement(_) => false,
        }
    }

    /// The violated constraint, if this is one.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Constraint { constraint } => Some(constraint),
            _ => None,
        }
    }

    /// A row that cannot be read.
    pub fn corrupt(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Corrupt { what: what.into(), why: why.to_string() }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else { return Self::Unavailable(full(&error)) };
        let passing = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::DISK_FULL,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::LOCK_NOT_AVAILABLE,
        ];
        match db.constraint() {
            _ if passing.contains(db.code()) => Self::Unavailable(db.message().to_owned()),
            // Class 23: integrity. Other errors may name a constraint too, such as a key too long for its index.
            Some(constraint) if db.code().code().starts_with("23") => {
                Self::Constraint { constraint: constraint.to_owned() }
            }
            _ => Self::Statement(format!("{} ({})", db.message(), db.code().code())),
        }
    }
}

fn full(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
