//! Questions to the owner, how he hears of them, and their one decision.
//!
//! A review is opened by the plan of a run ([`crate::domain::plan`]) and kept by [`crate::store::reviews`].
//!
//! - [`courier`] tells the owner of it, over one [`channel`] after the other, and of notices;
//! - [`mod@decide`] takes what comes back from the owner, whatever the channel: it alone knows which verdict
//!   fits which question;
//! - [`autonomy`] counts what was decided, and asks whether a version may be trusted further.

pub mod autonomy;
pub mod channel;
pub mod courier;
pub mod decide;

pub use decide::{DecideRefusal, decide};
