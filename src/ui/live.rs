//! Pages while they are looked at: server-sent events (WHATWG HTML, section 9.2) whose data is the part of the
//! page that changes, as HTML. One is sent when what it shows has changed; whoever misses some sees the last.

use std::convert::Infallible;
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::Instant;

use crate::api::ApiState;
use crate::api::extract::id;
use crate::api::problem::{Kind, Problem};
use crate::api::session::Session;
use crate::domain::digest::Digest;
use crate::domain::ids::{ReviewId, RunId};
use crate::orchestrator::engine::Moved;
use crate::ui::text::Inert;
use crate::ui::{home, run};

/// How long a page is left as it is when no hint comes: a run may be in motion on another node.
const LOOK: Duration = Duration::from_secs(2);

/// The shortest time between two looks: a flood of runs must not become a flood of pages.
const PACE: Duration = Duration::from_millis(250);

/// How often it is asked whether the session is still good.
const ASK: Duration = Duration::from_secs(30);

/// What is looked at.
#[derive(Clone, Copy)]
enum What {
    Home,
    Run(RunId),
    Review(ReviewId),
}

/// What has become of a review while its page was open.
#[derive(Template)]
#[template(path = "review_live.html", config = "src/ui/askama.toml")]
struct ReviewLive {
    status: Option<Inert>,
    by: Option<Inert>,
}

/// `GET /live`
pub(super) async fn home(
    State(state): State<ApiState>,
    Extension(session): Extension<Session>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    watch(state, session, What::Home, None)
}

/// `GET /runs/{id}/live`
pub(super) async fn run(
    State(state): State<ApiState>,
    Extension(session): Extension<Session>,
    Path(run): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let run: RunId = id(&run, Kind::UnknownRun)?;
    if state.store().run_row(run).await?.is_none() {
        return Err(Problem::new(Kind::UnknownRun, format!("there is no run {run}")));
    }
    watch(state, session, What::Run(run), None)
}

/// `GET /reviews/{id}/live`: nothing until somebody decides.
pub(super) async fn review(
    State(state): State<ApiState>,
    Extension(session): Extension<Session>,
    Path(review): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    // A page that watches showed an open review, whatever has become of it since.
    let seen = ReviewLive { status: None, by: None }.render().map_err(Problem::internal)?;
    watch(state, session, What::Review(id(&review, Kind::UnknownReview)?), Some(seen))
}

fn watch(
    state: ApiState,
    session: Session,
    what: What,
    seen: Option<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let permit = state.watcher()?;
    let watching = Watching {
        moved: state.door.engine().moved.subscribe(),
        state,
        session,
        what,
        last: seen.map(|html| Digest::of_bytes(html.as_bytes())),
        asked: Instant::now(),
        looked: None,
        _permit: permit,
    };
    let events = futures_util::stream::unfold(watching, |mut watching| async move {
        let event = watching.next().await?;
        Some((Ok(event), watching))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// One who watches.
struct Watching {
    state: ApiState,
    session: Session,
    what: What,
    /// What was shown last.
    last: Option<Digest>,
    /// When the session was last found good.
    asked: Instant,
    looked: Option<Instant>,
    moved: broadcast::Receiver<Moved>,
    _permit: OwnedSemaphorePermit,
}

impl Watching {
    /// The next change; nothing once the session is over, the service stops, or the database does not answer:
    /// the page comes back by itself.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.looked.is_some() {
                self.wait().await?;
            }
            if self.asked.elapsed() > ASK {
                let good = self.state.store().session_is_good(self.session.digest()).await;
                if !good.is_ok_and(|good| good) {
                    return None;
                }
                self.asked = Instant::now();
            }
            self.looked = Some(Instant::now());
            let html = look(&self.state, &self.session, self.what).await.ok()??;
            let digest = Digest::of_bytes(html.as_bytes());
            if self.last.replace(digest) != Some(digest) {
                return Some(Event::default().data(html));
            }
        }
    }

    /// Until there may be something to show; nothing when the service stops.
    async fn wait(&mut self) -> Option<()> {
        let over = self.state.door.engine().live.over();
        let look = tokio::time::sleep(LOOK);
        tokio::pin!(look);
        loop {
            tokio::select! {
                moved = self.moved.recv() => match moved {
                    Ok(moved) if self.is_another(moved.run) => continue,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => break,
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                () = &mut look => break,
                () = over.cancelled() => return None,
            }
        }
        if let Some(looked) = self.looked {
            tokio::select! {
                () = tokio::time::sleep_until(looked + PACE) => {}
                () = over.cancelled() => return None,
            }
        }
        Some(())
    }

    fn is_another(&self, run: RunId) -> bool {
        matches!(self.what, What::Run(mine) if mine != run)
    }
}

/// What is to be seen at this moment; nothing when it is gone.
async fn look(state: &ApiState, session: &Session, what: What) -> Result<Option<String>, Problem> {
    let rendered = match what {
        What::Home => Box::pin(home::live(state)).await?.render(),
        What::Run(run) => Box::pin(run::now(state, session, run)).await?.render(),
        What::Review(review) => {
            let Some(row) = state.store().review(review).await? else { return Ok(None) };
            let over = row.status != "open";
            let live = ReviewLive {
                status: over.then(|| Inert::line(&row.status)),
                by: row.decided_by.as_deref().map(Inert::line),
            };
            live.render()
        }
    };
    rendered.map(Some).map_err(Problem::internal)
}
