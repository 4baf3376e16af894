//! The actors that move runs. Mailboxes carry hints, the journal carries truth: losing every actor
//! in here loses no fact.
//!
//! ```text
//! supervisor      admission, claims, crashes; owns no I/O
//! ├─ run          one per run in motion: plans, commits, begins tasks
//! │  └─ worker    one per task under way: an agent, a read, an effect
//! journal × k     group commit
//! clock           lease, due runs, overdue reviews
//! ```
//!
//! - [`door`] is how everybody else opens runs and wakes them;
//! - [`engine`] is what the actors share; [`agent`] and [`action`] are the work itself;
//! - [`failpoint`] lets tests kill the process at the places that matter.

pub mod action;
pub mod agent;
pub mod clock;
pub mod door;
pub mod engine;
pub mod failpoint;
pub mod journal;
pub mod run;
pub mod supervisor;
mod worker;
