-- Runs that wait for room, that the owner paused; questions about a failed undo and a parked run.

alter table runs
    drop constraint runs_status,
    add constraint runs_status check (status in
        ('queued', 'running', 'waiting', 'paused', 'succeeded', 'declined', 'failed', 'cancelled', 'parked'));

alter table reviews
    drop constraint reviews_ask,
    add constraint reviews_ask check (ask in ('approval', 'answer', 'question', 'in_doubt', 'undo', 'parked'));

-- What the owner holds: `all`, or `workflow:NAME`. A run by itself is held in its journal.
create table pauses (
    scope text        not null constraint pauses_pk primary key,
    by    text        not null,
    at    timestamptz not null default now()
);

-- What happened outside and runs may wait for. Kept before anybody is told: whoever begins to wait looks
-- here, and whoever brings an event looks into `waits`; so neither can miss the other, whoever is first.
create table events (
    id       uuid        not null constraint events_pk primary key,
    name     text        not null,
    match    text        not null,
    data     jsonb       not null,
    label    text        not null
        constraint events_label check (label in ('owner', 'system', 'model', 'untrusted')),
    key      text        constraint events_key unique,
    at       timestamptz not null default now(),
    told_at  timestamptz,
    told     uuid[]      not null default '{}'
);
create index events_topic on events (name, match, at);
create index events_untold on events (at) where told_at is null;

-- Who waits for what. Written and removed by the commits that begin and end a wait.
create table waits (
    run_id uuid not null constraint waits_run references runs,
    step   text not null,
    name   text not null,
    match  text not null,
    constraint waits_pk primary key (run_id, step)
);
create index waits_topic on waits (name, match);
