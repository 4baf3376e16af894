//! Named places at which a test lets the process die, to prove that nothing depends on it living on.
//! `STEWARD_FAILPOINT=name` makes the first passage of `name` a SIGKILL, and `name:stop` a SIGSTOP, from
//! which the process goes on at SIGCONT as if nothing had been. Without it they cost one comparison.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

/// What follows the name of a failpoint at which the process stands still.
const STOP: &str = ":stop";

static PASSED: AtomicBool = AtomicBool::new(false);

static ARMED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("STEWARD_FAILPOINT").ok());

/// A run has been opened and acknowledged; nothing has begun.
pub const RUN_OPENED: &str = "run.opened";
/// A model call is paid for; it has not been made. Only where a model costs something.
pub const MODEL_RESERVED: &str = "model.reserved";
/// A model call has been made; nobody has been told. Only where a model costs something.
pub const MODEL_CALLED: &str = "model.called";
/// A batch of model calls has begun; nobody has noted it. Not in [`ALL`]: only steps that may wait come here.
pub const BATCH_SUBMITTED: &str = "batch.submitted";
/// An agent has answered; its output is not durable yet.
pub const AGENT_ANSWERED: &str = "agent.answered";
/// A tool has answered an agent; nothing of its attempt's answer is known yet. Not in [`ALL`]: the mails of the
/// template are answered without tools.
pub const TOOL_ANSWERED: &str = "tool.answered";
/// A decision is durable; nobody has been told. Where this node took the run, it is going on already.
pub const DECISION_TAKEN: &str = "decision.taken";
/// An effect is durable as started; the connector has not been called.
pub const EFFECT_STARTED: &str = "effect.started";
/// The connector has answered; its answer is not durable yet.
pub const EFFECT_DONE: &str = "effect.done";

/// Some of the chunks that have no vector in a new space have one now; the space does not answer yet. Not in
/// [`ALL`]: no email embeds anything.
pub const SPACE_FILLED: &str = "space.filled";

/// Every failpoint that an email passes, in this order.
pub const ALL: [&str; 5] = [RUN_OPENED, AGENT_ANSWERED, DECISION_TAKEN, EFFECT_STARTED, EFFECT_DONE];

/// Dies here if armed.
pub fn hit(name: &str) {
    let Some(armed) = ARMED.as_deref() else { return };
    if armed.strip_suffix(STOP).unwrap_or(armed) == name {
        strike(armed);
    }
}

/// Dies here if armed for this action alone (`effect.started@email.send`) or for any (`effect.started`).
pub fn hit_at(name: &str, action: &str) {
    let Some(armed) = ARMED.as_deref() else { return };
    let place = armed.strip_suffix(STOP).unwrap_or(armed);
    let (armed_name, armed_action) = place.split_once('@').unwrap_or((place, action));
    if armed_name == name && armed_action == action {
        strike(armed);
    }
}

fn strike(armed: &str) {
    if PASSED.swap(true, Ordering::Relaxed) {
        return; // it stood still here once
    }
    let signal = if armed.ends_with(STOP) { Signal::STOP } else { Signal::KILL };
    tracing::warn!(armed, ?signal, "failpoint: the process signals itself");
    let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
}
