//! `steward calls`: what was said to models.

use clap::Subcommand;
use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::{Common, Fail, ids, out};

/// `steward calls`.
#[derive(clap::Args, Clone, Debug)]
pub struct CallsArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// List the calls of a run, in their order
    List {
        /// The run's id, or six or more characters of its beginning or end
        run: String,
    },
    /// Show one call word for word: what was sent, what came back
    Show {
        /// Its id, as the list shows it
        id: String,
    },
    /// Show what an effect was made from: its step, the agents behind it, their calls
    Trace {
        /// The effect's id, as the run shows it
        effect: String,
    },
}

/// Runs the command.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: CallsArgs) -> Result<(), Fail> {
    let CallsArgs { common, command } = args;
    let client = Client::find(&common)?;
    match command {
        Command::List { run } => {
            let calls = all(&client, &ids::run(&client, &run).await?).await?;
            match (common.json, calls.is_empty()) {
                (true, _) => out::json(&Value::Array(calls)),
                (false, true) => out::line("no calls"),
                (false, false) => out::line(&table(&calls)),
            }
        }
        Command::Show { id } => {
            let call = client.get(&format!("/api/v1/calls/{}", uuid(&id)?), &[]).await?;
            if common.json { out::json(&call) } else { show(&call) }
        }
        Command::Trace { effect } => {
            let traced = client.get(&format!("/api/v1/effects/{}/trace", uuid(&effect)?), &[]).await?;
            if common.json { out::json(&traced) } else { trace(&traced) }
        }
    }
}

async fn all(client: &Client, run: &str) -> Result<Vec<Value>, Fail> {
    let mut calls = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("limit", "200")];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page = client.get(&format!("/api/v1/runs/{run}/calls"), &query).await?;
        calls.extend(page["calls"].as_array().into_iter().flatten().cloned());
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => return Ok(calls),
        }
    }
}

fn uuid(text: &str) -> Result<uuid::Uuid, Fail> {
    text.parse().map_err(|_| Fail::Usage(format!("`{}` is no whole id", text.escape_debug())))
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}

fn table(calls: &[Value]) -> String {
    let rows: Vec<Vec<String>> = calls
        .iter()
        .map(|call| {
            let tokens = format!("{}+{}", call["input_tokens"], call["output_tokens"]);
            let cost =
                if call["cached"] == true { "cached".to_owned() } else { call["cost_micros"].to_string() };
            vec![
                text(call, "id"),
                text(call, "step"),
                text(call, "model"),
                tokens,
                cost,
                format!("{} ms", call["millis"]),
                text(call, "outcome"),
            ]
        })
        .collect();
    // Whole ids: they are there to be copied.
    let width = out::width().max(120);
    out::table(&["CALL", "STEP", "MODEL", "TOKENS", "MICROS", "TOOK", "OUTCOME"], &rows, width)
}

fn show(call: &Value) -> Result<(), Fail> {
    let named = [
        "run",
        "step",
        "agent",
        "model",
        "provider",
        "answered_by",
        "outcome",
        "agent_digest",
        "prompt_digest",
    ];
    for name in named {
        out::line(&format!("{name:14} {}", out::plain(&text(call, name))))?;
    }
    for name in ["attempt", "input_tokens", "output_tokens", "cost_micros", "millis", "cached", "batch"] {
        out::line(&format!("{name:14} {}", call[name]))?;
    }
    for name in ["request", "response"] {
        let body = &call[name];
        let Some(said) = body["text"].as_str() else {
            out::line(&format!("\n{name}: none"))?;
            continue;
        };
        let clipped = if body["clipped"] == true { ", only its beginning is kept" } else { "" };
        out::line(&format!("\n{name} ({} bytes{clipped}):", body["bytes"]))?;
        let pretty = serde_json::from_str::<Value>(said).ok();
        let pretty = pretty.and_then(|value| serde_json::to_string_pretty(&value).ok());
        for line in pretty.as_deref().unwrap_or(said).lines() {
            out::line(&out::plain(line))?;
        }
    }
    Ok(())
}

fn trace(traced: &Value) -> Result<(), Fail> {
    let (effect, run) = (&traced["effect"], &traced["run"]);
    let plain = |row: &Value, name: &str| out::plain(&text(row, name));
    out::line(&format!("{} ({})", plain(effect, "action"), plain(effect, "status")))?;
    out::line(&format!("run      {} of {}", plain(run, "id"), plain(run, "workflow")))?;
    out::line(&format!("step     {}", plain(traced, "step")))?;
    out::line(&format!("version  {}", plain(traced, "version")))?;
    for agent in traced["agents"].as_array().into_iter().flatten() {
        let far = if agent["named_by_effect"] == true { "" } else { " (behind another step)" };
        out::line(&format!(
            "\nstep {}{far}: agent {}, {}",
            plain(agent, "step"),
            plain(agent, "agent"),
            plain(agent, "digest")
        ))?;
        match agent["calls"].as_array() {
            Some(calls) if !calls.is_empty() => out::line(&table(calls))?,
            _ => out::line("no calls are kept")?,
        }
    }
    Ok(())
}
