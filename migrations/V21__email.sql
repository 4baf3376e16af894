-- Answers by mail: links to one review, replies to one, and who wants no digest.

-- What opens the page of one review. The secret itself (256 random bits) is in the mail alone; its SHA-256
-- stands here. Rows refer to their review by its id without a constraint: a run that retention removes leaves
-- links that open nothing, until they have expired and are swept.
create table link_tokens (
    hash       bytea       not null constraint link_tokens_pk primary key
        constraint link_tokens_hash check (length(hash) = 32),
    review_id  uuid        not null,
    -- What the holder may decide about; void once the review is about something else.
    digest     bytea       not null constraint link_tokens_digest check (length(digest) = 32),
    approver   text        not null,
    made_at    timestamptz not null default now(),
    expires_at timestamptz not null,
    -- When it decided.
    used_at    timestamptz
);

create index link_tokens_expires_at on link_tokens (expires_at);

-- The key of what stands in addresses and in the links that end the digest: one for all nodes.
create table mail_keys (
    one boolean not null default true constraint mail_keys_pk primary key constraint mail_keys_one check (one),
    key bytea   not null constraint mail_keys_key check (length(key) = 32)
);

-- What came in answer to a mail: each is dealt with once, however often and by however many at once it is
-- delivered; one that a crash interrupted, again. What named a review by a key that was no good, or was not
-- proven to come from the owner, stands here and did nothing.
create table mail_replies (
    -- SHA-256 of the signature that proves the sender, or of the whole mail where none does.
    fingerprint   bytea       not null constraint mail_replies_pk primary key
        constraint mail_replies_fingerprint check (length(fingerprint) = 32),
    review_id     uuid,
    message_id    text        not null,
    sender        text        not null,
    came_at       timestamptz not null default now(),
    -- Who deals with it, and how long nobody else does.
    claim         uuid        not null,
    claimed_until timestamptz not null,
    -- What came of it; null while it is being dealt with.
    did           text
);

create index mail_replies_came_at on mail_replies (came_at);

-- Addresses that get no digest any more.
create table digests_off (
    address text        not null constraint digests_off_pk primary key,
    at      timestamptz not null default now()
);
