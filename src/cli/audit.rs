//! `steward audit verify`: whether every hash chain still holds.

use clap::Subcommand;

use crate::cli::client::Client;
use crate::cli::out::{self, plain};
use crate::cli::{Common, Fail};

/// `steward audit`.
#[derive(clap::Args, Clone, Debug)]
pub struct AuditArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Check the hash chain of every run
    Verify,
}

/// Runs the command.
///
/// # Errors
/// [`Fail::Said`] when a chain is broken.
pub async fn run(args: AuditArgs) -> Result<(), Fail> {
    let AuditArgs { common, command: Command::Verify } = args;
    let found = Client::find(&common)?.get("/api/v1/audit/verify", &[]).await?;
    if common.json {
        out::json(&found)?;
    } else {
        for broken in found["breaks"].as_array().into_iter().flatten() {
            let text = |name: &str| plain(broken[name].as_str().unwrap_or_default());
            out::line(&format!("run {}, entry {}: {}", text("run"), broken["seq"], text("why")))?;
        }
        out::line(&format!("{} of {} runs verified", found["verified"], found["runs"]))?;
    }
    if found["broken"].as_u64() == Some(0) { Ok(()) } else { Err(Fail::Said) }
}
