-- Reviews in full: what is said about them, what the owner changed in them, snoozes that begin the ladder
-- anew, and effects that wait for a moment in which they can be called back.

-- When an effect goes out that may happen and is held. It is never part of a condition on the status: that
-- would make each change of an effect's status a change of an index.
alter table effects add column goes_at timestamptz;
create index effects_held on effects (goes_at) where goes_at is not null;

-- What was sent to somebody before: shown to whoever decides about the next mail.
create index effects_sent_to on effects (lower(request ->> 'to'), proposed_at) where action = 'email.send';

create index records_key on records (key);

-- A snooze begins the ladder anew: so many rungs were climbed before it.
alter table reviews add column rung_before integer not null default 0;

create table comments (
    id        uuid        not null constraint comments_pk primary key,
    review_id uuid        not null constraint comments_review references reviews,
    by        text        not null,
    text      text        not null,
    at        timestamptz not null default now()
);

create index comments_review_id on comments (review_id, at, id);

-- What the owner made of a draft: feedback on whoever wrote it. It outlives its review, without the words.
create table edits (
    review_id uuid        not null constraint edits_pk primary key,
    run_id    uuid        not null,
    workflow  text        not null,
    version   bytea       not null,
    step      text        not null,
    action    text        not null,
    draft     jsonb,
    edited    jsonb,
    changes   jsonb,
    kept      integer     not null,
    gone      integer     not null,
    added     integer     not null,
    by        text        not null,
    at        timestamptz not null
);

create index edits_of on edits (workflow, version, action);
create index edits_run_id on edits (run_id);

-- The newest ones, of all workflows and of one.
create index edits_at on edits (at desc, review_id);
create index edits_workflow_at on edits (workflow, at desc, review_id);
create index reviews_edited on reviews (decided_at) where status = 'edited';

-- As before (V6), and what was sent and said about its reviews goes with a run; of edits only the tally stays.
create or replace function remove_runs(wanted uuid[], expired timestamptz[], moment timestamptz)
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
    delete from comments where review_id in (select id from reviews where run_id = any (going));
    update edits set draft = null, edited = null, changes = null where run_id = any (going);
    delete from messages_out where review_id in (select id from reviews where run_id = any (going));
    delete from reviews where run_id = any (going);
    delete from effects where run_id = any (going);
    -- The bounds let PostgreSQL leave out every partition but one or two.
    delete from journal where run_id = any (going) and run_id between going[1] and going[array_upper(going, 1)];
    delete from runs where id = any (going);
    return query select unnest(going);
end $$;
