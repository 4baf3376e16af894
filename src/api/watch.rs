//! A run as it happens: server-sent events (WHATWG HTML, section 9.2).
//!
//! | event | what it is |
//! |---|---|
//! | `entry` | a journal entry, once it is durable; its id is the entry's number, so that `Last-Event-ID` goes on from there |
//! | `draft` | a piece of what a model is writing for this run on this node: a hint, never repeated, void when its call fails |
//! | `end` | the run is over, and with it the stream |

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use crate::api::ApiState;
use crate::api::extract::{Query, header, id};
use crate::api::problem::{Kind, Problem};
use crate::domain::ids::RunId;
use crate::orchestrator::engine::Engine;
use crate::orchestrator::live::Draft;

/// Entries read at once.
const PAGE: i64 = 100;

/// How long a run is left unlooked at when no hint comes: it may be in motion on another node.
const LOOK: Duration = Duration::from_secs(1);

/// The query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    /// Only entries behind this number.
    after: Option<i64>,
}

/// `GET /api/v1/runs/{id}/events`: its entries from the first, or from behind `after` or `Last-Event-ID`.
pub(super) async fn run(
    State(state): State<ApiState>,
    Path(run): Path<String>,
    Query(query): Query<From>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let run = id(&run, Kind::UnknownRun)?;
    let last = header(&headers, "last-event-id")?.map(|text| text.parse());
    let bad = |_| Problem::new(Kind::BadRequest, "`Last-Event-ID` is the number of an entry");
    let after = last.transpose().map_err(bad)?.or(query.after).unwrap_or(0);
    let permit = state.watcher()?;
    let engine = state.door.engine().clone();
    // Before the first look, so that nothing falls in between.
    let (moved, drafts) = (engine.moved.subscribe(), engine.live.watch(run));
    let row = engine.store.run_row(run).await?;
    let row = row.ok_or_else(|| Problem::new(Kind::UnknownRun, format!("there is no run {run}")))?;
    let watching = Watching {
        engine,
        run,
        after,
        ready: VecDeque::new(),
        ended: row.finished_at.is_some(),
        over: false,
        moved,
        drafts,
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
    engine: Arc<Engine>,
    run: RunId,
    /// The last entry told.
    after: i64,
    ready: VecDeque<Event>,
    /// The run is over, as far as the entries told.
    ended: bool,
    /// Nothing more will come.
    over: bool,
    moved: broadcast::Receiver<crate::orchestrator::engine::Moved>,
    drafts: broadcast::Receiver<Draft>,
    _permit: OwnedSemaphorePermit,
}

impl Watching {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            if self.look().await.is_err() {
                return None; // the watcher comes back with the number of the last entry it has seen
            }
            if !self.ready.is_empty() {
                continue;
            }
            if self.ended {
                self.over = true;
                return Event::default().event("end").json_data(json!({"run": self.run})).ok();
            }
            self.wait().await;
        }
    }

    /// Looks for entries that are durable by now.
    async fn look(&mut self) -> Result<(), crate::store::StoreError> {
        let entries = self.engine.store.journal(self.run, self.after, PAGE).await?;
        // What was written before an answer is told before it.
        while let Ok(draft) = self.drafts.try_recv() {
            self.tell(&draft);
        }
        for entry in entries {
            self.after = entry.seq;
            match entry.kind.as_str() {
                "run.finished" => self.ended = true,
                "run.reopened" => self.ended = false,
                _ => {}
            }
            let event = Event::default().event("entry").id(entry.seq.to_string()).json_data(&entry);
            self.ready.extend(event);
        }
        Ok(())
    }

    fn tell(&mut self, draft: &Draft) {
        self.ready.extend(Event::default().event("draft").json_data(draft));
    }

    /// Until there may be something to tell.
    async fn wait(&mut self) {
        let over = self.engine.live.over();
        let look = tokio::time::sleep(LOOK);
        tokio::pin!(look);
        loop {
            tokio::select! {
                moved = self.moved.recv() => match moved {
                    Ok(moved) if moved.run != self.run => {}
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => return self.over = true,
                },
                draft = self.drafts.recv() => {
                    if let Ok(draft) = draft {
                        self.tell(&draft);
                    }
                    return;
                }
                () = &mut look => return,
                () = over.cancelled() => return self.over = true,
            }
        }
    }
}
