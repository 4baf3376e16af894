//! Links to one review. Looking changes nothing, however often and by whomever it is done: mail scanners
//! follow every link. Deciding uses the link up; it is void when the question has changed, is over, or the
//! link has expired.

use jiff::Timestamp;

use super::{Desk, keys};
use crate::config::secret;
use crate::domain::digest::Digest;
use crate::domain::event::Verdict;
use crate::domain::risk::RiskClass;
use crate::orchestrator::door::Door;
use crate::reviews::{DecideRefusal, decide};
use crate::store::mail::LinkRow;
use crate::store::reviews::ReviewRow;
use crate::store::{Store, StoreError};

/// For the journal.
pub const BY: &str = "owner via email link";

/// What is behind a link.
#[derive(Clone, PartialEq, Debug)]
pub enum Behind {
    /// Nothing: it was never made, or is long gone.
    Nothing,
    /// It is too old.
    Expired,
    /// Its question has changed since.
    Changed,
    /// Its question, which waits.
    Open(Box<ReviewRow>),
    /// Its question, and how it ended.
    Over(Box<ReviewRow>),
}

/// Why a link did not decide.
#[derive(Debug, thiserror::Error)]
pub enum LinkRefusal {
    /// It opens nothing that could be decided; see there.
    #[error("the link decides nothing")]
    Behind(Behind),
    /// The page that was looked at is not what is asked now.
    #[error("what you looked at is not what is asked now")]
    Changed,
    /// A high risk asks for more than a link.
    #[error("the risk is high: sign in to decide")]
    SignIn,
    /// The verdict was refused.
    #[error(transparent)]
    Decide(#[from] DecideRefusal),
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a link to a review as it is now, and gives its secret and until when it is good.
pub(super) async fn make(desk: &Desk, review: &ReviewRow) -> Result<(String, Timestamp), StoreError> {
    let secret = secret::fresh();
    let hash = secret::kept(&secret);
    let about = (review.id, review.digest);
    let until = desk.store.keep_link(hash, about, &desk.approver(), desk.link).await?;
    Ok((secret, until))
}

/// What is behind the link with this secret. Nothing changes by looking.
///
/// # Errors
/// When the database does not answer.
pub async fn look(store: &Store, secret: &str) -> Result<Behind, StoreError> {
    let Some(hash) = keys::kept(secret) else { return Ok(Behind::Nothing) };
    let Some(link) = store.link(hash).await? else { return Ok(Behind::Nothing) };
    behind(store, &link).await
}

async fn behind(store: &Store, link: &LinkRow) -> Result<Behind, StoreError> {
    if link.expired {
        return Ok(Behind::Expired);
    }
    let Some(review) = store.review(link.review).await? else { return Ok(Behind::Nothing) };
    Ok(match (review.digest == link.digest, review.status == "open") {
        (false, _) => Behind::Changed,
        (true, true) => Behind::Open(Box::new(review)),
        (true, false) => Behind::Over(Box::new(review)),
    })
}

/// Whether a link alone decides nothing about this review: whoever holds it has to be known besides.
#[must_use]
pub fn asks_for_more(review: &ReviewRow) -> bool {
    review.question.class() == RiskClass::High
}

/// Decides through the link with this secret, about what its holder has `seen`; `signed_in` is whether he is
/// known as the owner besides.
///
/// # Errors
/// See [`LinkRefusal`]; nothing is decided then, and the link is as good as before.
pub async fn act(
    door: &Door,
    secret: &str,
    seen: Option<Digest>,
    signed_in: bool,
    verdict: Verdict,
) -> Result<(), LinkRefusal> {
    let store = &door.engine().store;
    let nothing = || LinkRefusal::Behind(Behind::Nothing);
    let hash = keys::kept(secret).ok_or_else(nothing)?;
    let link = store.link(hash).await?.ok_or_else(nothing)?;
    let review = match behind(store, &link).await? {
        Behind::Open(review) => review,
        other => return Err(LinkRefusal::Behind(other)),
    };
    if seen != Some(link.digest) {
        return Err(LinkRefusal::Changed);
    }
    if asks_for_more(&review) && !signed_in {
        return Err(LinkRefusal::SignIn);
    }
    if !store.use_link(hash).await? {
        // Somebody used it a moment ago, or it has just expired.
        return match store.link(hash).await? {
            Some(link) => Err(LinkRefusal::Behind(behind(store, &link).await?)),
            None => Err(nothing()),
        };
    }
    match decide(door, link.review, Some(link.digest), verdict, BY).await {
        Ok(_) => Ok(()),
        Err(refusal) => {
            store.give_link_back(hash).await?;
            Err(refusal.into())
        }
    }
}
