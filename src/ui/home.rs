//! The first page: what waits for the owner, what is in motion, what was done last.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::api::session::Session;
use crate::domain::ids::ReviewId;
use crate::store::effects::EffectRow;
use crate::store::reviews::ReviewRow;
use crate::store::runs::RunRow;
use crate::ui::dress::html;
use crate::ui::review::clock;
use crate::ui::text::{Inert, words};
use crate::ui::when::{Clock, When};

/// Reviews on the page; the oldest are the first to decide.
const REVIEWS: i64 = 30;

/// Runs on the page.
const RUNS: i64 = 12;

/// Effects on the page.
const EFFECTS: i64 = 12;

/// Characters of a title.
const TITLE: usize = 120;

/// Something to decide.
struct ReviewCard {
    /// So that it stays itself while others come and go.
    id: ReviewId,
    href: String,
    title: Inert,
    wants: &'static str,
    reason: Option<Inert>,
    opened: When,
    due: Option<When>,
}

/// Something in motion.
struct RunCard {
    href: String,
    title: Inert,
    workflow: Inert,
    status: Inert,
    says: &'static str,
    at: When,
}

/// Something done.
struct EffectCard {
    href: String,
    does: Inert,
    whom: Option<Inert>,
    status: Inert,
    says: &'static str,
    at: When,
}

/// What changes on the page while it is looked at.
#[derive(Template)]
#[template(path = "home_live.html", config = "src/ui/askama.toml")]
pub(super) struct HomeLive {
    headline: String,
    reviews: Vec<ReviewCard>,
    more: i64,
    runs: Vec<RunCard>,
    effects: Vec<EffectCard>,
}

#[derive(Template)]
#[template(path = "home.html", config = "src/ui/askama.toml")]
struct Home {
    workspace: Inert,
    csrf: Option<String>,
    live: HomeLive,
}

/// `GET /`
pub(super) async fn show(
    State(state): State<ApiState>,
    Extension(session): Extension<Session>,
) -> Result<Response, Problem> {
    let workspace = Inert::line(&state.definitions.settings.workspace.name);
    let live = live(&state).await?;
    Ok(html(&Home { workspace, csrf: Some(session.form_token()), live }))
}

/// What is on the page at this moment.
pub(super) async fn live(state: &ApiState) -> Result<HomeLive, Problem> {
    let (store, clock) = (state.store(), clock(state));
    let (open, reviews, runs, effects) = tokio::try_join!(
        store.open_reviews(),
        store.reviews("open", None, None, REVIEWS),
        store.runs_in_motion(RUNS),
        store.recent_effects(EFFECTS),
    )?;
    let shown = i64::try_from(reviews.len()).unwrap_or(REVIEWS);
    let asked = |run: &RunRow| reviews.iter().any(|review| review.run == run.id);
    Ok(HomeLive {
        headline: match open {
            0 => "Nothing waits for you".to_owned(),
            1 => "One thing waits for you".to_owned(),
            many => format!("{many} things wait for you"),
        },
        more: open.saturating_sub(shown).max(0),
        runs: runs.iter().map(|run| run_card(run, asked(run), &clock)).collect(),
        reviews: reviews.iter().map(|review| review_card(review, &clock)).collect(),
        effects: effects.iter().map(|effect| effect_card(effect, &clock)).collect(),
    })
}

fn review_card(row: &ReviewRow, clock: &Clock) -> ReviewCard {
    ReviewCard {
        id: row.id,
        href: format!("/reviews/{}", row.id),
        title: Inert::glimpse(&row.title, TITLE),
        wants: match row.ask.as_str() {
            "approval" => "Approve",
            "answer" => "Answer",
            "question" => "Question",
            "in_doubt" => "In doubt",
            "undo" => "Undo failed",
            "parked" => "Stuck",
            "budget" => "Budget",
            _ => "Review",
        },
        reason: row.question.reasons.first().map(|reason| Inert::glimpse(reason, 140)),
        opened: clock.when(row.opened_at),
        due: row.due_at.map(|at| clock.when(at)),
    }
}

fn run_card(row: &RunRow, asked: bool, clock: &Clock) -> RunCard {
    RunCard {
        href: format!("/runs/{}", row.id),
        title: Inert::glimpse(&row.title, TITLE),
        workflow: Inert::line(row.workflow.as_str()),
        says: match row.status.as_str() {
            "queued" => "waits for its turn",
            "running" => "at work",
            "paused" => "held",
            "parked" => "stuck",
            _ if asked => "waits for you",
            _ => "waits",
        },
        status: Inert::line(&row.status),
        at: clock.when(row.opened_at),
    }
}

fn effect_card(row: &EffectRow, clock: &Clock) -> EffectCard {
    let spec = crate::domain::action::spec(&row.action);
    let targets = spec.map(|spec| spec.targets).unwrap_or_default();
    let whom = targets.iter().find_map(|name| row.request.get(name)).or_else(|| row.request.get("key"));
    EffectCard {
        href: format!("/runs/{}", row.run),
        does: Inert::line(&row.action),
        whom: whom.map(|whom| Inert::glimpse(&plainly(whom), TITLE)),
        says: effect_says(&row.status),
        status: Inert::line(&row.status),
        at: clock.when(row.ended_at.or(row.started_at).unwrap_or(row.proposed_at)),
    }
}

fn plainly(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join("; "),
        other => words(other),
    }
}

/// An effect's status in words.
pub(super) fn effect_says(status: &str) -> &'static str {
    match status {
        "proposed" => "proposed",
        "started" => "under way",
        "succeeded" => "done",
        "failed" => "failed",
        "unknown" => "in doubt",
        "withdrawn" => "withdrawn",
        "compensated" => "undone",
        _ => "",
    }
}
