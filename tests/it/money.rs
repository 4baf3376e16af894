//! The ledger on a real database: no account is overshot at any moment, by however many callers, and what
//! it holds is the sum of its calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use steward::domain::budget::book::{Book, End, Held, Paying};
use steward::domain::budget::{Budget, Day, Limits, RunLimit};
use steward::domain::ids::{ReservationId, RunId};
use steward::models::ledger::{Ask, Ledger, NoMoney, Payer, Reservation, Terms};
use steward::store::Store;
use uuid::Uuid;

use crate::support::forge::by_hand;
use crate::support::{PATIENCE, database, eventually};

const NOW: &str = "2026-11-25T12:00:00Z";
const TODAY: &str = "workspace/day/2026-11-25";

async fn ledger(store: &Store, per_day: Option<i64>) -> Ledger {
    let limits = Limits { per_day, per_month: None };
    let clock = Arc::new(|| NOW.parse::<Timestamp>().unwrap());
    let terms = Terms { limits, zone: TimeZone::UTC, currency: "USD".into(), clock };
    Ledger::start(store.config(), terms).await.unwrap()
}

fn ask(payer: &Payer, worst_micros: i64) -> Ask {
    Ask { payer: payer.clone(), model: "m".into(), worst_micros }
}

fn anybody() -> Payer {
    Payer::workspace(Duration::from_secs(60))
}

/// One of some runs of two workflows, each with limits of its own.
fn somebody(n: u128) -> Payer {
    let run = RunId(Uuid::from_u128(n));
    Payer {
        run: Some(run),
        workflow: Some(if n.is_multiple_of(2) { "even".into() } else { "odd".into() }),
        step: Some("write".into()),
        attempt: 1,
        runs: vec![RunLimit { run, limit: Some(3_000) }],
        budget: Budget {
            per_day: Some(6_000),
            per_month: n.is_multiple_of(2).then_some(5_000),
            ..Budget::default()
        },
        ..anybody()
    }
}

/// What each account holds and may hold.
async fn accounts(store: &Store) -> BTreeMap<String, (i64, i64, i64)> {
    let client = connect(store).await;
    let rows = client.query("select account, reserved, settled, ceiling from spend", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3)))).collect()
}

async fn connect(store: &Store) -> tokio_postgres::Client {
    let (client, connection) = store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn holds_i9(store: &Store) {
    let broken = crate::invariants::broken(store).await;
    assert_eq!(broken, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_callers_at_once_never_overshoot_an_account_at_any_moment() {
    let store = database().await;
    // Two nodes share the database.
    let nodes = [ledger(&store, Some(10_000)).await, ledger(&store, Some(10_000)).await];
    let over = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn({
        let (store, over) = (store.clone(), over.clone());
        async move {
            let client = connect(&store).await;
            let look = "select account, reserved + settled from spend
                where reserved + settled > case scope when 'run' then 3000 when 'workflow/day' then 6000
                    when 'workspace/day' then 10000 when 'workflow/month' then
                    case workflow when 'even' then 5000 else 1000000 end else 1000000 end";
            let mut looks = 0;
            while !over.load(Ordering::Relaxed) {
                let overshot = client.query(look, &[]).await.unwrap();
                let overshot: Vec<(String, i64)> = overshot.iter().map(|r| (r.get(0), r.get(1))).collect();
                assert_eq!(overshot, []);
                looks += 1;
            }
            looks
        }
    });
    let callers = (0..64u64).map(|seed| {
        let ledger = nodes[(seed % 2) as usize].clone();
        tokio::spawn(async move {
            let mut dice = StdRng::seed_from_u64(seed);
            let (mut reserved, mut refused) = (0u64, 0u64);
            for _ in 0..24 {
                let payer = if dice.random_bool(0.1) { anybody() } else { somebody(dice.random_range(0..8)) };
                let worst = dice.random_range(1..400);
                match ledger.reserve(ask(&payer, worst)).await {
                    Ok(paid) => {
                        reserved += 1;
                        match dice.random_range(0..20) {
                            0 => {} // nobody will say
                            1 => ledger.release(paid.id),
                            _ => ledger.settle(paid.id, dice.random_range(0..=worst / 10)),
                        }
                    }
                    Err(NoMoney::Short { short, .. }) => {
                        assert!(short.used + short.worst > short.limit, "{short:?}");
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            (reserved, refused)
        })
    });
    let counts = futures_util::future::join_all(callers).await;
    let (reserved, refused) =
        counts.into_iter().map(Result::unwrap).fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
    over.store(true, Ordering::Relaxed);
    assert!(watcher.await.unwrap() > 10, "somebody watched");
    assert!(reserved > 100 && refused > 100, "{reserved} reserved, {refused} refused: the limits matter");
    for node in &nodes {
        node.stop().await;
    }
    holds_i9(&store).await;
}

#[tokio::test]
async fn the_statements_count_as_the_book_does() {
    let store = database().await;
    let ledger = ledger(&store, Some(20_000)).await;
    let mut book = Book::default();
    let mut dice = StdRng::seed_from_u64(4);
    let mut open: Vec<Reservation> = Vec::new();
    let limits = Limits { per_day: Some(20_000), per_month: None };
    let day = Day(NOW.parse::<Timestamp>().unwrap().to_zoned(TimeZone::UTC).date());
    let mut verdicts = [0; 2];
    for n in 0..300u128 {
        if dice.random_bool(0.3) && !open.is_empty() {
            let paid = open.swap_remove(dice.random_range(0..open.len()));
            let end = if dice.random_bool(0.2) {
                End::Released
            } else {
                End::Settled(dice.random_range(0..=paid.worst_micros))
            };
            match end {
                End::Settled(cost) => ledger.settle(paid.id, cost),
                End::Released | End::Assumed => ledger.release(paid.id),
            }
            book.end(paid.id, end);
            continue;
        }
        let payer = somebody(n % 8);
        let worst = dice.random_range(0..700);
        let paying = payer.accounts(&limits, &day).into_iter();
        let paying: Vec<Paying> = paying
            .map(|(account, limit)| Paying {
                account: account.to_string(),
                scope: account.scope().into(),
                limit,
            })
            .collect();
        // The ledger makes up an id of its own.
        let asked = ledger.reserve(ask(&payer, worst)).await;
        let id = asked.as_ref().map_or(ReservationId(Uuid::from_u128(n)), |paid| paid.id);
        match (asked, book.reserve(id, worst, &paying)) {
            (Ok(paid), Ok(())) => open.push(paid),
            (Err(NoMoney::Short { short, .. }), Err(by_the_book)) => {
                // Of two that lack as much either may be named.
                let lacks =
                    |short: &steward::domain::budget::Shortage| short.used + short.worst - short.limit;
                assert_eq!(lacks(&short), lacks(&by_the_book));
                verdicts[1] += 1;
                continue;
            }
            (asked, by_the_book) => panic!("{n}: {asked:?}, by the book {by_the_book:?}"),
        }
        verdicts[0] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 20), "{verdicts:?}");
    // What costs more than was thought possible is counted all the same, and told apart.
    for paid in open {
        ledger.settle(paid.id, paid.worst_micros + 50);
        book.end(paid.id, End::Settled(paid.worst_micros + 50));
    }
    ledger.stop().await;
    for (account, (reserved, settled, ceiling)) in accounts(&store).await {
        let Held { reserved: r, settled: s, overrun } = book.held(&account);
        assert_eq!((reserved, settled), (r, s), "{account}");
        assert!(reserved + settled - overrun <= ceiling, "{account}");
    }
    holds_i9(&store).await;
}

#[tokio::test]
async fn what_nobody_settles_is_taken_for_spent_in_full_and_the_truth_may_come_later() {
    let store = database().await;
    let ledger = ledger(&store, Some(1_000)).await;
    let paid = ledger.reserve(ask(&anybody(), 800)).await.unwrap();
    assert_eq!(accounts(&store).await[TODAY], (800, 0, 1_000), "durable when it returns");
    by_hand(&store, "update spend_entries set expires_at = now() - interval '1 second'").await;
    let becomes = |wanted: (i64, i64, i64)| {
        let store = store.clone();
        async move {
            let what = format!("{wanted:?}");
            eventually(&what, || async { (accounts(&store).await[TODAY] == wanted).then_some(()) }).await;
        }
    };
    becomes((0, 800, 1_000)).await;
    assert!(matches!(ledger.reserve(ask(&anybody(), 300)).await, Err(NoMoney::Short { .. })));
    ledger.settle(paid.id, 50);
    ledger.reserve(ask(&anybody(), 300)).await.expect("the truth was cheaper");
    ledger.settle(paid.id, 900); // what is settled stays so
    becomes((300, 50, 1_000)).await;
    ledger.stop().await;
    holds_i9(&store).await;
}

#[tokio::test]
async fn what_has_just_ended_never_refuses_a_call() {
    let store = database().await;
    let ledger = ledger(&store, Some(100)).await;
    for _ in 0..50 {
        let paid = ledger.reserve(ask(&anybody(), 100)).await.expect("all of it is free again");
        ledger.release(paid.id);
    }
    ledger.stop().await;
    holds_i9(&store).await;
}

#[tokio::test]
async fn each_share_of_a_limit_is_noted_once_and_a_refusal_counts_as_the_whole() {
    let store = database().await;
    let ledger = ledger(&store, Some(1_000)).await;
    let noted = || {
        let store = store.clone();
        async move {
            store.thresholds(&[TODAY.to_owned()]).await.unwrap().iter().map(|t| t.percent).collect::<Vec<_>>()
        }
    };
    let paid = ledger.reserve(ask(&anybody(), 900)).await.unwrap();
    assert_eq!(noted().await, [0i32; 0], "what is set aside is not spent");
    ledger.settle(paid.id, 500);
    eventually("half of it being noted", || async { (noted().await == [50]).then_some(()) }).await;
    let paid = ledger.reserve(ask(&anybody(), 400)).await.unwrap();
    ledger.settle(paid.id, 350);
    eventually("four fifths being noted", || async { (noted().await == [50, 80]).then_some(()) }).await;
    for _ in 0..3 {
        assert!(ledger.reserve(ask(&anybody(), 200)).await.is_err());
    }
    eventually("the rest being noted", || async { (noted().await == [50, 80, 100]).then_some(()) }).await;
    let told = store.thresholds(&[TODAY.to_owned()]).await.unwrap();
    assert!(told.iter().all(|threshold| threshold.told_at.is_none()), "telling is somebody else's");
    ledger.stop().await;
}

#[tokio::test]
async fn a_caller_that_leaves_before_its_answer_leaves_nothing_set_aside() {
    let store = database().await;
    let ledger = ledger(&store, Some(1_000)).await;
    for _ in 0..20 {
        let payer = anybody();
        let mut asking = Box::pin(ledger.reserve(ask(&payer, 900)));
        let _ = futures_util::poll!(asking.as_mut());
        drop(asking);
    }
    let asked = tokio::time::timeout(PATIENCE, ledger.reserve(ask(&anybody(), 1_000))).await.unwrap();
    asked.expect("nothing is set aside for those who left");
    ledger.stop().await;
    holds_i9(&store).await;
}

#[tokio::test]
async fn a_lost_connection_refuses_those_who_wait_and_nothing_stays_set_aside_for_them() {
    let store = database().await;
    let ledger = ledger(&store, Some(1_000)).await;
    ledger.reserve(ask(&anybody(), 10)).await.unwrap();
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()";
    by_hand(&store, cut).await;
    eventually("the ledger connecting again", || async {
        ledger.reserve(ask(&anybody(), 990)).await.ok().map(|paid| ledger.release(paid.id))
    })
    .await;
    ledger.stop().await;
    assert_eq!(accounts(&store).await[TODAY], (10, 0, 1_000));
    holds_i9(&store).await;
}
