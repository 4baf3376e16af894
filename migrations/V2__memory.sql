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

create table chunks (
    document  uuid    not null constraint chunks_document references documents,
    place     integer not null,
    heading   text    not null,
    text      text    not null,
    tsv       tsvector generated always as (
        setweight(to_tsvector('english', heading), 'A') || to_tsvector('english', text)) stored,
    space_id  integer not null constraint chunks_space references embedding_spaces,
    embedding vector(384) not null,
    constraint chunks_pk primary key (document, place)
);

create index chunks_text on chunks using gin (tsv);
create index chunks_embedding on chunks using hnsw (embedding vector_cosine_ops);

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
