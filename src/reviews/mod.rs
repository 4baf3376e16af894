//! Questions to the owner, how he hears of them, and their one decision.
//!
//! A review is opened by the plan of a run ([`crate::domain::plan`]) and kept by [`crate::store::reviews`].
//!
//! - [`courier`] tells the owner of it, over one [`channel`] after the other, and of notices, which
//!   [`escalate`] finds; [`slack`] and [`email`] are the channels, [`mod@digest`] his day in one message;
//! - [`mod@shown`] is a review as every surface shows it, in [`mod@words`] of its own;
//! - [`mod@decide`] takes what comes back from the owner, whatever the channel: it alone knows which verdict
//!   fits which question; [`batch`] takes one word for several;
//! - [`aside`] is what may be done without deciding: comments and snoozes, for as long as [`snooze`] offers;
//!   [`mod@call_back`] is second thoughts about what was approved;
//! - [`rules`] tells what policy makes of an action, and what a change of it would have made of those that
//!   were proposed;
//! - [`autonomy`] counts what was decided, and asks whether a version may be trusted further.

pub mod aside;
pub mod autonomy;
pub mod batch;
pub mod call_back;
pub mod channel;
pub mod courier;
pub mod decide;
pub mod digest;
pub mod email;
pub mod escalate;
pub mod rules;
pub mod shown;
pub mod slack;
pub mod snooze;
pub mod words;

pub use decide::{DecideRefusal, decide, fitting};
pub use shown::{Shown, shown};
