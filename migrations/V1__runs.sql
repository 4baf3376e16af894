-- Runs and what hangs on them. PostgreSQL carries truth; every name is the glossary's, every
-- constraint is named, and the names are part of the API: the store turns them into typed errors.

create table nodes (
    id          uuid        not null constraint nodes_pk primary key,
    started_at  timestamptz not null default now(),
    lease_until timestamptz not null
);

create table workflow_versions (
    digest     bytea       not null constraint workflow_versions_pk primary key,
    workflow   text        not null,
    version    integer     not null,
    definition jsonb       not null,
    stage      text        not null default 'supervised'
        constraint workflow_versions_stage check (stage in ('supervised', 'live', 'retired')),
    created_at timestamptz not null default now(),
    constraint workflow_versions_number unique (workflow, version)
);

-- Narrow and with room in each page: a step rewrites its run's row, and no column that changes
-- on the way is indexed, so the rewrite stays on the page (a HOT update).
create table runs (
    id              uuid        not null constraint runs_pk primary key,
    workflow        text        not null,
    version         bytea       not null constraint runs_version references workflow_versions,
    status          text        not null
        constraint runs_status check (status in
            ('running', 'waiting', 'succeeded', 'declined', 'failed', 'cancelled', 'parked')),
    seq             bigint      not null,
    node            uuid,
    wake_at         timestamptz,
    signals         integer     not null default 0,
    crashes         smallint    not null default 0,
    title           text        not null,
    trigger         text        not null,
    idempotency_key text        not null,
    opened_at       timestamptz not null,
    finished_at     timestamptz,
    constraint runs_idempotency_key unique (workflow, idempotency_key)
) with (fillfactor = 70);

-- Only sleeping runs with something due are in it: a run in motion never touches it.
create index runs_due on runs (wake_at) where wake_at is not null;

-- A run that goes to sleep or ends leaves this one; it serves the take-over from a lost node.
create index runs_node on runs (node) where node is not null;
create index runs_opened_at on runs (opened_at desc, id desc);

-- Checkpoint, replay source and audit at once: append-only, chained per run.
-- Partitioned by the run, whose id carries the time, so that retention can drop whole partitions.
create table journal (
    run_id      uuid        not null,
    seq         bigint      not null,
    kind        text        not null,
    at          timestamptz not null,
    actor       text        not null,
    label       text        not null
        constraint journal_label check (label in ('owner', 'system', 'model', 'untrusted')),
    data        jsonb,
    data_digest bytea       not null,
    hash        bytea       not null,
    constraint journal_pk primary key (run_id, seq)
) partition by range (run_id);

create table journal_rest partition of journal default;

create function journal_is_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'the journal is append-only' using constraint = 'journal_append_only', table = tg_table_name;
end $$;

create trigger journal_append_only before update or delete on journal
    for each row execute function journal_is_append_only();
create trigger journal_no_truncate before truncate on journal
    for each statement execute function journal_is_append_only();

create table effects (
    id          uuid        not null constraint effects_pk primary key,
    run_id      uuid        not null constraint effects_run references runs,
    step        text        not null,
    attempt     integer     not null,
    action      text        not null,
    dedupe_key  text        not null,
    digest      bytea       not null,
    request     jsonb       not null,
    labels      jsonb       not null,
    status      text        not null
        constraint effects_status check (status in
            ('proposed', 'started', 'succeeded', 'failed', 'unknown', 'withdrawn', 'compensated')),
    response    jsonb,
    proposed_at timestamptz not null,
    started_at  timestamptz,
    ended_at    timestamptz
);

-- What did not happen frees its key; what happened, or may have, holds it for good.
create unique index effects_dedupe_key on effects (action, dedupe_key)
    where status in ('proposed', 'started', 'succeeded', 'unknown', 'compensated');
create index effects_run_id on effects (run_id);

create table reviews (
    id         uuid        not null constraint reviews_pk primary key,
    run_id     uuid        not null constraint reviews_run references runs,
    step       text        not null,
    ask        text        not null
        constraint reviews_ask check (ask in ('approval', 'answer', 'question', 'in_doubt')),
    digest     bytea       not null,
    title      text        not null,
    question   jsonb       not null,
    status     text        not null default 'open'
        constraint reviews_status check (status in
            ('open', 'approved', 'edited', 'rejected', 'answered', 'expired', 'superseded')),
    verdict    jsonb,
    decided_by text,
    opened_at  timestamptz not null,
    due_at     timestamptz,
    decided_at timestamptz,
    consumed_at timestamptz,
    constraint reviews_decided check ((status = 'open') = (decided_at is null))
);

create index reviews_open on reviews (opened_at) where status = 'open';
create index reviews_due on reviews (due_at) where status = 'open' and due_at is not null;
create index reviews_run_id on reviews (run_id);

-- What a run is told from outside while nobody may be listening. First write wins. Whoever writes
-- here also counts `runs.signals` up: a run that goes to sleep without having heard is woken again.
create table inbox (
    run_id     uuid        not null constraint inbox_run references runs,
    topic      text        not null,
    data       jsonb       not null,
    at         timestamptz not null default now(),
    constraint inbox_pk primary key (run_id, topic)
);
