{% macro sqp_touched_queries(period) -%}
    {{ return(adapter.dispatch('sqp_touched_queries')(period)) }}
{%- endmacro %}

{% macro postgres__sqp_touched_queries(period) -%}
    select
        weekly_summary.account_id,
        weekly_summary.marketplace_id,
        weekly_summary.query_digest,
        {{ first_day_of_period(period, 'weekly_summary.period_start') }} as period_start
    from (
        select *
        from {{ ref('weekly_summary') }}
    ) as weekly_summary
    inner join (
        select *
        from {{ ref('int_sqp__slices_to_rebuild') }}
    ) as slices
        on weekly_summary.account_id = slices.account_id
        and weekly_summary.marketplace_id = slices.marketplace_id
        and weekly_summary.asin = slices.asin
        and weekly_summary.period_start = slices.period_start
    where {{ within_touched_periods('weekly_summary.period_start', period) }}

    union all

    select
        held.account_id,
        held.marketplace_id,
        held.query_digest,
        held.period_start
    from {{ this }} as held
    inner join (
        select distinct
            account_id,
            marketplace_id,
            asin,
            {{ first_day_of_period(period, 'period_start') }} as period_start
        from {{ ref('int_sqp__slices_to_rebuild') }}
    ) as asins
        on held.account_id = asins.account_id
        and held.marketplace_id = asins.marketplace_id
        and held.asin = asins.asin
        and held.period_start = asins.period_start
    where {{ within_touched_periods('held.period_start', period) }}
{%- endmacro %}

{% macro bigquery__sqp_touched_queries(period) -%}
    select distinct
        account_id,
        marketplace_id,
        query_digest,
        {{ first_day_of_period(period, 'period_start') }} as period_start
    from {{ ref('weekly_summary') }}
    where {{ first_day_of_period(period, 'period_start') }} in (
        select {{ first_day_of_period(period, 'period_start') }}
        from {{ ref('int_sqp__slices_to_rebuild') }}
    )
{%- endmacro %}
