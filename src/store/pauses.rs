//! What the owner holds: everything, or whole workflows.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::domain::ids::WorkflowName;
use crate::store::{Store, StoreError};

/// What is held.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// Everything: the kill switch.
    All,
    /// The runs of one workflow.
    Workflow(WorkflowName),
}

impl Scope {
    /// As the table spells it.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Workflow(workflow) => format!("workflow:{workflow}"),
        }
    }
}

/// Everything that is held.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pauses {
    /// All of it.
    pub all: bool,
    /// These workflows.
    pub workflows: BTreeSet<WorkflowName>,
}

impl Pauses {
    /// Whether nothing may begin in runs of `workflow`.
    #[must_use]
    pub fn hold(&self, workflow: &WorkflowName) -> bool {
        self.all || self.workflows.contains(workflow)
    }
}

/// One pause, as it is listed.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct PauseRow {
    /// `all` or `workflow:NAME`.
    pub scope: String,
    /// Who holds it.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
}

impl Store {
    /// Holds a scope; holding it twice changes nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pause(&self, scope: &Scope, by: &str) -> Result<(), StoreError> {
        let statement =
            "insert into pauses (scope, by) values ($1, $2) on conflict on constraint pauses_pk do nothing";
        self.client().await?.execute(statement, &[&scope.key(), &by]).await?;
        Ok(())
    }

    /// Lets a scope go; false when it was not held.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn resume(&self, scope: &Scope) -> Result<bool, StoreError> {
        let statement = "delete from pauses where scope = $1";
        Ok(self.client().await?.execute(statement, &[&scope.key()]).await? == 1)
    }

    /// What is held, as it is listed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pause_rows(&self) -> Result<Vec<PauseRow>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached("select scope, by, at from pauses order by scope").await?;
        let rows = client.query(&statement, &[]).await?;
        Ok(rows.iter().map(|row| PauseRow { scope: row.get(0), by: row.get(1), at: row.get(2) }).collect())
    }

    /// What is held.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pauses(&self) -> Result<Pauses, StoreError> {
        let mut pauses = Pauses::default();
        for row in self.pause_rows().await? {
            match row.scope.strip_prefix("workflow:") {
                Some(workflow) => {
                    pauses.workflows.insert(WorkflowName::from(workflow));
                }
                None => pauses.all = true,
            }
        }
        Ok(pauses)
    }
}
