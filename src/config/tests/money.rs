//! Budgets in files.

use super::{WORKFLOW_FILE, Workspace};
use crate::domain::budget::{Budget, Exhausted, Limits};

#[test]
fn budgets_are_read_into_the_version_and_the_settings() {
    let workspace = Workspace::sound()
        .but(WORKFLOW_FILE, "on:", "budget: { per_run: 0.10 USD, per_day: 3 USD, exhausted: review }\non:")
        .but("config/settings.yaml", "mailboxes:", "budget: { per_month: 40 USD }\nmailboxes:");
    let (definitions, warnings) = workspace.load().unwrap();
    assert_eq!(warnings, []);
    let version = &definitions.workflows.values().next().unwrap().version;
    let budget = Budget {
        per_run: Some(100_000),
        per_day: Some(3_000_000),
        per_month: None,
        exhausted: Exhausted::Review,
    };
    assert_eq!(version.budget, budget);
    assert_eq!(definitions.settings.spending(), Limits { per_day: None, per_month: Some(40_000_000) });
    let (without, _) = Workspace::sound().load().unwrap();
    let before = &without.workflows.values().next().unwrap().version;
    assert_ne!(before.digest(), version.digest(), "another budget is another version");
    assert!(!serde_json::to_string(before).unwrap().contains("budget"), "no budget leaves old digests alone");
}

#[test]
fn an_amount_is_in_the_workspaces_currency_and_more_than_nothing() {
    Workspace::sound().but(WORKFLOW_FILE, "on:", "budget: { per_run: 0.10 EUR }\non:").has(
        "config/workflows/hello.yaml:3:20",
        "0.10 EUR",
        "money is counted in USD here, not in EUR",
        "write it in USD",
    );
    Workspace::sound()
        .but("config/settings.yaml", "mailboxes:", "budget: { per_day: 0 USD }\nmailboxes:")
        .has(
            "config/settings.yaml:6:20",
            "0 USD",
            "with `per_day: 0.00 USD` no model that costs anything is ever asked",
            "take the line away for no limit",
        );
    Workspace::sound().but(WORKFLOW_FILE, "on:", "budget: { per_run: cheap }\non:").has(
        "config/workflows/hello.yaml:3:20",
        "cheap",
        "`cheap` is not what `per_run` takes",
        "write an amount as `0.10 USD`",
    );
}

#[test]
fn a_limit_that_a_wider_one_makes_pointless_is_pointed_out() {
    Workspace::sound().but(WORKFLOW_FILE, "on:", "budget: { per_run: 2 USD, per_day: 1 USD }\non:").has(
        "config/workflows/hello.yaml:3:36",
        "1 USD",
        "`per_run` is 2.00 USD, more than the 1.00 USD of `per_day`, and so never reached",
        "make `per_run` smaller",
    );
}

#[test]
fn a_model_without_a_price_is_pointed_out_with_the_line_to_add() {
    Workspace::sound().but("config/models.yaml", ", price: { input: 0.10 USD, output: 0.20 USD }", "").has(
        "config/models.yaml:4:32",
        "qwen",
        "`small` has no price, so it is never asked: nobody knows what a call may cost",
        "`price: { input: 0.00 USD, output: 0.00 USD }`",
    );
}
