//! The statements of the group commit. Each batch is one statement; the narrow one, for batches of
//! pure steps, leaves the arms out that such a batch has no rows for.
//!
//! `(… in (select …)) is true` keeps PostgreSQL from turning the test into a join: it cannot know how
//! long the arrays are, takes them for ten rows, and would join by nested loops, which is quadratic in
//! the batch. As a hashed subplan the test is linear. `(r.node = $1) is true` keeps it from starting
//! with all runs of the node instead of with the runs of the batch.

///
/// A transition that `keeps` the row as it is (the run goes on running, nobody is told or asked) does not
/// write it: its fence is that the row names the node, and the key of the journal, which gives a number to
/// one writer only. `runs.seq` is therefore the entry the row last changed with; the journal may be ahead.
pub(super) const ACCEPT: &str = "
    with t as (
        select * from unnest($2::uuid[], $3::int8[], $4::int8[], $5::text[], $6::timestamptz[], $7::bool[],
            $8::timestamptz[], $9::int4[], $19::bool[])
            as t (run_id, expected, seq, status, wake_at, release, finished_at, signals, keeps)
    ),
    changed_runs as (
        update runs r
        set seq = t.seq,
            status = t.status,
            node = case when t.release then null else r.node end,
            wake_at = case
                when t.finished_at is null and t.release and r.signals > t.signals then now()
                else t.wake_at end,
            finished_at = t.finished_at
        from t
        where not t.keeps and r.id = t.run_id and (r.node = $1) is true and r.seq <= t.expected
        returning r.id
    ),
    accepted as (
        select id from changed_runs
        union all
        select r.id from t join runs r on r.id = t.run_id
        where t.keeps and (r.node = $1) is true and r.seq <= t.expected
    ),
    appended as (
        insert into journal (run_id, seq, kind, at, actor, label, data, hash)
        select e.run_id, e.seq, e.kind, e.at, e.actor, e.label, e.data::json, e.hash
        from unnest($10::uuid[], $11::int8[], $12::text[], $13::timestamptz[], $14::text[], $15::text[],
            $16::text[], $17::bytea[], $18::bytea[])
            as e (run_id, seq, kind, at, actor, label, data, data_digest, hash)
        where (e.run_id in (select id from accepted)) is true
    )";

/// The narrow statement for one transition with one entry, as an idle node has them: without arrays it
/// takes PostgreSQL two thirds of the time. What it does is what `ACCEPT` does.
pub(super) const SINGLE: &str = "
    with accepted as (
        update runs r
        set seq = $4,
            status = $5,
            node = case when $7::bool then null else r.node end,
            wake_at = case
                when $8::timestamptz is null and $7::bool and r.signals > $9::int4 then now()
                else $6::timestamptz end,
            finished_at = $8::timestamptz
        where r.id = $2 and (r.node = $1) is true and r.seq <= $3
        returning r.id
    )
    insert into journal (run_id, seq, kind, at, actor, label, data, hash)
    select id, $10::int8, $11::text, $12::timestamptz, $13::text, $14::text, $15::text::json, $16::bytea
    from accepted
    returning run_id";

/// [`SINGLE`] for a transition that keeps the run's row: what a step of a run in motion costs.
pub(super) const SINGLE_KEPT: &str = "
    insert into journal (run_id, seq, kind, at, actor, label, data, hash)
    select r.id, $4::int8, $5::text, $6::timestamptz, $7::text, $8::text, $9::text::json, $10::bytea
    from runs r where r.id = $2 and (r.node = $1) is true and r.seq <= $3::int8
    returning run_id";

pub(super) const WIDE_ARMS: &str = ",
    proposed as (
        insert into effects (id, run_id, step, attempt, action, dedupe_key, digest, request, labels, status,
            proposed_at, started_at, goes_at)
        select e.id, e.run_id, e.step, e.attempt, e.action, e.key, e.digest, e.request::jsonb, e.labels::jsonb,
            e.status, e.at, e.started_at, e.goes_at
        from unnest($20::uuid[], $21::uuid[], $22::text[], $23::int4[], $24::text[], $25::text[], $26::bytea[],
            $27::text[], $28::text[], $29::text[], $30::timestamptz[], $31::timestamptz[], $71::timestamptz[])
            as e (id, run_id, step, attempt, action, key, digest, request, labels, status, at, started_at, goes_at)
        where (e.run_id in (select id from accepted)) is true
    ),
    changed as (
        update effects f
        set status = e.status,
            digest = coalesce(e.digest, f.digest),
            request = coalesce(e.request::jsonb, f.request),
            response = coalesce(e.response::jsonb, f.response),
            started_at = coalesce(f.started_at, e.started_at),
            ended_at = coalesce(e.ended_at, f.ended_at),
            goes_at = case when e.status = 'proposed' then e.goes_at else f.goes_at end
        from unnest($32::uuid[], $33::uuid[], $34::text[], $35::bytea[], $36::text[], $37::text[],
            $38::timestamptz[], $39::timestamptz[], $72::timestamptz[])
            as e (id, run_id, status, digest, request, response, started_at, ended_at, goes_at)
        where f.id = e.id and (e.run_id in (select id from accepted)) is true
    ),
    asked as (
        insert into reviews (id, run_id, step, ask, digest, title, question, opened_at, due_at)
        select q.id, q.run_id, q.step, q.ask, q.digest, q.title, q.question::jsonb, q.opened_at, q.due_at
        from unnest($40::uuid[], $41::uuid[], $42::text[], $43::text[], $44::bytea[], $45::text[], $46::text[],
            $47::timestamptz[], $48::timestamptz[])
            as q (id, run_id, step, ask, digest, title, question, opened_at, due_at)
        where (q.run_id in (select id from accepted)) is true
    ),
    closed as (
        update reviews v
        set status = case when q.superseded and v.status = 'open' then 'superseded' else v.status end,
            decided_at = coalesce(v.decided_at, q.at),
            consumed_at = coalesce(v.consumed_at, q.at)
        from unnest($49::uuid[], $50::uuid[], $51::bool[], $52::timestamptz[]) as q (id, run_id, superseded, at)
        where v.id = q.id and (q.run_id in (select id from accepted)) is true
    ),
    heard as (
        delete from inbox i
        using unnest($53::uuid[], $54::text[]) as h (run_id, topic)
        where (h.run_id in (select id from accepted)) is true and i.run_id = h.run_id and i.topic = h.topic
    ),
    waiting as (
        insert into waits (run_id, step, name, match)
        select w.run_id, w.step, w.name, w.match
        from unnest($55::uuid[], $56::text[], $57::text[], $58::text[]) as w (run_id, step, name, match)
        where (w.run_id in (select id from accepted)) is true
    ),
    waited as (
        delete from waits w
        using unnest($59::uuid[], $60::text[]) as e (run_id, step)
        where (e.run_id in (select id from accepted)) is true and w.run_id = e.run_id and w.step = e.step
    ),
    happened as (
        insert into events (id, name, match, data, label)
        select e.id, e.name, e.match, e.data::jsonb, e.label
        from unnest($61::uuid[], $62::uuid[], $63::text[], $64::text[], $65::text[], $66::text[])
            as e (id, run_id, name, match, data, label)
        where (e.run_id in (select id from accepted)) is true
    ),
    settled as (
        update spend_entries e
        set status = 'settled', settled_micros = greatest(q.cost, 0), rolled = false, ended_at = q.at
        from unnest($67::uuid[], $68::uuid[], $69::int8[], $70::timestamptz[]) as q (id, run_id, cost, at)
        where e.id = q.id and (q.run_id in (select id from accepted)) is true
            and e.status in ('reserved', 'assumed')
    )";

pub(super) const OPEN: &str = "
    with t as (
        select * from unnest($1::uuid[], $2::text[], $3::bytea[], $4::uuid[], $5::timestamptz[], $6::text[],
            $7::text[], $8::text[], $9::timestamptz[])
            as t (id, workflow, version, node, wake_at, title, trigger, key, at)
    ),
    opened as (
        insert into runs (id, workflow, version, status, seq, node, wake_at, title, trigger, idempotency_key, opened_at)
        select id, workflow, version, case when node is null and wake_at is null then 'queued' else 'running' end,
            1, node, wake_at, title, trigger, nullif(key, id::text), at from t
        on conflict do nothing
        returning id
    ),
    appended as (
        insert into journal (run_id, seq, kind, at, actor, label, data, hash)
        select e.run_id, e.seq, e.kind, e.at, e.actor, e.label, e.data::json, e.hash
        from unnest($10::uuid[], $11::int8[], $12::text[], $13::timestamptz[], $14::text[], $15::text[],
            $16::text[], $17::bytea[], $18::bytea[])
            as e (run_id, seq, kind, at, actor, label, data, data_digest, hash)
        where (e.run_id in (select id from opened)) is true
    )";

/// These statements reach every row by its key. Told so, PostgreSQL plans them once and for all: left
/// to its estimates it plans for the empty tables of the first day, and reads the whole of `runs`
/// for every batch once they are not empty any more.
pub(in crate::store) const PLANNING: &str = "
    set plan_cache_mode = force_generic_plan;
    set enable_seqscan = off;
    set enable_bitmapscan = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off;";
