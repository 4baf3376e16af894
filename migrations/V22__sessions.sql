-- Who may look at the web inbox. Both tables hold SHA-256 digests of secrets of 256 bits, never the secrets:
-- who reads the database cannot sign in with what stands here.

create table sign_in_links (
    digest     bytea       not null constraint sign_in_links_pk primary key
        constraint sign_in_links_digest check (length(digest) = 32),
    made_at    timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at    timestamptz,
    constraint sign_in_links_expiry check (expires_at > made_at)
);

create index sign_in_links_expires_at on sign_in_links (expires_at);

create table sessions (
    digest       bytea       not null constraint sessions_pk primary key
        constraint sessions_digest check (length(digest) = 32),
    made_at      timestamptz not null default now(),
    last_used_at timestamptz not null default now(),
    expires_at   timestamptz not null,
    revoked_at   timestamptz,
    constraint sessions_expiry check (expires_at > made_at)
);

create index sessions_expires_at on sessions (expires_at);

-- What was begun last, for the first page of the inbox. `started_at` is written once and never again, so what
-- follows of an effect still rewrites its row in place.
create index effects_started_at on effects (started_at desc) where started_at is not null;
