-- Flow control: who waits for a turn, and who holds a slot of a concurrency key.
-- Both tables are small and busy: vacuum comes by rows, not by a share of the table, and the
-- collation is the plain byte order in which Steward itself compares keys.

-- A run that has not begun: status `queued`, no node, no `wake_at`. It leaves in the statement that
-- begins it, or in the one that cancels it.
create table queue (
    run_id      uuid        not null constraint queue_pk primary key constraint queue_run references runs,
    workflow    text        collate "C" not null,
    flow_key    text        collate "C" not null,
    -- How many runs of this key may be under way; without it only room is waited for.
    slots       integer     constraint queue_slots check (slots > 0),
    priority    smallint    not null constraint queue_priority check (priority between 0 and 2),
    -- When it came, later by what its class has to wait: the smaller, the longer it has waited for its class.
    rank        timestamptz not null,
    -- False while its key is known to be full: such rows are not looked at before a slot is given back.
    ready       boolean     not null default true,
    enqueued_at timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- The longest waiting of a workflow; the next key of a workflow and its longest waiting; what a slot wakes.
create index queue_by_rank on queue (workflow, rank, run_id) where ready;
create index queue_by_key on queue (workflow, flow_key, rank, run_id) where ready;
create index queue_blocked on queue (workflow, flow_key, rank, run_id) where not ready;

-- A slot is held from the beginning of a run until it has ended, also while it waits. The statement
-- that ends the run sets `freed`; the next admission, which alone counts slots, takes the row away.
create table slots (
    run_id   uuid    not null constraint slots_pk primary key constraint slots_run references runs,
    workflow text    collate "C" not null,
    flow_key text    collate "C" not null,
    freed    boolean not null default false
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

create index slots_by_key on slots (workflow, flow_key);
create index slots_freed on slots (run_id) where freed;

-- The runs that are due, workflow by workflow, for a node with little room. A run in motion is in none
-- of the two, so the hot path does not pay for them.
create index runs_due_by_workflow on runs (workflow, wake_at) where wake_at is not null;
