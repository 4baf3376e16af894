//! Links into the web inbox, for whoever has the token: the command line.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::config::secret::kept;
use crate::store::StoreError;
use crate::store::sessions::LINK;

/// A link that signs in whoever opens it first.
pub struct Link {
    /// Where it leads.
    pub url: String,
    /// When it is void.
    pub expires_at: Timestamp,
}

impl ApiState {
    /// Makes a link into the web inbox. Only its digest is kept: it can be told this once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sign_in_link(&self) -> Result<Link, StoreError> {
        let secret = self.web.sealer.fresh();
        self.store().make_sign_in_link(kept(&secret)).await?;
        let expires_at = self.door.engine().now() + LINK;
        Ok(Link { url: self.web.sign_in_url(&secret), expires_at })
    }
}

/// `POST /api/v1/sign-in-links`
pub(super) async fn link(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    let link = state.sign_in_link().await?;
    tracing::info!("a sign-in link was made");
    Ok(Json(json!({"url": link.url, "expires_at": link.expires_at})))
}

/// `DELETE /api/v1/sessions`: signs everybody out, and voids every link.
pub(super) async fn revoke_all(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    let ended = state.store().revoke_all_sessions().await?;
    tracing::info!(ended, "every session was ended");
    Ok(Json(json!({"ended": ended})))
}
