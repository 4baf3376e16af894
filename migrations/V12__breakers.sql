-- Providers of models that nobody calls for a while, so that a restart does not forget it and one node need
-- not find out what another one knows. A row per provider, kept when the trouble is over: it says what the
-- last one was.
create table breakers (
    provider  text        not null,
    -- What happened, in words for the owner.
    why       text        not null,
    -- Only the owner can mend it: the key is refused, or the account exhausted.
    lasting   boolean     not null,
    opened_at timestamptz not null default now(),
    -- When a probe may be made.
    until     timestamptz not null,
    -- When it was over; null while it is not.
    closed_at timestamptz,
    -- When the owner was told of lasting trouble; null as long as that is still to be done.
    told_at   timestamptz,
    constraint breakers_pk primary key (provider)
);
