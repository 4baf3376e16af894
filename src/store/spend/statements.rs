//! The ledger's statements. Each locks rows of `spend` in the order of their keys, and nothing locks an
//! entry while it waits for a row of `spend` but the roll-up: nobody waits in a circle.
//!
//! `x = any(array)` beside a join tells PostgreSQL to find the rows by their keys whatever it thinks of the
//! length of the array; see [`PLANNING`].

/// What is joined here are arrays and the rows found for them, hundreds of each: by nested loops that is
/// quadratic, and PostgreSQL, which takes arrays for ten rows, would choose them.
pub(super) const PLANNING: &str = "
    set plan_cache_mode = force_generic_plan;
    set enable_seqscan = off;
    set enable_bitmapscan = off;
    set enable_nestloop = off;";

/// Rows for accounts that are new.
pub(super) const ENSURE: &str = "
    insert into spend (account, scope, run_id, workflow, period)
    select * from unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[])
    on conflict do nothing";

/// Sets money aside for as many asks as fit, each in all of its accounts or in none.
///
/// `$1` are all accounts; `$2` to `$6` one row per ask and account: the ask's place in the batch, account,
/// worst case, limit, what is allowed beyond it; `$7` on one row per ask. Asks that would fit alone share
/// what is left in their order; one that would fit but for its neighbours is neither accepted nor
/// refused, and comes again. What comes back for each ask that was not accepted: the account that lacks
/// most, or none when it would fit, and whether a row is missing.
pub(super) const RESERVE: &str = "
    with held as (
        select account, reserved + settled as used from spend
        where account = any($1::text[]) order by account for update
    ),
    asked as (
        select a.ask, a.account, a.worst, a.base, a.base + a.extra as most, h.used,
            bool_and(h.account is not null) over (partition by a.ask) as known,
            bool_and(h.account is not null and (a.base is null or h.used + a.worst <= a.base + a.extra))
                over (partition by a.ask) as fits
        from unnest($2::int4[], $3::text[], $4::int8[], $5::int8[], $6::int8[])
            as a (ask, account, worst, base, extra)
        left join held h on h.account = a.account
    ),
    queued as (
        select ask, bool_and(base is null or used + ahead <= most) as room
        from (
            select ask, base, used, most,
                sum(worst) over (partition by account order by ask rows unbounded preceding) as ahead
            from asked where fits
        ) as line group by ask
    ),
    accepted as (
        select ask from queued where room
    ),
    entered as (
        insert into spend_entries (id, run_id, workflow, step, attempt, model, accounts, day, reserved_micros,
            expires_at)
        select e.id, e.run_id, e.workflow, e.step, e.attempt, e.model, w.accounts, e.day, e.worst,
            now() + make_interval(secs => e.life)
        from unnest($7::int4[], $8::uuid[], $9::uuid[], $10::text[], $11::text[], $12::int4[], $13::text[],
            $14::date[], $15::int8[], $16::float8[])
            as e (ask, id, run_id, workflow, step, attempt, model, day, worst, life)
        join (select ask, array_agg(account) as accounts from asked group by ask) as w on w.ask = e.ask
        where (e.ask in (select ask from accepted)) is true
    ),
    paid as (
        update spend s
        set reserved = s.reserved + p.worst,
            limit_micros = p.base,
            ceiling = greatest(s.ceiling, p.most),
            changed_at = now()
        from (
            select account, sum(worst)::int8 as worst, max(base) as base,
                max(coalesce(most, 9223372036854775807)) as most
            from asked where (ask in (select ask from accepted)) is true group by account
        ) as p
        where s.account = any($1::text[]) and s.account = p.account
    )
    select distinct on (a.ask) a.ask, not a.known as missing, a.fits, a.account, a.most, a.used, a.worst
    from asked a
    where (a.ask in (select ask from accepted)) is not true
    order by a.ask, a.used - a.most desc nulls last";

/// Ends calls that no run journals.
pub(super) const END: &str = "
    update spend_entries e
    set status = q.status, rolled = false, ended_at = now(),
        settled_micros = case when q.status = 'settled' then greatest(q.cost, 0) end
    from unnest($1::uuid[], $2::text[], $3::int8[]) as q (id, status, cost)
    where e.id = any($1::uuid[]) and e.id = q.id and (e.status = 'reserved' or e.status = 'assumed' and q.status = 'settled')";

/// What nobody settled in its time is taken for spent.
pub(super) const EXPIRE: &str = "
    with due as (
        select id from spend_entries where status = 'reserved' and expires_at <= now()
        order by expires_at limit $1 for update skip locked
    )
    update spend_entries e set status = 'assumed', rolled = false, ended_at = now()
    from due where e.id = any((select array_agg(id) from due)::uuid[]) and e.id = due.id";

/// Brings `spend` up to date with entries that ended, and notes each share `$2` of a limit that is passed.
/// A run's share is nobody's news: only days and months are told of.
pub(super) const ROLL_UP: &str = "
    with due as (
        select id, accounts, freed, cost - counted_micros as more,
            greatest(cost - reserved_micros, 0) - greatest(counted_micros - reserved_micros, 0) as over,
            case when held and status <> 'released' then 1 else 0 end as calls
        from (
            select id, accounts, status, held, counted_micros, reserved_micros,
                case when held then reserved_micros else 0 end as freed,
                case status when 'settled' then settled_micros when 'assumed' then reserved_micros else 0 end
                    as cost
            from spend_entries where not rolled and status <> 'reserved'
            order by id limit $1 for update skip locked
        ) as ended
    ),
    change as (
        select account, sum(freed)::int8 as freed, sum(more)::int8 as more, sum(over)::int8 as over,
            sum(calls)::int8 as calls
        from due, unnest(due.accounts) as account group by account
    ),
    locked as (
        select account from spend
        where account = any((select array_agg(account) from change)::text[]) order by account for update
    ),
    changed as (
        update spend s
        set reserved = s.reserved - c.freed,
            settled = s.settled + c.more,
            overrun = s.overrun + c.over,
            calls = s.calls + c.calls,
            changed_at = now()
        from locked l join change c on c.account = l.account
        where s.account = any((select array_agg(account) from change)::text[]) and s.account = l.account
        returning s.account, s.scope, s.settled, s.limit_micros
    ),
    rolled as (
        update spend_entries e set rolled = true, held = false, counted_micros = e.counted_micros + d.more
        from due d where e.id = any((select array_agg(id) from due)::uuid[]) and e.id = d.id
        returning e.id
    ),
    passed as (
        insert into spend_thresholds (account, percent, limit_micros, used_micros)
        select c.account, p.percent, c.limit_micros, c.settled
        from changed c, unnest($2::int4[]) as p (percent)
        where c.scope <> 'run' and c.limit_micros > 0
            and c.settled::numeric * 100 >= c.limit_micros::numeric * p.percent
        on conflict do nothing
        returning account, percent, limit_micros, used_micros
    )
    select (select count(*) from rolled), p.account, p.percent, p.limit_micros, p.used_micros
    from (select 1) as one left join passed p on true order by p.account, p.percent";

/// A call had to be refused: the account counts as spent, whatever little is left of it.
pub(super) const REFUSED: &str = "
    insert into spend_thresholds (account, percent, limit_micros, used_micros)
    select * from unnest($1::text[], $2::int4[], $3::int8[], $4::int8[])
    on conflict do nothing
    returning account, percent, limit_micros, used_micros";

/// Entries of removed runs, and of no run that ended before `$2`, as soon as `spend` has all of them.
pub(super) const ARCHIVE: &str = "
    with of_runs as (
        select e.id from spend_entries e join removed_runs r on r.run_id = e.run_id
        where e.rolled and e.status <> 'reserved' limit $1 for update of e skip locked
    ),
    of_none as (
        select id from spend_entries
        where run_id is null and ended_at < $2 and rolled and status <> 'reserved' limit $1 for update skip locked
    ),
    gone as (
        delete from spend_entries where id in (select id from of_runs union all select id from of_none)
        returning accounts, counted_micros
    ),
    change as (
        select account, sum(counted_micros)::int8 as counted
        from gone, unnest(gone.accounts) as account group by account
    ),
    locked as (
        select account from spend
        where account = any((select array_agg(account) from change)::text[]) order by account for update
    ),
    archived as (
        update spend s set archived = s.archived + c.counted
        from locked l join change c on c.account = l.account where s.account = l.account
    )
    select count(*) from gone";

/// The accounts of removed runs, once no entry names them.
pub(super) const FORGET_RUNS: &str = "
    delete from spend s using removed_runs r
    where s.account = 'run/' || r.run_id and s.scope = 'run' and s.reserved = 0
        and not exists (select from spend_entries e where e.run_id = r.run_id)";
