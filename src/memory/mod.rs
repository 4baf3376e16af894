//! Documents in, citations out. No language model is involved: text is parsed, cut on its own
//! structure, embedded and stored, all idempotent by content digest.
//!
//! - [`ingest`]: add a file, a folder or a text; list and remove documents;
//! - [`chunk`]: how a document is cut, and which headings each piece stands under;
//! - [`search`]: full text and meaning in one question, and the read action `memory.search`.
//!
//! [`Embedder`] is the seam to whatever makes vectors; the SQL is in [`crate::store::memory`].

pub mod chunk;
pub mod ingest;
pub mod search;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::models::encoder::Encoder;

/// Makes vectors from texts.
pub trait Embedder: Send + Sync {
    /// The name of the coordinate space, exact to the weights: vectors of different spaces are never compared.
    fn space(&self) -> String;

    /// How many coordinates a vector has.
    fn dimensions(&self) -> usize;

    /// One vector per text, in the same order. No text may be blank. Fails with one sentence for the owner.
    fn embed(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Vec<Vec<f32>>, String>>;
}

impl<E: Embedder + ?Sized> Embedder for Arc<E> {
    fn space(&self) -> String {
        (**self).space()
    }

    fn dimensions(&self) -> usize {
        (**self).dimensions()
    }

    fn embed(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Vec<Vec<f32>>, String>> {
        (**self).embed(texts)
    }
}

impl Embedder for Encoder {
    fn space(&self) -> String {
        Self::space(self).to_owned()
    }

    fn dimensions(&self) -> usize {
        Self::dimensions(self)
    }

    fn embed(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Vec<Vec<f32>>, String>> {
        Box::pin(async move { Self::embed(self, texts).await.map_err(|error| error.to_string()) })
    }
}

/// How long one batch of texts may take to embed: the built-in encoder needs well under a second on an
/// idle machine, so only an encoder that hangs, or a machine in deep trouble, comes near it.
const EMBED_WAIT: Duration = Duration::from_secs(60);

/// Embeds, checked: as many vectors as texts, all of the promised size, all finite, in time.
async fn embed(embedder: &dyn Embedder, texts: Vec<String>) -> Result<Vec<Vec<f32>>, String> {
    let wanted = texts.len();
    let vectors = tokio::time::timeout(EMBED_WAIT, embedder.embed(texts))
        .await
        .map_err(|_| format!("the encoder gave no answer within {} s", EMBED_WAIT.as_secs()))??;
    let sound = |vector: &Vec<f32>| {
        vector.len() == embedder.dimensions() && vector.iter().all(|coordinate| coordinate.is_finite())
    };
    if vectors.len() != wanted || !vectors.iter().all(sound) {
        return Err("the encoder gave vectors of the wrong number or size".to_owned());
    }
    Ok(vectors)
}
