//! Documents in, citations out. No language model is involved: text is parsed, cut on its own
//! structure, embedded and stored, all idempotent by content digest.
//!
//! - [`ingest`]: add a file, a folder or a text; list and remove documents;
//! - [`chunk`]: how a document is cut, and which headings each piece stands under;
//! - [`search`]: full text and meaning in one question, and the read action `memory.search`;
//! - [`filling`]: what has no vector yet gets one, all of it when another model is to embed.
//!
//! [`Embedder`] is the seam to whatever makes vectors; the SQL is in [`crate::store::memory`].

pub mod chunk;
mod embedders;
pub mod filling;
pub mod ingest;
pub mod search;

pub use embedders::{Embedder, Embedders, Vectors};
