//! Many nodes on one database: each run has one owner, whoever is lost is replaced, and whoever comes
//! back from a pause finds that nothing is his any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use steward::connectors::{Call, Connector};
use steward::domain::action::{Action, Repeat};
use steward::domain::event::{Event, Opened as Input, Verdict};
use steward::domain::ids::{NodeId, RunId};
use steward::domain::label::Label;
use steward::domain::plan::{EffectResult, Entry, Rest};
use steward::orchestrator::journal::Journal;
use steward::orchestrator::lease::{LEASE, Lease};
use steward::store::Store;
use steward::store::journal::seal::{Sealed, genesis, seal};
use steward::store::journal::{Commit, CommitError, Open};
use steward::store::wakeup::{Hint, Line};
use tokio::sync::{Notify, oneshot};

use crate::support::rig::{Rig, Scripted, call_out, step, ten_steps};
use crate::support::{database, eventually};

/// A lease short enough to wait for, and long enough for a busy machine to keep.
const SHORT: Duration = Duration::from_secs(3);

async fn sql(store: &Store, statement: &str) -> u64 {
    let (client, connection) = store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.execute(statement, &[]).await.unwrap()
}

fn succeeds() -> Arc<Scripted> {
    Scripted::new(Repeat::None, |_, _| EffectResult::Succeeded(json!({"ok": true})))
}

#[tokio::test]
async fn three_nodes_share_five_hundred_runs_and_none_of_them_ever_meets_another_owner() {
    let store = database().await;
    let paid = succeeds();
    let steps = vec![
        step("before", None, "noop", json!({"value": "{{ input.what }}"})),
        call_out("pay", Some("before")),
        step("after", Some("pay"), "noop", json!({"value": "{{ input.what }}"})),
    ];
    let mut rigs = Vec::new();
    for _ in 0..3 {
        rigs.push(Arc::new(Rig::beside(&store, LEASE, steps.clone(), vec![paid.clone()]).await));
    }
    let lives = (0..500usize).map(|n| {
        let (opener, decider) = (rigs[n % 3].clone(), rigs[(n + 1) % 3].clone());
        async move {
            let run = opener.open(None).await.run();
            decider.decide(run, Verdict::Approved).await; // on another node than the one that had it last
            run
        }
    });
    let runs: Vec<RunId> = futures_util::stream::iter(lives).buffer_unordered(40).collect().await;
    for run in &runs {
        rigs[0].becomes(*run, "succeeded").await;
        let kinds = rigs[0].kinds(*run).await;
        let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
        assert_eq!(count("step.started"), 1, "the one step that is not pure was begun once: {kinds:?}");
        assert_eq!((count("effect.started"), count("attempt.failed")), (1, 0), "{kinds:?}");
    }
    assert_eq!(paid.calls(), 500);
    for rig in &rigs {
        assert_eq!(rig.door.engine().fenced.load(Ordering::Relaxed), 0, "nobody lost a run it was moving");
        rig.door.stop().await;
    }
}

#[tokio::test]
async fn a_node_that_renews_while_it_is_taken_for_lost_keeps_everything_or_loses_everything() {
    let store = database().await;
    let rig = Rig::over(store.clone(), ten_steps(), Vec::new()).await;
    let version = rig.door.engine().current(&"test".into()).unwrap().digest;
    rig.door.stop().await;
    let journal = Journal::start(store.config()).await.unwrap();
    let mut kept = 0;
    for _ in 0..40 {
        let lease = Lease::take(&store, LEASE, false).await.unwrap();
        let (open, _) = opened(&lease, version);
        let run = open.run;
        journal.open(open).await.unwrap();
        sql(&store, "update nodes set lease_until = now() - interval '1 second'").await;
        let (renewed, freed) = tokio::join!(lease.renew(&store), store.free_runs_of_lost_nodes());
        let owned = store.runs_of(lease.node()).await.unwrap().contains(&(run, false));
        assert_eq!(renewed.unwrap(), owned, "the lease and its runs are one thing");
        assert_eq!(freed.unwrap(), u64::from(!owned));
        kept += usize::from(owned);
        store.retire_node(lease.node()).await.unwrap();
    }
    eprintln!("of 40 nodes {kept} were faster than those who took them for lost");
}

/// A run as `lease`'s node opens it, and what its next transition is sealed upon.
fn opened(lease: &Lease, version: steward::domain::digest::Digest) -> (Open, Sealed) {
    let run = RunId(uuid::Uuid::now_v7());
    let input = Input {
        workflow: "test".into(),
        version,
        title: "by hand".into(),
        input: json!({"what": "x"}),
        label: Label::Owner,
        trigger: "api".into(),
        verified: None,
        parent: None,
        rerun: None,
        budget_micros: None,
    };
    let entry = Entry { event: Event::RunOpened(input), actor: "trigger:api".into(), label: Label::Owner };
    let at = steward::store::journal::seal::whole_microseconds(lease.now());
    let entry = seal(genesis(run), 0, at, vec![entry]).pop().unwrap();
    let open = Open {
        run,
        workflow: "test".into(),
        version,
        title: "by hand".into(),
        trigger: "api".into(),
        key: run.to_string(),
        node: Some(lease.node()),
        queued: None,
        entry: entry.clone(),
    };
    (open, entry)
}

#[tokio::test]
async fn what_was_queued_under_a_lost_lease_never_lands_though_the_same_node_took_the_run_again() {
    let store = database().await;
    let rig = Rig::over(store.clone(), ten_steps(), Vec::new()).await;
    let version = rig.door.engine().current(&"test".into()).unwrap().digest;
    rig.door.stop().await;
    let journal = Journal::start(store.config()).await.unwrap();
    let lease = Lease::take(&store, LEASE, false).await.unwrap();
    let (open, first) = opened(&lease, version);
    let run = open.run;
    journal.open(open).await.unwrap();
    let transition = |node| cancelling(run, node, &first, "owner");
    let stale = transition(lease.node());

    sql(&store, "update nodes set lease_until = now() - interval '1 second'").await;
    assert_eq!(store.free_runs_of_lost_nodes().await.unwrap(), 1);
    assert!(!lease.renew(&store).await.unwrap());
    lease.lose();
    assert_eq!(lease.surely(), None);
    lease.take_anew(&store).await.unwrap();
    assert_eq!(store.claim_due(stale.node, 10).await.unwrap(), Vec::new(), "a lost lease claims nothing");
    assert_eq!(store.claim_due(lease.node(), 10).await.unwrap(), vec![run]);

    // In one batch: the one that owns the run is not held up by the one that does not.
    let (stale, fresh) = (commit(&journal, stale), commit(&journal, transition(lease.node())));
    assert!(matches!(stale.await.unwrap(), Err(CommitError::Fenced)));
    fresh.await.unwrap().unwrap();
    assert_eq!(store.verify_run(run).await.unwrap(), None);
}

/// A second entry, which leaves the run's row as it is.
fn cancelling(run: RunId, node: NodeId, first: &Sealed, by: &str) -> Commit {
    let event = Event::RunCancelling { by: by.into() };
    let entry = Entry { event, actor: by.into(), label: Label::Owner };
    Commit {
        run,
        node,
        expected_seq: 1,
        entries: seal(first.hash, 1, first.at, vec![entry]),
        running: true,
        rest: Rest::Busy,
        nap: false,
        signals: 0,
        heard: Vec::new(),
        at: first.at,
        publish: None,
        slot: false,
    }
}

#[tokio::test]
async fn a_number_in_a_journal_is_given_once_though_two_writers_of_one_node_believe_it_free() {
    let store = database().await;
    let rig = Rig::over(store.clone(), ten_steps(), Vec::new()).await;
    let version = rig.door.engine().current(&"test".into()).unwrap().digest;
    rig.door.stop().await;
    let (one, two) =
        (Journal::start(store.config()).await.unwrap(), Journal::start(store.config()).await.unwrap());
    let lease = Lease::take(&store, LEASE, false).await.unwrap();
    let ((open, first), (other, other_first)) = (opened(&lease, version), opened(&lease, version));
    let (run, other_run) = (open.run, other.run);
    one.open(open).await.unwrap();
    one.open(other).await.unwrap();
    commit(&one, cancelling(run, lease.node(), &first, "owner")).await.unwrap().unwrap();
    let twice = commit(&two, cancelling(run, lease.node(), &first, "somebody else"));
    let beside = commit(&two, cancelling(other_run, lease.node(), &other_first, "owner"));
    assert!(matches!(twice.await.unwrap(), Err(CommitError::Fenced)));
    beside.await.unwrap().unwrap();
    let journal = store.journal(run, 1, 10).await.unwrap();
    assert_eq!(journal.iter().map(|entry| entry.actor.as_str()).collect::<Vec<_>>(), ["owner"]);
    assert_eq!(store.verify_run(run).await.unwrap(), None);
}

fn commit(journal: &Journal, commit: Commit) -> oneshot::Receiver<Result<(), CommitError>> {
    let (done, answer) = oneshot::channel();
    let done = move |result| drop(done.send(result));
    journal.commit(commit, Box::new(done));
    answer
}

#[tokio::test]
async fn a_lease_that_may_be_over_holds_effects_back_until_it_is_renewed_and_for_ever_once_it_is_lost() {
    let store = database().await;
    let lease = Lease::take(&store, Duration::from_millis(200), false).await.unwrap();
    let node = lease.node();
    eventually("nobody renewing it", || async { lease.surely().is_none().then_some(()) }).await;
    let waiting = tokio::spawn({
        let lease = lease.clone();
        async move { lease.holds(node).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    let renewing = eventually("it holding again", || async {
        assert!(lease.renew(&store).await.unwrap(), "nobody took over");
        waiting.is_finished().then_some(())
    });
    renewing.await;
    assert!(waiting.await.unwrap(), "it may go on");
    lease.lose();
    assert!(!lease.holds(node).await);
    lease.take_anew(&store).await.unwrap();
    assert!(!lease.holds(node).await, "a new lease is no leave for what began under the old one");
}

/// A connector whose first call never comes back, and which says when that call is given up.
#[derive(Default)]
struct Hanging {
    begun: AtomicUsize,
    given_up: Arc<Notify>,
}

struct TellOnDrop(Arc<Notify>);

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Connector for Hanging {
    fn actions(&self) -> &'static [&'static str] {
        &["http.request"]
    }

    fn repeat(&self, _: &Action) -> Repeat {
        Repeat::None
    }

    fn perform<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, EffectResult> {
        let nth = self.begun.fetch_add(1, Ordering::Relaxed);
        let tell = TellOnDrop(self.given_up.clone());
        Box::pin(async move {
            if nth == 0 {
                std::future::pending::<()>().await;
            }
            drop(tell);
            EffectResult::Succeeded(json!({}))
        })
    }

    fn probe<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, EffectResult> {
        Box::pin(async { EffectResult::Unknown("nothing to look up".into()) })
    }
}

#[tokio::test]
async fn a_node_whose_lease_was_taken_drops_what_it_had_under_way_and_comes_back_under_another_name() {
    let store = database().await;
    let hanging = Arc::new(Hanging::default());
    let steps = vec![call_out("pay", None)];
    let rig = Rig::beside(&store, SHORT, steps.clone(), vec![hanging.clone()]).await.live().await;
    let run = rig.open(None).await.run();
    eventually("the call being under way", || async {
        (hanging.begun.load(Ordering::Relaxed) == 1).then_some(())
    })
    .await;
    let before = rig.door.engine().node();
    sql(&store, "delete from nodes").await; // what another node does to one that was silent for too long
    hanging.given_up.notified().await;
    let review = eventually("somebody else's question", || async {
        store.reviews("open", Some(run), None, 1).await.unwrap().pop()
    })
    .await;
    assert_eq!(review.ask, "in_doubt", "whether it happened nobody knows");
    assert_ne!(rig.door.engine().node(), before);
    rig.decide(run, Verdict::Answered { answer: json!("again") }).await;
    rig.becomes(run, "succeeded").await;
    assert_eq!(hanging.begun.load(Ordering::Relaxed), 2);
    let next = rig.open(None).await.run();
    rig.becomes(next, "succeeded").await;
    rig.door.stop().await;
}

#[tokio::test]
async fn a_run_in_motion_on_one_node_hears_what_is_told_on_another() {
    let store = database().await;
    let hanging = Arc::new(Hanging::default());
    let steps = vec![call_out("pay", None)];
    let owner = Rig::beside(&store, LEASE, steps.clone(), vec![hanging.clone()]).await.live().await;
    let other = Rig::beside(&store, LEASE, steps, vec![hanging.clone()]).await;
    let run = owner.open(None).await.run();
    eventually("the call being under way", || async {
        (hanging.begun.load(Ordering::Relaxed) == 1).then_some(())
    })
    .await;
    assert!(other.store.request_cancel(run, "owner").await.unwrap());
    other.door.wake(run);
    eventually("the run hearing of it", || async {
        owner.kinds(run).await.contains(&"run.cancelling".to_owned()).then_some(())
    })
    .await;
    other.door.stop().await;
    owner.door.stop_by(tokio::time::Instant::now()).await;
}

#[tokio::test]
async fn a_node_that_retreats_hands_everything_over_and_still_takes_runs_in_for_the_others() {
    let store = database().await;
    let going = Rig::beside(&store, LEASE, ten_steps(), Vec::new()).await;
    let staying = Rig::beside(&store, LEASE, ten_steps(), Vec::new()).await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(going.open(None).await.run());
    }
    going.door.retreat();
    for _ in 0..20 {
        runs.push(going.open(None).await.run());
    }
    for run in runs {
        staying.becomes(run, "succeeded").await;
    }
    assert_eq!(going.door.in_motion(), 0);
    assert_eq!(store.runs_of(going.door.engine().node()).await.unwrap(), Vec::new());
    going.door.stop().await;
    staying.door.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_does_not_wait_for_ever_and_the_next_one_asks_about_what_was_under_way() {
    let store = database().await;
    let hanging = Arc::new(Hanging::default());
    let steps = vec![call_out("pay", None)];
    let going = Rig::beside(&store, LEASE, steps.clone(), vec![hanging.clone()]).await.live().await;
    let run = going.open(None).await.run();
    eventually("the call being under way", || async {
        (hanging.begun.load(Ordering::Relaxed) == 1).then_some(())
    })
    .await;
    going.door.stop_by(tokio::time::Instant::now() + Duration::from_millis(400)).await;
    hanging.given_up.notified().await;
    assert_eq!(store.runs_of(going.door.engine().node()).await.unwrap(), Vec::new());
    let next = Rig::beside(&store, LEASE, steps, vec![hanging.clone()]).await;
    next.decide(run, Verdict::Answered { answer: json!("happened") }).await;
    next.becomes(run, "succeeded").await;
    assert_eq!(hanging.begun.load(Ordering::Relaxed), 1, "nobody repeated it");
    next.door.stop().await;
}

#[tokio::test]
async fn a_hint_reaches_every_other_node_and_never_comes_back_to_its_sender() {
    let store = database().await;
    let (mut a, mut b, mut c) = (
        Line::connect(store.config()).await.unwrap(),
        Line::connect(store.config()).await.unwrap(),
        Line::connect(store.config()).await.unwrap(),
    );
    let told = |n| Hint { runs: vec![RunId(uuid::Uuid::from_u128(n))], others: false };
    a.tell(&told(1)).await.unwrap();
    assert_eq!(b.hear().await, Some(told(1)));
    b.tell(&told(2)).await.unwrap();
    assert_eq!(a.hear().await, Some(told(2)), "the first thing it hears is the other's");
    assert_eq!((c.hear().await, c.hear().await), (Some(told(1)), Some(told(2))));
    sql(
        &store,
        "select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid()",
    )
    .await;
    assert_eq!(c.hear().await, None, "who lost the line is told so");
}

#[tokio::test]
async fn the_next_due_moment_is_the_first_that_lies_ahead() {
    let store = database().await;
    let rig = Rig::over(store.clone(), vec![call_out("pay", None)], Vec::new()).await;
    let horizon = Duration::from_secs(60);
    assert_eq!(store.next_due(horizon).await.unwrap(), None);
    let mut runs = Vec::new();
    for _ in 0..3 {
        let run = rig.open(None).await.run();
        rig.becomes(run, "waiting").await; // for the owner, without a date
        runs.push(run);
    }
    rig.door.stop().await;
    for (run, wake_at) in
        runs.iter().zip(["- interval '1 hour'", "+ interval '30 seconds'", "+ interval '2 hours'"])
    {
        sql(&store, &format!("update runs set wake_at = now() {wake_at} where id = '{run}'")).await;
    }
    let pause = store.next_due(horizon).await.unwrap().unwrap();
    assert!(pause <= Duration::from_secs(30), "{pause:?}");
    assert_eq!(store.next_due(Duration::from_millis(1)).await.unwrap(), None, "not that soon");
}

#[tokio::test]
async fn the_engines_time_is_the_databases() {
    let store = database().await;
    let rig = Rig::over(store.clone(), ten_steps(), Vec::new()).await;
    let (client, connection) = store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let ask = || async {
        let row = client.query_one("select clock_timestamp()", &[]).await.unwrap();
        row.get::<_, jiff::Timestamp>(0)
    };
    let before = ask().await;
    let between = rig.door.engine().now();
    let after = ask().await;
    let slack = jiff::SignedDuration::from_millis(250); // half of the registration's journey, at most
    assert!(between > before - slack && between < after + slack, "{before} {between} {after}");
    rig.door.stop().await;
}
