//! Money: what model calls cost, and what is left of each budget.

use axum::Json;
use axum::extract::State;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::api::ApiState;
use crate::api::extract::Query;
use crate::api::problem::{Kind, Problem};
use crate::domain::budget::{Account, Day};
use crate::domain::money::Money;
use crate::store::spend::report::{By, Line, Threshold};

/// The query of `GET /api/v1/spend`. Days are the owner's, as in `2026-11-25`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// `workflow` (when absent), `model` or `day`.
    by: Option<String>,
    /// The first day; the first of this month when absent.
    from: Option<String>,
    /// The last day, itself included; today when absent.
    to: Option<String>,
}

/// What model calls cost, and what is left of each budget.
#[derive(Serialize)]
pub(super) struct Spend {
    currency: String,
    time_zone: String,
    /// The first day of `lines`.
    from: Date,
    /// The last one.
    to: Date,
    by: &'static str,
    /// What these days cost, micro-units.
    spent_micros: i64,
    /// The same, as people write it.
    spent: String,
    /// Set aside for calls under way, micro-units.
    reserved_micros: i64,
    lines: Vec<Line>,
    /// Today and this month, of the workspace and of each workflow that has a limit or has cost something.
    budgets: Vec<Budget>,
}

/// What is left where there is a limit, and what was spent where there is none.
#[derive(Serialize)]
struct Budget {
    /// `workspace/day`, `workspace/month`, `workflow/day`, `workflow/month`.
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<String>,
    /// The day or month.
    period: String,
    /// Micro-units; none when there is no limit.
    limit_micros: Option<i64>,
    spent_micros: i64,
    reserved_micros: i64,
    /// Micro-units that may still be set aside; none when there is no limit.
    left_micros: Option<i64>,
    spent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<String>,
    calls: i64,
    /// Shares of the limit that were passed, each once, with the moment.
    thresholds: Vec<Threshold>,
}

/// `GET /api/v1/spend`: what model calls cost, by workflow, model or day, and what is left of each budget.
pub(super) async fn show(
    State(state): State<ApiState>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Spend>, Problem> {
    let today = today(&state);
    let by = match wanted.by.as_deref() {
        None => By::Workflow,
        Some(text) => By::parse(text).ok_or_else(|| bad("`by` is `workflow`, `model` or `day`"))?,
    };
    let from = day(wanted.from.as_deref(), "from", today.0.first_of_month())?;
    let to = day(wanted.to.as_deref(), "to", today.0)?;
    if from > to {
        return Err(bad("`from` is after `to`"));
    }
    let lines = state.store().spent(by, from, to).await?;
    let workspace = &state.definitions.settings.workspace;
    let spent_micros = lines.iter().map(|line| line.spent_micros).sum();
    Ok(Json(Spend {
        currency: workspace.currency.clone(),
        time_zone: workspace.time_zone.clone(),
        from,
        to,
        by: by.as_str(),
        spent_micros,
        spent: money(&state, spent_micros),
        reserved_micros: lines.iter().map(|line| line.reserved_micros).sum(),
        lines,
        budgets: budgets(&state, today).await?,
    }))
}

fn today(state: &ApiState) -> Day {
    Day::at(state.door.engine().now(), &state.definitions.settings.zone())
}

fn bad(why: &str) -> Problem {
    Problem::new(Kind::BadRequest, why)
}

fn day(text: Option<&str>, name: &str, absent: Date) -> Result<Date, Problem> {
    let Some(text) = text else { return Ok(absent) };
    text.parse().map_err(|_| bad(&format!("`{name}` is a day, such as `2026-11-25`")))
}

fn money(state: &ApiState, micros: i64) -> String {
    Money { micros, currency: state.definitions.settings.workspace.currency.clone() }.to_string()
}

/// The accounts of today and of this month, each with its limit.
fn accounts(state: &ApiState, today: Day) -> Vec<(Account, Option<i64>)> {
    let limits = state.definitions.settings.spending();
    let mut accounts = vec![
        (Account::WorkspaceDay(today.day()), limits.per_day),
        (Account::WorkspaceMonth(today.month()), limits.per_month),
    ];
    let engine = state.door.engine();
    for name in engine.workflows() {
        let Some(row) = engine.current(&name) else { continue };
        let budget = &row.version.budget;
        accounts.push((Account::WorkflowDay(name.clone(), today.day()), budget.per_day));
        accounts.push((Account::WorkflowMonth(name, today.month()), budget.per_month));
    }
    accounts
}

async fn budgets(state: &ApiState, today: Day) -> Result<Vec<Budget>, Problem> {
    let accounts = accounts(state, today);
    let keys: Vec<String> = accounts.iter().map(|(account, _)| account.to_string()).collect();
    let balances = state.store().balances(&keys).await?;
    let thresholds = state.store().thresholds(&keys).await?;
    let mut shown = Vec::new();
    for (((account, limit), key), balance) in accounts.iter().zip(&keys).zip(balances) {
        if limit.is_none() && balance.calls == 0 && balance.reserved_micros == 0 {
            continue;
        }
        let left = limit.map(|limit| (limit - balance.spent_micros - balance.reserved_micros).max(0));
        shown.push(Budget {
            scope: account.scope(),
            workflow: account.workflow().map(str::to_owned),
            period: account.period().unwrap_or_default().to_owned(),
            limit_micros: *limit,
            spent_micros: balance.spent_micros,
            reserved_micros: balance.reserved_micros,
            left_micros: left,
            spent: money(state, balance.spent_micros),
            limit: limit.map(|limit| money(state, limit)),
            left: left.map(|left| money(state, left)),
            calls: balance.calls,
            thresholds: thresholds.iter().filter(|passed| passed.account == *key).cloned().collect(),
        });
    }
    Ok(shown)
}
