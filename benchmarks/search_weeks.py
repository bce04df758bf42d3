"""Weeks of Search Query Performance rows, made inside the database in the shape of an agency's.

Each of 2,000 ASINs reports 100 queries a week, drawn from 160 of its own, which lie Zipf-like among
80,000. Some come every week and some seldom: two thirds of a week's rows were there the week
before. A query's market totals are the same on every ASIN's row.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import psycopg
from psycopg import sql

ASINS, POOL, QUERIES, ROWS_PER_ASIN = 2_000, 160, 80_000, 100
ACCOUNT, MARKETPLACE = "acme", "ATVPDKIKX0DER"

# A number from 0 to 1 that is always the same for the same arguments.
CHANCE = """
create schema bench;
create function bench.chance(one bigint, two bigint, three bigint) returns double precision
language sql immutable parallel safe
return (hashint8extended(one * 1000003 + two * 7919 + three, 42) & 1073741823) / 1073741824.0;

create table bench.pool as
select
    asin_number,
    query_number,
    'B' || lpad(to_hex(asin_number), 9, '0') as asin,
    'query ' || md5(query_number::text)::char(14) || ' ' || query_number as query,
    bench.chance(asin_number, place, 1) as liking,
    row_number() over (partition by asin_number order by place) as place
from (
    select distinct on (asin_number, query_number) *
    from (
        select
            asin_number,
            place,
            (power(bench.chance(asin_number, place, 2), 2) * {queries})::int as query_number
        from generate_series(1, {asins}) as asins (asin_number)
        cross join generate_series(1, {pool} * 5 / 4) as places (place)
    ) as draws
    order by asin_number, query_number, place
) as distinct_draws;
delete from bench.pool where place > {pool};
alter table bench.pool add digest bytea;
update bench.pool set digest = substr(sha256(convert_to(query, 'UTF8')), 1, 16), asin = upper(asin);
analyze bench.pool;
"""


WEEK = """
create temporary table week_rows on commit drop as
select
    pool.asin,
    pool.query,
    pool.digest,
    pool.query_number,
    pool.asin_number,
    row_number() over (partition by pool.asin_number order by pool.liking) as score
from (
    select
        *,
        row_number() over (
            partition by asin_number
            order by liking + 0.9 * bench.chance(asin_number, query_number, {week}) desc
        ) as rank
    from bench.pool
    where asin_number <= {asins}
) as pool
where rank <= {rows};

insert into landing.sqp_slices (
    account_id, marketplace_id, report_view, period_type, period_start, period_end, subject,
    load_id, slice_digest, row_count, source_file, delivered_at, loaded_at, slice_status,
    accepted_load_id, accepted_digest, accepted_row_count, accepted_at
)
select
    {account}, {marketplace}, 'asin', 'WEEK', {first_day}, {first_day}::date + 6, asin,
    {load}, '\\x00', count(*), 'bench.parquet', now(), now(), 'accepted',
    {load}, '\\x00', count(*), now()
from week_rows
group by asin
on conflict on constraint sqp_slices_key do update
set load_id = excluded.load_id, accepted_load_id = excluded.load_id, accepted_at = now();

select app.create_monthly_partition('landing.sqp_asin', {first_day}::date);

insert into landing.sqp_asin (
    slice_id, load_id, account_id, marketplace_id, period_type, period_start, period_end, asin,
    search_query, query, query_digest, search_query_score, search_query_volume,
    total_query_impression_count, asin_impression_count,
    total_click_count, asin_click_count, total_median_click_price, asin_median_click_price,
    total_cart_add_count, asin_cart_add_count, total_median_cart_add_price,
    asin_median_cart_add_price,
    total_purchase_count, asin_purchase_count, total_median_purchase_price,
    asin_median_purchase_price, currency_code, source_line, slice_digest, loaded_at
)
select
    slices.slice_id, {load}, {account}, {marketplace}, 'WEEK', {first_day}, {first_day}::date + 6,
    week_rows.asin, week_rows.query, week_rows.query, week_rows.digest, week_rows.score,
    market.volume, market.impressions, own.impressions,
    market.clicks, own.clicks, market.price, case when own.clicks > 0 then market.price + 1 end,
    market.cart_adds, own.cart_adds, market.price - 1,
    case when own.cart_adds > 0 then market.price end,
    market.purchases, own.purchases, market.price - 2,
    case when own.purchases > 0 then market.price - 1 end,
    'USD', row_number() over (), '\\x00', now()
from week_rows
inner join landing.sqp_slices as slices
    on
        slices.account_id = {account}
        and slices.period_start = {first_day}
        and slices.period_type = 'WEEK'
        and slices.subject = week_rows.asin
cross join lateral (
    select
        power(10, 2 + 3 * bench.chance(week_rows.query_number, 0, 3))::bigint as volume,
        bench.chance(week_rows.query_number, {week}, 4) as wave
) as base
cross join lateral (
    select
        (base.volume * (20 + 10 * base.wave))::bigint as impressions,
        (base.volume * (0.5 + 0.2 * base.wave))::bigint as clicks,
        (base.volume * (0.2 + 0.1 * base.wave))::bigint as cart_adds,
        (base.volume * (0.05 + 0.05 * base.wave))::bigint as purchases,
        (base.volume * (0.9 + 0.2 * base.wave))::bigint as volume,
        (10 + 40 * bench.chance(week_rows.query_number, 0, 5) + base.wave)::numeric(10, 2) as price
) as market
cross join lateral (
    select power(bench.chance(week_rows.asin_number, week_rows.query_number, {week} + 1000), 3) / 10
        as share
) as luck
cross join lateral (
    select
        1 + (market.impressions * luck.share)::bigint as impressions,
        (market.clicks * luck.share)::bigint as clicks,
        (market.cart_adds * luck.share)::bigint as cart_adds,
        (market.purchases * luck.share)::bigint as purchases
) as own
order by slices.slice_id, week_rows.digest;
drop table week_rows;
"""


def prepare(connection: psycopg.Connection[Any], *, asins: int = ASINS) -> None:
    """Make the pool of ASINs and queries from which weeks are drawn."""
    connection.execute(
        CHANCE.format(queries=QUERIES * asins // ASINS, asins=asins, pool=POOL)  # type: ignore[arg-type]
    )


def deliver_week(
    connection: psycopg.Connection[Any], first_day: date, *, asins: int = ASINS
) -> int:
    """Land one whole week, accepted and in force; returns the id of its load."""
    with connection.transaction():
        load = start_load(connection)
        connection.execute(
            sql.SQL(WEEK).format(
                week=first_day.toordinal() // 7,
                asins=asins,
                rows=ROWS_PER_ASIN,
                account=ACCOUNT,
                marketplace=MARKETPLACE,
                first_day=first_day.isoformat(),
                load=load,
            )
        )
    return load


RESTATE = """
with restated as (
    select slice_id
    from landing.sqp_slices
    where period_type = 'WEEK' and period_start = {first_day}
    order by subject
    limit {asins}
),

slices as (
    update landing.sqp_slices set load_id = {load}, accepted_load_id = {load}, accepted_at = now()
    where slice_id in (select slice_id from restated)
)

update landing.sqp_asin set
    load_id = {load},
    asin_click_count = asin_click_count
        + (bench.chance(hashtext(asin || query), {load}, 6) < {share})::int
where period_start = {first_day} and slice_id in (select slice_id from restated)
"""


def restate(
    connection: psycopg.Connection[Any], first_day: date, *, asins: int, share: float
) -> int:
    """Deliver a week's first so many ASINs again, a share of the rows with one click more."""
    with connection.transaction():
        load = start_load(connection)
        connection.execute(
            sql.SQL(RESTATE).format(
                first_day=first_day.isoformat(), asins=asins, share=share, load=load
            )
        )
    return load


def start_load(connection: psycopg.Connection[Any]) -> int:
    """The id of a completed sync, for rows to belong to."""
    row = connection.execute(
        """
        insert into sqp.sync_log (
            run_id, sync_type, source_table, target_table, lease_until, sync_status,
            started_at, completed_at
        )
        values (gen_random_uuid(), 'weekly', 'bench', 'bench', now(), 'completed', now(), now())
        returning id
        """
    ).fetchone()
    assert row is not None
    return int(row[0])


def weeks_before(first_day: date, number: int) -> list[date]:
    """The Sundays of so many weeks before a week, oldest first."""
    return [first_day - timedelta(weeks=before) for before in range(number, 0, -1)]
