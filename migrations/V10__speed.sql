-- Less to write for each step and each run.

-- The content exactly as it was sealed: the very text of canonical JSON. It is smaller than `jsonb` and need
-- not be taken apart to be written; `data ->> 'step'` reads both alike. Its digest, which the hash covers, is
-- `sha256(convert_to(data::text, 'UTF8'))` and need not be kept beside it: `data_digest` is for content that
-- was erased. What was written before keeps its digest, for its text was not kept.
alter table journal alter column data type json using data::json;
alter table journal alter column data_digest drop not null;
alter table journal add constraint journal_content check (data is not null or data_digest is not null);

-- A run that was opened without a key has none: its own id would only repeat what `runs_pk` holds.
alter table runs alter column idempotency_key drop not null;

-- A run's id carries the time at which it was opened: the primary key lists runs by age.
drop index if exists runs_opened_at;

-- Every opening locked its version's row for the foreign key, which takes a record in the log, and a shared
-- lock to keep where several open at once. Versions are never changed; what is left to refuse is removing one.
alter table runs drop constraint runs_version;

create function workflow_versions_are_kept() returns trigger language plpgsql as $$
begin
    if exists (select from runs where version = old.digest) then
        raise exception 'runs are pinned to this version'
            using errcode = 'foreign_key_violation', constraint = 'runs_version', table = 'runs';
    end if;
    return old;
end $$;

create trigger workflow_versions_kept before delete on workflow_versions
    for each row execute function workflow_versions_are_kept();
