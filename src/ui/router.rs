//! The pages: every route in one line. What each of them asks for stands in [`crate::api::auth::gate`].

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{get, post};

use crate::api::{self, ApiState};
use crate::ui::{assets, dress, home, links, live, review, run, sign_in};

/// The service as it is reached: the API and the pages.
pub fn serve(state: ApiState) -> Router {
    api::router(state, pages()).layer(from_fn(dress::dress))
}

fn pages() -> Router<ApiState> {
    Router::new()
        .route("/", get(home::show))
        .route("/live", get(live::home))
        .route("/reviews/{id}", get(review::show).post(review::post))
        .route("/reviews/{id}/live", get(live::review))
        .route("/r/{secret}", get(links::show).post(links::post))
        .route("/u/{token}", get(links::digest).post(links::want_digest))
        .route("/runs/{id}", get(run::show).post(run::post))
        .route("/runs/{id}/live", get(live::run))
        .route("/sign-in", get(sign_in::show).post(sign_in::enter))
        .route("/sign-out", post(sign_in::leave))
        .route("/static/{version}/{name}", get(assets::get))
}
