-- Vectors made by models that cost money, and a second space that is filled while the first one answers.

-- The space that is to answer. It is the active one but while it is being filled.
alter table embedding_spaces add column wanted boolean not null default false;

-- Held at the end of a statement, not row by row: the switch takes from the one and gives to the other at once.
drop index embedding_spaces_active;
alter table embedding_spaces
    add constraint embedding_spaces_active exclude using btree (active with =) where (active)
        deferrable initially immediate,
    add constraint embedding_spaces_wanted exclude using btree (wanted with =) where (wanted)
        deferrable initially immediate;

-- What was paid for once: vectors by the digest of their space's name and their text, without the text. Of
-- chunks and of questions; the ones that nobody has used for longest go first (`CACHE_SIZE`).
create table embedding_cache (
    key       bytea       not null constraint embedding_cache_pk primary key,
    embedding vector      not null,
    used_at   timestamptz not null default now(),
    constraint embedding_cache_digest check (octet_length(key) = 32)
);

-- They are hardly compressible, and read whole.
alter table embedding_cache alter column embedding set storage external;
create index embedding_cache_used_at on embedding_cache (used_at);
