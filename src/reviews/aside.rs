//! What may be done about a review without deciding it: leave it alone for a while, say something to it.

use jiff::Timestamp;
use uuid::Uuid;

use crate::domain::ids::{CommentId, ReviewId};
use crate::models::schema;
use crate::orchestrator::engine::Engine;
use crate::reviews::decide::sound_words;
use crate::store::StoreError;
use crate::store::asides::CommentRow;

/// The longest comment, characters.
pub const MAX_COMMENT: usize = 10_000;

/// Why a review was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum AsideRefusal {
    /// There is no such review.
    #[error("there is no review {0}")]
    NotFound(ReviewId),
    /// It is decided, or no longer matters.
    #[error("this review is {status} already")]
    Over {
        /// How it ended.
        status: String,
    },
    /// The moment does not lie ahead, or not before the deadline.
    #[error("{0}")]
    BadMoment(String),
    /// The words say nothing, or too much.
    #[error("{0}")]
    BadWords(String),
    /// The database refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Leaves an open review alone until `until`: the owner is told of it again from then on, as if it had been
/// asked at that moment. Its deadline stays.
///
/// # Errors
/// See [`AsideRefusal`]; nothing has changed then.
pub async fn snooze(engine: &Engine, review: ReviewId, until: Timestamp) -> Result<(), AsideRefusal> {
    let store = &engine.store;
    let row = store.review(review).await?.ok_or(AsideRefusal::NotFound(review))?;
    if row.status != "open" {
        return Err(AsideRefusal::Over { status: row.status });
    }
    if until <= engine.now() {
        return Err(AsideRefusal::BadMoment(format!("{until} is not ahead")));
    }
    if let Some(due) = row.due_at.filter(|due| *due <= until) {
        return Err(AsideRefusal::BadMoment(format!("it expires at {due}: snooze it for a shorter time")));
    }
    match store.snooze(review, until).await? {
        true => Ok(()),
        // Somebody was faster.
        false => match store.review(review).await? {
            Some(row) => Err(AsideRefusal::Over { status: row.status }),
            None => Err(AsideRefusal::NotFound(review)),
        },
    }
}

/// Keeps a comment on a review, open or not. What a decision is bound to stays as it is.
///
/// # Errors
/// See [`AsideRefusal`].
pub async fn comment(
    engine: &Engine,
    review: ReviewId,
    by: &str,
    text: &str,
) -> Result<CommentRow, AsideRefusal> {
    comment_as(engine, CommentId(Uuid::now_v7()), review, by, text).await
}

/// The same where it may be told twice of one and the same comment: it is kept once under its id.
///
/// # Errors
/// See [`AsideRefusal`].
pub async fn comment_as(
    engine: &Engine,
    id: CommentId,
    review: ReviewId,
    by: &str,
    text: &str,
) -> Result<CommentRow, AsideRefusal> {
    sound_words(text, MAX_COMMENT).map_err(AsideRefusal::BadWords)?;
    schema::storable(&serde_json::json!(text)).map_err(AsideRefusal::BadWords)?;
    engine.store.comment(id, review, by, text).await?.ok_or(AsideRefusal::NotFound(review))
}
