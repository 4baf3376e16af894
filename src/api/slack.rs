//! `/hooks/slack`: what is clicked in Slack, where Slack reaches Steward over HTTP.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::api::ApiState;
use crate::api::extract::{self, header, read};
use crate::api::problem::{Kind, Problem};
use crate::reviews::slack::interact::{Reply, handle};
use crate::reviews::slack::payload::Payload;
use crate::reviews::slack::signature::Proof;

/// `POST /hooks/slack`: one interaction, proven by Slack's signature over the raw body. The answer comes when
/// a decision is durable.
pub(super) async fn interact(State(state): State<ApiState>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let proof = Proof {
        timestamp: header(&parts.headers, "x-slack-request-timestamp")?,
        signature: header(&parts.headers, "x-slack-signature")?,
    };
    let unproven = |why| Problem::new(Kind::Unauthorized, why);
    let nobody = || Problem::new(Kind::UnknownHook, "nobody listens here");
    let slack = state.slack.as_ref().ok_or_else(nobody)?;
    let secret = slack.signing_secret().ok_or_else(nobody)?;
    let now = state.door.engine().now();
    // What cannot be one, or is old, is refused before its body is read.
    proof.timely(now).map_err(unproven)?;
    let raw = read(&parts.headers, body, extract::MAX_JSON).await?;
    proof.verify(secret, &raw, now).map_err(unproven)?;
    let payload = Payload::of_form(&raw).map_err(|error| Problem::new(Kind::BadRequest, error))?;
    Ok(match handle(slack, payload).await {
        Reply::Done => StatusCode::OK.into_response(),
        Reply::View(view) => Json(view).into_response(),
        Reply::Late => {
            return Err(Problem::new(Kind::Unavailable, "it is not certain yet that this was noted"));
        }
    })
}
