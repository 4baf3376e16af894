//! Questions to the owner and their one decision.
//!
//! A review is opened by the plan of a run ([`crate::domain::plan`]) and kept by
//! [`crate::store::reviews`]; what comes back from the owner passes through [`mod@decide`], whatever
//! the channel: it alone knows which verdict fits which question. [`rules`] tells what policy makes of an
//! action, and what a change of it would have made of those that were proposed.

pub mod decide;
pub mod rules;

pub use decide::{DecideRefusal, decide};
