//! What does not go with a run is cleared by its age, and what open business still needs stays.

use serde_json::json;
use steward::domain::duration::Span;
use steward::domain::notice::{NoticeKind, Severity};
use steward::domain::retention::Keep;
use steward::store::leftovers::{Leftover, PORTION};
use steward::store::notices::News;
use tokio_postgres::Client;

use crate::retention::Past;
use crate::support::eventually;
use crate::support::rig::{Rig, call_out, define, version};

/// Of each table a row that has to go, and rows that look like it and have to stay: `gone` and `stay…` are the
/// names by which they are found again.
const ROWS: &str = "
    insert into events (id, name, match, data, label, at, told_at) values
        (gen_random_uuid(), 'n', 'gone', '{}', 'owner', now() - interval '40 days', now()),
        (gen_random_uuid(), 'n', 'stays: lately', '{}', 'owner', now() - interval '20 days', now());
    insert into notices (id, kind, subject, severity, title, detail, last_at, acknowledged_at, acknowledged_by, over_at)
    values
        (gen_random_uuid(), 'autonomy', 'gone: acknowledged', 'info', 't', 'd', now(), now() - interval '3 days', 'o', null),
        (gen_random_uuid(), 'autonomy', 'gone: over', 'info', 't', 'd', now(), null, null, now() - interval '3 days'),
        (gen_random_uuid(), 'autonomy', 'stays: it stands', 'info', 't', 'd', now() - interval '9 years', null, null, null),
        (gen_random_uuid(), 'autonomy', 'stays: acknowledged lately', 'info', 't', 'd', now() - interval '9 years',
            now() - interval '1 day', 'o', now() - interval '3 days');
    insert into messages_out (id, notice_id, channel, kind, status)
    select gen_random_uuid(), id, 'email', 'notice', 'sent' from notices;
    insert into messages_out (id, day, channel, kind, status) values
        (gen_random_uuid(), current_date - 40, 'email', 'digest', 'sent'),
        (gen_random_uuid(), current_date, 'email', 'digest', 'sent');
    insert into mail_replies (fingerprint, review_id, message_id, sender, came_at, claim, claimed_until, did)
    select sha256(m.id::bytea), r.id, m.id, 's', now() - m.age * interval '1 day', gen_random_uuid(), now(), 'commented'
    from (values ('gone: about nothing', null, 40), ('gone: decided', 'approved', 40),
                 ('stays: it is open', 'open', 40), ('stays: it came lately', null, 20)) as m (id, status, age)
    left join reviews r on r.status = m.status;
    insert into link_tokens (hash, review_id, digest, approver, expires_at) values
        (sha256('gone'), gen_random_uuid(), sha256('d'), 'gone', now() - interval '40 days'),
        (sha256('stays'), gen_random_uuid(), sha256('d'), 'stays', now() - interval '20 days');
    insert into sign_in_links (digest, made_at, expires_at) values
        (sha256('gone'), now() - interval '3 days', now() - interval '2 days'),
        (sha256('stays'), now(), now() + interval '1 minute');
    insert into sessions (digest, made_at, expires_at) values
        (sha256('gone'), now() - interval '33 days', now() - interval '2 days'),
        (sha256('stays'), now(), now() + interval '1 minute');
    insert into spend_thresholds (account, percent, limit_micros, used_micros, passed_at, told_at) values
        ('workspace/day/gone', 50, 1, 1, now() - interval '100 days', now()),
        ('workspace/day/stays: untold', 50, 1, 1, now() - interval '100 days', null),
        ('workspace/day/stays: lately', 50, 1, 1, now() - interval '80 days', now());
    insert into batches (id, provider, model, status, batch, formed_at, ended_at)
    select gen_random_uuid(), p, 'm', s, 'b', now() - interval '50 days', case when s = 'over' then now() - a * interval '1 day' end
    from (values ('gone', 'over', 40), ('stays: open', 'submitted', 0), ('stays: lately', 'over', 20),
                 ('stays: its run is not over', 'over', 40), ('stays: unheard', 'over', 40)) as b (p, s, a);
    insert into batch_calls (id, run_id, step, provider, remote, model, worst_micros, request_bytes, batch, status,
        response_bytes, unheard, ended_at)
    select gen_random_uuid(), case when b.provider = 'stays: its run is not over' then waiting.id else over.id end, 's',
        b.provider, 'r', 'm', 0, 1, b.id, 200, 1, b.provider = 'stays: unheard', b.ended_at
    from batches b, (select id from runs where status = 'waiting') waiting, (select id from runs where status = 'succeeded') over
    where b.ended_at is not null;
    insert into workflow_versions (digest, workflow, version, definition, staged_at) values
        ('\\x01', 'old', 1, '{}', now() - interval '9 years'), ('\\x02', 'old', 2, '{}', now() - interval '9 years');
    insert into edits (review_id, run_id, workflow, version, step, action, kept, gone, added, by, at)
    select gen_random_uuid(), coalesce(r.id, gen_random_uuid()), e.name, '\\x01', 's', 'a', 1, 1, 1, 'o',
        now() - e.years * interval '1 year'
    from (values ('gone', '', 3), ('stays: its run is kept', 'succeeded', 3), ('stays: lately', '', 1)) as e (name, status, years)
    left join runs r on r.status = e.status;
    insert into decisions (review_id, run_id, step, workflow, version, ask, risk, sampled, outcome, opened_at, decided_at,
        decided_by, looked_ms)
    select gen_random_uuid(), coalesce(r.id, gen_random_uuid()), 's', d.name, d.version::bytea, 'approval', 'low', false,
        'approved', now() - d.years * interval '1 year', now() - d.years * interval '1 year', 'o', 1
    from (values ('gone', '', '\\x01', 3), ('stays: its run is kept', 'succeeded', '\\x01', 3), ('stays: lately', '', '\\x01', 1),
                 ('stays: the version is judged by it', '', '\\x02', 3)) as d (name, status, version, years)
    left join runs r on r.status = d.status;";

/// Every name that is left.
const LEFT: &str = "
    select array_agg(name order by name) from (
        select subject as name from notices
        union all select 'event ' || match from events
        union all select 'message of ' || subject from messages_out join notices n on n.id = notice_id
        union all select case when day < current_date - 30 then 'gone: digest' else 'stays: digest' end
            from messages_out where day is not null
        union all select message_id from mail_replies
        union all select approver from link_tokens
        union all select encode(digest, 'hex') from sign_in_links
        union all select encode(digest, 'hex') from sessions
        union all select account from spend_thresholds
        union all select 'batch ' || provider from batches
        union all select 'call ' || provider from batch_calls
        union all select 'edit ' || workflow from edits
        union all select 'decision ' || workflow from decisions) as names";

async fn left(client: &Client) -> Vec<String> {
    client.query_one(LEFT, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_is_settled_goes_when_its_time_is_up_and_what_is_open_stays() {
    let past = Past::new().await;
    let waiting = past.run("test", "waiting", 50, None).await;
    past.review(waiting, "open").await;
    let over = past.run("test", "succeeded", 50, Some(50)).await;
    past.review(over, "approved").await;
    past.client.batch_execute("set session_replication_role = replica").await.unwrap();
    past.client.batch_execute(ROWS).await.unwrap();
    let goes = |name: &String| name.contains("gone") || *name == hex("gone");
    let before = left(&past.client).await;
    let stays: Vec<String> = before.iter().filter(|name| !goes(name)).cloned().collect();
    assert_eq!((before.len(), stays.len()), (41, 25), "{before:?}");

    // The housekeeper of a node that starts over this database.
    let rig = Rig::defining(past.store.clone(), Vec::new(), true, |definitions| {
        definitions.settings.notices = Keep::For(Span::secs(2 * 86_400));
        define(definitions, version("test", vec![call_out("pay", None)]));
    })
    .await;
    eventually("everything that is past its time going", || async {
        let left = left(&past.client).await;
        (!left.iter().any(goes)).then_some(())
    })
    .await;
    rig.door.stop().await;
    assert_eq!(left(&past.client).await, stays);
}

/// Not beside a node, which would tell it at once.
#[tokio::test]
async fn an_event_that_nobody_was_told_of_is_kept_however_old_it_is() {
    let past = Past::new().await;
    let event = "insert into events (id, name, match, data, label, at)
                 values (gen_random_uuid(), 'n', 'm', '{}', 'owner', now() - interval '9 years')";
    past.client.batch_execute(event).await.unwrap();
    assert_eq!(past.store.clear(Leftover::Events, past.now).await.unwrap(), 0);
    past.client.batch_execute("update events set told_at = now()").await.unwrap();
    assert_eq!(past.store.clear(Leftover::Events, past.now).await.unwrap(), 1);
}

#[tokio::test]
async fn much_of_it_goes_in_portions() {
    let past = Past::new().await;
    let many = format!(
        "insert into sessions (digest, made_at, expires_at)
         select sha256(int4send(n)), now() - interval '40 days', now() - interval '10 days'
         from generate_series(1, {}) n",
        PORTION + 1
    );
    past.client.batch_execute(&many).await.unwrap();
    assert_eq!(past.store.clear(Leftover::Sessions, past.now).await.unwrap(), PORTION);
    assert_eq!(past.count("sessions").await, 1);
    assert_eq!(past.store.clear(Leftover::Sessions, past.now).await.unwrap(), 1);
    assert_eq!(past.store.clear(Leftover::Sessions, past.now).await.unwrap(), 0);
}

/// The tables of which something is asked every second or for every page: filled, each question finds its rows by
/// an index.
#[tokio::test]
async fn what_is_asked_often_reads_no_whole_table() {
    let past = Past::new().await;
    let run = past.run("test", "succeeded", 50, Some(50)).await;
    past.client.batch_execute("set session_replication_role = replica").await.unwrap();
    let fill = format!(
        "insert into notices (id, kind, subject, severity, title, detail, first_at, last_at, told_at, acknowledged_at, acknowledged_by)
         select gen_random_uuid(), 'autonomy', n::text, 'info', 't', 'd', now() - n * interval '1 minute',
            now() - n * interval '1 minute', now(), case when n % 1000 <> 0 then now() end, case when n % 1000 <> 0 then 'o' end
         from generate_series(1, 30000) n;
         insert into edits (review_id, run_id, workflow, version, step, action, kept, gone, added, by, at)
         select gen_random_uuid(), gen_random_uuid(), 'w' || n % 50, sha256('v'), 's', 'a', 1, 1, 1, 'o', now() - n * interval '1 minute'
         from generate_series(1, 30000) n;
         insert into decisions (review_id, run_id, step, workflow, version, ask, risk, sampled, outcome, opened_at, decided_at,
            decided_by, looked_ms, unweighed)
         select gen_random_uuid(), gen_random_uuid(), 's', 'w', sha256('v'), 'approval', case when n % 1000 = 0 then 'high' else 'low' end,
            false, 'approved', now() - n * interval '1 hour', now() - n * interval '1 hour', 'o', 1, n % 10000 = 0
         from generate_series(1, 60000) n;
         insert into reviews (id, run_id, step, ask, digest, title, question, status, opened_at, decided_at, decided_by)
         select gen_random_uuid(), '{run}', 's', case when n % 10 = 0 then 'undo' else 'question' end, '\\x00', 't', '{{}}', 'answered',
            now() - n * interval '1 hour', now() - n * interval '1 hour', 'o'
         from generate_series(1, 60000) n;
         insert into messages_out (id, day, channel, kind, status)
         select gen_random_uuid(), current_date - n, 'email', 'digest', 'sent' from generate_series(1, 20000) n;"
    );
    past.client.batch_execute(&fill).await.unwrap();
    let tables = ["notices", "edits", "decisions", "reviews", "messages_out"];
    for table in tables {
        past.client.batch_execute(&format!("analyze {table}")).await.unwrap();
    }
    let reads = async || -> Vec<(String, i64, i64)> {
        let statement = "select relname::text, seq_scan, idx_scan from pg_stat_user_tables
                         where relname = any ($1) order by relname";
        let rows = past.client.query(statement, &[&&tables[..]]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    };
    past.client.query_one("select pg_stat_force_next_flush()", &[]).await.unwrap();
    let before = reads().await;
    let store = &past.store;
    assert_eq!(store.notices(true, 20).await.unwrap().len(), 20);
    assert_eq!(store.notices(false, 20).await.unwrap().len(), 20);
    store.digest_notices(past.ago(1), 20).await.unwrap();
    assert_eq!(store.edits(None, 20).await.unwrap().len(), 20);
    assert_eq!(store.edits(Some("w1"), 20).await.unwrap().len(), 20);
    assert_eq!(store.latest_high("o", 3).await.unwrap().len(), 3);
    assert_eq!(store.unweighed().await.unwrap()[0].reviews.len(), 6);
    assert!(store.latest_failed_undo().await.unwrap().is_some());
    assert_eq!(store.review_metrics(Some(past.ago(30)), 5_000).await.unwrap()[0].decided.approved, 720);
    store.take_messages(&[], std::time::Duration::from_secs(1), 8).await.unwrap();
    for leftover in [Leftover::Notices, Leftover::Digests, Leftover::Edits, Leftover::Decisions] {
        store.clear(leftover, past.ago(90)).await.unwrap();
    }
    store.close(); // sessions hand in their statistics when they end
    let after = eventually("the statistics coming in", || async {
        let after = reads().await;
        let all = after.iter().zip(&before).all(|(after, before)| after.2 > before.2);
        all.then_some(after)
    })
    .await;
    let whole = |rows: &[(String, i64, i64)]| -> Vec<(String, i64)> {
        rows.iter().map(|(table, whole, _)| (table.clone(), *whole)).collect()
    };
    assert_eq!(whole(&after), whole(&before), "a whole table was read");
}

#[tokio::test]
async fn a_notice_that_was_cleared_can_happen_again() {
    let past = Past::new().await;
    let news = News {
        kind: NoticeKind::Autonomy,
        subject: "s",
        severity: Severity::Info,
        title: "t",
        detail: "d",
        run: None,
    };
    assert!(past.store.notice(&news).await.unwrap());
    let notice = past.store.notices(true, 1).await.unwrap().remove(0);
    assert_eq!(past.store.clear(Leftover::Notices, past.ago(-1)).await.unwrap(), 0, "it stands");
    assert!(past.store.acknowledge(notice.id, "owner").await.unwrap());
    assert_eq!(past.store.clear(Leftover::Notices, past.ago(-1)).await.unwrap(), 1);
    assert!(past.store.notice(&news).await.unwrap());
    assert_eq!(json!(past.store.notices(true, 9).await.unwrap())[0]["times"], 1);
}

fn hex(text: &str) -> String {
    steward::domain::digest::Digest::of_bytes(text.as_bytes()).to_string()
}
