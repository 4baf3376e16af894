//! Every error as `application/problem+json` (RFC 9457). A [`Kind`] is the whole decision: its name
//! in `type`, its title, its status, and whether it is worth coming back.

use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::memory::ingest::IngestError;
use crate::orchestrator::control::ControlError;
use crate::orchestrator::door::OpenError;
use crate::reviews::DecideRefusal;
use crate::reviews::aside::AsideRefusal;
use crate::reviews::batch::BatchRefusal;
use crate::reviews::call_back::CallBackRefusal;
use crate::store::StoreError;
use crate::triggers::email::EmailError;
use crate::triggers::mail::MailError;
use crate::triggers::webhook::WebhookError;

/// What a client waits before it tries again, seconds: a restart of the database takes about so long.
const RETRY_SECS: &str = "5";

/// What went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the table below says what each is")]
pub enum Kind {
    BadRequest,
    Unauthorized,
    SignedOut,
    Forbidden,
    UnknownRoute,
    UnknownRun,
    UnknownReview,
    UnknownCall,
    UnknownEffect,
    UnknownNotice,
    UnknownWorkflow,
    UnknownHook,
    UnknownModel,
    UnknownProvider,
    WrongMethod,
    ReviewOver,
    NoticeOver,
    TooLate,
    RunOver,
    UnknownStep,
    Retired,
    OtherDigest,
    TooLarge,
    WrongMediaType,
    BadInput,
    KeyReused,
    UnfitVerdict,
    BadAnswer,
    BadEdit,
    NoAuthor,
    BadWords,
    BadMoment,
    UnlikeReviews,
    DeniedEdit,
    NotAnEmail,
    NoMailbox,
    BadDocument,
    Busy,
    Full,
    TimedOut,
    Internal,
    Unavailable,
}

impl Kind {
    fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest => ("bad-request", S::BAD_REQUEST, "The request cannot be read"),
            Self::Unauthorized => ("unauthorized", S::UNAUTHORIZED, "You have to prove who you are"),
            Self::SignedOut => ("signed-out", S::UNAUTHORIZED, "You are not signed in"),
            Self::Forbidden => ("forbidden", S::FORBIDDEN, "This was not sent from a page of yours"),
            Self::UnknownRoute => ("unknown-route", S::NOT_FOUND, "There is nothing at this address"),
            Self::UnknownRun => ("unknown-run", S::NOT_FOUND, "There is no such run"),
            Self::UnknownReview => ("unknown-review", S::NOT_FOUND, "There is no such review"),
            Self::UnknownCall => ("unknown-call", S::NOT_FOUND, "There is no such call of a model"),
            Self::UnknownEffect => ("unknown-effect", S::NOT_FOUND, "There is no such effect"),
            Self::UnknownNotice => ("unknown-notice", S::NOT_FOUND, "There is no such notice"),
            Self::UnknownWorkflow => ("unknown-workflow", S::NOT_FOUND, "There is no such workflow"),
            Self::UnknownModel => ("unknown-model", S::NOT_FOUND, "There is no such model"),
            Self::UnknownProvider => ("unknown-provider", S::NOT_FOUND, "There is no such provider"),
            Self::UnknownHook => ("unknown-hook", S::NOT_FOUND, "There is no such hook"),
            Self::WrongMethod => ("wrong-method", S::METHOD_NOT_ALLOWED, "This address takes other methods"),
            Self::ReviewOver => ("review-over", S::CONFLICT, "This review is decided already"),
            Self::NoticeOver => ("notice-over", S::CONFLICT, "This notice is acknowledged already"),
            Self::TooLate => ("too-late", S::CONFLICT, "This effect cannot be called back any more"),
            Self::RunOver => ("run-over", S::CONFLICT, "This run has ended already"),
            Self::UnknownStep => ("unknown-step", S::NOT_FOUND, "The workflow has no such step"),
            Self::Retired => ("retired-workflow", S::CONFLICT, "This workflow takes no new runs"),
            Self::OtherDigest => ("other-digest", S::PRECONDITION_FAILED, "This is not what the review asks"),
            Self::TooLarge => ("too-large", S::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::WrongMediaType => {
                ("wrong-media-type", S::UNSUPPORTED_MEDIA_TYPE, "The body has to be JSON")
            }
            Self::BadInput => ("bad-input", S::UNPROCESSABLE_ENTITY, "The input does not fit the workflow"),
            Self::KeyReused => {
                ("key-reused", S::UNPROCESSABLE_ENTITY, "This key was used with another input")
            }
            Self::UnfitVerdict => {
                ("unfit-verdict", S::UNPROCESSABLE_ENTITY, "This review takes other verdicts")
            }
            Self::BadAnswer => ("bad-answer", S::UNPROCESSABLE_ENTITY, "The answer does not fit the form"),
            Self::BadEdit => ("bad-edit", S::UNPROCESSABLE_ENTITY, "The edit does not fit the action"),
            Self::NoAuthor => ("no-author", S::UNPROCESSABLE_ENTITY, "Nobody can be asked for another draft"),
            Self::BadWords => ("bad-words", S::UNPROCESSABLE_ENTITY, "These words cannot be kept"),
            Self::BadMoment => ("bad-moment", S::UNPROCESSABLE_ENTITY, "This moment does not fit"),
            Self::UnlikeReviews => {
                ("unlike-reviews", S::UNPROCESSABLE_ENTITY, "These reviews have to be decided one by one")
            }
            Self::DeniedEdit => ("denied-edit", S::UNPROCESSABLE_ENTITY, "Policy denies the edit"),
            Self::NotAnEmail => ("not-an-email", S::UNPROCESSABLE_ENTITY, "The email cannot be read"),
            Self::NoMailbox => ("no-mailbox", S::UNPROCESSABLE_ENTITY, "No workflow takes this email"),
            Self::BadDocument => {
                ("bad-document", S::UNPROCESSABLE_ENTITY, "Memory cannot take this document")
            }
            Self::Busy => ("busy", S::TOO_MANY_REQUESTS, "Too many requests at once"),
            Self::Full => ("full", S::TOO_MANY_REQUESTS, "As many runs are waiting as there may be"),
            Self::TimedOut => ("timed-out", S::SERVICE_UNAVAILABLE, "This took too long"),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "Something is wrong in Steward"),
            Self::Unavailable => ("unavailable", S::SERVICE_UNAVAILABLE, "Steward cannot do this right now"),
        }
    }

    /// The last part of the problem's `type`.
    #[must_use]
    pub fn slug(self) -> &'static str {
        self.row().0
    }

    /// Its status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        self.row().1
    }
}

/// One error, ready to be sent.
#[derive(Clone, PartialEq, Debug)]
pub struct Problem {
    /// What went wrong.
    pub kind: Kind,
    detail: String,
    fields: Map<String, Value>,
}

impl Problem {
    /// A problem with one sentence about this occurrence of it.
    pub fn new(kind: Kind, detail: impl ToString) -> Self {
        Self { kind, detail: detail.to_string(), fields: Map::new() }
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.fields.insert(name.to_owned(), json!(value));
        self
    }

    /// A fault in Steward: logged here, where it is handled, and told without details.
    #[must_use]
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(Kind::Internal, "the details are in the service's log")
    }

    /// What kind of thing went wrong, in a few words.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.kind.row().2
    }

    /// One sentence about this occurrence.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The body that is sent.
    #[must_use]
    pub fn body(&self) -> Value {
        let (slug, status, title) = self.kind.row();
        let mut body = self.fields.clone();
        body.insert("type".into(), json!(format!("/problems/{slug}")));
        body.insert("title".into(), json!(title));
        body.insert("status".into(), json!(status.as_u16()));
        body.insert("detail".into(), json!(self.detail));
        Value::Object(body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), self.body().to_string()).into_response();
        response.extensions_mut().insert(self.clone()); // for who shows it to a person
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.kind {
            Kind::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"steward\""));
            }
            Kind::Full => {
                let secs = self.fields.get("retry_after").and_then(Value::as_u64);
                let secs = secs.map_or(HeaderValue::from_static(RETRY_SECS), HeaderValue::from);
                headers.insert(RETRY_AFTER, secs);
            }
            Kind::Busy | Kind::TimedOut | Kind::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECS));
            }
            _ => {}
        }
        response
    }
}

pub(super) async fn no_such_route(uri: Uri) -> Problem {
    Problem::new(Kind::UnknownRoute, format!("there is nothing at {}", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Response {
    let mut response =
        Problem::new(Kind::WrongMethod, format!("{} takes no {method}", uri.path())).into_response();
    response.headers_mut().remove(ALLOW); // the router adds the right one
    response
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error.retryable() {
            true => {
                tracing::warn!(%error, "a request could not be served");
                Self::new(Kind::Unavailable, "the database does not answer; try again in a moment")
            }
            false => Self::internal(error),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let detail = error.to_string();
        match error {
            ControlError::NotFound(_) => Self::new(Kind::UnknownRun, detail),
            ControlError::Unfit { status, .. } => Self::new(Kind::RunOver, detail).with("run_status", status),
            ControlError::UnknownStep { .. } => Self::new(Kind::UnknownStep, detail),
            ControlError::Open(error) => error.into(),
            ControlError::Store(error) => error.into(),
        }
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::UnknownWorkflow { .. } => Self::new(Kind::UnknownWorkflow, error),
            OpenError::Retired(_) => Self::new(Kind::Retired, error),
            OpenError::BadInput { .. } => Self::new(Kind::BadInput, error),
            OpenError::Full { retry_after, .. } => {
                Self::new(Kind::Full, &error).with("retry_after", retry_after.as_secs())
            }
            OpenError::Stopping => Self::new(Kind::Unavailable, error),
            OpenError::Store(error) => error.into(),
        }
    }
}

impl From<DecideRefusal> for Problem {
    fn from(refusal: DecideRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            DecideRefusal::NotFound(_) => Self::new(Kind::UnknownReview, detail),
            DecideRefusal::Over { status, by, at, verdict } => Self::new(Kind::ReviewOver, detail)
                .with("review_status", status)
                .with("by", by)
                .with("at", at)
                .with("verdict", verdict),
            DecideRefusal::NoAuthor(_) => Self::new(Kind::NoAuthor, detail),
            DecideRefusal::BadWords(_) => Self::new(Kind::BadWords, detail),
            DecideRefusal::OtherDigest { given, expected } => {
                Self::new(Kind::OtherDigest, detail).with("given", given).with("expected", expected)
            }
            DecideRefusal::Unfit { fitting, .. } => {
                Self::new(Kind::UnfitVerdict, detail).with("fitting", fitting)
            }
            DecideRefusal::BadAnswer(_) => Self::new(Kind::BadAnswer, detail),
            DecideRefusal::BadEdit { .. } => Self::new(Kind::BadEdit, detail),
            DecideRefusal::Denied(reasons) => Self::new(Kind::DeniedEdit, detail).with("reasons", reasons),
            DecideRefusal::Store(error) => error.into(),
        }
    }
}

impl From<AsideRefusal> for Problem {
    fn from(refusal: AsideRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            AsideRefusal::NotFound(_) => Self::new(Kind::UnknownReview, detail),
            AsideRefusal::Over { status } => {
                Self::new(Kind::ReviewOver, detail).with("review_status", status)
            }
            AsideRefusal::BadMoment(_) => Self::new(Kind::BadMoment, detail),
            AsideRefusal::BadWords(_) => Self::new(Kind::BadWords, detail),
            AsideRefusal::Store(error) => error.into(),
        }
    }
}

impl From<BatchRefusal> for Problem {
    fn from(refusal: BatchRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            BatchRefusal::Unlike(unlike) => Self::new(Kind::UnlikeReviews, detail).with("reviews", unlike),
            BatchRefusal::Bad(_) => Self::new(Kind::BadRequest, detail),
            BatchRefusal::Store(error) => error.into(),
        }
    }
}

impl From<CallBackRefusal> for Problem {
    fn from(refusal: CallBackRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            CallBackRefusal::NotFound(_) => Self::new(Kind::UnknownEffect, detail),
            CallBackRefusal::TooLate { status, started_at } => {
                Self::new(Kind::TooLate, detail).with("effect_status", status).with("started_at", started_at)
            }
            CallBackRefusal::Store(error) => error.into(),
        }
    }
}

impl From<MailError> for Problem {
    fn from(error: MailError) -> Self {
        match error {
            MailError::Unreadable(EmailError::TooLarge { bytes, limit }) => {
                Self::new(Kind::TooLarge, error).with("bytes", bytes).with("limit", limit)
            }
            MailError::Unreadable(_) => Self::new(Kind::NotAnEmail, error),
            MailError::NoWorkflow { .. } => Self::new(Kind::NoMailbox, error),
            MailError::Open(error) => error.into(),
            MailError::Aside(error) => error.into(),
            MailError::Internal(error) => Self::internal(error),
        }
    }
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::Unknown(_) => Self::new(Kind::UnknownHook, error),
            WebhookError::NoSecret => Self::new(Kind::Unavailable, error),
            WebhookError::Signature(_) => Self::new(Kind::Unauthorized, error),
            WebhookError::BadKey | WebhookError::BadBody(_) => Self::new(Kind::BadRequest, error),
            WebhookError::Open(error) => error.into(),
        }
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::TooLarge { .. } => Self::new(Kind::TooLarge, error),
            IngestError::Path(_)
            | IngestError::Kind(_)
            | IngestError::NotText { .. }
            | IngestError::TooManyChunks { .. }
            | IngestError::TooMany(_)
            | IngestError::Read { .. } => Self::new(Kind::BadDocument, error),
            IngestError::Store(error) => error.into(),
            IngestError::Cut(why) => Self::internal(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::digest::Digest;

    #[test]
    fn a_problem_says_what_where_and_what_to_do_next() {
        let problem: Problem = DecideRefusal::Over {
            status: "approved".into(),
            by: Some("owner".into()),
            at: Some("2026-03-02T10:00:00Z".parse().unwrap()),
            verdict: Some(crate::domain::event::Verdict::Approved),
        }
        .into();
        insta::assert_json_snapshot!(problem.body(), @r#"
        {
          "at": "2026-03-02T10:00:00Z",
          "by": "owner",
          "detail": "this review is approved already, by owner",
          "review_status": "approved",
          "status": 409,
          "title": "This review is decided already",
          "type": "/problems/review-over",
          "verdict": {
            "verdict": "approved"
          }
        }
        "#);
    }

    #[test]
    fn no_field_of_an_occurrence_overrides_what_a_problem_is() {
        let body = Problem::new(Kind::Internal, "x").with("status", 200).with("type", "y").body();
        assert_eq!((&body["status"], &body["type"]), (&json!(500), &json!("/problems/internal")));
    }

    #[test]
    fn whoever_may_come_back_hears_when_and_whoever_has_no_key_hears_which() {
        let headers = |kind| Problem::new(kind, "x").into_response().headers().clone();
        for kind in [Kind::Busy, Kind::Full, Kind::TimedOut, Kind::Unavailable] {
            assert_eq!(headers(kind)[RETRY_AFTER], RETRY_SECS);
        }
        let full = OpenError::Full { workflow: "w".into(), retry_after: std::time::Duration::from_secs(7) };
        assert_eq!(Problem::from(full).into_response().headers()[RETRY_AFTER], "7");
        assert_eq!(headers(Kind::Unauthorized)[WWW_AUTHENTICATE], "Bearer realm=\"steward\"");
        assert_eq!(headers(Kind::Internal)[CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn a_fault_in_steward_is_told_without_its_details() {
        let problem: Problem = StoreError::Statement("column secret".into()).into();
        assert!(!problem.body().to_string().contains("secret"));
        let problem: Problem = StoreError::Unavailable("host 10.0.0.1".into()).into();
        assert_eq!(problem.kind, Kind::Unavailable);
        assert!(!problem.body().to_string().contains("10.0.0.1"));
    }

    #[test]
    fn a_decision_about_something_else_is_a_failed_precondition() {
        let refusal = DecideRefusal::OtherDigest { given: Digest::ZERO, expected: Digest::of_bytes(b"x") };
        assert_eq!(Problem::from(refusal).kind.status(), StatusCode::PRECONDITION_FAILED);
    }
}
