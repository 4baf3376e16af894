//! `steward policy`: what your rules make of an action, and what a change of them would have made of the last ones.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::{Common, Fail, out};

/// `steward policy`.
#[derive(clap::Args, Clone, Debug)]
pub struct PolicyArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// What the rules in force make of an action, with every reason and the facts used
    #[command(after_help = EXAMPLE)]
    Explain {
        /// A JSON file with `action`, `params` and whatever else is to be assumed; `-` for standard input
        action: PathBuf,
    },
    /// What a changed policy file would have made of the last proposals; nothing is changed by it
    Try {
        /// The file; config/policy.yaml of the workspace, as it lies there now, when not given
        file: Option<PathBuf>,
        /// How many of the last proposals
        #[arg(long, value_name = "N", default_value_t = 200)]
        last: u32,
    },
}

/// Shown below the help.
const EXAMPLE: &str = r#"An action as it could be proposed, all fields but the first two left out where nothing is known:
  {"action": "email.send",
   "params": {"to": "ann@client.example", "subject": "Offer", "body": "That would be 1,200.50 €"},
   "labels": {"to": "untrusted", "body": "model"}, "workflow": "lead-intake", "stage": "live",
   "confidence": 0.8, "from": "ann@client.example", "authenticated": "client.example"}"#;

/// Runs the command.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: PolicyArgs) -> Result<(), Fail> {
    let PolicyArgs { common, command } = args;
    let client = Client::find(&common)?;
    match command {
        Command::Explain { action } => {
            let text = read(&action)?;
            let action: Value = serde_json::from_str(&text)
                .map_err(|error| Fail::Usage(format!("{} is not JSON: {error}", action.display())))?;
            let explained = client.post("/api/v1/policy/explain", &action, None).await?.body;
            if common.json { out::json(&explained) } else { explain(&explained) }
        }
        Command::Try { file, last } => {
            let file = file.unwrap_or_else(|| client.workspace.join("config/policy.yaml"));
            let body = json!({"policy": read(&file)?, "last": last});
            let tried = client.post("/api/v1/policy/try", &body, None).await?.body;
            if common.json { out::json(&tried) } else { differences(&tried) }
        }
    }
}

fn read(path: &Path) -> Result<String, Fail> {
    let read = match path == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin().lock().take(1024 * 1024)),
        false => std::fs::read_to_string(path),
    };
    read.map_err(|error| Fail::Usage(format!("{} cannot be read: {error}", path.display())))
}

fn text(value: &Value) -> String {
    out::plain(value.as_str().unwrap_or_default())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn explain(explained: &Value) -> Result<(), Fail> {
    let reversible = if explained["stakes"]["reversible"] == true { "can be taken back" } else { "final" };
    let tags: Vec<String> = list(&explained["stakes"]["tags"]).map(text).collect();
    let tags = if tags.is_empty() { String::new() } else { format!(", {}", tags.join(", ")) };
    out::line(&format!(
        "{} · {} risk, {reversible}{tags}",
        text(&explained["ruling"]),
        text(&explained["stakes"]["risk"])
    ))?;
    for finding in list(&explained["findings"]) {
        let rule =
            finding["rule"].as_str().map_or_else(String::new, |rule| format!("  [{}]", out::plain(rule)));
        out::line(&format!("  {:<7}{}{rule}", text(&finding["ruling"]), text(&finding["reason"])))?;
    }
    out::line("")?;
    out::line("What rules could ask about:")?;
    for (name, value) in explained["names"].as_object().into_iter().flatten() {
        if name != "params" {
            out::line(&format!("  {name} = {}", out::plain(&value.to_string())))?;
        }
    }
    Ok(())
}

fn differences(tried: &Value) -> Result<(), Fail> {
    for one in list(&tried["differences"]) {
        out::line(&format!(
            "{} → {}  {} risk → {}  {}  {}  run {} step {}",
            text(&one["now"]["ruling"]),
            text(&one["then"]["ruling"]),
            text(&one["now"]["risk"]),
            text(&one["then"]["risk"]),
            text(&one["workflow"]),
            text(&one["action"]["action"]),
            text(&one["run"]),
            text(&one["step"]),
        ))?;
        for reason in list(&one["then"]["reasons"]) {
            out::line(&format!("    {}", text(reason)))?;
        }
    }
    let changes: Vec<String> = tried["changes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(change, count)| format!("{change}: {count}"))
        .collect();
    let judged = tried["judged"].as_u64().unwrap_or(0);
    let summary =
        if changes.is_empty() { "no ruling becomes another".to_owned() } else { changes.join(", ") };
    out::line(&format!("{judged} proposals judged; {summary}"))?;
    match tried["recomputed"].as_u64() {
        None | Some(0) => Ok(()),
        Some(count) => out::line(&format!(
            "{count} of them have no facts recorded: what was done before them is not known any more"
        )),
    }
}
