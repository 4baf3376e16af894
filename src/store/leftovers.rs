//! What is cleared by its age, because it does not go with a run: events, notices that are settled, digests, replies by
//! mail, links, sessions, batches that are over, and what was counted of decisions. What open business still
//! needs stays, however old it is: each statement says what that is.

use jiff::Timestamp;

use crate::store::{Store, StoreError};

/// Rows cleared in one transaction: a few milliseconds.
pub const PORTION: i64 = 500;

/// Something that is cleared by its age.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leftover {
    /// Events that came so long ago and were told to whoever waited.
    Events,
    /// Notices that were acknowledged or over so long ago, with the messages about them. One that stands stays.
    Notices,
    /// Messages of digests of days so long ago.
    Digests,
    /// Replies that came so long ago; those to a review that is open stay, so that none is heard twice.
    Replies,
    /// Links to reviews that have not been good for so long.
    Links,
    /// Links to sign in with that have not been good for so long.
    SignIns,
    /// Sessions that have been over for so long.
    Sessions,
    /// Calls of batches that ended so long ago and whose runs are over; but for those that nobody heard: they
    /// explain what the run's account paid, and go with the run.
    BatchCalls,
    /// Batches that ended so long ago, once no call is of them.
    Batches,
    /// Shares of budgets that were passed so long ago and told.
    Thresholds,
    /// How much was changed in drafts so long ago, once their runs have gone.
    Edits,
    /// What was decided so long ago, once the run has gone; but for what the newest version of a workflow is judged
    /// by.
    Decisions,
}

impl Leftover {
    /// All of them; calls before their batches.
    pub const ALL: [Self; 12] = [
        Self::Events,
        Self::Notices,
        Self::Digests,
        Self::Replies,
        Self::Links,
        Self::SignIns,
        Self::Sessions,
        Self::BatchCalls,
        Self::Batches,
        Self::Thresholds,
        Self::Edits,
        Self::Decisions,
    ];

    /// Clears at most `$2` rows of before `$1`. Their keys are gathered first: however the table is filled, the rows
    /// are then reached by them.
    fn statement(self) -> &'static str {
        match self {
            Self::Events => {
                "delete from events where id = any (array(
                    select id from events where at < $1 and told_at is not null order by at limit $2))"
            }
            Self::Notices => {
                "delete from notices where id = any (array(
                    select id from notices where greatest(acknowledged_at, over_at) < $1
                    order by greatest(acknowledged_at, over_at) limit $2))"
            }
            Self::Digests => {
                "delete from messages_out where id = any (array(
                    select id from messages_out where day < $1::timestamptz::date order by day limit $2))"
            }
            Self::Replies => {
                "delete from mail_replies where fingerprint = any (array(
                    select m.fingerprint from mail_replies m
                    where m.came_at < $1
                      and not exists (select from reviews r where r.id = m.review_id and r.status = 'open')
                    order by m.came_at limit $2))"
            }
            Self::Links => {
                "delete from link_tokens where hash = any (array(
                    select hash from link_tokens where expires_at < $1 order by expires_at limit $2))"
            }
            Self::SignIns => {
                "delete from sign_in_links where digest = any (array(
                    select digest from sign_in_links where expires_at < $1 order by expires_at limit $2))"
            }
            Self::Sessions => {
                "delete from sessions where digest = any (array(
                    select digest from sessions where expires_at < $1 order by expires_at limit $2))"
            }
            Self::BatchCalls => {
                "delete from batch_calls where id = any (array(
                    select c.id from batch_calls c
                    where c.ended_at < $1 and not c.unheard
                      and not exists (select from runs r where r.id = c.run_id and r.finished_at is null)
                    order by c.ended_at limit $2))"
            }
            Self::Batches => {
                "delete from batches where id = any (array(
                    select b.id from batches b
                    where b.status = 'over' and b.ended_at < $1
                      and not exists (select from batch_calls c where c.batch = b.id)
                    order by b.ended_at limit $2))"
            }
            Self::Thresholds => {
                "delete from spend_thresholds where (account, percent) in (
                    select account, percent from spend_thresholds where told_at is not null and passed_at < $1
                    limit $2)"
            }
            Self::Edits => {
                "delete from edits where review_id = any (array(
                    select e.review_id from edits e
                    where e.at < $1 and not exists (select from runs r where r.id = e.run_id)
                    order by e.at limit $2))"
            }
            Self::Decisions => {
                "delete from decisions where review_id = any (array(
                    select d.review_id from decisions d
                    where d.decided_at < $1 and not exists (select from runs r where r.id = d.run_id)
                      and not exists (
                        select from workflow_versions v
                        where v.digest = d.version and v.staged_at <= d.opened_at
                          and not exists (select from workflow_versions n
                                          where n.workflow = v.workflow and n.version > v.version))
                    order by d.decided_at limit $2))"
            }
        }
    }
}

impl Store {
    /// Clears what is of before `before`, at most [`PORTION`] rows; gives how many. Fewer means that nothing is
    /// left.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn clear(&self, leftover: Leftover, before: Timestamp) -> Result<i64, StoreError> {
        let cleared = self.client().await?.execute(leftover.statement(), &[&before, &PORTION]).await?;
        Ok(i64::try_from(cleared).unwrap_or(PORTION))
    }
}
