//! `steward notices`: what the owner should know, and that he has seen it.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::{Common, Fail, ids, out};

/// `steward notices`.
#[derive(clap::Args, Clone, Debug)]
pub struct NoticesArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// List what stands, the newest first
    List {
        /// Also what is acknowledged or over
        #[arg(long)]
        all: bool,
    },
    /// You have seen it
    Ack {
        /// Its id, or six or more characters of its beginning or end
        id: String,
    },
}

/// Runs the command.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: NoticesArgs) -> Result<(), Fail> {
    let NoticesArgs { common, command } = args;
    let client = Client::find(&common)?;
    match command.unwrap_or(Command::List { all: false }) {
        Command::List { all } => list(&client, all, common.json).await,
        Command::Ack { id } => {
            let id = ids::notice(&client, &id).await?;
            let path = format!("/api/v1/notices/{id}/acknowledge");
            let reply = client.post(&path, &json!({}), None).await?.body;
            if common.json { out::json(&reply) } else { out::line("acknowledged") }
        }
    }
}

async fn list(client: &Client, all: bool, as_json: bool) -> Result<(), Fail> {
    let query: &[(&str, &str)] = if all { &[("all", "true")] } else { &[] };
    let reply = client.get("/api/v1/notices", query).await?;
    if as_json {
        return out::json(&reply);
    }
    let text = |row: &Value, name: &str| out::plain(row[name].as_str().unwrap_or_default());
    let mut any = false;
    for row in reply["notices"].as_array().into_iter().flatten() {
        any = true;
        let id = text(row, "id");
        let times = match row["times"].as_i64() {
            Some(times) if times > 1 => format!(" · {times} times"),
            _ => String::new(),
        };
        let over = match (row["acknowledged_at"].is_null(), row["over_at"].is_null()) {
            (true, true) => "",
            (false, _) => " · acknowledged",
            (true, false) => " · over",
        };
        let at = out::moment(&text(row, "last_at"));
        let head = format!("{} {} · {at}{times}{over}", ids::short(&id), text(row, "severity"));
        out::line(&out::cut(&head, out::width()))?;
        out::line(&out::cut(&format!("  {}", text(row, "title")), out::width()))?;
        out::line(&format!("  {}", text(row, "detail")))?;
    }
    match any {
        true => Ok(()),
        false => out::line("nothing to know"),
    }
}
