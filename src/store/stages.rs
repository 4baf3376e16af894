//! How far versions are trusted, and who said so. A change and its line in the log are one statement.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;

use crate::domain::digest::Digest;
use crate::domain::ids::{EffectId, WorkflowName};
use crate::domain::workflow::Stage;
use crate::store::journal::read::digest;
use crate::store::{Store, StoreError};

/// A change of a version's stage.
#[derive(Clone, Copy, Debug)]
pub struct Restage<'a> {
    /// Which version.
    pub version: Digest,
    /// Only if it is at this stage; whatever it is, when absent.
    pub was: Option<Stage>,
    /// The stage it comes to.
    pub stage: Stage,
    /// Who says so. Of an effect that somebody approved, it is he.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The effect that does it: it does it once.
    pub effect: Option<EffectId>,
}

/// What became of a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restaged {
    /// The workflow.
    pub workflow: WorkflowName,
    /// The version's number.
    pub number: i32,
    /// The stage it had before.
    pub was: Stage,
    /// Whether this changed it. Otherwise it was there already, at another stage than expected, or this
    /// effect has done it before.
    pub changed: bool,
    /// Whether this effect has done it before.
    pub again: bool,
}

/// A version with its stage, without its definition.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StageRow {
    /// The workflow.
    pub workflow: WorkflowName,
    /// The version's number.
    pub number: i32,
    /// What names it.
    pub digest: Digest,
    /// How far it is trusted.
    pub stage: Stage,
    /// Since when.
    pub staged_at: Timestamp,
    /// When it was first seen.
    pub created_at: Timestamp,
}

/// A line of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StageChange {
    /// The version's number.
    pub number: i32,
    /// The stage before.
    pub was: String,
    /// The stage after.
    pub stage: String,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The effect that did it, unless somebody did it by hand.
    pub effect: Option<EffectId>,
}

/// The row is locked first: of two that change it, the later one sees what the earlier one made of it.
const RESTAGE: &str = "
    with locked as (
        select digest, workflow, version, stage,
            exists (select from stages where effect_id = $6) as again
        from workflow_versions where digest = $1 for update),
    changed as (
        update workflow_versions v set stage = $2, staged_at = clock_timestamp() from locked l
        where v.digest = l.digest and v.stage <> $2 and ($3::text is null or v.stage = $3) and not l.again
        returning v.digest),
    told as (
        insert into stages (version, workflow, number, was, stage, by, reason, effect_id)
        select l.digest, l.workflow, l.version, l.stage, $2,
            coalesce((select r.decided_by from effects e
                      join reviews r on r.run_id = e.run_id and r.step = e.step and r.decided_by is not null
                      where e.id = $6 order by r.decided_at desc limit 1), $4), $5, $6
        from locked l join changed c using (digest))
    select workflow, version, stage, exists (select from changed), again from locked";

impl Store {
    /// Changes how far a version is trusted; nothing when there is no such version.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn restage(&self, change: &Restage<'_>) -> Result<Option<Restaged>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(RESTAGE).await?;
        let (was, effect) = (change.was.map(Stage::as_str), change.effect.map(|effect| effect.0));
        let key = &change.version.0[..];
        let row = client
            .query_opt(&statement, &[&key, &change.stage.as_str(), &was, &change.by, &change.reason, &effect])
            .await?;
        let restaged = |row: &Row| {
            Ok(Restaged {
                workflow: WorkflowName(row.get(0)),
                number: row.get(1),
                was: stage(row.get(2))?,
                changed: row.get(3),
                again: row.get(4),
            })
        };
        row.as_ref().map(restaged).transpose()
    }

    /// The stages of these versions.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stages_of(&self, versions: &[Digest]) -> Result<Vec<StageRow>, StoreError> {
        let keys: Vec<&[u8]> = versions.iter().map(|digest| &digest.0[..]).collect();
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select workflow, version, digest, stage, staged_at, created_at from workflow_versions
                 where digest = any ($1)",
            )
            .await?;
        client.query(&statement, &[&keys]).await?.iter().map(stage_row).collect()
    }

    /// The versions of a workflow, the newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn versions_of(&self, workflow: &WorkflowName) -> Result<Vec<StageRow>, StoreError> {
        let client = self.client().await?;
        let statement =
            "select workflow, version, digest, stage, staged_at, created_at from workflow_versions
                         where workflow = $1 order by version desc";
        client.query(statement, &[&workflow.as_str()]).await?.iter().map(stage_row).collect()
    }

    /// The latest changes of stage of a workflow's versions, the newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stage_changes(
        &self,
        workflow: &WorkflowName,
        limit: i64,
    ) -> Result<Vec<StageChange>, StoreError> {
        let client = self.client().await?;
        let statement = "select number, was, stage, at, by, reason, effect_id from stages
                         where workflow = $1 order by id desc limit $2";
        let change = |row: &Row| StageChange {
            number: row.get(0),
            was: row.get(1),
            stage: row.get(2),
            at: row.get(3),
            by: row.get(4),
            reason: row.get(5),
            effect: row.get::<_, Option<uuid::Uuid>>(6).map(EffectId),
        };
        Ok(client.query(statement, &[&workflow.as_str(), &limit]).await?.iter().map(change).collect())
    }
}

fn stage(text: &str) -> Result<Stage, StoreError> {
    Stage::parse(text).ok_or_else(|| StoreError::corrupt("a stage", text))
}

fn stage_row(row: &Row) -> Result<StageRow, StoreError> {
    Ok(StageRow {
        workflow: WorkflowName(row.get(0)),
        number: row.get(1),
        digest: digest(row, 2)?,
        stage: stage(row.get(3))?,
        staged_at: row.get(4),
        created_at: row.get(5),
    })
}
