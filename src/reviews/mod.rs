//! Questions to the owner and their one decision.
//!
//! A review is opened by the plan of a run ([`crate::domain::plan`]) and kept by
//! [`crate::store::reviews`]; what comes back from the owner passes through [`mod@decide`], whatever
//! the channel: it alone knows which verdict fits which question.

pub mod decide;

pub use decide::{DecideRefusal, decide};
