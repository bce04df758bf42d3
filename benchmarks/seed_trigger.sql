-- The specification's row trigger, extended to quarters and to the columns of today, on twins of
-- the summaries as they stand: with its keys and indexes, and none of ours.
create schema seed;
create table seed.weekly_summary (like sqp.weekly_summary including defaults);
alter table seed.weekly_summary add column id bigserial primary key;
create table seed.monthly_summary (like sqp.monthly_summary including defaults);
create table seed.quarterly_summary (like sqp.quarterly_summary including defaults);
do $do$
declare
    held record;
begin
    for held in
        select attrelid::regclass as relation, attname
        from pg_attribute
        where
            attrelid::regclass::text like 'seed.%summary'
            and attnum > 0
            and attnotnull
            and attname not in ('id', 'period_start', 'query', 'asin', 'year', 'month', 'quarter')
    loop
        execute format('alter table %s alter %I drop not null', held.relation, held.attname);
    end loop;
end;
$do$;
insert into seed.weekly_summary select * from sqp.weekly_summary
where period_start >= (select max(period_start) - 60 from sqp.weekly_summary)
order by period_start, query, asin;
insert into seed.monthly_summary select * from sqp.monthly_summary
where period_start >= (select max(period_start) - 60 from sqp.monthly_summary);
insert into seed.quarterly_summary select * from sqp.quarterly_summary
where period_start = (select max(period_start) from sqp.quarterly_summary);
alter table seed.weekly_summary add unique (period_start, query, asin);
alter table seed.monthly_summary add unique (year, month, query, asin);
alter table seed.quarterly_summary add unique (year, quarter, query, asin);
create index on seed.weekly_summary (last_synced_at, bigquery_sync_id);

create function seed.update_aggregate_summaries() returns trigger
language plpgsql
as $function$
begin
    insert into seed.monthly_summary as held (
        period_start, period_end, year, month, query, asin, total_impressions, total_clicks,
        total_purchases, avg_ctr, avg_cvr, impression_share, click_share, purchase_share,
        account_id, marketplace_id, query_digest, search_query_score, search_query_volume,
        total_query_impression_count, total_click_count, total_cart_add_count,
        total_purchase_count, cart_adds, cart_add_rate, cart_add_share,
        total_median_click_price, asin_median_click_price, total_median_cart_add_price,
        asin_median_cart_add_price, total_median_purchase_price, asin_median_purchase_price,
        currency_code, active_weeks, market_weeks, updated_at
    )
    values (
        date_trunc('month', new.period_start), date_trunc('month', new.period_start) + interval
        '1 month - 1 day', extract(year from new.period_start), extract(month from
        new.period_start), new.query, new.asin, new.total_impressions, new.total_clicks,
        new.total_purchases, new.avg_ctr, new.avg_cvr, new.impression_share, new.click_share,
        new.purchase_share, new.account_id, new.marketplace_id, new.query_digest,
        new.search_query_score, new.search_query_volume, new.total_query_impression_count,
        new.total_click_count, new.total_cart_add_count, new.total_purchase_count,
        new.cart_adds, new.cart_add_rate, new.cart_add_share, new.total_median_click_price,
        new.asin_median_click_price, new.total_median_cart_add_price,
        new.asin_median_cart_add_price, new.total_median_purchase_price,
        new.asin_median_purchase_price, new.currency_code, 1, 1, current_timestamp
    )
    on conflict (year, month, query, asin) do update set
        total_impressions = held.total_impressions + excluded.total_impressions,
        total_clicks = held.total_clicks + excluded.total_clicks,
        total_purchases = held.total_purchases + excluded.total_purchases,
        avg_ctr = case when held.total_impressions + excluded.total_impressions > 0
            then (held.total_clicks + excluded.total_clicks)::decimal / (held.total_impressions + excluded.total_impressions) else 0 end,
        avg_cvr = case when held.total_clicks + excluded.total_clicks > 0
            then (held.total_purchases + excluded.total_purchases)::decimal / (held.total_clicks + excluded.total_clicks) else 0 end,
        updated_at = current_timestamp;
    insert into seed.quarterly_summary as held (
        period_start, period_end, year, quarter, query, asin, total_impressions, total_clicks,
        total_purchases, avg_ctr, avg_cvr, impression_share, click_share, purchase_share,
        account_id, marketplace_id, query_digest, search_query_score, search_query_volume,
        total_query_impression_count, total_click_count, total_cart_add_count,
        total_purchase_count, cart_adds, cart_add_rate, cart_add_share,
        total_median_click_price, asin_median_click_price, total_median_cart_add_price,
        asin_median_cart_add_price, total_median_purchase_price, asin_median_purchase_price,
        currency_code, active_weeks, active_months, market_weeks, updated_at
    )
    values (
        date_trunc('quarter', new.period_start), date_trunc('quarter', new.period_start) +
        interval '3 months - 1 day', extract(year from new.period_start), extract(quarter from
        new.period_start), new.query, new.asin, new.total_impressions, new.total_clicks,
        new.total_purchases, new.avg_ctr, new.avg_cvr, new.impression_share, new.click_share,
        new.purchase_share, new.account_id, new.marketplace_id, new.query_digest,
        new.search_query_score, new.search_query_volume, new.total_query_impression_count,
        new.total_click_count, new.total_cart_add_count, new.total_purchase_count,
        new.cart_adds, new.cart_add_rate, new.cart_add_share, new.total_median_click_price,
        new.asin_median_click_price, new.total_median_cart_add_price,
        new.asin_median_cart_add_price, new.total_median_purchase_price,
        new.asin_median_purchase_price, new.currency_code, 1, 1, 1, current_timestamp
    )
    on conflict (year, quarter, query, asin) do update set
        total_impressions = held.total_impressions + excluded.total_impressions,
        total_clicks = held.total_clicks + excluded.total_clicks,
        total_purchases = held.total_purchases + excluded.total_purchases,
        avg_ctr = case when held.total_impressions + excluded.total_impressions > 0
            then (held.total_clicks + excluded.total_clicks)::decimal / (held.total_impressions + excluded.total_impressions) else 0 end,
        avg_cvr = case when held.total_clicks + excluded.total_clicks > 0
            then (held.total_purchases + excluded.total_purchases)::decimal / (held.total_clicks + excluded.total_clicks) else 0 end,
        updated_at = current_timestamp;
    return new;
end;
$function$;
create trigger update_summaries_on_weekly_insert
after insert or update on seed.weekly_summary
for each row execute function seed.update_aggregate_summaries();
analyze seed.weekly_summary, seed.monthly_summary, seed.quarterly_summary;
