//! `steward reviews`: what waits for the owner, and the decision on it. Every decision carries the
//! digest of what was looked at, so that nothing else can slip under it.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::render::render_review;
use crate::cli::run::bytes;
use crate::cli::stats::stats;
use crate::cli::{Common, Fail, asides, form, ids, out};

/// `steward reviews`.
#[derive(clap::Args, Clone, Debug)]
pub struct ReviewsArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// List reviews, the oldest first
    List {
        /// Only this status: open, approved, edited, rejected, answered, expired, superseded
        #[arg(long, default_value = "open")]
        status: String,
        /// At most so many
        #[arg(long, default_value = "50")]
        limit: u32,
        /// Go on behind an earlier page
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Count: open, time to decide, shares unchanged and expired, by workflow
    Stats {
        /// Only what was decided in the last so many days
        #[arg(long)]
        days: Option<u32>,
    },
    /// Show what is asked, why, and what it rests on
    Show {
        /// Its id, or six or more characters of its beginning or end
        id: String,
    },
    /// Do exactly this
    Approve {
        #[command(flatten)]
        which: Which,
    },
    /// Do this instead
    Edit {
        #[command(flatten)]
        which: Which,
        /// The parameters to use, YAML or JSON, from a file or - for a pipe; $EDITOR when not given
        #[arg(long, value_name = "FILE|-")]
        params: Option<PathBuf>,
    },
    /// Do not
    Reject {
        #[command(flatten)]
        which: Which,
        /// Why, for the journal
        #[arg(long)]
        reason: Option<String>,
    },
    /// Give the draft back to its agent, which makes another one
    Respond {
        #[command(flatten)]
        which: Which,
        /// What the agent is to heed
        words: String,
    },
    /// Do all of these: alike, and of low risk
    ApproveAll {
        /// Their ids, or six or more characters of their beginnings or ends
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Do none of these: alike, and of low risk
    RejectAll {
        /// Their ids, or six or more characters of their beginnings or ends
        #[arg(required = true)]
        ids: Vec<String>,
        /// Why, for the journal
        #[arg(long)]
        reason: Option<String>,
    },
    /// Say something to a review without deciding it
    Comment {
        /// Its id, or six or more characters of its beginning or end
        id: String,
        /// What to say
        text: String,
    },
    /// Be left alone with a review until then
    Snooze {
        /// Its id, or six or more characters of its beginning or end
        id: String,
        /// For how long, such as 2h or 1d; or until a moment, such as 2026-12-24T09:00:00Z
        until: String,
    },
    /// See how much drafts were changed, by workflow version and action
    Edits {
        /// This workflow alone
        #[arg(long)]
        workflow: Option<String>,
    },
    /// Answer a question
    Answer {
        #[command(flatten)]
        which: Which,
        /// The answer as JSON, or @FILE; asked for field by field when not given
        #[arg(long, value_name = "JSON|@FILE")]
        value: Option<String>,
    },
}

/// The review to decide.
#[derive(clap::Args, Clone, Debug)]
struct Which {
    /// Its id, or six or more characters of its beginning or end
    id: String,
    /// Decide only if it is still about this digest, as `reviews show` prints it
    #[arg(long)]
    digest: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: ReviewsArgs) -> Result<(), Fail> {
    let ReviewsArgs { common, command } = args;
    let client = Client::find(&common)?;
    let (which, wanted) = match command {
        Command::List { status, limit, cursor } => {
            return list(&client, &status, limit, cursor.as_deref(), common.json).await;
        }
        Command::Stats { days } => return stats(&client, days, common.json).await,
        Command::Show { id } => {
            let review = load(&client, &id).await?;
            return match common.json {
                true => out::json(&review),
                false => out::line(&render_review(&review, out::width(), out::color())),
            };
        }
        Command::ApproveAll { ids } => {
            return asides::decide_all(&client, &ids, true, None, common.json).await;
        }
        Command::RejectAll { ids, reason } => {
            return asides::decide_all(&client, &ids, false, reason, common.json).await;
        }
        Command::Comment { id, text } => return asides::comment(&client, &id, &text, common.json).await,
        Command::Snooze { id, until } => return asides::snooze(&client, &id, &until, common.json).await,
        Command::Edits { workflow } => {
            return asides::edits(&client, workflow.as_deref(), common.json).await;
        }
        Command::Respond { which, words } => (which, Wanted::Respond(words)),
        Command::Approve { which } => (which, Wanted::Approve),
        Command::Edit { which, params } => (which, Wanted::Edit(params)),
        Command::Reject { which, reason } => (which, Wanted::Reject(reason)),
        Command::Answer { which, value } => (which, Wanted::Answer(value)),
    };
    let review = load(&client, &which.id).await?;
    let body = body(&review, wanted).await?;
    decide(&client, &review, which.digest.as_deref(), &body, common.json).await
}

/// What the owner wants to say.
enum Wanted {
    Approve,
    Edit(Option<PathBuf>),
    Reject(Option<String>),
    Answer(Option<String>),
    Respond(String),
}

pub(super) async fn load(client: &Client, id: &str) -> Result<Value, Fail> {
    let id = ids::review(client, id).await?;
    client.get(&format!("/api/v1/reviews/{id}"), &[]).await
}

async fn list(
    client: &Client,
    status: &str,
    limit: u32,
    cursor: Option<&str>,
    as_json: bool,
) -> Result<(), Fail> {
    let limit = limit.to_string();
    let mut query = vec![("status", status), ("limit", &limit)];
    query.extend(cursor.map(|cursor| ("cursor", cursor)));
    let page = client.get("/api/v1/reviews", &query).await?;
    if as_json {
        return out::json(&page);
    }
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let rows = page["reviews"].as_array().into_iter().flatten().map(|row| {
        let id = ids::short(row["id"].as_str().unwrap_or_default()).to_owned();
        vec![id, text(row, "ask"), out::moment(&text(row, "opened_at")), text(row, "title")]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return out::line(&format!("no {status} reviews"));
    }
    out::line(&out::table(&["ID", "ASKS FOR", "OPENED", "TITLE"], &rows, out::width()))?;
    if status == "open" {
        out::note("look at one with: steward reviews show ID");
    }
    if let Some(next) = page["next"].as_str() {
        out::note(&format!("there are more: --cursor {next}"));
    }
    Ok(())
}

/// The body of the decision, all but its digest.
async fn body(review: &Value, wanted: Wanted) -> Result<Value, Fail> {
    Ok(match wanted {
        Wanted::Approve => json!({"verdict": "approved"}),
        Wanted::Respond(words) => json!({"verdict": "responded", "words": words}),
        Wanted::Reject(Some(reason)) => json!({"verdict": "rejected", "reason": reason}),
        Wanted::Reject(None) => json!({"verdict": "rejected"}),
        Wanted::Edit(file) => json!({"verdict": "edited", "params": edited(review, file).await?}),
        Wanted::Answer(value) => json!({"verdict": "answered", "answer": answer(review, value).await?}),
    })
}

async fn decide(
    client: &Client,
    review: &Value,
    digest: Option<&str>,
    body: &Value,
    as_json: bool,
) -> Result<(), Fail> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let seen = digest.map_or_else(|| text(&review["digest"]), str::to_owned);
    let path = format!("/api/v1/reviews/{}/decision", text(&review["id"]));
    let tag = format!("\"{seen}\"");
    let reply = client.post(&path, body, Some(("If-Match", &tag))).await?.body;
    if as_json {
        return out::json(&reply);
    }
    let run = text(&reply["run"]);
    out::line(&format!("{}; the run goes on: steward runs show {}", text(&reply["status"]), ids::short(&run)))
}

async fn edited(review: &Value, file: Option<PathBuf>) -> Result<Value, Fail> {
    let before = &review["question"]["action"]["params"];
    if !before.is_object() {
        return Err(Fail::Refused("this review has no action to edit".into()));
    }
    let after = match file {
        Some(file) => parse(&String::from_utf8_lossy(&bytes(&file)?))?,
        None => {
            let (before, id) = (before.clone(), review["id"].as_str().unwrap_or_default().to_owned());
            let edit = tokio::task::spawn_blocking(move || in_editor(&before, &id));
            edit.await.map_err(|error| Fail::Refused(error.to_string()))??
        }
    };
    match after == *before {
        true => Err(Fail::Refused("nothing was changed; `steward reviews approve` does it as it is".into())),
        false => Ok(after),
    }
}

/// YAML, because a letter in JSON is one endless line; JSON is read as well.
fn written(params: &Value) -> Result<String, Fail> {
    let yaml = serde_saphyr::to_string(params).map_err(|error| Fail::Refused(error.to_string()))?;
    Ok(format!(
        "# Change what is to be done, save, and close the editor. An empty file changes nothing.\n{yaml}"
    ))
}

fn parse(text: &str) -> Result<Value, Fail> {
    if let Ok(json) = serde_json::from_str(text) {
        return Ok(json);
    }
    serde_saphyr::from_str(text).map_err(|error| Fail::Usage(format!("the parameters are no YAML: {error}")))
}

/// Opens the parameters in the owner's editor. A text that cannot be read is kept, with its place told.
fn in_editor(params: &Value, id: &str) -> Result<Value, Fail> {
    if !std::io::stdin().is_terminal() {
        return Err(Fail::Usage(
            "there is no terminal for an editor: give --params FILE or --params -".into(),
        ));
    }
    let path = std::env::temp_dir().join(format!("steward-edit-{}-{id}.yaml", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(written(params)?.as_bytes())?;
    drop(file);
    let text = edit(&path)?;
    let read = match text.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
        true => Ok(params.clone()),
        false => parse(&text),
    };
    match read {
        Ok(value) => {
            let _ = std::fs::remove_file(&path);
            Ok(value)
        }
        Err(fail) => Err(Fail::Usage(format!(
            "{fail}\nyour text is kept in {0}; mend it and give --params {0}",
            path.display()
        ))),
    }
}

fn edit(path: &Path) -> Result<String, Fail> {
    let named = ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|editor| !editor.is_empty()));
    let editor = named.unwrap_or_else(|| "vi".to_owned());
    // Through the shell, because people write arguments into $EDITOR; the path is no part of the script.
    let script = format!("{editor} \"$1\"");
    let status = std::process::Command::new("sh").args(["-c", &script, "sh"]).arg(path).status()?;
    if !status.success() {
        let _ = std::fs::remove_file(path);
        return Err(Fail::Refused(format!("`{editor}` ended with {status}; nothing was decided")));
    }
    Ok(std::fs::read_to_string(path)?)
}

async fn answer(review: &Value, value: Option<String>) -> Result<Value, Fail> {
    let form = review["question"]["form"].clone();
    if form.is_null() {
        return Err(Fail::Refused("this review has no form; approve or reject it".into()));
    }
    match value {
        Some(value) => match value.strip_prefix('@') {
            Some(file) => form::value(&form, String::from_utf8_lossy(&bytes(Path::new(file))?).trim()),
            None => form::value(&form, &value),
        },
        None if std::io::stdin().is_terminal() => {
            out::note(&render_review(review, out::width(), false));
            let ask = move || form::ask(&form, &mut std::io::stdin().lock(), &mut std::io::stderr().lock());
            tokio::task::spawn_blocking(ask).await.map_err(|error| Fail::Refused(error.to_string()))?
        }
        None => Err(Fail::Usage("there is no terminal to ask on: give --value JSON or --value @FILE".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_in_the_editor_comes_back_exactly_as_it_was() {
        let params = json!({
            "to": "a@b.example", "subject": "Re: no: yes # 1", "cc": [], "n": 1.5, "yes": "true",
            "body": "Dear Anna,\n\n  indented: line\n- list\n#hash\n\ttab\n\nBest\n\n", "end": "no newline", "empty": "",
            "odd": " leading and trailing ", "unicode": "Grüße 世界", "quote": "\"'`", "null": null,
        });
        assert_eq!(parse(&written(&params).unwrap()).unwrap(), params);
    }

    #[test]
    fn parameters_may_be_json_as_well() {
        assert_eq!(parse("{\"to\": \"a\"}").unwrap(), json!({"to": "a"}));
        assert!(matches!(parse("{"), Err(Fail::Usage(_))));
    }
}
