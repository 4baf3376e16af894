//! Vectors that were paid for, by the digest of what they were made of: of chunks, so that a document that
//! comes again, or a crash before it is stored, costs nothing a second time; and of questions.

use std::collections::HashMap;

use pgvector::Vector;

use crate::domain::digest::Digest;
use crate::store::memory::{READ_WAIT, in_time};
use crate::store::{Store, StoreError};

/// The most vectors that are kept: some 300 MB of them at 1,536 coordinates, and more than twice the chunks of
/// the largest document.
pub const CACHE_SIZE: i64 = 50_000;

/// When a vector is used again its row is touched at most once in this time: a question asked every second
/// must not write every second.
const USED: &str = "1 hour";

impl Store {
    /// The vectors that are kept under these keys.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cached_embeddings(&self, keys: &[Digest]) -> Result<HashMap<Digest, Vec<f32>>, StoreError> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key.0[..]).collect();
        in_time(READ_WAIT, async {
            let client = self.client().await?;
            let sql = format!(
                "with used as (
                     update embedding_cache set used_at = now()
                     where key in (
                         select key from embedding_cache
                         where key = any ($1) and used_at < now() - interval '{USED}'
                         order by key for update skip locked)
                 )
                 select key, embedding from embedding_cache where key = any ($1)"
            );
            let rows = client.query(&client.prepare_cached(&sql).await?, &[&keys]).await?;
            let kept = rows.iter().map(|row| {
                let key: &[u8] = row.get("key");
                let key = key.try_into().map_err(|_| StoreError::corrupt("a kept vector", "its key"))?;
                Ok((Digest(key), row.get::<_, Vector>("embedding").to_vec()))
            });
            kept.collect()
        })
        .await
    }

    /// Keeps vectors, each under its key, in place of what was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_embeddings(&self, made: &[(Digest, Vec<f32>)]) -> Result<(), StoreError> {
        let keys: Vec<&[u8]> = made.iter().map(|(key, _)| &key.0[..]).collect();
        let vectors: Vec<Vector> = made.iter().map(|(_, vector)| vector.clone().into()).collect();
        in_time(READ_WAIT, async {
            let client = self.client().await?;
            let sql = "insert into embedding_cache (key, embedding)
                       select * from unnest($1::bytea[], $2::vector[]) order by 1
                       on conflict on constraint embedding_cache_pk do update
                           set embedding = excluded.embedding, used_at = excluded.used_at";
            client.execute(&client.prepare_cached(sql).await?, &[&keys, &vectors]).await?;
            Ok(())
        })
        .await
    }

    /// Forgets the vectors beyond `most` that nobody has used for longest; gives how many they were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_embeddings(&self, most: i64) -> Result<u64, StoreError> {
        let sql = "delete from embedding_cache where key in (
                       select key from embedding_cache order by used_at desc, key offset $1)";
        Ok(self.client().await?.execute(sql, &[&most]).await?)
    }
}
