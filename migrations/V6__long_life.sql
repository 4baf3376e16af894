-- Long life: what makes a database of years cost the hot path nothing. Runs past their retention go,
-- each leaving a tombstone; the journal is kept by month; dead rows are cleared at the pace they
-- come, not at a share of what has piled up.

-- What retention removed: the audit trail's word for it. A journal entry or a run can go only after
-- its tombstone stands here, and a tombstone can stand only for a run that is over, with the head of
-- its chain as it was: nothing disappears without a trace, whatever the code above does wrong.
create table removed_runs (
    run_id      uuid        not null constraint removed_runs_pk primary key,
    workflow    text        not null,
    version     bytea       not null,
    status      text        not null,
    entries     bigint      not null,
    head        bytea       not null,
    opened_at   timestamptz not null,
    finished_at timestamptz not null,
    removed_at  timestamptz not null
);

create function removed_runs_tell_the_truth() returns trigger language plpgsql as $$
begin
    if tg_op <> 'INSERT' then
        raise exception 'what was removed stays told'
            using errcode = 'check_violation', constraint = 'removed_runs_append_only', table = tg_table_name;
    end if;
    if not exists (
        select from runs r join journal j on j.run_id = r.id and j.seq = r.seq
        where r.id = new.run_id and r.finished_at = new.finished_at and r.seq = new.entries and j.hash = new.head
    ) then
        raise exception 'run % is not over, or its journal does not end so', new.run_id
            using errcode = 'check_violation', constraint = 'removed_runs_finished', table = tg_table_name;
    end if;
    return new;
end $$;

create trigger removed_runs_truth before insert or update or delete on removed_runs
    for each row execute function removed_runs_tell_the_truth();
create trigger removed_runs_no_truncate before truncate on removed_runs
    for each statement execute function removed_runs_tell_the_truth();

create or replace function journal_is_append_only() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        if exists (select from removed_runs where run_id = old.run_id) then
            return old;
        end if;
    end if;
    raise exception 'the journal is append-only' using constraint = 'journal_append_only', table = tg_table_name;
end $$;

-- Statement triggers, unlike row triggers, are not inherited: each partition has its own.
create trigger journal_no_truncate before truncate on journal_rest
    for each statement execute function journal_is_append_only();

create function runs_leave_a_tombstone() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        if exists (select from removed_runs where run_id = old.id) then
            return old;
        end if;
    end if;
    raise exception 'a run is removed by retention alone'
        using errcode = 'check_violation', constraint = 'runs_tombstone', table = tg_table_name;
end $$;

create trigger runs_tombstone before delete on runs for each row execute function runs_leave_a_tombstone();
create trigger runs_no_truncate before truncate on runs
    for each statement execute function runs_leave_a_tombstone();

-- Whether an effect holds its key, as a column of its own: an index whose condition names `status`
-- forbids a HOT update each time the status changes, and an effect's status changes two or three
-- times while this does not. (`stored`, for a virtual column cannot be indexed.)
alter table effects add column holds boolean not null generated always as
    (status in ('proposed', 'started', 'succeeded', 'unknown', 'compensated')) stored;
drop index effects_dedupe_key;
create unique index effects_dedupe_key on effects (action, dedupe_key) where holds;

-- A run's id carries the time it was opened, so the primary key lists runs by age: one index less to
-- write for every run. What is not a success is rare, or not over yet; a run that succeeds leaves.
drop index runs_opened_at;
create index runs_status on runs (status, id) where status <> 'succeeded';

-- Since when an unfinished run may ask for a key of this action that it has not got from its own id.
create view keys_wanted as
    select wanted.step ->> 'action' as action, min(r.opened_at) as since
    from (select version, min(opened_at) as opened_at from runs
          where status <> 'succeeded' and finished_at is null group by version) r
    join workflow_versions v on v.digest = r.version
    cross join lateral jsonb_path_query(v.definition, '$.** ? (exists(@.action) && exists(@.dedupe))')
        as wanted (step)
    group by 1;

-- The only way a run is removed. Gives those that went; the others stay, because they
--   - are not over, or are parked: somebody still has to look at them;
--   - have an open question;
--   - hold a key that is not made of their own id, while a run that is not over, opened before this
--     one's time was up, may still ask for such a key: removed, the effect would happen a second time;
--   - are being removed by somebody else at this moment.
-- `expired` tells for each run when its time was up.
create function remove_runs(wanted uuid[], expired timestamptz[], moment timestamptz)
returns setof uuid language plpgsql as $$
declare
    going uuid[];
    held  uuid[];
begin
    select array_agg(id order by id) into going from (
        select r.id from runs r
        where r.id = any (wanted) and r.finished_at is not null and r.status <> 'parked'
          and not exists (select from reviews v where v.run_id = r.id and v.status = 'open')
        order by r.id for update skip locked) as over;
    if going is null then
        return;
    end if;
    if exists (select from effects e where e.run_id = any (going) and e.holds
               and not starts_with(e.dedupe_key, e.run_id::text || '/')) then
        select array_agg(e.run_id) into held
        from effects e
        join unnest(wanted, expired) as w (id, at) on w.id = e.run_id
        join keys_wanted k on k.action = e.action and k.since < w.at
        where e.run_id = any (going) and e.holds and not starts_with(e.dedupe_key, e.run_id::text || '/');
    end if;
    with kept as (
        insert into removed_runs
            (run_id, workflow, version, status, entries, head, opened_at, finished_at, removed_at)
        select r.id, r.workflow, r.version, r.status, r.seq, j.hash, r.opened_at, r.finished_at, moment
        from runs r join journal j on j.run_id = r.id and j.seq = r.seq
        where r.id = any (going) and (held is null or r.id <> all (held))
          and j.run_id between going[1] and going[array_upper(going, 1)]
        returning run_id)
    select array_agg(run_id order by run_id) into going from kept;
    if going is null then
        return;
    end if;
    delete from inbox where run_id = any (going);
    delete from waits where run_id = any (going);
    delete from slots where run_id = any (going);
    delete from queue where run_id = any (going);
    delete from reviews where run_id = any (going);
    delete from effects where run_id = any (going);
    -- The bounds let PostgreSQL leave out every partition but one or two.
    delete from journal where run_id = any (going) and run_id between going[1] and going[array_upper(going, 1)];
    delete from runs where id = any (going);
    return query select unnest(going);
end $$;

-- How far a slow walk over the tables has come, so that a restart goes on where it stopped, and who
-- of several nodes does it: whoever claims it first; the others may once it has been silent for long.
create table sweeps (
    task       text        not null constraint sweeps_pk primary key,
    behind     uuid,
    claimed_at timestamptz not null default '-infinity'
) with (fillfactor = 50);
insert into sweeps (task) values ('retention');

-- Vacuum. By default a table is vacuumed when a fifth of it is dead: the longer the history, the more
-- dead rows lie about, and queues and leases have to be read past them. Here a fixed number starts it,
-- whatever the size. Where pages have room (fillfactor), an update that changes no indexed column stays
-- on its page and the dead row is cleared by the next visitor, without vacuum.

-- A run dies a few times (claimed, asleep, over): with a million of them, 5,000 instead of 200,000.
alter table runs set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.05);
-- Proposed, started, ended: each on its page, given room for a second and a third copy.
alter table effects set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.05);
alter table reviews set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0.05);
-- Every row of the inbox dies within moments of its birth: the table should stay a few pages.
alter table inbox set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
-- A handful of rows, rewritten each second: with half the page free that never leaves the page.
alter table nodes set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
-- The journal never changes: what vacuum visits it freezes at once, and never has to visit again.
alter table journal_rest set (autovacuum_freeze_min_age = 0);
alter table removed_runs set (autovacuum_freeze_min_age = 0);
