//! The statements of [`super`].

pub(super) const KEEP: &str = "
    insert into batch_calls (id, run_id, step, provider, remote, model, reservation, worst_micros, request,
        request_bytes, draft)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// What has not come back is not waited for any longer: what was never sent never will be.
pub(super) const GIVE_UP: &str = "
    update batch_calls set ended_at = now(),
        fault = case when batch is null then 'unsent' else 'late' end,
        why = case when batch is null then 'it did not go into a batch in time'
            else 'the batch was not done when its time was up' end
    where id = $1 and ended_at is null";

pub(super) const TAKE: &str = "
    select id, model, reservation, worst_micros, request, request_bytes, draft, status, response, response_bytes,
        fault, why, extract(epoch from ended_at - created_at)::float8 as took
    from batch_calls where id = $1";

pub(super) const WANTED: &str = "
    select distinct provider, remote from batch_calls where batch is null and ended_at is null";

/// Takes what its run waits for and the owner does not hold: in the order it came, up to `$3` calls and `$4`
/// bytes, once that much is there or the first has waited for `$5` seconds.
pub(super) const FORM: &str = "
    with waiting as (
        select c.id, c.created_at, c.request_bytes
        from batch_calls c
        join waits w on w.run_id = c.run_id and w.step = c.step and w.name = $7 and w.match = c.id::text
        join runs r on r.id = c.run_id
        where c.provider = $1 and c.remote = $2 and c.batch is null and c.ended_at is null
            and r.status <> 'paused'
            and not exists (select from pauses p where p.scope in ('all', 'workflow:' || r.workflow))
        order by c.created_at, c.id limit $3::int8 for update of c skip locked
    ),
    counted as (
        select id, created_at, sum(request_bytes) over line as bytes, row_number() over line as place
        from waiting window line as (order by created_at, id rows unbounded preceding)
    ),
    gathered as (
        select id from counted where bytes <= $4::int8 or place = 1
    ),
    ready as (
        select from counted
        having count(*) >= $3::int8 or max(bytes) > $4::int8
            or min(created_at) <= now() - make_interval(secs => $5::float8)
    ),
    formed as (
        insert into batches (id, provider, model) select $6, $1, $2 from ready returning id
    )
    update batch_calls c set batch = f.id from formed f where c.id in (select id from gathered)";

pub(super) const CLAIM: &str = "
    update batches set claim = $1, claimed_until = now() + make_interval(secs => $2::float8)
    where id = (
        select id from batches
        where status <> 'over' and look_at <= now() and provider = any($3::text[])
            and (claimed_until is null or claimed_until <= now())
        order by look_at limit 1 for update skip locked)
    returning id, provider, status, file, batch, failures, submitting_at,
        extract(epoch from now() - formed_at)::float8 as age,
        extract(epoch from now() - submitting_at)::float8 as perhaps";

pub(super) const ADVANCE: &str = "
    update batches set claimed_until = now() + make_interval(secs => $3::float8),
        status = coalesce($4, status), file = coalesce($5, file), batch = coalesce($6, batch),
        submitting_at = case when $4 = 'submitting' then now() else submitting_at end,
        submitted_at = case when $4 = 'submitted' then now() else submitted_at end,
        failures = case when $4 is null then failures else 0 end
    where id = $1 and claim = $2 and claimed_until > now() and status <> 'over'";

pub(super) const LEAVE: &str = "
    update batches set claim = null, claimed_until = null, look_at = now() + make_interval(secs => $3::float8),
        why = $4, failures = case when $4::text is null then 0 else failures + 1 end
    where id = $1 and claim = $2 and status <> 'over'";

pub(super) const QUESTIONS: &str = "
    select id, request, request_bytes from batch_calls where batch = $1 and ended_at is null order by created_at, id";

pub(super) const END: &str = "
    with over as (
        update batches set status = 'over', why = $3, ended_at = now(), claim = null, claimed_until = null
        where id = $1 and claim = $2 and claimed_until > now() and status <> 'over'
        returning id
    ),
    wanted as (
        select c.id, exists (
                select from waits w
                where w.run_id = c.run_id and w.step = c.step and w.name = $10 and w.match = c.id::text
            ) as awaited
        from batch_calls c join over on c.batch = over.id where c.ended_at is null for update of c
    ),
    ended as (
        update batch_calls c
        set ended_at = now(), status = e.status, response = e.response, response_bytes = e.bytes, fault = e.fault,
            why = e.why, unheard = not w.awaited
        from wanted w join unnest($4::uuid[], $5::int4[], $6::bytea[], $7::int8[], $8::text[], $9::text[])
            as e (id, status, response, bytes, fault, why) on e.id = w.id
        where c.id = w.id
        returning c.id, c.reservation, c.model, c.fault, w.awaited
    ),
    told as (
        insert into events (id, name, match, data, label, key)
        select gen_random_uuid(), $10, id::text, '{}', 'system', $10 || ':' || id from ended
        on conflict on constraint events_key do nothing
    )
    select e.id, e.reservation, e.model, e.fault, e.awaited from over left join ended e on true";

/// What the owner holds is not late: it waits until its run gives it up.
pub(super) const END_UNSENT: &str = "
    with found as (
        select c.id, w.run_id is not null as awaited
        from batch_calls c
        left join waits w on w.run_id = c.run_id and w.step = c.step and w.name = $4 and w.match = c.id::text
        left join runs r on r.id = c.run_id
        where c.batch is null and c.ended_at is null
            and case when w.run_id is null then c.created_at <= now() - make_interval(secs => $2::float8)
                else c.created_at <= now() - make_interval(secs => $1::float8) and r.status <> 'paused'
                    and not exists (select from pauses p where p.scope in ('all', 'workflow:' || r.workflow)) end
        order by c.created_at limit $3 for update of c skip locked
    ),
    ended as (
        update batch_calls c
        set ended_at = now(), fault = 'unsent', unheard = not f.awaited,
            why = case when f.awaited then 'no batch took it in time' else 'nobody waited for it' end
        from found f where c.id = f.id
        returning c.id, c.reservation, c.model, c.fault, f.awaited
    ),
    told as (
        insert into events (id, name, match, data, label, key)
        select gen_random_uuid(), $4, id::text, '{}', 'system', $4 || ':' || id from ended
        on conflict on constraint events_key do nothing
    )
    select id, reservation, model, fault, awaited from ended";

pub(super) const FORGET: &str = "
    update batch_calls set request = null, response = null, draft = null
    where id in (
        select c.id from batch_calls c join runs r on r.id = c.run_id
        where r.finished_at is not null and c.ended_at is not null and c.request is not null limit $1)";
