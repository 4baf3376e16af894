//! `steward login` and `steward logout`: into the web inbox, and out of it on every device.

use serde_json::json;

use crate::cli::client::Client;
use crate::cli::{Common, Fail, out};

/// `steward login`.
#[derive(clap::Args, Clone, Debug)]
pub struct LoginArgs {
    #[command(flatten)]
    common: Common,
}

/// `steward logout`.
#[derive(clap::Args, Clone, Debug)]
pub struct LogoutArgs {
    #[command(flatten)]
    common: Common,
}

/// Prints a link that signs in whoever opens it first.
///
/// # Errors
/// See [`Fail`].
pub async fn login(args: LoginArgs) -> Result<(), Fail> {
    let reply = Client::find(&args.common)?.post("/api/v1/sign-in-links", &json!({}), None).await?;
    if args.common.json {
        return out::json(&reply.body);
    }
    let text = |name: &str| reply.body[name].as_str().unwrap_or_default().to_owned();
    out::line(&out::plain(&text("url")))?;
    out::note(&format!("opens the web inbox once, until {}", out::moment(&text("expires_at"))));
    Ok(())
}

/// Ends every session and voids every link.
///
/// # Errors
/// See [`Fail`].
pub async fn logout(args: LogoutArgs) -> Result<(), Fail> {
    let body = Client::find(&args.common)?.delete("/api/v1/sessions").await?;
    if args.common.json {
        return out::json(&body);
    }
    match body["ended"].as_u64().unwrap_or_default() {
        0 => out::line("nobody was signed in"),
        1 => out::line("signed out of 1 session"),
        many => out::line(&format!("signed out of {many} sessions")),
    }
}
