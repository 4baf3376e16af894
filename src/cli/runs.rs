//! `steward runs`: list, show, cancel.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::render::render_run;
use crate::cli::run::parsed;
use crate::cli::{Common, Fail, ids, out};

/// `steward runs`.
#[derive(clap::Args, Clone, Debug)]
pub struct RunsArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// List runs, the newest first
    List {
        /// Only this status: running, waiting, succeeded, declined, failed, cancelled, parked
        #[arg(long)]
        status: Option<String>,
        /// Only this workflow
        #[arg(long)]
        workflow: Option<String>,
        /// At most so many
        #[arg(long, default_value = "20")]
        limit: u32,
        /// Go on behind an earlier page
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Draw one run: its steps, attempts, durations, cost, and what it waits for
    Show {
        /// Its id, or six or more characters of its beginning or end
        id: String,
    },
    /// Stop a run as soon as no effect is in flight
    Cancel {
        /// Its id, or six or more characters of its beginning or end
        id: String,
    },
}

/// Runs the command.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: RunsArgs) -> Result<(), Fail> {
    let RunsArgs { common, command } = args;
    let client = Client::find(&common)?;
    match command {
        Command::List { status, workflow, limit, cursor } => {
            let limit = limit.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(status.as_deref().map(|status| ("status", status)));
            query.extend(workflow.as_deref().map(|workflow| ("workflow", workflow)));
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = client.get("/api/v1/runs", &query).await?;
            if common.json { out::json(&page) } else { list(&page) }
        }
        Command::Show { id } => {
            let id = ids::run(&client, &id).await?;
            let run = client.get(&format!("/api/v1/runs/{id}"), &[]).await?;
            match common.json {
                true => out::json(&run),
                false => out::line(&render_run(&parsed(run)?, out::width(), out::color())),
            }
        }
        Command::Cancel { id } => {
            let id = ids::run(&client, &id).await?;
            let reply = client.post(&format!("/api/v1/runs/{id}/cancel"), &json!({}), None).await?;
            match common.json {
                true => out::json(&reply.body),
                false => out::line(&format!("run {id} stops as soon as no effect is in flight")),
            }
        }
    }
}

fn list(page: &Value) -> Result<(), Fail> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let rows = page["runs"].as_array().into_iter().flatten().map(|row| {
        let id = ids::short(row["id"].as_str().unwrap_or_default()).to_owned();
        let opened = out::moment(row["opened_at"].as_str().unwrap_or_default());
        vec![id, text(row, "status"), text(row, "workflow"), opened, text(row, "title")]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return out::line("no runs");
    }
    out::line(&out::table(&["ID", "STATUS", "WORKFLOW", "OPENED", "TITLE"], &rows, out::width()))?;
    if let Some(next) = page["next"].as_str() {
        out::note(&format!("there are more: --cursor {next}"));
    }
    Ok(())
}
