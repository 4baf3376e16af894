//! The rules of Steward, pure: no clock, no I/O, no actors. Time and randomness are arguments,
//! so every rule can be tested, replayed and trusted on its own.
//!
//! Read in this order:
//! - [`run`]: what a run is, as a fold over its journal, and [`step`], the state machine of one step;
//! - [`plan`]: what happens next, given a run and what has just been learnt;
//! - [`event`]: the journal's events, the only way a run changes; [`verdict`]: what the owner says;
//!   [`failure`]: why a step failed;
//! - [`workflow`]: what the owner wrote, resolved and immutable; [`template`] fills it with values;
//! - [`action`], [`policy`], [`risk`], [`label`]: what a step proposes, whether it may, what is at stake, and where its
//!   values came from;
//! - [`verified`], [`proof`]: what is known for sure of a sender, and of one mail;
//! - [`ladder`], [`notice`]: when the owner is told of a question, and what he is told unasked;
//! - [`diff`]: what was changed between two texts, word by word;
//! - [`autonomy`]: when a version has earned to be trusted further, and when no longer;
//! - [`tool`]: what agents may look things up with; [`sampling`]: what is shown to the owner for good;
//! - [`tier`]: which models are asked, in which order, and on what condition;
//! - [`admission`]: who begins next when not everybody can;
//! - [`schedule`], [`gather`]: when runs open by themselves, and what triggers wait for before they open one;
//! - [`budget`]: what model calls are paid from, and what follows when it is not enough;
//! - [`lineage`]: what an effect was made from;
//! - [`fold`]: text as it reads to a person; [`text`]: characters that make it look like something else;
//!   [`quiet`]: when the owner is not to be disturbed;
//! - [`ids`], [`digest`], [`money`], [`duration`], [`retry`], [`breaker`], [`retention`]: small, shared, exact.

pub mod action;
pub mod admission;
pub mod autonomy;
pub mod breaker;
pub mod budget;
pub mod diff;
pub mod digest;
pub mod duration;
pub mod event;
pub mod failure;
pub mod fold;
pub mod gather;
pub mod ids;
pub mod label;
pub mod ladder;
pub mod lineage;
pub mod money;
pub mod notice;
pub mod plan;
pub mod policy;
pub mod proof;
pub mod quiet;
pub mod retention;
pub mod retry;
pub mod risk;
pub mod run;
pub mod sampling;
pub mod schedule;
pub mod step;
pub mod template;
pub mod text;
pub mod tier;
pub mod tool;
pub mod verdict;
pub mod verified;
pub mod workflow;
