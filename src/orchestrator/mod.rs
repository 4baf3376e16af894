//! The actors that move runs. Mailboxes carry hints, the journal carries truth: losing every actor
//! in here loses no fact.
//!
//! ```text
//! supervisor      admission, claims, crashes; owns no I/O
//! ├─ run          one per run in motion: plans, commits, begins tasks
//! │  └─ worker    one per task under way: an agent, a read, an effect
//! journal × k     group commit
//! clock           lease, due runs, overdue reviews
//! housekeeper     the journal's months, retention
//! ```
//!
//! - [`lease`] is a node's right to act; [`wakeup`] is what nodes tell each other;
//! - [`door`] is how everybody else opens runs and wakes them;
//! - [`control`] is what the owner does to runs;
//! - [`flow`] says who begins at once, who waits for a turn, and who has to come back;
//! - [`engine`] is what the actors share; [`agent`], [`action`] and `wait` are the work itself;
//! - [`back`] looks what was done before, for policy to judge by; [`keys`] tells the owner of keys that are refused;
//! - `tools` is what agents look into, [`live`] who watches what they write;
//! - `inbox` is what runs are told, `entrance` how they come in;
//! - `park` deals with runs that crash, so that the owner decides about them.

pub mod action;
pub mod agent;
pub mod back;
pub mod clock;
pub mod control;
pub mod door;
pub mod engine;
mod entrance;
pub mod flow;
pub mod housekeeper;
mod inbox;
pub mod journal;
pub mod keys;
pub mod lease;
pub mod live;
mod park;
pub mod run;
pub mod supervisor;
mod tools;
mod wait;
pub mod wakeup;
mod worker;

pub use crate::failpoint;
