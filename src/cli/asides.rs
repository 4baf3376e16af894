//! What `steward reviews` does beside deciding one review: several at once, comments, snoozes, what was
//! changed; and `steward effects`, which calls back what was approved.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::{Common, Fail, ids, out, reviews};
use crate::domain::duration::Span;

/// `steward effects`.
#[derive(clap::Args, Clone, Debug)]
pub struct EffectsArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Call back what was approved and has not gone out yet: you are asked anew
    CallBack {
        /// The effect's id, as the run shows it
        id: String,
    },
}

/// Runs `steward effects`.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: EffectsArgs) -> Result<(), Fail> {
    let EffectsArgs { common, command: Command::CallBack { id } } = args;
    let client = Client::find(&common)?;
    let effect: uuid::Uuid =
        id.parse().map_err(|_| Fail::Usage(format!("`{}` is no whole id", id.escape_debug())))?;
    let reply = client.post(&format!("/api/v1/effects/{effect}/call-back"), &json!({}), None).await?.body;
    if common.json {
        return out::json(&reply);
    }
    out::line(match reply["status"].as_str() {
        Some("called_back") => "called back; you are asked anew: steward reviews list",
        _ => "its run is held and calls it back before it goes on",
    })
}

/// Decides several reviews alike.
pub(super) async fn decide_all(
    client: &Client,
    wanted: &[String],
    approve: bool,
    reason: Option<String>,
    as_json: bool,
) -> Result<(), Fail> {
    let mut seen = Vec::new();
    for id in wanted {
        let review = reviews::load(client, id).await?;
        if !as_json {
            out::note(&out::plain(review["title"].as_str().unwrap_or_default()));
        }
        seen.push(json!({"id": review["id"], "digest": review["digest"]}));
    }
    let body = match (approve, reason) {
        (true, _) => json!({"verdict": "approved", "reviews": seen}),
        (false, None) => json!({"verdict": "rejected", "reviews": seen}),
        (false, Some(reason)) => json!({"verdict": "rejected", "reason": reason, "reviews": seen}),
    };
    let reply = client.post("/api/v1/reviews/decisions", &body, None).await?.body;
    if as_json {
        return out::json(&reply);
    }
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let rows = reply["reviews"].as_array().into_iter().flatten().map(|row| {
        let said = row["problem"]["detail"].as_str().map_or_else(|| text(row, "status"), str::to_owned);
        vec![ids::short(&text(row, "review")).to_owned(), said]
    });
    out::line(&out::table(&["ID", "OUTCOME"], &rows.collect::<Vec<_>>(), out::width()))
}

/// Says something to a review.
pub(super) async fn comment(client: &Client, id: &str, text: &str, as_json: bool) -> Result<(), Fail> {
    let id = ids::review(client, id).await?;
    let path = format!("/api/v1/reviews/{id}/comments");
    let reply = client.post(&path, &json!({"text": text}), None).await?.body;
    if as_json { out::json(&reply) } else { out::line("said") }
}

/// Leaves a review alone for a while.
pub(super) async fn snooze(client: &Client, id: &str, until: &str, as_json: bool) -> Result<(), Fail> {
    let id = ids::review(client, id).await?;
    let body = match until.parse::<Span>() {
        Ok(_) => json!({"for": until}),
        Err(_) => json!({"until": until}),
    };
    let reply = client.post(&format!("/api/v1/reviews/{id}/snooze"), &body, None).await?.body;
    if as_json {
        return out::json(&reply);
    }
    let until = out::moment(reply["snoozed_until"].as_str().unwrap_or_default());
    out::line(&format!("you hear of it again at {until}"))
}

/// How much drafts were changed.
pub(super) async fn edits(client: &Client, workflow: Option<&str>, as_json: bool) -> Result<(), Fail> {
    let query: Vec<(&str, &str)> = workflow.map(|workflow| ("workflow", workflow)).into_iter().collect();
    let reply = client.get("/api/v1/reviews/edits", &query).await?;
    if as_json {
        return out::json(&reply);
    }
    let text = |row: &Value, name: &str| out::plain(row[name].as_str().unwrap_or_default());
    let count = |row: &Value, name: &str| row[name].as_i64().unwrap_or(0).to_string();
    let rows = reply["by_version"].as_array().into_iter().flatten().map(|row| {
        let version = text(row, "version").chars().take(8).collect();
        let counts = ["edits", "kept", "gone", "added"].map(|name| count(row, name));
        [vec![text(row, "workflow"), version, text(row, "action")], counts.to_vec()].concat()
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return out::line("no draft was changed yet");
    }
    let head = ["WORKFLOW", "VERSION", "ACTION", "EDITS", "KEPT", "GONE", "ADDED"];
    out::line(&out::table(&head, &rows, out::width()))
}

/// What stands below a review: whether it can be taken back, what was said to it, how long it is put off,
/// and that its agent can be asked for another draft.
pub(super) fn about(review: &Value) -> Vec<String> {
    let text = |value: &Value, name: &str| out::plain(value[name].as_str().unwrap_or_default());
    let mut lines = Vec::new();
    if let Some(sentence) = review["reversible"].as_str().filter(|_| review["question"]["action"].is_object())
    {
        lines.push(String::new());
        lines.push(out::plain(sentence));
    }
    if let Some(until) = review["snoozed_until"].as_str() {
        lines.push(format!("put off until {}", out::moment(until)));
    }
    for comment in review["comments"].as_array().into_iter().flatten() {
        lines.push(String::new());
        lines.push(format!("{} said at {}:", text(comment, "by"), out::moment(&text(comment, "at"))));
        let said = comment["text"].as_str().unwrap_or_default();
        lines.extend(said.lines().map(|line| format!("  {}", out::plain(line))));
    }
    let verdicts = review["verdicts"].as_array();
    if verdicts.is_some_and(|verdicts| verdicts.iter().any(|verdict| verdict == "responded")) {
        lines.push(String::new());
        let id = review["id"].as_str().unwrap_or_default();
        lines.push(format!("for another draft: steward reviews respond {} WORDS", ids::short(id)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_to_a_review_is_shown_inert_and_what_can_be_asked_for_is_named() {
        let review = json!({
            "id": "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "question": {"action": {"action": "email.send"}},
            "reversible": "It cannot be taken back.", "verdicts": ["approved", "responded"],
            "comments": [{"by": "bea", "at": "2026-03-02T10:00:00Z", "text": "red \u{1b}[31m\nline"}],
        });
        let lines = about(&review);
        assert_eq!(lines[1], "It cannot be taken back.");
        assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
        assert!(lines.contains(&"  line".to_owned()), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "for another draft: steward reviews respond 2e3f4a5b WORDS");
        assert!(
            about(&json!({"id": "x", "question": {}, "reversible": "Nothing leaves the run."})).is_empty()
        );
    }
}
