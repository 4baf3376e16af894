//! What Steward says about itself while it runs: log lines on stderr, readable and queryable.
//!
//! `STEWARD_LOG` filters (default `warn,steward=info` for `up`, `warn` for other commands); `STEWARD_LOG_FORMAT=json` makes one JSON object
//! per line. A failure is logged once, where it is handled. Secrets and message bodies are never logged.

use std::backtrace::Backtrace;
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::{Mutex, Once, PoisonError};

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

/// How many panics are remembered: a run is parked within seconds of its last one.
const REMEMBERED: usize = 32;

static PANICS: Mutex<VecDeque<(String, String)>> = Mutex::new(VecDeque::new());

/// From now on a panic leaves its stack behind, for whoever has to explain it.
pub fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let message = info.payload_as_str().unwrap_or("a panic without words").to_owned();
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let stack = format!("{message}\nat {place}\n{}", Backtrace::force_capture());
            let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
            panics.truncate(REMEMBERED - 1);
            panics.push_front((message, stack));
            drop(panics);
            before(info);
        }));
    });
}

/// The stack of the last panic whose message is part of `error`.
#[must_use]
pub fn stack_of(error: &str) -> Option<String> {
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    panics.iter().find(|(message, _)| error.contains(message.as_str())).map(|(_, stack)| stack.clone())
}
