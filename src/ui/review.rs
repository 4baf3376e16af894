//! The page of one review, and what is decided on it. [`show_to`] and [`decide_as`] serve whoever may see it:
//! the owner who is signed in, and the holder of a link to this one review.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::ApiState;
use crate::api::extract::id;
use crate::api::problem::{Kind, Problem};
use crate::api::session::{Form, Session};
use crate::domain::digest::Digest;
use crate::domain::event::Verdict;
use crate::domain::ids::{EffectId, ReviewId, RunId};
use crate::reviews::aside::{self, AsideRefusal};
use crate::reviews::call_back::{CallBackRefusal, CalledBack, call_back};
use crate::reviews::email::link::{Behind, LinkRefusal};
use crate::reviews::{self, DecideRefusal, snooze};
use crate::store::reviews::ReviewRow;
use crate::ui::answer;
use crate::ui::dress::html;
use crate::ui::links::opens_nothing;
use crate::ui::page::{Next, Notice, ReviewPage, Typed};
use crate::ui::params::{self, Errors};
use crate::ui::text::Inert;
use crate::ui::viewer::Viewer;
use crate::ui::when::Clock;

/// The moment, and the owner's zone.
pub(super) fn clock(state: &ApiState) -> Clock {
    Clock { now: state.door.engine().now(), zone: state.definitions.settings.zone() }
}

/// `GET /reviews/{id}`
pub(super) async fn show(
    State(state): State<ApiState>,
    Extension(session): Extension<Session>,
    Path(review): Path<String>,
) -> Result<Response, Problem> {
    let review = id(&review, Kind::UnknownReview)?;
    show_to(&state, review, &Viewer::owner(&session, review)).await
}

/// `POST /reviews/{id}`
pub(super) async fn post(
    State(state): State<ApiState>,
    Extension(session): Extension<Session>,
    Path(review): Path<String>,
    Extension(form): Extension<Form>,
) -> Result<Response, Problem> {
    let review = id(&review, Kind::UnknownReview)?;
    decide_as(&state, review, &Viewer::owner(&session, review), form).await
}

/// The page of a review, for whoever may see it.
///
/// # Errors
/// 404 when there is no such review.
pub async fn show_to(state: &ApiState, review: ReviewId, viewer: &Viewer) -> Result<Response, Problem> {
    let page = Page { state, viewer };
    page.of(row(state, review).await?, StatusCode::OK, None, &Typed::default()).await
}

/// What somebody who may decide a review has said in its form: the page that follows. An edit is shown as the
/// difference it makes before it can be approved.
///
/// # Errors
/// 404 when there is no such review, 400 when the form is none of its page's.
pub async fn decide_as(
    state: &ApiState,
    review: ReviewId,
    viewer: &Viewer,
    form: Form,
) -> Result<Response, Problem> {
    let page = Page { state, viewer };
    let row = row(state, review).await?;
    let typed = |errors, edit| Typed { form: Some(form.clone()), errors, edit };
    if viewer.must_sign_in(&row) {
        let notice = Notice::wrong(&format!("Nothing happened: {}.", LinkRefusal::SignIn));
        return page.of(row, StatusCode::FORBIDDEN, Some(notice), &Typed::default()).await;
    }
    if let Some(answer) = beside(&page, &row, &form).await? {
        return Ok(answer);
    }
    let seen: Digest = form.get("digest").and_then(|digest| digest.parse().ok()).ok_or_else(|| {
        Problem::new(Kind::BadRequest, "the form does not say what was seen: open the page again")
    })?;
    if row.status != "open" {
        return page.late(row).await;
    }
    let changed = (StatusCode::PRECONDITION_FAILED, Some(Notice::changed()));
    if seen != row.digest {
        return page.of(row, changed.0, changed.1, &typed(Errors::new(), None)).await;
    }
    let verdict = match said(&row, &form)? {
        Said::Verdict(verdict) => verdict,
        Said::Preview(edit) => {
            return page.of(row, StatusCode::OK, None, &typed(Errors::new(), Some(edit))).await;
        }
        Said::Unreadable(errors) => {
            let why = "Some of this cannot be read. Nothing was decided.";
            return page.wrong(row, why, &typed(errors, None)).await;
        }
        Said::Unchanged => {
            let why = "This edit changes nothing. Approve it as it is, or change something.";
            return page.wrong(row, why, &typed(Errors::new(), None)).await;
        }
    };
    let refusal = match viewer.decide(&state.door, &row, seen, verdict).await {
        Ok(()) => return Ok(to(&viewer.here)),
        Err(refusal) => refusal,
    };
    let row = self::row(state, review).await?;
    match refusal {
        LinkRefusal::Behind(Behind::Open(_)) => {
            let notice = Notice::wrong("This link is deciding at this very moment. Look at it again.");
            page.of(row, StatusCode::CONFLICT, Some(notice), &Typed::default()).await
        }
        LinkRefusal::Behind(Behind::Over(_)) | LinkRefusal::Decide(DecideRefusal::Over { .. }) => {
            page.late(row).await
        }
        LinkRefusal::Behind(void) => Ok(opens_nothing(&void)),
        LinkRefusal::Changed | LinkRefusal::Decide(DecideRefusal::OtherDigest { .. }) => {
            page.of(row, changed.0, changed.1, &typed(Errors::new(), None)).await
        }
        LinkRefusal::SignIn => {
            let notice = Notice::wrong(&format!("Nothing was decided: {refusal}."));
            page.of(row, StatusCode::FORBIDDEN, Some(notice), &Typed::default()).await
        }
        LinkRefusal::Decide(
            refusal @ (DecideRefusal::Unfit { .. }
            | DecideRefusal::BadAnswer(_)
            | DecideRefusal::BadEdit { .. }
            | DecideRefusal::NoAuthor(_)
            | DecideRefusal::BadWords(_)
            | DecideRefusal::Denied(_)),
        ) => {
            let why = format!("Nothing was decided: {refusal}.");
            page.wrong(row, &why, &typed(Errors::new(), None)).await
        }
        LinkRefusal::Decide(refusal @ (DecideRefusal::NotFound(_) | DecideRefusal::Store(_))) => {
            Err(refusal.into())
        }
        LinkRefusal::Store(error) => Err(error.into()),
    }
}

/// What is said beside deciding: a comment, a snooze, a call back. Nothing when the form says something else.
async fn beside(page: &Page<'_>, row: &ReviewRow, form: &Form) -> Result<Option<Response>, Problem> {
    let Page { state, viewer } = page;
    let engine = state.door.engine();
    let is_open = row.status == "open";
    let typed = Typed { form: Some(form.clone()), ..Typed::default() };
    let done = match form.get("do") {
        Some("comment") if is_open || viewer.sees_all => {
            let text = form.get("text").unwrap_or_default().trim().replace("\r\n", "\n");
            aside::comment(engine, row.id, &viewer.by, &text).await.map(drop)
        }
        Some("snooze") if is_open => {
            let Clock { now, zone } = clock(state);
            let until = snooze::until(form.get("for").unwrap_or_default(), now, &zone);
            let until = until.ok_or_else(|| Problem::new(Kind::BadRequest, "until when?"))?;
            aside::snooze(engine, row.id, until).await
        }
        Some("comment" | "snooze") => return page.late(row.clone()).await.map(Some),
        Some("call-back") if viewer.sees_all => {
            let notice = match call_back_of(state, row.run, form, &viewer.by).await? {
                Called::Back => return Ok(Some(to(&viewer.here))),
                Called::Told => (StatusCode::ACCEPTED, Notice::told()),
                Called::TooLate(why) => (StatusCode::CONFLICT, Notice::wrong(&why)),
            };
            return page.of(row.clone(), notice.0, Some(notice.1), &Typed::default()).await.map(Some);
        }
        _ => return Ok(None),
    };
    match done {
        Ok(()) => Ok(Some(to(&viewer.here))),
        Err(AsideRefusal::Over { .. }) => page.late(self::row(state, row.id).await?).await.map(Some),
        Err(refusal @ (AsideRefusal::BadMoment(_) | AsideRefusal::BadWords(_))) => {
            page.wrong(row.clone(), &format!("This was not kept: {refusal}."), &typed).await.map(Some)
        }
        Err(refusal @ (AsideRefusal::NotFound(_) | AsideRefusal::Store(_))) => Err(refusal.into()),
    }
}

/// What became of a call back.
pub(super) enum Called {
    /// It does not go out.
    Back,
    /// Its run has still to hear of it.
    Told,
    /// It went out; why.
    TooLate(String),
}

/// Calls back the effect of a run that a form names.
pub(super) async fn call_back_of(
    state: &ApiState,
    run: RunId,
    form: &Form,
    by: &str,
) -> Result<Called, Problem> {
    let effect: EffectId = id(form.get("effect").unwrap_or_default(), Kind::UnknownEffect)?;
    let row = state.store().effect(effect).await?.filter(|row| row.run == run);
    if row.is_none() {
        return Err(CallBackRefusal::NotFound(effect).into());
    }
    match call_back(&state.door, effect, by).await {
        Ok(CalledBack::Back) => Ok(Called::Back),
        Ok(CalledBack::Told) => Ok(Called::Told),
        Err(refusal @ CallBackRefusal::TooLate { .. }) => {
            Ok(Called::TooLate(format!("Too late: {refusal}.")))
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// What a form says.
enum Said {
    Verdict(Verdict),
    /// An edit to look at first: the parameters it makes.
    Preview(serde_json::Value),
    Unreadable(Errors),
    Unchanged,
}

fn said(row: &ReviewRow, form: &Form) -> Result<Said, Problem> {
    let strange = || Problem::new(Kind::BadRequest, "this review has no such form");
    Ok(match form.get("do") {
        Some("approve") => Said::Verdict(Verdict::Approved),
        Some("reject") => {
            let reason = form.get("reason").unwrap_or_default().trim().replace("\r\n", "\n");
            Said::Verdict(Verdict::Rejected { reason })
        }
        Some("respond") => {
            let words = form.get("words").unwrap_or_default().trim().replace("\r\n", "\n");
            Said::Verdict(Verdict::Responded { words })
        }
        Some("answer") => {
            let schema = row.question.form.as_ref().ok_or_else(strange)?;
            match answer::typed(schema, form) {
                Ok(answer) => Said::Verdict(Verdict::Answered { answer }),
                Err(errors) => Said::Unreadable(errors),
            }
        }
        Some(word @ ("preview" | "edit")) => {
            let action = row.question.action.as_ref().ok_or_else(strange)?;
            match params::typed(action, form) {
                Ok(params) if params == action.params => Said::Unchanged,
                Ok(params) if word == "edit" => Said::Verdict(Verdict::Edited { params }),
                Ok(params) => Said::Preview(params),
                Err(errors) => Said::Unreadable(errors),
            }
        }
        _ => return Err(strange()),
    })
}

async fn row(state: &ApiState, review: ReviewId) -> Result<ReviewRow, Problem> {
    let row = state.store().review(review).await?;
    row.ok_or_else(|| Problem::new(Kind::UnknownReview, format!("there is no review {review}")))
}

/// The page of a review for somebody, in every state it can be in.
struct Page<'a> {
    state: &'a ApiState,
    viewer: &'a Viewer,
}

impl Page<'_> {
    async fn of(
        &self,
        row: ReviewRow,
        status: StatusCode,
        notice: Option<Notice>,
        typed: &Typed,
    ) -> Result<Response, Problem> {
        let Self { state, viewer } = self;
        let held = match row.question.action {
            Some(_) if row.status != "open" => state.store().effects(row.run).await?,
            _ => Vec::new(),
        };
        let held = held.iter().rev().find(|effect| effect.step == row.step);
        let shown = reviews::shown(state.door.engine(), row).await?;
        let mut page = ReviewPage::of(&shown, held, viewer, &clock(state), notice, typed);
        if viewer.sees_all && !page.is_open() {
            let open = state.store().reviews("open", None, None, 1).await?;
            page.next = open.into_iter().next().map(|next| Next {
                href: format!("/reviews/{}", next.id),
                title: Inert::glimpse(&next.title, 80),
            });
        }
        let mut response = html(&page);
        if response.status() == StatusCode::OK {
            *response.status_mut() = status;
        }
        Ok(response)
    }

    /// Somebody was faster.
    async fn late(&self, row: ReviewRow) -> Result<Response, Problem> {
        self.of(row, StatusCode::CONFLICT, Some(Notice::late()), &Typed::default()).await
    }

    /// What was typed does not do.
    async fn wrong(&self, row: ReviewRow, why: &str, typed: &Typed) -> Result<Response, Problem> {
        self.of(row, StatusCode::UNPROCESSABLE_ENTITY, Some(Notice::wrong(why)), typed).await
    }
}

pub(super) fn to(here: &str) -> Response {
    match HeaderValue::from_str(here) {
        Ok(here) => (StatusCode::SEE_OTHER, [(LOCATION, here)]).into_response(),
        Err(error) => Problem::internal(error).into_response(),
    }
}

#[cfg(test)]
#[path = "review_tests.rs"]
mod tests;
