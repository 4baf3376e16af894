-- Runs that open by the clock, and inputs that wait for company before they open one.

-- One row per schedule of the workspace's files: so few that none of its columns needs an index.
create table schedules (
    workflow   text        not null,
    name       text        not null,
    spec       jsonb       not null,
    -- The only thing about a schedule that cannot be derived: null when nothing follows any more.
    next_at    timestamptz,
    last_at    timestamptz,
    last_run   uuid,
    skipped    bigint      not null default 0,
    skipped_at timestamptz,
    missed     bigint      not null default 0,
    problem    text,
    constraint schedules_pk primary key (workflow, name)
);

-- A group of inputs: of one workflow and trigger, with one key. It takes more until it is closed; its run
-- is opened under a key made from its id, then the row goes.
create table gathered (
    id        uuid        not null constraint gathered_pk primary key,
    workflow  text        not null,
    trigger   text        not null,
    key       text        not null,
    spec      jsonb       not null,
    first_at  timestamptz not null,
    last_at   timestamptz not null,
    due_at    timestamptz not null,
    items     integer     not null,
    bytes     bigint      not null,
    closed_at timestamptz,
    problem   text
);

create unique index gathered_open on gathered (workflow, trigger, key) where closed_at is null;
create index gathered_due on gathered (due_at);

-- What was gathered. The input goes when the run is durable, or when a later one has taken its place; the
-- key stays a while, so that the same delivery counts once.
create table gathered_items (
    workflow text        not null,
    item_key text        not null,
    group_id uuid        not null,
    nth      integer     not null,
    at       timestamptz not null,
    label    text        not null
        constraint gathered_items_label check (label in ('owner', 'system', 'model', 'untrusted')),
    input    jsonb,
    run_id   uuid,
    constraint gathered_items_pk primary key (workflow, item_key)
);

create index gathered_items_group on gathered_items (group_id) where run_id is null;
create index gathered_items_at on gathered_items (at) where run_id is not null;
