//! Steward: the workflow operating system for a business of one.
//!
//! The modules, in the order data flows:
//!
//! | module | what it holds |
//! |---|---|
//! | [`domain`] | the rules, pure: runs, steps, policy, labels, risk, trust, money; no clock, no I/O |
//! | [`config`] | a workspace's files: load, validate, explain |
//! | [`store`] | all SQL: journal, runs, effects, reviews, messages, memory; the embedded PostgreSQL |
//! | [`triggers`] | what opens a run: email, webhook, files, the clock |
//! | [`models`] | what answers a prompt: gateways, batches, the encoder, canned outputs; texts to vectors; money |
//! | [`memory`] | documents in, citations out |
//! | [`connectors`] | the code that carries effects out |
//! | [`orchestrator`] | the actors: admission, runs, agents, actions, the journal's group commit |
//! | [`reviews`] | questions to the owner, how he hears of them in Slack and by mail, and their one decision |
//! | [`api`] | HTTP; `api/router.rs` is the table of the product, `api/auth.rs` who comes in |
//! | [`ui`] | the web inbox: pages, templates, static files; `ui/router.rs` is the table of pages |
//! | [`cli`] | the command line, one file per command |
//! | [`app`] | the composition root: ordered start, reverse-ordered stop |
//! | [`failpoint`] | lets tests kill the process at the places that matter |
//! | [`time`] | the database's clock, this machine's clocks |
//! | [`telemetry`] | what Steward says about itself while it runs |
//!
//! The rule above all: losing every actor loses no fact. Mailboxes carry hints,
//! PostgreSQL carries truth.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod connectors;
pub mod domain;
pub mod failpoint;
pub mod memory;
pub mod models;
pub mod orchestrator;
pub mod reviews;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod triggers;
pub mod ui;
