//! What answers a prompt.
