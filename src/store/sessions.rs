//! Sign-in links and the sessions they become. Secrets come in as digests: none of them is ever stored.

use std::time::Duration;

use crate::domain::digest::Digest;
use crate::store::{Store, StoreError};

/// How long a link may wait to be used: long enough to walk to another machine, too short to be found later.
pub const LINK: Duration = Duration::from_secs(15 * 60);

/// How long a session lasts, however much it is used: a device that was lost is signed out by then.
pub const SESSION: Duration = Duration::from_secs(30 * 86_400);

/// How long a session lasts unused.
pub const IDLE: Duration = Duration::from_secs(7 * 86_400);

const MAKE: &str = "
    insert into sign_in_links (digest, expires_at)
    values ($1, now() + make_interval(secs => $2))";

/// The link is used and the session begins, or neither.
const SIGN_IN: &str = "
    with used as (
        update sign_in_links set used_at = now()
        where digest = $1 and used_at is null and expires_at > now()
        returning digest)
    insert into sessions (digest, expires_at)
    select $2, now() + make_interval(secs => $3) from used";

/// Looked at with every request, written to once a minute at most.
const USE: &str = "
    with found as (
        select digest, last_used_at < now() - interval '1 minute' as stale from sessions
        where digest = $1 and revoked_at is null and expires_at > now()
            and last_used_at > now() - make_interval(secs => $2)),
    kept as (
        update sessions set last_used_at = now()
        where digest in (select digest from found where stale))
    select count(*) > 0 from found";

impl Store {
    /// Keeps a sign-in link, good for [`LINK`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn make_sign_in_link(&self, link: Digest) -> Result<(), StoreError> {
        let client = self.client().await?;
        client.execute(MAKE, &[&&link.0[..], &LINK.as_secs_f64()]).await?;
        Ok(())
    }

    /// Whether a link would sign somebody in; nothing changes by looking.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sign_in_link_is_good(&self, link: Digest) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select exists (select from sign_in_links
                                where digest = $1 and used_at is null and expires_at > now())",
            )
            .await?;
        Ok(client.query_one(&statement, &[&&link.0[..]]).await?.get(0))
    }

    /// Uses a link up and begins `session` with it; false when the link is unknown, used or too old, and
    /// nothing has changed. Of two that use it at once, one gets in.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sign_in(&self, link: Digest, session: Digest) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(SIGN_IN).await?;
        let began =
            client.execute(&statement, &[&&link.0[..], &&session.0[..], &SESSION.as_secs_f64()]).await?;
        Ok(began == 1)
    }

    /// Whether a session is good, which its use keeps it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn session_is_good(&self, session: Digest) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(USE).await?;
        Ok(client.query_one(&statement, &[&&session.0[..], &IDLE.as_secs_f64()]).await?.get(0))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoke_session(&self, session: Digest) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = "update sessions set revoked_at = now() where digest = $1 and revoked_at is null";
        client.execute(statement, &[&&session.0[..]]).await?;
        Ok(())
    }

    /// Ends every session and voids every link; gives how many sessions that were.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoke_all_sessions(&self) -> Result<u64, StoreError> {
        let client = self.client().await?;
        let statement = "
            with links as (update sign_in_links set used_at = now() where used_at is null)
            update sessions set revoked_at = now() where revoked_at is null and expires_at > now()";
        Ok(client.execute(statement, &[]).await?)
    }
}
