//! What makes vectors: the built-in encoder, or models of providers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::models::Models;
use crate::models::embed::RemoteEmbedder;
use crate::models::encoder::Encoder;
use crate::store::Store;
use crate::store::memory::spaces::MOST_DIMENSIONS;

/// Vectors on their way, or one sentence for the owner.
pub type Vectors<'a> = BoxFuture<'a, Result<Vec<Vec<f32>>, String>>;

/// Makes vectors from texts.
pub trait Embedder: Send + Sync {
    /// The name of the coordinate space, exact to the weights: vectors of different spaces are never compared.
    fn space(&self) -> String;

    /// How many coordinates a vector has, if that is known before there is one.
    fn dimensions(&self) -> Option<usize>;

    /// One vector per text, in the same order, of `size` coordinates when that is known. No text may be blank.
    /// Fails with one sentence for the owner.
    fn embed(&self, texts: Vec<String>, size: Option<usize>) -> Vectors<'_>;

    /// As [`Embedder::embed`], in the space of that name; `None` when no vectors of it can be made any more.
    fn embed_in(&self, space: &str, texts: Vec<String>, size: Option<usize>) -> Option<Vectors<'_>> {
        self.knows(space).then(|| self.embed(texts, size))
    }

    /// Whether [`Embedder::embed_in`] can be asked for vectors of that space.
    fn knows(&self, space: &str) -> bool {
        self.space() == space
    }
}

impl<E: Embedder + ?Sized> Embedder for Arc<E> {
    fn space(&self) -> String {
        (**self).space()
    }

    fn dimensions(&self) -> Option<usize> {
        (**self).dimensions()
    }

    fn embed(&self, texts: Vec<String>, size: Option<usize>) -> Vectors<'_> {
        (**self).embed(texts, size)
    }

    fn embed_in(&self, space: &str, texts: Vec<String>, size: Option<usize>) -> Option<Vectors<'_>> {
        (**self).embed_in(space, texts, size)
    }

    fn knows(&self, space: &str) -> bool {
        (**self).knows(space)
    }
}

impl Embedder for Encoder {
    fn space(&self) -> String {
        Self::space(self).to_owned()
    }

    fn dimensions(&self) -> Option<usize> {
        Some(Self::dimensions(self))
    }

    fn embed(&self, texts: Vec<String>, _: Option<usize>) -> Vectors<'_> {
        async move { Self::embed(self, texts).await.map_err(|error| error.to_string()) }.boxed()
    }
}

impl Embedder for RemoteEmbedder {
    fn space(&self) -> String {
        Self::space(self).to_owned()
    }

    fn dimensions(&self) -> Option<usize> {
        Self::dimensions(self)
    }

    fn embed(&self, texts: Vec<String>, size: Option<usize>) -> Vectors<'_> {
        async move { Self::embed(self, texts, size).await.map_err(|error| error.to_string()) }.boxed()
    }
}

/// Everything that embeds in a workspace: what is to, and what did before and still answers while documents
/// are embedded anew.
pub struct Embedders {
    own: Arc<dyn Embedder>,
    others: Vec<Arc<dyn Embedder>>,
}

impl Embedders {
    /// The model that `embeddings:` names in `config/models.yaml`, or else the built-in encoder; beside it
    /// every other that could have been named before. What is paid for is kept in `store`.
    #[must_use]
    pub fn of(models: &Models, store: &Store) -> Self {
        let remote = |name: &str| -> Option<Arc<dyn Embedder>> {
            Some(Arc::new(models.embedder(name, Some(store.clone()))?))
        };
        let encoder: Arc<dyn Embedder> = Arc::new(models.encoder().clone());
        let named = models.embedding();
        let own = named.and_then(remote).unwrap_or_else(|| encoder.clone());
        let mut others: Vec<_> =
            models.may_embed().filter(|name| Some(*name) != named).filter_map(remote).collect();
        others.push(encoder);
        Self { own, others }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<dyn Embedder>> {
        std::iter::once(&self.own).chain(&self.others)
    }
}

impl Embedder for Embedders {
    fn space(&self) -> String {
        self.own.space()
    }

    fn dimensions(&self) -> Option<usize> {
        self.own.dimensions()
    }

    fn embed(&self, texts: Vec<String>, size: Option<usize>) -> Vectors<'_> {
        self.own.embed(texts, size)
    }

    fn embed_in(&self, space: &str, texts: Vec<String>, size: Option<usize>) -> Option<Vectors<'_>> {
        self.all().find(|embedder| embedder.space() == space).map(|embedder| embedder.embed(texts, size))
    }

    fn knows(&self, space: &str) -> bool {
        self.all().any(|embedder| embedder.space() == space)
    }
}

/// Embeds in the space of that name, checked: as many vectors as texts, all of the same size and of
/// `dimensions` if those are known, all finite, within `wait`.
pub(super) async fn embed(
    embedder: &dyn Embedder,
    space: &str,
    dimensions: Option<usize>,
    texts: Vec<String>,
    wait: Duration,
) -> Result<Vec<Vec<f32>>, String> {
    let wanted = texts.len();
    let Some(made) = embedder.embed_in(space, texts, dimensions) else {
        return Err("the model that embedded the documents is not in config/models.yaml any more".to_owned());
    };
    let vectors = tokio::time::timeout(wait, made)
        .await
        .map_err(|_| format!("no vectors within {} s", wait.as_secs()))??;
    let dimensions = dimensions.or(vectors.first().map(Vec::len)).unwrap_or_default();
    if dimensions > MOST_DIMENSIONS {
        return Err(format!(
            "its vectors have {dimensions} coordinates, and at most {MOST_DIMENSIONS} can be indexed: add \
             `dimensions:` to the model in config/models.yaml, or name another model"
        ));
    }
    let sound = |vector: &Vec<f32>| {
        vector.len() == dimensions && vector.iter().all(|coordinate| coordinate.is_finite())
    };
    if vectors.len() != wanted || !vectors.iter().all(sound) {
        return Err("the vectors are of the wrong number or size".to_owned());
    }
    Ok(vectors)
}
