//! `steward reviews stats`: how many reviews are open, how long deciding takes, and how it goes.

use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::workflows::{share, took};
use crate::cli::{Fail, out};

/// Prints it, by workflow.
///
/// # Errors
/// See [`Fail`].
pub(super) async fn stats(client: &Client, days: Option<u32>, json: bool) -> Result<(), Fail> {
    let days = days.map(|days| days.to_string());
    let query: Vec<(&str, &str)> = days.as_deref().map(|days| ("days", days)).into_iter().collect();
    let found = client.get("/api/v1/metrics/reviews", &query).await?;
    if json {
        return out::json(&found);
    }
    let rows: Vec<Vec<String>> = found["workflows"].as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return out::line("nothing was asked yet");
    }
    let head = ["WORKFLOW", "OPEN", "OLDEST", "DECIDED", "MEDIAN", "P90", "UNCHANGED", "EXPIRED", "TOO FAST"];
    out::line(&out::table(&head, &rows, out::width()))
}

fn row(of: &Value) -> Vec<String> {
    let count = |name: &str| of[name].as_i64().unwrap_or(0);
    let decided: i64 = ["approved", "edited", "rejected", "answered"].map(count).iter().sum();
    vec![
        out::plain(of["workflow"].as_str().unwrap_or_default()),
        count("open").to_string(),
        took(&of["oldest_open_seconds"]),
        decided.to_string(),
        took(&of["median_seconds"]),
        took(&of["p90_seconds"]),
        share(&of["unchanged_ratio"]),
        share(&of["expired_ratio"]),
        count("hasty").to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_known_is_a_dash_and_not_a_nought() {
        let of = json!({"workflow": "lead", "open": 2, "oldest_open_seconds": 7200.0, "approved": 3, "edited": 1,
            "rejected": 0, "answered": 0, "expired": 0, "hasty": 1, "median_seconds": 12.0,
            "p90_seconds": null, "unchanged_ratio": 0.75, "expired_ratio": null});
        assert_eq!(row(&of), ["lead", "2", "2 h", "4", "12 s", "–", "75 %", "–", "1"]);
    }
}
