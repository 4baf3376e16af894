//! What goes with mail to the owner: links to one review, replies that were dealt with, the key of addresses,
//! and who wants no digest. Secrets come in as digests: none of them is ever stored.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::digest::Digest;
use crate::domain::ids::ReviewId;
use crate::store::journal::read::digest;
use crate::store::{Store, StoreError};

/// A link as its row shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkRow {
    /// The review that it opens.
    pub review: ReviewId,
    /// What its holder may decide about.
    pub digest: Digest,
    /// Whom it was sent to.
    pub approver: String,
    /// Until when it is good.
    pub expires_at: Timestamp,
    /// Whether that is over, by the database's clock.
    pub expired: bool,
    /// When it decided.
    pub used_at: Option<Timestamp>,
}

/// A reply that came.
#[derive(Clone, Copy, Debug)]
pub struct ReplyRow<'a> {
    /// What makes it the same when it is delivered again.
    pub fingerprint: Digest,
    /// The review it names.
    pub review: Option<ReviewId>,
    /// Its Message-ID.
    pub message_id: &'a str,
    /// Whom it says it is from.
    pub sender: &'a str,
}

/// Who deals with a reply that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begun {
    /// Whoever asked.
    Ours,
    /// Somebody else, at this moment.
    Theirs,
    /// Nobody any more: it was dealt with.
    Over,
}

impl Store {
    /// Keeps a link, good for `life`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_link(
        &self,
        hash: Digest,
        (review, about): (ReviewId, Digest),
        approver: &str,
        life: Duration,
    ) -> Result<Timestamp, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "insert into link_tokens (hash, review_id, digest, approver, expires_at)
                 values ($1, $2, $3, $4, now() + make_interval(secs => $5)) returning expires_at",
            )
            .await?;
        let life = life.as_secs_f64();
        let row =
            client.query_one(&statement, &[&&hash.0[..], &review.0, &&about.0[..], &approver, &life]).await?;
        Ok(row.get(0))
    }

    /// The link of that hash; nothing changes by looking.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn link(&self, hash: Digest) -> Result<Option<LinkRow>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select review_id, digest, approver, expires_at, expires_at <= now(), used_at
                 from link_tokens where hash = $1",
            )
            .await?;
        let Some(row) = client.query_opt(&statement, &[&&hash.0[..]]).await? else { return Ok(None) };
        Ok(Some(LinkRow {
            review: ReviewId(row.get(0)),
            digest: digest(&row, 1)?,
            approver: row.get(2),
            expires_at: row.get(3),
            expired: row.get(4),
            used_at: row.get(5),
        }))
    }

    /// Uses a link up. False when it was used or is no longer good: of two that use it at once, one does. A use
    /// that a crash kept from deciding anything holds for a minute.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn use_link(&self, hash: Digest) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "update link_tokens t set used_at = now()
                 where hash = $1 and expires_at > now()
                   and (used_at is null or used_at < now() - interval '1 minute')
                   and exists (select from reviews r where r.id = t.review_id and r.status = 'open')",
            )
            .await?;
        Ok(client.execute(&statement, &[&&hash.0[..]]).await? == 1)
    }

    /// A link that was used decided nothing after all: its holder may try again.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn give_link_back(&self, hash: Digest) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "update link_tokens t set used_at = null where hash = $1
                   and exists (select from reviews r where r.id = t.review_id and r.status = 'open')",
            )
            .await?;
        client.execute(&statement, &[&&hash.0[..]]).await?;
        Ok(())
    }

    /// The key of all nodes; `fresh` becomes it, when there is none yet.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn mail_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let client = self.client().await?;
        let keep = client.prepare_cached("insert into mail_keys (key) values ($1) on conflict do nothing");
        client.execute(&keep.await?, &[&&fresh[..]]).await?;
        let row = client.query_one("select key from mail_keys", &[]).await?;
        let key: &[u8] = row.get(0);
        key.try_into().map_err(|_| StoreError::corrupt("the key of mail", "it has no 32 bytes"))
    }

    /// Begins to deal with a reply, under `claim`, which nobody else does for `span`: of all that deliver it at
    /// once, one begins. One that a crash interrupted is dealt with again after that.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin_reply(
        &self,
        reply: &ReplyRow<'_>,
        claim: Uuid,
        span: Duration,
    ) -> Result<Begun, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "insert into mail_replies (fingerprint, review_id, message_id, sender, claim, claimed_until)
                 values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
                 on conflict on constraint mail_replies_pk
                 do update set came_at = now(), claim = excluded.claim, claimed_until = excluded.claimed_until
                 where mail_replies.did is null and mail_replies.claimed_until <= now()",
            )
            .await?;
        let (fingerprint, review) = (&reply.fingerprint.0[..], reply.review.map(|review| review.0));
        let params: [&(dyn ToSql + Sync); 6] =
            [&fingerprint, &review, &reply.message_id, &reply.sender, &claim, &span.as_secs_f64()];
        if client.execute(&statement, &params).await? == 1 {
            return Ok(Begun::Ours);
        }
        let statement = "select exists (select from mail_replies where fingerprint = $1 and did is not null)";
        let statement = client.prepare_cached(statement).await?;
        match client.query_one(&statement, &[&fingerprint]).await?.get(0) {
            true => Ok(Begun::Over),
            false => Ok(Begun::Theirs),
        }
    }

    /// A reply was dealt with under this claim; `did` is what came of it. Without it, it could not be dealt with:
    /// whoever delivers it again may begin at once. Who has lost the claim changes nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn end_reply(
        &self,
        fingerprint: Digest,
        claim: Uuid,
        did: Option<&str>,
    ) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = "update mail_replies set did = $3, claimed_until = now()
                         where fingerprint = $1 and claim = $2 and did is null";
        let statement = client.prepare_cached(statement).await?;
        client.execute(&statement, &[&&fingerprint.0[..], &claim, &did]).await?;
        Ok(())
    }

    /// Whether an address gets the digest.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn digest_wanted(&self, address: &str) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "select not exists (select from digests_off where address = $1)";
        let statement = client.prepare_cached(statement).await?;
        Ok(client.query_one(&statement, &[&address]).await?.get(0))
    }

    /// An address gets the digest from now on, or does not.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn want_digest(&self, address: &str, wanted: bool) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = match wanted {
            true => "delete from digests_off where address = $1",
            false => "insert into digests_off (address) values ($1) on conflict do nothing",
        };
        client.execute(statement, &[&address]).await?;
        Ok(())
    }
}
