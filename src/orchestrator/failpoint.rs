//! Named places at which a test lets the process die, to prove that nothing depends on it living on.
//! `STEWARD_FAILPOINT=name` makes the first passage of `name` a SIGKILL; without it they cost one comparison.

use std::sync::LazyLock;

static ARMED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("STEWARD_FAILPOINT").ok());

/// A run has been opened and acknowledged; nothing has begun.
pub const RUN_OPENED: &str = "run.opened";
/// An agent has answered; its output is not durable yet.
pub const AGENT_ANSWERED: &str = "agent.answered";
/// A decision is durable; the run has not heard of it yet.
pub const DECISION_TAKEN: &str = "decision.taken";
/// An effect is durable as started; the connector has not been called.
pub const EFFECT_STARTED: &str = "effect.started";
/// The connector has answered; its answer is not durable yet.
pub const EFFECT_DONE: &str = "effect.done";

/// Every failpoint, in the order an email passes them.
pub const ALL: [&str; 5] = [RUN_OPENED, AGENT_ANSWERED, DECISION_TAKEN, EFFECT_STARTED, EFFECT_DONE];

/// Dies here if armed.
pub fn hit(name: &str) {
    if ARMED.as_deref() == Some(name) {
        die(name);
    }
}

/// Dies here if armed for this action alone (`effect.started@email.send`) or for any (`effect.started`).
pub fn hit_at(name: &str, action: &str) {
    let Some(armed) = ARMED.as_deref() else { return };
    let (armed_name, armed_action) = armed.split_once('@').unwrap_or((armed, action));
    if armed_name == name && armed_action == action {
        die(armed);
    }
}

fn die(name: &str) {
    tracing::warn!(name, "failpoint: the process kills itself");
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
