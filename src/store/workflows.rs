//! Versions of workflows: immutable, numbered as they first appear.

use std::sync::Arc;

use serde_json::Value;
use tokio_postgres::Row;

use crate::domain::digest::Digest;
use crate::domain::ids::WorkflowName;
use crate::domain::workflow::{Stage, Version};
use crate::store::journal::read::digest;
use crate::store::{Store, StoreError};

/// More nodes than ever start at the same moment.
const NUMBERING_TRIES: usize = 16;

/// A version with how far it is trusted.
#[derive(Clone, PartialEq, Debug)]
pub struct VersionRow {
    /// What names it.
    pub digest: Digest,
    /// Its number among the versions of its workflow.
    pub number: i32,
    /// How far it is trusted.
    pub stage: Stage,
    /// The definition, shared by the runs that are pinned to it.
    pub version: Arc<Version>,
}

impl Store {
    /// Keeps a version if it is new; gives its row. A version's first stage is `supervised`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_version(&self, version: &Version) -> Result<VersionRow, StoreError> {
        let key = version.digest();
        let definition = serde_json::to_value(version).map_err(|e| StoreError::corrupt("a version", e))?;
        // Two nodes with different new files may draw the same number: the later one draws again.
        for _ in 0..NUMBERING_TRIES {
            match self.insert_version(version, key, &definition).await {
                Err(StoreError::Constraint { constraint }) if constraint == "workflow_versions_number" => {}
                inserted => {
                    inserted?;
                    break;
                }
            }
        }
        self.version(key).await?.ok_or_else(|| StoreError::corrupt("a version", "it was not kept"))
    }

    async fn insert_version(
        &self,
        version: &Version,
        key: Digest,
        definition: &Value,
    ) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = "
            insert into workflow_versions (digest, workflow, version, definition)
            select $1, $2, coalesce(max(version), 0) + 1, $3 from workflow_versions where workflow = $2
            on conflict on constraint workflow_versions_pk do nothing";
        client.execute(statement, &[&&key.0[..], &version.workflow.as_str(), definition]).await?;
        Ok(())
    }

    /// The version of that digest.
    ///
    /// # Errors
    /// When the database does not answer or the definition cannot be read.
    pub async fn version(&self, key: Digest) -> Result<Option<VersionRow>, StoreError> {
        let client = self.client().await?;
        let statement = "select digest, version, stage, definition from workflow_versions where digest = $1";
        client.query_opt(statement, &[&&key.0[..]]).await?.as_ref().map(version_row).transpose()
    }

    /// The version of that number.
    ///
    /// # Errors
    /// When the database does not answer or the definition cannot be read.
    pub async fn numbered_version(
        &self,
        workflow: &WorkflowName,
        number: i32,
    ) -> Result<Option<VersionRow>, StoreError> {
        let client = self.client().await?;
        let statement = "select digest, version, stage, definition from workflow_versions
                         where workflow = $1 and version = $2";
        let row = client.query_opt(statement, &[&workflow.as_str(), &number]).await?;
        row.as_ref().map(version_row).transpose()
    }
}

fn version_row(row: &Row) -> Result<VersionRow, StoreError> {
    let key = digest(row, 0)?;
    let stage: &str = row.get(2);
    Ok(VersionRow {
        digest: key,
        number: row.get(1),
        stage: Stage::parse(stage).ok_or_else(|| StoreError::corrupt("a stage", stage))?,
        version: serde_json::from_value(row.get(3))
            .map_err(|error| StoreError::corrupt(format!("version {key}"), error))?,
    })
}
