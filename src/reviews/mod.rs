//! Questions to the owner, how he hears of them, and their one decision.
//!
//! A review is opened by the plan of a run ([`crate::domain::plan`]) and kept by [`crate::store::reviews`].
//!
//! - [`courier`] tells the owner of it, over one [`channel`] after the other, and of notices;
//! - [`mod@decide`] takes what comes back from the owner, whatever the channel: it alone knows which verdict
//!   fits which question;
//! - [`rules`] tells what policy makes of an action, and what a change of it would have made of those proposed.

pub mod channel;
pub mod courier;
pub mod decide;
pub mod rules;

pub use decide::{DecideRefusal, decide};
