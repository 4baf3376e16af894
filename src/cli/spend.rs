//! `steward spend`: what model calls cost, and what is left of each budget.

use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::{Common, Fail, out};
use crate::domain::money::Money;

/// `steward spend`.
#[derive(clap::Args, Clone, Debug)]
pub struct SpendArgs {
    #[command(flatten)]
    common: Common,
    /// What to sum up by
    #[arg(long, value_enum, default_value = "workflow")]
    by: By,
    /// The first day, such as 2026-11-01; the first of this month when not given
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// The last day, itself included; today when not given
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum By {
    Workflow,
    Model,
    Day,
}

/// Runs the command.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: SpendArgs) -> Result<(), Fail> {
    let by = match args.by {
        By::Workflow => "workflow",
        By::Model => "model",
        By::Day => "day",
    };
    let mut query = vec![("by", by)];
    query.extend(args.from.as_deref().map(|from| ("from", from)));
    query.extend(args.to.as_deref().map(|to| ("to", to)));
    let found = Client::find(&args.common)?.get("/api/v1/spend", &query).await?;
    if args.common.json {
        return out::json(&found);
    }
    let days = format!("{} to {}", text(&found, "from"), text(&found, "to"));
    out::line(&format!("{} from {days} ({})", text(&found, "spent"), text(&found, "time_zone")))?;
    let lines = lines(&found);
    if !lines.is_empty() {
        let head =
            [by.to_uppercase(), "CALLS".into(), "SPENT".into(), "OF IT ASSUMED".into(), "UNDER WAY".into()];
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        out::line(&format!("\n{}", out::table(&head, &lines, out::width())))?;
    }
    let budgets = budgets(&found);
    if budgets.is_empty() {
        return Ok(());
    }
    let head = ["BUDGET", "PERIOD", "LIMIT", "SPENT", "UNDER WAY", "LEFT", "PASSED"];
    out::line(&format!("\n{}", out::table(&head, &budgets, out::width())))
}

fn lines(found: &Value) -> Vec<Vec<String>> {
    let line = |line: &Value| {
        let name = match text(line, "name") {
            name if name.is_empty() => "(outside of runs)".to_owned(),
            name => name,
        };
        let amounts =
            ["spent_micros", "assumed_micros", "reserved_micros"].map(|part| amount(found, &line[part]));
        [vec![name, line["calls"].to_string()], amounts.to_vec()].concat()
    };
    found["lines"].as_array().into_iter().flatten().map(line).collect()
}

fn budgets(found: &Value) -> Vec<Vec<String>> {
    let budget = |budget: &Value| {
        let of = budget["workflow"].as_str().map_or_else(|| "workspace".to_owned(), out::plain);
        let percents = budget["thresholds"].as_array().into_iter().flatten();
        let passed: Vec<String> = percents.map(|passed| format!("{} %", passed["percent"])).collect();
        let part = |name: &str| amount(found, &budget[name]);
        vec![
            of,
            text(budget, "period"),
            part("limit_micros"),
            part("spent_micros"),
            part("reserved_micros"),
            part("left_micros"),
            passed.join(", "),
        ]
    };
    found["budgets"].as_array().into_iter().flatten().map(budget).collect()
}

fn text(value: &Value, name: &str) -> String {
    out::plain(value[name].as_str().unwrap_or_default())
}

/// An amount in the workspace's currency; a dash where there is none.
fn amount(found: &Value, micros: &Value) -> String {
    let money = |micros| Money { micros, currency: text(found, "currency") }.to_string();
    micros.as_i64().map_or_else(|| "–".to_owned(), money)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_stand_in_the_workspaces_currency_and_what_is_not_limited_has_a_dash() {
        let found = json!({"currency": "EUR",
            "lines": [{"name": "", "calls": 2, "spent_micros": 1_500_000, "assumed_micros": 0, "reserved_micros": 20}],
            "budgets": [{"period": "2026-11", "limit_micros": null, "spent_micros": 5, "reserved_micros": 0,
                "left_micros": null, "thresholds": [{"percent": 50}, {"percent": 80}]}]});
        assert_eq!(lines(&found), [["(outside of runs)", "2", "1.50 EUR", "0.00 EUR", "0.00002 EUR"]]);
        assert_eq!(
            budgets(&found),
            [["workspace", "2026-11", "–", "0.000005 EUR", "0.00 EUR", "–", "50 %, 80 %"]]
        );
    }
}
