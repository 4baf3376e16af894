//! The page of one run: what it waits for, what each step did when, its effects, and its journal.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::extract::{Query, id};
use crate::api::problem::{Kind, Problem};
use crate::api::session::{Form, Session};
use crate::api::view::{RunView, StepView, Wait};
use crate::domain::duration::told;
use crate::domain::event::Event;
use crate::domain::ids::RunId;
use crate::domain::money::Money;
use crate::store::journal::read::JournalEntry;
use crate::ui::dress::html;
use crate::ui::facts::{Held, Tag};
use crate::ui::home::effect_says;
use crate::ui::page::Notice;
use crate::ui::review::{Called, call_back_of, clock, to};
use crate::ui::text::{Inert, Readable};
use crate::ui::viewer::OWNER;
use crate::ui::waterfall::{self, Drawn};
use crate::ui::when::{Clock, When};

/// Journal entries shown at once, the last ones; a step writes three or four.
const ENTRIES: usize = 100;

/// One step's row.
struct StepRow {
    name: Inert,
    does: Inert,
    status: Inert,
    why: Option<Inert>,
    decided: Option<Inert>,
    drawn: Vec<Drawn>,
    worked: Option<String>,
    waited: Option<String>,
    attempts: Option<u32>,
    output: Option<Readable>,
    calls: Vec<CallRow>,
}

/// A model that was asked.
struct CallRow {
    model: Inert,
    outcome: Inert,
    tokens: String,
    cost: String,
    took: String,
}

/// What it waits for.
struct WaitRow {
    says: Inert,
    href: Option<String>,
    /// Set when the owner can call back what is to go out.
    held: Option<Held>,
}

/// What it did, or means to.
struct EffectLine {
    action: Inert,
    says: &'static str,
    status: Inert,
    at: When,
    request: Readable,
    response: Readable,
}

/// An entry of the journal.
struct EntryRow {
    seq: i64,
    kind: Inert,
    about: Inert,
    at: When,
    actor: Inert,
    data: Readable,
}

/// What changes on the page while it is looked at.
#[derive(Template)]
#[template(path = "run_live.html", config = "src/ui/askama.toml")]
pub(super) struct RunLive {
    /// What its forms prove themselves by.
    proof: String,
    id: String,
    title: Inert,
    status: Inert,
    says: &'static str,
    reason: Option<Inert>,
    workflow: Inert,
    number: i32,
    stage: Inert,
    trigger: Inert,
    label: Tag,
    opened: When,
    took: String,
    cost: String,
    waits: Vec<WaitRow>,
    steps: Vec<StepRow>,
    is_shortened: bool,
    effects: Vec<EffectLine>,
    input: Readable,
    entries: Vec<EntryRow>,
    earlier: usize,
}

#[derive(Template)]
#[template(path = "run.html", config = "src/ui/askama.toml")]
struct RunPage {
    csrf: Option<String>,
    id: RunId,
    notice: Option<Notice>,
    live: RunLive,
}

/// The query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    journal: Option<String>,
}

/// `GET /runs/{id}`; `?journal=all` has all of its journal.
pub(super) async fn show(
    State(state): State<ApiState>,
    Extension(session): Extension<Session>,
    Path(run): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let id = id(&run, Kind::UnknownRun)?;
    let entries = if asked.journal.as_deref() == Some("all") { usize::MAX } else { ENTRIES };
    page(&state, &session, id, entries, StatusCode::OK, None).await
}

/// `POST /runs/{id}`: calls back what is to go out.
pub(super) async fn post(
    State(state): State<ApiState>,
    Extension(session): Extension<Session>,
    Path(run): Path<String>,
    Extension(form): Extension<Form>,
) -> Result<Response, Problem> {
    let id: RunId = id(&run, Kind::UnknownRun)?;
    if form.get("do") != Some("call-back") {
        return Err(Problem::new(Kind::BadRequest, "this run has no such form"));
    }
    let (status, notice) = match call_back_of(&state, id, &form, OWNER).await? {
        Called::Back => return Ok(to(&format!("/runs/{id}"))),
        Called::Told => (StatusCode::ACCEPTED, Notice::told()),
        Called::TooLate(why) => (StatusCode::CONFLICT, Notice::wrong(&why)),
    };
    page(&state, &session, id, ENTRIES, status, Some(notice)).await
}

async fn page(
    state: &ApiState,
    session: &Session,
    id: RunId,
    entries: usize,
    status: StatusCode,
    notice: Option<Notice>,
) -> Result<Response, Problem> {
    let live = live(state, session, id, entries).await?;
    let mut response = html(&RunPage { csrf: Some(session.form_token()), id, notice, live });
    if response.status() == StatusCode::OK {
        *response.status_mut() = status;
    }
    Ok(response)
}

/// The run as it is at this moment, with the last few entries of its journal.
pub(super) async fn now(state: &ApiState, session: &Session, run: RunId) -> Result<RunLive, Problem> {
    live(state, session, run, ENTRIES).await
}

async fn live(state: &ApiState, session: &Session, run: RunId, entries: usize) -> Result<RunLive, Problem> {
    let (view, journal) = state.run_view(run).await?;
    Ok(ready(view, &journal, &clock(state), entries, session.form_token()))
}

fn ready(view: RunView, journal: &[JournalEntry], clock: &Clock, shown: usize, proof: String) -> RunLive {
    let events: Vec<(Event, Timestamp)> = journal
        .iter()
        .filter_map(|entry| {
            let event = serde_json::from_value(json!({"kind": entry.kind, "data": entry.data})).ok()?;
            Some((event, entry.at))
        })
        .collect();
    let drawing = waterfall::draw(&events, clock.now);
    let ended = view.finished_at.unwrap_or(clock.now);
    let earlier = journal.len().saturating_sub(shown);
    let money = |micros| Money { micros, currency: view.currency.clone() }.to_string();
    RunLive {
        proof,
        id: view.id.to_string(),
        title: Inert::line(&view.title),
        says: says(&view.status),
        status: Inert::line(&view.status),
        reason: view.reason.as_deref().filter(|reason| !reason.is_empty()).map(Inert::line),
        workflow: Inert::line(view.workflow.as_str()),
        number: view.number,
        stage: Inert::line(&view.stage),
        trigger: Inert::line(&view.trigger),
        label: view.label.into(),
        opened: clock.when(view.opened_at),
        took: told(ended.as_millisecond() - view.opened_at.as_millisecond()),
        cost: money(view.cost_micros),
        waits: view.waits_for.iter().map(|wait| wait_row(wait, clock)).collect(),
        steps: view
            .steps
            .iter()
            .map(|step| step_row(step, drawing.bars.get(&step.id).cloned().unwrap_or_default(), &money))
            .collect(),
        is_shortened: drawing.is_shortened,
        effects: view.effects.iter().map(|effect| effect_line(effect, clock)).collect(),
        input: Readable::of(&view.input),
        entries: journal.iter().skip(earlier).map(|entry| entry_row(entry, clock)).collect(),
        earlier,
    }
}

fn says(status: &str) -> &'static str {
    match status {
        "queued" => "Waits for its turn",
        "running" => "At work",
        "waiting" => "Waits",
        "paused" => "Held",
        "succeeded" => "Done",
        "declined" => "You said no",
        "failed" => "Failed",
        "cancelled" => "Stopped",
        "parked" => "Stuck",
        _ => "",
    }
}

fn step_row(step: &StepView, bar: waterfall::Bar, money: &dyn Fn(i64) -> String) -> StepRow {
    let some = |millis: i64| (millis > 0).then(|| told(millis));
    StepRow {
        name: Inert::line(&step.name),
        does: Inert::line(&step.does),
        status: Inert::line(&step.status),
        why: step.why.as_deref().map(|why| Inert::glimpse(why, 400)),
        decided: step.decided.as_deref().map(Inert::line),
        drawn: bar.drawn,
        worked: some(bar.worked),
        waited: some(bar.waited),
        attempts: Some(step.attempt).filter(|attempts| *attempts > 1),
        output: step.output.as_ref().map(Readable::of).filter(|output| *output != Readable::Nothing),
        calls: step
            .calls
            .iter()
            .map(|call| CallRow {
                model: Inert::line(&call.model),
                outcome: Inert::glimpse(&call.outcome, 200),
                tokens: format!("{} in, {} out", call.input_tokens, call.output_tokens),
                cost: if call.cached { "from the cache".to_owned() } else { money(call.cost_micros) },
                took: told(i64::try_from(call.millis).unwrap_or(i64::MAX)),
            })
            .collect(),
    }
}

fn wait_row(wait: &Wait, clock: &Clock) -> WaitRow {
    let near = |at: Timestamp| clock.when(at).near;
    let (says, href) = match wait {
        Wait::Decision { review, title, due_at, .. } => {
            let due = due_at.map(|at| format!(", until {}", clock.when(at).exact)).unwrap_or_default();
            (format!("You: {title}{due}"), Some(format!("/reviews/{review}")))
        }
        Wait::Retry { step, at, why } => (format!("{step} is tried again {}: {why}", near(*at)), None),
        Wait::Turn { limit: Some(limit) } => (format!("Its turn: at most {limit} of its kind at once"), None),
        Wait::Turn { limit: None } => ("Its turn".to_owned(), None),
        Wait::Event { event, matches, until, .. } => {
            let until = until.map(|at| format!(", until {}", clock.when(at).exact)).unwrap_or_default();
            (format!("{event} about {matches}{until}"), None)
        }
        Wait::Moment { at: Some(at), .. } => (format!("{} ({})", clock.when(*at).exact, near(*at)), None),
        Wait::Moment { at: None, .. } => ("A moment".to_owned(), None),
        Wait::Run { run, .. } => ("Another run".to_owned(), Some(format!("/runs/{run}"))),
        Wait::Resume { by } => (format!("You, to let it go on: held by {by}"), None),
        Wait::Dispatch { step, effect, at } => {
            let held = Held::at(effect.to_string(), *at, clock);
            let says =
                format!("{step} goes out {} ({}), unless you call it back", near(*at), held.goes.exact);
            return WaitRow { says: Inert::glimpse(&says, 300), href: None, held: Some(held) };
        }
        Wait::Work { step, does } => (format!("{step}: {does} is under way"), None),
    };
    WaitRow { says: Inert::glimpse(&says, 300), href, held: None }
}

fn effect_line(effect: &Value, clock: &Clock) -> EffectLine {
    let text = |name: &str| effect[name].as_str().unwrap_or_default();
    let moment = |name: &str| text(name).parse::<Timestamp>().ok();
    let at = moment("ended_at").or_else(|| moment("started_at")).or_else(|| moment("proposed_at"));
    EffectLine {
        action: Inert::line(text("action")),
        says: effect_says(text("status")),
        status: Inert::line(text("status")),
        at: clock.when(at.unwrap_or(clock.now)),
        request: Readable::of(&effect["request"]),
        response: Readable::of(&effect["response"]),
    }
}

fn entry_row(entry: &JournalEntry, clock: &Clock) -> EntryRow {
    let data = entry.data.clone().unwrap_or_default();
    let about = ["step", "workflow", "outcome"].iter().find_map(|name| data[*name].as_str());
    EntryRow {
        seq: entry.seq,
        kind: Inert::line(&entry.kind),
        about: Inert::glimpse(about.unwrap_or_default(), 60),
        at: clock.when(entry.at),
        actor: Inert::line(&entry.actor),
        data: Readable::of(&data),
    }
}
