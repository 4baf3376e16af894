//! The built-in encoder: texts to vectors, on this machine, without a key or a download.
//!
//! `pocket-encoder` bundles a three-layer MiniLM (384 dimensions, 128 word pieces). Inference is
//! processor work of a millisecond or so per text, so it runs on blocking threads, few at a time.

use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

use crate::domain::digest::canonical;

/// Embeddings under way at once: the work is pure computation, more would only share the same cores.
const AT_ONCE: usize = 2;

/// Texts per turn on a blocking thread, so that one large import does not keep a classification waiting.
const BATCH: usize = 32;

/// The longest text handed over, characters. The model reads 128 word pieces, some 600 characters
/// of prose; this leaves room for any text that reads long, far below the encoder's 64 KiB.
pub const MAX_CHARS: usize = 4_000;

/// Why there is no vector.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EncoderError {
    /// A text was blank.
    #[error("a blank text has no vector")]
    Blank,
    /// The bundled model could not be loaded or failed.
    #[error("the built-in encoder failed: {0}")]
    Failed(String),
}

/// The built-in encoder. Clones share the weights.
#[derive(Clone)]
pub struct Encoder {
    /// Unpacked at first use: the weights are most of the process's memory, and not every process asks.
    model: Arc<OnceLock<Result<pocket_encoder::Encoder, EncoderError>>>,
    space: Arc<str>,
    turns: Arc<Semaphore>,
}

impl Encoder {
    /// An encoder that loads its weights when it is first asked for a vector.
    #[must_use]
    pub fn lazy() -> Self {
        let space = canonical(&pocket_encoder::model_info()).into();
        Self { model: Arc::default(), space, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Loads the bundled weights; once per process, some tens of milliseconds.
    ///
    /// # Errors
    /// When the bundled model does not load.
    pub fn load() -> Result<Self, EncoderError> {
        let encoder = Self::lazy();
        encoder.model()?;
        Ok(encoder)
    }

    /// Loads the weights now, away from the runtime's threads, so that the first question need not wait.
    ///
    /// # Errors
    /// When the bundled model does not load.
    pub async fn warm(&self) -> Result<(), EncoderError> {
        let encoder = self.clone();
        tokio::task::spawn_blocking(move || encoder.model().map(drop)).await.map_err(failed)?
    }

    fn model(&self) -> Result<&pocket_encoder::Encoder, EncoderError> {
        let loaded = self.model.get_or_init(|| pocket_encoder::Encoder::new().map_err(failed));
        loaded.as_ref().map_err(Clone::clone)
    }

    /// What must be equal before two vectors may be compared: the encoder's whole identity.
    #[must_use]
    pub fn space(&self) -> &str {
        &self.space
    }

    /// The number of coordinates of a vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        pocket_encoder::model_info().dimensions
    }

    /// One vector of length 1 per text, in order. Only the beginning of a long text counts.
    ///
    /// # Errors
    /// When a text is blank or the model fails.
    pub async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, EncoderError> {
        if texts.iter().any(|text| text.trim().is_empty()) {
            return Err(EncoderError::Blank);
        }
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH) {
            let batch: Vec<String> = batch.iter().map(|text| beginning(text)).collect();
            let _turn = self.turns.acquire().await.map_err(failed)?;
            let encoder = self.clone();
            let embed = move || encoder.model()?.embed(&batch).map_err(failed);
            vectors.extend(tokio::task::spawn_blocking(embed).await.map_err(failed)??);
        }
        Ok(vectors)
    }
}

fn beginning(text: &str) -> String {
    text.trim_start().chars().take(MAX_CHARS).collect()
}

fn failed(error: impl std::fmt::Display) -> EncoderError {
    EncoderError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_text_gives_the_same_vector_of_length_one() {
        let encoder = Encoder::load().unwrap();
        let texts = vec!["A new shop".to_owned(), "Grüße aus 東京 🎈".into(), "A new shop".into()];
        let vectors = encoder.embed(texts).await.unwrap();
        assert_eq!(vectors[0], vectors[2]);
        assert_ne!(vectors[0], vectors[1]);
        for vector in &vectors {
            assert_eq!(vector.len(), encoder.dimensions());
            let length: f32 = vector.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-4);
        }
    }

    #[tokio::test]
    async fn a_text_of_any_length_has_a_vector_and_a_blank_one_is_a_typed_error() {
        let encoder = Encoder::load().unwrap();
        let huge = vec!["丈".repeat(5_000_000), "a ".repeat(3_000_000), "\u{0}\u{7}x".into()];
        assert_eq!(encoder.embed(huge).await.unwrap().len(), 3);
        assert!(matches!(encoder.embed(vec![" \n".into()]).await, Err(EncoderError::Blank)));
        assert!(encoder.embed(Vec::new()).await.unwrap().is_empty());
        assert!(encoder.space().contains("minilm"));
    }
}
