//! Who looks at a review: what he may see, what his forms prove themselves by, and what deciding means for him.

use crate::api::session::{Session, form_token};
use crate::domain::digest::Digest;
use crate::domain::event::Verdict;
use crate::orchestrator::door::Door;
use crate::reviews;
use crate::reviews::email::link::{self, LinkRefusal};
use crate::store::reviews::ReviewRow;

/// The owner, signed in: for the journal.
pub const OWNER: &str = "owner via web";

/// Who looks at a review and may decide it, and what else he may see.
#[derive(Clone)]
pub struct Viewer {
    /// For the journal: `owner via web`.
    pub by: String,
    /// The token that his forms prove themselves by.
    pub csrf: String,
    /// Where the page is, and where its forms go.
    pub here: String,
    /// Whether he may see the rest: the run, the other reviews.
    pub sees_all: bool,
    /// How he decides.
    pub way: Way,
}

/// How somebody decides.
#[derive(Clone)]
pub enum Way {
    /// As the owner, who is signed in.
    Session,
    /// Through a link to this one review, which decides once.
    Link {
        /// The secret of the link.
        secret: String,
        /// Whether he is known as the owner besides.
        signed_in: bool,
    },
}

impl Viewer {
    /// The owner, signed in.
    #[must_use]
    pub fn owner(session: &Session, review: impl std::fmt::Display) -> Self {
        Self {
            by: OWNER.into(),
            csrf: session.form_token(),
            here: format!("/reviews/{review}"),
            sees_all: true,
            way: Way::Session,
        }
    }

    /// Whoever holds the link with this secret, in a `session` besides or not.
    #[must_use]
    pub fn linked(secret: &str, session: Option<&Session>) -> Self {
        Self {
            by: link::BY.into(),
            csrf: session.map_or_else(|| form_token(secret), Session::form_token),
            here: format!("/r/{secret}"),
            sees_all: false,
            way: Way::Link { secret: secret.to_owned(), signed_in: session.is_some() },
        }
    }

    /// Whether he has to sign in before he may do anything about this review.
    #[must_use]
    pub fn must_sign_in(&self, review: &ReviewRow) -> bool {
        match self.way {
            Way::Session | Way::Link { signed_in: true, .. } => false,
            Way::Link { signed_in: false, .. } => review.status == "open" && link::asks_for_more(review),
        }
    }

    /// Decides, about what he has `seen`.
    ///
    /// # Errors
    /// See [`LinkRefusal`]; nothing is decided then.
    pub async fn decide(
        &self,
        door: &Door,
        review: &ReviewRow,
        seen: Digest,
        verdict: Verdict,
    ) -> Result<(), LinkRefusal> {
        match &self.way {
            Way::Session => {
                reviews::decide(door, review.id, Some(seen), verdict, &self.by).await?;
                Ok(())
            }
            Way::Link { secret, signed_in } => link::act(door, secret, Some(seen), *signed_in, verdict).await,
        }
    }
}
