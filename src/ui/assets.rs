//! What pages look like and what moves in them: files in the binary, named by their content.
//!
//! `htmx.min.js` and `hx-sse.min.js` are htmx 4.0.1 as its authors publish it (`htmx.LICENSE`, Zero-Clause BSD). They
//! are sent as one file: htmx looks at the page a moment after its own script, and what an extension that comes
//! later than that would have done, nobody does.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::api::problem::{Kind, Problem};
use crate::domain::digest::Digest;

/// A file.
struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

const ASSETS: [Asset; 4] = [
    Asset {
        name: "steward.css",
        media_type: "text/css; charset=utf-8",
        bytes: include_bytes!("static/steward.css"),
    },
    Asset { name: "keys.js", media_type: SCRIPT, bytes: include_bytes!("static/keys.js") },
    Asset {
        name: "htmx.js",
        media_type: SCRIPT,
        bytes: concat!(include_str!("static/htmx.min.js"), "\n", include_str!("static/hx-sse.min.js"))
            .as_bytes(),
    },
    Asset { name: "icon.svg", media_type: "image/svg+xml", bytes: include_bytes!("static/icon.svg") },
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A name that stands for a content may be kept for a year.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let digests: Vec<Digest> = ASSETS.iter().map(|asset| Digest::of_bytes(asset.bytes)).collect();
    let parts: Vec<&[u8]> = digests.iter().map(|digest| &digest.0[..]).collect();
    Digest::of_parts(&parts).short()
});

/// The path of a file; it changes when any of them does.
#[must_use]
pub fn path(name: &str) -> String {
    format!("/static/{}/{name}", *VERSION)
}

/// `GET /static/{version}/{name}`
pub(super) async fn get(Path((version, name)): Path<(String, String)>) -> Result<Response, Problem> {
    let asset = ASSETS.iter().find(|asset| asset.name == name && version == *VERSION);
    let asset = asset.ok_or_else(|| Problem::new(Kind::UnknownRoute, "there is no such file"))?;
    Ok(([(CONTENT_TYPE, asset.media_type), (CACHE_CONTROL, FOR_EVER)], asset.bytes).into_response())
}
