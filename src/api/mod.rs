//! HTTP. [`mod@router`] is the table of the product; the rest serves it.
//!
//! - [`state`]: what handlers share;
//! - [`auth`]: who may come in, and the few doors without a key; [`guard`]: time, load and panics;
//! - [`session`]: who is signed in to the pages, and whose form is ours; [`seal`]: secrets that are known at sight;
//! - [`extract`]: bodies and queries; [`problem`]: every error, RFC 9457; [`page`]: cursors;
//! - `sign_in`: links into the pages;
//! - `watch`: a run as it happens;
//! - `runs` with `control`, `reviews` with `asides`, `events`, `notices`, `policy`, `schedules`, `spend`, `memory`,
//!   `models`, `calls`, `audit`, `workflows`, `metrics`, `hooks`, `slack`, `health`: one file per resource;
//! - [`view`]: a run as people look at it, the same for every screen.

mod asides;
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
mod metrics;
mod models;
mod notices;
pub mod page;
mod policy;
pub mod problem;
mod reviews;
pub mod router;
mod runs;
mod schedules;
pub mod seal;
pub mod session;
pub mod sign_in;
mod slack;
mod spend;
pub mod state;
pub mod view;
mod watch;
mod workflows;

pub use router::router;
pub use state::ApiState;
