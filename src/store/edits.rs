//! What the owner changed in drafts: kept as feedback, by workflow version and action. It follows from the
//! reviews alone, so it can be brought up to date at any time, and twice. The tally outlives its run by years, not
//! for ever ([`super::leftovers`]).

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_postgres::Row;

use crate::domain::diff::{self, Tally};
use crate::domain::digest::Digest;
use crate::domain::event::Verdict;
use crate::domain::ids::{ReviewId, RunId, StepId, WorkflowName};
use crate::store::journal::read::digest;
use crate::store::reviews::{COLUMNS, review_row};
use crate::store::{Store, StoreError};

/// Edits that are brought in at once.
const BATCH: i64 = 100;

/// One edited draft.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct EditRow {
    /// The review in which it was edited.
    pub review: ReviewId,
    /// Its run.
    pub run: RunId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The version.
    pub version: Digest,
    /// The step.
    pub step: StepId,
    /// The action.
    pub action: String,
    /// What was proposed; nothing once its run is gone.
    pub draft: Option<Value>,
    /// What was done instead.
    pub edited: Option<Value>,
    /// What was changed, by the parameter's name, word by word.
    pub changes: Option<Value>,
    /// How much.
    #[serde(flatten)]
    pub tally: Tally,
    /// By whom.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// How much the drafts of one version for one action were changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EditSum {
    /// The workflow.
    pub workflow: WorkflowName,
    /// The version.
    pub version: Digest,
    /// The action.
    pub action: String,
    /// How many drafts.
    pub edits: i64,
    /// Words that were kept.
    pub kept: i64,
    /// Words that were taken away.
    pub gone: i64,
    /// Words that were added.
    pub added: i64,
}

impl Store {
    /// Brings in the edits that were decided and are not kept yet; gives how many. Repeating it is harmless.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_edits(&self) -> Result<u64, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(&format!(
                "select {COLUMNS} from reviews v
                 where status = 'edited' and not exists (select from edits e where e.review_id = v.id)
                 order by decided_at limit $1"
            ))
            .await?;
        let rows = client.query(&statement, &[&BATCH]).await?;
        let keep = client
            .prepare_cached(
                "insert into edits (review_id, run_id, workflow, version, step, action, draft, edited, changes,
                    kept, gone, added, by, at)
                 select $1, r.id, r.workflow, r.version, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
                 from runs r where r.id = $2
                 on conflict on constraint edits_pk do nothing",
            )
            .await?;
        let mut new = 0;
        for row in &rows {
            let review = match review_row(row) {
                Ok(review) => review,
                Err(error) => {
                    tracing::error!(%error, "what was changed in a draft cannot be kept");
                    continue;
                }
            };
            let (Some(Verdict::Edited { params }), Some(action)) = (&review.verdict, &review.question.action)
            else {
                continue;
            };
            let changes = diff::params(&action.params, params);
            let tally =
                changes.iter().map(|(_, changes)| Tally::of(changes)).fold(Tally::default(), Tally::and);
            let count = |words: usize| i32::try_from(words).unwrap_or(i32::MAX);
            let (kept, gone, added) = (count(tally.kept), count(tally.gone), count(tally.added));
            let changes = json!(changes.into_iter().collect::<std::collections::BTreeMap<_, _>>());
            let (by, at) = (review.decided_by.unwrap_or_default(), review.decided_at);
            new += client
                .execute(
                    &keep,
                    &[
                        &review.id.0,
                        &review.run.0,
                        &review.step.as_str(),
                        &action.action,
                        &action.params,
                        params,
                        &changes,
                        &kept,
                        &gone,
                        &added,
                        &by,
                        &at,
                    ],
                )
                .await?;
        }
        Ok(new)
    }

    /// Edits, the newest first, of one workflow or of all.
    ///
    /// # Errors
    /// When the database does not answer or a row cannot be read.
    pub async fn edits(&self, workflow: Option<&str>, limit: i64) -> Result<Vec<EditRow>, StoreError> {
        const COLUMNS: &str = "review_id, run_id, workflow, version, step, action, draft, edited, changes, kept, \
                               gone, added, by, at";
        let client = self.client().await?;
        let rows = match workflow {
            Some(workflow) => {
                let statement = format!(
                    "select {COLUMNS} from edits where workflow = $1 order by at desc, review_id limit $2"
                );
                client.query(&client.prepare_cached(&statement).await?, &[&workflow, &limit]).await?
            }
            None => {
                let statement = format!("select {COLUMNS} from edits order by at desc, review_id limit $1");
                client.query(&client.prepare_cached(&statement).await?, &[&limit]).await?
            }
        };
        rows.iter().map(edit_row).collect()
    }

    /// How much was changed, by version and action.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn edit_sums(&self, workflow: Option<&str>) -> Result<Vec<EditSum>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select workflow, version, action, count(*), sum(kept)::int8, sum(gone)::int8, sum(added)::int8
                 from edits where $1::text is null or workflow = $1
                 group by workflow, version, action order by workflow, action, version",
            )
            .await?;
        let sum = |row: &Row| {
            Ok(EditSum {
                workflow: WorkflowName(row.get(0)),
                version: digest(row, 1)?,
                action: row.get(2),
                edits: row.get(3),
                kept: row.get(4),
                gone: row.get(5),
                added: row.get(6),
            })
        };
        client.query(&statement, &[&workflow]).await?.iter().map(sum).collect()
    }
}

fn edit_row(row: &Row) -> Result<EditRow, StoreError> {
    let count = |place: usize| usize::try_from(row.get::<_, i32>(place)).unwrap_or(0);
    Ok(EditRow {
        review: ReviewId(row.get(0)),
        run: RunId(row.get(1)),
        workflow: WorkflowName(row.get(2)),
        version: digest(row, 3)?,
        step: StepId(row.get(4)),
        action: row.get(5),
        draft: row.get(6),
        edited: row.get(7),
        changes: row.get(8),
        tally: Tally { kept: count(9), gone: count(10), added: count(11) },
        by: row.get(12),
        at: row.get(13),
    })
}
