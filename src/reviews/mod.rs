//! Questions to the owner, how he hears of them, and their one decision.
//!
//! A review is opened by the plan of a run ([`crate::domain::plan`]) and kept by [`crate::store::reviews`].
//!
//! - [`courier`] tells the owner of it, over one [`channel`] after the other, and of notices, which
//!   [`escalate`] finds;
//! - [`mod@shown`] is a review as every surface shows it;
//! - [`mod@decide`] takes what comes back from the owner, whatever the channel: it alone knows which verdict
//!   fits which question; [`batch`] takes one word for several;
//! - [`aside`] is what may be done without deciding: comments and snoozes; [`mod@call_back`] is second
//!   thoughts about what was approved.

pub mod aside;
pub mod batch;
pub mod call_back;
pub mod channel;
pub mod courier;
pub mod decide;
pub mod escalate;
pub mod shown;

pub use decide::{DecideRefusal, decide, fitting};
pub use shown::{Shown, shown};
