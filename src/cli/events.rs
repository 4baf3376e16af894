//! `steward event`: tells what runs wait for.

use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::{Common, Fail, out};

/// `steward event`.
#[derive(clap::Args, Clone, Debug)]
pub struct EventArgs {
    #[command(flatten)]
    common: Common,
    /// Its name, such as contract.signed
    event: String,
    /// What it is about: what the step's `match` gives
    #[arg(long = "match", value_name = "TEXT")]
    matches: String,
    /// What it brings
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// The same key again is the same event
    #[arg(long)]
    key: Option<String>,
    /// Treat what it brings as someone else's words, not yours
    #[arg(long)]
    untrusted: bool,
}

/// Brings the event.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: EventArgs) -> Result<(), Fail> {
    let client = Client::find(&args.common)?;
    let data = args.data.as_deref().map(serde_json::from_str::<Value>).transpose();
    let data = data.map_err(|error| Fail::Usage(format!("--data is not JSON: {error}")))?;
    let label = if args.untrusted { "untrusted" } else { "owner" };
    let body = json!({"event": args.event, "match": args.matches, "data": data, "label": label});
    let key = args.key.as_deref().map(|key| ("Idempotency-Key", key));
    let reply = client.post("/api/v1/events", &body, key).await?;
    if args.common.json {
        return out::json(&reply.body);
    }
    match reply.body["runs"].as_array().map_or(0, Vec::len) {
        0 => out::line("kept; no run waits for it yet"),
        1 => out::line("one run waited for it"),
        many => out::line(&format!("{many} runs waited for it")),
    }
}
