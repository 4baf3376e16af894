//! What dies in the database is cleared, however long it has been up.

use std::time::Duration;

use serde_json::json;
use steward::domain::action::Repeat;
use steward::domain::ids::NodeId;
use steward::domain::plan::EffectResult;
use steward::domain::workflow::Step;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::retention::Past;
use crate::support::eventually;
use crate::support::rig::{Rig, Scripted, call_out};

/// Numbers of the statistics that PostgreSQL keeps of a table.
async fn statistics(client: &Client, table: &str) -> (i64, i64, i64) {
    let statement = "select n_dead_tup, n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = $1";
    let row = client.query_one(statement, &[&table]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test]
async fn what_dies_is_cleared_however_much_has_died() {
    let done = Scripted::new(Repeat::None, |_, _| EffectResult::Succeeded(json!({"receipt": "r"})));
    let steps: Vec<Step> = (0..4)
        .map(|n: usize| {
            let before = n.checked_sub(1).map(|n| format!("s{n}"));
            call_out(&format!("s{n}"), before.as_deref())
        })
        .collect();
    let rig = Rig::new(steps, vec![done]).await.live().await;
    let (client, connection) = rig.store.config().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..60 {
        let runs = futures_util::future::join_all((0..5).map(|_| rig.open(None))).await;
        for run in runs {
            rig.store.request_cancel(run.run(), "owner").await.unwrap();
        }
    }
    eventually("all runs ending", || async {
        let open =
            client.query_one("select count(*) from runs where finished_at is null", &[]).await.unwrap();
        (open.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    // No session of ours holds vacuum back.
    eventually("no snapshot being held", || async {
        let statement = "select count(*) from pg_stat_activity
                         where datname = current_database() and pid <> pg_backend_pid()
                           and (backend_xmin is not null or state like 'idle in transaction%')";
        (client.query_one(statement, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    rig.door.stop().await;
    rig.store.close(); // sessions hand in their statistics when they end
    eventually("the statistics coming in", || async {
        (statistics(&client, "effects").await.1 > 0).then_some(())
    })
    .await;
    let (_, updates, hot) = statistics(&client, "effects").await;
    assert!(hot * 10 >= updates * 8, "{hot} of {updates} updates of effects stayed on their page");
    for table in ["runs", "inbox", "effects", "reviews", "nodes", "sweeps"] {
        eventually(&format!("the dead rows of {table} going"), || async {
            client.batch_execute(&format!("vacuum {table}")).await.unwrap();
            (statistics(&client, table).await.0 == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn leases_are_renewed_in_place_and_lost_nodes_leave_no_row() {
    let past = Past::new().await;
    let node = NodeId(Uuid::new_v4());
    past.store.register_node(node, Duration::from_secs(3_600), false).await.unwrap();
    let pages = async || -> i64 {
        let statement = "select pg_relation_size('nodes') / current_setting('block_size')::int";
        past.client.query_one(statement, &[]).await.unwrap().get(0)
    };
    // A transaction of another database can put clearing off for a moment, and never for good.
    eventually("five hundred renewals adding no page", || async {
        let before = pages().await;
        for _ in 0..500 {
            assert!(past.store.renew_node(node, Duration::from_secs(3_600)).await.unwrap().is_some());
        }
        (pages().await == before).then_some(())
    })
    .await;
    for _ in 0..20 {
        past.store.register_node(NodeId(Uuid::new_v4()), Duration::ZERO, false).await.unwrap();
    }
    past.store.free_runs_of_lost_nodes().await.unwrap();
    assert_eq!(past.count("nodes").await, 1);
}
