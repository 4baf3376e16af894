-- Money: each model call is paid before it is made, from every account it concerns or not at all.
-- Amounts are millionths of the workspace's currency.

-- What was set aside and what was spent: a row per run, per day and month of a workflow and of the
-- workspace. `account` is the key by which rows are locked, always in its order, so that nobody waits
-- in a circle. No indexed column changes: updates stay on their page.
create table spend (
    account      text        collate "C" not null constraint spend_pk primary key,
    scope        text        not null constraint spend_scope
        check (scope in ('run', 'workflow/day', 'workflow/month', 'workspace/day', 'workspace/month')),
    run_id       uuid,
    workflow     text,
    period       text,
    -- Set aside for calls under way.
    reserved     bigint      not null default 0 constraint spend_reserved check (reserved >= 0),
    -- Spent, what is taken for spent included.
    settled      bigint      not null default 0 constraint spend_settled check (settled >= 0),
    -- The part of `settled` by which calls cost more than was set aside for them.
    overrun      bigint      not null default 0,
    -- The part of `settled` whose entries were removed with their runs.
    archived     bigint      not null default 0,
    calls        bigint      not null default 0,
    -- The latest limit; none when null.
    limit_micros bigint,
    -- The highest limit under which anything was ever set aside: `reserved + settled` never exceeds it,
    -- but for the overrun. A limit that was lowered later does not lower it.
    ceiling      bigint      not null default 0,
    changed_at   timestamptz not null default now()
) with (fillfactor = 70);

-- One call: money set aside for it, and what became of that.
create table spend_entries (
    id              uuid        not null constraint spend_entries_pk primary key,
    run_id          uuid,
    workflow        text,
    step            text,
    attempt         integer     not null,
    model           text        not null,
    -- The keys of the rows of `spend` that pay.
    accounts        text[]      not null,
    -- The owner's day, for reports.
    day             date        not null,
    reserved_micros bigint      not null constraint spend_entries_reserved check (reserved_micros >= 0),
    settled_micros  bigint      constraint spend_entries_settled check (settled_micros >= 0),
    status          text        not null default 'reserved' constraint spend_entries_status
        check (status in ('reserved', 'settled', 'released', 'assumed')),
    -- What `spend` has of it: whether `reserved` still holds it, how much of `settled` is from it, and
    -- whether that is all up to date.
    held            boolean     not null default true,
    counted_micros  bigint      not null default 0,
    rolled          boolean     not null default true,
    created_at      timestamptz not null default now(),
    -- When what nobody settled is taken for spent.
    expires_at      timestamptz not null,
    ended_at        timestamptz,
    constraint spend_entries_known check ((status = 'settled') = (settled_micros is not null))
) with (fillfactor = 80);

create index spend_entries_due on spend_entries (id) where not rolled;
create index spend_entries_expiring on spend_entries (expires_at) where status = 'reserved';
create index spend_entries_run on spend_entries (run_id);
create index spend_entries_day on spend_entries (day);

-- Shares of a limit that were passed: each is told to the owner once. `told_at` is for whoever tells.
create table spend_thresholds (
    account      text        collate "C" not null,
    percent      integer     not null,
    limit_micros bigint      not null,
    used_micros  bigint      not null,
    passed_at    timestamptz not null default now(),
    told_at      timestamptz,
    constraint spend_thresholds_pk primary key (account, percent)
);

create index spend_thresholds_untold on spend_thresholds (passed_at) where told_at is null;

alter table reviews
    drop constraint reviews_ask,
    add constraint reviews_ask
        check (ask in ('approval', 'answer', 'question', 'in_doubt', 'undo', 'parked', 'budget'));

-- Rows that are updated with every call; dead ones are cleared at the pace they come.
alter table spend set (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
