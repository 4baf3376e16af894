//! `steward up` and `steward demo`: the arguments; [`crate::app`] does the work.

use std::net::SocketAddr;
use std::path::PathBuf;

/// `steward up`.
#[derive(clap::Args, Clone, Debug)]
pub struct UpArgs {
    /// The workspace folder; the nearest parent folder with config/settings.yaml when not given
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Where to listen, before what config/settings.yaml says; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
}

/// `steward demo`.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// The workspace folder; a fresh one when not given
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Stop once every example has been dealt with
    #[arg(long)]
    pub exit: bool,
    /// Make the last line one JSON object
    #[arg(long)]
    pub json: bool,
}
