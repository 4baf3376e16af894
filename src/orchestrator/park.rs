//! Runs that crash their actor: given back for another try after a growing pause, and at last parked
//! with a review, so that a person decides, and every other run goes on.

use jiff::SignedDuration;
use serde_json::json;

use crate::domain::action::Labels;
use crate::domain::digest::Digest;
use crate::domain::event::{Artifact, Ask, Event, Outcome, Parked, Question, Verdict};
use crate::domain::ids::{NodeId, ReviewId, RunId, StepId};
use crate::domain::label::Label;
use crate::domain::plan::{Entry, PARKED_CHOICES, Rest};
use crate::domain::risk::Risk;
use crate::orchestrator::engine::Engine;
use crate::store::StoreError;
use crate::store::journal::Commit;
use crate::store::journal::seal::seal;
use crate::telemetry;

/// After this many crashes of its actor a run is parked: what crashed so often will crash again.
const MAX_CRASHES: i16 = 5;

/// The pause after a first crash; it doubles with each further one.
const CRASH_PAUSE: SignedDuration = SignedDuration::from_millis(200);

/// The longest stack that is kept, bytes: its beginning says where.
const MAX_STACK: usize = 16 * 1024;

/// Gives a crashed run back for another try after a pause, parks it, or ends it as the owner said.
pub(super) async fn give_back(
    engine: &Engine,
    node: NodeId,
    run: RunId,
    error: &str,
) -> Result<(), StoreError> {
    if let Some(by) = given_up(engine, run).await? {
        return end(engine, node, run, &by).await;
    }
    let Some(crashes) = engine.store.count_crash(node, run).await? else { return Ok(()) };
    if crashes >= MAX_CRASHES {
        return park(engine, node, run, crashes, error).await;
    }
    let pause = CRASH_PAUSE.saturating_mul(1 << (crashes - 1).clamp(0, 10));
    let wake_at = engine.now().saturating_add(pause).unwrap_or_else(|_| engine.now());
    engine.store.release(node, run, wake_at).await
}

/// Who gave the run up, if somebody did: it may be unable to hear that by itself.
async fn given_up(engine: &Engine, run: RunId) -> Result<Option<String>, StoreError> {
    for (topic, data) in engine.store.inbox(run).await?.messages {
        let by = data["by"].as_str().unwrap_or_default().to_owned();
        let verdict = serde_json::from_value(data["verdict"].clone());
        let gave_up = matches!(verdict, Ok(Verdict::Answered { answer }) if answer == PARKED_CHOICES[1]);
        if topic == "cancel" || gave_up {
            return Ok(Some(by));
        }
    }
    Ok(None)
}

/// Asks the owner, without folding the run: its journal may be what cannot be read.
async fn park(
    engine: &Engine,
    node: NodeId,
    run: RunId,
    crashes: i16,
    error: &str,
) -> Result<(), StoreError> {
    let open = engine.store.reviews("open", Some(run), None, i64::from(i16::MAX)).await?;
    if open.iter().any(|review| review.ask == Ask::Parked.as_str()) {
        return engine.store.release_parked(node, run).await;
    }
    let Some((seq, head)) = engine.store.head(run).await? else { return Ok(()) };
    let title = engine.store.run_row(run).await?.map(|row| row.title).unwrap_or_default();
    let stack = telemetry::stack_of(error).map(|stack| stack.chars().take(MAX_STACK).collect::<String>());
    let step = StepId::from(Parked::STEP);
    let nth = u32::try_from(seq).unwrap_or(u32::MAX); // no two reviews of a run are opened at one number
    let artifact = |title: &str, value| Artifact { title: title.to_owned(), label: Label::System, value };
    let mut artifacts = vec![artifact("error", json!(error)), artifact("crashes", json!(crashes))];
    artifacts.extend(stack.as_ref().map(|stack| artifact("stack", json!(stack))));
    let question = Question {
        review: ReviewId::derive(run, &step, nth),
        step,
        ask: Ask::Parked,
        title: format!("{title} · Steward cannot go on with it"),
        reasons: vec![
            format!("it failed {crashes} times in a row, at last with: {error}"),
            "`again`: try once more, after an update for instance; `give_up`: it ends here".into(),
        ],
        artifacts,
        digest: Digest::of_json(&json!({"parked": run, "seq": seq, "error": error})),
        action: None,
        labels: Labels::new(),
        stakes: None,
        form: Some(json!({"type": "string", "enum": PARKED_CHOICES})),
        due_at: None,
        risk: Risk::default(),
        allows_micros: None,
    };
    tracing::error!(%run, "the run is parked: it needs a look");
    append(engine, node, run, seq, head, Event::RunParked(Parked { question, stack }), Rest::Parked);
    Ok(())
}

/// Ends a run that may be unable to end by itself.
async fn end(engine: &Engine, node: NodeId, run: RunId, by: &str) -> Result<(), StoreError> {
    let Some((seq, head)) = engine.store.head(run).await? else { return Ok(()) };
    let reason = format!("given up by {by}");
    let event = Event::RunFinished { outcome: Outcome::Parked, reason, output: None };
    append(engine, node, run, seq, head, event, Rest::Over(Outcome::Parked));
    engine.store.withdraw_all(run).await
}

/// What is refused here is found again by the sweep.
fn append(engine: &Engine, node: NodeId, run: RunId, seq: i64, head: Digest, event: Event, rest: Rest) {
    let at = engine.now();
    let entry = Entry { event, actor: "system".into(), label: Label::System };
    let commit = Commit {
        run,
        node,
        expected_seq: seq,
        entries: seal(head, seq, at, vec![entry]),
        running: false,
        rest,
        nap: false,
        signals: i32::MAX,
        heard: Vec::new(),
        at,
        publish: None,
        slot: true, // giving back what it never held changes nothing
    };
    let done = move |result| {
        if let Err(error) = result {
            tracing::error!(%run, %error, "a run that crashed could not be parked or ended");
        }
    };
    engine.journal.commit(commit, Box::new(done));
}
