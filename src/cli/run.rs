//! `steward run WORKFLOW`: opens a run, and watches it if asked to.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::api::view::RunView;
use crate::cli::client::{Client, Reply};
use crate::cli::render::{self, render_run};
use crate::cli::{Common, Fail, out};

/// How often a watched run is looked at: soon enough to read along.
const LOOK: Duration = Duration::from_millis(300);

/// The largest input that is read from a file or a pipe; the service refuses less.
const MAX_INPUT: u64 = 64 * 1024 * 1024;

/// `steward run`.
#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    common: Common,
    /// The workflow to run
    workflow: String,
    /// Its input: a JSON file, a raw email ending in .eml, or - for JSON from a pipe; {} when not given
    #[arg(long, value_name = "FILE|-")]
    input: Option<PathBuf>,
    /// The same key again opens nothing and gives the run that has it
    #[arg(long)]
    key: Option<String>,
    /// Treat the JSON input as someone else's words, not yours
    #[arg(long)]
    untrusted: bool,
    /// Watch until it has ended or waits for you
    #[arg(long)]
    wait: bool,
}

/// Opens the run.
///
/// # Errors
/// See [`Fail`]; with `--wait` also when the run ended otherwise than well.
pub async fn run(args: RunArgs) -> Result<(), Fail> {
    let client = Client::find(&args.common)?;
    let reply = open(&client, &args).await?;
    let known = reply.status == StatusCode::OK;
    let id = reply.body["run"].as_str().unwrap_or_default().to_owned();
    if !args.wait {
        if args.common.json {
            return out::json(&reply.body);
        }
        let opened = if known { "was open already under this key" } else { "is open" };
        return out::line(&format!("run {id} {opened}\nlook at it with: steward runs show {id}"));
    }
    let run = watch(&client, &id).await?;
    let ended_badly = !matches!(run["status"].as_str(), Some("succeeded" | "waiting" | "running" | "queued"));
    if args.common.json {
        out::json(&run)?;
    } else {
        out::line(&render_run(&parsed(run)?, out::width(), out::color()))?;
    }
    if ended_badly { Err(Fail::Said) } else { Ok(()) }
}

/// A run as the service describes it.
pub(super) fn parsed(run: Value) -> Result<RunView, Fail> {
    let other = |error| Fail::Refused(format!("the service is of another version: {error}"));
    serde_json::from_value(run).map_err(other)
}

async fn open(client: &Client, args: &RunArgs) -> Result<Reply, Fail> {
    let raw = args.input.as_deref().map(bytes).transpose()?;
    let is_mail = args
        .input
        .as_deref()
        .is_some_and(|path| path.extension().is_some_and(|end| end.eq_ignore_ascii_case("eml")));
    match raw {
        Some(_) if is_mail && args.key.is_some() => {
            Err(Fail::Usage("an email's key is its message id; leave --key out".into()))
        }
        Some(raw) if is_mail => {
            client.post_email("/hooks/email", &[("workflow", args.workflow.as_str())], raw).await
        }
        raw => {
            let input = raw.map_or_else(|| Ok(json!({})), |raw| serde_json::from_slice(&raw));
            let input: Value =
                input.map_err(|error| Fail::Usage(format!("the input is not JSON: {error}")))?;
            let label = if args.untrusted { "untrusted" } else { "owner" };
            let body = json!({"workflow": args.workflow, "input": input, "label": label});
            let key = args.key.as_deref().map(|key| ("Idempotency-Key", key));
            client.post("/api/v1/runs", &body, key).await
        }
    }
}

/// A whole file, or what is piped in for `-`.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, Fail> {
    let unreadable = |error: std::io::Error| Fail::Usage(format!("{}: {error}", path.display()));
    let mut whole = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut whole),
        false => std::fs::File::open(path).map_err(unreadable)?.take(MAX_INPUT).read_to_end(&mut whole),
    };
    read.map_err(unreadable)?;
    Ok(whole)
}

/// Tells what happens until the run has ended or waits for a person.
async fn watch(client: &Client, id: &str) -> Result<Value, Fail> {
    let mut after = 0;
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        after = tell(client, id, after).await?;
        let run = client.get(&format!("/api/v1/runs/{id}"), &[]).await?;
        let ended = !run["finished_at"].is_null();
        let asks = run["waits_for"].as_array().into_iter().flatten().any(|wait| wait["for"] == "decision");
        if ended || asks {
            tell(client, id, after).await?;
            return Ok(run);
        }
    }
}

async fn tell(client: &Client, id: &str, mut after: i64) -> Result<i64, Fail> {
    loop {
        let behind = after.to_string();
        let page = client
            .get(&format!("/api/v1/runs/{id}/journal"), &[("after", &behind), ("limit", "200")])
            .await?;
        for entry in page["entries"].as_array().into_iter().flatten() {
            after = entry["seq"].as_i64().unwrap_or(after);
            if let Some(line) = render::entry(entry) {
                out::note(&line);
            }
        }
        if page["next"].is_null() {
            return Ok(after);
        }
    }
}
