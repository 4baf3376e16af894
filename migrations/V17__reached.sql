-- Whom effects reach, so that policy can ask how often, and whether ever before.

-- A row is written when a step is about to propose, before policy judges, and not flushed: an effect that
-- comes of it is written later and flushes it along. Rows of steps that proposed nothing in the end count
-- for two minutes, so that two runs at the same moment see each other.
create table reached (
    run_id uuid        not null,
    step   text        not null,
    action text        not null,
    -- One spelling: an address in lower case, a URL without query.
    target text        collate "C" not null,
    domain text        collate "C",
    at     timestamptz not null,
    constraint reached_pk primary key (run_id, step, target)
);

create index reached_target on reached (target, action, at);
create index reached_domain on reached (domain) where domain is not null;
create index reached_action on reached (action, at);

-- It goes with its run, whichever way that is removed.
create function reached_goes_with_its_run() returns trigger language plpgsql as $$
begin
    delete from reached where run_id in (select id from gone);
    return null;
end $$;

create trigger reached_gone after delete on runs referencing old table as gone
    for each statement execute function reached_goes_with_its_run();

-- What was done before this table was there.
insert into reached (run_id, step, action, target, domain, at)
select e.run_id, e.step, e.action, lower(t.target), split_part(lower(t.target), '@', 2), max(e.proposed_at)
from effects e cross join lateral (
    select e.request ->> 'to' as target where jsonb_typeof(e.request -> 'to') = 'string'
    union all
    select jsonb_array_elements_text(e.request -> 'to') where jsonb_typeof(e.request -> 'to') = 'array'
) as t
where e.action = 'email.send' and t.target ~ '^[^@[:space:]<>,;"]+@[^@[:space:]<>,;"]+$'
    and length(t.target) <= 320
group by 1, 2, 3, 4, 5
on conflict do nothing;

insert into reached (run_id, step, action, target, domain, at)
select e.run_id, e.step, e.action, regexp_replace(e.request ->> 'url', '[?#].*$', ''),
    lower(substring(e.request ->> 'url' from '^https?://([^/:?#@]+)')), max(e.proposed_at)
from effects e
where e.action = 'http.request' and e.request ->> 'url' ~ '^https?://[^/:?#@]+' and length(e.request ->> 'url') <= 500
group by 1, 2, 3, 4, 5
on conflict do nothing;
