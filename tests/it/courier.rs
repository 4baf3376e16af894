//! The owner hears of what waits for him: once over each channel, again while he does not answer, and
//! never of what is decided.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use steward::config::channels::Channels;
use steward::domain::event::Verdict;
use steward::domain::ladder::ChannelName;
use steward::domain::notice::{NoticeKind, Severity};
use steward::reviews::channel::{Channel, Letter, Says, Trouble};
use steward::reviews::courier::Courier;
use steward::store::Store;
use steward::store::notices::News;
use steward::store::reviews::ReviewRow;

use tokio_postgres::NoTls;

use crate::support::eventually;
use crate::support::forge::by_hand;
use crate::support::rig::{Rig, call_out};

type Sends = Box<dyn Fn(usize) -> Result<(), Trouble> + Send + Sync>;

/// A channel that keeps what goes over it.
struct Wire {
    name: ChannelName,
    sends: Sends,
    seen: Mutex<Vec<String>>,
}

impl Wire {
    fn new(
        name: ChannelName,
        sends: impl Fn(usize) -> Result<(), Trouble> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { name, sends: Box::new(sends), seen: Mutex::default() })
    }

    fn sound(name: ChannelName) -> Arc<Self> {
        Self::new(name, |_| Ok(()))
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    async fn sees(&self, wanted: &[&str]) {
        eventually(&format!("{wanted:?} over {:?}", self.name), || async {
            (self.seen() == wanted).then_some(())
        })
        .await;
    }
}

impl Channel for Wire {
    fn name(&self) -> ChannelName {
        self.name
    }

    fn deliver<'a>(&'a self, letter: Letter<'a>) -> BoxFuture<'a, Result<Value, Trouble>> {
        let word = match letter.says {
            Says::Ask(_) => "ask",
            Says::Remind { first, .. } => {
                assert!(first.is_some(), "a reminder knows what it reminds of");
                "remind"
            }
            Says::Notice(_) => "notice",
            Says::Digest(_) => "digest",
        };
        let mut seen = self.seen.lock().unwrap();
        seen.push(if letter.again { format!("{word} again") } else { word.to_owned() });
        let sent = (self.sends)(seen.len());
        Box::pin(async move { sent.map(|()| json!({"id": letter.id})) })
    }

    fn close<'a>(&'a self, place: &'a Value, review: &'a ReviewRow) -> BoxFuture<'a, Result<(), Trouble>> {
        assert!(place["id"].is_string());
        self.seen.lock().unwrap().push(format!("closed: {}", review.status));
        Box::pin(async { Ok(()) })
    }
}

/// At once over Slack, again there after an hour, after two by mail too.
fn channels() -> Channels {
    serde_json::from_value(json!({
        "slack": {"token": "env:T", "channel": "C1", "owner": "U1"},
        "email": {},
        "ladder": {"medium": {"rungs": [
            {"after": "0s", "channels": ["slack"]},
            {"after": "1h", "channels": ["slack"]},
            {"after": "2h", "channels": ["slack", "email"]},
        ]}},
    }))
    .unwrap()
}

fn courier(rig: &Rig, wires: &[&Arc<Wire>]) -> Courier {
    let wires = wires.iter().map(|wire| (*wire).clone() as Arc<dyn Channel>).collect();
    Courier::start(rig.door.engine().clone(), channels(), TimeZone::UTC, wires)
}

/// As if everything had been asked so long ago.
async fn hours_pass(store: &Store, hours: i32) {
    let statement = format!(
        "update reviews set opened_at = opened_at - interval '{hours} hours', tell_at = tell_at - interval '{hours} hours', snoozed_until = snoozed_until - interval '{hours} hours'"
    );
    by_hand(store, &statement).await;
}

/// As if everything that pauses before it is tried again had paused long enough.
async fn pauses_pass(store: &Store) {
    let statement = "update messages_out set due_at = now() where status = 'due'";
    by_hand(store, statement).await;
}

/// Why the last message did not get through.
async fn last_error(store: &Store) -> Option<String> {
    let (client, connection) = store.config().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one("select error from messages_out", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_question_is_told_reminded_of_and_closed_where_it_stands() {
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let (slack, email) = (Wire::sound(ChannelName::Slack), Wire::sound(ChannelName::Email));
    let courier = courier(&rig, &[&slack, &email]);
    let run = rig.open(None).await.run();
    slack.sees(&["ask"]).await;
    hours_pass(&rig.store, 1).await;
    slack.sees(&["ask", "remind"]).await;
    assert!(email.seen().is_empty());
    hours_pass(&rig.store, 1).await;
    email.sees(&["ask"]).await;
    slack.sees(&["ask", "remind", "remind"]).await;
    rig.decide(run, Verdict::Rejected { reason: "no".into() }).await;
    let rejected = "closed: rejected";
    slack.sees(&["ask", "remind", "remind", rejected, rejected, rejected]).await;
    email.sees(&["ask", rejected]).await;
    courier.stop().await;
}

#[tokio::test]
async fn a_snooze_is_quiet_until_its_moment_and_then_the_ladder_begins_anew() {
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let (slack, email) = (Wire::sound(ChannelName::Slack), Wire::sound(ChannelName::Email));
    let courier = courier(&rig, &[&slack, &email]);
    let run = rig.open(None).await.run();
    slack.sees(&["ask"]).await;
    let review = rig.store.reviews("open", Some(run), None, 1).await.unwrap().pop().unwrap();
    let engine = rig.door.engine();
    let until = engine.now() + jiff::SignedDuration::from_hours(3);
    steward::reviews::aside::snooze(engine, review.id, until).await.unwrap();
    // Two rungs would have been climbed by then.
    hours_pass(&rig.store, 2).await;
    assert!(rig.store.reviews_to_tell(10).await.unwrap().is_empty());
    assert_eq!((slack.seen(), email.seen()), (vec!["ask".to_owned()], Vec::new()));
    hours_pass(&rig.store, 1).await;
    slack.sees(&["ask", "remind"]).await;
    hours_pass(&rig.store, 1).await;
    slack.sees(&["ask", "remind", "remind"]).await;
    assert!(email.seen().is_empty(), "the second channel's turn comes after two hours, from the snooze on");
    hours_pass(&rig.store, 1).await;
    email.sees(&["ask"]).await;
    courier.stop().await;
}

#[tokio::test]
async fn what_does_not_get_through_is_tried_again_and_the_owner_hears_of_it_elsewhere() {
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let slack = Wire::new(ChannelName::Slack, |n| match n {
        1 => Err(Trouble::Lasting("the key is refused".into())),
        _ => Ok(()),
    });
    let email = Wire::sound(ChannelName::Email);
    let courier = courier(&rig, &[&slack, &email]);
    rig.open(None).await;
    email.sees(&["notice"]).await;
    pauses_pass(&rig.store).await;
    eventually("the second try", || async { slack.seen().contains(&"ask again".to_owned()).then_some(()) })
        .await;
    courier.stop().await;
}

#[tokio::test]
async fn a_message_is_sent_by_one_of_two_nodes_and_again_by_the_other_when_the_first_is_gone() {
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let slack = Wire::new(ChannelName::Slack, |_| Err(Trouble::Passing("busy".into())));
    let (one, two) = (courier(&rig, &[&slack]), courier(&rig, &[&slack]));
    rig.open(None).await;
    slack.sees(&["ask"]).await;
    one.stop().await;
    // What the first one had taken is anybody's once its time is over.
    pauses_pass(&rig.store).await;
    slack.sees(&["ask", "ask again"]).await;
    two.stop().await;
}

#[tokio::test]
async fn what_happens_again_before_it_is_acknowledged_is_counted_and_not_told_again() {
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let (slack, email) = (Wire::sound(ChannelName::Slack), Wire::sound(ChannelName::Email));
    let courier = courier(&rig, &[&slack, &email]);
    let news = News {
        kind: NoticeKind::BreakerOpened,
        subject: "openai",
        severity: Severity::Critical,
        title: "Nobody calls openai for a while",
        detail: "401",
        run: None,
    };
    for _ in 0..3 {
        rig.door.engine().tell_owner(&news).await;
    }
    slack.sees(&["notice"]).await;
    email.sees(&["notice"]).await;
    let notice = rig.store.notices(true, 10).await.unwrap().pop().unwrap();
    assert_eq!(notice.times, 3);
    assert!(rig.store.acknowledge(notice.id, "owner").await.unwrap());
    assert!(!rig.store.acknowledge(notice.id, "owner").await.unwrap());
    rig.door.engine().tell_owner(&news).await;
    slack.sees(&["notice", "notice"]).await;
    courier.stop().await;
}

#[tokio::test]
async fn nobody_is_asked_what_was_decided_before_the_message_left() {
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "waiting").await;
    let slack = Wire::new(ChannelName::Slack, |_| Err(Trouble::Passing("busy".into())));
    let courier = courier(&rig, &[&slack]);
    slack.sees(&["ask"]).await;
    rig.decide(run, Verdict::Rejected { reason: "no".into() }).await;
    pauses_pass(&rig.store).await;
    eventually("the message given up", || async {
        let given_up = Some("its review was decided before".to_owned());
        (last_error(&rig.store).await == given_up).then_some(())
    })
    .await;
    assert_eq!(slack.seen(), ["ask"]);
    courier.stop().await;
}

/// A channel over which nothing ever comes back. Whoever gave up waiting has let go of what he waited for.
#[derive(Default)]
struct Hanging {
    hangs: Arc<AtomicUsize>,
}

struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Channel for Hanging {
    fn name(&self) -> ChannelName {
        ChannelName::Slack
    }

    fn deliver<'a>(&'a self, _: Letter<'a>) -> BoxFuture<'a, Result<Value, Trouble>> {
        self.hangs.fetch_add(1, Ordering::SeqCst);
        let held = Held(self.hangs.clone());
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(Value::Null)
        })
    }

    fn close<'a>(&'a self, _: &'a Value, _: &'a ReviewRow) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn a_channel_that_hangs_delays_no_other() {
    let rig = Rig::new(vec![call_out("pay", None)], Vec::new()).await;
    let (slack, email) = (Arc::new(Hanging::default()), Wire::sound(ChannelName::Email));
    let wires: Vec<Arc<dyn Channel>> = vec![slack.clone(), email.clone()];
    let courier = Courier::start(rig.door.engine().clone(), channels(), TimeZone::UTC, wires);
    // A machine that is slower than the patience with a channel gets another try; a courier that waits for the
    // one channel before it serves the other never does it.
    let mut arrived = false;
    for nth in 1..=3 {
        rig.open(None).await;
        eventually("the question hanging", || async {
            (slack.hangs.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await;
        let news = News {
            kind: NoticeKind::BreakerOpened,
            subject: &format!("provider {nth}"),
            severity: Severity::Critical,
            title: "Nobody calls it for a while",
            detail: "401",
            run: None,
        };
        rig.door.engine().tell_owner(&news).await;
        eventually("the notice by mail", || async { (email.seen().len() >= nth).then_some(()) }).await;
        if slack.hangs.load(Ordering::SeqCst) > 0 {
            arrived = true;
            break;
        }
    }
    assert!(arrived, "no mail came while the other channel hung");
    courier.stop().await;
    assert_eq!(slack.hangs.load(Ordering::SeqCst), 0, "what hangs ends with the courier");
}
