//! What the owner should hear of that has left its trace in a table: budgets that passed a share of their
//! limit, providers that nobody calls. Each is told once, and what is over, with its day or month at the latest,
//! is told no longer. A crash in between tells again what was told, which the notice counts.

use crate::domain::money::Money;
use crate::domain::notice::{NoticeKind, Severity};
use crate::orchestrator::engine::Engine;
use crate::store::StoreError;
use crate::store::notices::News;
use crate::store::spend::report::Threshold;

/// Looks for what nobody was told of yet.
///
/// # Errors
/// When the database does not answer.
pub async fn look(engine: &Engine) -> Result<(), StoreError> {
    budgets(engine).await?;
    breakers(engine).await
}

async fn budgets(engine: &Engine) -> Result<(), StoreError> {
    for passed in engine.store.untold_thresholds().await? {
        let subject = format!("{}:{}", passed.account, passed.percent);
        let money = |micros| Money { micros, currency: engine.models.ledger().currency().to_owned() };
        let (title, detail) = told(&passed, &money(passed.limit_micros));
        let severity = match passed.percent {
            ..80 => Severity::Info,
            80..100 => Severity::Warning,
            _ => Severity::Critical,
        };
        let news = News {
            kind: NoticeKind::BudgetThreshold,
            subject: &subject,
            severity,
            title: &title,
            detail: &detail,
            run: None,
        };
        engine.store.notice(&news).await?;
        engine.store.threshold_told(&passed.account, passed.percent).await?;
    }
    let today = engine.models.ledger().today();
    engine.store.budget_notices_over(&[&today.day(), &today.month()]).await
}

/// An account's key is `workspace/day/2026-11-25` or `workflow/month/2026-11/NAME`.
fn told(passed: &Threshold, limit: &Money) -> (String, String) {
    let mut parts = passed.account.splitn(4, '/');
    let (whose, period, when, name) = (parts.next(), parts.next(), parts.next(), parts.next());
    let of = match (whose, name) {
        (Some("workflow"), Some(name)) => format!("the workflow `{name}`"),
        _ => "the workspace".to_owned(),
    };
    let (period, when) = (period.unwrap_or("day"), when.unwrap_or_default());
    match passed.percent {
        100.. => (
            format!("The budget of {of} for the {period} is spent"),
            format!(
                "{limit} for {when}. Models are asked no more where that is not enough; see `steward spend`."
            ),
        ),
        percent => (
            format!("{percent} % of the budget of {of} for the {period} is spent"),
            format!("The limit is {limit} for {when}; see `steward spend`."),
        ),
    }
}

async fn breakers(engine: &Engine) -> Result<(), StoreError> {
    for row in engine.store.breakers_to_tell().await? {
        match row.closed_at {
            Some(_) => {
                engine.store.notice_over(NoticeKind::BreakerOpened, &row.provider).await?;
            }
            None => {
                let title = format!("Nobody calls the provider `{}` for a while", row.provider);
                let mend = match row.lasting {
                    true => {
                        format!(
                            "Mend it, then `steward models reset {}`. Until then other models are asked, or you.",
                            row.provider
                        )
                    }
                    false => {
                        "It is tried again by itself; until then other models are asked, or you.".to_owned()
                    }
                };
                let detail = format!("{}. {mend}", row.why.trim_end_matches('.'));
                let news = News {
                    kind: NoticeKind::BreakerOpened,
                    subject: &row.provider,
                    severity: if row.lasting { Severity::Critical } else { Severity::Warning },
                    title: &title,
                    detail: &detail,
                    run: None,
                };
                engine.store.notice(&news).await?;
            }
        }
        // Over in the meantime: nobody would say so any more.
        if !engine.store.breaker_told(&row).await? && row.closed_at.is_none() {
            engine.store.notice_over(NoticeKind::BreakerOpened, &row.provider).await?;
        }
    }
    Ok(())
}
