//! A mail that came to an address for replies: whether it is the owner's, about a question as it is now, and
//! what it does. It may comment, snooze and reject, never approve: a mail in the owner's name is worth less
//! than the owner. It never opens a run.
//!
//! What counts as the owner's: a signature over the mail that proves the domain of its `From` (see
//! [`Proof`]), which is the owner's own address, and that covers the header in which the address for replies
//! stands: so an old mail of the owner's cannot be sent on to another question.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

use super::command::{self, Command};
use super::keys::Claim;
use super::{Desk, Sent, write};
use crate::domain::digest::Digest;
use crate::domain::event::Verdict;
use crate::domain::ids::{CommentId, ReviewId};
use crate::domain::proof::Proof;
use crate::orchestrator::door::Door;
use crate::reviews::aside::{self, AsideRefusal};
use crate::reviews::{DecideRefusal, decide};
use crate::store::StoreError;
use crate::store::mail::{Begun, ReplyRow};
use crate::store::reviews::ReviewRow;

/// How long one delivery of a reply may deal with it before another one begins anew: a mail server that is told
/// why may think for a while.
const CLAIM: Duration = Duration::from_secs(60);

/// How long, and how often, a delivery looks whether the one that deals with the same reply has come to its end.
/// Few mails are read at once: it is better delivered again than that it keeps others out.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// For the journal.
pub const BY: &str = "owner via email";

/// A mail as the mail door knows it.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Whom the server that received it says it is for, and the addresses in its headers.
    pub recipients: Vec<String>,
    /// The addresses in `To`.
    pub to: Vec<String>,
    /// The addresses in `Cc`.
    pub cc: Vec<String>,
    /// The sender's claim.
    pub from: String,
    /// Its Message-ID.
    pub message_id: String,
    /// Its text.
    pub body: String,
    /// Whether a machine wrote it.
    pub auto: bool,
    /// SHA-256 of the whole mail.
    pub digest: Digest,
    /// What proves the sender.
    pub proof: Option<Proof>,
}

/// What came of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was kept as a comment.
    Commented,
    /// The question rests until then.
    Snoozed(Timestamp),
    /// The question was rejected.
    Rejected,
    /// It was the owner's and could not be done; he was told why.
    Explained(&'static str),
    /// It was not the owner's, or nothing one could do.
    Ignored(&'static str),
    /// It came before.
    Again,
}

impl Outcome {
    /// For people and tables.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Commented => "commented".into(),
            Self::Snoozed(until) => format!("snoozed until {until}"),
            Self::Rejected => "rejected".into(),
            Self::Explained(why) => format!("explained: {why}"),
            Self::Ignored(why) => format!("ignored: {why}"),
            Self::Again => "came before".into(),
        }
    }
}

/// Deals with replies.
pub struct Replies {
    desk: Arc<Desk>,
    door: Door,
}

impl Replies {
    /// For the owner of `desk`.
    #[must_use]
    pub fn new(desk: Arc<Desk>, door: Door) -> Self {
        Self { desk, door }
    }

    /// Whether one of these addresses is an address for replies.
    #[must_use]
    pub fn are_for_us(&self, recipients: &[String]) -> bool {
        recipients.iter().any(|address| self.key_in(address).is_some())
    }

    fn key_in<'a>(&self, address: &'a str) -> Option<&'a str> {
        self.desk.reply_to.as_ref()?.key_in(address)
    }

    /// Deals with one, once, however often and by how many at once it is delivered: the others wait until it is
    /// done, so that none of them is told that it got through before it did.
    ///
    /// # Errors
    /// When the database does not answer, or another delivery of it takes long; it may be delivered again then.
    pub async fn hear(&self, reply: &Reply) -> Result<Outcome, StoreError> {
        let address = reply.recipients.iter().find_map(|address| Claim::parse(self.key_in(address)?));
        let fingerprint = fingerprint(reply);
        let row = ReplyRow {
            fingerprint,
            review: address.map(|address| address.review),
            message_id: &reply.message_id,
            sender: &reply.from,
        };
        let (store, claim, came) = (&self.desk.store, Uuid::new_v4(), Instant::now());
        loop {
            match store.begin_reply(&row, claim, CLAIM).await? {
                Begun::Ours => break,
                Begun::Over => return Ok(Outcome::Again),
                Begun::Theirs if came.elapsed() < PATIENCE => tokio::time::sleep(LOOK).await,
                Begun::Theirs => {
                    let why = "another delivery of this reply is not over: deliver it again later";
                    return Err(StoreError::Unavailable(why.into()));
                }
            }
        }
        match self.deal_with(reply, address).await {
            Ok(outcome) => {
                let did = outcome.words();
                tracing::info!(message = reply.message_id, review = ?row.review, outcome = did, "a reply was dealt with");
                store.end_reply(fingerprint, claim, Some(&did)).await?;
                Ok(outcome)
            }
            Err(error) => {
                let _ = store.end_reply(fingerprint, claim, None).await; // or once the claim is over
                Err(error)
            }
        }
    }

    async fn deal_with(&self, reply: &Reply, claim: Option<Claim>) -> Result<Outcome, StoreError> {
        match self.admit(reply, claim).await? {
            Ok(review) => self.obey(reply, &review).await,
            Err(why) => Ok(Outcome::Ignored(why)),
        }
    }

    /// The review that the reply is about, if it is the owner's and the review is what it was.
    async fn admit(
        &self,
        reply: &Reply,
        claim: Option<Claim>,
    ) -> Result<Result<ReviewRow, &'static str>, StoreError> {
        if reply.auto {
            return Ok(Err("a machine wrote it"));
        }
        let from = reply.from.to_lowercase();
        if from == self.desk.post.address().to_string().to_lowercase() && from != self.desk.approver() {
            return Ok(Err("it is Steward's own"));
        }
        let Some(proof) = &reply.proof else { return Ok(Err("nothing proves who sent it")) };
        let owner = self.desk.approver();
        let domain = owner.rsplit_once('@').map(|(_, domain)| domain);
        if from != owner || Some(proof.domain.as_str()) != domain {
            return Ok(Err("it is not from the owner"));
        }
        if !self.is_signed_for(reply, proof, claim) {
            return Ok(Err("the owner did not address it to this question"));
        }
        let Some(claim) = claim else { return Ok(Err("its address names no question")) };
        let Some(review) = self.desk.store.review(claim.review).await? else {
            return Ok(Err("its question is gone"));
        };
        match claim.holds(&self.desk.key, review.digest, &owner) {
            true => Ok(Ok(review)),
            false => Ok(Err("its address was not written by Steward, or the question has changed")),
        }
    }

    /// Whether the signature covers a header in which just this address for replies stands.
    fn is_signed_for(&self, reply: &Reply, proof: &Proof, claim: Option<Claim>) -> bool {
        let named = |all: &[String]| {
            all.iter().any(|address| claim.is_some() && self.key_in(address).and_then(Claim::parse) == claim)
        };
        proof.covers("to") && named(&reply.to) || proof.covers("cc") && named(&reply.cc)
    }

    async fn obey(&self, reply: &Reply, review: &ReviewRow) -> Result<Outcome, StoreError> {
        let command = command::read(&reply.body, self.door.engine().now(), &self.desk.zone);
        if review.status != "open" {
            return self.explain(reply, "This was decided before your reply came.").await;
        }
        match command {
            Command::Nothing => Ok(Outcome::Ignored("it says nothing")),
            Command::Comment(text) => self.comment(reply, review.id, &text).await,
            Command::Yes(text) => {
                self.comment(reply, review.id, &text).await?;
                let why = "Nothing was approved: a reply never approves. It was kept as a comment; \
                           open the page to decide.";
                self.explain(reply, why).await
            }
            Command::When(_) => {
                let why = "Nothing was snoozed: write \u{201c}snooze 2h\u{201d}, \u{201c}snooze 3d\u{201d} or \
                           \u{201c}snooze tomorrow\u{201d}, at most 30 days.";
                self.explain(reply, why).await
            }
            Command::Snooze(until) => match aside::snooze(self.door.engine(), review.id, until).await {
                Ok(()) => Ok(Outcome::Snoozed(until)),
                Err(AsideRefusal::Store(error)) => Err(error),
                Err(_) => {
                    self.explain(reply, "It was not snoozed: it is over, or would expire before that.").await
                }
            },
            Command::Reject(reason) => self.reject(reply, review, reason).await,
        }
    }

    async fn reject(&self, reply: &Reply, review: &ReviewRow, reason: String) -> Result<Outcome, StoreError> {
        let verdict = Verdict::Rejected { reason };
        match decide(&self.door, review.id, Some(review.digest), verdict, BY).await {
            Ok(_) => Ok(Outcome::Rejected),
            Err(DecideRefusal::Store(error)) => Err(error),
            Err(DecideRefusal::Unfit { .. }) => {
                self.explain(reply, "This question takes an answer, not a rejection: open the page.").await
            }
            Err(_) => self.explain(reply, "This was decided before your reply came.").await,
        }
    }

    async fn comment(&self, reply: &Reply, review: ReviewId, text: &str) -> Result<Outcome, StoreError> {
        // Of the mail's own id: whoever deals with it again, after a crash, keeps no second one.
        let id = CommentId::derive(review, &format!("mail {}", fingerprint(reply)), text);
        match aside::comment_once(self.door.engine(), id, review, BY, text).await {
            Ok(_) => Ok(Outcome::Commented),
            Err(AsideRefusal::Store(error)) => Err(error),
            Err(_) => {
                self.explain(reply, "Your comment was not kept: it is too long, or says nothing.").await
            }
        }
    }

    /// Tells the owner why. Only a proven mail of the owner's own gets here, each once, and what is sent says
    /// that a machine sends it: nobody can be made to receive mail, and no two machines talk for ever.
    async fn explain(&self, reply: &Reply, why: &'static str) -> Result<Outcome, StoreError> {
        let written = write::explanation(why, &self.desk.page("/"));
        let key = format!("reply {}", reply.digest);
        let sound =
            reply.message_id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'<' && byte != b'>');
        let parent = sound.then(|| format!("<{}>", reply.message_id));
        let sent = Sent { follows: parent.as_deref(), ..Sent::default() };
        let mail = self.desk.addressed(&key, &written, self.door.engine().now(), sent);
        if let Err(error) = self.desk.post.post(&mail).await {
            tracing::warn!(%error, "the owner could not be told what became of a reply");
        }
        Ok(Outcome::Explained(why))
    }
}

/// What makes a mail the same when it is delivered again.
fn fingerprint(reply: &Reply) -> Digest {
    reply.proof.as_ref().map_or(reply.digest, |proof| proof.fingerprint)
}
