//! HTTP. [`mod@router`] is the table of the product; the rest serves it.
//!
//! - [`state`]: what handlers share;
//! - [`auth`]: who may come in, and the few doors without a key; [`guard`]: time, load and panics;
//! - [`extract`]: bodies and queries; [`problem`]: every error, RFC 9457; [`page`]: cursors;
//! - `watch`: a run as it happens;
//! - `runs`, `reviews`, `schedules`, `spend`, `memory`, `models`, `calls`, `audit`, `hooks`, `health`: one file
//!   per resource;
//! - [`view`]: a run as people look at it, the same for every screen.

pub mod audit;
pub mod auth;
mod calls;
mod control;
mod events;
pub mod extract;
pub mod guard;
mod health;
mod hooks;
mod memory;
mod models;
pub mod page;
mod policy;
pub mod problem;
mod reviews;
pub mod router;
mod runs;
mod schedules;
mod spend;
pub mod state;
pub mod view;
mod watch;

pub use router::router;
pub use state::ApiState;
