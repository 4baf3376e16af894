//! Who is told how an agent comes to its answer, as it happens: each call of a model, each use of a tool,
//! and, while somebody listens, the words as they are written.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::event::{ModelCall, ToolCall};

/// Is told.
pub trait Witness: Send + Sync {
    /// A model was called, and this was not the last thing that happened.
    fn called(&self, call: ModelCall);

    /// A tool was used.
    fn looked_up(&self, call: ToolCall);

    /// Who hears the words of the call that is about to be made, if anybody listens. Hints alone: what was
    /// heard of a call that failed has not been said.
    fn hear(&self, model: &str, part: Option<&str>) -> Option<Hear>;
}

/// Hears pieces of an answer while it is written.
#[derive(Clone)]
pub struct Hear(Arc<dyn Fn(&str) + Send + Sync>);

impl Hear {
    /// Hears with this function, which must not wait.
    pub fn new(hear: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Tells a piece.
    pub fn tell(&self, piece: &str) {
        (self.0)(piece);
    }
}

impl fmt::Debug for Hear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hear")
    }
}

/// What is told, in its order. The latest call is held back until something follows it: the last one goes
/// into the journal together with the answer.
pub(crate) struct Tale<'a> {
    witness: &'a dyn Witness,
    latest: Mutex<Option<ModelCall>>,
    tokens: AtomicU64,
}

impl<'a> Tale<'a> {
    pub(crate) fn new(witness: &'a dyn Witness) -> Self {
        Self { witness, latest: Mutex::new(None), tokens: AtomicU64::new(0) }
    }

    /// Something else begins: the call before it was not the last.
    pub(crate) fn goes_on(&self) {
        if let Some(call) = self.last() {
            self.witness.called(call);
        }
    }

    /// A call has ended.
    pub(crate) fn called(&self, call: ModelCall) {
        self.tokens.fetch_add(call.input_tokens.saturating_add(call.output_tokens), Ordering::Relaxed);
        let before = self.latest.lock().unwrap_or_else(PoisonError::into_inner).replace(call);
        if let Some(before) = before {
            self.witness.called(before);
        }
    }

    /// A tool has been used.
    pub(crate) fn looked_up(&self, call: ToolCall) {
        self.goes_on();
        self.witness.looked_up(call);
    }

    /// Takes the call that nothing has followed yet.
    pub(crate) fn last(&self) -> Option<ModelCall> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The tokens of all calls so far, read and written.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    pub(crate) fn hear(&self, model: &str, part: Option<&str>) -> Option<Hear> {
        self.witness.hear(model, part)
    }
}
