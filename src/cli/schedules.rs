//! `steward schedules`: what will open a run by itself, and when.

use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::{Common, Fail, ids, out};

/// `steward schedules`.
#[derive(clap::Args, Clone, Debug)]
pub struct SchedulesArgs {
    #[command(flatten)]
    common: Common,
}

/// Runs the command.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: SchedulesArgs) -> Result<(), Fail> {
    let found = Client::find(&args.common)?.get("/api/v1/schedules", &[]).await?;
    if args.common.json {
        return out::json(&found);
    }
    let schedules = rows(&found["schedules"], |row| {
        vec![
            text(row, "workflow"),
            text(row, "name"),
            moment(&row["next_at"], "over"),
            moment(&row["last_at"], "never"),
            ids::short(row["last_run"].as_str().unwrap_or("–")).to_owned(),
            row["skipped"].to_string(),
            row["missed"].to_string(),
            text(row, "problem"),
        ]
    });
    let head = ["WORKFLOW", "SCHEDULE", "NEXT", "LAST", "RUN", "SKIPPED", "MISSED", "PROBLEM"];
    match schedules.is_empty() {
        true => out::line("no schedules")?,
        false => out::line(&out::table(&head, &schedules, out::width()))?,
    }
    let gathered = rows(&found["gathered"], |row| {
        let (due, items) = (moment(&row["due_at"], ""), row["items"].to_string());
        vec![text(row, "workflow"), text(row, "trigger"), text(row, "key"), items, due, text(row, "problem")]
    });
    if gathered.is_empty() {
        return Ok(());
    }
    let head = ["WORKFLOW", "GATHERED BY", "KEY", "INPUTS", "DUE", "PROBLEM"];
    out::line(&format!("\n{}", out::table(&head, &gathered, out::width())))
}

fn rows(list: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    list.as_array().into_iter().flatten().map(row).collect()
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}

fn moment(at: &Value, none: &str) -> String {
    at.as_str().map_or_else(|| none.to_owned(), out::moment)
}
