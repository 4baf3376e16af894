//! store

pub mod postgres;
