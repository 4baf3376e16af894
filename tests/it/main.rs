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
mod autonomy;
mod bad_input;
mod batches;
mod calls;
mod canary;
mod control;
mod courier;
mod dead_rows;
mod embedding_switch;
mod embeddings;
mod engine;
mod flow;
mod flow_door;
mod gathered;
mod hooks;
mod injection;
mod invariants;
mod kinds;
mod layering;
mod leftovers;
mod links;
mod live;
mod memory;
mod models;
mod money;
mod money_edges;
mod money_runs;
mod nodes;
mod notices;
mod numbers;
mod policy;
mod processes;
mod records;
mod replies;
mod retention;
mod reviews;
mod schedules;
mod schema;
mod sign_in;
mod slack;
mod slack_beside;
mod slack_blocks;
mod slack_kinds;
mod survival;
mod walkthrough;
mod watch;
mod web;
mod web_aside;
mod web_browser;
