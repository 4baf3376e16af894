-- Earned autonomy: what the owner decided about each version, kept beyond the runs it was about; since
-- when a version is trusted as far as it is, and who said so.

alter table workflow_versions add column staged_at timestamptz not null default now();
update workflow_versions set staged_at = created_at;

-- Every change of a version's stage, for good.
create table stages (
    id        bigint      generated always as identity constraint stages_pk primary key,
    version   bytea       not null,
    workflow  text        not null,
    number    integer     not null,
    was       text        not null,
    stage     text        not null,
    at        timestamptz not null default now(),
    by        text        not null,
    reason    text        not null,
    -- The effect that did it: however often it is carried out, it is done once.
    effect_id uuid        constraint stages_effect unique
);

create index stages_workflow on stages (workflow, id);

create function stages_are_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'who changed a stage stays told'
        using errcode = 'check_violation', constraint = 'stages_append_only', table = tg_table_name;
end $$;

create trigger stages_append_only before update or delete on stages
    for each row execute function stages_are_append_only();
create trigger stages_no_truncate before truncate on stages
    for each statement execute function stages_are_append_only();

-- One row for each review that somebody, or its deadline, decided. It holds no content, only what is
-- counted, and stays when retention removes the run.
create table decisions (
    review_id  uuid        not null constraint decisions_pk primary key,
    run_id     uuid        not null,
    step       text        not null,
    workflow   text        not null,
    version    bytea       not null,
    ask        text        not null,
    action     text,
    risk       text        not null,
    sampled    boolean     not null,
    outcome    text        not null
        constraint decisions_outcome check (outcome in ('approved', 'edited', 'rejected', 'answered', 'expired')),
    opened_at  timestamptz not null,
    decided_at timestamptz not null,
    decided_by text        not null,
    -- The longest that whoever decided can have looked at it: since he was told, or since he decided
    -- something else.
    looked_ms  bigint      not null,
    -- An approval of high risk that was too fast to have been read, and about which nobody has yet judged whether
    -- it is to be pointed out.
    unweighed  boolean     not null default false
);

create index decisions_version on decisions (version, decided_at);
create index decisions_decided_at on decisions (decided_at);
create index decisions_high on decisions (decided_by, decided_at desc, review_id) where risk = 'high' and ask = 'approval';
create index decisions_unweighed on decisions (decided_by) where unweighed;

-- The same in one row for each workflow, from the first day on, so that nobody has to count for it: a monitoring
-- system asks every few seconds. Written by the statement that writes the decisions.
create table decision_totals (
    workflow text    not null constraint decision_totals_pk primary key,
    approved bigint  not null,
    edited   bigint  not null,
    rejected bigint  not null,
    answered bigint  not null,
    expired  bigint  not null,
    -- Of the approved: of high risk, and too fast to have been read by the rule of that day.
    hasty    bigint  not null,
    -- How long all but the expired took together, seconds.
    seconds  float8  not null
) with (fillfactor = 50);

-- What was decided lately and is not counted yet; and undoings that failed.
create index reviews_decided_at on reviews (decided_at) where decided_at is not null;
create index reviews_undo on reviews (opened_at) where ask = 'undo';
