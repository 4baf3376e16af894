-- What was said to models and what they said, to the letter, so that every answer can be explained; and which
-- of those answers may serve a second time.

-- One call of one model, or one answer from the cache in place of a call. A row is written before the journal
-- tells of the call: no entry points to nothing, though a crash between the two leaves a row without an entry,
-- which goes with its run or its time like any other. Who was asked, what it cost and how it ended stand here
-- beside the bodies, for a call whose step has ended meanwhile has no entry.
create table model_calls (
    id               uuid        not null constraint model_calls_pk primary key,
    run_id           uuid        not null,
    step             text        not null,
    attempt          integer     not null,
    turn             integer     not null,
    part             text,
    agent            text        not null,
    agent_digest     bytea       not null,
    prompt_digest    bytea       not null,
    model            text        not null,
    provider         text        not null,
    answered_by      text,
    input_tokens     bigint      not null,
    output_tokens    bigint      not null,
    cost_micros      bigint      not null,
    millis           bigint      not null,
    outcome          text        not null,
    cached           boolean     not null,
    -- The call whose answer this is, for one from the cache: its bodies are copied, for it goes earlier.
    origin           uuid,
    -- Compressed (zlib, RFC 1950). The size is that of the whole body, the bytes may be less of it.
    request          bytea,
    request_bytes    bigint,
    request_clipped  boolean     not null,
    response         bytea,
    response_bytes   bigint,
    response_clipped boolean     not null,
    created_at       timestamptz not null default now(),
    constraint model_calls_digests check (octet_length(agent_digest) = 32 and octet_length(prompt_digest) = 32),
    constraint model_calls_cached_costs_nothing check (not cached or (cost_micros = 0 and origin is not null))
);
-- They are compressed already.
alter table model_calls alter column request set storage external;
alter table model_calls alter column response set storage external;
create index model_calls_run on model_calls (run_id, id);
create index model_calls_age on model_calls (created_at);

-- The answers that may serve again. The answer itself stays with its call: whoever erases the call has erased
-- the answer here as well. The key covers all that the answer depends on, the label of the input among it.
create table model_cache (
    key        bytea       not null constraint model_cache_pk primary key,
    call_id    uuid        not null,
    made_at    timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint model_cache_digest check (octet_length(key) = 32),
    constraint model_cache_call foreign key (call_id) references model_calls (id) on delete cascade
);
create index model_cache_call_id on model_cache (call_id);
create index model_cache_expires_at on model_cache (expires_at);
create index model_cache_made_at on model_cache (made_at);

-- The only way by which calls go, one by one or many: with all that was made of them.
create function erase_calls(wanted uuid[]) returns bigint language sql as $$
    with gone as (delete from model_calls where id = any (wanted) returning id)
    select count(*) from gone;
$$;

-- A run that is removed takes its calls along.
create function runs_take_their_calls_along() returns trigger language plpgsql as $$
begin
    perform erase_calls(array(select c.id from model_calls c join gone on c.run_id = gone.id));
    return null;
end $$;

create trigger runs_calls after delete on runs referencing old table as gone
    for each statement execute function runs_take_their_calls_along();
