//! `steward runs`: list, show, watch, cancel, hold, let go, go on, do anew.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::render::render_run;
use crate::cli::run::{bytes, parsed};
use crate::cli::watch::watch;
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
        /// Only this status: queued, running, waiting, paused, succeeded, declined, failed, cancelled, parked
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
    /// Follow a run as it happens, drafts included, until it is over
    Watch {
        /// Its id, or six or more characters of its beginning or end
        id: String,
    },
    /// Stop a run as soon as no effect is in flight, and undo what it did
    Cancel(Chosen),
    /// Hold a run: nothing begins in it
    Pause(Chosen),
    /// Let a held run go on
    Resume(Chosen),
    /// Let an ended run go on, from where it failed or from a step
    Retry {
        #[command(flatten)]
        chosen: Chosen,
        /// Do this step and those behind it anew
        #[arg(long, value_name = "STEP", requires = "id")]
        from: Option<String>,
        /// Let completed effects of those steps happen again
        #[arg(long)]
        repeat: bool,
    },
    /// Open a new run with a run's input, or with an edited one
    Rerun {
        /// Its id, or six or more characters of its beginning or end
        id: String,
        /// The edited input: a JSON file, or - for a pipe
        #[arg(long, value_name = "FILE|-")]
        input: Option<PathBuf>,
        /// Let completed effects happen again
        #[arg(long)]
        repeat: bool,
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which runs: one by its id, or all that a filter finds.
#[derive(clap::Args, Clone, Debug)]
struct Chosen {
    /// Its id, or six or more characters of its beginning or end
    #[arg(required_unless_present_any = ["status", "of_workflow", "opened_before"])]
    id: Option<String>,
    /// All runs of this status
    #[arg(long, conflicts_with = "id")]
    status: Option<String>,
    /// All runs of this workflow
    #[arg(long = "workflow", conflicts_with = "id")]
    of_workflow: Option<String>,
    /// All runs opened before this moment, such as 2026-11-25T08:00:00Z
    #[arg(long, conflicts_with = "id")]
    opened_before: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
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
        Command::Watch { id } => watch(&client, &ids::run(&client, &id).await?, common.json).await,
        Command::Cancel(chosen) => control(&client, &common, "cancel", chosen, json!({})).await,
        Command::Pause(chosen) => control(&client, &common, "pause", chosen, json!({})).await,
        Command::Resume(chosen) => control(&client, &common, "resume", chosen, json!({})).await,
        Command::Retry { chosen, from, repeat } => {
            control(&client, &common, "retry", chosen, json!({"from": from, "repeat": repeat})).await
        }
        Command::Rerun { id, input, repeat, dry_run, yes } => {
            let input = input.as_deref().map(bytes).transpose()?;
            let input: Option<Value> = input
                .map(|raw| serde_json::from_slice(&raw))
                .transpose()
                .map_err(|error| Fail::Usage(format!("the input is not JSON: {error}")))?;
            let path = format!("/api/v1/runs/{}/rerun", ids::run(&client, &id).await?);
            let mut wanted = json!({"repeat": repeat});
            if let Some(input) = input {
                wanted["input"] = input;
            }
            act(&client, &common, "rerun", &path, wanted, dry_run, yes).await
        }
    }
}

async fn control(
    client: &Client,
    common: &Common,
    verb: &str,
    chosen: Chosen,
    mut wanted: Value,
) -> Result<(), Fail> {
    let Chosen { id, status, of_workflow, opened_before, dry_run, yes } = chosen;
    let path = match id {
        Some(id) => format!("/api/v1/runs/{}/{verb}", ids::run(client, &id).await?),
        None => {
            wanted = json!({"do": verb, "status": status, "workflow": of_workflow,
                "opened_before": opened_before, "repeat": wanted["repeat"].as_bool().unwrap_or(false)});
            "/api/v1/runs/bulk".to_owned()
        }
    };
    act(client, common, verb, &path, wanted, dry_run, yes).await
}

/// Says first which effects would happen again or be undone, and asks; then does it.
async fn act(
    client: &Client,
    common: &Common,
    verb: &str,
    path: &str,
    mut wanted: Value,
    dry_run: bool,
    yes: bool,
) -> Result<(), Fail> {
    let in_body = path.ends_with("/bulk") || matches!(verb, "retry" | "rerun");
    if dry_run || !yes {
        let told = match in_body {
            true => {
                let mut dry = wanted.clone();
                dry["dry_run"] = json!(true);
                client.post(path, &dry, None).await?.body
            }
            false => client.post(&format!("{path}?dry_run=true"), &json!({}), None).await?.body,
        };
        if dry_run && common.json {
            return out::json(&told);
        }
        let lines = foretold(verb, &told);
        for line in &lines {
            match dry_run {
                true => out::line(line)?,
                false => out::note(line),
            }
        }
        if dry_run {
            return Ok(());
        }
        if weighs(&told) && !agreed(verb)? {
            return Err(Fail::Refused("nothing was changed".into()));
        }
    }
    if in_body {
        wanted["dry_run"] = json!(false);
    }
    let reply = client.post(path, &wanted, None).await?;
    if common.json {
        return out::json(&reply.body);
    }
    match (&reply.body["done"], reply.body["run"].as_str()) {
        (Value::Array(done), _) => {
            for refused in reply.body["refused"].as_array().into_iter().flatten() {
                out::note(&out::plain(refused["why"].as_str().unwrap_or_default()));
            }
            out::line(&format!("{verb}: {} runs", done.len()))
        }
        (_, run) => out::line(&format!("{verb}: run {}", run.unwrap_or_default())),
    }
}

/// What the outlook says, a line for each effect.
fn foretold(verb: &str, told: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let many = told["done"].as_array();
    if let Some(runs) = many {
        lines.push(format!("{verb}: {} runs", runs.len()));
    }
    let words =
        [("again", "would happen again"), ("undone", "would be undone"), ("kept", "is kept, not repeated")];
    for one in many.into_iter().flatten().chain(many.is_none().then_some(told)) {
        for (field, word) in words {
            for effect in one["outlook"][field].as_array().into_iter().flatten() {
                let text = |name: &str| out::plain(effect[name].as_str().unwrap_or_default());
                lines.push(format!(
                    "{word}: {} of step `{}`, {}",
                    text("action"),
                    text("step"),
                    out::moment(&text("ended_at"))
                ));
            }
        }
    }
    lines
}

/// Whether the owner has to be asked: an effect would happen again or be undone, or it is about many runs.
fn weighs(told: &Value) -> bool {
    let heavy = |one: &Value| {
        ["again", "undone"]
            .iter()
            .any(|field| one["outlook"][*field].as_array().is_some_and(|list| !list.is_empty()))
    };
    told["done"].is_array() || heavy(told)
}

fn agreed(verb: &str) -> Result<bool, Fail> {
    if !std::io::stdin().is_terminal() {
        return Err(Fail::Usage(format!("say --yes to {verb} without being asked")));
    }
    out::note(&format!("{verb}? [y/N]"));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
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
