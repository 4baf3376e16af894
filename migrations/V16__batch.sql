-- Calls of models that may wait: they gather, go to their provider in one batch at half the price, and their
-- runs sleep meanwhile. What was handed over is known here before it counts as handed over.

-- One batch at a provider. `id` goes along as its metadata: by it the batch is found again when nobody knows
-- whether it was begun, so that none is paid for twice.
create table batches (
    id            uuid        not null constraint batches_pk primary key,
    provider      text        not null,
    -- The model's name at the provider: a batch has one.
    model         text        not null,
    -- `formed`: surely not begun. `submitting`: perhaps begun. `submitted`: begun. `over`: nothing follows.
    status        text        not null default 'formed' constraint batches_status
        check (status in ('formed', 'submitting', 'submitted', 'over')),
    -- The provider's ids of the questions and of the batch.
    file          text,
    batch         text,
    -- How it ended, or what is in its way.
    why           text,
    failures      integer     not null default 0,
    formed_at     timestamptz not null default now(),
    submitting_at timestamptz,
    submitted_at  timestamptz,
    ended_at      timestamptz,
    -- When somebody is to look after it, and who does at present.
    look_at       timestamptz not null default now(),
    claim         uuid,
    claimed_until timestamptz,
    constraint batches_submitted check (status <> 'submitted' or batch is not null),
    constraint batches_over check ((status = 'over') = (ended_at is not null))
);
create index batches_due on batches (look_at) where status <> 'over';
create index batches_ended on batches (ended_at) where status = 'over';

-- One call in it, or one that waits to go into one. It goes only when its run waits for it (`waits`): what
-- nobody waits for is never sent.
create table batch_calls (
    id             uuid        not null constraint batch_calls_pk primary key,
    run_id         uuid        not null,
    step           text        not null,
    provider       text        not null,
    -- The model's name at the provider, and as the owner calls it.
    remote         text        not null,
    model          text        not null,
    reservation    uuid,
    worst_micros   bigint      not null,
    -- As in `model_calls`; the bodies are there, too, once the run has gone on, and here until it is over.
    request        bytea,
    request_bytes  bigint      not null,
    -- The draft that is gone over, with its label and confidence.
    draft          jsonb,
    batch          uuid        constraint batch_calls_batch references batches,
    -- How it ended: an HTTP status with its body, or what kept it from that.
    status         integer,
    response       bytea,
    response_bytes bigint,
    fault          text        constraint batch_calls_fault
        check (fault in ('unsent', 'refused', 'failed', 'cancelled', 'expired', 'lost', 'late')),
    why            text,
    -- Its run had gone its way when it ended: no journal tells what it cost.
    unheard        boolean     not null default false,
    created_at     timestamptz not null default now(),
    ended_at       timestamptz,
    constraint batch_calls_ended check ((ended_at is null) = (status is null and fault is null))
);
alter table batch_calls alter column request set storage external;
alter table batch_calls alter column response set storage external;
create index batch_calls_waiting on batch_calls (provider, remote, created_at) where batch is null and ended_at is null;
create index batch_calls_in_batch on batch_calls (batch);
create index batch_calls_run on batch_calls (run_id);
create index batch_calls_ended on batch_calls (ended_at) where ended_at is not null;
create index batch_calls_said on batch_calls (run_id) where request is not null;

-- What a call read from the provider's own cache and what was set aside for it belong to what explains it.
alter table model_calls
    add column cached_tokens bigint  not null default 0,
    add column reservation   uuid,
    add column batch         boolean not null default false;

-- A run that is removed takes these along, too.
create or replace function runs_take_their_calls_along() returns trigger language plpgsql as $$
begin
    perform erase_calls(array(select c.id from model_calls c join gone on c.run_id = gone.id));
    delete from batch_calls c using gone where c.run_id = gone.id;
    return null;
end $$;

-- Who erases what was said to a model erases it here as well.
create or replace function erase_calls(wanted uuid[]) returns bigint language sql as $$
    update batch_calls set request = null, response = null, draft = null where id = any (wanted);
    with gone as (delete from model_calls where id = any (wanted) returning id)
    select count(*) from gone;
$$;
