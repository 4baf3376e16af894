//! The page of one review, and what is decided on it. [`show_to`] and [`decide_as`] serve whoever may see it:
//! the owner who is signed in, and later the holder of a link to this one review.

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
use crate::domain::ids::ReviewId;
use crate::reviews::{self, DecideRefusal};
use crate::store::reviews::ReviewRow;
use crate::ui::answer;
use crate::ui::dress::html;
use crate::ui::page::{Next, Notice, ReviewPage, Typed, Viewer};
use crate::ui::params::{self, Errors};
use crate::ui::text::Inert;
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
    let row = row(state, review).await?;
    page(state, &row, viewer, StatusCode::OK, None, &Typed::default()).await
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
    let row = row(state, review).await?;
    let seen: Digest = form.get("digest").and_then(|digest| digest.parse().ok()).ok_or_else(|| {
        Problem::new(Kind::BadRequest, "the form does not say what was seen: open the page again")
    })?;
    let typed = |errors, edit| Typed { form: Some(form.clone()), errors, edit };
    if row.status != "open" {
        return page(state, &row, viewer, StatusCode::CONFLICT, Some(Notice::late()), &Typed::default())
            .await;
    }
    if seen != row.digest {
        let (status, notice) = (StatusCode::PRECONDITION_FAILED, Some(Notice::changed()));
        return page(state, &row, viewer, status, notice, &typed(Errors::new(), None)).await;
    }
    let wrong = StatusCode::UNPROCESSABLE_ENTITY;
    let verdict = match said(&row, &form)? {
        Said::Verdict(verdict) => verdict,
        Said::Preview(edit) => {
            return page(state, &row, viewer, StatusCode::OK, None, &typed(Errors::new(), Some(edit))).await;
        }
        Said::Unreadable(errors) => {
            let notice = Notice::wrong("Some of this cannot be read. Nothing was decided.");
            return page(state, &row, viewer, wrong, Some(notice), &typed(errors, None)).await;
        }
        Said::Unchanged => {
            let notice =
                Notice::wrong("This edit changes nothing. Approve it as it is, or change something.");
            return page(state, &row, viewer, wrong, Some(notice), &typed(Errors::new(), None)).await;
        }
    };
    match reviews::decide(&state.door, review, Some(seen), verdict, &viewer.by).await {
        Ok(_) => Ok(to(&viewer.here)),
        Err(DecideRefusal::Over { .. }) => {
            let row = self::row(state, review).await?;
            page(state, &row, viewer, StatusCode::CONFLICT, Some(Notice::late()), &Typed::default()).await
        }
        Err(DecideRefusal::OtherDigest { .. }) => {
            let row = self::row(state, review).await?;
            let (status, notice) = (StatusCode::PRECONDITION_FAILED, Some(Notice::changed()));
            page(state, &row, viewer, status, notice, &typed(Errors::new(), None)).await
        }
        Err(
            refusal @ (DecideRefusal::Unfit { .. }
            | DecideRefusal::BadAnswer(_)
            | DecideRefusal::BadEdit { .. }
            | DecideRefusal::NoAuthor(_)
            | DecideRefusal::BadWords(_)
            | DecideRefusal::Denied(_)),
        ) => {
            let notice = Notice::wrong(&format!("Nothing was decided: {refusal}."));
            page(state, &row, viewer, wrong, Some(notice), &typed(Errors::new(), None)).await
        }
        Err(refusal @ (DecideRefusal::NotFound(_) | DecideRefusal::Store(_))) => Err(refusal.into()),
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

async fn page(
    state: &ApiState,
    row: &ReviewRow,
    viewer: &Viewer,
    status: StatusCode,
    notice: Option<Notice>,
    typed: &Typed,
) -> Result<Response, Problem> {
    let proposed = row.question.action.as_ref().map(crate::domain::action::Action::digest);
    let labels = match proposed {
        Some(digest) => state.store().proposed_labels(row.run, &row.step, digest).await?,
        None => Default::default(),
    };
    let mut page = ReviewPage::of(row, &labels, viewer, &clock(state), notice, typed);
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

fn to(here: &str) -> Response {
    match HeaderValue::from_str(here) {
        Ok(here) => (StatusCode::SEE_OTHER, [(LOCATION, here)]).into_response(),
        Err(error) => Problem::internal(error).into_response(),
    }
}
