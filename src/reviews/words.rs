//! What reviews are called in words, the same on every surface.

use crate::domain::event::Ask;
use crate::domain::label::Label;

/// What is wanted of the owner.
#[must_use]
pub fn wants(ask: Ask, has_form: bool) -> &'static str {
    match ask {
        Ask::Approval => "May this happen?",
        Ask::Answer => "No model could answer. What is your answer?",
        Ask::Question if has_form => "Your answer is needed.",
        Ask::Question => "Shall it go on?",
        Ask::InDoubt => "Nobody can tell whether this happened. What do you know?",
        Ask::Undo => "Undoing this failed. What now?",
        Ask::Parked => "Steward cannot go on with this run. What now?",
        Ask::Budget => "The budget is spent. May this cost more, once?",
    }
}

/// Whose words a value is.
#[must_use]
pub fn origin(label: Label) -> &'static str {
    match label {
        Label::Owner => "from you",
        Label::System => "from Steward",
        Label::Model => "from a model",
        Label::Untrusted => "from outside",
    }
}
