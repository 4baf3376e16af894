-- Memory: documents with their chunks, and records. Superseded, never overwritten.

create extension if not exists vector;

-- Vectors of different spaces must never meet: equal dimensions do not make them comparable.
create table embedding_spaces (
    id         integer     generated always as identity constraint embedding_spaces_pk primary key,
    model      text        not null constraint embedding_spaces_model unique,
    dimensions integer     not null,
    active     boolean     not null default false
);

create unique index embedding_spaces_active on embedding_spaces (active) where active;

create table documents (
    id            uuid        not null constraint documents_pk primary key,
    path          text        not null,
    version       integer     not null,
    title         text        not null,
    digest        bytea       not null,
    label         text        not null
        constraint documents_label check (label in ('owner', 'system', 'model', 'untrusted')),
    added_at      timestamptz not null default now(),
    superseded_at timestamptz,
    constraint documents_version unique (path, version)
);

create unique index documents_current on documents (path) where superseded_at is null;

-- Numbers are written as INV-2024-0042, INV/2024/0042 or INV 2024 0042: taken apart at their joints,
-- in what is stored and in what is asked, they all meet.
create function loosened(text text) returns text language sql immutable parallel safe
    return regexp_replace(text, '(\w)[-/_](?=\w)', '\1 ', 'g');

create table chunks (
    document  uuid    not null constraint chunks_document references documents,
    place     integer not null,
    heading   text    not null,
    text      text    not null,
    tsv       tsvector generated always as (
        setweight(to_tsvector('english', loosened(heading)), 'A')
        || to_tsvector('english', loosened(text))) stored,
    constraint chunks_pk primary key (document, place)
);

create index chunks_text on chunks using gin (tsv);

-- Apart from the chunks, because a chunk may be in two spaces while a new one is being built. A vector
-- can always be made again from its text, so superseding a document drops its vectors: the nearest
-- neighbours are then always current ones. Each space gets an HNSW index of its own when it is
-- registered (`embeddings_space_<id>`): dimensions differ, and neighbours must never mix.
create table embeddings (
    space_id  integer not null constraint embeddings_space references embedding_spaces,
    document  uuid    not null,
    place     integer not null,
    embedding vector  not null,
    constraint embeddings_pk primary key (document, place, space_id),
    constraint embeddings_chunk foreign key (document, place) references chunks
);

create table records (
    kind       text        not null,
    key        text        not null,
    version    bigint      not null,
    data       jsonb       not null,
    label      text        not null
        constraint records_label check (label in ('owner', 'system', 'model', 'untrusted')),
    updated_at timestamptz not null default now(),
    constraint records_pk primary key (kind, key)
);

-- `effect` makes a repeated write harmless: it finds its own version and gives it back.
create table record_versions (
    kind    text        not null,
    key     text        not null,
    version bigint      not null,
    data    jsonb       not null,
    label   text        not null,
    effect  uuid        constraint record_versions_effect unique,
    at      timestamptz not null default now(),
    constraint record_versions_pk primary key (kind, key, version)
);
