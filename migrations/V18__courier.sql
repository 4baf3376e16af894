-- How the owner hears of what waits for him: which review is told of next and when, the messages that
-- go to each channel, and notices, which are told and acknowledged but ask nothing.

-- When the owner is told of a review next: at once when it opens, nothing once its ladder is climbed.
-- `rung` counts how many rungs have been climbed, `snoozed_until` when a snooze ends.
alter table reviews
    add column tell_at timestamptz default now(),
    add column rung integer not null default 0,
    add column snoozed_until timestamptz;

create index reviews_tell on reviews (tell_at) where status = 'open' and tell_at is not null;

-- Something the owner should know. What happens again before he has acknowledged it, or before it is over,
-- is counted, not told again.
create table notices (
    id              uuid        not null constraint notices_pk primary key,
    kind            text        not null,
    subject         text        not null,
    severity        text        not null
        constraint notices_severity check (severity in ('info', 'warning', 'critical')),
    title           text        not null,
    detail          text        not null,
    run_id          uuid,
    times           integer     not null default 1,
    first_at        timestamptz not null default now(),
    last_at         timestamptz not null default now(),
    told_at         timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    over_at         timestamptz,
    constraint notices_acknowledged check ((acknowledged_at is null) = (acknowledged_by is null))
);

create unique index notices_standing on notices (kind, subject) where acknowledged_at is null and over_at is null;
create index notices_untold on notices (first_at) where told_at is null;
create index notices_last_at on notices (last_at desc, id desc);

-- Those that are settled, by when they were: what the housekeeper clears.
create index notices_settled on notices (greatest(acknowledged_at, over_at));

-- A message to the owner over one channel. It is written before it is sent: a crash in between sends it
-- again, under the same id.
create table messages_out (
    id          uuid        not null constraint messages_out_pk primary key,
    review_id   uuid        constraint messages_out_review references reviews,
    notice_id   uuid        constraint messages_out_notice references notices on delete cascade,
    channel     text        not null constraint messages_out_channel check (channel in ('slack', 'email')),
    kind        text        not null constraint messages_out_kind check (kind in ('ask', 'remind', 'notice', 'digest')),
    rung        integer     not null default 0,
    day         date,
    status      text        not null default 'due'
        constraint messages_out_status check (status in ('due', 'sent', 'failed')),
    due_at      timestamptz not null default now(),
    attempts    integer     not null default 0,
    error       text,
    -- Where it stands, as its channel needs to find it again.
    place       jsonb,
    sent_at     timestamptz,
    -- When it was made to say how its review ended.
    closed_at   timestamptz,
    constraint messages_out_about check
        ((kind in ('ask', 'remind')) = (review_id is not null)
         and (kind = 'notice') = (notice_id is not null) and (kind = 'digest') = (day is not null)),
    constraint messages_out_review_once unique (review_id, channel, rung),
    constraint messages_out_notice_once unique (notice_id, channel),
    constraint messages_out_digest_once unique (day, channel)
);

create index messages_out_due on messages_out (due_at) where status = 'due';
create index messages_out_standing on messages_out (review_id)
    where status = 'sent' and closed_at is null and review_id is not null;

-- Events that were told, by age: what the housekeeper clears, a portion at a time.
create index events_told on events (at) where told_at is not null;
