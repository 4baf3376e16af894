//! What opens a run: input from outside, parsed and made safe to hold.
//!
//! | module | what it holds |
//! |---|---|
//! | [`email`] | a raw RFC 5322 message into the input of an email workflow; pure |
//! | [`mail`] | which workflow a message is for, and the run it opens |
//! | [`files`] | the inbox folder: messages dropped into it |
//! | [`gather`] | triggers that wait: the last of several inputs, or all of them at once |
//! | [`schedule`] | the clock: schedules, and what has been gathered |
//! | [`webhook`] | signed JSON: the signature first, everything else after it |

pub mod email;
pub mod files;
pub mod gather;
pub mod mail;
pub mod schedule;
pub mod webhook;
