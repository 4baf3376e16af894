//! `steward audit verify`: whether every invariant still holds.

use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::out::{self, plain};
use crate::cli::{Common, Fail};

/// What takes longer than this says how far it is, as often as this.
const PROGRESS: Duration = Duration::from_secs(1);

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
    /// Check every invariant on every run: hash chains, effects, approvals, decisions, who wakes whom
    Verify,
}

/// Runs the command.
///
/// # Errors
/// [`Fail::Said`] when something does not hold.
pub async fn run(args: AuditArgs) -> Result<(), Fail> {
    let AuditArgs { common, command: Command::Verify } = args;
    let mut told = Instant::now();
    let progress = |line: &Value| {
        let progress = &line["progress"];
        if progress.is_object() && told.elapsed() >= PROGRESS {
            told = Instant::now();
            out::note(&format!("{} of {} runs checked", progress["runs"], progress["of"]));
        }
    };
    let found = Client::find(&common)?.follow("/api/v1/audit/verify", progress).await?;
    if let Some(error) = found["error"].as_str() {
        return Err(Fail::Refused(format!("the check broke off: {}", plain(error))));
    }
    match common.json {
        true => out::json(&found)?,
        false => say(&found)?,
    }
    if found["broken"].as_u64() == Some(0) { Ok(()) } else { Err(Fail::Said) }
}

fn say(found: &Value) -> Result<(), Fail> {
    let listed = found["violations"].as_array().map_or(&[][..], Vec::as_slice);
    for violation in listed {
        let text = |name: &str| violation[name].as_str().map(plain);
        let run = text("run").map(|run| format!(" run {run}:")).unwrap_or_default();
        let (invariant, what) = (text("invariant").unwrap_or_default(), text("what").unwrap_or_default());
        out::line(&format!("{invariant}{run} {what}"))?;
    }
    let broken = found["broken"].as_u64().unwrap_or_default();
    if broken > listed.len() as u64 {
        out::line(&format!("… and {} more", broken - listed.len() as u64))?;
    }
    let checked = &found["checked"];
    out::line(&format!(
        "{} of {} runs verified: {} journal entries, {} effects, {} reviews",
        found["verified"], found["runs"], checked["entries"], checked["effects"], checked["reviews"]
    ))
}
