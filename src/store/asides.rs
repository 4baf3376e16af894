//! What is said about a review without deciding it: comments, and snoozes.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;

use crate::domain::ids::{CommentId, ReviewId};
use crate::store::{Store, StoreError};

/// A comment on a review. It never changes what a decision is bound to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CommentRow {
    /// Its id.
    pub id: CommentId,
    /// Who said it.
    pub by: String,
    /// What.
    pub text: String,
    /// When.
    pub at: Timestamp,
}

impl Store {
    /// Keeps a comment, once under its id; nothing when there is no such review.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn comment(
        &self,
        id: CommentId,
        review: ReviewId,
        by: &str,
        text: &str,
    ) -> Result<Option<CommentRow>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "insert into comments (id, review_id, by, text)
                 select $1, id, $3, $4 from reviews where id = $2
                 on conflict on constraint comments_pk do update set id = excluded.id
                 returning id, by, text, at",
            )
            .await?;
        let row = client.query_opt(&statement, &[&id.0, &review.0, &by, &text]).await?;
        Ok(row.as_ref().map(comment_row))
    }

    /// The comments on a review, the oldest first, at most `limit` of the newest.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn comments(&self, review: ReviewId, limit: i64) -> Result<Vec<CommentRow>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select * from (select id, by, text, at from comments where review_id = $1
                                order by at desc, id desc limit $2) as newest
                 order by at, id",
            )
            .await?;
        Ok(client.query(&statement, &[&review.0, &limit]).await?.iter().map(comment_row).collect())
    }

    /// Leaves an open review alone until then: its ladder begins anew at that moment. False when it is not
    /// open any more, or has expired by then.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn snooze(&self, review: ReviewId, until: Timestamp) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "update reviews set snoozed_until = $2, tell_at = $2, rung_before = rung
                 where id = $1 and status = 'open' and (due_at is null or due_at > $2)",
            )
            .await?;
        Ok(client.execute(&statement, &[&review.0, &until]).await? == 1)
    }
}

fn comment_row(row: &Row) -> CommentRow {
    CommentRow { id: CommentId(row.get(0)), by: row.get(1), text: row.get(2), at: row.get(3) }
}
