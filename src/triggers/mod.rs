//! What opens a run: input from outside, parsed and made safe to hold.
//!
//! | module | what it holds |
//! |---|---|
//! | [`email`] | a raw RFC 5322 message into the input of an email workflow; pure |

pub mod email;
