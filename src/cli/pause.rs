//! `steward pause` and `steward resume`: the kill switch, for everything or one workflow.

use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::{Common, Fail, out};

/// `steward pause` and `steward resume`.
#[derive(clap::Args, Clone, Debug)]
pub struct PauseArgs {
    #[command(flatten)]
    common: Common,
    /// This workflow alone; everything when not given
    #[arg(long)]
    workflow: Option<String>,
}

/// Holds, or lets go.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: PauseArgs, hold: bool) -> Result<(), Fail> {
    let client = Client::find(&args.common)?;
    let path = if hold { "/api/v1/pause" } else { "/api/v1/resume" };
    let reply = client.post(path, &json!({"workflow": args.workflow}), None).await?;
    if args.common.json {
        return out::json(&reply.body);
    }
    let held: Vec<String> = reply.body["pauses"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row: &Value| out::plain(row["scope"].as_str().unwrap_or_default()))
        .collect();
    match held.as_slice() {
        [] => out::line("nothing is held"),
        held => out::line(&format!("held: {}; nothing begins there until `steward resume`", held.join(", "))),
    }
}
