//! `steward workflows`: how far each version is trusted, what it has shown, and changing that by hand.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::{Common, Fail, out};
use crate::domain::duration::told;

/// `steward workflows`.
#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WorkflowsArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
    /// The versions of this workflow; all workflows when not given
    name: Option<String>,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Let policy alone decide from now on
    #[command(disable_version_flag = true)]
    Promote {
        #[command(flatten)]
        which: Which,
    },
    /// Review every effect that leaves the house from now on
    #[command(disable_version_flag = true)]
    Demote {
        #[command(flatten)]
        which: Which,
    },
}

/// The version to change.
#[derive(clap::Args, Clone, Debug)]
struct Which {
    /// The workflow
    name: String,
    /// The version's number; the one that new runs get when not given
    #[arg(long, value_name = "NUMBER")]
    version: Option<i32>,
    /// Why, for the log
    #[arg(long)]
    reason: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: WorkflowsArgs) -> Result<(), Fail> {
    let client = Client::find(&args.common)?;
    let json = args.common.json;
    match (args.command, args.name) {
        (Some(Command::Promote { which }), _) => change(&client, &which, "promote", json).await,
        (Some(Command::Demote { which }), _) => change(&client, &which, "demote", json).await,
        (None, Some(name)) => show(&client, &name, json).await,
        (None, None) => list(&client, json).await,
    }
}

async fn list(client: &Client, json: bool) -> Result<(), Fail> {
    let found = client.get("/api/v1/workflows", &[]).await?;
    if json {
        return out::json(&found);
    }
    let rows = versions(&found["workflows"], true);
    match rows.is_empty() {
        true => out::line("no workflows"),
        false => out::line(&out::table(&head("WORKFLOW"), &rows, out::width())),
    }
}

async fn show(client: &Client, name: &str, json: bool) -> Result<(), Fail> {
    let found = client.get(&format!("/api/v1/workflows/{}", segment(name)), &[]).await?;
    if json {
        return out::json(&found);
    }
    out::line(&out::table(&head("NOW"), &versions(&found["versions"], false), out::width()))?;
    let changes: Vec<Vec<String>> = found["changes"].as_array().into_iter().flatten().map(changed).collect();
    if changes.is_empty() {
        return Ok(());
    }
    let head = ["WHEN", "VERSION", "WAS", "STAGE", "BY", "WHY"];
    out::line(&format!("\n{}", out::table(&head, &changes, out::width())))
}

async fn change(client: &Client, which: &Which, what: &str, json: bool) -> Result<(), Fail> {
    let path = format!("/api/v1/workflows/{}/{what}", segment(&which.name));
    let body = json!({"version": which.version, "reason": which.reason.clone().unwrap_or_default()});
    let reply = client.post(&path, &body, None).await?.body;
    if json {
        return out::json(&reply);
    }
    let (number, stage) = (&reply["number"], text(&reply, "stage"));
    let already = if reply["changed"] == true { "now" } else { "already" };
    out::line(&format!("{}, version {number}, is {already} {stage}", out::plain(&which.name)))
}

/// A name as one part of a path.
fn segment(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

fn head(first: &'static str) -> [&'static str; 10] {
    [first, "VERSION", "STAGE", "SINCE", "ACTION", "UNCHANGED", "EDITED", "REJECTED", "EXPIRED", "MEDIAN"]
}

/// A line for each action of each version; one without any for a version that nothing was decided about.
fn versions(list: &Value, named: bool) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for version in list.as_array().into_iter().flatten() {
        let first = match named {
            true => text(version, "workflow"),
            false => if version["current"] == true { "→" } else { "" }.to_owned(),
        };
        let since = version["staged_at"].as_str().map(out::moment).unwrap_or_default();
        let about = [first, version["number"].to_string(), text(version, "stage"), since];
        let actions = version["actions"].as_array().filter(|actions| !actions.is_empty());
        let Some(actions) = actions else {
            rows.push([about.to_vec(), vec![String::new(); 6]].concat());
            continue;
        };
        for (index, action) in actions.iter().enumerate() {
            let about = if index == 0 { about.to_vec() } else { vec![String::new(); 4] };
            let count = |name: &str| action[name].to_string();
            let counts = ["edited", "rejected", "expired"].map(count);
            let unchanged = format!("{} ({})", count("approved"), share(&action["unchanged"]));
            let shown = [vec![text(action, "action"), unchanged], counts.to_vec()].concat();
            rows.push([about, shown, vec![took(&action["median_seconds"])]].concat());
        }
    }
    rows
}

fn changed(change: &Value) -> Vec<String> {
    let at = change["at"].as_str().map(out::moment).unwrap_or_default();
    let texts = ["was", "stage", "by", "reason"].map(|name| text(change, name));
    [vec![at, change["number"].to_string()], texts.to_vec()].concat()
}

fn text(value: &Value, name: &str) -> String {
    out::plain(value[name].as_str().unwrap_or_default())
}

/// A share as percent; a dash where there is none.
pub(super) fn share(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

/// A length of time as people say it; a dash where there is none.
pub(super) fn took(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_f64() else { return "–".to_owned() };
    told((seconds * 1000.0) as i64) // saturates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_a_line_for_each_action_and_one_when_there_is_none() {
        let list = json!([
            {"workflow": "lead", "number": 2, "stage": "live", "current": true, "actions": [
                {"action": "email.send", "approved": 19, "edited": 1, "rejected": 0, "expired": 2,
                    "unchanged": 0.95, "median_seconds": 75.0},
                {"action": "http.request", "approved": 0, "edited": 0, "rejected": 0, "expired": 0,
                    "unchanged": null, "median_seconds": null}]},
            {"workflow": "support", "number": 1, "stage": "supervised", "current": true, "actions": []},
        ]);
        let rows = versions(&list, true);
        assert_eq!(rows[0][4..], ["email.send", "19 (95 %)", "1", "0", "2", "1 min 15 s"]);
        assert_eq!(rows[1][..5], ["", "", "", "", "http.request"]);
        assert_eq!(rows[2][..3], ["support", "1", "supervised"]);
        assert!(rows.iter().all(|row| row.len() == head("x").len()));
    }

    #[test]
    fn times_are_said_in_the_unit_that_fits() {
        let said = [0.4, 59.0, 600.0, 5400.0, 864_000.0].map(|seconds| took(&json!(seconds)));
        assert_eq!(said, ["400 ms", "59 s", "10 min", "1 h 30 min", "10 d"]);
        assert_eq!((took(&Value::Null), share(&json!(1.0))), ("–".to_owned(), "100 %".to_owned()));
    }
}
