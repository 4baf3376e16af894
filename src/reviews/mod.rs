//! Questions to the owner, how he hears of them, and their one decision.
//!
//! A review is opened by the plan of a run ([`crate::domain::plan`]) and kept by [`crate::store::reviews`].
//!
//! - [`mod@digest`] is his day in one message;
//! - [`courier`] tells the owner of it, over one [`channel`] after the other, and of notices;
//! - [`mod@decide`] takes what comes back from the owner, whatever the channel: it alone knows which verdict
//!   fits which question.

pub mod channel;
pub mod courier;
pub mod decide;
pub mod digest;
pub mod email;

pub use decide::{DecideRefusal, decide};
