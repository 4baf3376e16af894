//! What Steward says about itself while it runs: log lines on stderr, readable and queryable.
//!
//! `STEWARD_LOG` filters (default `warn,steward=info` for `up`, `warn` for other commands); `STEWARD_LOG_FORMAT=json` makes one JSON object
//! per line. A failure is logged once, where it is handled. Secrets and message bodies are never logged.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What a service logs when nobody says otherwise.
pub const SERVICE: &str = "warn,steward=info";

/// What a command that speaks to a person logs when nobody says otherwise.
pub const COMMAND: &str = "warn";

/// Starts logging. A second start, as in tests, changes nothing.
pub fn start(usual: &str) {
    let filter = EnvFilter::try_from_env("STEWARD_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let json = std::env::var("STEWARD_LOG_FORMAT").is_ok_and(|format| format == "json");
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _ = match json {
        true => lines.json().try_init(),
        false => lines.with_target(false).try_init(),
    };
}
