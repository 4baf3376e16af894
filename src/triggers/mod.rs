//! What opens a run: input from outside, parsed and made safe to hold.
//!
//! | module | what it holds |
//! |---|---|
//! | [`email`] | a raw RFC 5322 message into the input of an email workflow; pure |
//! | [`mail`] | which workflow a message is for, and the run it opens |
//! | [`files`] | the inbox folder: messages dropped into it |
//! | [`webhook`] | signed JSON: the signature first, everything else after it |

pub mod email;
pub mod files;
pub mod mail;
pub mod webhook;
