//! Budgets and prices: amounts in the workspace's currency that mean something.

use crate::config::document::Reporter;
use crate::config::models::Model;
use crate::config::node::Path;
use crate::config::settings::Spending;
use crate::config::workflow::RawBudget;
use crate::domain::budget::Budget;
use crate::domain::money::Money;

/// An amount in the workspace's currency, when that is known.
pub(super) fn amount(report: &mut Reporter<'_>, path: &Path, amount: &Money, currency: Option<&str>) {
    if let Some(currency) = currency.filter(|currency| *currency != amount.currency) {
        let message = format!("money is counted in {currency} here, not in {}", amount.currency);
        report.value(path, message, format!("write it in {currency}"));
    }
}

/// Limits, from the narrowest to the widest.
fn limits(report: &mut Reporter<'_>, limits: &[(&str, Option<&Money>)], currency: Option<&str>) {
    let path = Path::top().key("budget");
    let mut narrower: Option<(&str, &Money)> = None;
    for (field, limit) in limits.iter().filter_map(|(field, limit)| Some((*field, (*limit)?))) {
        let path = path.key(field);
        amount(report, &path, limit, currency);
        if limit.micros == 0 {
            let message = format!("with `{field}: {limit}` no model that costs anything is ever asked");
            let mend = "write more, or take the line away for no limit; to ask free models alone, give the agent a tier of them";
            report.value(&path, message, mend);
        }
        if let Some((name, narrow)) = narrower.filter(|(_, narrow)| narrow.micros > limit.micros) {
            let message =
                format!("`{name}` is {narrow}, more than the {limit} of `{field}`, and so never reached");
            report.warn(&path, message, format!("make `{name}` smaller, or `{field}` larger"));
        }
        narrower = Some((field, limit));
    }
}

/// Checks what the whole workspace may cost.
pub(super) fn spending(report: &mut Reporter<'_>, budget: &Spending, currency: &str) {
    let all = [("per_day", budget.per_day.as_ref()), ("per_month", budget.per_month.as_ref())];
    limits(report, &all, Some(currency));
}

/// Checks what a workflow may cost, and gives it as its version has it.
pub(super) fn budget(report: &mut Reporter<'_>, raw: Option<&RawBudget>, currency: Option<&str>) -> Budget {
    let Some(raw) = raw else { return Budget::default() };
    let all = [
        ("per_run", raw.per_run.as_ref()),
        ("per_day", raw.per_day.as_ref()),
        ("per_month", raw.per_month.as_ref()),
    ];
    limits(report, &all, currency);
    let micros = |money: &Option<Money>| money.as_ref().map(|money| money.micros);
    Budget {
        per_run: micros(&raw.per_run),
        per_day: micros(&raw.per_day),
        per_month: micros(&raw.per_month),
        exhausted: raw.exhausted.unwrap_or_default(),
    }
}

/// A model without a price is never asked: nobody could say what a call costs at most.
pub(super) fn priced(
    report: &mut Reporter<'_>,
    path: &Path,
    name: &str,
    model: &Model,
    currency: Option<&str>,
) {
    if model.price.is_none() {
        let currency = currency.unwrap_or("USD");
        let message =
            format!("`{name}` has no price, so it is never asked: nobody knows what a call may cost");
        let mend = format!(
            "add what a million tokens cost: `price: {{ input: 0.00 {currency}, output: 0.00 {currency} }}`"
        );
        report.warn(&path.key("id"), message, mend);
    }
}
