//! One binary for everything seen from outside, grouped by promise. Each test has a database of
//! its own, cloned from a template on one server that the whole binary shares.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub
)]

mod support;

mod agents;
mod api;
mod bad_input;
mod calls;
mod canary;
mod control;
mod courier;
mod dead_rows;
mod engine;
mod flow;
mod flow_door;
mod gathered;
mod injection;
mod invariants;
mod kinds;
mod layering;
mod live;
mod memory;
mod models;
mod money;
mod money_runs;
mod nodes;
mod policy;
mod processes;
mod records;
mod retention;
mod schedules;
mod schema;
mod survival;
mod walkthrough;
mod watch;
